//! What a user is promised, seen by real clients of real agents. One test at a time.

mod branches;
mod copies;
mod disk;
mod exec;
mod input;
mod kills;
mod kv;
mod lifecycle;
mod log;
mod membership;
mod partition;
mod planned;
mod poison;
mod recover;
mod restart;
mod scripts;
mod succession;
mod two_nodes;
