//! A file's attributes as the catalog and the wire carry them: what `statx` said of it on the
//! origin, with nothing left out, so that `stat`, `fstat` and `statx` can all be answered.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// A point in time as file systems record it.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Timestamp {
    /// Seconds since the epoch; negative before it.
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    pub nanoseconds: u32,
    /// Always zero; keeps the layout free of padding.
    #[serde(skip)]
    pub reserved: u32,
}

/// The attributes of one file, directory, link or special file on the origin.
///
/// Field for field what `statx(2)` gives; `mode` holds the file type in its upper bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attributes {
    /// Device number of the file system, as `st_dev`.
    pub device: u64,
    /// Inode number on the origin.
    pub inode: u64,
    /// Number of hard links.
    pub links: u64,
    /// Device number of a special file, as `st_rdev`.
    pub special_device: u64,
    /// Size in bytes.
    pub size: u64,
    /// Blocks of 512 bytes in use.
    pub blocks: u64,
    /// File type and permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Preferred block size for I/O, in bytes.
    pub block_size: u32,
    /// Last access.
    pub accessed: Timestamp,
    /// Last change of the contents.
    pub modified: Timestamp,
    /// Last change of the attributes.
    pub changed: Timestamp,
    /// Creation, where `statx_mask` says that it is known.
    pub born: Timestamp,
    /// `stx_attributes`.
    pub statx_attributes: u64,
    /// `stx_attributes_mask`.
    pub statx_attributes_mask: u64,
    /// `stx_mnt_id`.
    pub mount: u64,
    /// Which fields `statx` filled, as `stx_mask`.
    pub statx_mask: u32,
    /// Always zero; keeps the layout free of padding.
    #[serde(skip)]
    pub reserved: u32,
}

/// Length of [`Attributes`] on the wire and in the catalog, in bytes.
pub const ATTRIBUTES_LENGTH: usize = size_of::<Attributes>();

const TYPE_MASK: u32 = 0o170_000;
const TYPE_REGULAR: u32 = 0o100_000;
const TYPE_DIRECTORY: u32 = 0o040_000;
const TYPE_LINK: u32 = 0o120_000;

impl Attributes {
    /// Whether this is a regular file.
    pub fn is_regular(&self) -> bool {
        self.mode & TYPE_MASK == TYPE_REGULAR
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & TYPE_MASK == TYPE_DIRECTORY
    }

    /// Whether this is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & TYPE_MASK == TYPE_LINK
    }

    /// The type as directory listings carry it (`DT_REG` and its kin).
    pub fn directory_type(&self) -> u8 {
        ((self.mode & TYPE_MASK) >> 12) as u8
    }

    /// Whether `other` describes the same contents: same inode, size and modification time.
    ///
    /// The time of change counts as well: a file replaced by `rename` with its times restored
    /// still differs in it.
    pub fn same_version(&self, other: &Attributes) -> bool {
        self.device == other.device
            && self.inode == other.inode
            && self.size == other.size
            && self.mode & TYPE_MASK == other.mode & TYPE_MASK
            && self.modified == other.modified
            && self.changed == other.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_mode() {
        let of = |mode| Attributes {
            mode,
            ..Attributes::default()
        };
        assert!(of(0o100_644).is_regular());
        assert!(of(0o040_755).is_directory());
        assert!(of(0o120_777).is_link());
        assert_eq!(of(0o010_600).directory_type(), 1);
        assert_eq!(of(0o100_600).directory_type(), 8);
    }

    #[test]
    fn a_new_time_of_change_is_a_new_version() {
        let old = Attributes {
            mode: 0o100_644,
            size: 3,
            ..Attributes::default()
        };
        let mut new = old;
        assert!(old.same_version(&new));
        new.changed.nanoseconds = 1;
        assert!(!old.same_version(&new));
    }
}
