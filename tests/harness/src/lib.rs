//! Runs programs plain, in the view and under a covered prefix, and compares what they say.
//!
//! The tests themselves lie in `tests/`. They need the release build of the helper, the shim, the
//! call counter and the slow origin (`scripts/test.sh` makes them), gcc, and root for the cases
//! that need a mount.
#![forbid(unsafe_code)]

pub mod browser;
pub mod call_counts;
pub mod cluster;
pub mod compare;
pub mod environment;
pub mod origin;
pub mod python;
pub mod random;
pub mod session;
pub mod tree;
