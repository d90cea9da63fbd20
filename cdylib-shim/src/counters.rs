//! Counting what the program asks, in memory that it shares with the helper.
//!
//! A count is a comparison and an addition to memory that is this thread's own: no lock, no system
//! call. One call of many is also [noted](paths) with its path. The memory is mapped, with the alarm
//! page, when the session is made; a process that cannot have it counts nothing and runs the same. A
//! child that was forked finds its [`Place`] empty, since the kernel wipes it, and claims a slot of
//! its own at its first call; a child of `vfork` counts as its parent, which waits for it.

mod paths;

use crate::sys::{self, call};
use crate::target::{Found, Outcome};
use copper_core::counters::layout;
use copper_core::counters::memory::{Memory, Place};
use copper_core::counters::{Family, Outcome as Counted, question, wait_bucket};
use copper_core::request::Operation;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Length of the memory that is wiped in a forked child; the kernel makes it a page.
const PLACE_LENGTH: usize = 4096;

const _: () = assert!(size_of::<Place>() <= PLACE_LENGTH);

/// This process's place; null where it does not count.
static PLACE: AtomicPtr<Place> = AtomicPtr::new(core::ptr::null_mut());
/// The counters, set before the place is.
static MEMORY: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// The number of a process namespace's first process.
const FIRST: u32 = 1;
/// The helper is in another process namespace, where this process has another number.
static UNKNOWN: AtomicBool = AtomicBool::new(false);

/// Claims a slot in the helper's counters, which are mapped at `base`, if they are of this layout.
/// `known` says whether the helper knows this process by the same number as it does itself.
pub(crate) fn attach(base: *mut u8, known: bool) -> Option<()> {
    // SAFETY: as long as the layout, mapped for the life of the process, and sealed against
    // shrinking.
    let memory = unsafe { Memory::new(base) }?;
    let place = wiped_place()?;
    UNKNOWN.store(!known, Ordering::Relaxed);
    place.settle(memory, own_pid(), &is_gone);
    MEMORY.store(base, Ordering::Relaxed);
    PLACE.store(core::ptr::from_ref(place).cast_mut(), Ordering::Release);
    Some(())
}

/// Zeroed memory that a forked child finds zeroed again.
fn wiped_place() -> Option<&'static Place> {
    let made = sys::anonymous(PLACE_LENGTH)?;
    // SAFETY: a mapping of our own, which stays; zeroes are a valid place, and the pages are aligned
    // for it.
    unsafe {
        if call!(libc::SYS_madvise, made, PLACE_LENGTH, libc::MADV_WIPEONFORK) != 0 {
            call!(libc::SYS_munmap, made, PLACE_LENGTH);
            return None;
        }
        Some(&*made.cast())
    }
}

/// This process's number; 0 where the helper does not know it by that.
fn own_pid() -> u32 {
    if UNKNOWN.load(Ordering::Relaxed) {
        return 0;
    }
    // SAFETY: takes no argument and cannot fail.
    let pid = unsafe { call!(libc::SYS_getpid) as u32 };
    if pid == FIRST {
        // Forked into a process namespace of its own, as are all that it forks.
        UNKNOWN.store(true, Ordering::Relaxed);
        return 0;
    }
    pid
}

fn is_gone(pid: u32) -> bool {
    // SAFETY: signal 0 is sent to nobody.
    i32::try_from(pid)
        .is_ok_and(|pid| unsafe { call!(libc::SYS_kill, pid, 0) } == -(libc::ESRCH as isize))
}

/// Counts a call. `path` gives what it was about, if that is to be noted: an absolute path, with a
/// slash behind it where only the directory of the call is known, or anything else where nothing is.
#[inline(always)]
pub(crate) fn count<'p>(family: Family, outcome: Counted, path: impl FnOnce() -> &'p [u8]) {
    let place = PLACE.load(Ordering::Acquire);
    if place.is_null() {
        return;
    }
    let thread = sys::thread_pointer();
    let word = layout::call(family, outcome);
    // SAFETY: set once, to memory that stays mapped.
    let counted = unsafe { (*place).count(thread, word) };
    if counted.unwrap_or_else(|| add_slowly(place, thread, word, 1)) {
        paths::note(family, outcome, path());
    }
}

/// Counts the size of a file that was opened in the store.
#[inline]
fn serve(bytes: u64) {
    add(layout::BYTES, bytes);
}

/// Counts a wait for the helper, in microseconds.
pub(crate) fn wait(operation: Operation, microseconds: u64) {
    if let Some(question) = question(operation) {
        add(layout::WAITS + wait_bucket(microseconds), 1);
        add(layout::WAITED + question, microseconds);
    }
}

#[inline(always)]
fn add(word: usize, amount: u64) {
    let place = PLACE.load(Ordering::Acquire);
    if place.is_null() {
        return;
    }
    let thread = sys::thread_pointer();
    // SAFETY: set once, to memory that stays mapped.
    if !unsafe { (*place).add(thread, word, amount) } {
        add_slowly(place, thread, word, amount);
    }
}

/// The memory, which there is wherever a place is.
fn memory() -> Option<Memory> {
    // SAFETY: set before the place was, to memory that was recognised then and stays mapped.
    unsafe { Memory::new(MEMORY.load(Ordering::Relaxed)) }
}

/// Says whether a call that is counted so is to be noted.
#[cold]
#[inline(never)]
fn add_slowly(place: *mut Place, thread: usize, word: usize, amount: u64) -> bool {
    let counted = (thread, word, amount);
    memory().is_some_and(|memory| {
        // Whether others are gone is not asked here: the program may have forbidden itself to.
        // SAFETY: set once, to memory that stays mapped.
        unsafe { (*place).add_slowly(memory, counted, own_pid, &|_| false) }
    })
}

/// Gives the slot back when the program ends.
extern "C" fn at_exit() {
    let place = PLACE.load(Ordering::Acquire);
    if place.is_null() {
        return;
    }
    if let Some(memory) = memory() {
        // SAFETY: as in `add_slowly`.
        unsafe { (*place).leave(memory, own_pid()) };
    }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = at_exit;

/// Whether the catalog's word alone does not answer such a call.
pub(crate) const fn depends_on_more(family: Family) -> bool {
    matches!(
        family,
        Family::Open | Family::Dlopen | Family::List | Family::Access | Family::Other
    )
}

impl Found<'_> {
    /// Counts the call as answered here; `asked` says whether the helper had to be asked.
    #[inline]
    pub(crate) fn count_answered(&self, asked: bool) {
        if let Some(family) = self.counted {
            let asked = asked || self.asked;
            let outcome = if asked { Counted::Asked } else { Counted::Hit };
            count(family, outcome, || self.record.path());
        }
    }

    /// Counts the call as passed to the origin.
    #[inline]
    pub(crate) fn count_passed(&self, why: Counted) {
        if let Some(family) = self.counted {
            count(family, why, || self.record.path());
        }
    }

    /// Counts the opening of the file's bytes in the store.
    #[inline]
    pub(crate) fn count_stored(&self, asked: bool) {
        self.count_answered(asked);
        let attributes = self.record.attributes();
        if self.counted.is_some() && attributes.is_regular() {
            serve(attributes.size);
        }
    }
}

impl Outcome<'_> {
    /// Counts the call; one that found a file, where what becomes of it depends on more, later. `text`
    /// is what is known of its path, as for [`count`].
    pub(crate) fn count(mut self, family: Family, text: &[u8]) -> Self {
        match &mut self {
            Outcome::Found(found) if depends_on_more(family) => found.counted = Some(family),
            Outcome::Found(found) => {
                let asked = found.asked;
                let outcome = if asked { Counted::Asked } else { Counted::Hit };
                count(family, outcome, || found.record.path());
            }
            Outcome::Absent { asked: true, .. } => count(family, Counted::Asked, || text),
            Outcome::Absent { .. } => count(family, Counted::Absent, || text),
            Outcome::Kernel(route) => count(family, route.why, || route.named().unwrap_or(text)),
        }
        self
    }
}
