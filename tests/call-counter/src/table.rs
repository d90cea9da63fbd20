//! The table of counts: one slot of 64 bytes per symbol, in a file that all processes map shared,
//! so that counts survive exec and `_exit` without any work at exit.
//!
//! System calls go through rustix, which makes them itself: libc's functions, `syscall` among them,
//! may be hooked, by the shim or by us.
//!
//! A slot holds the symbol's name (48 bytes, padded with NULs), the number of calls (u64, native
//! order) and the number of those on a path below `CALL_COUNTER_PATHS` (u64).

use crate::hooks::SYMBOLS;
use crate::resolve::{Resolved, absolute};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::CStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const NAME_BYTES: usize = 48;

#[repr(C)]
struct Slot {
    name: [u8; NAME_BYTES],
    calls: AtomicU64,
    covered: AtomicU64,
}

/// What the environment asked for, found at the first call.
struct Counter {
    slots: &'static [Slot],
    prefixes: Option<&'static CStr>,
    log: OwnedFd,
}

static COUNTER: OnceLock<Option<Counter>> = OnceLock::new();

/// Counts a call of `SYMBOLS[symbol]` on `path`, relative to the directory `base`.
pub(crate) fn count(symbol: usize, base: libc::c_int, path: usize) {
    // SAFETY: errno is this thread's own; it is put back so that the caller sees no trace of us.
    let errno = unsafe { *libc::__errno_location() };
    if let Some(counter) = COUNTER.get_or_init(start) {
        let slot = &counter.slots[symbol];
        slot.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(prefixes) = counter.prefixes
            && let Some(path) = absolute(base, path)
            && covers(prefixes.to_bytes(), path.bytes())
        {
            slot.covered.fetch_add(1, Ordering::Relaxed);
            counter.note(symbol, &path);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

impl Counter {
    fn note(&self, symbol: usize, path: &Resolved) {
        let mut line = [0_u8; 2 * libc::PATH_MAX as usize];
        let mut length = 0;
        for part in [SYMBOLS[symbol].as_bytes(), b"\t", path.bytes(), b"\n"] {
            let end = length + part.len().min(line.len() - length);
            line[length..end].copy_from_slice(&part[..end - length]);
            length = end;
        }
        // A line that cannot be written is missing from a failure's message, no more.
        let _ = rustix::io::write(&self.log, &line[..length]);
    }
}

fn covers(prefixes: &[u8], path: &[u8]) -> bool {
    prefixes
        .split(|byte| *byte == b':')
        .filter(|prefix| !prefix.is_empty())
        .any(|prefix| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        })
}

fn start() -> Option<Counter> {
    // SAFETY: getenv takes a NUL-terminated name; the program has not changed its environment yet.
    let (file, prefixes) = unsafe {
        (
            libc::getenv(c"CALL_COUNTER_FILE".as_ptr()),
            libc::getenv(c"CALL_COUNTER_PATHS".as_ptr()),
        )
    };
    if file.is_null() {
        return None;
    }
    // SAFETY: getenv gave NUL-terminated strings of the environment, which outlive the process's
    // use of them here.
    let (file, prefixes) = unsafe {
        (
            CStr::from_ptr(file),
            (!prefixes.is_null()).then(|| CStr::from_ptr(prefixes)),
        )
    };
    let (slots, log) = map(file).ok()?;
    Some(Counter {
        slots,
        prefixes,
        log,
    })
}

/// Maps the table `file`, and opens the log beside it.
fn map(file: &CStr) -> rustix::io::Result<(&'static [Slot], OwnedFd)> {
    let mode = Mode::from_raw_mode(0o666);
    let size = SYMBOLS.len() * size_of::<Slot>();
    let table = rustix::fs::open(file, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, mode)?;
    rustix::fs::ftruncate(&table, size as u64)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    let log = rustix::fs::open([file.to_bytes(), b".log"].concat(), flags, mode)?;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new shared mapping of the whole file, at an address the kernel chooses.
    let start = unsafe {
        rustix::mm::mmap(
            std::ptr::null_mut(),
            size,
            protection,
            MapFlags::SHARED,
            &table,
            0,
        )?
    };
    for (index, symbol) in SYMBOLS.iter().enumerate() {
        // SAFETY: the mapping holds a slot for each symbol, and a slot begins with its name; all
        // processes write the same bytes there.
        unsafe {
            let name = start.cast::<Slot>().add(index).cast::<u8>();
            std::ptr::copy_nonoverlapping(symbol.as_ptr(), name, symbol.len().min(NAME_BYTES));
        }
    }
    // SAFETY: the mapping holds that many slots, plain numbers of any value, and is never unmapped.
    let slots = unsafe { std::slice::from_raw_parts(start.cast::<Slot>(), SYMBOLS.len()) };
    Ok((slots, log))
}
