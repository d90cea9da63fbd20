//! A descriptor by which other threads wake the event loop.
#![forbid(unsafe_code)]

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Wakes the event loop, which waits for the descriptor among others.
///
/// The loop looks far more often than it is woken, so a flag says whether there is something to take
/// back.
#[derive(Debug)]
pub(crate) struct Waker {
    descriptor: OwnedFd,
    woken: AtomicBool,
}

impl Waker {
    /// A waker that has woken nobody yet.
    ///
    /// # Errors
    /// No more descriptors can be had.
    pub(crate) fn new() -> std::io::Result<Waker> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Waker {
            descriptor: eventfd(0, flags)?,
            woken: AtomicBool::new(false),
        })
    }

    /// Makes the descriptor readable.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
        // After the write: whoever sees the flag takes the write back, so that no readable descriptor
        // is left without it.
        self.woken.store(true, Ordering::Release);
    }

    /// Makes the descriptor unreadable, until the next call of [`Waker::wake`].
    pub(crate) fn settle(&self) {
        if self.woken.swap(false, Ordering::Acquire) {
            let _ = rustix::io::read(&self.descriptor, &mut [0; 8]);
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(waker: &Waker) -> bool {
        let mut polled = [PollFd::new(waker, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).expect("polled") == 1
    }

    #[test]
    fn it_is_readable_from_waking_to_settling() {
        let waker = Waker::new().expect("an eventfd");
        assert!(!is_readable(&waker));
        waker.settle();
        waker.wake();
        waker.wake();
        assert!(is_readable(&waker));
        waker.settle();
        assert!(!is_readable(&waker));
        waker.wake();
        assert!(is_readable(&waker));
    }
}
