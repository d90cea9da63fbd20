//! `lseek` to data and to holes: a hole of a store file that was mapped and read is a hole no more,
//! so the origin's file is asked where its holes are. All other seeks are the kernel's.

use crate::descriptor::origin_of;
use crate::original::{hooks, original};
use crate::sys::{call, fail, finish};
use core::ffi::c_int;
use libc::off_t;

/// The place that the origin's file has for a seek to data or to a hole; `None` where the
/// descriptor is not one of ours, or the origin's file cannot be opened.
#[cold]
fn on_origin(descriptor: c_int, offset: off_t, whence: c_int) -> Option<isize> {
    let origin = origin_of(descriptor)?;
    // SAFETY: plain arguments; the descriptor is ours.
    Some(unsafe { call!(libc::SYS_lseek, origin.number(), offset, whence) })
}

/// Defines the names of `lseek`.
macro_rules! seek_hooks {
    ($($name:ident)*) => {$(
        hooks! { fn $name(descriptor: c_int, offset: off_t, whence: c_int) -> off_t {
            let (mut offset, mut whence) = (offset, whence);
            if matches!(whence, libc::SEEK_DATA | libc::SEEK_HOLE) {
                match on_origin(descriptor, offset, whence) {
                    Some(error) if error < 0 => return fail(-error as c_int).into(),
                    Some(place) => (offset, whence) = (place as off_t, libc::SEEK_SET),
                    None => {}
                }
            }
            original!(
                fn $name(descriptor: c_int, offset: off_t, whence: c_int) -> off_t;
                else {
                    // SAFETY: the caller's own arguments, or a place in the same file.
                    finish(unsafe { call!(libc::SYS_lseek, descriptor, offset, whence) }) as off_t
                }
            )
        } }
    )*};
}

seek_hooks! { lseek lseek64 }
