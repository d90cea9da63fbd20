//! Where a store file lies: the store mirrors the origin's tree below one directory on tmpfs, so
//! that `$ORIGIN` in a library's search path finds its siblings there.
//!
//! Files appear whole or not at all: the helper writes them under [`PARTIAL`] and renames them.
#![forbid(unsafe_code)]

/// The directory of the mirror inside the store's directory.
pub const MIRROR: &str = "tree";
/// The directory, beside the mirror and on the same file system, where files are written.
pub const PARTIAL: &str = "partial";

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
    fn mirror_paths_are_closed_and_bounded() {
        let mut out = [1; 16];
        assert_eq!(mirror_path(b"/s/tree", b"/a/b", &mut out), Some(11));
        assert_eq!(&out[..12], b"/s/tree/a/b\0");
        assert_eq!(mirror_path(b"/s/tree", b"/a/b", &mut [0; 11]), None);
    }
}
