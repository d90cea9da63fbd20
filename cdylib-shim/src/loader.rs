//! `dlopen` and `dlmopen`: the library is loaded from the store, whose files lie in a mirror of
//! the origin's tree, so that `$ORIGIN` finds the siblings that the helper stored with it.
//!
//! glibc takes the caller's address from the stack: its RUNPATH and `$ORIGIN` count. So the hooks
//! are no functions that call but jumps: they let an ordinary function look at the path, put
//! the answer in its place, and jump to libc's with the caller's return address on top.

use crate::content::with_stored;
use crate::links::name_for_program;
use crate::original::{Original, hooks, original};
use crate::session;
use crate::target::{FOLLOW, Outcome, text, with_target};
use copper_core::counters::{Family, Outcome as Counted};
use copper_core::path::{self, PATH_MAX};
use copper_core::request::Operation;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};
use libc::AT_FDCWD;

/// Where to jump, and with which path.
#[repr(C)]
struct Jump {
    function: *const c_void,
    path: *const c_char,
}

/// Jumps to libc's `dlopen`, with the store's path of a covered library.
///
/// # Safety
/// As libc's function of this name.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "push rsi",
        "call {look}",
        "pop rsi",
        "mov rdi, rdx",
        "jmp rax",
        look = sym look_for_dlopen,
    )
}

/// Jumps to libc's `dlmopen`, with the store's path of a covered library.
///
/// # Safety
/// As libc's function of this name.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dlmopen(
    namespace: libc::c_long,
    path: *const c_char,
    flags: c_int,
) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rdx",
        "sub rsp, 8",
        "mov rdi, rsi",
        "call {look}",
        "mov rsi, rdx",
        "add rsp, 8",
        "pop rdx",
        "pop rdi",
        "jmp rax",
        look = sym look_for_dlmopen,
    )
}

/// Jumps to libc's `dlopen`, with the store's path of a covered library.
///
/// # Safety
/// As libc's function of this name.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "stp x1, x30, [sp, #-16]!",
        "bl {look}",
        "ldp x2, x30, [sp], #16",
        "mov x16, x0",
        "mov x0, x1",
        "mov x1, x2",
        "br x16",
        look = sym look_for_dlopen,
    )
}

/// Jumps to libc's `dlmopen`, with the store's path of a covered library.
///
/// # Safety
/// As libc's function of this name.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn dlmopen(
    namespace: libc::c_long,
    path: *const c_char,
    flags: c_int,
) -> *mut c_void {
    naked_asm!(
        "stp x0, x30, [sp, #-32]!",
        "str x2, [sp, #16]",
        "mov x0, x1",
        "bl {look}",
        "mov x16, x0",
        "ldr x2, [sp, #16]",
        "ldp x0, x30, [sp], #32",
        "br x16",
        look = sym look_for_dlmopen,
    )
}

extern "C" fn look_for_dlopen(path: *const c_char) -> Jump {
    #[unsafe(link_section = "copper_originals")]
    static ORIGINAL: Original = Original::new(c"dlopen");
    Jump {
        function: ORIGINAL.address().unwrap_or(unavailable as *const c_void),
        path: look(path),
    }
}

extern "C" fn look_for_dlmopen(path: *const c_char) -> Jump {
    #[unsafe(link_section = "copper_originals")]
    static ORIGINAL: Original = Original::new(c"dlmopen");
    Jump {
        function: ORIGINAL.address().unwrap_or(unavailable as *const c_void),
        path: look(path),
    }
}

/// Stands for a loader function that no library behind us has.
extern "C" fn unavailable() -> *mut c_void {
    core::ptr::null_mut()
}

/// The path to load: the store's where the file is covered and stored, with what it needs; else
/// the one given. Names without a slash are searched for by the loader, as it sees fit.
fn look(path: *const c_char) -> *const c_char {
    let named = text(path).is_some_and(|text| text.contains(&b'/'));
    if !named {
        return path;
    }
    with_target(
        Family::Dlopen,
        AT_FDCWD,
        path,
        FOLLOW,
        |outcome| match outcome {
            Outcome::Found(found) if found.record.attributes().is_regular() => {
                with_stored(&found, Operation::Closure, |stored| {
                    stored.and_then(keep).unwrap_or(found.route.path(path))
                })
            }
            Outcome::Found(found) => {
                found.count_passed(Counted::Special);
                found.route.path(path)
            }
            Outcome::Kernel(route) if route.path(path) != path => {
                // The replacement lives in the walk's memory only.
                text(route.path(path)).and_then(keep_text).unwrap_or(path)
            }
            _ => path,
        },
    )
}

/// More libraries than a process loads; what does not fit is loaded from the origin.
const KEPT_MAX: usize = 4096;

/// Paths handed to the loader must outlive the jump to it; each distinct one is kept once.
static KEPT: [AtomicPtr<c_char>; KEPT_MAX] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; KEPT_MAX];

fn keep(stored: &CStr) -> Option<*const c_char> {
    keep_text(stored.to_bytes())
}

fn keep_text(name: &[u8]) -> Option<*const c_char> {
    let start = path::hash(name) as usize % KEPT_MAX;
    let mut copy: *mut c_char = core::ptr::null_mut();
    for slot in KEPT[start..].iter().chain(&KEPT[..start]).take(256) {
        let mut held = slot.load(Ordering::Acquire);
        if held.is_null() {
            if copy.is_null() {
                copy = copied(name)?;
            }
            let null = core::ptr::null_mut();
            match slot.compare_exchange(null, copy, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(copy),
                Err(other) => held = other,
            }
        }
        // SAFETY: a kept string is NUL-terminated and never freed.
        if unsafe { CStr::from_ptr(held) }.to_bytes() == name {
            // SAFETY: our own copy, or null.
            unsafe { libc::free(copy.cast()) };
            return Some(held);
        }
    }
    // SAFETY: our own copy, or null.
    unsafe { libc::free(copy.cast()) };
    None
}

fn copied(name: &[u8]) -> Option<*mut c_char> {
    // SAFETY: plain allocation; the loader allocates as well.
    let copy = unsafe { libc::malloc(name.len() + 1) }.cast::<c_char>();
    if copy.is_null() {
        return None;
    }
    // SAFETY: just allocated, one byte longer than the name.
    unsafe {
        core::ptr::copy_nonoverlapping(name.as_ptr(), copy.cast(), name.len());
        *copy.add(name.len()) = 0;
    }
    Some(copy)
}

fn libc_error() -> *mut c_char {
    original!(fn dlerror() -> *mut c_char; or core::ptr::null_mut())
}

/// Forgets the loader's last error.
pub(crate) fn forget_error() {
    libc_error();
}

hooks! {
    fn dlerror() -> *mut c_char {
        let message = libc_error();
        name_as_program(message);
        message
    }
}

/// Puts the program's own name for a library in place of the store's, in the loader's message.
fn name_as_program(message: *mut c_char) {
    let (Some(session), false) = (session::known(), message.is_null()) else {
        return;
    };
    // SAFETY: the loader's message is NUL-terminated and the caller's to change.
    let bytes = unsafe { CStr::from_ptr(message) }.to_bytes_with_nul();
    let Some(start) = position(bytes, session.mirror) else {
        return;
    };
    let end = bytes[start..]
        .iter()
        .position(|&byte| matches!(byte, b':' | b'\'' | b'"' | b' ' | 0))
        .map_or(bytes.len(), |length| start + length);
    let mut named = [0u8; PATH_MAX + 1];
    let Some(mut length) = name_for_program(session, &bytes[start..end], &mut named) else {
        return;
    };
    if start + length > end {
        // The view's name is too long for the place; the origin's is not.
        let origin = &bytes[start + session.mirror.len()..end];
        length = origin.len();
        named[..length].copy_from_slice(origin);
    }
    // SAFETY: the new name is no longer than the old one, and what follows, with the NUL that
    // closes it, moves down.
    unsafe {
        let place = message.cast::<u8>().add(start);
        core::ptr::copy_nonoverlapping(named.as_ptr(), place, length);
        core::ptr::copy(
            message.cast::<u8>().add(end),
            place.add(length),
            bytes.len() - end,
        );
    }
}

fn position(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len().max(1))
        .position(|window| window == wanted)
}
