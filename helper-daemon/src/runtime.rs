//! The runtime directory: where helper, shim and command of one user and job find each other.
//!
//! | name | what |
//! |---|---|
//! | `starting` | locked while somebody starts a helper, so that only one does |
//! | `lock` | locked by the helper as long as it lives |
//! | `socket` | where the helper listens |
//! | `catalog`, `common` | links to the helper's sealed memory, made last |
//! | `job` | the job this helper is one of, with its key (mode 0600) |
//! | `store`, `view` | texts that name what a dead helper left to be cleaned up |
//! | `audit` | what was measured of the audit library |
#![forbid(unsafe_code)]

use crate::job::JOB_FILE;
use anyhow::{Context, Result, bail, ensure};
use copper_core::{location, request};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The runtime directory, checked.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    directory: PathBuf,
}

const STARTING: &str = "starting";
const AUDIT: &str = "audit";
/// How often the directory is tried to be made while ending helpers remove it.
const TRIES: usize = 100;

/// The user this process acts as.
pub(crate) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// This node's name.
pub(crate) fn host_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

/// A path with `{host}` replaced by the node's name, so that nodes may share a directory.
pub(crate) fn of_this_host(path: &Path) -> PathBuf {
    match path.to_str() {
        Some(text) => text.replace("{host}", &host_name()).into(),
        None => path.to_owned(),
    }
}

/// The value of a variable, if it is set and not empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The name that tells this user's and job's things from others': `copper-UID[-JOB]`.
pub(crate) fn own_name() -> PathBuf {
    let job = location::JOB_VARIABLES.into_iter().find_map(variable);
    let mut room = [0; location::RUNTIME_MAX];
    let job = job.map(OsStringExt::into_vec);
    let length = location::runtime_directory(own_uid(), job.as_deref(), &mut room);
    let path = Path::new(OsStr::from_bytes(&room[..length]));
    PathBuf::from(path.file_name().unwrap_or(path.as_os_str()))
}

/// Where this user's and job's runtime directory is, or will be.
pub(crate) fn default_directory() -> PathBuf {
    match variable(location::RUNTIME_VARIABLE) {
        Some(named) => PathBuf::from(named),
        None => Path::new("/tmp").join(own_name()),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    let system = error.downcast_ref::<Errno>();
    io.is_some_and(|io| io.kind() == ErrorKind::NotFound) || system == Some(&Errno::NOENT)
}

/// Checks that `directory` is a directory (no link) of this user that nobody else can enter.
pub(crate) fn check_private(directory: &Path) -> Result<()> {
    let found = fs::symlink_metadata(directory)
        .with_context(|| format!("cannot use {}", directory.display()))?;
    ensure!(
        found.is_dir(),
        "{} is not a directory; remove it or set {}",
        directory.display(),
        location::RUNTIME_VARIABLE
    );
    ensure!(
        found.uid() == own_uid(),
        "{} belongs to uid {}, not to you (uid {}); set {} to a directory of your own",
        directory.display(),
        found.uid(),
        own_uid(),
        location::RUNTIME_VARIABLE
    );
    ensure!(
        found.mode() & 0o077 == 0,
        "{} is open to others (mode {:03o}); run: chmod 700 {}",
        directory.display(),
        found.mode() & 0o777,
        directory.display()
    );
    Ok(())
}

impl Runtime {
    /// The runtime directory of this user and job, made if it is missing.
    pub(crate) fn make() -> Result<Runtime> {
        Runtime::make_at(default_directory())
    }

    /// The runtime directory `directory`, made if it is missing.
    pub(crate) fn make_at(directory: PathBuf) -> Result<Runtime> {
        ensure!(
            directory.is_absolute(),
            "{} must be an absolute path, not '{}'",
            location::RUNTIME_VARIABLE,
            directory.display()
        );
        // An ending helper may remove it meanwhile.
        for _ in 0..TRIES {
            match DirBuilder::new().mode(0o700).create(&directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| {
                        format!(
                            "cannot make the runtime directory {}; set {} to a place you can write",
                            directory.display(),
                            location::RUNTIME_VARIABLE
                        )
                    });
                }
                _ => {}
            }
            match check_private(&directory) {
                Err(error) if is_not_found(&error) => {}
                checked => return checked.map(|()| Runtime { directory }),
            }
        }
        bail!(
            "{} is made and removed by others all the time",
            directory.display()
        )
    }

    /// The runtime directory, if there is one; an error where it must not be trusted.
    pub(crate) fn find() -> Result<Option<Runtime>> {
        Runtime::find_at(default_directory())
    }

    /// The runtime directory `directory`, if it is there; an error where it must not be trusted.
    pub(crate) fn find_at(directory: PathBuf) -> Result<Option<Runtime>> {
        match fs::symlink_metadata(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            _ => {
                check_private(&directory)?;
                Ok(Some(Runtime { directory }))
            }
        }
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The helper's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.file(request::SOCKET)
    }

    /// What was measured of the audit library.
    pub(crate) fn audit(&self) -> PathBuf {
        self.file(AUDIT)
    }

    fn open_lock(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::open(self.file(name), flags, Mode::RUSR | Mode::WUSR)
            .with_context(|| format!("cannot open {}", self.file(name).display()))
    }

    /// Waits until nobody else starts a helper here, and keeps others from it as long as the
    /// result lives.
    pub(crate) fn lock_starting(&self) -> Result<OwnedFd> {
        loop {
            let _ = Runtime::make_at(self.directory.clone())?;
            let lock = match self.open_lock(STARTING) {
                Err(error) if is_not_found(&error) => continue,
                opened => opened?,
            };
            match flock(&lock, FlockOperation::LockExclusive) {
                Ok(()) if self.is_current(&lock) => return Ok(lock),
                Ok(()) | Err(Errno::INTR) => {}
                Err(error) => bail!("cannot lock {}: {error}", self.file(STARTING).display()),
            }
        }
    }

    /// Whether the lock still has its name: an ending helper may have removed it meanwhile.
    fn is_current(&self, lock: &OwnedFd) -> bool {
        let named = rustix::fs::stat(self.file(STARTING));
        let locked = rustix::fs::fstat(lock);
        matches!((named, locked), (Ok(named), Ok(locked)) if named.st_ino == locked.st_ino)
    }

    /// Becomes the helper of this directory; `None` where there is one.
    pub(crate) fn lock_helper(&self) -> Result<Option<OwnedFd>> {
        let lock = self.open_lock("lock")?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => bail!("cannot lock {}: {error}", self.file("lock").display()),
        }
    }

    /// Waits until the helper of this directory, which is ending, has gone, and takes its place.
    pub(crate) fn wait_for_lock(&self) -> Result<OwnedFd> {
        let lock = self.open_lock("lock")?;
        flock(&lock, FlockOperation::LockExclusive)
            .with_context(|| format!("cannot lock {}", self.file("lock").display()))?;
        Ok(lock)
    }

    /// Notes where the store and the view are, for whoever must clean up.
    pub(crate) fn note(&self, name: Note, path: &Path) -> Result<()> {
        let file = self.file(name.file());
        fs::write(&file, path.as_os_str().as_bytes())
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// What a helper noted.
    pub(crate) fn noted(&self, name: Note) -> Option<PathBuf> {
        let text = fs::read(self.file(name.file())).ok()?;
        Some(PathBuf::from(OsStr::from_bytes(&text)))
    }

    /// Makes the link `name` lead to the open file `descriptor` of this process, at once.
    pub(crate) fn link_memory(&self, name: &str, descriptor: i32) -> Result<()> {
        let target = format!("/proc/{}/fd/{descriptor}", std::process::id());
        let aside = self.file(&format!("{name}.new"));
        let _ = fs::remove_file(&aside);
        std::os::unix::fs::symlink(&target, &aside)
            .and_then(|()| fs::rename(&aside, self.file(name)))
            .with_context(|| format!("cannot make the link {}", self.file(name).display()))
    }

    /// Hides the helper from processes that start from now on.
    pub(crate) fn unlink_memory(&self) {
        for name in [request::CATALOG, request::COMMON] {
            let _ = fs::remove_file(self.file(name));
        }
    }

    /// Removes the job that a helper was one of, or was to be.
    pub(crate) fn remove_job(&self) {
        for name in [JOB_FILE, "job.new"] {
            let _ = fs::remove_file(self.file(name));
        }
    }

    /// Removes all that a helper made here, but for the locks, and for the job: a starter may have
    /// written that for the next helper.
    pub(crate) fn clear(&self) {
        self.unlink_memory();
        for name in [
            request::SOCKET,
            Note::Store.file(),
            Note::View.file(),
            "catalog.new",
            "common.new",
            "socket.new",
            "job.new",
        ] {
            let _ = fs::remove_file(self.file(name));
        }
    }

    /// Removes the directory with its locks, unless somebody is starting a helper in it.
    pub(crate) fn remove(&self) {
        let Ok(starting) = self.open_lock(STARTING) else {
            return;
        };
        if flock(&starting, FlockOperation::NonBlockingLockExclusive).is_ok() {
            self.remove_as_starter();
        }
    }

    /// The same, for whoever holds the starting lock and knows that there is no helper.
    pub(crate) fn remove_as_starter(&self) {
        self.remove_job();
        let _ = fs::remove_file(self.audit());
        let _ = fs::remove_file(self.file("lock"));
        let _ = fs::remove_file(self.file(STARTING));
        let _ = fs::remove_dir(&self.directory);
    }
}

/// What is noted in the runtime directory for clean-up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    /// The store's directory.
    Store,
    /// The view's directory.
    View,
}

impl Note {
    fn file(self) -> &'static str {
        match self {
            Note::Store => "store",
            Note::View => "view",
        }
    }
}

/// Opens the log for appending, private to the user.
pub(crate) fn open_log(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot open the log {}", path.display()))
}
