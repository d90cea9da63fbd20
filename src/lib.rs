//! What the shim (`libcopper.so`) and the helper (`copper`) share, and all that decides.
//!
//! The crate is `no_std`, so that the shim that links it stays small and safe to enter from
//! signal handlers and from inside `malloc`; `alloc` is used by the helper's side alone.
//!
//! - [`path`]: which paths are covered, and the normal form of a path, without allocation
//! - [`attributes`]: a file's attributes as the catalog and the wire carry them
//! - [`location`]: where a job keeps its runtime directory
//! - [`catalog`]: the node's shared-memory index and how a path is resolved in it
//! - [`control`]: what a user can have dumped, cleared and set back
//! - [`counters`]: what programs ask and how it is answered, counted in shared memory
//! - [`store`]: where a store file lies
//! - [`request`]: what the shim asks its helper over the local socket
//! - [`user_ids`]: user and group numbers as a user namespace has them
//! - [`tree`]: the cooperative tree as a state machine
#![no_std]

extern crate alloc;
#[cfg(any(test, loom))]
extern crate std;

pub mod attributes;
pub mod catalog;
pub mod control;
pub mod counters;
pub mod lending;
pub mod location;
pub mod path;
pub mod request;
pub mod store;
pub mod tree;
pub mod user_ids;
