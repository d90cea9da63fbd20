//! `libcopper.so`: answers the file calls of ordinary programs from the node's shared memory.
//!
//! One file per family of hooks; each hook finds out through [`target`] whether its path is
//! covered, answers from the catalog where it can, and otherwise makes the call that the program
//! meant. Nothing here allocates on the way to an answer, takes a lock, or keeps a descriptor.
#![no_std]

mod access;
mod ask;
mod change;
mod content;
mod control;
mod copying;
mod counters;
mod credentials;
mod cwd;
mod descriptor;
mod directory;
mod dynamic_section;
mod entries;
mod environment;
mod exec;
mod filesystem;
mod foreign;
mod fts;
mod glob;
mod holes;
mod links;
mod loader;
mod locks;
mod memory;
mod modify;
mod next_definition;
mod open;
mod original;
mod process;
mod program;
mod raw;
mod scope;
mod scratch;
mod seccomp;
mod session;
mod spawn;
mod stat;
mod stdio;
mod stored_program;
mod sys;
mod target;
mod temporary;
mod walk;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: abort takes no argument and does not return.
    unsafe { libc::abort() }
}

/// The core crate's helper side allocates; the shim never does, and this makes sure of it.
struct NoAllocation;

// SAFETY: a null pointer is a valid answer, and what was never given is never given back.
unsafe impl core::alloc::GlobalAlloc for NoAllocation {
    unsafe fn alloc(&self, _: core::alloc::Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}

#[global_allocator]
static NO_ALLOCATION: NoAllocation = NoAllocation;
