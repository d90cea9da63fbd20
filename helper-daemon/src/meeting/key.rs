//! The job's key: 32 random bytes, in a file that only its user can read.
//!
//! It is never on a command line nor in an application's environment.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a key.
const LENGTH: usize = 32;

/// A job's key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct JobKey([u8; LENGTH]);

/// A key file cannot be made or must not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// It cannot be made, opened or read.
    #[error("key file {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others might know the key.
    #[error(
        "key file {} must be a plain file of yours that nobody else can read or write (it has mode \
         {mode:o} and owner {owner}); remove it and start the job anew", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// It is not what [`JobKey::create`] writes.
    #[error("key file {} does not hold a key", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The system has no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
}

impl JobKey {
    /// Draws a key and writes it to a new file of mode 0600.
    ///
    /// # Errors
    ///
    /// The file exists or cannot be made.
    pub(crate) fn create(path: &Path) -> Result<Self, KeyError> {
        let mut key = [0; LENGTH];
        getrandom::fill(&mut key).map_err(|error| KeyError::Random(error.to_string()))?;
        let io_error = |error| KeyError::Io {
            path: path.to_owned(),
            error,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io_error)?;
        let text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        file.write_all(format!("{text}\n").as_bytes())
            .map_err(io_error)?;
        Ok(Self(key))
    }

    /// Reads a key file, if only its user can have read or written it.
    ///
    /// # Errors
    ///
    /// See [`KeyError`].
    pub(crate) fn load(path: &Path) -> Result<Self, KeyError> {
        let io_error = |error| KeyError::Io {
            path: path.to_owned(),
            error,
        };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        let mode = metadata.mode() & 0o7777;
        let owner = metadata.uid();
        if !metadata.is_file() || owner != rustix::process::geteuid().as_raw() || mode & 0o077 != 0
        {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
                mode,
                owner,
            });
        }
        let mut text = String::new();
        file.take(2 * LENGTH as u64 + 2)
            .read_to_string(&mut text)
            .map_err(io_error)?;
        parse(text.trim_end()).ok_or_else(|| KeyError::Malformed {
            path: path.to_owned(),
        })
    }

    /// The bytes, for keyed hashing.
    pub(crate) fn bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }
}

fn parse(text: &str) -> Option<JobKey> {
    if text.len() != 2 * LENGTH || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; LENGTH];
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(JobKey(key))
}

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_key_is_read_back_and_no_two_are_alike() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        let key = JobKey::create(&one).unwrap();
        assert!(JobKey::load(&one).unwrap() == key);
        assert!(JobKey::create(&two).unwrap() != key);
        assert_eq!(fs::metadata(&one).unwrap().mode() & 0o7777, 0o600);
        assert!(
            matches!(JobKey::create(&one), Err(KeyError::Io { .. })),
            "it was overwritten"
        );
    }

    #[test]
    fn a_key_that_others_might_know_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        JobKey::create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = JobKey::load(&path).unwrap_err();
            assert!(
                matches!(error, KeyError::Exposed { .. }),
                "{mode:o}: {error}"
            );
            assert!(error.to_string().contains("remove it"), "{error}");
        }
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(JobKey::load(&link).is_err());
        assert!(JobKey::load(directory.path()).is_err());
        assert!(JobKey::load(&directory.path().join("absent")).is_err());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for text in ["", "abc", &"g".repeat(64), &"0".repeat(63), &"0".repeat(66)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = JobKey::load(&path).unwrap_err();
            assert!(
                matches!(error, KeyError::Malformed { .. }),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", JobKey([0xab; 32])), "JobKey(..)");
    }
}
