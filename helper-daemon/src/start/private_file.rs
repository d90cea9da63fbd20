//! Files that only this user can read, and that are gone when they have been of use.
#![forbid(unsafe_code)]

use crate::runtime::own_uid;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct PrivateFile {
    path: PathBuf,
}

impl PrivateFile {
    /// Puts `contents` into a new file in `directory`.
    pub(super) fn make(directory: &Path, contents: &[u8]) -> Result<PrivateFile> {
        let random = getrandom::u64().context("the system has no random bytes")?;
        let path = directory.join(format!(".copper-{random:016x}"));
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("cannot make a file in {}", directory.display()))?;
        let made = PrivateFile { path };
        File::from(file)
            .write_all(contents)
            .with_context(|| format!("cannot write {}", made.path.display()))?;
        Ok(made)
    }

    /// Its path.
    pub(super) fn name(&self) -> Result<&str> {
        self.path.to_str().context("a path is not UTF-8 text")
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a file that another node made with [`PrivateFile::make`].
pub(super) fn open(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).with_context(|| {
        format!(
            "cannot open {}; is its directory one that all nodes see? Name such a one with \
             --shared-directory",
            path.display()
        )
    })?;
    let file = File::from(file);
    let found = file.metadata()?;
    ensure!(
        found.is_file() && found.uid() == own_uid() && found.mode() & 0o077 == 0,
        "{} is not a plain file of yours that nobody else can read",
        path.display()
    );
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_private_and_goes() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = PrivateFile::make(directory.path(), b"key").expect("made");
        let path = PathBuf::from(file.name().expect("text"));
        let mut text = String::new();
        open(&path)
            .expect("private")
            .read_to_string(&mut text)
            .expect("read");
        assert_eq!(text, "key");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(open(&path).is_err(), "others could read it");
        drop(file);
        let error = open(&path).expect_err("gone").to_string();
        assert!(error.contains("--shared-directory"), "{error}");
    }
}
