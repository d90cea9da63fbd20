//! `copy_file_range` and `ioctl`, where they are asked of a store file what only the origin's file
//! system can do: share or copy blocks within it, and tell of flags and extents. The numbers of
//! [`crate::control`] are answered by the helper.

use crate::control;
use crate::descriptor::origin_of;
use crate::original::{hooks, original};
use crate::sys::{self, call, errno, finish, set_errno};
use core::ffi::{c_int, c_uint, c_ulong, c_void};
use libc::{off64_t, size_t, ssize_t};

const FICLONE: c_ulong = 0x4004_9409;
const FICLONERANGE: c_ulong = 0x4020_940d;
/// Questions about a file: `FS_IOC_FIEMAP`, `FS_IOC_GETFLAGS`, `FS_IOC_GETVERSION` and
/// `FS_IOC_FSGETXATTR`.
const ABOUT_FILE: [c_ulong; 4] = [0xc020_660b, 0x8008_6601, 0x8008_7601, 0x801c_581f];

/// `struct file_clone_range`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CloneRange {
    source: i64,
    rest: [u64; 3],
}

/// Copies from the origin's file in the place of the store's, where the target lies on the
/// origin's file system; `None` where it does not, or the origin's file is another one by now.
#[cold]
fn copy_from_origin(
    from: c_int,
    from_offset: *mut off64_t,
    to: c_int,
    copy: impl FnOnce(c_int, *mut off64_t) -> ssize_t,
) -> Option<ssize_t> {
    let origin = origin_of(from)?;
    if sys::fstat(origin.number())?.st_dev != sys::fstat(to)?.st_dev {
        return None;
    }
    if !from_offset.is_null() {
        return Some(copy(origin.number(), from_offset));
    }
    // SAFETY: plain arguments; asks for the position of the caller's descriptor.
    let start = unsafe { call!(libc::SYS_lseek, from, 0, libc::SEEK_CUR) } as off64_t;
    let mut offset = start;
    let copied = copy(origin.number(), &raw mut offset);
    if copied > 0 {
        // SAFETY: as above; sets the position that the copy leads to.
        unsafe {
            call!(
                libc::SYS_lseek,
                from,
                start + copied as off64_t,
                libc::SEEK_SET
            )
        };
    }
    Some(copied)
}

fn raw_ioctl(descriptor: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // SAFETY: the caller's own arguments.
    finish(unsafe { call!(libc::SYS_ioctl, descriptor, request, argument) }) as c_int
}

/// Shares blocks of the origin's file with `target`; `None` where the source is not on the store.
#[cold]
fn clone_from_origin(target: c_int, request: c_ulong, argument: *mut c_void) -> Option<c_int> {
    if request == FICLONE {
        let origin = origin_of(argument as c_int)?;
        return Some(raw_ioctl(
            target,
            request,
            origin.number() as usize as *mut c_void,
        ));
    }
    if crate::target::is_bad_pointer(argument.cast()) {
        return None;
    }
    // SAFETY: the caller's own structure.
    let mut range = unsafe { *argument.cast::<CloneRange>() };
    let origin = origin_of(range.source as c_int)?;
    range.source = origin.number().into();
    Some(raw_ioctl(target, request, (&raw mut range).cast()))
}

hooks! {
    fn copy_file_range(
        from: c_int,
        from_offset: *mut off64_t,
        to: c_int,
        to_offset: *mut off64_t,
        length: size_t,
        flags: c_uint,
    ) -> ssize_t {
        let before = errno();
        let copy = |from: c_int, from_offset: *mut off64_t| original!(
            fn copy_file_range(
                from: c_int, from_offset: *mut off64_t, to: c_int, to_offset: *mut off64_t,
                length: size_t, flags: c_uint,
            ) -> ssize_t;
            or -1
        );
        let copied = copy(from, from_offset);
        if copied >= 0 || errno() != libc::EXDEV {
            return copied;
        }
        match copy_from_origin(from, from_offset, to, copy) {
            Some(copied) => {
                if copied >= 0 {
                    set_errno(before);
                }
                copied
            }
            None => {
                set_errno(libc::EXDEV);
                -1
            }
        }
    }

    fn ioctl(descriptor: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
        // libc's requests are unsigned, and some callers give them as signed numbers.
        let number = request & 0xffff_ffff;
        let answer = match number {
            FICLONE | FICLONERANGE => clone_from_origin(descriptor, number, argument),
            number if ABOUT_FILE.contains(&number) => origin_of(descriptor)
                .map(|origin| raw_ioctl(origin.number(), number, argument)),
            number => control::named(number)
                .and_then(|control| control::carry_out(descriptor, control)),
        };
        answer.unwrap_or_else(|| original!(
            fn ioctl(descriptor: c_int, request: c_ulong, argument: *mut c_void) -> c_int;
            else { raw_ioctl(descriptor, request, argument) }
        ))
    }
}
