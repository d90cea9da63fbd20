//! Lending the core of the event loop to other threads, as long as they [give it back soon](Lending).
#![forbid(unsafe_code)]

use copper_core::lending::Lending;
use std::time::Instant;

/// Lends the core of the thread that it belongs to.
#[derive(Debug)]
pub(crate) struct Lender {
    lending: Lending,
    began: Instant,
}

impl Lender {
    /// Nothing was lent yet.
    pub(crate) fn new() -> Lender {
        Lender {
            lending: Lending::new(),
            began: Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Whether the core is likely to come back soon.
    pub(crate) fn may_lend(&self) -> bool {
        self.lending.may_lend(self.now())
    }

    /// Lends the core to whoever wants it. Those who work for this thread may take as long as they need.
    pub(crate) fn lend(&self, to_own_workers: bool) {
        let lent = self.now();
        std::thread::yield_now();
        if !to_own_workers {
            self.lending.note(lent, self.now());
        }
    }
}
