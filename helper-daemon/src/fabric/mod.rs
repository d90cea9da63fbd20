//! Messages and bodies between helpers: the transport that the tree's driver uses.
//!
//! A [`Transport`] sends messages to peers, offers parts of store files to be taken, and fetches
//! what a peer offers into a store file. It knows peers by rank, once the meeting has proved who
//! they are ([`Transport::admit`]). It may lose messages, when a peer or a deadline is lost, but
//! neither changes, doubles nor reorders them. One thread owns a transport and drives it with
//! [`Transport::poll`].
//!
//! There are three: [`libfabric`] for real, [`nobody`] where a job has one node, and [`in_process`] for
//! tests of what lies above.

use std::fmt;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) mod channel;
#[cfg(test)]
mod conformance;
pub(crate) mod frame;
#[cfg(test)]
pub(crate) mod in_process;
pub(crate) mod libfabric;
#[cfg(test)]
mod measure;
pub(crate) mod nobody;
mod stale;

/// A helper's number in its job, from 0.
pub(crate) type Rank = u32;

/// The longest message in bytes: the tree's longest, with its longest attachment.
pub(crate) const MAX_MESSAGE: usize = (64 << 10) + (1 << 20) + 64;

/// The longest descriptor of an offer in bytes.
pub(crate) const MAX_DESCRIPTOR: usize = 64;

/// A secret shared with one peer, for messages in one direction, in one session.
#[derive(Clone)]
pub(crate) struct MessageKey(pub(crate) [u8; 32]);

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKey(..)")
    }
}

/// What a meeting agreed on with a peer. Sessions with one peer never share a key.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The peer's addresses, one per rail.
    pub(crate) addresses: Vec<Vec<u8>>,
    /// For what we send.
    pub(crate) send_key: MessageKey,
    /// For what the peer sends.
    pub(crate) receive_key: MessageKey,
}

/// What is to be fetched, and where to.
#[derive(Clone)]
pub(crate) struct Fetch {
    /// The caller's name for it, given back in [`Event::Fetched`]; unique among those under way.
    pub(crate) token: u64,
    /// The peer's descriptor of its offer.
    pub(crate) descriptor: Vec<u8>,
    /// The store file to write to.
    pub(crate) file: Arc<File>,
    /// Where in the file.
    pub(crate) position: u64,
    /// How many bytes: all of what is offered.
    pub(crate) length: usize,
    /// When to give up.
    pub(crate) deadline: Instant,
}

/// Names an offer until it is withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OfferId(pub(crate) u64);

/// A part of a file that peers may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// For [`Transport::withdraw`].
    pub(crate) id: OfferId,
    /// What a peer needs to fetch it, at most [`MAX_DESCRIPTOR`] bytes; to be sent in a message.
    pub(crate) descriptor: Vec<u8>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message, from the peer that it says it is from.
    Message {
        /// The sender.
        from: Rank,
        /// The message as it was sent.
        bytes: Vec<u8>,
    },
    /// A fetch ended. Said once for each.
    Fetched {
        /// The fetch's token.
        token: u64,
        /// Whether all its bytes are in the file.
        result: Result<(), FetchError>,
    },
    /// Messages to this peer are lost and will go on being so: the two must meet anew
    /// (`Meeting::renew`). Said once per session.
    Broken {
        /// The peer.
        peer: Rank,
    },
}

/// Why a message or fetch was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PostError {
    /// The peer was not admitted, or has been dismissed.
    #[error("the peer has not been met")]
    Unknown,
    /// More is queued for this peer than may be.
    #[error("too much is queued for the peer")]
    Busy,
    /// The message is longer than [`MAX_MESSAGE`], or the descriptor is not a valid one.
    #[error("a message or descriptor out of bounds")]
    Invalid,
}

/// Why a fetch did not bring its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError {
    /// The peer or the network failed, or the deadline passed; another may have it.
    #[error("the peer did not deliver")]
    Peer,
    /// The file could not be written, for lack of room as a rule.
    #[error("the store cannot hold it")]
    NoSpace,
}

/// Messages that were not believed, and other things worth knowing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Messages accepted from peers.
    pub(crate) received: u64,
    /// Messages whose fragments all left.
    pub(crate) sent: u64,
    /// Messages dropped because their deadline passed, or their session ended.
    pub(crate) expired: u64,
    /// Frames dropped: from strangers, with a wrong hash, doubled, or outside a bound.
    pub(crate) rejected: u64,
    /// Bytes fetched.
    pub(crate) fetched: u64,
}

/// How helpers reach each other.
pub(crate) trait Transport {
    /// Our addresses, one per rail, for the meeting to pass on.
    fn addresses(&self) -> Vec<Vec<u8>>;

    /// Takes a peer in, or begins a new session with it; what was under way is given up. Messages
    /// wait until the peer has admitted us, too.
    ///
    /// # Errors
    ///
    /// The addresses are not of this transport's kind.
    fn admit(&mut self, peer: Rank, session: Session) -> Result<(), AdmitError>;

    /// Forgets a peer. Its fetches fail, and what it sends is not believed any more.
    fn dismiss(&mut self, peer: Rank);

    /// Queues a message. If it cannot leave before the deadline, it is dropped.
    ///
    /// # Errors
    ///
    /// See [`PostError`].
    fn send(&mut self, to: Rank, message: &[u8], deadline: Instant) -> Result<(), PostError>;

    /// Offers part of a file, which must not shrink while it is on offer.
    ///
    /// # Errors
    ///
    /// It cannot be mapped or registered; peers then have to do without.
    fn offer(&mut self, file: &File, offset: u64, length: usize) -> std::io::Result<Offer>;

    /// Ends an offer. Fetches of it fail from now on.
    fn withdraw(&mut self, offer: OfferId);

    /// Begins to fetch what a peer offers.
    ///
    /// # Errors
    ///
    /// See [`PostError`]; no event follows.
    fn fetch(&mut self, from: Rank, fetch: Fetch) -> Result<(), PostError>;

    /// Sends what was queued since the last call of this or of [`Transport::poll`], as far as it goes
    /// without waiting.
    fn post(&mut self, now: Instant);

    /// Does what can be done without waiting, and appends what happened.
    fn poll(&mut self, now: Instant, events: &mut Vec<Event>);

    /// Descriptors that become readable when there may be something to do.
    fn wait_descriptors(&self) -> Vec<BorrowedFd<'_>>;

    /// Whether it is safe to wait for the descriptors. If not, or if something was queued since
    /// the last poll, poll first.
    fn may_sleep(&mut self) -> bool;

    /// When to poll at the latest, if nothing becomes readable.
    fn next_deadline(&self) -> Option<Instant>;

    /// What was counted so far.
    fn counters(&self) -> Counters;

    /// Ends: waits at most `grace` for what is under way, then gives everything up.
    fn close(&mut self, grace: Duration);
}

/// A peer's addresses cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's fabric address cannot be used: {0}")]
pub(crate) struct AdmitError(pub(crate) String);
