//! Where a store file lies: under its own inode's number in [`FILES`], where a short path makes an
//! `open` cheap. Libraries lie in [`MIRROR`] as well, a mirror of the origin's tree, so that `$ORIGIN` in
//! their search path finds their siblings there; so do directories that somebody holds open.
//!
//! Files appear whole or not at all: the helper writes them under [`PARTIAL`] and renames them.
#![forbid(unsafe_code)]

use crate::location::decimal;
use crate::path::{below, split_last};

/// The directory of the mirror inside the store's directory.
pub const MIRROR: &str = "tree";
/// The directory, beside the mirror, where each stored file lies under its inode's number.
pub const FILES: &str = "files";
/// The directory, beside the mirror and on the same file system, where files are written.
pub const PARTIAL: &str = "partial";

/// The store's directory, from the root of its mirror.
pub fn root_of(mirror: &[u8]) -> &[u8] {
    split_last(mirror).0
}

/// The longest root of a mirror that shims can use.
pub const ROOT_MAX: usize = 200;
/// Enough room for any path that [`FilesStart::file_path`] writes.
pub const FILE_PATH_MAX: usize = ROOT_MAX + FILES.len() + 2 + 20 + 1;

/// What the paths of all stored files begin with.
#[derive(Clone, Copy)]
pub struct FilesStart {
    text: [u8; FILE_PATH_MAX],
    length: usize,
}

impl FilesStart {
    /// For the store whose mirror has this root; `None` where that is too long.
    pub fn new(mirror: &[u8]) -> Option<FilesStart> {
        let root = root_of(mirror);
        let length = root.len() + FILES.len() + 2;
        if root.len() > ROOT_MAX {
            return None;
        }
        let mut text = [0; FILE_PATH_MAX];
        text[..root.len()].copy_from_slice(root);
        text[root.len()] = b'/';
        text[root.len() + 1..length - 1].copy_from_slice(FILES.as_bytes());
        text[length - 1] = b'/';
        Some(FilesStart { text, length })
    }

    /// Writes the path of the stored file `inode`, with a closing NUL, and returns its length
    /// without the NUL.
    #[inline]
    pub fn file_path(&self, inode: u64, out: &mut [u8; FILE_PATH_MAX]) -> usize {
        out[..self.length].copy_from_slice(&self.text[..self.length]);
        let length = self.length + decimal(inode, &mut out[self.length..]);
        out[length] = 0;
        length
    }
}

/// The inode that a path made by [`FilesStart::file_path`] names, also where the kernel calls it deleted.
pub fn inode_of_file(mirror: &[u8], path: &[u8]) -> Option<u64> {
    let name = below(path, root_of(mirror))?.strip_prefix(b"/files/")?;
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    core::str::from_utf8(name).ok()?.parse().ok()
}

/// Writes the store's path of the origin path `path` into `out`, with a closing NUL, and returns
/// its length without the NUL; `None` where it does not fit.
pub fn mirror_path(root: &[u8], path: &[u8], out: &mut [u8]) -> Option<usize> {
    let length = root.len() + path.len();
    let target = out.get_mut(..length + 1)?;
    target[..root.len()].copy_from_slice(root);
    target[root.len()..length].copy_from_slice(path);
    target[length] = 0;
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_paths_lead_back_to_their_inode() {
        let mut out = [1; FILE_PATH_MAX];
        let start = FilesStart::new(b"/s/tree").expect("short");
        let length = start.file_path(1234, &mut out);
        assert_eq!(&out[..=length], b"/s/files/1234\0");
        assert_eq!(inode_of_file(b"/s/tree", b"/s/files/1234"), Some(1234));
        assert_eq!(inode_of_file(b"/s/tree", b"/s/files/7 (deleted)"), Some(7));
        for other in ["/s/files", "/s/files/x", "/s/tree/7", "/other/files/7"] {
            assert_eq!(inode_of_file(b"/s/tree", other.as_bytes()), None, "{other}");
        }
        assert!(FilesStart::new(&[b'/'; ROOT_MAX + 10]).is_none());
    }

    #[test]
    fn mirror_paths_are_closed_and_bounded() {
        let mut out = [1; 16];
        assert_eq!(mirror_path(b"/s/tree", b"/a/b", &mut out), Some(11));
        assert_eq!(&out[..12], b"/s/tree/a/b\0");
        assert_eq!(mirror_path(b"/s/tree", b"/a/b", &mut [0; 11]), None);
    }
}
