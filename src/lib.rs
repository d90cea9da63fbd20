//! What the shim (`libcopper.so`) and the helper (`copper`) share, and all that decides.
//!
//! The crate is `no_std`, so that the shim that links it stays small and safe to enter from
//! signal handlers and from inside `malloc`; `alloc` is used by the helper's side alone.
#![no_std]

extern crate alloc;

pub mod tree;
