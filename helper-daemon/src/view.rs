//! The view: a directory of links, one per top-level entry of `/`, through which every path works
//! even where the shim is not there.
#![forbid(unsafe_code)]

use crate::runtime::own_uid;
use anyhow::{Context, Result, bail, ensure};
use copper_core::location::VIEW_VARIABLE;
use copper_core::path::is_node_local;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// How often the view is tried to be made while others remove and make it.
const TRIES: usize = 100;

/// The view's directory: as asked, or as the environment says, or the default.
pub(crate) fn directory(asked: Option<&Path>) -> Result<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let chosen = match asked {
        Some(asked) => asked.to_owned(),
        None => match named(VIEW_VARIABLE) {
            Some(view) => PathBuf::from(view),
            None => {
                let user = named("USER").filter(|user| !user.as_bytes().contains(&b'/'));
                let user = user.unwrap_or_else(|| own_uid().to_string().into());
                Path::new("/tmp").join(user).join("copper")
            }
        },
    };
    let normal =
        chosen.is_absolute() && copper_core::path::shape(chosen.as_os_str().as_bytes()).normal;
    ensure!(
        normal && chosen.parent().is_some(),
        "the view must be an absolute path without '..', not '{}'",
        chosen.display()
    );
    Ok(chosen)
}

/// Whether a top-level entry of `/` appears in the view.
pub(crate) fn shows(name: &[u8]) -> bool {
    let path = [b"/", name].concat();
    !is_node_local(&path)
}

/// The view. It is locked as long as this lives, since helpers of several jobs may share it, and
/// removed when the last of them drops it.
#[derive(Debug)]
pub(crate) struct View {
    directory: PathBuf,
    made_parent: bool,
    lock: OwnedFd,
}

impl View {
    /// Makes the view, or shares the one that a living helper has made; what a dead helper left
    /// there is removed first.
    pub(crate) fn make(directory: &Path) -> Result<View> {
        let made_parent = make_parent(directory)?;
        for _ in 0..TRIES {
            if let Some(lock) = join(directory) {
                return Ok(View {
                    directory: directory.to_owned(),
                    made_parent,
                    lock,
                });
            }
            remove_links(directory)?;
            if let Some(view) = View::build(directory, made_parent)? {
                return Ok(view);
            }
        }
        bail!(
            "the view {} is made and removed by others all the time; give --view DIR",
            directory.display()
        )
    }

    /// Builds the view aside and gives it its name, locked and complete; `None` where somebody
    /// else was faster.
    fn build(directory: &Path, made_parent: bool) -> Result<Option<View>> {
        let advice = || {
            format!(
                "cannot make the view {}; give --view DIR",
                directory.display()
            )
        };
        let mut aside = directory.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        remove_links(&aside)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&aside)
            .with_context(advice)?;
        let lock = open_directory(&aside).with_context(advice)?;
        flock(&lock, FlockOperation::NonBlockingLockShared).with_context(advice)?;
        let mut view = View {
            directory: aside,
            made_parent,
            lock,
        };
        view.fill()?;
        fs::set_permissions(&view.directory, Permissions::from_mode(0o555))
            .context("cannot protect the view")?;
        match renameat_with(CWD, &view.directory, CWD, directory, RenameFlags::NOREPLACE) {
            Ok(()) => {
                view.directory = directory.to_owned();
                Ok(Some(view))
            }
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(error).with_context(advice),
        }
    }

    fn fill(&self) -> Result<()> {
        for entry in fs::read_dir("/").context("cannot list /")? {
            let entry = entry.context("cannot list /")?;
            let name = entry.file_name();
            let sensible = entry.file_type().is_ok_and(|kind| {
                !kind.is_fifo()
                    && !kind.is_socket()
                    && !kind.is_char_device()
                    && !kind.is_block_device()
            });
            if sensible && shows(name.as_bytes()) {
                symlink(Path::new("/").join(&name), self.directory.join(&name))
                    .with_context(|| format!("cannot fill {}", self.directory.display()))?;
            }
        }
        Ok(())
    }
}

/// Makes the directory that holds the view, if it is missing; one in which others could put
/// something else in the view's place is refused.
fn make_parent(directory: &Path) -> Result<bool> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    match DirBuilder::new().mode(0o700).create(parent) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(parent)?;
            let trusted = found.uid() == own_uid() || found.uid() == 0;
            let open = found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0;
            ensure!(
                found.is_dir() && trusted && !open,
                "{} is no directory of yours, or others can write to it; give --view DIR",
                parent.display()
            );
            Ok(false)
        }
        Err(error) => {
            Err(error).with_context(|| format!("cannot make {}; give --view DIR", parent.display()))
        }
    }
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Shares a view that a living helper of this user has made.
fn join(directory: &Path) -> Option<OwnedFd> {
    let found = fs::symlink_metadata(directory).ok()?;
    if !found.is_dir() || found.uid() != own_uid() {
        return None;
    }
    let lock = open_directory(directory).ok()?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return None;
    }
    // Whoever has it for itself alone is about to remove it.
    flock(&lock, FlockOperation::LockShared).ok()?;
    let (locked, named) = (rustix::fs::fstat(&lock), rustix::fs::lstat(directory));
    matches!((locked, named), (Ok(locked), Ok(named)) if locked.st_ino == named.st_ino)
        .then_some(lock)
}

impl Drop for View {
    fn drop(&mut self) {
        if flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return;
        }
        if let Err(error) = remove_links(&self.directory) {
            tracing::warn!("{error:#}");
        }
        if self.made_parent
            && let Some(parent) = self.directory.parent()
        {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Removes a view that a dead helper left, unless another helper shares it.
pub(crate) fn clean_up(directory: &Path) {
    if join(directory).is_none()
        && let Err(error) = remove_links(directory)
    {
        tracing::warn!("{error:#}");
    }
}

/// Removes a view: its links and the directory, and nothing else; never follows a link.
fn remove_links(directory: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(directory) else {
        return Ok(());
    };
    if !found.is_dir() || found.uid() != own_uid() {
        bail!(
            "{} is in the way and is not a view of yours; remove it or give --view DIR",
            directory.display()
        );
    }
    fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(directory).with_context(|| {
        format!(
            "{} holds more than a view's links; empty it or give --view DIR",
            directory.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_holds_links_and_goes_without_following_them() {
        let base = std::env::temp_dir().join(format!("copper-view-{}", std::process::id()));
        let directory = base.join("copper");
        let view = View::make(&directory).expect("made");
        let etc = fs::symlink_metadata(directory.join("etc")).expect("a link");
        assert!(etc.is_symlink());
        assert!(!directory.join("proc").exists());
        let mode = fs::metadata(&directory).expect("there").mode();
        assert_eq!(mode & 0o777, 0o555);
        drop(view);
        assert!(!base.exists());
        assert!(Path::new("/etc/passwd").exists());
    }

    #[test]
    fn a_shared_view_goes_with_its_last_user() {
        let base = std::env::temp_dir().join(format!("copper-views-{}", std::process::id()));
        let directory = base.join("copper");
        let first = View::make(&directory).expect("made");
        let second = View::make(&directory).expect("shared");
        drop(first);
        assert!(directory.join("etc").is_symlink());
        drop(second);
        assert!(!directory.exists());
        let _ = fs::remove_dir(base);
    }

    #[test]
    fn a_directory_with_other_things_is_left_alone() {
        let base = std::env::temp_dir().join(format!("copper-noview-{}", std::process::id()));
        fs::create_dir_all(base.join("precious")).expect("temporary directory");
        assert!(View::make(&base).is_err());
        assert!(base.join("precious").exists());
        fs::remove_dir_all(&base).expect("ours");
    }
}
