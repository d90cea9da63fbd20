//! All that is asked of the origin, on threads that may block.
//!
//! The event loop hands jobs in and gets [`Landing`]s back; it never touches the origin itself.

pub(crate) mod copy;
pub(crate) mod entry;
pub(crate) mod lease;
pub(crate) mod pool;
pub(crate) mod snapshot;
pub(crate) mod work;

use copper_core::attributes::{Attributes, Timestamp};
use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp, makedev};
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A path of the origin.
pub(crate) type OriginPath = Arc<[u8]>;

/// How often the origin was asked.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Attributes of one path.
    pub(crate) stats: AtomicU64,
    /// Directories listed.
    pub(crate) listings: AtomicU64,
    /// Files opened to be read.
    pub(crate) opens: AtomicU64,
    /// Bytes of files read.
    pub(crate) bytes_read: AtomicU64,
    /// Links read.
    pub(crate) readlinks: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// Attributes as the kernel gives them for `name` in `directory` (the directory itself where the
/// name is empty); links are not followed.
pub(crate) fn attributes_of(
    counters: &Counters,
    directory: impl AsFd,
    name: &[u8],
) -> Result<Attributes, Errno> {
    count(&counters.stats, 1);
    let mut flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    if name.is_empty() {
        flags |= AtFlags::EMPTY_PATH;
    }
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(directory, name, flags, mask)?;
    Ok(convert(&found))
}

fn convert(found: &Statx) -> Attributes {
    let time = |stamp: StatxTimestamp| Timestamp {
        seconds: stamp.tv_sec,
        nanoseconds: stamp.tv_nsec,
        reserved: 0,
    };
    Attributes {
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        links: u64::from(found.stx_nlink),
        special_device: makedev(found.stx_rdev_major, found.stx_rdev_minor),
        size: found.stx_size,
        blocks: found.stx_blocks,
        mode: u32::from(found.stx_mode),
        uid: found.stx_uid,
        gid: found.stx_gid,
        block_size: found.stx_blksize,
        accessed: time(found.stx_atime),
        modified: time(found.stx_mtime),
        changed: time(found.stx_ctime),
        born: time(found.stx_btime),
        statx_attributes: found.stx_attributes.bits(),
        statx_attributes_mask: found.stx_attributes_mask.bits(),
        mount: found.stx_mnt_id,
        statx_mask: found.stx_mask,
        reserved: 0,
    }
}

/// What the origin said of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// It exists; a link's target is given.
    Present(Box<Attributes>, Box<[u8]>),
    /// It does not, with this error number.
    Absent(u16),
    /// It would not say, with this error.
    Refused(Errno),
}
