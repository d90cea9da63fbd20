//! The stat family: answered from the catalog without a system call; `fstat` asks the kernel and,
//! for a store file, gives the attributes of the origin's.

use crate::counters::count;
use crate::descriptor::latest;
use crate::memory::{group_inside, user_inside};
use crate::original::{hooks, libc_is_next, original};
use crate::session::{self, Session};
use crate::sys::{self, call, fail, finish};
use crate::target::{FOLLOW, NO_FOLLOW, Outcome, Route, is_bad_pointer, with_target};
use copper_core::attributes::{Attributes, Timestamp};
use copper_core::catalog::reader::Record;
use copper_core::catalog::resolve::Ending;
use copper_core::counters::{Family, Outcome as Counted};
use core::ffi::{c_char, c_int, c_uint};
use libc::{AT_FDCWD, AT_SYMLINK_NOFOLLOW, stat as Stat, statx as Statx};

/// `AT_` flags that change nothing for what the catalog answers.
const HARMLESS: c_int = libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT;

/// Fills a `struct stat` as the origin's file system would have.
pub(crate) fn fill(out: &mut Stat, from: &Attributes) {
    out.st_dev = from.device;
    out.st_ino = from.inode;
    out.st_nlink = from.links as _;
    out.st_mode = from.mode;
    out.st_uid = user_inside(from.uid);
    out.st_gid = group_inside(from.gid);
    out.st_rdev = from.special_device;
    out.st_size = from.size as i64;
    out.st_blksize = from.block_size as _;
    out.st_blocks = from.blocks as i64;
    (out.st_atime, out.st_atime_nsec) = parts(from.accessed);
    (out.st_mtime, out.st_mtime_nsec) = parts(from.modified);
    (out.st_ctime, out.st_ctime_nsec) = parts(from.changed);
}

fn parts(time: Timestamp) -> (i64, i64) {
    (time.seconds, i64::from(time.nanoseconds))
}

fn fill_statx(out: &mut Statx, from: &Attributes, wanted: c_uint) {
    let always = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
    out.stx_mask = from.statx_mask & (wanted | always);
    out.stx_blksize = from.block_size;
    out.stx_attributes = from.statx_attributes;
    out.stx_attributes_mask = from.statx_attributes_mask;
    out.stx_nlink = from.links as u32;
    out.stx_uid = user_inside(from.uid);
    out.stx_gid = group_inside(from.gid);
    out.stx_mode = from.mode as u16;
    out.stx_ino = from.inode;
    out.stx_size = from.size;
    out.stx_blocks = from.blocks;
    set_time(&mut out.stx_atime, from.accessed);
    set_time(&mut out.stx_ctime, from.changed);
    set_time(&mut out.stx_mtime, from.modified);
    if out.stx_mask & libc::STATX_BTIME != 0 {
        set_time(&mut out.stx_btime, from.born);
    }
    out.stx_rdev_major = libc::major(from.special_device);
    out.stx_rdev_minor = libc::minor(from.special_device);
    out.stx_dev_major = libc::major(from.device);
    out.stx_dev_minor = libc::minor(from.device);
    out.stx_mnt_id = from.mount;
}

fn set_time(out: &mut libc::statx_timestamp, from: Timestamp) {
    out.tv_sec = from.seconds;
    out.tv_nsec = from.nanoseconds;
}

/// Answers a stat from the catalog, or lets `kernel` do it.
#[inline]
fn answer(
    directory: c_int,
    path: *const c_char,
    out: *mut Stat,
    ending: Ending,
    kernel: impl FnOnce(Route) -> c_int,
) -> c_int {
    with_target(
        Family::Stat,
        directory,
        path,
        ending,
        |outcome| match outcome {
            // The path may lead to the store through a descriptor: `/proc/self/fd/3`, `/dev/stdin`.
            Outcome::Kernel(route) => fstat_common(kernel(route), out),
            Outcome::Found(found) if is_bad_pointer(out.cast()) => kernel(found.route),
            Outcome::Found(found) => {
                // SAFETY: the caller's buffer; zeroed first, as the kernel leaves no stale bytes.
                unsafe {
                    out.write(core::mem::zeroed());
                    fill(&mut *out, found.record.attributes());
                }
                0
            }
            Outcome::Absent { errno, .. } => fail(errno),
        },
    )
}

/// `newfstatat(2)`, which every kernel has.
fn raw_fstatat(directory: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int {
    // SAFETY: the caller's own arguments.
    finish(unsafe { call!(libc::SYS_newfstatat, directory, path, out, flags) }) as c_int
}

/// Gives a store file's descriptor the attributes of the file it stands for.
#[inline]
pub(crate) fn translate(out: *mut Stat) {
    if out.is_null() {
        return;
    }
    let Some(session) = session::known() else {
        return;
    };
    // SAFETY: the kernel has just filled the caller's buffer.
    let status = unsafe { &mut *out };
    if status.st_dev == session.store_device {
        translate_stored(session, status);
    }
}

#[inline(never)]
fn translate_stored(session: &'static Session, status: &mut Stat) {
    let Some(record) = session.catalog.by_store_inode(status.st_ino) else {
        return;
    };
    count(Family::Fstat, Counted::Hit, || record.path());
    match latest(session, record) {
        Some(record) => fill(status, record.attributes()),
        None => fill_changed(status, &record),
    }
}

/// The attributes of a file that was changed while a descriptor on the store was open on it.
#[cold]
fn fill_changed(out: &mut Stat, record: &Record<'_>) {
    let before = record.attributes();
    let path = record.path_terminated().as_ptr();
    if let Ok(now) = sys::stat_at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)
        && (now.st_dev, now.st_ino) == (before.device, before.inode)
    {
        *out = now;
        return;
    }
    fill(out, before);
    out.st_nlink = links_without_name(before) as _;
}

/// The links left to a file that has lost the name it was opened by.
fn links_without_name(before: &Attributes) -> u64 {
    if before.is_directory() {
        0
    } else {
        before.links.saturating_sub(1)
    }
}

fn fstat_common(result: c_int, out: *mut Stat) -> c_int {
    if result == 0 {
        translate(out);
    }
    result
}

/// Defines `stat` and its kin, which differ in name only.
macro_rules! path_stat {
    ($($name:ident: $ending:expr, $flags:expr;)*) => {$(
        hooks! { fn $name(path: *const c_char, out: *mut Stat) -> c_int {
            answer(AT_FDCWD, path, out, $ending, |route| {
                let path = route.path(path);
                if libc_is_next() {
                    return raw_fstatat(AT_FDCWD, path, out, $flags);
                }
                original!(fn $name(path: *const c_char, out: *mut Stat) -> c_int; else {
                    raw_fstatat(AT_FDCWD, path, out, $flags)
                })
            })
        } }
    )*};
}

path_stat! {
    stat: FOLLOW, 0;
    stat64: FOLLOW, 0;
    lstat: NO_FOLLOW, AT_SYMLINK_NOFOLLOW;
    lstat64: NO_FOLLOW, AT_SYMLINK_NOFOLLOW;
}

/// Defines `__xstat` and its kin, which older programs call.
macro_rules! versioned_stat {
    ($($name:ident: $ending:expr, $flags:expr;)*) => {$(
        hooks! { fn $name(
            version: c_int,
            path: *const c_char,
            out: *mut Stat,
        ) -> c_int {
            answer(AT_FDCWD, path, out, $ending, |route| {
                let path = route.path(path);
                original!(
                    fn $name(version: c_int, path: *const c_char, out: *mut Stat) -> c_int;
                    else { raw_fstatat(AT_FDCWD, path, out, $flags) }
                )
            })
        } }
    )*};
}

versioned_stat! {
    __xstat: FOLLOW, 0;
    __xstat64: FOLLOW, 0;
    __lxstat: NO_FOLLOW, AT_SYMLINK_NOFOLLOW;
    __lxstat64: NO_FOLLOW, AT_SYMLINK_NOFOLLOW;
}

/// Whether a path is empty (or null, as new kernels allow) and means the descriptor itself.
pub(crate) fn means_descriptor(path: *const c_char, flags: c_int) -> bool {
    let empty = if is_bad_pointer(path.cast()) {
        path.is_null()
    } else {
        // SAFETY: libc's contract makes the path NUL-terminated.
        unsafe { *path == 0 }
    };
    flags & libc::AT_EMPTY_PATH != 0 && empty
}

fn fstatat_common(
    directory: c_int,
    path: *const c_char,
    out: *mut Stat,
    flags: c_int,
    kernel: impl FnOnce(c_int, *const c_char) -> c_int,
) -> c_int {
    if means_descriptor(path, flags) {
        return fstat_common(kernel(directory, path), out);
    }
    if flags & !(HARMLESS | libc::AT_EMPTY_PATH) != 0 {
        return kernel(directory, path);
    }
    let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
    answer(
        directory,
        path,
        out,
        Ending {
            follow,
            directory: false,
        },
        |route| {
            let (directory, path) = route.of(directory, path);
            kernel(directory, path)
        },
    )
}

/// Defines `fstatat` under both its names.
macro_rules! at_stat {
    ($($name:ident)*) => {$(
        hooks! { fn $name(
            directory: c_int,
            path: *const c_char,
            out: *mut Stat,
            flags: c_int,
        ) -> c_int {
            fstatat_common(directory, path, out, flags, |directory, path| {
                original!(
                    fn $name(
                        directory: c_int, path: *const c_char, out: *mut Stat, flags: c_int,
                    ) -> c_int;
                    else { raw_fstatat(directory, path, out, flags) }
                )
            })
        } }
    )*};
}

at_stat! { fstatat fstatat64 }

/// Defines `__fxstatat` under both its names.
macro_rules! versioned_at_stat {
    ($($name:ident)*) => {$(
        hooks! { fn $name(
            version: c_int,
            directory: c_int,
            path: *const c_char,
            out: *mut Stat,
            flags: c_int,
        ) -> c_int {
            fstatat_common(directory, path, out, flags, |directory, path| {
                original!(
                    fn $name(
                        version: c_int, directory: c_int, path: *const c_char, out: *mut Stat,
                        flags: c_int,
                    ) -> c_int;
                    else { raw_fstatat(directory, path, out, flags) }
                )
            })
        } }
    )*};
}

versioned_at_stat! { __fxstatat __fxstatat64 }

fn raw_fstat(descriptor: c_int, out: *mut Stat) -> c_int {
    // SAFETY: the caller's own arguments.
    finish(unsafe { call!(libc::SYS_fstat, descriptor, out) }) as c_int
}

/// Defines `fstat` under both its names.
macro_rules! descriptor_stat {
    ($($name:ident)*) => {$(
        hooks! { fn $name(descriptor: c_int, out: *mut Stat) -> c_int {
            if libc_is_next() {
                return fstat_common(raw_fstat(descriptor, out), out);
            }
            let result = original!(fn $name(descriptor: c_int, out: *mut Stat) -> c_int; else {
                raw_fstat(descriptor, out)
            });
            fstat_common(result, out)
        } }
    )*};
}

descriptor_stat! { fstat fstat64 }

/// Defines `__fxstat` under both its names.
macro_rules! versioned_descriptor_stat {
    ($($name:ident)*) => {$(
        hooks! { fn $name(
            version: c_int,
            descriptor: c_int,
            out: *mut Stat,
        ) -> c_int {
            let result = original!(
                fn $name(version: c_int, descriptor: c_int, out: *mut Stat) -> c_int;
                else { raw_fstat(descriptor, out) }
            );
            fstat_common(result, out)
        } }
    )*};
}

versioned_descriptor_stat! { __fxstat __fxstat64 }

/// `statx` flags that change nothing for what the catalog answers.
const STATX_HARMLESS: c_int = HARMLESS | libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;

/// What the helper asked of the origin; other fields are the kernel's to answer.
const STATX_KNOWN: c_uint = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID;

hooks! {
fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    out: *mut Statx,
) -> c_int {
    statx_common(directory, path, flags, mask, out, |directory, path| {
        original!(
            fn statx(
                directory: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut Statx,
            ) -> c_int;
            else {
                // SAFETY: the caller's own arguments.
                let result = unsafe { call!(libc::SYS_statx, directory, path, flags, mask, out) };
                finish(result) as c_int
            }
        )
    })
}
}

/// What the kernel refuses before it looks at the path.
fn is_sound_statx(flags: c_int, mask: c_uint) -> bool {
    const RESERVED: c_uint = 1 << 31;
    const SYNC: c_int = libc::AT_STATX_FORCE_SYNC | libc::AT_STATX_DONT_SYNC;
    let known = HARMLESS | libc::AT_EMPTY_PATH | SYNC;
    flags & !known == 0 && flags & SYNC != SYNC && mask & RESERVED == 0
}

/// `statx`, with the kernel's part given.
pub(crate) fn statx_common(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    out: *mut Statx,
    kernel: impl FnOnce(c_int, *const c_char) -> c_int,
) -> c_int {
    if means_descriptor(path, flags) {
        let result = kernel(directory, path);
        if result == 0 {
            translate_statx(sys::fstat(directory).map(|status| status.st_ino), mask, out);
        }
        return result;
    }
    if !is_sound_statx(flags, mask) {
        return fail(libc::EINVAL);
    }
    if flags & !STATX_HARMLESS != 0 || mask & !STATX_KNOWN != 0 {
        return with_target(Family::Other, directory, path, FOLLOW, |outcome| {
            let route = match outcome {
                Outcome::Kernel(route) => route,
                Outcome::Found(found) => {
                    found.count_passed(Counted::Special);
                    found.route
                }
                Outcome::Absent { errno, .. } => return fail(errno),
            };
            let (directory, path) = route.of(directory, path);
            kernel(directory, path)
        });
    }
    let ending = Ending {
        follow: flags & AT_SYMLINK_NOFOLLOW == 0,
        directory: false,
    };
    with_target(
        Family::Stat,
        directory,
        path,
        ending,
        |outcome| match outcome {
            Outcome::Kernel(route) => {
                let (directory, path) = route.of(directory, path);
                let result = kernel(directory, path);
                if result == 0 {
                    // tmpfs always tells the inode.
                    translate_statx(None, mask, out);
                }
                result
            }
            Outcome::Found(found) if is_bad_pointer(out.cast()) => {
                let (directory, path) = found.route.of(directory, path);
                kernel(directory, path)
            }
            Outcome::Found(found) => {
                // SAFETY: the caller's buffer; zeroed first, as the kernel leaves no stale bytes.
                unsafe {
                    out.write(core::mem::zeroed());
                    fill_statx(&mut *out, found.record.attributes(), mask);
                }
                0
            }
            Outcome::Absent { errno, .. } => fail(errno),
        },
    )
}

/// As [`translate`]; the inode is the answer's own where it is not given.
fn translate_statx(inode: Option<u64>, mask: c_uint, out: *mut Statx) {
    let Some(session) = session::known() else {
        return;
    };
    // SAFETY: the kernel has just filled the caller's buffer.
    let status = unsafe { &mut *out };
    let device = libc::makedev(status.stx_dev_major, status.stx_dev_minor);
    if device != session.store_device {
        return;
    }
    let inode = inode.unwrap_or(status.stx_ino);
    let Some(record) = session.catalog.by_store_inode(inode) else {
        return;
    };
    match latest(session, record) {
        Some(record) => fill_statx(status, record.attributes(), mask),
        None => fill_statx_changed(status, &record, mask),
    }
}

/// As [`fill_changed`].
#[cold]
fn fill_statx_changed(out: &mut Statx, record: &Record<'_>, mask: c_uint) {
    let before = record.attributes();
    let path = record.path_terminated().as_ptr();
    let mut now = core::mem::MaybeUninit::<Statx>::zeroed();
    // SAFETY: the path is NUL-terminated; the kernel fills `now`, which is zeroed besides.
    let (result, now) = unsafe {
        let (room, flags) = (now.as_mut_ptr(), AT_SYMLINK_NOFOLLOW);
        let wanted = mask | libc::STATX_INO;
        let result = call!(libc::SYS_statx, AT_FDCWD, path, flags, wanted, room);
        (result, now.assume_init())
    };
    let device = libc::makedev(now.stx_dev_major, now.stx_dev_minor);
    if result == 0 && (device, now.stx_ino) == (before.device, before.inode) {
        *out = now;
        return;
    }
    fill_statx(out, before, mask);
    out.stx_nlink = links_without_name(before) as u32;
}

hooks! {
    fn ftok(path: *const c_char, project: c_int) -> libc::key_t {
        let mut status = core::mem::MaybeUninit::<Stat>::zeroed();
        // SAFETY: the caller's path; `status` is filled where the call succeeds.
        let status = unsafe {
            if stat(path, status.as_mut_ptr()) != 0 {
                return -1;
            }
            status.assume_init()
        };
        // The key that glibc documents: bits of inode, device and project.
        let (inode, device) = (status.st_ino as u32, status.st_dev as u32);
        (inode & 0xffff | (device & 0xff) << 16 | (project as u32 & 0xff) << 24) as libc::key_t
    }
}
