//! The absolute form of a path argument, without a call that is hooked.

use std::ffi::CStr;

const CAPACITY: usize = 2 * libc::PATH_MAX as usize;

/// An absolute path; neither `.`, `..` nor links are resolved.
pub(crate) struct Resolved {
    bytes: [u8; CAPACITY],
    length: usize,
}

impl Resolved {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push(&mut self, part: &[u8]) {
        let end = self.length + part.len().min(CAPACITY - self.length);
        self.bytes[self.length..end].copy_from_slice(&part[..end - self.length]);
        self.length = end;
    }
}

/// The path at address `path`, seen from the directory `base` (or `AT_FDCWD`); `None` when the
/// argument is no readable string.
pub(crate) fn absolute(base: libc::c_int, path: usize) -> Option<Resolved> {
    // Programs pass NULL and worse to find out what is supported; glibc then answers EFAULT.
    if path < 4096 {
        return None;
    }
    // SAFETY: the argument is a string by the function's contract, and not near NULL.
    let path = unsafe { CStr::from_ptr(path as *const libc::c_char) }.to_bytes();
    let mut resolved = Resolved {
        bytes: [0; CAPACITY],
        length: 0,
    };
    if !path.starts_with(b"/") {
        resolved.push_directory(base)?;
        resolved.push(b"/");
    }
    resolved.push(path);
    Some(resolved)
}

impl Resolved {
    fn push_directory(&mut self, directory: libc::c_int) -> Option<()> {
        let link = if directory == libc::AT_FDCWD {
            "/proc/self/cwd".to_owned()
        } else {
            format!("/proc/self/fd/{directory}")
        };
        let target = rustix::fs::readlink(link, Vec::new()).ok()?;
        self.push(target.to_bytes());
        Some(())
    }
}
