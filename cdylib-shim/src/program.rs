//! Programs about to be started: what the kernel is to start, and whether the shim will be in it.

use crate::content::{open_stored, with_stored};
use crate::counters::count;
use crate::descriptor::record_of;
use crate::foreign::interpreter;
use crate::links::put_place;
use crate::session::{self, Session};
use crate::sys::{self, Descriptor, call};
use crate::target::{FOLLOW, Outcome, resolve_place, text, with_place};
use copper_core::counters::{Family, Outcome as Counted};
use copper_core::path::PATH_MAX;
use copper_core::request::Operation;
use core::ffi::{c_char, c_int};
use core::mem::MaybeUninit;
use libc::AT_FDCWD;

/// Hands the directory and path to start a program by to `then`, or the error where the catalog
/// knows that it is not there.
///
/// A path in the view is left as it is, since the program will see it; the kernel finds the
/// origin's file by it.
pub(crate) fn with_program(
    directory: c_int,
    path: *const c_char,
    then: &mut dyn FnMut(Result<(c_int, *const c_char), c_int>) -> c_int,
) -> c_int {
    with_place(directory, path, |place| {
        let (Some(place), Some(session)) = (place, session::known()) else {
            count(Family::Exec, Counted::Uncovered, || {
                text(path).unwrap_or_default()
            });
            return then(Ok((directory, path)));
        };
        resolve_place(session, place, FOLLOW, |outcome| {
            let outcome = outcome.count(Family::Exec, place.path);
            match &outcome {
                Outcome::Absent { errno, .. } => then(Err(*errno)),
                Outcome::Kernel(route) if route.leads_outside() => {
                    then(Ok(route.of(directory, path)))
                }
                _ => {
                    let by_kernel = place.route().of(directory, path);
                    if core::ptr::eq(by_kernel.1, path) {
                        return then(Ok(by_kernel));
                    }
                    if is_stored_script(session, &outcome, directory, path) {
                        return then(Ok((directory, path)));
                    }
                    let mut name = [0u8; PATH_MAX + 1];
                    match put_place(session, place, &mut name) {
                        Some(_) => then(Ok((AT_FDCWD, name.as_ptr().cast()))),
                        None => then(Ok(by_kernel)),
                    }
                }
            }
        })
    })
}

/// Files longer than this are not looked at as scripts.
const SCRIPT_MAX: u64 = 1 << 20;

/// Whether the caller's own path leads the kernel to a script in the store, so that the script
/// can be told the name by which it was called.
fn is_stored_script(
    session: &'static Session,
    outcome: &Outcome<'_>,
    directory: c_int,
    path: *const c_char,
) -> bool {
    let Outcome::Found(found) = outcome else {
        return false;
    };
    let attributes = found.record.attributes();
    if !attributes.is_regular() || attributes.size > SCRIPT_MAX {
        return false;
    }
    let Some(Ok(stored)) = open_stored(found, libc::O_CLOEXEC) else {
        return false;
    };
    // Closed when it goes.
    let is_script =
        Descriptor::from_result(stored as isize).is_some_and(|stored| is_script(stored.number()));
    // Only what was asked for with the loader's operation lies in the mirror under its name.
    is_script
        && with_stored(found, Operation::Closure, |stored| stored.is_some())
        && open(directory, path)
            .and_then(|given| record_of(session, given.number()))
            .is_some_and(|record| record.path() == found.record.path())
}

/// Whether a program is text that names its interpreter.
pub(crate) fn is_script(file: c_int) -> bool {
    let mut head = [0u8; 2];
    read_at(file, &mut head, 0) == head.len() && head == *b"#!"
}

/// As many `#!` lines as the kernel follows, and one more.
const SCRIPTS_MAX: usize = 6;
/// As much as the kernel reads of a program to see what it is.
const HEAD: usize = 256;

/// Whether the shim will be at work in a program, also where a `#!` line names another. True where it
/// cannot be told.
#[cold]
#[inline(never)]
pub(crate) fn takes_preload(directory: c_int, path: *const c_char) -> bool {
    let mut opened = open(directory, path);
    for _ in 0..SCRIPTS_MAX {
        let Some(file) = opened else {
            return true;
        };
        if gains_privileges(&file) {
            return false;
        }
        let mut head = [0u8; HEAD];
        let length = read_at(file.number(), &mut head, 0);
        let Some(interpreter) = interpreter(&head[..length.min(HEAD)]) else {
            return !head.starts_with(b"\x7fELF") || is_for_glibc(&file);
        };
        if interpreter[0] != b'/' {
            // The kernel would look for it in the store.
            return false;
        }
        let mut name = [0u8; HEAD + 1];
        name[..interpreter.len()].copy_from_slice(interpreter);
        opened = open(AT_FDCWD, name.as_ptr().cast());
    }
    true
}

fn open(directory: c_int, path: *const c_char) -> Option<Descriptor> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    // SAFETY: the caller's path, or one that we have terminated.
    Descriptor::from_result(unsafe { call!(libc::SYS_openat, directory, path, flags, 0) })
}

/// Reads at an offset; 0 where that fails.
pub(crate) fn read_at(file: c_int, out: &mut [u8], offset: u64) -> usize {
    // SAFETY: the room and its length belong together.
    let got = unsafe { call!(libc::SYS_pread64, file, out.as_mut_ptr(), out.len(), offset) };
    usize::try_from(got).unwrap_or(0)
}

/// Whether the kernel starts the program with other rights, which makes the loader ignore
/// preloads that are named by a path.
fn gains_privileges(file: &Descriptor) -> bool {
    let Some(status) = sys::fstat(file.number()) else {
        return false;
    };
    // SAFETY: these take no argument and cannot fail.
    let (user, group) = unsafe {
        (
            call!(libc::SYS_geteuid) as u32,
            call!(libc::SYS_getegid) as u32,
        )
    };
    let other_user = status.st_mode & libc::S_ISUID != 0 && status.st_uid != user;
    let other_group = status.st_mode & libc::S_ISGID != 0 && status.st_gid != group;
    let name = c"security.capability".as_ptr();
    // SAFETY: asks for the attribute's length only.
    let capabilities = unsafe { call!(libc::SYS_fgetxattr, file.number(), name, 0, 0) };
    other_user || other_group || (user != 0 && capabilities > 0)
}

/// Plain records of the ELF format: any bytes make one.
trait Plain {}
impl Plain for libc::Elf64_Ehdr {}
impl Plain for libc::Elf64_Phdr {}

fn read_plain<T: Plain>(file: &Descriptor, offset: u64) -> Option<T> {
    let mut out = MaybeUninit::<T>::zeroed();
    // SAFETY: the bytes of `out` are initialised, and its type takes any bytes.
    unsafe {
        let bytes = core::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), size_of::<T>());
        (read_at(file.number(), bytes, offset) == size_of::<T>()).then(|| out.assume_init())
    }
}

/// The header of an ELF file of our own word size.
pub(crate) fn elf_header(file: &Descriptor) -> Option<libc::Elf64_Ehdr> {
    const CLASS_64: u8 = 2;
    let header = read_plain::<libc::Elf64_Ehdr>(file, 0)?;
    let is_elf = header.e_ident.starts_with(b"\x7fELF");
    (is_elf && header.e_ident[4] == CLASS_64).then_some(header)
}

/// The program headers of an ELF file.
pub(crate) fn program_headers(
    file: &Descriptor,
    header: &libc::Elf64_Ehdr,
) -> impl Iterator<Item = libc::Elf64_Phdr> {
    let (start, length) = (header.e_phoff, u64::from(header.e_phentsize));
    (0..u64::from(header.e_phnum))
        .map_while(move |index| read_plain(file, start.checked_add(index * length)?))
}

/// Whether a segment of a program names glibc's dynamic loader as what is to start it.
pub(crate) fn names_glibc_loader(file: &Descriptor, segment: &libc::Elf64_Phdr) -> bool {
    segment.p_type == libc::PT_INTERP && segment_holds(file, segment, b"/ld-linux")
}

/// Whether the first bytes of a segment hold these.
pub(crate) fn segment_holds(file: &Descriptor, segment: &libc::Elf64_Phdr, wanted: &[u8]) -> bool {
    let mut room = [0u8; 256];
    let wanted_length = room.len().min(segment.p_filesz as usize);
    let room = &mut room[..wanted_length];
    let length = read_at(file.number(), room, segment.p_offset).min(wanted_length);
    room[..length]
        .windows(wanted.len())
        .any(|window| window == wanted)
}

/// Whether an ELF file is a program of our own word size that glibc's loader starts: another, as
/// musl's, may preload the shim, which does nothing there.
fn is_for_glibc(file: &Descriptor) -> bool {
    elf_header(file).is_some_and(|header| {
        program_headers(file, &header).any(|part| names_glibc_loader(file, &part))
    })
}
