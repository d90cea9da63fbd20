//! Whether anybody on this node has a file of the origin open for writing.

use rustix::fs::{Mode, OFlags};
use std::os::fd::AsRawFd;

/// Asks for a read lease, which the kernel grants only where there is no writer, and gives it
/// back at once. `false` where there is a writer or the file system cannot tell.
pub(crate) fn has_no_writer(path: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()) else {
        return false;
    };
    let lease = |kind: i32| {
        // SAFETY: F_SETLEASE takes an integer and touches no memory of ours.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) == 0 }
    };
    lease(libc::F_RDLCK) && lease(libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_file_open_for_writing_has_a_writer() {
        let path = std::env::temp_dir().join(format!("copper-lease-{}", std::process::id()));
        let file = std::fs::File::create(&path).expect("temporary file");
        assert!(!has_no_writer(path.as_os_str().as_bytes()));
        drop(file);
        let quiet = has_no_writer(path.as_os_str().as_bytes());
        std::fs::remove_file(&path).expect("ours");
        assert!(quiet);
    }
}
