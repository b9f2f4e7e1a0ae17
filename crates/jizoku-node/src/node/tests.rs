//! Several Nodes in memory: a world whose consensus is one list of commands that only a majority
//! extends, whose links are whole or cut, and whose Runners do at once what they are told.

mod branches;
mod sets;
mod storm;
mod takeover;
mod world;
