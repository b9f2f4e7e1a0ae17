//! What a user is promised, seen by real clients of real agents. One test at a time.

mod exec;
mod input;
mod kv;
mod lifecycle;
mod planned;
