//! What a user is promised, seen by real clients of real agents. One test at a time.

mod disk;
mod exec;
mod input;
mod kills;
mod kv;
mod lifecycle;
mod membership;
mod planned;
mod restart;
