//! Where the store lies: a private directory on a tmpfs from which libraries can be run.
#![forbid(unsafe_code)]

use crate::runtime::{check_private, own_name, own_uid};
use anyhow::{Context, Result, bail};
use rustix::fs::{
    CWD, FlockOperation, Mode, OFlags, RenameFlags, StatVfsMountFlags, flock, renameat_with,
};
use std::fs::{self, DirBuilder};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `f_type` of tmpfs.
const TMPFS: u64 = 0x0102_1994;
/// Less free memory than this is of no use.
const LEAST: u64 = 16 << 20;

/// A store that is younger than this is not taken for abandoned unless it is in the way.
const YOUTH: Duration = Duration::from_secs(60);

/// The store's directory, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    /// The directory, private and empty.
    pub(crate) root: PathBuf,
    /// How much memory the store may take, in bytes.
    pub(crate) budget: u64,
    #[expect(dead_code, reason = "held, never read")]
    lock: OwnedFd,
}

/// Chooses and makes the store's directory.
pub(crate) fn choose(asked: Option<&Path>, budget: Option<u64>) -> Result<Place> {
    let candidates = match asked {
        Some(directory) => vec![directory.to_owned()],
        None => usual_places(),
    };
    let mut refusals = Vec::new();
    for directory in &candidates {
        match free_space(directory) {
            Ok(free) => {
                let budget = budget.unwrap_or_else(|| default_budget(free)).min(free);
                return Ok(Place {
                    budget,
                    ..make_root(directory)?
                });
            }
            Err(refusal) => refusals.push(format!("{refusal:#}")),
        }
    }
    bail!("{}", refusals.join("\n"))
}

/// Where the store is looked for unless the user says where.
pub(crate) fn usual_places() -> Vec<PathBuf> {
    let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    [
        Some("/dev/shm".into()),
        named("XDG_RUNTIME_DIR"),
        Some("/tmp".into()),
        named("TMPDIR"),
    ]
    .into_iter()
    .flatten()
    .map(PathBuf::from)
    .collect()
}

/// Free bytes of the tmpfs at `directory`, or why it cannot hold the store.
pub(crate) fn free_space(directory: &Path) -> Result<u64> {
    let shown = directory.display();
    let system = rustix::fs::statfs(directory)
        .with_context(|| format!("{shown} cannot be used; give --store DIR"))?;
    if system.f_type as u64 != TMPFS {
        bail!("{shown} is not a tmpfs; give --store DIR on a tmpfs");
    }
    let flags = rustix::fs::statvfs(directory)?.f_flag;
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        bail!("{shown} is mounted noexec; libraries cannot be served from it; give --store DIR");
    }
    if flags.contains(StatVfsMountFlags::RDONLY) {
        bail!("{shown} is mounted read-only; give --store DIR");
    }
    let free = system.f_bavail.saturating_mul(system.f_bsize as u64);
    if free < LEAST {
        bail!("{shown} has only {free} bytes free; make room or give --store DIR");
    }
    Ok(free)
}

fn default_budget(free: u64) -> u64 {
    let available = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| memory_available(&text));
    (free / 2).min(available.map_or(u64::MAX, |bytes| bytes / 2))
}

fn memory_available(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

/// Makes the store's directory, locked; one that a living helper (with another runtime directory)
/// uses is left to it.
fn make_root(directory: &Path) -> Result<Place> {
    let mut own = own_name().into_os_string();
    own.push(format!("-{}", std::process::id()));
    let own = directory.join(own);
    clean_up(&own)?;
    DirBuilder::new()
        .mode(0o700)
        .create(&own)
        .with_context(|| format!("cannot make the store {}", own.display()))?;
    check_private(&own)?;
    let lock = open_directory(&own).context("cannot open the store")?;
    flock(&lock, FlockOperation::NonBlockingLockShared).context("cannot lock the store")?;
    let usual = directory.join(own_name());
    if let Err(error) = clean_up(&usual) {
        let _ = fs::remove_dir(&own);
        return Err(error);
    }
    sweep(directory);
    // It takes the usual name locked, so that nobody can think it abandoned.
    let renamed = renameat_with(CWD, &own, CWD, &usual, RenameFlags::NOREPLACE);
    Ok(Place {
        root: if renamed.is_ok() { usual } else { own },
        budget: 0,
        lock,
    })
}

/// Removes stores beside the usual one that helpers with other runtime directories left when they
/// were killed. A young one may be about to be locked.
fn sweep(directory: &Path) {
    let mut start = own_name().into_os_string().into_encoded_bytes();
    start.push(b'-');
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().into_encoded_bytes();
        let process = name.strip_prefix(&start[..]);
        let numbered = process.is_some_and(|rest| rest.iter().all(u8::is_ascii_digit));
        let old = entry
            .metadata()
            .and_then(|found| found.modified())
            .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > YOUTH));
        if numbered
            && old
            && let Err(error) = clean_up(&entry.path())
        {
            tracing::debug!("{error:#}");
        }
    }
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Locks a store that nobody uses; `None` where a living helper does.
fn lock_abandoned(root: &Path) -> Option<OwnedFd> {
    let lock = open_directory(root).ok()?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    let (locked, named) = (rustix::fs::fstat(&lock), rustix::fs::lstat(root));
    matches!((locked, named), (Ok(locked), Ok(named)) if locked.st_ino == named.st_ino)
        .then_some(lock)
}

/// Removes a store that a dead helper left, if it is one of this user's.
pub(crate) fn clean_up(root: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(root) else {
        return Ok(());
    };
    let ours = root
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"copper-"));
    if !ours || !found.is_dir() || found.uid() != own_uid() {
        bail!(
            "{} is in the way and is not a store of yours; remove it or give --store DIR",
            root.display()
        );
    }
    let Some(_lock) = lock_abandoned(root) else {
        return Ok(());
    };
    fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tmpfs_is_refused_with_advice() {
        let refusal = choose(Some(Path::new("/proc")), None).expect_err("no tmpfs");
        assert!(format!("{refusal:#}").contains("give --store DIR"));
    }

    #[test]
    fn a_store_in_use_is_left_to_its_helper() {
        let base = std::env::temp_dir().join(format!("copper-place-{}", std::process::id()));
        fs::create_dir(&base).expect("temporary directory");
        let first = make_root(&base).expect("made");
        let second = make_root(&base).expect("made beside it");
        assert_ne!(first.root, second.root);
        clean_up(&first.root).expect("left alone");
        assert!(first.root.exists());
        let left = first.root.clone();
        drop((first, second));
        fs::write(left.join("leftover"), "x").expect("writable");
        let third = make_root(&base).expect("cleaned and made again");
        assert_eq!(third.root, left);
        assert!(!left.join("leftover").exists());
        fs::remove_dir_all(&base).expect("ours");
    }

    #[test]
    fn abandoned_stores_of_other_processes_are_swept_when_they_are_old() {
        let base = std::env::temp_dir().join(format!("copper-sweep-{}", std::process::id()));
        fs::create_dir(&base).expect("temporary directory");
        let named = |end: &str| base.join(format!("{}-{end}", own_name().display()));
        let past = std::time::SystemTime::now() - 2 * YOUTH;
        for (end, old) in [("7", true), ("8", false), ("job", true)] {
            fs::create_dir(named(end)).expect("made");
            let made = fs::File::open(named(end)).expect("opened");
            if old {
                made.set_modified(past).expect("ours");
            }
        }
        sweep(&base);
        assert!(!named("7").exists());
        assert!(named("8").exists() && named("job").exists());
        fs::remove_dir_all(&base).expect("ours");
    }

    #[test]
    fn free_memory_is_read() {
        let text = "MemTotal:  100 kB\nMemAvailable:    64 kB\n";
        assert_eq!(memory_available(text), Some(65536));
        assert_eq!(memory_available("nothing"), None);
    }

    #[test]
    fn a_stranger_s_directory_is_never_removed() {
        let kept = std::env::temp_dir().join(format!("not-ours-{}", std::process::id()));
        fs::create_dir(&kept).expect("temporary directory");
        assert!(clean_up(&kept).is_err());
        assert!(kept.exists());
        fs::remove_dir(&kept).expect("still empty");
    }
}
