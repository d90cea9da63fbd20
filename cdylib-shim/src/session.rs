//! What this process knows of its helper: the mapped catalog, the covered prefixes, the alarm
//! page. Made at the first call that may concern a covered path, without locks or allocation.
//!
//! While one thread makes it, and for ever where there is no helper, all calls pass through.

use crate::counters;
use crate::foreign;
use crate::memory::{self, MAPPED, Mapped};
use crate::process::{environment, is_on_glibc};
use crate::sys::{self, call};
use copper_core::catalog::layout::{self, Alarm, header};
use copper_core::catalog::memory::Segmented;
use copper_core::catalog::reader::Reader;
use copper_core::location;
use copper_core::path::{self, Sieve};
use copper_core::store::{self, FilesStart};
use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The catalog as this process sees it.
pub(crate) type Catalog = Reader<Segmented<&'static Mapped>>;

const PREFIXES_MAX: usize = 64;
/// Room for the covered prefixes from the environment, in normal form.
const TEXT_MAX: usize = 8192;

/// All that is known, once there is a helper.
pub(crate) struct Session {
    /// The catalog.
    pub(crate) catalog: Catalog,
    /// Root of the store's mirror.
    pub(crate) mirror: &'static [u8],
    /// The view's directory.
    pub(crate) view: &'static [u8],
    /// What the paths of stored files begin with.
    pub(crate) files: FilesStart,
    /// Device number of the store.
    pub(crate) store_device: u64,
    /// The user.
    pub(crate) uid: u32,
    /// The same user as the catalog has it: another number where the helper is in another user
    /// namespace.
    pub(crate) catalog_uid: u32,
    runtime: [u8; RUNTIME_PATH_MAX],
    runtime_length: usize,
    alarm: *const AtomicU64,
    prefixes: [&'static [u8]; PREFIXES_MAX],
    prefixes_length: usize,
    /// Of the view, the mirror and the prefixes, in this order.
    sieves: [Sieve; PREFIXES_MAX + 2],
    /// A bit for each second byte that an absolute path which may concern us has.
    second_bytes: [u64; 4],
}

/// Runtime directories longer than this do not fit a socket's address anyway.
const RUNTIME_PATH_MAX: usize = 90;

const UNTRIED: u32 = 0;
const MAKING: u32 = 1;
const READY: u32 = 2;
const OFF: u32 = 3;

struct Global {
    state: AtomicU32,
    session: UnsafeCell<Option<Session>>,
}

// SAFETY: the cell is written by the one thread that moved `state` from UNTRIED to MAKING, and
// read by others only after READY, which it stores with release order.
unsafe impl Sync for Global {}

static GLOBAL: Global = Global {
    state: AtomicU32::new(UNTRIED),
    session: UnsafeCell::new(None),
};

/// This process is not what it was when the session was made: another user, another root.
static SWITCHED_OFF: AtomicBool = AtomicBool::new(false);

/// Stops believing the catalog, for ever; descriptors in the store are still understood.
pub(crate) fn switch_off() {
    SWITCHED_OFF.store(true, Ordering::Relaxed);
}

/// The session, if there was a helper when this process first looked, even if it is gone now:
/// enough to translate descriptors and working directories in the store back to the origin.
#[inline]
pub(crate) fn known() -> Option<&'static Session> {
    match GLOBAL.state.load(Ordering::Acquire) {
        // SAFETY: READY was stored after the session was complete; it never changes again.
        READY => unsafe { (*GLOBAL.session.get()).as_ref() },
        UNTRIED => make(),
        _ => None,
    }
}

/// Makes the session, unless another thread does or did.
#[cold]
#[inline(never)]
pub(crate) fn make() -> Option<&'static Session> {
    if environment().is_null() {
        return None;
    }
    let won = GLOBAL
        .state
        .compare_exchange(UNTRIED, MAKING, Ordering::Acquire, Ordering::Relaxed);
    if won.is_err() {
        return None;
    }
    let made = Session::make();
    let state = if made.is_some() { READY } else { OFF };
    // SAFETY: this thread alone won the right to write; nobody reads before READY.
    unsafe { *GLOBAL.session.get() = made };
    GLOBAL.state.store(state, Ordering::Release);
    known()
}

/// The value of an environment variable, as the process was given it or has changed it since.
pub(crate) fn variable(name: &str) -> Option<&'static [u8]> {
    // SAFETY: the environment is a NULL-terminated array of NUL-terminated strings.
    unsafe {
        let mut entry = environment();
        while !entry.is_null() && !(*entry).is_null() {
            let text = CStr::from_ptr(*entry).to_bytes();
            if text.len() > name.len()
                && text[name.len()] == b'='
                && &text[..name.len()] == name.as_bytes()
            {
                return Some(&text[name.len() + 1..]);
            }
            entry = entry.add(1);
        }
    }
    None
}

impl Session {
    fn make() -> Option<Session> {
        let is_disabled = variable(location::DISABLE_VARIABLE).is_some_and(|value| value == b"1");
        if is_disabled || !is_on_glibc() {
            return None;
        }
        // SAFETY: takes no argument and cannot fail.
        let uid = unsafe { call!(libc::SYS_geteuid) } as u32;
        let mut runtime = [0; RUNTIME_PATH_MAX];
        let runtime_length = find_runtime(uid, &mut runtime)?;
        let directory = &runtime[..runtime_length];
        check_directory(directory, uid)?;
        let common = memory::map(directory, uid)?;
        let catalog: Catalog = Reader::new(Segmented(&MAPPED));
        let catalog_uid = u32::try_from(catalog.word(header::UID)).ok()?;
        let ours = catalog.is_ours() && memory::user_inside(catalog_uid) == uid;
        if !ours || catalog.word(header::STATE) != layout::SERVING {
            return None;
        }
        let store_device = catalog.word(header::STORE_DEVICE);
        let mut session = Session {
            catalog,
            mirror: b"",
            view: b"",
            files: FilesStart::new(b"/")?,
            store_device,
            uid,
            catalog_uid,
            runtime,
            runtime_length,
            alarm: common.alarm,
            prefixes: [b""; PREFIXES_MAX],
            prefixes_length: 0,
            sieves: [Sieve::default(); PREFIXES_MAX + 2],
            second_bytes: [0; 4],
        };
        session.take_strings()?;
        session.take_environment();
        session.set_sieves();
        if let Some(base) = common.counters {
            counters::attach(base, memory::shares_processes());
        }
        Some(session)
    }

    fn take_strings(&mut self) -> Option<()> {
        // The strings lie in the catalog's first segment, which is never unmapped.
        let catalog: Reader<Segmented<&'static Mapped>> = Reader::new(Segmented(&MAPPED));
        let mut strings = catalog.strings().map(|text| {
            // SAFETY: the memory stays mapped for the life of the process.
            unsafe { core::slice::from_raw_parts(text.as_ptr(), text.len()) }
        });
        self.mirror = strings.next()?;
        self.files = FilesStart::new(self.mirror)?;
        self.view = strings.next()?;
        strings.next()?;
        strings.for_each(|prefix| self.cover(prefix));
        (!self.mirror.is_empty()).then_some(())
    }

    fn set_sieves(&mut self) {
        let roots = [self.view, self.mirror].into_iter().chain(self.prefixes());
        let mut sieves = [Sieve::default(); PREFIXES_MAX + 2];
        sieves
            .iter_mut()
            .zip(roots)
            .for_each(|(sieve, root)| *sieve = Sieve::new(root));
        self.sieves = sieves;
        let roots = [self.view, self.mirror].into_iter().chain(self.prefixes());
        // `//`, `/./` and `/../` at the start hide the first component.
        let seconds = roots.filter_map(|root| root.get(1).copied());
        let mut second_bytes = [0; 4];
        seconds
            .chain([b'/', b'.'])
            .for_each(|byte| second_bytes[usize::from(byte >> 6)] |= 1 << (byte & 63));
        self.second_bytes = second_bytes;
    }

    /// Whether an absolute path with this second byte may concern us, as far as one byte tells.
    #[inline]
    pub(crate) fn may_begin(&self, second: u8) -> bool {
        self.second_bytes[usize::from(second >> 6)] >> (second & 63) & 1 != 0
    }

    fn take_environment(&mut self) {
        let Some(list) = variable(location::PATHS_VARIABLE) else {
            return;
        };
        let Some(room) = sys::anonymous(TEXT_MAX) else {
            return;
        };
        // SAFETY: the mapping stays, zeroed, and is as long; nobody else has it.
        let room: &'static mut [u8] = unsafe { core::slice::from_raw_parts_mut(room, TEXT_MAX) };
        foreign::absolute_paths(list, room, &mut |prefix| self.cover(prefix));
    }

    fn cover(&mut self, prefix: &'static [u8]) {
        let allowed = path::may_be_covered(prefix)
            && !path::is_within(prefix, self.view)
            && !path::is_within(prefix, self.mirror);
        if allowed && self.prefixes_length < PREFIXES_MAX && !self.prefixes().any(|p| p == prefix) {
            self.prefixes[self.prefixes_length] = prefix;
            self.prefixes_length += 1;
        }
    }

    /// Whether an absolute path with this [`path::first_word`] may lie below the view, the mirror
    /// or a prefix; cheap, and no for most paths of most programs.
    #[inline]
    pub(crate) fn may_concern(&self, word: u64) -> bool {
        // `//`, `/./` and `/../` at the start hide the first component.
        matches!(word.to_le_bytes()[1], b'/' | b'.')
            || self.sieves[..self.prefixes_length + 2]
                .iter()
                .any(|sieve| sieve.passes(word))
    }

    /// The covered prefixes.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &'static [u8]> + use<> {
        self.prefixes.into_iter().take(self.prefixes_length)
    }

    /// The view, as far as the sieve of the first word lets it through; empty where it does not.
    #[inline]
    pub(crate) fn view_for(&self, word: u64) -> &'static [u8] {
        if self.sieves[0].passes(word) {
            self.view
        } else {
            b""
        }
    }

    /// Whether an absolute path with this [`path::first_word`] may lie in the store.
    #[inline]
    pub(crate) fn may_be_stored(&self, word: u64) -> bool {
        self.sieves[1].passes(word)
    }

    /// Whether `path` lies below a covered prefix.
    #[inline]
    pub(crate) fn covers(&self, path: &[u8]) -> bool {
        self.prefixes[..self.prefixes_length]
            .iter()
            .any(|prefix| path::is_within(path, prefix))
    }

    /// The origin's name of what lies at `stored` in the store.
    pub(crate) fn origin_of_stored<'p>(&'static self, stored: &'p [u8]) -> Option<&'p [u8]> {
        if let Some(origin) = path::below(stored, self.mirror) {
            return Some(origin);
        }
        let inode = store::inode_of_file(self.mirror, stored)?;
        Some(self.catalog.by_store_inode(inode)?.path())
    }

    /// The runtime directory.
    pub(crate) fn runtime(&self) -> &[u8] {
        &self.runtime[..self.runtime_length]
    }

    /// The helper serves, and every change that a process made was told to it.
    #[inline]
    pub(crate) fn is_believable(&self) -> bool {
        !SWITCHED_OFF.load(Ordering::Relaxed)
            && self.catalog.word(header::STATE) == layout::SERVING
            && self.alarm_word(Alarm::RAISED).load(Ordering::Acquire)
                == self.catalog.word(header::ALARMS_SEEN)
    }

    /// A word of the alarm page.
    pub(crate) fn alarm_word(&self, at: usize) -> &'static AtomicU64 {
        // SAFETY: the page is mapped for the life of the process and `at` is one of its words.
        unsafe { &*self.alarm.add(at / 8) }
    }
}

// SAFETY: the raw pointer is to a shared page of atomics.
unsafe impl Sync for Session {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Session {}

fn find_runtime(uid: u32, out: &mut [u8; RUNTIME_PATH_MAX]) -> Option<usize> {
    if let Some(given) = variable(location::RUNTIME_VARIABLE).filter(|given| !given.is_empty()) {
        out.get_mut(..given.len())?.copy_from_slice(given);
        return Some(given.len());
    }
    let job = location::JOB_VARIABLES
        .iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let mut made = [0; location::RUNTIME_MAX];
    let length = location::runtime_directory(uid, job, &mut made);
    out.get_mut(..length)?.copy_from_slice(&made[..length]);
    Some(length)
}

/// A path below the runtime directory, NUL-terminated.
pub(crate) fn runtime_path(directory: &[u8], name: &str) -> Option<[u8; 128]> {
    let mut path = [0; 128];
    let end = directory.len() + 1 + name.len();
    path.get_mut(..directory.len())?.copy_from_slice(directory);
    *path.get_mut(directory.len())? = b'/';
    path.get_mut(directory.len() + 1..end)?
        .copy_from_slice(name.as_bytes());
    (end < path.len()).then_some(path)
}

/// The runtime directory must be the user's own and closed to others.
fn check_directory(directory: &[u8], uid: u32) -> Option<()> {
    let path = runtime_path(directory, ".")?;
    let status = sys::stat_at(libc::AT_FDCWD, path.as_ptr().cast(), 0).ok()?;
    (status.st_uid == uid && status.st_mode & 0o077 == 0).then_some(())
}
