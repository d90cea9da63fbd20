//! The inodes that the kernel knows of: for each a descriptor that names it (so that a rename or
//! a second hard link changes nothing), and the path it was last looked up by.

use fuser::{Errno, FileAttr, FileType, INodeNo};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// An inode of the source.
pub(crate) struct Node {
    /// Opened with `O_PATH`.
    pub(crate) descriptor: OwnedFd,
    /// Its path below the source when it was last looked up.
    pub(crate) path: OsString,
    is_symlink: bool,
}

impl Node {
    /// A name of the inode for calls that take no descriptor.
    pub(crate) fn proc_path(&self) -> String {
        use rustix::fd::AsRawFd;
        format!("/proc/self/fd/{}", self.descriptor.as_raw_fd())
    }

    pub(crate) fn is_symlink(&self) -> bool {
        self.is_symlink
    }

    pub(crate) fn attributes(&self) -> Result<FileAttr, Errno> {
        let stat = rustix::fs::statat(&self.descriptor, "", AtFlags::EMPTY_PATH).map_err(errno)?;
        Ok(attributes(&stat))
    }

    /// The path of the entry `name` of this directory.
    pub(crate) fn child_path(&self, name: &OsStr) -> OsString {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push("/");
        }
        path.push(name);
        path
    }
}

struct Known {
    node: Arc<Node>,
    /// Look-ups that the kernel has not yet taken back.
    lookups: u64,
}

/// All inodes the kernel holds, by node id. The node id is the source's inode number, except for
/// the root, whose node id is always 1.
pub(crate) struct Nodes {
    known: Mutex<HashMap<u64, Known>>,
    root_inode: u64,
}

impl Nodes {
    pub(crate) fn new(source: &Path) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(source, flags, Mode::empty())?;
        let root_inode = rustix::fs::fstat(&descriptor)?.st_ino;
        let node = Arc::new(Node {
            descriptor,
            path: OsString::new(),
            is_symlink: false,
        });
        let root = Known {
            node,
            lookups: u64::MAX / 2,
        };
        Ok(Self {
            known: Mutex::new(HashMap::from([(INodeNo::ROOT.0, root)])),
            root_inode,
        })
    }

    pub(crate) fn get(&self, id: INodeNo) -> Result<Arc<Node>, Errno> {
        self.lock()
            .get(&id.0)
            .map(|known| Arc::clone(&known.node))
            .ok_or(Errno::ENOENT)
    }

    /// Looks the entry `name` of `parent` up in the source, and counts the look-up.
    pub(crate) fn look_up(&self, parent: &Node, name: &OsStr) -> Result<FileAttr, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor =
            rustix::fs::openat(&parent.descriptor, name, flags, Mode::empty()).map_err(errno)?;
        let stat = rustix::fs::statat(&descriptor, "", AtFlags::EMPTY_PATH).map_err(errno)?;
        let attributes = attributes(&stat);
        let is_symlink = attributes.kind == FileType::Symlink;
        let path = parent.child_path(name);
        let mut known = self.lock();
        let entry = known.entry(self.id_of(stat.st_ino));
        let known = entry
            .and_modify(|known| {
                if known.node.path != path
                    && let Ok(descriptor) = known.node.descriptor.try_clone()
                {
                    known.node = Arc::new(Node {
                        descriptor,
                        path: path.clone(),
                        is_symlink,
                    });
                }
            })
            .or_insert_with(|| Known {
                node: Arc::new(Node {
                    descriptor,
                    path: path.clone(),
                    is_symlink,
                }),
                lookups: 0,
            });
        known.lookups += 1;
        Ok(attributes)
    }

    pub(crate) fn forget(&self, id: INodeNo, lookups: u64) {
        let mut known = self.lock();
        if let Some(entry) = known.get_mut(&id.0) {
            entry.lookups = entry.lookups.saturating_sub(lookups);
            if entry.lookups == 0 {
                known.remove(&id.0);
            }
        }
    }

    fn id_of(&self, inode: u64) -> u64 {
        if inode == self.root_inode {
            INodeNo::ROOT.0
        } else {
            inode
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `FUSE`'s view of the source's attributes.
fn attributes(stat: &Stat) -> FileAttr {
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    };
    FileAttr {
        ino: INodeNo(stat.st_ino),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: encode_device(stat.st_rdev),
        flags: 0,
        blksize: stat.st_blksize as u32,
    }
}

fn time(seconds: i64, nanoseconds: u64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        SystemTime::UNIX_EPOCH - whole
    } else {
        SystemTime::UNIX_EPOCH + whole
    };
    base + Duration::from_nanos(nanoseconds)
}

/// A device number in the 32 bits that FUSE carries.
fn encode_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The device number that FUSE carries in 32 bits.
pub(crate) fn decode_device(device: u32) -> u64 {
    rustix::fs::makedev(
        (device >> 8) & 0xfff,
        (device & 0xff) | ((device >> 12) & 0xfff00),
    )
}

pub(crate) fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}
