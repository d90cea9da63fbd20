//! How this process comes by the helper's memory: the alarm page with the counters behind it, and the
//! catalog's segments as they come into use.
//!
//! The runtime directory has links to both. What they lead to lies below the helper's `/proc/PID/fd`,
//! where the kernel lets no process of another user namespace in (a container's, say), and which is not
//! there in another process namespace. Such a process is given descriptors of the same memory over the
//! helper's socket, and the numbers that the helper's users and groups have in its own namespace.

use crate::ask;
use crate::session::{self, runtime_path};
use crate::sys::{self, Descriptor, call};
use copper_core::catalog::layout::{self, Alarm, SEGMENTS, header};
use copper_core::catalog::memory::{Mapping, Segmented, Segments};
use copper_core::catalog::reader::Reader;
use copper_core::counters::layout as counters;
use copper_core::request::{
    self, MEMORY_BODY_LENGTH, Operation, Outcome, REPLY_LENGTH, ReplyHeader, RequestHeader,
};
use copper_core::user_ids::{IdMap, MAP_LENGTH};
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

/// The catalog's segments, mapped as they come into use.
pub(crate) struct Mapped {
    segments: [AtomicPtr<u8>; SEGMENTS],
    file: UnsafeCell<CatalogFile>,
}

/// Where more of the same file can be had later.
struct CatalogFile {
    /// `/proc/PID/fd/N`, NUL-terminated; empty where it must be asked for.
    path: [u8; 64],
    device: u64,
    inode: u64,
}

// SAFETY: `file` is written before the session is published and never again.
unsafe impl Sync for Mapped {}

pub(crate) static MAPPED: Mapped = Mapped {
    segments: [const { AtomicPtr::new(core::ptr::null_mut()) }; SEGMENTS],
    file: UnsafeCell::new(CatalogFile {
        path: [0; 64],
        device: 0,
        inode: 0,
    }),
};

/// The maps of users and groups, where the helper's numbers are others here.
struct OtherIds {
    in_use: AtomicBool,
    maps: UnsafeCell<[IdMap; 2]>,
}

// SAFETY: `maps` is written before `in_use` is set, by the one thread that makes the session, and
// never again.
unsafe impl Sync for OtherIds {}

static OTHER_IDS: OtherIds = OtherIds {
    in_use: AtomicBool::new(false),
    maps: UnsafeCell::new([IdMap::EMPTY; 2]),
};

/// The maps, where the numbers differ.
#[inline]
fn other_ids() -> Option<&'static [IdMap; 2]> {
    let in_use = OTHER_IDS.in_use.load(Ordering::Acquire);
    // SAFETY: complete before `in_use` was set; never written again.
    in_use.then(|| unsafe { &*OTHER_IDS.maps.get() })
}

/// What this process calls a user of the catalog's.
#[inline]
pub(crate) fn user_inside(uid: u32) -> u32 {
    other_ids().map_or(uid, |[users, _]| users.inside(uid))
}

/// What this process calls a group of the catalog's.
#[inline]
pub(crate) fn group_inside(gid: u32) -> u32 {
    other_ids().map_or(gid, |[_, groups]| groups.inside(gid))
}

/// What every process of the job may write.
pub(crate) struct Common {
    /// The alarm page.
    pub(crate) alarm: *const AtomicU64,
    /// The counters, if the helper has any of this layout's length.
    pub(crate) counters: Option<*mut u8>,
}

/// Maps the catalog's first segment, and the common memory. Called once, by the thread that makes the
/// session.
#[cold]
pub(crate) fn map(directory: &[u8], uid: u32) -> Option<Common> {
    let namespace = user_namespace()?;
    let target = catalog_link(directory)?;
    if let Some(common) = map_by_path(directory, &target, uid)
        && Reader::new(Segmented(&MAPPED)).word(header::USER_NAMESPACE) == namespace
    {
        return Some(common);
    }
    map_by_socket(directory, uid, namespace)
}

/// Whether the helper knows this process by the same number as it does itself.
pub(crate) fn shares_processes() -> bool {
    let theirs = Reader::new(Segmented(&MAPPED)).word(header::PROCESS_NAMESPACE);
    namespace(c"/proc/self/ns/pid", b"pid:[") == Some(theirs)
}

/// Number of this process's user namespace.
fn user_namespace() -> Option<u64> {
    namespace(c"/proc/self/ns/user", b"user:[")
}

/// Number of a namespace of this process; 0 where the kernel has none. `None` where there is no
/// `/proc`, without which descriptors cannot be looked at.
///
/// The link's text (`user:[4026531837]`) is cheaper than the inode that it leads to, which the kernel
/// has to make.
fn namespace(link: &CStr, start: &[u8]) -> Option<u64> {
    let mut text = [0; 64];
    let Some(text) = read_link(link.to_bytes_with_nul(), &mut text) else {
        let there = sys::stat_at(libc::AT_FDCWD, c"/proc/self".as_ptr(), 0).is_ok();
        return there.then_some(0);
    };
    let digits = text.strip_prefix(start)?.strip_suffix(b"]")?;
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Where the helper's link to the catalog leads, NUL-terminated; `None` where no helper serves.
fn catalog_link(directory: &[u8]) -> Option<[u8; 64]> {
    let link = runtime_path(directory, request::CATALOG)?;
    let mut target = [0; 64];
    let text = read_link(&link, &mut target[..63])?;
    text.starts_with(b"/proc/").then_some(target)
}

/// `readlink(2)` of a NUL-terminated path.
fn read_link<'r>(path: &[u8], room: &'r mut [u8]) -> Option<&'r [u8]> {
    // SAFETY: the path is NUL-terminated and the room's length is given.
    let length = unsafe {
        call!(
            libc::SYS_readlinkat,
            libc::AT_FDCWD,
            path.as_ptr(),
            room.as_mut_ptr(),
            room.len()
        )
    };
    room.get(..usize::try_from(length).ok()?)
        .filter(|text| !text.is_empty())
}

fn map_by_path(directory: &[u8], target: &[u8; 64], uid: u32) -> Option<Common> {
    let path = runtime_path(directory, request::COMMON)?;
    let common = open_memory(path.as_ptr(), libc::O_RDWR, uid)?;
    let catalog = open_memory(target.as_ptr(), libc::O_RDONLY, uid)?;
    map_both(&catalog, &common, *target)
}

fn map_by_socket(directory: &[u8], uid: u32, namespace: u64) -> Option<Common> {
    let given = ask_for_memory(directory, uid)?;
    let catalog = check_memory(given.catalog, uid)?;
    let common = check_memory(given.common, uid)?;
    let common = map_both(&catalog, &common, [0; 64])?;
    if Reader::new(Segmented(&MAPPED)).word(header::USER_NAMESPACE) != namespace {
        let (users, groups) = given.maps.split_first_chunk::<MAP_LENGTH>()?;
        let maps = [
            IdMap::decode(users)?,
            IdMap::decode(groups.first_chunk::<MAP_LENGTH>()?)?,
        ];
        // SAFETY: this thread alone makes the session; nobody reads before `in_use` is set.
        unsafe { *OTHER_IDS.maps.get() = maps };
        OTHER_IDS.in_use.store(true, Ordering::Release);
    }
    Some(common)
}

type Opened = (Descriptor, libc::stat);

#[cold]
fn map_both(catalog: &Opened, common: &Opened, path: [u8; 64]) -> Option<Common> {
    let (catalog, status) = catalog;
    if (status.st_size as u64) < layout::segment_length(0)
        || common.1.st_size < Alarm::LENGTH as i64
    {
        return None;
    }
    // SAFETY: this thread alone makes the session; nobody reads the cell before it is published.
    unsafe {
        *MAPPED.file.get() = CatalogFile {
            path,
            device: status.st_dev,
            inode: status.st_ino,
        };
    }
    let first = map_part(catalog, 0, layout::segment_length(0), libc::PROT_READ)?;
    MAPPED.put(0, first);
    map_common(common)
}

fn map_common((opened, status): &Opened) -> Option<Common> {
    let page = Alarm::LENGTH as u64;
    let counted = status.st_size as u64 >= page + counters::LENGTH;
    let length = if counted {
        page + counters::LENGTH
    } else {
        page
    };
    let base = map_part(opened, 0, length, libc::PROT_READ | libc::PROT_WRITE)?;
    // SAFETY: our own mapping, advice changes no content.
    unsafe { call!(libc::SYS_madvise, base, length, libc::MADV_DONTDUMP) };
    Some(Common {
        alarm: base.cast_const().cast(),
        counters: counted.then(|| base.wrapping_add(Alarm::LENGTH)),
    })
}

/// Opens one of the helper's memory files.
///
/// `O_NONBLOCK` keeps an open of something else (after the helper died and its process id was
/// given away) from waiting.
fn open_memory(path: *const u8, flags: i32, uid: u32) -> Option<Opened> {
    let opened = sys::open(path, flags | libc::O_NONBLOCK | libc::O_NOCTTY)?;
    check_memory(opened, uid)
}

/// It must be a regular file of this user that cannot shrink.
fn check_memory(opened: Descriptor, uid: u32) -> Option<Opened> {
    let status = sys::fstat(opened.number())?;
    // SAFETY: asks for the seals of our own descriptor.
    let seals = unsafe { call!(libc::SYS_fcntl, opened.number(), libc::F_GET_SEALS) };
    let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
    let sealed = seals >= 0 && seals & libc::F_SEAL_SHRINK as isize != 0;
    (regular && sealed && status.st_uid == uid).then_some((opened, status))
}

/// Maps a part of a file, shared.
fn map_part(opened: &Descriptor, start: u64, length: u64, protection: i32) -> Option<*mut u8> {
    // SAFETY: a new mapping at a place of the kernel's choice; the descriptor is ours.
    let result = unsafe {
        call!(
            libc::SYS_mmap,
            0,
            length,
            protection,
            libc::MAP_SHARED,
            opened.number(),
            start
        )
    };
    (result > 0).then_some(result as *mut u8)
}

/// What the helper gives over its socket.
struct Given {
    catalog: Descriptor,
    common: Descriptor,
    maps: [u8; MEMORY_BODY_LENGTH],
}

fn ask_for_memory(directory: &[u8], uid: u32) -> Option<Given> {
    let started = ask::now_ms();
    let socket = ask::connect(directory, uid, started).ok()?;
    let header = RequestHeader {
        operation: Operation::Memory,
        path_length: 0,
        second_length: 0,
    };
    ask::send(&socket, [&header.encode(), b"", b""]).ok()?;
    let deadline = started + request::PATIENCE_MS;
    let mut bytes = [0; REPLY_LENGTH + MEMORY_BODY_LENGTH];
    let mut length = 0;
    let mut given = None;
    while length < bytes.len() {
        match receive(&socket, &mut bytes[length..], &mut given) {
            got @ 1.. => length += got as usize,
            error if error == -(libc::EAGAIN as isize) => ask::wait(&socket, deadline).ok()?,
            error if error == -(libc::EINTR as isize) => {}
            _ => return None,
        }
    }
    let (header, maps) = bytes.split_first_chunk::<REPLY_LENGTH>()?;
    let header = ReplyHeader::decode(header)?;
    let [catalog, common] = given?;
    (header.outcome == Outcome::Known).then_some(Given {
        catalog,
        common,
        maps: *maps.first_chunk()?,
    })
}

/// `recvmsg(2)` that takes two descriptors, if they come along; the kernel's result.
fn receive(socket: &Descriptor, room: &mut [u8], given: &mut Option<[Descriptor; 2]>) -> isize {
    const DATA: u32 = size_of::<[i32; 2]>() as u32;
    let vector = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    let mut control = [0u64; 4];
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = (&raw const vector).cast_mut();
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: computes a length. There is room for it, and for no third descriptor.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(DATA) } as _;
    // SAFETY: the message and what it points to are valid for the call.
    let result = unsafe {
        call!(
            libc::SYS_recvmsg,
            socket.number(),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC
        )
    };
    if result <= 0 {
        return result;
    }
    // SAFETY: the kernel has filled the control room as the header says, which is looked at first.
    unsafe {
        let head = libc::CMSG_FIRSTHDR(&raw const message);
        if !head.is_null()
            && (*head).cmsg_level == libc::SOL_SOCKET
            && (*head).cmsg_type == libc::SCM_RIGHTS
            && (*head).cmsg_len as usize == libc::CMSG_LEN(DATA) as usize
        {
            let numbers = libc::CMSG_DATA(head).cast::<[i32; 2]>().read_unaligned();
            let [catalog, common] = numbers.map(|number| Descriptor::from_result(number as isize));
            *given = catalog
                .zip(common)
                .map(|(catalog, common)| [catalog, common]);
        }
    }
    result
}

impl Mapped {
    /// Keeps a segment's mapping, or drops it where another thread was first.
    fn put(&self, index: usize, base: *mut u8) {
        let length = layout::segment_length(index);
        // SAFETY: the mapping is ours alone until it is published; advice changes no content.
        unsafe { call!(libc::SYS_madvise, base, length, libc::MADV_DONTDUMP) };
        let null = core::ptr::null_mut();
        let order = (Ordering::AcqRel, Ordering::Acquire);
        if self.segments[index]
            .compare_exchange(null, base, order.0, order.1)
            .is_err()
        {
            // SAFETY: nobody else saw this mapping.
            unsafe { call!(libc::SYS_munmap, base, length) };
        }
    }

    #[cold]
    fn map_more(&self, index: usize) -> Option<()> {
        // SAFETY: written before the session was published.
        let file = unsafe { &*self.file.get() };
        let opened = if file.path[0] == 0 {
            let session = session::known()?;
            ask_for_memory(session.runtime(), session.uid)?.catalog
        } else {
            sys::open(file.path.as_ptr(), libc::O_NONBLOCK | libc::O_NOCTTY)?
        };
        let status = sys::fstat(opened.number())?;
        let start = layout::segment_start(index);
        let length = layout::segment_length(index);
        let same = status.st_dev == file.device && status.st_ino == file.inode;
        if !same || (status.st_size as u64) < start + length {
            return None;
        }
        self.put(index, map_part(&opened, start, length, libc::PROT_READ)?);
        Some(())
    }
}

impl Segments for &'static Mapped {
    #[inline]
    fn segment(&self, index: usize) -> Option<Mapping> {
        let place = self.segments.get(index)?;
        let mut base = place.load(Ordering::Acquire);
        if base.is_null() {
            self.map_more(index)?;
            base = place.load(Ordering::Acquire);
        }
        // SAFETY: mapped for the life of the process, sealed against shrinking, written by the
        // helper alone.
        (!base.is_null()).then(|| unsafe { Mapping::new(base, layout::segment_length(index)) })
    }
}
