//! The pass-through itself: each FUSE operation passes the gate and is then done on the source.
//!
//! The file is as long as the trait it implements: one short method for each operation.

use crate::load::Gate;
use crate::nodes::{Node, Nodes, decode_device, errno};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid};
use slow_origin::protocol::Operation;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The file system: the inodes the kernel knows, the open files and the gate.
pub(crate) struct PassThrough {
    nodes: Nodes,
    gate: Arc<Gate>,
    files: Handles<OwnedFd>,
    directories: Handles<Vec<Entry>>,
}

/// One entry of a directory, as read when the directory was opened.
struct Entry {
    inode: u64,
    kind: FileType,
    name: OsString,
}

/// Open files or directories by handle.
struct Handles<T> {
    open: Mutex<HashMap<u64, Arc<T>>>,
    next: AtomicU64,
}

impl<T> Handles<T> {
    fn new() -> Self {
        Self {
            open: Mutex::new(HashMap::new()),
            next: AtomicU64::new(1),
        }
    }

    fn insert(&self, value: T) -> FileHandle {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(handle, Arc::new(value));
        FileHandle(handle)
    }

    fn get(&self, handle: FileHandle) -> Result<Arc<T>, Errno> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn remove(&self, handle: FileHandle) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&handle.0);
    }
}

impl PassThrough {
    pub(crate) fn new(source: &Path, gate: Arc<Gate>) -> std::io::Result<Self> {
        let nodes = Nodes::new(source)?;
        Ok(Self {
            nodes,
            gate,
            files: Handles::new(),
            directories: Handles::new(),
        })
    }

    /// The inode of `id`, once the gate lets the operation on it pass.
    fn node(&self, operation: Operation, id: INodeNo) -> Result<Arc<Node>, Errno> {
        let node = self.nodes.get(id)?;
        self.gate.pass(operation, &node.path)?;
        Ok(node)
    }

    /// The directory `parent`, once the gate lets the operation on its entry `name` pass.
    fn parent(&self, operation: Operation, id: INodeNo, name: &OsStr) -> Result<Arc<Node>, Errno> {
        let parent = self.nodes.get(id)?;
        self.gate.pass(operation, &parent.child_path(name))?;
        Ok(parent)
    }

    fn reply_entry(&self, parent: &Node, name: &OsStr, reply: ReplyEntry) {
        match self.nodes.look_up(parent, name) {
            Ok(attributes) => {
                reply.entry(&self.gate.kept_by_kernel(), &attributes, Generation(0));
            }
            Err(error) => reply.error(error),
        }
    }

    /// Opens the inode anew, through its name in /proc, which follows no link and needs no path.
    fn reopen(node: &Node, flags: OpenFlags) -> Result<OwnedFd, Errno> {
        let unwanted = OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL | OFlags::APPEND;
        let flags = (OFlags::from_bits_retain(flags.0 as u32) - unwanted) | OFlags::CLOEXEC;
        rustix::fs::open(node.proc_path(), flags, Mode::empty()).map_err(errno)
    }

    /// Gives a new entry to who made it, as the source's kernel would have done.
    fn give_to(request: &Request, parent: &Node, name: &OsStr) -> Result<(), Errno> {
        let in_group = rustix::fs::fstat(&parent.descriptor)
            .map_err(errno)?
            .st_mode
            & 0o2000
            != 0;
        let group = (!in_group).then(|| Gid::from_raw(request.gid()));
        let owner = Some(Uid::from_raw(request.uid()));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&parent.descriptor, name, owner, group, flags).map_err(errno)
    }

    fn set_attributes(&self, node: &Node, wanted: &Wanted) -> Result<(), Errno> {
        if let Some(mode) = wanted.mode {
            rustix::fs::chmod(node.proc_path(), Mode::from_raw_mode(mode)).map_err(errno)?;
        }
        if wanted.owner.is_some() || wanted.group.is_some() {
            let (owner, group) = (
                wanted.owner.map(Uid::from_raw),
                wanted.group.map(Gid::from_raw),
            );
            rustix::fs::chownat(&node.descriptor, "", owner, group, AtFlags::EMPTY_PATH)
                .map_err(errno)?;
        }
        if let Some(size) = wanted.size {
            match wanted.handle {
                Some(handle) => rustix::fs::ftruncate(&*self.files.get(handle)?, size),
                None => rustix::fs::ftruncate(
                    &Self::reopen(node, OpenFlags(OFlags::WRONLY.bits() as i32))?,
                    size,
                ),
            }
            .map_err(errno)?;
        }
        if wanted.accessed.is_some() || wanted.modified.is_some() {
            let times = Timestamps {
                last_access: timespec(wanted.accessed),
                last_modification: timespec(wanted.modified),
            };
            rustix::fs::utimensat(&node.descriptor, "", &times, AtFlags::EMPTY_PATH)
                .map_err(errno)?;
        }
        Ok(())
    }

    fn list(node: &Node) -> Result<Vec<Entry>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(node.proc_path(), flags, Mode::empty()).map_err(errno)?;
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::new(directory).map_err(errno)? {
            let entry = entry.map_err(errno)?;
            entries.push(Entry {
                inode: entry.ino(),
                kind: kind(entry.file_type()),
                name: OsString::from_vec(entry.file_name().to_bytes().to_vec()),
            });
        }
        Ok(entries)
    }
}

/// The attributes that a `setattr` asks for.
struct Wanted {
    mode: Option<u32>,
    owner: Option<u32>,
    group: Option<u32>,
    size: Option<u64>,
    accessed: Option<TimeOrNow>,
    modified: Option<TimeOrNow>,
    handle: Option<FileHandle>,
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(TimeOrNow::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Timespec {
                tv_sec: since.as_secs() as i64,
                tv_nsec: i64::from(since.subsec_nanos()),
            },
            Err(before) => before_epoch(before.duration()),
        },
    }
}

fn before_epoch(before: Duration) -> Timespec {
    let whole = -(before.as_secs() as i64);
    match i64::from(before.subsec_nanos()) {
        0 => Timespec {
            tv_sec: whole,
            tv_nsec: 0,
        },
        part => Timespec {
            tv_sec: whole - 1,
            tv_nsec: 1_000_000_000 - part,
        },
    }
}

fn kind(kind: rustix::fs::FileType) -> FileType {
    match kind {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn reply_empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

/// Answers a query for an extended attribute or the list of them: `read` fills a buffer.
fn reply_xattr(
    size: u32,
    reply: ReplyXattr,
    read: impl FnOnce(&mut [u8]) -> rustix::io::Result<usize>,
) {
    let mut value = vec![0; size as usize];
    match read(&mut value) {
        Ok(length) if size == 0 => reply.size(length as u32),
        Ok(length) => reply.data(&value[..length]),
        Err(error) => reply.error(errno(error)),
    }
}

/// Binds the value of a `Result`, or answers with its error and returns.
macro_rules! answered {
    ($reply:ident, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return $reply.error(error),
        }
    };
}

impl Filesystem for PassThrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // A kernel too old for it asks one operation of a directory at a time, which is as right.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = answered!(reply, self.parent(Operation::Lookup, parent, name));
        self.reply_entry(&parent, name, reply);
    }

    fn forget(&self, _: &Request, node: INodeNo, lookups: u64) {
        self.nodes.forget(node, lookups);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let node = answered!(reply, self.node(Operation::Getattr, node));
        let attributes = answered!(reply, node.attributes());
        reply.attr(&self.gate.kept_by_kernel(), &attributes);
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        owner: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let node = answered!(reply, self.node(Operation::Setattr, node));
        let wanted = Wanted {
            mode,
            owner,
            group,
            size,
            accessed,
            modified,
            handle,
        };
        answered!(reply, self.set_attributes(&node, &wanted));
        let attributes = answered!(reply, node.attributes());
        reply.attr(&self.gate.kept_by_kernel(), &attributes);
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        let node = answered!(reply, self.node(Operation::Readlink, node));
        match rustix::fs::readlinkat(&node.descriptor, "", Vec::new()) {
            Ok(target) => reply.data(target.to_bytes()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let parent = answered!(reply, self.parent(Operation::Mknod, parent, name));
        let made = rustix::fs::mknodat(
            &parent.descriptor,
            name,
            rustix::fs::FileType::from_raw_mode(mode),
            Mode::from_raw_mode(mode),
            decode_device(device),
        );
        answered!(reply, made.map_err(errno));
        answered!(reply, Self::give_to(request, &parent, name));
        self.reply_entry(&parent, name, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let parent = answered!(reply, self.parent(Operation::Mkdir, parent, name));
        let made = rustix::fs::mkdirat(&parent.descriptor, name, Mode::from_raw_mode(mode));
        answered!(reply, made.map_err(errno));
        answered!(reply, Self::give_to(request, &parent, name));
        self.reply_entry(&parent, name, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let parent = answered!(reply, self.parent(Operation::Unlink, parent, name));
        let removed = rustix::fs::unlinkat(&parent.descriptor, name, AtFlags::empty());
        reply_empty(removed.map_err(errno), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let parent = answered!(reply, self.parent(Operation::Rmdir, parent, name));
        let removed = rustix::fs::unlinkat(&parent.descriptor, name, AtFlags::REMOVEDIR);
        reply_empty(removed.map_err(errno), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let parent = answered!(reply, self.parent(Operation::Symlink, parent, name));
        let made = rustix::fs::symlinkat(target, &parent.descriptor, name);
        answered!(reply, made.map_err(errno));
        answered!(reply, Self::give_to(request, &parent, name));
        self.reply_entry(&parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let parent = answered!(reply, self.parent(Operation::Rename, parent, name));
        let new_parent = answered!(reply, self.nodes.get(new_parent));
        let renamed = rustix::fs::renameat_with(
            &parent.descriptor,
            name,
            &new_parent.descriptor,
            new_name,
            rustix::fs::RenameFlags::from_bits_retain(flags.bits()),
        );
        reply_empty(renamed.map_err(errno), reply);
    }

    fn link(
        &self,
        _: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let node = answered!(reply, self.node(Operation::Link, node));
        let new_parent = answered!(reply, self.nodes.get(new_parent));
        let linked = rustix::fs::linkat(
            &node.descriptor,
            "",
            &new_parent.descriptor,
            new_name,
            AtFlags::EMPTY_PATH,
        );
        answered!(reply, linked.map_err(errno));
        self.reply_entry(&new_parent, new_name, reply);
    }

    fn open(&self, _: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let node = answered!(reply, self.node(Operation::Open, node));
        let file = answered!(reply, Self::reopen(&node, flags));
        reply.opened(self.files.insert(file), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let node = answered!(reply, self.node(Operation::Read, node));
        let file = answered!(reply, self.files.get(handle));
        let mut data = vec![0; size as usize];
        let mut length = 0;
        while length < data.len() {
            match rustix::io::pread(&*file, &mut data[length..], offset + length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) => return reply.error(errno(error)),
            }
        }
        self.gate.count_bytes(&node.path, length);
        reply.data(&data[..length]);
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answered!(reply, self.node(Operation::Write, node));
        let file = answered!(reply, self.files.get(handle));
        let written = rustix::io::pwrite(&*file, data, offset);
        let written = answered!(reply, written.map_err(errno));
        reply.written(written as u32);
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        if let Ok(node) = self.nodes.get(node) {
            self.gate.count(Operation::Release, &node.path);
        }
        self.files.remove(handle);
        reply.ok();
    }

    fn fsync(&self, _: &Request, node: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answered!(reply, self.node(Operation::Fsync, node));
        let file = answered!(reply, self.files.get(handle));
        reply_empty(rustix::fs::fsync(&*file).map_err(errno), reply);
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let node = answered!(reply, self.node(Operation::Opendir, node));
        let entries = answered!(reply, Self::list(&node));
        reply.opened(self.directories.insert(entries), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        answered!(reply, self.node(Operation::Readdir, node));
        let entries = answered!(reply, self.directories.get(handle));
        for (index, entry) in entries.iter().enumerate().skip(offset as usize) {
            if reply.add(
                INodeNo(entry.inode),
                index as u64 + 1,
                entry.kind,
                &entry.name,
            ) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        if let Ok(node) = self.nodes.get(node) {
            self.gate.count(Operation::Releasedir, &node.path);
        }
        self.directories.remove(handle);
        reply.ok();
    }

    fn statfs(&self, _: &Request, node: INodeNo, reply: ReplyStatfs) {
        let node = answered!(reply, self.node(Operation::Statfs, node));
        let of = answered!(reply, rustix::fs::fstatfs(&node.descriptor).map_err(errno));
        reply.statfs(
            of.f_blocks,
            of.f_bfree,
            of.f_bavail,
            of.f_files,
            of.f_ffree,
            of.f_bsize as u32,
            of.f_namelen as u32,
            of.f_frsize as u32,
        );
    }

    fn setxattr(
        &self,
        _: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let node = answered!(reply, self.node(Operation::Setxattr, node));
        let flags = rustix::fs::XattrFlags::from_bits_retain(flags as u32);
        reply_empty(
            rustix::fs::setxattr(node.proc_path(), name, value, flags).map_err(errno),
            reply,
        );
    }

    fn getxattr(&self, _: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let node = answered!(reply, self.node(Operation::Getxattr, node));
        if node.is_symlink() {
            return reply.error(Errno::ENODATA);
        }
        reply_xattr(size, reply, |value| {
            rustix::fs::getxattr(node.proc_path(), name, value)
        });
    }

    fn listxattr(&self, _: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let node = answered!(reply, self.node(Operation::Listxattr, node));
        if node.is_symlink() {
            return reply_xattr(size, reply, |_| Ok(0));
        }
        reply_xattr(size, reply, |names| {
            rustix::fs::listxattr(node.proc_path(), names)
        });
    }

    fn removexattr(&self, _: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let node = answered!(reply, self.node(Operation::Removexattr, node));
        reply_empty(
            rustix::fs::removexattr(node.proc_path(), name).map_err(errno),
            reply,
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let parent = answered!(reply, self.parent(Operation::Create, parent, name));
        let flags = (OFlags::from_bits_retain(flags as u32) - OFlags::APPEND)
            | OFlags::CREATE
            | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let existed = rustix::fs::accessat(
            &parent.descriptor,
            name,
            rustix::fs::Access::EXISTS,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .is_ok();
        let file = rustix::fs::openat(&parent.descriptor, name, flags, mode);
        let file = answered!(reply, file.map_err(errno));
        if !existed {
            answered!(reply, Self::give_to(request, &parent, name));
        }
        let attributes = answered!(reply, self.nodes.look_up(&parent, name));
        let kept = self.gate.kept_by_kernel();
        let handle = self.files.insert(file);
        reply.created(
            &kept,
            &attributes,
            Generation(0),
            handle,
            FopenFlags::empty(),
        );
    }

    fn fallocate(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answered!(reply, self.node(Operation::Fallocate, node));
        let file = answered!(reply, self.files.get(handle));
        let mode = rustix::fs::FallocateFlags::from_bits_retain(mode as u32);
        reply_empty(
            rustix::fs::fallocate(&*file, mode, offset, length).map_err(errno),
            reply,
        );
    }

    fn lseek(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        answered!(reply, self.node(Operation::Lseek, node));
        let file = answered!(reply, self.files.get(handle));
        let from = match whence {
            SEEK_DATA => rustix::fs::SeekFrom::Data(offset as u64),
            SEEK_HOLE => rustix::fs::SeekFrom::Hole(offset as u64),
            _ => return reply.error(Errno::EINVAL),
        };
        let found = answered!(reply, rustix::fs::seek(&*file, from).map_err(errno));
        reply.offset(found as i64);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        from: INodeNo,
        from_handle: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        answered!(reply, self.node(Operation::CopyFileRange, from));
        let from = answered!(reply, self.files.get(from_handle));
        let to = answered!(reply, self.files.get(to_handle));
        let (mut from_offset, mut to_offset) = (from_offset, to_offset);
        let copied = rustix::fs::copy_file_range(
            &*from,
            Some(&mut from_offset),
            &*to,
            Some(&mut to_offset),
            length as usize,
        );
        let copied = answered!(reply, copied.map_err(errno));
        reply.written(copied as u32);
    }
}

/// The two kinds of seek that the kernel asks a file system for.
const SEEK_DATA: i32 = 3;
/// See [`SEEK_DATA`].
const SEEK_HOLE: i32 = 4;
