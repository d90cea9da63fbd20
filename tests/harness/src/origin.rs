//! Read-only and slow origins for a tree.

use crate::environment;
use slow_origin::{Load, SlowOrigin};
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

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
