//! How long a question may wait for the tree, and when it had better not wait at all.
//!
//! A root whose origin hangs answers nothing for a long time, though the other nodes' origin may be
//! well. Whoever has waited in vain for one tree's root leaves that tree's objects to the origin for
//! a while, and lets a single question find out now and then whether it answers again.
#![forbid(unsafe_code)]

use copper_core::tree::{Settings, TreeIndex};
use std::time::{Duration, Instant};

/// For an object of a tree that has answered so far.
const ORDINARY: Duration = Duration::from_secs(10);
/// For an object while some tree does not answer.
const WARY: Duration = Duration::from_secs(2);
/// Until a tree that did not answer is tried again.
const REST: Duration = Duration::from_secs(8);
/// Bytes of a file that arrive in a second at the least.
const SLOWEST: u64 = 20 << 20;

/// What is known of each tree's answers.
pub(super) struct Patiences {
    /// Whether there is anybody else who might answer better.
    several: bool,
    /// For each tree that did not answer, when it may be tried again.
    silent: Vec<Option<Instant>>,
}

impl Patiences {
    pub(super) fn new(trees: TreeIndex, several: bool) -> Patiences {
        Patiences {
            several,
            silent: vec![None; trees.into()],
        }
    }

    /// How long to wait for an object of `size` bytes; `None` where it is not to be asked for.
    pub(super) fn wait(
        &mut self,
        tree: TreeIndex,
        size: u64,
        now: Instant,
        settings: &Settings,
    ) -> Option<Duration> {
        if !self.several {
            return Some(settings.patience);
        }
        let wary = self.silent.iter().any(Option::is_some);
        let least = if wary { WARY } else { ORDINARY };
        match self.silent.get_mut(usize::from(tree)) {
            Some(Some(again)) if now < *again => return None,
            Some(Some(again)) => *again = now + REST,
            _ => {}
        }
        Some(least + Duration::from_secs(size / SLOWEST))
    }

    /// An object of this tree was waited for in vain.
    pub(super) fn was_silent(&mut self, tree: TreeIndex, now: Instant) {
        if self.several
            && let Some(silent) = self.silent.get_mut(usize::from(tree))
        {
            *silent = Some(now + REST);
        }
    }

    /// An object of this tree was answered.
    pub(super) fn has_answered(&mut self, tree: TreeIndex) {
        if let Some(silent) = self.silent.get_mut(usize::from(tree)) {
            *silent = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_tree_is_left_alone_but_for_a_try_now_and_then() {
        let settings = Settings::default();
        let mut patiences = Patiences::new(2, true);
        let start = Instant::now();
        assert_eq!(patiences.wait(0, 0, start, &settings), Some(ORDINARY));
        patiences.was_silent(0, start);
        assert_eq!(patiences.wait(0, 0, start, &settings), None);
        assert_eq!(patiences.wait(1, 0, start, &settings), Some(WARY));
        let later = start + REST;
        assert_eq!(patiences.wait(0, 0, later, &settings), Some(WARY));
        assert_eq!(
            patiences.wait(0, 0, later, &settings),
            None,
            "one try at a time"
        );
        patiences.has_answered(0);
        assert_eq!(patiences.wait(0, 0, later, &settings), Some(ORDINARY));
    }

    #[test]
    fn long_files_have_time_and_a_single_node_has_nobody_else() {
        let settings = Settings::default();
        let now = Instant::now();
        let wait = Patiences::new(1, true).wait(0, 10 * SLOWEST, now, &settings);
        assert_eq!(wait, Some(ORDINARY + Duration::from_secs(10)));
        let mut alone = Patiences::new(1, false);
        alone.was_silent(0, now);
        assert_eq!(alone.wait(0, 0, now, &settings), Some(settings.patience));
    }
}
