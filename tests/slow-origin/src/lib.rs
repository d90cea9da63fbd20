//! Starts, drives and stops a slow origin: a pass-through FUSE mount that stands for a busy
//! parallel file system, counts every operation it serves, and fails where a test asks it to.
//!
//! The mount is served by the program `slow-origin` of this package, in a process of its own, so
//! that a test may stop or kill what uses the mount without harm to the mount itself.
#![forbid(unsafe_code)]

mod client;
pub mod protocol;

pub use client::SlowOrigin;
pub use protocol::{Counts, Fault, FaultKind, Load, Operation};
