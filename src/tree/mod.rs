//! The cooperative tree as a state machine: no I/O, no clock, no threads.
//!
//! Many nodes ask for the same files. A request goes up until somebody knows, the root alone asks
//! the origin, and the answer comes down and stays on every node that asked. This module decides all
//! of that; it moves no byte. The helper drives one [`Node`] over libfabric and a disk, the simulator
//! drives many thousands on a virtual clock. With N = 1 the node is its own root: the same code
//! gives single flight, deadlines and invalidation on one node.
//!
//! It is *not* here: what bytes mean, where they are stored, how peers are reached and known to be
//! who they say they are, and what time it is.
//!
//! # The contract
//!
//! ```text
//! loop {
//!     wait until Node::next_timeout() or until something happens
//!     Node::handle(now, event, &mut actions)
//!     for action in actions.drain(..) { perform it }
//! }
//! ```
//!
//! *The caller obliges itself to this:*
//!
//! - `now` never goes back. [`Event::Timer`] is handed in when [`Node::next_timeout`] is reached;
//!   other events do not replace it.
//! - All actions of one event are performed, in their order, before the next event is handed in.
//!   What an action starts (a send, an origin read, a transfer) may end at any later time.
//! - Any action may fail in the ordinary ways of networks: a message may be lost, delayed, doubled
//!   or overtaken. [`Action::AskOrigin`] and [`Action::Transfer`] are reported once each; a report
//!   that never comes costs a deadline, one that comes twice or late is counted and dropped.
//! - [`Event::Message`] carries only what [`Message::decode`] accepted, from the rank that the
//!   transport has authenticated.
//! - Where a `Grant` is sent, the driver attaches what the receiver needs to read the chunk (a key to
//!   registered memory); where one arrives, that attachment serves the [`Action::Transfer`] that
//!   follows. The memory is released when the peer's `Release` arrives, or after
//!   [`Settings::transfer`].
//! - Whoever was reported lost, or was out of reach for longer than [`Settings::silence`], is reported
//!   by [`Event::PeerBack`] when it can be reached again: that is when changes that passed it by are
//!   made up for.
//! - A body is in the store before the event that says so: before [`Event::Origin`] with
//!   `Known(Present)` (except longer content, of which a look reads nothing), with `Stored`, and
//!   before [`Event::Transferred`] with `Ok`. The body of an inline answer is stored when the
//!   [`Action::Publish`] that follows from it is performed. Bodies that no `Publish` follows are
//!   ignored.
//!
//! *The node promises this:*
//!
//! - Every [`Event::Ask`] is answered by exactly one [`Action::Answer`], at its deadline at the latest
//!   (that is, at the `Timer` event that the deadline calls for). `TimedOut`, `Busy` and `NoSpace`
//!   mean: make the original call.
//! - [`Action::Publish`] comes before every answer that rests on it, and once per record until that
//!   record is taken back by [`Action::Forget`] (by the node) or [`Event::Evicted`] (by the driver).
//! - One request is outstanding per object and per chunk, however many ask.
//! - What it holds is bounded by [`Settings`] and, for records known, by what the driver evicts.
//!   No input makes it panic.
//!
//! # An object's life
//!
//! `Ask` → ([`Action::AskOrigin`] with `Look`, or a `Request` to the parent) → the outcome → for a
//! long body, chunk by chunk, `Read` at a root and `Transfer` elsewhere → `Publish` → `Answer`.
//! A body that comes in chunks is announced downwards as soon as its length is known, and each chunk
//! is granted to the children as it arrives. If the file changes meanwhile, [`Action::Discard`] takes
//! the partial body back and the object is looked up anew.
//!
//! # Faults
//!
//! A peer that says nothing to a request for [`Settings::silence`] is taken for lost: what it was
//! asked for is asked of the next above ([`Topology::ladder`]), at last of the origin. A peer that is
//! only slow says so when asked again. Lost peers are tried again after [`Settings::shun`], longer
//! each time, or as soon as anything is heard of them. Changes are numbered ([`Epoch`]); a node that
//! sees a later number than its own asks for what it missed.

#![forbid(unsafe_code)]

mod interface;
mod message;
mod node;
mod object;
pub mod paths;
mod summary;
mod topology;

pub use interface::{
    Action, Actions, Answer, Counters, Event, OriginReply, OriginRequest, RequestId, Settings,
    Time, TransferError, Waiter,
};
pub use message::{
    Change, DecodeError, Delivery, Epoch, MAX_ATTACHMENT, MAX_CHANGED_BYTES, MAX_CHANGED_PATHS,
    MAX_COMMAND, MAX_DESCRIPTOR, MAX_HEAD, MAX_MESSAGE, MAX_MISSED, MAX_MISSING, Message, Order,
    Reason, Report, WIRE_VERSION, WaveId,
};
pub use node::{Load, Node, Plan};
pub use object::{
    Kind, MAX_PATH, Object, Outcome, PathError, Record, Version, check_path, parent_directory,
};
pub use summary::{MAX_SLOWEST, Origin, Slow, Stock, Summary};
pub use topology::{Ladder, MAX_TREES, Rank, Rung, Topology, TopologyError, TreeIndex};
