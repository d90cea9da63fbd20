//! Read-only and slow origins for a tree, and what the counts of a slow one tell.

use crate::environment;
use crate::session::wait_until;
use slow_origin::{Counts, Load, Operation, SlowOrigin};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A slow origin that serves `source` at `mount`.
///
/// # Panics
/// When it cannot be mounted.
pub fn slow(source: &Path, mount: &Path, load: &Load) -> SlowOrigin {
    SlowOrigin::start(&environment::built("slow-origin"), source, mount, load)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// A command that runs `command` where `tree` is mounted read-only, in a mount namespace of its
/// own; this is what the view is compared with. Needs root.
pub fn read_only(tree: &Path, command: &Command) -> Command {
    // A bind mount is made read-only only by mounting it a second time.
    const SCRIPT: &str =
        "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    in_mount_namespace(SCRIPT, tree.as_os_str(), command)
}

/// A command that runs `command` where a tmpfs of `size` (as mount takes it) is at `mount`, in a
/// mount namespace of its own. Needs root.
pub fn with_tmpfs(mount: &Path, size: &str, command: &Command) -> Command {
    let script =
        format!("mount -t tmpfs -o size={size},mode=0700 copper-test \"$0\" && exec \"$@\"");
    in_mount_namespace(&script, mount.as_os_str(), command)
}

fn in_mount_namespace(script: &str, first: &OsStr, command: &Command) -> Command {
    let mut wrapped = Command::new("unshare");
    wrapped
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg(first);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}

/// The paths that were touched most, for the message of a failure.
pub fn most_touched(counts: &Counts) -> String {
    let mut paths: Vec<_> = counts
        .paths
        .iter()
        .map(|(path, by_kind)| (by_kind.values().sum::<u64>(), path, by_kind))
        .collect();
    paths.sort_by_key(|(touched, ..)| std::cmp::Reverse(*touched));
    let lines = paths
        .iter()
        .take(40)
        .map(|(_, path, by_kind)| format!("  {path:?} {by_kind:?}"));
    format!(
        "{:?}\n{}",
        counts.operations,
        lines.collect::<Vec<_>>().join("\n")
    )
}

/// What was counted once nothing reaches the origin any more: helpers read some files ahead of being
/// asked for them.
///
/// # Panics
/// When it cannot be asked, or goes on being asked for things.
pub fn settled(counts: impl Fn() -> std::io::Result<Counts>) -> Counts {
    let counts = || counts().unwrap_or_else(|error| panic!("{error}"));
    let mut last = counts();
    let is_silent = || {
        std::thread::sleep(SILENCE);
        let now = counts();
        let silent = now.total() == last.total();
        last = now;
        silent
    };
    let silent = wait_until(Duration::from_secs(60), is_silent);
    assert!(
        silent,
        "the origin is asked for ever:\n{}",
        most_touched(&last)
    );
    last
}

/// What reads ahead asks for something more often than that.
const SILENCE: Duration = Duration::from_millis(300);

/// A file longer than this is read in parts, which several nodes may share.
const PART: u64 = 1 << 20;

/// Files of `source` that were opened more often than by one node (a file of several parts: by
/// `readers` nodes) or of which more bytes were read than they have, and directories that were
/// listed twice, each with what was counted.
pub fn read_more_than_once(
    counts: &Counts,
    source: &Path,
    readers: u64,
) -> BTreeMap<String, String> {
    let mut wrong = BTreeMap::new();
    for (path, by_kind) in &counts.paths {
        let of = |kind| by_kind.get(&kind).copied().unwrap_or(0);
        let (opens, listings) = (of(Operation::Open), of(Operation::Opendir));
        let read = counts.bytes_read.get(path).copied().unwrap_or(0);
        let size = std::fs::metadata(source.join(path)).map_or(0, |found| found.len());
        let most = readers.min(size.div_ceil(PART)).max(1);
        if opens > most || listings > 1 || (opens > 0 && read > size) {
            let what = format!("{opens} opens, {read} of {size} bytes, {listings} listings");
            wrong.insert(path.clone(), what);
        }
    }
    wrong
}
