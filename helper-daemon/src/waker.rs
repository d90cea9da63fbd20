//! A descriptor by which other threads wake the event loop.
#![forbid(unsafe_code)]

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Wakes the event loop, which watches the descriptor among others, for its edges: each call of
/// [`Waker::wake`] is an event, and nobody reads the descriptor.
///
/// So nothing has to be taken back, which the loop and a thread that wakes it would have to agree on: the
/// thread may be stopped at any place, in favour of the loop itself.
#[derive(Debug)]
pub(crate) struct Waker {
    descriptor: OwnedFd,
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
        })
    }

    /// Makes an event of the descriptor.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.descriptor, &1u64.to_ne_bytes());
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
    use rustix::event::{Timespec, epoll};

    #[test]
    fn each_call_is_an_event_and_no_event_comes_twice() {
        let waker = Waker::new().expect("an eventfd");
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll");
        let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &waker, epoll::EventData::new_u64(0), edges).expect("watched");
        let events = || {
            let mut events = Vec::with_capacity(2);
            let room = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&epoll, room, Some(&Timespec::default())).expect("events")
        };
        assert_eq!(events(), 0);
        waker.wake();
        waker.wake();
        assert_eq!(events(), 1);
        assert_eq!(events(), 0);
        waker.wake();
        assert_eq!(events(), 1);
        assert_eq!(events(), 0);
    }
}
