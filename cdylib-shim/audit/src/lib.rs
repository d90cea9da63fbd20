//! `libcopper-audit.so`: gives the dynamic loader the store's libraries where no preloaded hook is
//! asked, at a program's start and along absolute search paths.
//!
//! The loader runs it by `LD_AUDIT` in a namespace of its own, and asks it for each name that it
//! searches for and for each file that it is about to open. It needs no other library, not even
//! libc, so it leaves the program's own search as it is. It makes no PLT call slower where the
//! loader asks for PLT hooks only libraries that have some (glibc 2.35 and newer).
//!
//! The loader holds its lock whenever it calls, so nothing here needs one.
#![no_std]

mod builtins;
mod cache;
mod counters;
mod link_map;
mod place;
mod process;
mod search;
mod static_tls;
mod stored;
mod system;

// Shared with the shim: how a helper is found, believed and asked.
#[allow(dead_code, reason = "the shim uses all of it")]
#[path = "../../src/ask.rs"]
mod ask;
#[path = "../../src/dynamic_section.rs"]
mod dynamic_section;
#[allow(dead_code, reason = "the shim uses all of it")]
#[path = "../../src/foreign.rs"]
mod foreign;
#[allow(dead_code, reason = "the shim uses all of it")]
#[path = "../../src/memory.rs"]
mod memory;
#[allow(dead_code, reason = "the shim uses all of it")]
#[path = "../../src/scope.rs"]
mod scope;
#[allow(dead_code, reason = "the shim uses all of it")]
#[path = "../../src/session.rs"]
mod session;
#[allow(dead_code, reason = "the shim uses all of it")]
#[path = "../../src/sys.rs"]
mod sys;

use core::ffi::{CStr, c_char, c_long, c_uint};
use link_map::LinkMap;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    process::end()
}

/// The core crate's helper side allocates; this library never does, and this makes sure of it.
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

/// The newest version of the interface that is known here.
const NEWEST: c_uint = 2;

/// The name as the program or a library gave it, before any search.
const ORIGINAL: c_uint = 0x01;
/// A candidate along `LD_LIBRARY_PATH`.
const LIBRARY_PATH: c_uint = 0x02;
/// A candidate along a search path of the library that needs it, or of one that needs that.
const RUN_PATH: c_uint = 0x04;

/// Tells the loader which interface this library speaks; 0 where it is not to be used.
///
/// # Safety
/// To be called by the dynamic loader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_version(offered: c_uint) -> c_uint {
    let is_new = offered >= NEWEST;
    // A program may run in a container with an older loader than that which was measured.
    if process::is_disabled() || !(is_new || process::is_wanted_at_any_cost()) {
        return 0;
    }
    search::prepare(is_new);
    static_tls::prepare(session::variable("GLIBC_TUNABLES").unwrap_or(b""));
    offered.min(NEWEST)
}

/// Notes who asked for a library that has been loaded, and that none of its calls is of interest.
///
/// # Safety
/// To be called by the dynamic loader.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn la_objopen(
    map: *const LinkMap,
    namespace: c_long,
    cookie: *mut usize,
) -> c_uint {
    // SAFETY: the loader's map stays as long as the library is loaded, and the cookie is ours.
    unsafe {
        *cookie = search::opened(map, namespace);
        if let Some(map) = map.as_ref() {
            static_tls::count(map);
        }
    }
    0
}

/// Notes that a library goes.
///
/// # Safety
/// To be called by the dynamic loader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_objclose(cookie: *const usize) -> c_uint {
    // SAFETY: the cookie is what la_objopen has put there.
    search::closed(unsafe { *cookie });
    0
}

/// Notes that the program is about to start.
///
/// # Safety
/// To be called by the dynamic loader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_preinit(_: *mut usize) {
    static_tls::started();
}

/// What the loader is to take for a name, or to open for a candidate; null for a candidate that
/// is not there.
///
/// # Safety
/// To be called by the dynamic loader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn la_objsearch(
    name: *const c_char,
    cookie: *mut usize,
    flag: c_uint,
) -> *const c_char {
    if name.is_null() || cookie.is_null() {
        return name;
    }
    // SAFETY: the loader's name is NUL-terminated; the cookie is what la_objopen has put there.
    let (text, requester) = unsafe { (CStr::from_ptr(name), *cookie) };
    match flag {
        ORIGINAL => {
            place::begin_search();
            search::named(text, requester).map_or(name, CStr::as_ptr)
        }
        LIBRARY_PATH | RUN_PATH => match place::candidate(text.to_bytes()) {
            place::Answer::Stored(path) => path.as_ptr(),
            place::Answer::Absent => core::ptr::null(),
            place::Answer::AsGiven => name,
        },
        _ => name,
    }
}
