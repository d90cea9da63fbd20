//! What goes into a [`Node`](super::Node) and what comes out of it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use super::message::{Change, Message, Report};
use super::object::{Object, Outcome, Record};
use super::topology::Rank;

/// A point on the driver's monotonic clock, in nanoseconds since a start of its choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// Later than any time that occurs.
    pub const NEVER: Self = Self(u64::MAX);

    /// This time and `duration` more.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

/// The driver's own name for who waits for an answer. The node hands it back and reads nothing in
/// it; the driver may use one token for several requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter(pub u64);

/// Names one thing that a node asked for and has no answer to yet: a request to a peer, a read of
/// the origin, a transfer. Never used twice.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct RequestId(pub(crate) u64);

impl RequestId {
    /// The id as a number, for logs and for a transport that carries numbers.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The id that [`Self::get`] gave. Any number is safe: an unknown id is counted and dropped.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// What the driver is to ask the origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginRequest {
    /// Find out what [`Object`] is. If it is present, the body is to be stored at once when it is
    /// not a file's content or not longer than [`Settings::inline_limit`]
    /// (super::Settings::inline_limit); of longer content only version and size are wanted.
    Look {
        /// What is asked.
        object: Object,
    },
    /// Read one chunk of a file into its store file, if the file is still in that version.
    Read {
        /// The file, its version and size.
        record: Arc<Record>,
        /// Which chunk: bytes `chunk * Settings::chunk` up to the next chunk or the end.
        chunk: u32,
    },
}

/// What the origin said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginReply {
    /// To a look: this holds until it is invalidated. The body is stored as the request obliges.
    Known(Outcome),
    /// To a read: the chunk is in the store file, and the file was in that version before and after.
    Stored,
    /// To a read: the file is no longer in that version, or is gone.
    Changed,
    /// To either: a passing error (`EIO`, `ESTALE`, `ETIMEDOUT`, ...). It is given to those who wait
    /// and not kept.
    Failed {
        /// The errno a plain call would have seen.
        errno: i32,
    },
    /// To either: the store cannot hold it.
    NoSpace,
}

/// Why a transfer did not bring its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferError {
    /// The peer or the network failed; another may have it.
    Peer,
    /// Our own store cannot hold it.
    NoSpace,
}

/// What a waiter is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// This is so; the record was published before.
    Known(Arc<Record>),
    /// A passing error of the origin, not kept.
    Failed {
        /// The errno a plain call would have seen.
        errno: i32,
    },
    /// No answer within the waiter's deadline, or nothing came of an earlier request for so long that
    /// it was given up: it should make the original call.
    TimedOut,
    /// The node is at one of its bounds: the waiter should make the original call.
    Busy,
    /// The store cannot hold it: the waiter should make the original call.
    NoSpace,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Nothing but that time went on: call it at [`Node::next_timeout`](super::Node::next_timeout).
    Timer,
    /// Somebody on this node asks. Answered exactly once, by [`Action::Answer`], at the deadline at
    /// the latest.
    Ask {
        /// Who waits.
        waiter: Waiter,
        /// For what.
        object: Object,
        /// Until when.
        deadline: Time,
    },
    /// The origin answered [`Action::AskOrigin`].
    Origin {
        /// The action's id.
        id: RequestId,
        /// The answer.
        reply: OriginReply,
    },
    /// A peer, whose identity the transport has proved, sent this.
    Message {
        /// The sender.
        from: Rank,
        /// What it sent, decoded and validated by [`Message::decode`].
        message: Message,
    },
    /// A transfer ended.
    Transferred {
        /// The action's id.
        id: RequestId,
        /// Whether the chunk is in the store file now.
        result: Result<(), TransferError>,
    },
    /// To make room, the driver has removed a published object, or a part of a body that was set
    /// aside and is not being read or brought.
    Evicted(Object),
    /// The body that an [`Action::Publish`] obliged the driver to have cannot be stored after all.
    StoreFailed(Object),
    /// The transport noticed that a peer's process or node is gone.
    PeerLost(Rank),
    /// The peer can be reached again. Owed whenever a peer was lost, or cut off for so long that
    /// messages to it may have been given up.
    PeerBack(Rank),
    /// A local write, or the user's refresh: what is known is dropped here at once, and on every node
    /// as soon as they hear. Answered by [`Action::Settled`]. A change above the bounds of
    /// [`Change::is_valid`] counts as [`Change::All`].
    Invalidate {
        /// Who waits.
        waiter: Waiter,
        /// What is to be dropped.
        change: Change,
    },
    /// The user asks how all nodes are. Answered by [`Action::Settled`].
    Survey {
        /// Who waits.
        waiter: Waiter,
        /// Wait until every node has said it is ready, instead of taking what is.
        until_ready: bool,
        /// How long to wait for nodes that do not reply.
        deadline: Time,
    },
    /// The user has something done on all nodes, which only their drivers understand. Answered by
    /// [`Action::Settled`] when all have been told. One above [`MAX_COMMAND`](super::MAX_COMMAND)
    /// is refused.
    Command {
        /// Who waits.
        waiter: Waiter,
        /// What, in the drivers' own words.
        command: Box<[u8]>,
        /// How long to wait for nodes that do not reply.
        deadline: Time,
    },
    /// This node's driver is ready to serve.
    Ready,
}

/// What the caller must do, in this order, before it hands in the next event.
#[derive(Clone, Debug)]
pub enum Action {
    /// Send the message. If [`Message::body`] names a record, append that body from the store.
    Send {
        /// To whom.
        to: Rank,
        /// What.
        message: Message,
    },
    /// Ask the origin and hand in [`Event::Origin`] with this id, sooner or later, once.
    AskOrigin {
        /// To be given back.
        id: RequestId,
        /// What to ask.
        request: OriginRequest,
    },
    /// The record is complete: enter it in the catalog, and rename its store file into place.
    ///
    /// Where the body came inline with the message being handled, it is stored now. If that fails,
    /// hand in [`Event::StoreFailed`].
    Publish(Arc<Record>),
    /// Tell a waiter.
    Answer {
        /// Who waits.
        waiter: Waiter,
        /// For what.
        object: Object,
        /// What to say.
        answer: Answer,
    },
    /// Bring chunk `chunk` of the body from `from` into the store file, which the first chunk of a
    /// record creates aside, and hand in [`Event::Transferred`] with this id.
    Transfer {
        /// To be given back.
        id: RequestId,
        /// Which peer granted it, in the message being handled.
        from: Rank,
        /// Whose body.
        record: Arc<Record>,
        /// Which chunk of it.
        chunk: u32,
    },
    /// A body that was never completed is given up: remove what was stored aside. Its reads and
    /// transfers under way may still report; they are then ignored.
    Discard(Arc<Record>),
    /// This is no longer true: whatever the caller derived from records that it touches (the names
    /// of a directory, what lies below it) goes as well. A [`Action::Forget`] follows for each record.
    Drop(Change),
    /// The record was invalidated: take it out of the catalog and the store.
    Forget(Arc<Record>),
    /// Do what the user wants of all nodes.
    Command(Arc<[u8]>),
    /// All nodes, or all but the missing, have done what was asked.
    Settled {
        /// Who waits.
        waiter: Waiter,
        /// What came back.
        report: Report,
    },
}

/// The caller's queue of actions; one may serve any number of nodes.
pub type Actions = Vec<Action>;

/// The bounds and delays of a node. All nodes of a job have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bodies up to this many bytes ride in the answer.
    pub inline_limit: u32,
    /// Bytes in a chunk.
    pub chunk: u32,
    /// The longest body in bytes; whatever is longer is [`Outcome::TooLarge`].
    pub largest: u64,
    /// Chunks of one body that may be under way in each tree.
    pub window: u16,
    /// Chunks that may be granted to peers at a time, over all peers and bodies.
    pub grants: u16,
    /// Objects that may be under way at a time.
    pub open: u32,
    /// Requests and pulls that may be under way to peers at a time, in each tree.
    pub credits: u32,
    /// Local waiters at a time.
    pub waiters: u32,
    /// How long a peer may take before it is asked again.
    pub resend: Duration,
    /// How long a peer may say nothing at all to a request before it is taken for lost.
    pub silence: Duration,
    /// How long a lost peer is left alone before it is tried again.
    pub shun: Duration,
    /// How long a chunk may be under way between granting and release.
    pub transfer: Duration,
    /// How long a request may take altogether before the node gives it up.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inline_limit: 64 << 10,
            chunk: 1 << 20,
            largest: 64 << 30,
            window: 4,
            grants: 16,
            open: 16_384,
            credits: 1_024,
            waiters: 65_536,
            resend: Duration::from_millis(250),
            silence: Duration::from_millis(900),
            shun: Duration::from_secs(5),
            transfer: Duration::from_secs(5),
            patience: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// The number of chunks of a body of `length` bytes.
    pub fn chunks(&self, length: u64) -> u32 {
        u32::try_from(length.div_ceil(u64::from(self.chunk))).unwrap_or(u32::MAX)
    }

    /// The first byte and the number of bytes of a chunk of a body of `length` bytes.
    pub fn extent(&self, length: u64, chunk: u32) -> (u64, u32) {
        let start = u64::from(chunk) * u64::from(self.chunk);
        let bytes = length.saturating_sub(start).min(u64::from(self.chunk));
        (start, u32::try_from(bytes).unwrap_or(0))
    }
}

/// What a node has counted since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Objects looked up at the origin.
    pub origin_looks: u64,
    /// Chunks read from the origin.
    pub origin_reads: u64,
    /// Requests of local waiters.
    pub asks: u64,
    /// Of these, answered with [`Answer::TimedOut`].
    pub timeouts: u64,
    /// Records published.
    pub published: u64,
    /// Chunks brought from peers.
    pub chunks: u64,
    /// Peers taken for lost.
    pub losses: u64,
    /// Messages and replies dropped: unknown, late, replayed, or not allowed to the sender.
    pub dropped: u64,
    /// Requests refused because a bound was reached.
    pub refused: u64,
    /// Requests and pulls sent to peers above, repeated ones included.
    pub requests_up: u64,
    /// Requests and pulls that peers sent here.
    pub requests_down: u64,
    /// Requests, local ones and peers', that joined one under way.
    pub coalesced: u64,
    /// Requests and pulls that were sent again for want of an answer.
    pub retries: u64,
    /// How often a lost peer was the one asked first in a tree, and another took its place.
    pub reparentings: u64,
    /// Passing errors of the origin.
    pub errors: u64,
    /// Bytes of bodies that came from peers.
    pub bytes_from_peers: u64,
}

impl Counters {
    /// Adds another node's counts.
    pub fn add(&mut self, other: &Self) {
        self.origin_looks = self.origin_looks.saturating_add(other.origin_looks);
        self.origin_reads = self.origin_reads.saturating_add(other.origin_reads);
        self.asks = self.asks.saturating_add(other.asks);
        self.timeouts = self.timeouts.saturating_add(other.timeouts);
        self.published = self.published.saturating_add(other.published);
        self.chunks = self.chunks.saturating_add(other.chunks);
        self.losses = self.losses.saturating_add(other.losses);
        self.dropped = self.dropped.saturating_add(other.dropped);
        self.refused = self.refused.saturating_add(other.refused);
        self.requests_up = self.requests_up.saturating_add(other.requests_up);
        self.requests_down = self.requests_down.saturating_add(other.requests_down);
        self.coalesced = self.coalesced.saturating_add(other.coalesced);
        self.retries = self.retries.saturating_add(other.retries);
        self.reparentings = self.reparentings.saturating_add(other.reparentings);
        self.errors = self.errors.saturating_add(other.errors);
        self.bytes_from_peers = self.bytes_from_peers.saturating_add(other.bytes_from_peers);
    }
}
