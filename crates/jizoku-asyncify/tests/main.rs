//! Tests of the pass by what its output does: programs are run, unwound, thrown away, rewound in
//! new instances, and compared with an uninterrupted run of the module as it was.

mod admission;
mod harness;
mod hostile;
mod program;
mod protocol;
mod random;
mod shapes;
