//! What is said over the control socket: one JSON command a line, one JSON answer a line.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A file-system operation as the kernel asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is the FUSE operation of that name")]
pub enum Operation {
    Lookup,
    Getattr,
    Setattr,
    Readlink,
    Mknod,
    Mkdir,
    Unlink,
    Rmdir,
    Symlink,
    Rename,
    Link,
    Open,
    Read,
    Write,
    Release,
    Fsync,
    Opendir,
    Readdir,
    Releasedir,
    Statfs,
    Setxattr,
    Getxattr,
    Listxattr,
    Removexattr,
    Create,
    Fallocate,
    Lseek,
    CopyFileRange,
}

/// How slow the origin is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Time each operation takes, in microseconds, where `latency_of` does not say otherwise.
    pub latency_us: u64,
    /// Time an operation of this kind takes, in microseconds.
    #[serde(default)]
    pub latency_of: BTreeMap<Operation, u64>,
    /// Operations served at a time; 0 is no limit.
    #[serde(default)]
    pub served_at_a_time: usize,
    /// For how long the kernel may keep names and attributes, in milliseconds. With 0, the
    /// default, every access of the kernel is seen and counted.
    #[serde(default)]
    pub kept_by_kernel_ms: u64,
}

impl Load {
    /// An origin without delay, whose every access is counted.
    pub fn none() -> Self {
        Self::latency_us(0)
    }

    /// Every operation takes `latency_us` microseconds, any number at a time.
    pub fn latency_us(latency_us: u64) -> Self {
        Self {
            latency_us,
            latency_of: BTreeMap::new(),
            served_at_a_time: 0,
            kept_by_kernel_ms: 0,
        }
    }
}

/// What goes wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The operation fails with EIO.
    Eio,
    /// The operation fails with ESTALE, as on a file server that has lost the file.
    Estale,
    /// The operation does not answer until the faults are cleared.
    Hang,
}

/// A fault on one path and everything under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Path below the mount point, without a leading slash; empty for the whole mount.
    pub path: String,
    /// What happens.
    pub kind: FaultKind,
    /// Only to these operations; to all when empty.
    #[serde(default)]
    pub operations: Vec<Operation>,
}

/// What the origin has served since it started or was last reset.
///
/// Paths are relative to the mount point, `""` is the mount point itself, and bytes that are not
/// UTF-8 are written as `\xNN`. An inode with several names is counted under the name that was
/// looked up last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Operations by kind.
    pub operations: BTreeMap<Operation, u64>,
    /// Operations by path and kind.
    pub paths: BTreeMap<String, BTreeMap<Operation, u64>>,
    /// Bytes of file contents handed out, by path.
    pub bytes_read: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds what another mount of the same tree has served.
    pub fn add(&mut self, other: &Self) {
        let add = |to: &mut BTreeMap<Operation, u64>, from: &BTreeMap<Operation, u64>| {
            for (operation, count) in from {
                *to.entry(*operation).or_default() += count;
            }
        };
        add(&mut self.operations, &other.operations);
        for (path, operations) in &other.paths {
            add(self.paths.entry(path.clone()).or_default(), operations);
        }
        for (path, bytes) in &other.bytes_read {
            *self.bytes_read.entry(path.clone()).or_default() += bytes;
        }
    }

    /// Operations of one kind.
    pub fn of(&self, operation: Operation) -> u64 {
        self.operations.get(&operation).copied().unwrap_or(0)
    }

    /// Operations that a caller waited for: all but the two that follow a close.
    pub fn total(&self) -> u64 {
        let unseen = self.of(Operation::Release) + self.of(Operation::Releasedir);
        self.operations.values().sum::<u64>() - unseen
    }
}

/// A command on the control socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Answer with [`Counts`].
    Dump,
    /// Set all counts to zero.
    Reset,
    /// Replace the load.
    Load(Load),
    /// Add a fault.
    Fault(Fault),
    /// Remove all faults, and let operations that hang go on.
    ClearFaults,
}
