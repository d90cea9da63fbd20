//! Fetching in messages instead of by reading the peer's memory, for comparison and for providers
//! that cannot do the latter: a transport around a transport.
#![forbid(unsafe_code)]

use crate::fabric::{
    AdmitError, Counters, Event, Fetch, FetchError, Offer, OfferId, PostError, Rank, Session,
    Transport,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// First byte of this transport's own messages.
const MARK: u8 = 0xc6;
/// Most bytes of a file in one message.
const PART: usize = 256 << 10;
/// How long a part may take to leave.
const PART_TIME: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
enum Say<'a> {
    /// Send me what is offered under this number.
    Get { offer: u64, secret: u64, token: u64 },
    /// A part of it.
    Part {
        token: u64,
        offset: u64,
        bytes: &'a [u8],
    },
    /// It is not offered any more.
    Gone { token: u64 },
}

struct Offered {
    file: File,
    offset: u64,
    length: usize,
    secret: u64,
}

struct Wanted {
    from: Rank,
    fetch: Fetch,
    received: usize,
}

/// Fetches in messages of the transport below.
pub(super) struct Rpc<T> {
    below: T,
    offers: HashMap<u64, Offered>,
    wanted: HashMap<u64, Wanted>,
    offered: u64,
    events: Vec<Event>,
    fetched: u64,
}

fn encode(say: &Say<'_>) -> Vec<u8> {
    let mut message = vec![MARK];
    message.extend(postcard::to_allocvec(say).unwrap_or_default());
    message
}

impl<T: Transport> Rpc<T> {
    pub(super) fn over(below: T) -> Rpc<T> {
        Rpc {
            below,
            offers: HashMap::new(),
            wanted: HashMap::new(),
            offered: 0,
            events: Vec::new(),
            fetched: 0,
        }
    }

    fn end(&mut self, token: u64, result: Result<(), FetchError>) {
        if self.wanted.remove(&token).is_some() {
            self.events.push(Event::Fetched { token, result });
        }
    }

    fn end_where(&mut self, which: impl Fn(&Wanted) -> bool) {
        let gone = self.wanted.iter().filter(|(_, wanted)| which(wanted));
        let gone: Vec<u64> = gone.map(|(token, _)| *token).collect();
        gone.into_iter()
            .for_each(|token| self.end(token, Err(FetchError::Peer)));
    }

    fn heed(&mut self, from: Rank, message: &[u8]) {
        match postcard::from_bytes(&message[1..]) {
            Ok(Say::Get {
                offer,
                secret,
                token,
            }) => self.serve(from, (offer, secret), token),
            Ok(Say::Part {
                token,
                offset,
                bytes,
            }) => self.take(from, token, offset, bytes),
            Ok(Say::Gone { token }) => {
                if self
                    .wanted
                    .get(&token)
                    .is_some_and(|wanted| wanted.from == from)
                {
                    self.end(token, Err(FetchError::Peer));
                }
            }
            Err(_) => tracing::warn!(from, "a message that is not understood"),
        }
    }

    fn serve(&mut self, to: Rank, (offer, secret): (u64, u64), token: u64) {
        let deadline = Instant::now() + PART_TIME;
        let offered = self.offers.get(&offer);
        let Some(offered) = offered.filter(|offered| offered.secret == secret) else {
            let gone = encode(&Say::Gone { token });
            let _ = self.below.send(to, &gone, deadline);
            return;
        };
        let mut room = vec![0; PART.min(offered.length)];
        for start in (0..offered.length).step_by(PART) {
            let part = &mut room[..PART.min(offered.length - start)];
            if offered
                .file
                .read_exact_at(part, offered.offset + start as u64)
                .is_err()
            {
                return;
            }
            let say = Say::Part {
                token,
                offset: start as u64,
                bytes: part,
            };
            if self.below.send(to, &encode(&say), deadline).is_err() {
                return;
            }
        }
    }

    fn take(&mut self, from: Rank, token: u64, offset: u64, bytes: &[u8]) {
        let Some(wanted) = self
            .wanted
            .get_mut(&token)
            .filter(|wanted| wanted.from == from)
        else {
            return;
        };
        // Parts come in their order, since the transport below neither doubles nor reorders.
        let in_order = offset == wanted.received as u64;
        if !in_order || bytes.len() > wanted.fetch.length - wanted.received {
            return self.end(token, Err(FetchError::Peer));
        }
        let at = wanted.fetch.position + offset;
        if let Err(error) = wanted.fetch.file.write_all_at(bytes, at) {
            tracing::debug!(%error, "a part was not stored");
            let full = Errno::from_io_error(&error) != Some(Errno::IO);
            let why = if full {
                FetchError::NoSpace
            } else {
                FetchError::Peer
            };
            return self.end(token, Err(why));
        }
        wanted.received += bytes.len();
        self.fetched += bytes.len() as u64;
        if wanted.received == wanted.fetch.length {
            self.end(token, Ok(()));
        }
    }
}

impl<T: Transport> Transport for Rpc<T> {
    fn addresses(&self) -> Vec<Vec<u8>> {
        self.below.addresses()
    }

    fn admit(&mut self, peer: Rank, session: Session) -> Result<(), AdmitError> {
        self.end_where(|wanted| wanted.from == peer);
        self.below.admit(peer, session)
    }

    fn dismiss(&mut self, peer: Rank) {
        self.end_where(|wanted| wanted.from == peer);
        self.below.dismiss(peer);
    }

    fn send(&mut self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), PostError> {
        self.below.send(to, message, deadline)
    }

    fn offer(&mut self, file: &File, offset: u64, length: usize) -> std::io::Result<Offer> {
        let mut secret = [0; 8];
        getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
        let secret = u64::from_ne_bytes(secret);
        self.offered += 1;
        let offered = Offered {
            file: file.try_clone()?,
            offset,
            length,
            secret,
        };
        self.offers.insert(self.offered, offered);
        Ok(Offer {
            id: OfferId(self.offered),
            descriptor: postcard::to_allocvec(&(self.offered, secret, length as u64))
                .map_err(std::io::Error::other)?,
        })
    }

    fn withdraw(&mut self, offer: OfferId) {
        self.offers.remove(&offer.0);
    }

    fn fetch(&mut self, from: Rank, fetch: Fetch) -> Result<(), PostError> {
        let (offer, secret, length): (u64, u64, u64) =
            postcard::from_bytes(&fetch.descriptor).map_err(|_| PostError::Invalid)?;
        if fetch.length == 0 || length != fetch.length as u64 {
            return Err(PostError::Invalid);
        }
        let token = fetch.token;
        let get = Say::Get {
            offer,
            secret,
            token,
        };
        self.below.send(from, &encode(&get), fetch.deadline)?;
        let wanted = Wanted {
            from,
            fetch,
            received: 0,
        };
        self.wanted.insert(token, wanted);
        Ok(())
    }

    fn post(&mut self, now: Instant) {
        self.below.post(now);
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        let mut below = Vec::new();
        self.below.poll(now, &mut below);
        for event in below {
            match event {
                Event::Message { from, bytes } if bytes.first() == Some(&MARK) => {
                    self.heed(from, &bytes);
                }
                Event::Broken { peer } => {
                    self.end_where(|wanted| wanted.from == peer);
                    events.push(Event::Broken { peer });
                }
                other => events.push(other),
            }
        }
        self.end_where(|wanted| wanted.fetch.deadline <= now);
        events.append(&mut self.events);
    }

    fn wait_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.below.wait_descriptors()
    }

    fn may_sleep(&mut self) -> bool {
        self.events.is_empty() && self.below.may_sleep()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let wanted = self.wanted.values().map(|wanted| wanted.fetch.deadline);
        wanted.chain(self.below.next_deadline()).min()
    }

    fn counters(&self) -> Counters {
        let below = self.below.counters();
        Counters {
            fetched: below.fetched + self.fetched,
            ..below
        }
    }

    fn close(&mut self, grace: Duration) {
        self.below.close(grace);
    }
}
