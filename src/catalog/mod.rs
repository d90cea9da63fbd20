//! The node's shared-memory index: path → attributes, link target, directory listing, "absent".
//!
//! - [`layout`]: the memory, byte by byte
//! - [`memory`]: the one place that turns shared memory into references
//! - [`reader`]: lock-free look-ups, for the shim
//! - [`resolve`]: the walk along a path, link by link, as the kernel would do it
//! - [`writer`]: the one writer, the helper
pub mod layout;
pub mod memory;
pub mod reader;
pub mod resolve;
pub mod writer;

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
