//! Programs that do not start under an audit library: those whose libraries need more thread-local
//! memory at fixed places than was set aside.
//!
//! Without an audit library the loader counts what all libraries need before it sets memory aside.
//! With one it does so before it has loaded them, and ends the program with an error where that
//! does not suffice (those of sanitizers need some 800 KB). So what they need is counted here as
//! they are loaded, and such a program is started anew without this library, before any of its own
//! code has run.

use crate::link_map::LinkMap;
use crate::process;
use crate::session;
use crate::sys::{self, call};
use core::cell::Cell;
use core::mem::MaybeUninit;

struct State {
    /// How much may be needed, in bytes.
    most: Cell<u64>,
    needed: Cell<u64>,
    /// The program's own code runs.
    has_started: Cell<bool>,
}

// SAFETY: only used from calls of the loader, which makes them under its lock.
unsafe impl Sync for State {}

/// What every loader sets aside for libraries whose use of it is a matter of speed.
const USUAL: u64 = 512;

static STATE: State = State {
    most: Cell::new(USUAL),
    needed: Cell::new(0),
    has_started: Cell::new(false),
};

const TUNABLE: &[u8] = b"glibc.rtld.optional_static_tls=";

/// Takes the limit from the value of `GLIBC_TUNABLES`.
pub(crate) fn prepare(tunables: &[u8]) {
    let mut named = tunables.split(|&byte| byte == b':');
    let value = named.find_map(|one| one.strip_prefix(TUNABLE));
    let number = value.and_then(|value| core::str::from_utf8(value).ok()?.parse().ok());
    STATE.most.set(number.unwrap_or(USUAL));
}

/// All libraries that the program starts with are loaded.
pub(crate) fn started() {
    STATE.has_started.set(true);
}

/// Counts a library that has been loaded, and starts the program anew if it is one too many.
pub(crate) fn count(map: &LinkMap) {
    if STATE.has_started.get() || map.name().is_empty() || !map.needs_static_tls() {
        return;
    }
    let needed = STATE.needed.get() + size_of_tls(map).unwrap_or(0);
    STATE.needed.set(needed);
    if needed > STATE.most.get() && is_alone() {
        process::start_anew_without(VARIABLE);
    }
}

const VARIABLE: &str = "LD_AUDIT";

/// Whether there is no other audit library, which would be lost with this one.
fn is_alone() -> bool {
    session::variable(VARIABLE).is_some_and(|value| !value.contains(&b':'))
}

/// As much of a file as holds all that is looked for, in nearly all libraries.
#[repr(C)]
#[derive(Clone, Copy)]
struct Head {
    header: libc::Elf64_Ehdr,
    segments: [libc::Elf64_Phdr; 20],
}

/// The length of a library's thread-local memory, as its file says.
fn size_of_tls(map: &LinkMap) -> Option<u64> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let opened = sys::open(map.name_terminated().cast(), flags)?;
    let head: Head = read_plain(opened.number(), 0)?;
    let count = usize::from(head.header.e_phnum);
    let follow = head.header.e_phoff == size_of::<libc::Elf64_Ehdr>() as u64;
    let mut segments = head.segments.iter().take(count).filter(|_| follow);
    let tls = segments.find(|segment| segment.p_type == libc::PT_TLS)?;
    tls.p_memsz.checked_add(tls.p_align)
}

/// Plain records of the ELF format: any bytes make one.
pub(crate) trait Plain {}
impl Plain for libc::Elf64_Ehdr {}
impl Plain for Head {}

/// Reads a record from a file.
pub(crate) fn read_plain<T: Plain>(file: core::ffi::c_int, offset: u64) -> Option<T> {
    let mut out = MaybeUninit::<T>::zeroed();
    let length = size_of::<T>();
    // SAFETY: the room and its length belong together, and its type takes any bytes.
    unsafe {
        let got = call!(libc::SYS_pread64, file, out.as_mut_ptr(), length, offset);
        (got == length as isize).then(|| out.assume_init())
    }
}
