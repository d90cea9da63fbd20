//! The counters' memory as references: how a process claims a slot, counts in it, and how a helper
//! adds all of them up. Every access is bounded by the layout; what stands in the memory decides
//! only where is counted.

use super::Totals;
use super::layout::{
    self, BYTES, DIRECTORY, ENTRY_LENGTH, LENGTH, OWNED_STRIPES, SHARED_SLOT, SLOT_LENGTH, SLOTS,
    SLOTS_START, STRIPE_WORDS, STRIPES, WAITED, WAITS, entry,
};
use super::paths::is_noted;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// How many slots a process looks at before it shares the last.
const PROBES: usize = 32;

/// The mapped memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    base: *const AtomicU64,
}

// SAFETY: a pointer to atomic words that stay mapped, by `new`'s contract.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Describes mapped memory, if it is of this layout.
    ///
    /// # Safety
    /// [`LENGTH`] bytes at `base` must stay mapped, readable and writable, as long as the value or a
    /// copy of it is used, be aligned to 8, and be accessed by nobody but through atomics.
    pub unsafe fn new(base: *const u8) -> Option<Memory> {
        let memory = Memory { base: base.cast() };
        let ours = memory.word(0).load(Ordering::Acquire) == layout::MAGIC
            && memory.word(8).load(Ordering::Relaxed) == layout::VERSION;
        ours.then_some(memory)
    }

    /// Describes fresh memory, and writes its header.
    ///
    /// # Safety
    /// As for [`Memory::new`]; the memory must be zeroed.
    pub unsafe fn create(base: *const u8) -> Memory {
        let memory = Memory { base: base.cast() };
        memory.word(8).store(layout::VERSION, Ordering::Relaxed);
        memory.word(0).store(layout::MAGIC, Ordering::Release);
        memory
    }

    /// The word at `offset`.
    pub(super) fn word(&self, offset: u64) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= LENGTH);
        // SAFETY: within the memory by the callers' bounds; mapped by `new`'s contract.
        unsafe { &*self.base.add(offset as usize / 8) }
    }

    fn entry(&self, slot: usize, what: u64) -> &AtomicU64 {
        self.word(DIRECTORY + slot as u64 * ENTRY_LENGTH + what)
    }

    fn slot(&self, slot: usize) -> *const AtomicU64 {
        self.word(SLOTS_START + slot as u64 * SLOT_LENGTH)
    }

    /// The slot of the process `pid`: its own, or one that is free or whose owner is `gone`, or the
    /// shared one, which is also that of processes without a number (0).
    fn claim(&self, pid: u32, gone: &dyn Fn(u32) -> bool) -> Claim {
        const SHARED: Claim = Claim {
            slot: SHARED_SLOT,
            fresh: true,
        };
        if pid == 0 {
            return SHARED;
        }
        let first = pid as usize % SHARED_SLOT;
        let near = || (first..first + PROBES).map(|slot| slot % SHARED_SLOT);
        let owner = |slot| self.entry(slot, entry::OWNER);
        let own = u64::from(pid);
        if let Some(slot) = near().find(|&slot| owner(slot).load(Ordering::Relaxed) == own) {
            return Claim { slot, fresh: false };
        }
        for slot in near() {
            let mut found = owner(slot).load(Ordering::Relaxed);
            if found != 0 && !u32::try_from(found).is_ok_and(gone) {
                continue;
            }
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            match owner(slot).compare_exchange(found, own, order.0, order.1) {
                Ok(_) => return Claim { slot, fresh: true },
                Err(now) => found = now,
            }
            // Another thread of this process was here first.
            if found == own {
                return Claim { slot, fresh: false };
            }
        }
        SHARED
    }

    /// Lets others claim a slot of the process `pid`.
    fn release(&self, slot: usize, pid: u32) {
        let (own, order) = (u64::from(pid), Ordering::Relaxed);
        let owner = self.entry(slot, entry::OWNER);
        let _ = owner.compare_exchange(own, 0, Ordering::AcqRel, order);
    }

    /// Gives up what a process owned that is gone, for others to claim.
    pub fn release_gone(&self, gone: &dyn Fn(u32) -> bool) {
        for slot in 0..SHARED_SLOT {
            let owner = self.entry(slot, entry::OWNER);
            let found = owner.load(Ordering::Relaxed);
            if found != 0 && u32::try_from(found).map_or(true, gone) {
                let _ = owner.compare_exchange(found, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }

    /// What all processes have counted.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for slot in 0..SLOTS {
            let processes = self.entry(slot, entry::PROCESSES).load(Ordering::Relaxed);
            totals.processes = totals.processes.saturating_add(processes);
            totals.running +=
                u64::from(self.entry(slot, entry::OWNER).load(Ordering::Relaxed) != 0);
            // Looking at what was never used would make the kernel find memory for it.
            let used = self.entry(slot, entry::USED).load(Ordering::Acquire);
            for stripe in (0..STRIPES).filter(|stripe| used >> stripe & 1 != 0) {
                self.add_stripe(slot, stripe, &mut totals);
            }
        }
        totals
    }

    fn in_stripe(&self, slot: usize, stripe: usize, word: usize) -> &AtomicU64 {
        let at = (stripe * STRIPE_WORDS + word) as u64 * 8;
        self.word(SLOTS_START + slot as u64 * SLOT_LENGTH + at)
    }

    fn add_stripe(&self, slot: usize, stripe: usize, totals: &mut Totals) {
        let add = |words: &mut [u64], first: usize| {
            for (at, sum) in words.iter_mut().enumerate() {
                let word = self.in_stripe(slot, stripe, first + at);
                *sum = sum.saturating_add(word.load(Ordering::Relaxed));
            }
        };
        add(totals.calls.as_flattened_mut(), 0);
        add(&mut totals.waits, WAITS);
        add(&mut totals.waited, WAITED);
        add(core::slice::from_mut(&mut totals.bytes_served), BYTES);
    }
}

/// What a process found.
struct Claim {
    slot: usize,
    /// It was not this process's before.
    fresh: bool,
}

/// A process's place in the counters.
///
/// It lies in memory that is zero at first, and again in a child that was forked: the child has a
/// slot of its own to find.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Place {
    /// The slot's number and 1; 0 while there is none.
    number: AtomicUsize,
    /// The same slot as an address.
    slot: AtomicPtr<AtomicU64>,
    /// Which thread has which stripe to itself.
    threads: [AtomicUsize; OWNED_STRIPES],
}

/// A stripe that differs between most threads.
#[inline(always)]
fn stripe_of(thread: usize) -> usize {
    const { assert!(OWNED_STRIPES == 8) };
    ((thread as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as usize
}

/// Adds to a word that no other thread adds to.
///
/// A signal may come at any time and its handler count in the same word, so the addition must be
/// one instruction; it need not be one in the eyes of other processors.
#[inline(always)]
fn add_alone(word: &AtomicU64, amount: u64) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: adds to a word that is valid for writes; others load it as a whole.
    unsafe {
        core::arch::asm!(
            "add qword ptr [{word}], {amount}",
            word = in(reg) word.as_ptr(),
            amount = in(reg) amount,
            options(nostack),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    word.fetch_add(amount, Ordering::Relaxed);
}

/// The same for 1; gives what there was before, as far as no signal came in between.
#[inline(always)]
fn count_alone(word: &AtomicU64) -> u64 {
    let before = word.load(Ordering::Relaxed);
    add_alone(word, 1);
    before
}

impl Place {
    /// Counts a call in a word of the calling thread, if that has a stripe to itself; says whether
    /// the call [is to be noted](super::paths::is_noted).
    ///
    /// `thread` as in [`Place::add`].
    #[inline(always)]
    #[must_use]
    pub fn count(&self, thread: usize, word: usize) -> Option<bool> {
        debug_assert!(word < STRIPE_WORDS);
        let stripe = stripe_of(thread);
        if self.threads[stripe].load(Ordering::Relaxed) != thread {
            return None;
        }
        let slot = self.slot.load(Ordering::Relaxed);
        // SAFETY: as in `add`.
        let word = unsafe { &*slot.add(stripe * STRIPE_WORDS + word) };
        Some(is_noted(word, count_alone(word)))
    }

    /// Adds to a word of the calling thread, if that has a stripe to itself.
    ///
    /// `thread` tells the thread from all others that run in this process, and is not 0.
    #[inline(always)]
    #[must_use]
    pub fn add(&self, thread: usize, word: usize, amount: u64) -> bool {
        debug_assert!(word < STRIPE_WORDS);
        let stripe = stripe_of(thread);
        if self.threads[stripe].load(Ordering::Relaxed) != thread {
            return false;
        }
        let slot = self.slot.load(Ordering::Relaxed);
        // SAFETY: a thread has a stripe only after it has set the slot's address, which stays
        // mapped by `Memory::new`'s contract; stripe and word lie within the slot.
        add_alone(unsafe { &*slot.add(stripe * STRIPE_WORDS + word) }, amount);
        true
    }

    /// The same for any thread.
    ///
    /// Where the process has no slot yet it claims one: `pid` says who it is, `gone` whether a
    /// process is no more. Says whether a call that is counted so is to be noted.
    #[cold]
    #[inline(never)]
    pub fn add_slowly(
        &self,
        memory: Memory,
        (thread, word, amount): (usize, usize, u64),
        pid: impl FnOnce() -> u32,
        gone: &dyn Fn(u32) -> bool,
    ) -> bool {
        let slot = match self.number.load(Ordering::Acquire) {
            0 => self.settle(memory, pid(), gone),
            number => number - 1,
        };
        let address = memory.slot(slot);
        self.slot.store(address.cast_mut(), Ordering::Relaxed);
        let own = stripe_of(thread);
        let order = Ordering::Relaxed;
        let alone = slot != SHARED_SLOT
            && self.threads[own]
                .compare_exchange(0, thread, order, order)
                .is_ok();
        let stripe = if alone || slot == SHARED_SLOT {
            own
        } else {
            OWNED_STRIPES
        };
        let used = memory.entry(slot, entry::USED);
        if used.load(order) >> stripe & 1 == 0 {
            used.fetch_or(1 << stripe, Ordering::Release);
        }
        let counted = memory.in_stripe(slot, stripe, word);
        let before = match (alone, amount) {
            (true, 1) => count_alone(counted),
            (true, _) => {
                add_alone(counted, amount);
                return false;
            }
            (false, _) => counted.fetch_add(amount, order),
        };
        is_noted(counted, before)
    }

    /// Finds a slot for the process, if it has none; its number.
    pub fn settle(&self, memory: Memory, pid: u32, gone: &dyn Fn(u32) -> bool) -> usize {
        let claim = memory.claim(pid, gone);
        let order = (Ordering::AcqRel, Ordering::Acquire);
        let number = claim.slot + 1;
        match self.number.compare_exchange(0, number, order.0, order.1) {
            Ok(_) => {
                if claim.fresh {
                    let processes = memory.entry(claim.slot, entry::PROCESSES);
                    processes.fetch_add(1, Ordering::Relaxed);
                }
                claim.slot
            }
            Err(settled) => {
                if claim.fresh && claim.slot + 1 != settled {
                    memory.release(claim.slot, pid);
                }
                settled - 1
            }
        }
    }

    /// Gives the slot back at the end of the process `pid`; what was counted stays.
    pub fn leave(&self, memory: Memory, pid: u32) {
        if let Some(slot) = self.number.load(Ordering::Acquire).checked_sub(1) {
            memory.release(slot, pid);
        }
    }
}
