//! The transport and the meeting by themselves: their modules' own tests, two helpers in one
//! process, without the rest of the daemon.

#[path = "../src/fabric/mod.rs"]
mod fabric;
#[path = "../src/meeting/mod.rs"]
mod meeting;
