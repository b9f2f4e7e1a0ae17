//! Syntax: from text to a tree, with every mistake that can be told apart.
//!
//! - [`lexer`]: text to tokens; comments are kept aside for the formatter
//! - [`tree`]: what a script says; names are places in the text
//! - [`parser`]: tokens to tree; goes on after a mistake at the next statement
//!
//! What it does not know: types, functions, who may do what.
//!
//! Invariants
//! - No input panics, and the work grows with the length of the text only.
//! - Nesting is at most [`DEPTH_MAX`](crate::limits::DEPTH_MAX) deep.
//! - Newlines end statements, except inside parentheses and brackets.

pub(crate) mod lexer;
pub(crate) mod parser;
pub(crate) mod tree;

#[cfg(test)]
mod tests;
