//! The open family: a covered file opened for reading gives a descriptor on the store's file;
//! opened for writing it is the origin's under a covered prefix, and an error in the view.

use crate::ask::tell;
use crate::change::mode_of;
use crate::content::open_stored;
use crate::counters::count;
use crate::descriptor::stored_by_link;
use crate::original::{hooks, original};
use crate::scope::grants;
use crate::session;
use crate::sys::{Descriptor, call, fail, finish};
use crate::target::{
    Found, Outcome, Place, Route, Scope, at_place_as_named, resolve_place, text, with_place,
    with_target,
};
use copper_core::catalog::reader::Record;
use copper_core::catalog::resolve::Ending;
use copper_core::control;
use copper_core::counters::{Family, Outcome as Counted};
use copper_core::path::{PATH_MAX, split_last};
use copper_core::request::Operation;
use core::ffi::{c_char, c_int, c_uint};
use libc::{
    AT_FDCWD, O_ACCMODE, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_PATH, O_RDONLY, O_TRUNC,
};

/// Flags of a read-only open that mean on the store's file what they mean on the origin's.
const NATIVE: c_int = O_ACCMODE
    | O_DIRECTORY
    | O_NOFOLLOW
    | O_CREAT
    | libc::O_CLOEXEC
    | libc::O_NONBLOCK
    | libc::O_LARGEFILE
    | KERNEL_LARGEFILE
    | libc::O_NOCTTY
    | libc::O_APPEND;

/// What the kernel calls `O_LARGEFILE`; libc's constant is 0 on 64-bit machines.
const KERNEL_LARGEFILE: c_int = 0o100_000;

/// What the store's file or directory is opened with.
const KEPT: c_int = O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK | O_DIRECTORY | libc::O_APPEND;

/// Whether these flags can change the file or its directory.
pub(crate) fn may_write(flags: c_int) -> bool {
    let temporary = flags & libc::O_TMPFILE == libc::O_TMPFILE;
    let writes = matches!(flags & O_ACCMODE, libc::O_WRONLY | libc::O_RDWR);
    flags & O_PATH == 0 && (writes || flags & O_TRUNC != 0 || temporary)
}

/// Opens, with the kernel's part given; the one way all names of `open` go.
pub(crate) fn open_common(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    kernel: impl Fn(c_int, *const c_char) -> c_int,
) -> c_int {
    let ending = Ending {
        follow: flags & O_NOFOLLOW == 0,
        directory: false,
    };
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    if may_write(flags) || exclusive || creates_with_slash(path, flags) {
        return open_for_change(directory, path, flags, ending, kernel);
    }
    with_target(
        Family::Open,
        directory,
        path,
        ending,
        |outcome| match outcome {
            Outcome::Found(found) => open_found(&found, directory, path, flags, &kernel),
            Outcome::Absent {
                creatable: true,
                scope,
                ..
            } if flags & O_CREAT != 0 => match scope {
                Scope::View => fail(libc::EROFS),
                Scope::Prefix => open_for_change(directory, path, flags, ending, kernel),
            },
            Outcome::Absent { errno, .. } => fail(errno),
            Outcome::Kernel(route) if flags & O_CREAT != 0 => {
                open_by_kernel_with_creation(route, directory, path, flags, &kernel)
            }
            Outcome::Kernel(route) => by_kernel(route, directory, path, &kernel),
        },
    )
}

/// Files are not created by names that end in a slash, and the kernel says so before it looks.
fn creates_with_slash(path: *const c_char, flags: c_int) -> bool {
    let Some(text) = text(path).filter(|text| flags & O_CREAT != 0 && text.ends_with(b"/")) else {
        return false;
    };
    // `./` and `../` are directories that exist, and are judged as such.
    let mut names = text
        .rsplit(|&byte| byte == b'/')
        .skip_while(|name| name.is_empty());
    !matches!(names.next(), None | Some(b"." | b".."))
}

fn by_kernel(
    route: Route,
    directory: c_int,
    path: *const c_char,
    kernel: &impl Fn(c_int, *const c_char) -> c_int,
) -> c_int {
    let (directory, path) = route.of(directory, path);
    kernel(directory, path)
}

fn open_found(
    found: &Found<'_>,
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    kernel: &impl Fn(c_int, *const c_char) -> c_int,
) -> c_int {
    let attributes = found.record.attributes();
    let descriptor_only = flags & O_PATH != 0;
    let refused = |errno| {
        found.count_answered(false);
        fail(errno)
    };
    if attributes.is_link() && !descriptor_only {
        return refused(if flags & O_DIRECTORY != 0 {
            libc::ENOTDIR
        } else {
            libc::ELOOP
        });
    }
    if flags & O_DIRECTORY != 0 && !attributes.is_directory() {
        return refused(libc::ENOTDIR);
    }
    if attributes.is_directory() && flags & O_CREAT != 0 {
        return refused(libc::EISDIR);
    }
    // Whether these are allowed depends on the owner and on the file system.
    if attributes.is_directory() && flags & (libc::O_NOATIME | libc::O_DIRECT) != 0 {
        let opened = by_kernel(found.canonical_route(), directory, path, kernel);
        if Descriptor::from_result(opened as isize).is_none() {
            return -1;
        }
    }
    let wanted = if descriptor_only {
        libc::X_OK
    } else {
        libc::R_OK | libc::X_OK
    };
    let reads = flags & O_ACCMODE == O_RDONLY;
    // A descriptor on the mirror would let in whom the origin's directory keeps out.
    let servable = if attributes.is_directory() {
        (reads || descriptor_only) && grants(found.session, attributes, wanted) == Some(true)
    } else {
        attributes.is_regular() && !descriptor_only && reads && flags & !NATIVE == 0
    };
    if servable {
        let kept = flags & (KEPT | O_PATH);
        match open_stored(found, kept | KERNEL_LARGEFILE) {
            Some(Ok(descriptor)) => return descriptor,
            Some(Err(errno)) => return fail(errno),
            None => {}
        }
    } else {
        found.count_passed(Counted::Special);
    }
    // Under its own name, since each link on the way counts against the kernel's forty.
    let route = if attributes.is_link() {
        found.route
    } else {
        found.canonical_route()
    };
    by_kernel(route, directory, path, kernel)
}

/// Only the origin can say whether the file exists; if it does not, it must not come into being
/// in the view.
fn open_by_kernel_with_creation(
    route: Route,
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    kernel: &impl Fn(c_int, *const c_char) -> c_int,
) -> c_int {
    if !route.is_in_view() {
        let result = by_kernel(route, directory, path, kernel);
        if result >= 0 {
            told(directory, path, Operation::Changed);
        }
        return result;
    }
    with_place(directory, path, |place| {
        let (directory, path) = route.of(directory, path);
        let follow = flags & O_NOFOLLOW == 0;
        match place.and_then(|place| origin_refuses(place, directory, path, flags, follow)) {
            Some(errno) => fail(errno),
            None => raw_open(directory, path, flags & !O_CREAT, 0),
        }
    })
}

/// Opens what may be changed by it.
fn open_for_change(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    ending: Ending,
    kernel: impl Fn(c_int, *const c_char) -> c_int,
) -> c_int {
    let counted = |place: &Option<Place<'_>>| match place {
        None => Counted::Uncovered,
        Some(place) if place.scope == Scope::View => Counted::Hit,
        Some(_) => Counted::Written,
    };
    with_place(directory, path, |place| {
        count(Family::Open, counted(&place), || match &place {
            Some(place) => place.path,
            None => text(path).unwrap_or_default(),
        });
        match place {
            None => match stored_by_link(path) {
                Some(record) => open_origin_for_change(record, flags, &kernel),
                None => kernel(directory, path),
            },
            Some(place) if place.scope == Scope::View && creates_with_slash(path, flags) => {
                refuse_slash(place)
            }
            Some(place) if place.scope == Scope::View => {
                open_in_view(place, (directory, path), flags, ending, &kernel)
            }
            Some(place) => {
                let result = by_kernel(place.route(), directory, path, &kernel);
                if result >= 0 {
                    tell_change(&place, flags);
                }
                result
            }
        }
    })
}

/// Opens for a change what a descriptor's link leads to: the store's files are nobody's to write.
#[cold]
fn open_origin_for_change(
    record: Record<'static>,
    flags: c_int,
    kernel: &impl Fn(c_int, *const c_char) -> c_int,
) -> c_int {
    let Some(session) = session::known() else {
        return fail(libc::EROFS);
    };
    if !session.covers(record.path()) {
        let found = Found::again(session, record, Scope::View);
        return fail(refusal(&found, flags).unwrap_or(libc::EROFS));
    }
    let result = kernel(AT_FDCWD, record.path_terminated().as_ptr());
    if result >= 0 {
        tell(session, operation_of(flags), record.path(), b"");
    }
    result
}

fn operation_of(flags: c_int) -> Operation {
    if flags & O_ACCMODE == O_RDONLY {
        Operation::Changed
    } else {
        Operation::Writing
    }
}

fn tell_change(place: &Place<'_>, flags: c_int) {
    if let Some(session) = session::known() {
        tell(session, operation_of(flags), place.path, b"");
    }
}

/// Tells of a change to a path, if it is one under a covered prefix.
pub(crate) fn told(directory: c_int, path: *const c_char, operation: Operation) {
    with_place(directory, path, |place| {
        if let (Some(place), Some(session)) = (place, session::known())
            && place.scope == Scope::Prefix
        {
            tell(session, operation, place.path, b"");
        }
    });
}

/// What the kernel says to the creation of a name that ends in a slash: it looks no further than
/// the directory.
fn refuse_slash(place: Place<'_>) -> c_int {
    let ending = Ending {
        follow: true,
        directory: true,
    };
    let Some(session) = session::known() else {
        return fail(libc::EISDIR);
    };
    resolve_place(session, place.parent(), ending, |outcome| match outcome {
        Outcome::Absent { errno, .. } => fail(errno),
        Outcome::Found(_) => fail(libc::EISDIR),
        Outcome::Kernel(route) => {
            let there = if route.leads_outside() {
                mode_of(AT_FDCWD, route.path(core::ptr::null()), 0)
            } else {
                parent_mode(place)
            };
            fail(match there {
                Ok(mode) if mode & libc::S_IFMT == libc::S_IFDIR => libc::EISDIR,
                Ok(_) => libc::ENOTDIR,
                Err(errno) => errno,
            })
        }
    })
}

/// What the origin says of the directory that holds a place.
fn parent_mode(place: Place<'_>) -> Result<u32, c_int> {
    let mut room = [0u8; PATH_MAX + 1];
    let parent = place.parent().path;
    room[..parent.len()].copy_from_slice(parent);
    mode_of(AT_FDCWD, room.as_ptr().cast(), 0)
}

/// What the kernel says to an open for writing on a read-only mount.
fn open_in_view(
    place: Place<'_>,
    (directory, path): (c_int, *const c_char),
    flags: c_int,
    ending: Ending,
    kernel: &impl Fn(c_int, *const c_char) -> c_int,
) -> c_int {
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    let ending = Ending {
        follow: ending.follow && !exclusive,
        ..ending
    };
    let Some(session) = session::known() else {
        return kernel(directory, path);
    };
    // In front of a `.` the path's end is not the last component.
    let place = if flags & O_CREAT != 0 && place.ending.is_empty() {
        place.creating()
    } else {
        place
    };
    at_place_as_named(session, place, ending, |outcome| match outcome {
        Outcome::Kernel(route) if route.is_in_view() => {
            let (directory, path) = route.of(directory, path);
            match origin_refuses(place, directory, path, flags, ending.follow) {
                Some(errno) => fail(errno),
                None => kernel(directory, path),
            }
        }
        Outcome::Kernel(route) => by_kernel(route, directory, path, kernel),
        Outcome::Absent {
            creatable: true, ..
        } if flags & O_CREAT != 0 => fail(libc::EROFS),
        Outcome::Absent { errno, .. } => fail(errno),
        Outcome::Found(found) => match refusal(&found, flags) {
            Some(libc::EROFS) if is_for_controls(&found, flags) => {
                match open_stored(&found, flags & KEPT | KERNEL_LARGEFILE) {
                    Some(Ok(descriptor)) => descriptor,
                    _ => fail(libc::EROFS),
                }
            }
            Some(errno) => fail(errno),
            // Devices and pipes can be written on a read-only mount too.
            None => by_kernel(found.route, directory, path, kernel),
        },
    })
}

/// Whether the file is the one that existing scripts open for writing only to make an `ioctl`; they
/// get a descriptor that can be read.
fn is_for_controls(found: &Found<'_>, flags: c_int) -> bool {
    flags & (O_CREAT | O_TRUNC) == 0 && split_last(found.record.path()).1 == control::FILE
}

fn refusal(found: &Found<'_>, flags: c_int) -> Option<c_int> {
    let mode = found.record.attributes().mode;
    verdict(mode, flags, || is_denied(found, flags))
}

/// What a read-only mount says to an open for writing of a file with this mode; `None` for what
/// can be written all the same.
fn verdict(mode: u32, flags: c_int, denied: impl FnOnce() -> bool) -> Option<c_int> {
    let temporary = flags & libc::O_TMPFILE == libc::O_TMPFILE;
    let exclusive = flags & (O_CREAT | O_EXCL) == O_CREAT | O_EXCL;
    match mode & libc::S_IFMT {
        _ if exclusive => Some(libc::EEXIST),
        libc::S_IFLNK => Some(libc::ELOOP),
        libc::S_IFDIR if temporary => Some(libc::EROFS),
        libc::S_IFDIR => Some(libc::EISDIR),
        _ if flags & O_DIRECTORY != 0 => Some(libc::ENOTDIR),
        libc::S_IFREG if !may_write(flags) => None,
        libc::S_IFREG if flags & O_TRUNC == 0 && denied() => Some(libc::EACCES),
        libc::S_IFREG => Some(libc::EROFS),
        _ => None,
    }
}

/// The same of a file that only the origin can tell of.
#[cold]
#[inline(never)]
fn origin_refuses(
    place: Place<'_>,
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    follow: bool,
) -> Option<c_int> {
    let no_follow = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    match mode_of(directory, path, no_follow) {
        Ok(mode) => verdict(mode, flags, || {
            // SAFETY: the caller's own path.
            let result = unsafe { call!(libc::SYS_faccessat, directory, path, libc::W_OK) };
            result == -(libc::EACCES as isize)
        }),
        Err(libc::ENOENT) if flags & O_CREAT != 0 && place.ending.is_empty() => {
            Some(parent_mode(place).err().unwrap_or(libc::EROFS))
        }
        Err(errno) => Some(errno),
    }
}

/// Whether the file's permissions forbid what is wanted, which the kernel says first.
fn is_denied(found: &Found<'_>, flags: c_int) -> bool {
    let reads = flags & O_ACCMODE == libc::O_RDWR;
    let wanted = libc::W_OK | if reads { libc::R_OK } else { 0 };
    let granted = grants(found.session, found.record.attributes(), wanted);
    granted.map_or_else(
        || {
            let path = found.record.path_terminated().as_ptr();
            // SAFETY: the path is NUL-terminated.
            let result = unsafe { call!(libc::SYS_faccessat, AT_FDCWD, path, wanted) };
            result == -(libc::EACCES as isize)
        },
        |granted| !granted,
    )
}

fn raw_open(directory: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    let flags = flags | KERNEL_LARGEFILE;
    // SAFETY: the caller's own arguments.
    finish(unsafe { call!(libc::SYS_openat, directory, path, flags, mode) }) as c_int
}

/// Defines the names of `open`. A variadic third argument comes in the same register.
macro_rules! open_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
            open_common(AT_FDCWD, path, flags, |directory, path| {
                original!(
                    fn $name(path: *const c_char, flags: c_int, mode: c_uint) -> c_int;
                    else { raw_open(directory, path, flags, mode) }
                )
            })
        } }
    )*};
}

open_hooks! { open open64 __open __open64 }

/// Defines the names of `openat`.
macro_rules! openat_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(
            directory: c_int,
            path: *const c_char,
            flags: c_int,
            mode: c_uint,
        ) -> c_int {
            open_common(directory, path, flags, |directory, path| {
                original!(
                    fn $name(
                        directory: c_int, path: *const c_char, flags: c_int, mode: c_uint,
                    ) -> c_int;
                    else { raw_open(directory, path, flags, mode) }
                )
            })
        } }
    )*};
}

openat_hooks! { openat openat64 }

/// Defines the fortified names, which take no mode.
macro_rules! fortified_hooks {
    ($($name:ident $at_name:ident)*) => {$(
        hooks! {
            fn $name(path: *const c_char, flags: c_int) -> c_int {
                open_common(AT_FDCWD, path, flags, |directory, path| {
                    original!(fn $name(path: *const c_char, flags: c_int) -> c_int; else {
                        raw_open(directory, path, flags, 0)
                    })
                })
            }
            fn $at_name(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
                open_common(directory, path, flags, |directory, path| {
                    original!(
                        fn $at_name(directory: c_int, path: *const c_char, flags: c_int) -> c_int;
                        else { raw_open(directory, path, flags, 0) }
                    )
                })
            }
        }
    )*};
}

fortified_hooks! { __open_2 __openat_2 __open64_2 __openat64_2 }

/// Defines the names of `creat`.
macro_rules! creat_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(path: *const c_char, mode: c_uint) -> c_int {
            let flags = O_CREAT | O_TRUNC | libc::O_WRONLY;
            open_common(AT_FDCWD, path, flags, |directory, path| {
                original!(fn $name(path: *const c_char, mode: c_uint) -> c_int; else {
                    raw_open(directory, path, flags, mode)
                })
            })
        } }
    )*};
}

creat_hooks! { creat creat64 }
