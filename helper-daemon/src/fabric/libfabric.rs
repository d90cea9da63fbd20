//! The transport over libfabric.
//!
//! Messages go over the first rail, as frames with credits ([`super::channel`]). Bodies are
//! pulled: the owner registers the part of its store file that is on offer, on one rail after the
//! other, and the peer reads it in pieces into a ring of registered buffers and writes each to
//! its own file. That is the fastest way into fresh pages (docs/FABRIC.md).
//!
//! Every operation has a deadline. What is past it is given up here, while libfabric keeps its
//! memory until it lets go.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use libfabric_sys::{
    Access, Endpoint, EndpointConfig, Event as Completion, Mapping, Memory, OpenError, Peer,
    PostError as FabricPostError, Region,
};

use super::channel::{Channel, FRAMES_PER_PEER, Received};
use super::frame::Unproved;
use super::stale;
use super::{
    AdmitError, Counters, Event, Fetch, FetchError, MAX_MESSAGE, Offer, OfferId, PostError, Rank,
    Session, Transport,
};

mod fetching;

use fetching::{FetchState, Piece, describe_offer, parse_offer, pieces};

/// Longest frame in bytes: little enough for every provider to send it at once, without asking
/// the receiver first.
const FRAME_SIZE: usize = 15 << 10;
/// Pieces under way on one rail, those given up by us and not by libfabric among them.
const PIECES_PER_RAIL: usize = 64;
/// Failures of frames, with nothing heard from the peer between, after which it is given up.
const MAX_SETBACKS: u32 = 8;
/// Pause after a failure, at first and at most.
const SETBACK_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// Frames under way on the first rail.
const FRAMES_UNDER_WAY: usize = 256;
/// Fetches that may wait for one peer.
const MAX_FETCHES: usize = 1024;
/// Completions handled for each rail before others have their turn.
const BUDGET: usize = 256;
/// First and longest pause before posting again what a provider would not take.
const RETRY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// Deadline of acknowledgements, which wait for nothing else.
const ACKNOWLEDGEMENT_PATIENCE: Duration = Duration::from_secs(5);

/// One interface to use.
#[derive(Clone, Debug, Default)]
pub(crate) struct RailConfig {
    /// Its address, where the provider works over sockets or addresses are IP's.
    pub(crate) address: Option<IpAddr>,
    /// Its device, such as `cxi0`.
    pub(crate) device: Option<String>,
}

/// How the transport is made.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Our own rank.
    pub(crate) rank: Rank,
    /// The provider; `None` takes the best that the machine has.
    pub(crate) provider: Option<String>,
    /// The interfaces, at least one; all helpers of a job have as many.
    pub(crate) rails: Vec<RailConfig>,
    /// Peers for which there is room to receive.
    pub(crate) peers: usize,
}

struct Rail {
    endpoint: Endpoint,
    idle_buffers: Vec<Region>,
    /// Addresses that are not used any more but have operations under way.
    retired: Vec<Peer>,
}

struct PeerState {
    channel: Channel,
    addresses: Vec<Vec<u8>>,
    rails: Vec<Peer>,
    session: u64,
    broken: bool,
    /// Fetches with pieces left to post.
    fetches: VecDeque<u64>,
    pieces: usize,
    /// The piece under way has failed before, and must have no company.
    alone: bool,
    /// Failures since the peer was last heard.
    setbacks: u32,
    /// Nothing is posted before, so that the provider can connect anew.
    resume_at: Option<Instant>,
}

impl PeerState {
    /// Something failed: what the peer may not have is sent again, after a pause.
    fn set_back(&mut self, now: Instant) {
        self.channel.rewind();
        if self.resume_at.is_none_or(|resume| resume <= now) {
            let pause = SETBACK_PAUSE.0 * 2u32.saturating_pow(self.setbacks.min(10));
            self.resume_at = Some(now + pause.min(SETBACK_PAUSE.1));
            self.setbacks += 1;
        }
    }

    fn may_post(&self, now: Instant) -> bool {
        !self.broken && self.resume_at.is_none_or(|resume| resume <= now)
    }
}

/// What a token of an operation stands for.
enum UnderWay {
    Frame {
        peer: Rank,
        session: u64,
    },
    Piece {
        peer: Rank,
        session: u64,
        fetch: u64,
        rail: usize,
        buffer: Region,
        piece: Piece,
    },
}

/// The transport over libfabric.
pub(crate) struct LibfabricTransport {
    rank: Rank,
    rails: Vec<Rail>,
    peers: HashMap<Rank, PeerState>,
    under_way: HashMap<u64, UnderWay>,
    fetches: HashMap<u64, FetchState>,
    offers: HashMap<u64, Region>,
    /// Tokens, sessions, fetches and offers are numbered from one sequence.
    numbers: u64,
    next_rail: usize,
    events: Vec<Event>,
    /// Something was queued that has not been tried yet.
    untried: bool,
    retry_pause: Duration,
    retry_at: Option<Instant>,
    counters: Counters,
}

impl LibfabricTransport {
    /// Opens an endpoint on every rail.
    ///
    /// # Errors
    ///
    /// libfabric or the provider is missing, or an interface cannot be used.
    pub(crate) fn open(config: &Config) -> Result<Self, OpenError> {
        let mut rails = Vec::new();
        for (index, rail) in config.rails.iter().enumerate() {
            let first = index == 0;
            let endpoint = Endpoint::open(&EndpointConfig {
                provider: config.provider.clone(),
                address: rail.address,
                device: rail.device.clone(),
                port: 0,
                message_size: if first { FRAME_SIZE } else { 64 },
                receives: if first {
                    config.peers.max(1) * FRAMES_PER_PEER
                } else {
                    1
                },
                sends: if first { FRAMES_UNDER_WAY } else { 1 },
                reads: PIECES_PER_RAIL,
            })?;
            rails.push(Rail {
                endpoint,
                idle_buffers: Vec::new(),
                retired: Vec::new(),
            });
        }
        Ok(Self {
            rank: config.rank,
            rails,
            peers: HashMap::new(),
            under_way: HashMap::new(),
            fetches: HashMap::new(),
            offers: HashMap::new(),
            numbers: 0,
            next_rail: 0,
            events: Vec::new(),
            untried: false,
            retry_pause: RETRY.0,
            retry_at: None,
            counters: Counters::default(),
        })
    }

    /// The provider in use and its device, per rail.
    pub(crate) fn describe(&self) -> Vec<String> {
        self.rails
            .iter()
            .map(|rail| rail.endpoint.provider().to_string())
            .collect()
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Handles what a rail's provider has finished.
    fn drain(&mut self, index: usize) {
        // To ask the provider takes several system calls. Where it gave less than it could have, what
        // came since can wait for the next time, which there is: see `may_sleep`. But where a part of
        // a message came, or a greeting, more is likely to be there.
        let mut more = true;
        for _ in 0..BUDGET {
            let Some(rail) = self.rails.get_mut(index) else {
                return;
            };
            let next = match std::mem::take(&mut more) {
                true => rail.endpoint.next_event(),
                false => rail.endpoint.next_taken_event(),
            };
            match next {
                Ok(None) => return,
                Ok(Some(Completion::Message(frame))) => match receive(&mut self.peers, frame) {
                    Some((from, Received::Message(bytes))) => {
                        self.counters.received += 1;
                        self.events.push(Event::Message { from, bytes });
                    }
                    Some((_, Received::Part)) => more = true,
                    Some((_, Received::Rejected)) | None => self.counters.rejected += 1,
                },
                Ok(Some(Completion::Sent { token } | Completion::Read { token })) => {
                    self.finished(token, true);
                }
                Ok(Some(Completion::Failed { token, .. })) => self.finished(token, false),
                Err(_) => return self.rail_failed(),
            }
        }
    }

    /// The completion queue itself failed: nobody can be reached any more.
    fn rail_failed(&mut self) {
        let peers: Vec<Rank> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.broke(peer));
    }

    fn finished(&mut self, token: u64, succeeded: bool) {
        match self.under_way.remove(&token) {
            None => {}
            Some(UnderWay::Frame { .. }) if succeeded => {}
            Some(UnderWay::Frame { peer, session }) => self.frame_failed(peer, session),
            Some(UnderWay::Piece {
                peer,
                session,
                fetch,
                rail,
                buffer,
                piece,
            }) => {
                self.piece_ended(peer, session);
                if succeeded {
                    self.store(fetch, &buffer, piece);
                } else {
                    self.piece_failed(fetch, piece);
                }
                if let Some(rail) = self.rails.get_mut(rail) {
                    rail.idle_buffers.push(buffer);
                }
            }
        }
    }

    fn frame_failed(&mut self, rank: Rank, session: u64) {
        // A failure of an earlier session says nothing of this one.
        if self
            .peers
            .get(&rank)
            .is_some_and(|peer| peer.session == session)
        {
            self.setback(rank);
        }
    }

    /// Has frames sent again, unless the peer has been deaf for too long.
    fn setback(&mut self, rank: Rank) {
        if let Some(peer) = self.peers.get_mut(&rank) {
            peer.set_back(Instant::now());
            if peer.setbacks > MAX_SETBACKS {
                self.broke(rank);
            }
        }
    }

    /// Gives up the session with a peer and says so, once.
    fn broke(&mut self, rank: Rank) {
        self.fail_fetches_of(rank);
        if let Some(peer) = self.peers.get_mut(&rank)
            && !std::mem::replace(&mut peer.broken, true)
        {
            self.counters.expired += peer.channel.waiting() as u64;
            peer.channel.clear();
            self.events.push(Event::Broken { peer: rank });
        }
    }

    fn expire(&mut self, now: Instant) {
        for index in 0..self.rails.len() {
            for token in self.rails[index].endpoint.expire(now) {
                match self.under_way.remove(&token) {
                    // The buffer is libfabric's until it lets go; a new one takes its place.
                    Some(UnderWay::Piece {
                        peer,
                        session,
                        fetch,
                        ..
                    }) => {
                        self.piece_ended(peer, session);
                        self.end_fetch(fetch, Err(FetchError::Peer));
                    }
                    Some(UnderWay::Frame { .. }) => self.counters.expired += 1,
                    None => {}
                }
            }
        }
        for peer in self.peers.values_mut() {
            self.counters.expired += peer.channel.expire(now);
        }
        let stalled =
            |(&rank, peer): (&Rank, &PeerState)| peer.channel.is_stalled(now).then_some(rank);
        let stalled: Vec<Rank> = self.peers.iter().filter_map(stalled).collect();
        stalled.into_iter().for_each(|rank| self.setback(rank));
        let late = |(&id, state): (&u64, &FetchState)| (state.fetch.deadline <= now).then_some(id);
        let late: Vec<u64> = self.fetches.iter().filter_map(late).collect();
        late.into_iter()
            .for_each(|id| self.end_fetch(id, Err(FetchError::Peer)));
    }

    /// Posts what waits, as far as providers and peers have room.
    fn flush(&mut self, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.resume_at = peer.resume_at.filter(|&resume| resume > now);
        }
        let ranks: Vec<Rank> = self.peers.keys().copied().collect();
        let mut refused = false;
        for rank in ranks {
            refused |= self.flush_frames(rank, now);
            refused |= self.flush_fetches(rank, now);
        }
        for rail in &mut self.rails {
            let endpoint = &mut rail.endpoint;
            rail.retired
                .retain(|&peer| endpoint.remove(peer) == Err(FabricPostError::Again));
        }
        self.untried = false;
        self.retry_at = refused.then_some(now + self.retry_pause);
        self.retry_pause = if refused {
            (2 * self.retry_pause).min(RETRY.1)
        } else {
            RETRY.0
        };
    }

    /// Returns whether a provider refused for the time being.
    fn flush_frames(&mut self, rank: Rank, now: Instant) -> bool {
        loop {
            let token = self.number();
            let peer = self.peers.get_mut(&rank).filter(|peer| peer.may_post(now));
            let Some(peer) = peer else {
                return false;
            };
            let (Some(rail), Some(&to)) = (self.rails.first_mut(), peer.rails.first()) else {
                return false;
            };
            let Some((frame, deadline)) = peer.channel.next_frame(now) else {
                return false;
            };
            let deadline = deadline.unwrap_or(now + ACKNOWLEDGEMENT_PATIENCE);
            match rail.endpoint.send(to, frame, token, deadline) {
                Ok(()) => {
                    let session = peer.session;
                    self.counters.sent += u64::from(peer.channel.frame_sent(now));
                    self.under_way.insert(
                        token,
                        UnderWay::Frame {
                            peer: rank,
                            session,
                        },
                    );
                }
                Err(FabricPostError::Again) => return true,
                Err(_) => {
                    self.broke(rank);
                    return false;
                }
            }
        }
    }

    /// Inserts a peer's addresses on all rails, or none.
    fn insert(&mut self, addresses: &[Vec<u8>]) -> Result<Vec<Peer>, AdmitError> {
        if addresses.len() != self.rails.len() {
            return Err(AdmitError(format!(
                "it uses {} interfaces and this helper {}; name as many on every node",
                addresses.len(),
                self.rails.len()
            )));
        }
        let mut inserted = Vec::new();
        for (rail, address) in self.rails.iter_mut().zip(addresses) {
            match rail.endpoint.insert(address) {
                Ok(peer) => inserted.push(peer),
                Err(error) => {
                    self.retire(inserted);
                    return Err(AdmitError(error.to_string()));
                }
            }
        }
        Ok(inserted)
    }

    /// Has the provider connect anew to a peer that was lost, once it is back.
    fn cut_connections(&self, addresses: &[Vec<u8>]) {
        for (rail, address) in self.rails.iter().zip(addresses) {
            let parse = |address: &[u8]| stale::parse(&rail.endpoint.address_text(address));
            if let (Some(own), Some(peer)) = (parse(rail.endpoint.address()), parse(address)) {
                stale::cut(own, peer);
            }
        }
    }

    fn retire(&mut self, peers: Vec<Peer>) {
        for (rail, peer) in self.rails.iter_mut().zip(peers) {
            rail.retired.push(peer);
        }
    }
}

/// Proves a frame to be a peer's and hands it to that peer's channel.
fn receive(peers: &mut HashMap<Rank, PeerState>, frame: &[u8]) -> Option<(Rank, Received)> {
    let frame = Unproved::parse(frame)?;
    let rank = frame.claimed_rank();
    let peer = peers.get_mut(&rank)?;
    let (header, fragment) = frame.prove(peer.channel.receive_key())?;
    (peer.setbacks, peer.resume_at) = (0, None);
    Some((rank, peer.channel.receive(&header, fragment)))
}

impl Transport for LibfabricTransport {
    fn addresses(&self) -> Vec<Vec<u8>> {
        self.rails
            .iter()
            .map(|rail| rail.endpoint.address().to_vec())
            .collect()
    }

    fn admit(&mut self, rank: Rank, session: Session) -> Result<(), AdmitError> {
        self.fail_fetches_of(rank);
        let rails = match self.peers.remove(&rank) {
            Some(old) if old.addresses == session.addresses => old.rails,
            old => {
                if let Some(old) = old {
                    self.retire(old.rails);
                }
                self.insert(&session.addresses)?
            }
        };
        let channel = Channel::new(self.rank, session.send_key, session.receive_key, FRAME_SIZE);
        let state = PeerState {
            channel,
            addresses: session.addresses,
            rails,
            session: self.number(),
            broken: false,
            fetches: VecDeque::new(),
            pieces: 0,
            alone: false,
            setbacks: 0,
            resume_at: None,
        };
        self.peers.insert(rank, state);
        self.untried = true;
        Ok(())
    }

    fn dismiss(&mut self, rank: Rank) {
        self.fail_fetches_of(rank);
        if let Some(peer) = self.peers.remove(&rank) {
            self.counters.expired += peer.channel.waiting() as u64;
            self.cut_connections(&peer.addresses);
            self.retire(peer.rails);
        }
    }

    fn send(&mut self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), PostError> {
        if message.len() > MAX_MESSAGE {
            return Err(PostError::Invalid);
        }
        let peer = self.peers.get_mut(&to).filter(|peer| !peer.broken);
        let peer = peer.ok_or(PostError::Unknown)?;
        peer.channel.queue(message, deadline)?;
        self.untried = true;
        Ok(())
    }

    fn offer(&mut self, file: &File, offset: u64, length: usize) -> io::Result<Offer> {
        let memory = Memory::map(file, offset, length, Mapping::ReadOnly)?;
        let index = self.next_rail % self.rails.len().max(1);
        self.next_rail = self.next_rail.wrapping_add(1);
        let rail = self.rails.get(index).ok_or(io::ErrorKind::NotConnected)?;
        let region = rail
            .endpoint
            .register(memory, Access::RemoteRead)
            .map_err(io::Error::other)?;
        let remote = region.remote().ok_or(io::ErrorKind::Unsupported)?;
        let id = self.number();
        self.offers.insert(id, region);
        Ok(Offer {
            id: OfferId(id),
            descriptor: describe_offer(index, &remote),
        })
    }

    fn withdraw(&mut self, offer: OfferId) {
        self.offers.remove(&offer.0);
    }

    fn fetch(&mut self, from: Rank, fetch: Fetch) -> Result<(), PostError> {
        let (rail, source) = parse_offer(&fetch.descriptor).ok_or(PostError::Invalid)?;
        if rail >= self.rails.len() || fetch.length == 0 || source.length != fetch.length as u64 {
            return Err(PostError::Invalid);
        }
        let id = self.number();
        let peer = self.peers.get_mut(&from).filter(|peer| !peer.broken);
        let peer = peer.ok_or(PostError::Unknown)?;
        if peer.fetches.len() >= MAX_FETCHES {
            return Err(PostError::Busy);
        }
        peer.fetches.push_back(id);
        self.untried = true;
        let state = FetchState {
            left: pieces(fetch.length),
            fetch,
            peer: from,
            rail,
            source,
            written: 0,
        };
        self.fetches.insert(id, state);
        Ok(())
    }

    fn post(&mut self, now: Instant) {
        if self.untried {
            self.flush(now);
        }
    }

    fn poll(&mut self, now: Instant, events: &mut Vec<Event>) {
        for index in 0..self.rails.len() {
            self.drain(index);
        }
        self.expire(now);
        self.flush(now);
        events.append(&mut self.events);
    }

    fn wait_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.rails
            .iter()
            .map(|rail| rail.endpoint.wait_descriptor())
            .collect()
    }

    fn may_sleep(&mut self) -> bool {
        !self.untried
            && self.events.is_empty()
            && self.rails.iter_mut().all(|rail| rail.endpoint.may_sleep())
    }

    fn next_deadline(&self) -> Option<Instant> {
        let posted = self
            .rails
            .iter()
            .filter_map(|rail| rail.endpoint.next_deadline());
        let peer = |peer: &PeerState| peer.resume_at.or_else(|| peer.channel.next_deadline());
        let queued = self.peers.values().filter_map(peer);
        let fetches = self.fetches.values().map(|state| state.fetch.deadline);
        posted
            .chain(queued)
            .chain(fetches)
            .chain(self.retry_at)
            .min()
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn close(&mut self, grace: Duration) {
        let ranks: Vec<Rank> = self.peers.keys().copied().collect();
        ranks
            .into_iter()
            .for_each(|rank| self.fail_fetches_of(rank));
        self.peers.clear();
        self.offers.clear();
        self.under_way.clear();
        let end = Instant::now() + grace;
        for rail in self.rails.drain(..) {
            drop(rail.idle_buffers);
            rail.endpoint
                .close(end.saturating_duration_since(Instant::now()));
        }
    }
}
