//! Directory streams: a covered directory's listing is read from the catalog, with no descriptor
//! and no system call; a descriptor on the store's mirror of it is opened when `dirfd` asks.
//!
//! A stream of ours begins with a mark that libc's own never has (its first four bytes are a
//! descriptor, its next four a lock), so that both kinds can be told apart wherever they turn up.

use crate::ask::ask;
use crate::content::open_stored;
use crate::descriptor::{demote, scope_of};
use crate::original::{hooks, original};
use crate::session::{self, Session};
use crate::sys::{self, call, errno, fail, set_errno};
use crate::target::{Found, Outcome, Scope, with_target};
use copper_core::catalog::layout::align;
use copper_core::catalog::reader::{Listing, Record};
use copper_core::catalog::resolve::Ending;
use copper_core::counters::{Family, Outcome as Counted};
use copper_core::request::{Operation, Outcome as Reply};
use core::ffi::{c_char, c_int, c_long, c_void};
use libc::{AT_FDCWD, DIR, dirent as Entry};

const MARK: u64 = 0xc0bb_e7d1_0000_0001;

/// A stream over a listing in the catalog.
#[repr(C)]
struct Stream {
    mark: u64,
    /// Its own address: a copy, or memory that merely looks alike, is no stream.
    this: usize,
    session: &'static Session,
    /// The directory's record.
    record: u64,
    /// What it lists, as it was when the stream was opened or rewound.
    listing: Option<Listing<'static>>,
    position: usize,
    descriptor: c_int,
    scope: Scope,
    entry: Entry,
}

fn ours<'s>(directory: *mut DIR) -> Option<&'s mut Stream> {
    let stream = directory.cast::<Stream>();
    if stream.is_null() || !stream.is_aligned() {
        return None;
    }
    // SAFETY: a DIR of libc's is longer than the two words looked at here; only memory that
    // `new_stream` made holds its own address behind the mark.
    unsafe {
        let marked = (*stream).mark == MARK && (*stream).this == stream as usize;
        marked.then(|| &mut *stream)
    }
}

fn new_stream(found: &Found<'_>, record: Record<'_>, descriptor: c_int) -> *mut DIR {
    // SAFETY: plain allocation; opendir allocates here as well.
    let stream = unsafe { libc::malloc(size_of::<Stream>()) }.cast::<Stream>();
    if stream.is_null() {
        set_errno(libc::ENOMEM);
        return core::ptr::null_mut();
    }
    let made = Stream {
        mark: MARK,
        this: stream as usize,
        session: found.session,
        record: record.offset(),
        listing: found.session.catalog.listing(&record),
        position: 0,
        descriptor,
        scope: found.scope,
        // SAFETY: all zeroes is a valid entry.
        entry: unsafe { core::mem::zeroed() },
    };
    // SAFETY: just allocated, large enough; malloc aligns for any type.
    unsafe { stream.write(made) };
    stream.cast()
}

/// The directory's record once its listing is known whole; asks the helper once.
fn complete<'c>(session: &'static Session, record: Record<'c>) -> Option<Record<'c>> {
    let catalog = &session.catalog;
    if record.is_live() && catalog.is_complete(&record) {
        return Some(record);
    }
    if ask(session, Operation::Listing, record.path(), b"") != Reply::Known {
        return None;
    }
    catalog
        .live(record.path())
        .filter(|record| catalog.is_complete(record))
}

impl Stream {
    fn record(&self) -> Option<Record<'static>> {
        self.session.catalog.record(self.record)
    }

    fn next(&mut self) -> Option<&mut Entry> {
        let entry = self.listing?.entry(self.position)?;
        self.position = entry.next;
        let out = &mut self.entry;
        out.d_ino = entry.inode;
        out.d_off = entry.next as i64;
        out.d_type = entry.directory_type;
        out.d_reclen = record_length(entry.name.len());
        for (to, &from) in out.d_name.iter_mut().zip(entry.name) {
            *to = from as c_char;
        }
        if let Some(end) = out.d_name.get_mut(entry.name.len()) {
            *end = 0;
        }
        Some(out)
    }

    /// Looks at the directory anew, as it is now.
    fn rewind(&mut self) {
        self.position = 0;
        let Some(old) = self.record() else {
            return;
        };
        let now = self.session.catalog.live(old.path()).unwrap_or(old);
        if let Some(now) = complete(self.session, now) {
            self.record = now.offset();
            self.listing = self.session.catalog.listing(&now);
        }
    }

    fn found(&self) -> Option<Found<'static>> {
        Some(Found::again(self.session, self.record()?, self.scope))
    }
}

/// Length of a `struct dirent` with a name of `length` bytes.
fn record_length(length: usize) -> u16 {
    align((core::mem::offset_of!(Entry, d_name) + length + 1) as u64) as u16
}

/// Opens a stream on a path, with libc's part given.
fn open_stream(
    directory: c_int,
    path: *const c_char,
    libc_opens: impl FnOnce(*const c_char) -> *mut DIR,
) -> *mut DIR {
    let ending = Ending {
        follow: true,
        directory: true,
    };
    with_target(
        Family::List,
        directory,
        path,
        ending,
        |outcome| match outcome {
            Outcome::Kernel(route) => libc_opens(route.path(path)),
            Outcome::Absent { errno, .. } => {
                set_errno(errno);
                core::ptr::null_mut()
            }
            Outcome::Found(found) => {
                let asks = !found.session.catalog.is_complete(&found.record);
                match complete(found.session, found.record) {
                    Some(record) => {
                        found.count_answered(asks);
                        new_stream(&found, record, -1)
                    }
                    None => {
                        found.count_passed(Counted::Unknown);
                        libc_opens(found.route.path(path))
                    }
                }
            }
        },
    )
}

hooks! {
    fn opendir(path: *const c_char) -> *mut DIR {
        open_stream(AT_FDCWD, path, |path| {
            original!(fn opendir(path: *const c_char) -> *mut DIR; or core::ptr::null_mut())
        })
    }

    fn fdopendir(descriptor: c_int) -> *mut DIR {
        match on_descriptor(descriptor) {
            Some(stream) => stream,
            None => original!(
                fn fdopendir(descriptor: c_int) -> *mut DIR;
                or core::ptr::null_mut()
            ),
        }
    }

    fn closedir(directory: *mut DIR) -> c_int {
        match ours(directory) {
            None => original!(fn closedir(directory: *mut DIR) -> c_int; or -1),
            Some(stream) => close_stream(stream),
        }
    }

    fn dirfd(directory: *mut DIR) -> c_int {
        match ours(directory) {
            None => original!(fn dirfd(directory: *mut DIR) -> c_int; or -1),
            Some(stream) => descriptor_of(stream),
        }
    }

    fn rewinddir(directory: *mut DIR) {
        match ours(directory) {
            None => original!(fn rewinddir(directory: *mut DIR) -> (); else {}),
            Some(stream) => stream.rewind(),
        }
    }

    fn telldir(directory: *mut DIR) -> c_long {
        match ours(directory) {
            None => original!(fn telldir(directory: *mut DIR) -> c_long; or -1),
            Some(stream) => stream.position as c_long,
        }
    }

    fn seekdir(directory: *mut DIR, position: c_long) {
        match ours(directory) {
            None => original!(
                fn seekdir(directory: *mut DIR, position: c_long) -> ();
                else {}
            ),
            Some(stream) => stream.position = position as usize,
        }
    }
}

/// Defines the names of `readdir` and `readdir_r`.
macro_rules! read_hooks {
    ($($name:ident $reentrant:ident)*) => {$(
        hooks! {
            fn $name(directory: *mut DIR) -> *mut Entry {
                match ours(directory) {
                    Some(stream) => {
                        stream.next().map_or(core::ptr::null_mut(), core::ptr::from_mut)
                    }
                    None => original!(
                        fn $name(directory: *mut DIR) -> *mut Entry;
                        or core::ptr::null_mut()
                    ),
                }
            }

            fn $reentrant(
                directory: *mut DIR,
                entry: *mut Entry,
                result: *mut *mut Entry,
            ) -> c_int {
                match ours(directory) {
                    Some(stream) => read_into(stream, entry, result),
                    None => original!(
                        fn $reentrant(
                            directory: *mut DIR, entry: *mut Entry, result: *mut *mut Entry,
                        ) -> c_int;
                        or libc::ENOSYS
                    ),
                }
            }
        }
    )*};
}

read_hooks! { readdir readdir_r readdir64 readdir64_r }

fn read_into(stream: &mut Stream, entry: *mut Entry, result: *mut *mut Entry) -> c_int {
    let next = stream.next();
    // SAFETY: the caller's own buffers, of which the entry is as long as the record says.
    unsafe {
        *result = match next {
            None => core::ptr::null_mut(),
            Some(next) => {
                let length = usize::from(next.d_reclen);
                let from = core::ptr::from_ref(next).cast::<u8>();
                core::ptr::copy_nonoverlapping(from, entry.cast(), length);
                entry
            }
        };
    }
    0
}

/// A stream on a descriptor, if it is one of a directory in the store; `None` for libc to make.
fn on_descriptor(descriptor: c_int) -> Option<*mut DIR> {
    let session = session::known()?;
    let status = sys::fstat(descriptor)?;
    if status.st_dev != session.store_device || status.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return None;
    }
    let stored = session.catalog.by_store_inode(status.st_ino)?;
    let record = session.catalog.live(stored.path()).unwrap_or(stored);
    let scope = scope_of(session, descriptor, record.path());
    match complete(session, record) {
        Some(record) => Some(new_stream(
            &Found::again(session, record, scope),
            record,
            descriptor,
        )),
        None => {
            demote(descriptor);
            None
        }
    }
}

fn close_stream(stream: &mut Stream) -> c_int {
    let descriptor = stream.descriptor;
    stream.mark = 0;
    // SAFETY: `new_stream` allocated it, and the caller gives it up.
    unsafe { libc::free(core::ptr::from_mut(stream).cast::<c_void>()) };
    if descriptor >= 0 {
        // SAFETY: the descriptor belongs to the stream.
        unsafe { call!(libc::SYS_close, descriptor) };
    }
    0
}

fn descriptor_of(stream: &mut Stream) -> c_int {
    if stream.descriptor < 0 {
        let Some(found) = stream.found() else {
            return fail(libc::EINVAL);
        };
        let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
        stream.descriptor = match open_stored(&found, flags) {
            Some(Ok(descriptor)) => descriptor,
            Some(Err(errno)) => return fail(errno),
            None => open_origin(&found),
        };
    }
    if stream.descriptor < 0 {
        fail(libc::ENOTSUP)
    } else {
        stream.descriptor
    }
}

fn open_origin(found: &Found<'_>) -> c_int {
    let path = found.record.path_terminated();
    sys::open(path.as_ptr().cast(), libc::O_DIRECTORY).map_or(-1, sys::Descriptor::release)
}

type Filter = Option<unsafe extern "C" fn(*const Entry) -> c_int>;
type Compare = Option<unsafe extern "C" fn(*mut *const Entry, *mut *const Entry) -> c_int>;

/// `scandir` over a stream of ours: libc's reads with its own functions inside.
///
/// # Safety
/// `names` must be valid for writing.
unsafe fn scan(
    directory: *mut DIR,
    names: *mut *mut *mut Entry,
    filter: Filter,
    compare: Compare,
) -> c_int {
    let Some(stream) = ours(directory) else {
        return fail(libc::EINVAL);
    };
    let before = errno();
    let mut list: *mut *mut Entry = core::ptr::null_mut();
    let (mut count, mut room) = (0usize, 0usize);
    let mut failed = false;
    while let Some(entry) = stream.next() {
        // SAFETY: the program's own filter.
        if filter.is_some_and(|filter| unsafe { filter(entry) } == 0) {
            continue;
        }
        // SAFETY: the list has room for `count` entries, or is made larger.
        failed = !unsafe { push(&mut list, &mut count, &mut room, entry) };
        if failed {
            break;
        }
    }
    close_stream(stream);
    if failed {
        // SAFETY: the first `count` entries were allocated by `push`.
        unsafe { release(list, count) };
        return fail(libc::ENOMEM);
    }
    if let (Some(compare), 1..) = (compare, count) {
        // SAFETY: the same calling convention; qsort passes pointers to elements.
        unsafe {
            let compare = core::mem::transmute::<
                unsafe extern "C" fn(*mut *const Entry, *mut *const Entry) -> c_int,
                unsafe extern "C" fn(*const c_void, *const c_void) -> c_int,
            >(compare);
            libc::qsort(list.cast(), count, size_of::<*mut Entry>(), Some(compare));
        }
    }
    // SAFETY: the caller's own variable.
    unsafe { *names = list };
    set_errno(before);
    count as c_int
}

unsafe fn push(
    list: &mut *mut *mut Entry,
    count: &mut usize,
    room: &mut usize,
    entry: &Entry,
) -> bool {
    let length = usize::from(entry.d_reclen);
    // SAFETY: plain allocation and copies of what is valid for the lengths given.
    unsafe {
        if *count == *room {
            let larger = (*room * 2).max(16);
            let grown = libc::realloc((*list).cast(), larger * size_of::<*mut Entry>());
            if grown.is_null() {
                return false;
            }
            (*list, *room) = (grown.cast(), larger);
        }
        let copy = libc::malloc(length);
        if copy.is_null() {
            return false;
        }
        core::ptr::copy_nonoverlapping(
            core::ptr::from_ref(entry).cast(),
            copy.cast::<u8>(),
            length,
        );
        *(*list).add(*count) = copy.cast();
    }
    *count += 1;
    true
}

unsafe fn release(list: *mut *mut Entry, count: usize) {
    for number in 0..count {
        // SAFETY: allocated by `push`.
        unsafe { libc::free((*list.add(number)).cast()) };
    }
    // SAFETY: allocated by `push`, or null.
    unsafe { libc::free(list.cast()) };
}

/// A stream of ours on a path, for `scandir`; `None` where libc is to scan.
fn stream_for_scan(directory: c_int, path: *const c_char) -> Option<*mut DIR> {
    let mut elsewhere = false;
    let stream = open_stream(directory, path, |_| {
        elsewhere = true;
        core::ptr::null_mut()
    });
    (!elsewhere).then_some(stream)
}

/// Defines the names of `scandir` and `scandirat`.
macro_rules! scan_hooks {
    ($($name:ident $at_name:ident)*) => {$(
        hooks! {
            fn $name(
                path: *const c_char,
                names: *mut *mut *mut Entry,
                filter: Filter,
                compare: Compare,
            ) -> c_int {
                match stream_for_scan(AT_FDCWD, path) {
                    Some(stream) if stream.is_null() => -1,
                    // SAFETY: the caller's own variable for the names.
                    Some(stream) => unsafe { scan(stream, names, filter, compare) },
                    None => with_route(AT_FDCWD, path, |_, path| original!(
                        fn $name(
                            path: *const c_char, names: *mut *mut *mut Entry, filter: Filter,
                            compare: Compare,
                        ) -> c_int;
                        or -1
                    )),
                }
            }

            fn $at_name(
                directory: c_int,
                path: *const c_char,
                names: *mut *mut *mut Entry,
                filter: Filter,
                compare: Compare,
            ) -> c_int {
                match stream_for_scan(directory, path) {
                    Some(stream) if stream.is_null() => -1,
                    // SAFETY: the caller's own variable for the names.
                    Some(stream) => unsafe { scan(stream, names, filter, compare) },
                    None => with_route(directory, path, |directory, path| original!(
                        fn $at_name(
                            directory: c_int, path: *const c_char, names: *mut *mut *mut Entry,
                            filter: Filter, compare: Compare,
                        ) -> c_int;
                        or -1
                    )),
                }
            }
        }
    )*};
}

scan_hooks! { scandir scandirat scandir64 scandirat64 }

/// Makes libc's call where the kernel finds the path.
fn with_route(
    directory: c_int,
    path: *const c_char,
    scan: impl FnOnce(c_int, *const c_char) -> c_int,
) -> c_int {
    let ending = Ending {
        follow: true,
        directory: true,
    };
    with_target(Family::List, directory, path, ending, |outcome| {
        let route = match outcome {
            Outcome::Kernel(route) => route,
            Outcome::Found(found) => {
                found.count_passed(Counted::Unknown);
                found.route
            }
            Outcome::Absent { errno, .. } => return fail(errno),
        };
        let (directory, path) = route.of(directory, path);
        scan(directory, path)
    })
}
