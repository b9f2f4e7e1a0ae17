//! What the tests here have in common: guest programs, and a service with its gateway.

pub(crate) mod guests;
pub(crate) mod house;
pub(crate) mod kv;
