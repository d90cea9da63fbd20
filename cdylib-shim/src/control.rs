//! `ioctl` with the first Copper's command numbers, on a descriptor of a stored file or directory:
//! the helper carries the control out on this node, and writes what is dumped into the directory
//! that the file lies in.

use crate::ask::ask;
use crate::descriptor::record_of;
use crate::session;
use crate::sys::fail;
use copper_core::control::Control;
use copper_core::location::decimal;
use copper_core::path::split_last;
use copper_core::request::{Operation, Outcome as Reply};
use core::ffi::{c_int, c_ulong};

/// The control that this request of an `ioctl` may mean.
pub(crate) fn named(request: c_ulong) -> Option<Control> {
    Control::from_number(u16::try_from(request).ok()?)
}

/// Has the helper carry out a control; `None` where the descriptor is none of the store's, and the
/// request means something else.
#[cold]
pub(crate) fn carry_out(descriptor: c_int, control: Control) -> Option<c_int> {
    let session = session::known()?;
    let record = record_of(session, descriptor)?;
    let directory = if record.is_directory() {
        record.path()
    } else {
        split_last(record.path()).0
    };
    let mut digits = [0; 20];
    let length = decimal(control.number().into(), &mut digits);
    let reply = ask(session, Operation::Control, &digits[..length], directory);
    Some(if reply == Reply::Known {
        0
    } else {
        fail(libc::EIO)
    })
}
