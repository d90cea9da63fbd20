//! The counters' memory as any process of the job could have left it: the helper reads it, programs
//! count in it and note paths, and nothing is believed that does not fit.
//!
//! The input is a sequence of steps: a word that is overwritten, or a call that is noted.
#![no_main]

use copper_core::control::Control;
use copper_core::counters::layout::{self, BODIES, BODY_LENGTH, CLAIMS, LENGTH, PATHS, body};
use copper_core::counters::memory::Memory;
use copper_core::counters::{Family, Outcome};
use libfuzzer_sys::fuzz_target;
use std::alloc::{Layout, alloc_zeroed};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// One memory for all inputs: it is large, and what an input left is removed after it.
static ROOM: OnceLock<usize> = OnceLock::new();

fn room() -> (*mut u8, Memory) {
    let base = *ROOM.get_or_init(|| {
        let layout = Layout::from_size_align(LENGTH as usize, 4096).expect("a valid layout");
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(layout) };
        assert!(!base.is_null());
        // SAFETY: zeroed, long enough, aligned, never freed, accessed through atomics alone.
        unsafe { Memory::create(base) };
        base as usize
    }) as *mut u8;
    // SAFETY: as above.
    (base, unsafe { Memory::new(base) }.expect("its header was written"))
}

fuzz_target!(|input: &[u8]| {
    let (base, memory) = room();
    // SAFETY: all offsets below lie within the memory and are multiples of 8.
    let word = |offset: u64| unsafe { &*base.add(offset as usize).cast::<AtomicU64>() };
    let mut overwritten = vec![layout::NOTED];
    let mut rest = input;
    while let [what, place, at, length, tail @ ..] = rest {
        let length = usize::from(*length).min(tail.len());
        let (bytes, after) = tail.split_at(length);
        rest = after;
        let mut value = [0; 8];
        let filled = bytes.len().min(8);
        value[..filled].copy_from_slice(&bytes[..filled]);
        let place = u64::from(*place) * 16 % PATHS as u64;
        let offset = match what % 6 {
            0 => CLAIMS + place * 8,
            1 => BODIES + place * BODY_LENGTH + u64::from(*at) * 8 % BODY_LENGTH,
            2 => layout::LEFT_OUT + u64::from(*at) % 2 * 8,
            3 => layout::DIRECTORY + place / 4 * layout::ENTRY_LENGTH + u64::from(*at) % 4 * 8,
            _ => {
                let family = Family::ALL[usize::from(*at) % Family::ALL.len()];
                let outcome = Outcome::ALL[usize::from(*what) % Outcome::ALL.len()];
                memory.note(family, outcome, bytes);
                continue;
            }
        };
        word(offset).store(u64::from_ne_bytes(value), Ordering::Relaxed);
        overwritten.push(offset);
    }
    for noted in memory.noted() {
        assert!(!noted.path.is_empty() && noted.path.len() <= body::TEXT_MAX, "{noted:?}");
    }
    memory.note(Family::Stat, Outcome::Hit, b"/a");
    memory.totals();
    memory.set_noted_back(Control::ResetHits);
    memory.set_noted_back(Control::ResetAll);
    assert!(memory.noted().is_empty());
    overwritten.into_iter().for_each(|offset| word(offset).store(0, Ordering::Relaxed));
});
