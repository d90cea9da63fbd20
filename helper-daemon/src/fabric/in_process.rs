//! A transport within one process, for tests of what lies above: plain queues and copies.
//!
//! It keeps the promises of [`super`] and knows no keys, since nobody can come between; a [`Hub`]
//! can cut two peers apart.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{
    AdmitError, Counters, Event, Fetch, FetchError, MAX_MESSAGE, Offer, OfferId, PostError, Rank,
    Session, Transport,
};

/// What connects the transports of a test.
#[derive(Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    mailboxes: HashMap<Rank, Mailbox>,
    offers: HashMap<(Rank, u64), Offered>,
    cut: HashSet<(Rank, Rank)>,
    /// Who has admitted whom.
    admitted: HashSet<(Rank, Rank)>,
    offered: u64,
}

struct Mailbox {
    messages: VecDeque<(Rank, Vec<u8>)>,
    bell: UnixStream,
}

struct Offered {
    file: File,
    offset: u64,
    length: usize,
}

impl State {
    /// Drops what a former helper of that rank had.
    fn forget(&mut self, rank: Rank) {
        self.offers.retain(|(owner, _), _| *owner != rank);
        self.admitted
            .retain(|&(one, other)| one != rank && other != rank);
    }

    fn ring(&mut self, rank: Rank) {
        if let Some(mailbox) = self.mailboxes.get_mut(&rank) {
            // A full pipe has been rung already.
            let _ = mailbox.bell.write(&[1]);
        }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses everything between two peers from now on, or no longer.
    pub(crate) fn cut(&self, one: Rank, other: Rank, cut: bool) {
        let mut state = self.lock();
        for pair in [(one, other), (other, one)] {
            if cut {
                state.cut.insert(pair);
            } else {
                state.cut.remove(&pair);
            }
        }
    }

    /// A peer's transport. A rank that is there already is replaced, as by a restart.
    ///
    /// # Errors
    ///
    /// The process has no more descriptors.
    pub(crate) fn transport(&self, rank: Rank) -> io::Result<InProcessTransport> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        let mut state = self.lock();
        state.mailboxes.insert(
            rank,
            Mailbox {
                messages: VecDeque::new(),
                bell,
            },
        );
        state.forget(rank);
        Ok(InProcessTransport {
            hub: self.clone(),
            rank,
            ear,
            waiting: VecDeque::new(),
            fetches: Vec::new(),
            events: Vec::new(),
            counters: Counters::default(),
        })
    }
}

/// A transport within one process.
pub(crate) struct InProcessTransport {
    hub: Hub,
    rank: Rank,
    ear: UnixStream,
    /// Messages to peers that have not admitted us.
    waiting: VecDeque<(Rank, Vec<u8>, Instant)>,
    fetches: Vec<(Rank, Fetch)>,
    events: Vec<Event>,
    counters: Counters,
}

impl InProcessTransport {
    fn has_admitted(&self, peer: Rank) -> bool {
        self.hub.lock().admitted.contains(&(self.rank, peer))
    }

    /// Delivers what waits to those who have admitted us.
    fn deliver(&mut self, now: Instant) {
        let (rank, counters) = (self.rank, &mut self.counters);
        let state = &mut *self.hub.lock();
        self.waiting.retain_mut(|(to, message, deadline)| {
            let cut = state.cut.contains(&(rank, *to));
            if cut || *deadline <= now {
                counters.expired += 1;
            } else if state.admitted.contains(&(*to, rank))
                && let Some(mailbox) = state.mailboxes.get_mut(to)
            {
                mailbox.messages.push_back((rank, std::mem::take(message)));
                counters.sent += 1;
                state.ring(*to);
            } else {
                return true;
            }
            false
        });
    }

    fn fail_fetches_of(&mut self, peer: Rank) {
        for (_, fetch) in self.fetches.extract_if(.., |(from, _)| *from == peer) {
            let result = Err(FetchError::Peer);
            self.events.push(Event::Fetched {
                token: fetch.token,
                result,
            });
        }
    }
}

fn key(descriptor: &[u8]) -> Option<u64> {
    descriptor.try_into().ok().map(u64::from_le_bytes)
}

/// Copies what is offered; `None` while the peers are cut apart.
fn copy(state: &State, rank: Rank, from: Rank, fetch: &Fetch) -> Option<Result<(), FetchError>> {
    if state.cut.contains(&(rank, from)) {
        return None;
    }
    let offered = key(&fetch.descriptor).and_then(|key| state.offers.get(&(from, key)));
    let Some(offered) = offered.filter(|offered| offered.length == fetch.length) else {
        return Some(Err(FetchError::Peer));
    };
    let mut bytes = vec![0; fetch.length];
    if offered
        .file
        .read_exact_at(&mut bytes, offered.offset)
        .is_err()
    {
        return Some(Err(FetchError::Peer));
    }
    Some(
        fetch
            .file
            .write_all_at(&bytes, fetch.position)
            .map_err(|_| FetchError::NoSpace),
    )
}

impl Transport for InProcessTransport {
    fn addresses(&self) -> Vec<Vec<u8>> {
        vec![self.rank.to_le_bytes().to_vec()]
    }

    fn admit(&mut self, peer: Rank, session: Session) -> Result<(), AdmitError> {
        if session.addresses != [peer.to_le_bytes()] {
            return Err(AdmitError("it is not one of this process".to_owned()));
        }
        self.fail_fetches_of(peer);
        let mut state = self.hub.lock();
        state.admitted.insert((self.rank, peer));
        state.ring(peer);
        Ok(())
    }

    fn dismiss(&mut self, peer: Rank) {
        self.fail_fetches_of(peer);
        self.waiting.retain(|(to, ..)| *to != peer);
        self.hub.lock().admitted.remove(&(self.rank, peer));
    }

    fn send(&mut self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), PostError> {
        if message.len() > MAX_MESSAGE {
            return Err(PostError::Invalid);
        }
        if !self.has_admitted(to) {
            return Err(PostError::Unknown);
        }
        self.waiting.push_back((to, message.to_vec(), deadline));
        self.deliver(Instant::now());
        Ok(())
    }

    fn offer(&mut self, file: &File, offset: u64, length: usize) -> io::Result<Offer> {
        if length == 0 || file.metadata()?.len() < offset + length as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let file = file.try_clone()?;
        let mut state = self.hub.lock();
        state.offered += 1;
        let id = state.offered;
        state.offers.insert(
            (self.rank, id),
            Offered {
                file,
                offset,
                length,
            },
        );
        Ok(Offer {
            id: OfferId(id),
            descriptor: id.to_le_bytes().to_vec(),
        })
    }

    fn withdraw(&mut self, offer: OfferId) {
        self.hub.lock().offers.remove(&(self.rank, offer.0));
    }

    fn fetch(&mut self, from: Rank, fetch: Fetch) -> Result<(), PostError> {
        if key(&fetch.descriptor).is_none() || fetch.length == 0 {
            return Err(PostError::Invalid);
        }
        if !self.has_admitted(from) {
            return Err(PostError::Unknown);
        }
        self.fetches.push((from, fetch));
        Ok(())
    }

    fn post(&mut self, now: Instant) {
        self.deliver(now);
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        while self.ear.read(&mut [0; 256]).is_ok_and(|rung| rung > 0) {}
        self.deliver(now);
        let state = &mut *self.hub.lock();
        let (rank, counters, own) = (self.rank, &mut self.counters, &mut self.events);
        self.fetches.retain(|(from, fetch)| {
            let result = match copy(state, rank, *from, fetch) {
                None if fetch.deadline > now => return true,
                None => Err(FetchError::Peer),
                Some(result) => result,
            };
            if result.is_ok() {
                counters.fetched += fetch.length as u64;
            }
            own.push(Event::Fetched {
                token: fetch.token,
                result,
            });
            false
        });
        let mailbox = state.mailboxes.get_mut(&rank);
        let messages = mailbox.map(|mailbox| std::mem::take(&mut mailbox.messages));
        for (from, bytes) in messages.into_iter().flatten() {
            if state.admitted.contains(&(rank, from)) {
                counters.received += 1;
                own.push(Event::Message { from, bytes });
            } else {
                counters.rejected += 1;
            }
        }
        events.append(own);
    }

    fn wait_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.ear.as_fd()]
    }

    fn may_sleep(&mut self) -> bool {
        let cut = |fetch: &(Rank, Fetch)| self.hub.lock().cut.contains(&(self.rank, fetch.0));
        self.events.is_empty() && self.fetches.iter().all(cut)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let fetches = self.fetches.iter().map(|(_, fetch)| fetch.deadline);
        fetches
            .chain(self.waiting.iter().map(|&(.., deadline)| deadline))
            .min()
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn close(&mut self, _grace: Duration) {
        let mut state = self.hub.lock();
        state.mailboxes.remove(&self.rank);
        state.forget(self.rank);
    }
}
