//! What helpers say to each other, and how it is written on the wire.
//!
//! A message is one version byte, the message in postcard's encoding (serde), and after it the
//! *attachment*, bytes that belong to the driver: an inline body after an answer that says so (with a
//! head of the driver's before a file's bytes), the description of a registered memory region after a
//! grant, nothing after any other.
//!
//! [`Message::decode`] believes nothing: it bounds the length before it reads, checks paths, counts
//! and the attachment's length, and allocates no more than the input is long.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::interface::{Counters, RequestId};
use super::object::{Kind, MAX_PATH, Object, Outcome, Record, check_path};
use super::summary::Summary;
use super::topology::Rank;

/// The version of the encoding; a peer of another version is not understood.
pub const WIRE_VERSION: u8 = 4;

/// The longest encoded message in bytes, without its attachment.
pub const MAX_MESSAGE: usize = 64 << 10;

/// The longest attachment in bytes: an inline body may not be longer whatever the settings say.
pub const MAX_ATTACHMENT: usize = 1 << 20;

/// The longest attachment of a grant.
pub const MAX_DESCRIPTOR: usize = 1024;

/// The most bytes that the driver may put before a file's bytes in an answer (its attributes).
pub const MAX_HEAD: usize = 512;

/// The most paths in one change.
pub const MAX_CHANGED_PATHS: usize = 256;

/// The most paths' bytes in one change.
pub const MAX_CHANGED_BYTES: usize = 32 << 10;

/// The longest command for drivers, in bytes.
pub const MAX_COMMAND: usize = 8 << 10;

/// The most ranks that a report names.
pub const MAX_MISSING: usize = 64;

/// The most changes that catching up brings at once.
pub const MAX_MISSED: usize = 64;

/// Which state of invalidation a node is in: the reign of the root that ordered the last change,
/// and the change's number in it. Ordered by reign, then number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Raised whenever another root takes over; no two roots have the same.
    pub reign: u64,
    /// Raised by every change.
    pub number: u32,
}

/// What is no longer true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Everything.
    All,
    /// What is known of these paths, of what lies below them, and of the directories they lie in.
    Paths(Vec<Box<[u8]>>),
}

impl Change {
    /// Checks paths and bounds.
    pub fn is_valid(&self) -> bool {
        match self {
            Self::All => true,
            Self::Paths(paths) => {
                !paths.is_empty()
                    && paths.len() <= MAX_CHANGED_PATHS
                    && paths.iter().map(|path| path.len()).sum::<usize>() <= MAX_CHANGED_BYTES
                    && paths.iter().all(|path| check_path(path).is_ok())
            }
        }
    }

    /// Whether something said of `object` may no longer be true.
    pub fn touches(&self, object: &Object) -> bool {
        let Self::Paths(paths) = self else {
            return true;
        };
        // A closure names other files; which ones stands in its body, which the tree does not read.
        object.kind() == Kind::Closure || paths.iter().any(|path| touches(path, object))
    }
}

fn touches(changed: &[u8], object: &Object) -> bool {
    let path = object.path();
    let below = changed == b"/"
        || (path.starts_with(changed) && matches!(path.get(changed.len()), None | Some(b'/')));
    below
        || super::object::parent_directory(changed) == Some(path) && object.kind() != Kind::Content
}

/// What a wave asks of every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Drop what is no longer true.
    Invalidate(Change),
    /// Say how you are.
    Survey {
        /// Reply only when ready.
        until_ready: bool,
        /// How long to wait for nodes that do not reply, in nanoseconds.
        patience: u64,
    },
    /// Let your driver do this.
    Command {
        /// What, in the drivers' own words.
        command: Arc<[u8]>,
        /// How long to wait for nodes that do not reply, in nanoseconds.
        patience: u64,
    },
}

/// Names a wave: who wanted it, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WaveId {
    /// The node that wanted it.
    pub origin: Rank,
    /// Its number there.
    pub number: u64,
}

/// What a subtree replies to a wave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Nodes that took part.
    pub reached: u32,
    /// Of these, nodes that are ready.
    pub ready: u32,
    /// The sum of their counters.
    pub counters: Counters,
    /// What their drivers say of them; only in a survey.
    pub summary: Option<Box<Summary>>,
    /// Nodes that did not reply, at most [`MAX_MISSING`] of them.
    pub missing: Vec<Rank>,
    /// Nodes that did not reply and are not named.
    pub unnamed: u32,
}

impl Report {
    /// Adds a subtree's report.
    pub fn merge(&mut self, other: &Self) {
        self.reached = self.reached.saturating_add(other.reached);
        self.ready = self.ready.saturating_add(other.ready);
        self.counters.add(&other.counters);
        match (&mut self.summary, &other.summary) {
            (Some(mine), Some(theirs)) => mine.add(theirs),
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            (_, None) => {}
        }
        self.unnamed = self.unnamed.saturating_add(other.unnamed);
        other.missing.iter().for_each(|&rank| self.miss(rank));
    }

    /// Adds a node that did not reply.
    pub fn miss(&mut self, rank: Rank) {
        if self.missing.len() < MAX_MISSING {
            self.missing.push(rank);
        } else {
            self.unnamed = self.unnamed.saturating_add(1);
        }
    }

    /// Whether all nodes took part.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unnamed == 0
    }
}

/// Where the body of an answered record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// There is none.
    Bare,
    /// It is this message's attachment.
    Inline,
    /// It is to be pulled in chunks.
    Chunked,
}

/// Why a request is not answered as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// I am at it; ask again if you hear no more.
    Pending,
    /// I am at one of my bounds; ask again later.
    Busy,
    /// I cannot have it; ask the next.
    Unavailable,
    /// That version is gone; begin anew.
    Changed,
    /// The origin failed in passing.
    Failed {
        /// Its errno.
        errno: i32,
    },
}

/// One message between helpers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Child to ancestor, or to a stand-in root: what is this object?
    Request {
        /// Comes back with whatever answers it.
        request: RequestId,
        /// What is asked.
        object: Object,
        /// The stamp of a version that is known to be gone, or 0.
        avoid: u64,
        /// You are asked as a root, because this object's root is lost.
        stand_in: bool,
        /// The sender's epoch.
        epoch: Epoch,
    },
    /// The answer.
    Answer {
        /// The request.
        request: RequestId,
        /// What is known.
        #[serde(with = "shared_record")]
        record: Arc<Record>,
        /// Where its body is.
        delivery: Delivery,
        /// The sender's epoch.
        epoch: Epoch,
    },
    /// Anything but the answer, to a request or a pull.
    Refusal {
        /// The request.
        request: RequestId,
        /// Why.
        reason: Reason,
        /// The sender's epoch.
        epoch: Epoch,
    },
    /// Child to ancestor: grant me this chunk as soon as you have it.
    Pull {
        /// Comes back with whatever answers it.
        request: RequestId,
        /// Whose body.
        #[serde(with = "shared_record")]
        record: Arc<Record>,
        /// Which chunk.
        chunk: u32,
        /// You are asked as a root, because this chunk's root is lost.
        stand_in: bool,
        /// The sender's epoch.
        epoch: Epoch,
    },
    /// The chunk is here and may be taken now. The driver attaches how.
    Grant {
        /// The pull.
        request: RequestId,
        /// The chunk that was pulled.
        chunk: u32,
    },
    /// The chunk was taken, or is no longer wanted.
    Release {
        /// The pull.
        request: RequestId,
    },
    /// Upwards: order this of all nodes.
    Submit {
        /// Which wave.
        wave: WaveId,
        /// You are asked as a root, because the root is lost.
        stand_in: bool,
        /// What to order.
        order: Arc<Order>,
    },
    /// Downwards: do this and pass it on.
    Wave {
        /// Which wave.
        wave: WaveId,
        /// The epoch that it ends and the one that it begins, for an invalidation.
        epochs: (Epoch, Epoch),
        /// What to do.
        order: Arc<Order>,
    },
    /// Upwards: I am at it and not gone.
    Working {
        /// Which wave.
        wave: WaveId,
    },
    /// Upwards: my subtree has done it.
    Done {
        /// Which wave.
        wave: WaveId,
        /// What came of it.
        report: Box<Report>,
    },
    /// Downwards, to who submitted it: all is done.
    Settled {
        /// Which wave.
        wave: WaveId,
        /// What came of it.
        report: Box<Report>,
    },
    /// This is the last change that I know: tell me of later ones, or ask me for them.
    CatchUp {
        /// The sender's epoch.
        since: Epoch,
    },
    /// The changes that you missed.
    Missed {
        /// The sender's epoch, which is the receiver's after this.
        epoch: Epoch,
        /// The changes since, oldest first; nothing if they are too many to list: drop all.
        changes: Option<Box<[(Epoch, Change)]>>,
    },
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// No bytes at all.
    Empty,
    /// Longer than any message.
    TooLong,
    /// The sender speaks another version.
    Version(u8),
    /// Cut short, or not in the encoding.
    Malformed,
    /// Well formed, but outside a bound.
    Invalid,
    /// The attachment's length is not what the message says.
    Attachment,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty message"),
            Self::TooLong => f.write_str("a message above the bound"),
            Self::Version(theirs) => write!(
                f,
                "the peer speaks version {theirs} of the protocol and this helper {WIRE_VERSION}; \
                 start the same copper on all nodes"
            ),
            Self::Malformed => f.write_str("a message that is cut short or not in the encoding"),
            Self::Invalid => f.write_str("a message with a field outside its bound"),
            Self::Attachment => f.write_str("a message whose attachment has not the stated length"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl Message {
    /// The record whose body must be attached when this is sent, and is attached when it arrives.
    /// Up to [`MAX_HEAD`] bytes of the driver's may precede a file's bytes, and stand alone where
    /// the file is empty.
    pub fn body(&self) -> Option<&Arc<Record>> {
        match self {
            Self::Answer {
                record,
                delivery: Delivery::Inline,
                ..
            } => Some(record),
            _ => None,
        }
    }

    /// Appends the encoded message to `wire`; the attachment is to follow.
    pub fn encode(&self, wire: &mut Vec<u8>) {
        wire.push(WIRE_VERSION);
        let taken = core::mem::take(wire);
        // Growing a vector is the only thing this serializer does, and it cannot fail.
        *wire = postcard::to_extend(self, taken).unwrap_or_default();
    }

    /// Reads a message and gives it with its attachment.
    ///
    /// # Errors
    /// Anything that is not exactly a valid message of this version.
    pub fn decode(wire: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (&version, rest) = wire.split_first().ok_or(DecodeError::Empty)?;
        if version != WIRE_VERSION {
            return Err(DecodeError::Version(version));
        }
        if rest.len() > MAX_MESSAGE + MAX_ATTACHMENT {
            return Err(DecodeError::TooLong);
        }
        let (message, attachment) =
            postcard::take_from_bytes::<Self>(rest).map_err(|_| DecodeError::Malformed)?;
        if rest.len() - attachment.len() > MAX_MESSAGE {
            return Err(DecodeError::TooLong);
        }
        message.validate()?;
        if message.accepts(attachment.len()) {
            Ok((message, attachment))
        } else {
            Err(DecodeError::Attachment)
        }
    }

    fn accepts(&self, attachment: usize) -> bool {
        match self {
            Self::Answer {
                record, delivery, ..
            } => {
                let body = match delivery {
                    Delivery::Inline => record.length(),
                    Delivery::Bare | Delivery::Chunked => 0,
                };
                let has_head = *delivery != Delivery::Chunked
                    && record.is_present()
                    && record.object.kind() == Kind::Content;
                let head = if has_head { MAX_HEAD as u64 } else { 0 };
                (body..=body + head).contains(&(attachment as u64))
            }
            Self::Grant { .. } => attachment <= MAX_DESCRIPTOR,
            _ => attachment == 0,
        }
    }

    fn validate(&self) -> Result<(), DecodeError> {
        let valid = match self {
            Self::Answer {
                record, delivery, ..
            } => match delivery {
                Delivery::Bare => !record.is_present() || record.length() == 0,
                Delivery::Inline => {
                    record.is_present() && (1..=MAX_ATTACHMENT as u64).contains(&record.length())
                }
                Delivery::Chunked => record.length() > 0,
            },
            Self::Pull { record, .. } => record.length() > 0,
            Self::Submit { order, .. } | Self::Wave { order, .. } => match &**order {
                Order::Invalidate(change) => change.is_valid(),
                Order::Survey { .. } => true,
                Order::Command { command, .. } => command.len() <= MAX_COMMAND,
            },
            Self::Done { report, .. } | Self::Settled { report, .. } => {
                let summary = report.summary.as_ref();
                report.missing.len() <= MAX_MISSING
                    && summary.is_none_or(|summary| summary.is_valid())
            }
            Self::Missed {
                changes: Some(changes),
                ..
            } => changes.len() <= MAX_MISSED && changes.iter().all(|(_, change)| change.is_valid()),
            _ => true,
        };
        if valid {
            Ok(())
        } else {
            Err(DecodeError::Invalid)
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.kind(), self.path()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, path) = <(Kind, &'de [u8])>::deserialize(deserializer)?;
        if path.len() > MAX_PATH {
            return Err(serde::de::Error::custom("path too long"));
        }
        Self::new(kind, path).map_err(serde::de::Error::custom)
    }
}

mod shared_record {
    use super::{Arc, Deserialize, Deserializer, Object, Outcome, Record, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        record: &Arc<Record>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        (&record.object, &record.outcome).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Record>, D::Error> {
        let (object, outcome) = <(Object, Outcome)>::deserialize(deserializer)?;
        Ok(Arc::new(Record { object, outcome }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::object::Version;
    use alloc::vec;

    fn record(length: u64) -> Arc<Record> {
        let object = Object::new(Kind::Content, b"/lib/\xff\n.so").unwrap();
        let version = Version {
            size: length,
            ..Version::default()
        };
        let outcome = Outcome::Present { version, length };
        Arc::new(Record { object, outcome })
    }

    fn samples() -> Vec<(Message, usize)> {
        let (request, epoch) = (
            RequestId(1 << 40 | 3),
            Epoch {
                reign: 9,
                number: 2,
            },
        );
        let wave = WaveId {
            origin: 4,
            number: 7,
        };
        let change = Change::Paths(vec![b"/a/b"[..].into()]);
        let order = Arc::new(Order::Invalidate(change.clone()));
        let report = Box::new(Report {
            missing: vec![1, 2],
            ..Report::default()
        });
        vec![
            (
                Message::Request {
                    request,
                    object: record(1).object.clone(),
                    avoid: 5,
                    stand_in: true,
                    epoch,
                },
                0,
            ),
            (
                Message::Answer {
                    request,
                    record: record(40),
                    delivery: Delivery::Inline,
                    epoch,
                },
                40,
            ),
            (
                Message::Pull {
                    request,
                    record: record(9 << 20),
                    chunk: 8,
                    stand_in: false,
                    epoch,
                },
                0,
            ),
            (Message::Grant { request, chunk: 8 }, 24),
            (
                Message::Refusal {
                    request,
                    reason: Reason::Failed { errno: 5 },
                    epoch,
                },
                0,
            ),
            (
                Message::Wave {
                    wave,
                    epochs: (epoch, epoch),
                    order,
                },
                0,
            ),
            (Message::Done { wave, report }, 0),
            (
                Message::Missed {
                    epoch,
                    changes: Some(vec![(epoch, change)].into()),
                },
                0,
            ),
        ]
    }

    fn wire(message: &Message, attachment: usize) -> Vec<u8> {
        let mut wire = Vec::new();
        message.encode(&mut wire);
        wire.resize(wire.len() + attachment, 0xa5);
        wire
    }

    #[test]
    fn what_is_written_is_read_and_nothing_shorter_is() {
        for (message, attachment) in samples() {
            let wire = wire(&message, attachment);
            let (read, rest) = Message::decode(&wire).unwrap();
            assert_eq!((&read, rest.len()), (&message, attachment));
            let whole = wire.len() - attachment;
            for cut in 0..whole {
                assert!(
                    Message::decode(&wire[..cut]).is_err(),
                    "{message:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn another_version_and_an_empty_message_are_told_apart() {
        let (message, attachment) = samples().swap_remove(0);
        let mut wire = wire(&message, attachment);
        wire[0] = WIRE_VERSION + 1;
        let version = DecodeError::Version(WIRE_VERSION + 1);
        assert_eq!(Message::decode(&wire), Err(version));
        assert_eq!(Message::decode(&[]), Err(DecodeError::Empty));
    }

    #[test]
    fn an_attachment_must_be_as_long_as_stated() {
        for (message, attachment) in samples() {
            let long = wire(&message, attachment + MAX_DESCRIPTOR);
            assert_eq!(
                Message::decode(&long),
                Err(DecodeError::Attachment),
                "{message:?}"
            );
        }
        let huge = vec![WIRE_VERSION; 1 + MAX_MESSAGE + MAX_ATTACHMENT + 1];
        assert_eq!(Message::decode(&huge), Err(DecodeError::TooLong));
    }

    #[test]
    fn fields_outside_their_bounds_are_refused() {
        let wave = WaveId {
            origin: 4,
            number: 7,
        };
        let paths = vec![b"/a"[..].into(); MAX_CHANGED_PATHS + 1];
        let order = Arc::new(Order::Invalidate(Change::Paths(paths)));
        let missing = vec![0; MAX_MISSING + 1];
        let report = Box::new(Report {
            missing,
            ..Report::default()
        });
        let (request, epoch) = (RequestId(1), Epoch::default());
        let empty = Message::Pull {
            request,
            record: record(0),
            chunk: 0,
            stand_in: false,
            epoch,
        };
        for message in [
            Message::Submit {
                wave,
                stand_in: false,
                order,
            },
            Message::Done { wave, report },
            empty,
        ] {
            assert_eq!(
                Message::decode(&wire(&message, 0)),
                Err(DecodeError::Invalid)
            );
        }
    }
}
