//! What the shim asks its helper over the local socket, and what the `copper` command asks too.
//!
//! One exchange per connection: the client connects to `socket` in the runtime directory, sends
//! a [`RequestHeader`] followed by one or two paths, reads one [`ReplyHeader`] with its body, and
//! closes. Both sides run as the same user and check it (`SO_PEERCRED`). Integers are in the
//! machine's own order: the socket is local.
#![forbid(unsafe_code)]

use crate::path::PATH_MAX;

/// First word of every message.
pub const MAGIC: u32 = 0x4350_5231;
/// Version of this protocol; a peer of another version is refused.
pub const VERSION: u16 = 1;
/// Name of the socket in the runtime directory.
pub const SOCKET: &str = "socket";
/// Name, in the runtime directory, of the link to the catalog's sealed memory.
pub const CATALOG: &str = "catalog";
/// Name of the link to the memory that applications may write: the alarm page (see
/// [`crate::catalog::layout::Alarm`]), and the counters (see [`crate::counters::layout`]).
pub const COMMON: &str = "common";
/// How long a shim waits for a sign of life, in milliseconds, before it goes to the origin itself.
pub const PATIENCE_MS: u64 = 2_000;
/// How often a helper says that it is at work on a request, in milliseconds.
pub const WORKING_MS: u64 = 500;
/// How long a shim waits altogether, in milliseconds, however often the helper says so.
pub const PATIENCE_IN_ALL_MS: u64 = 300_000;

/// What is asked.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make everything known that a walk along the path needs (links followed).
    Resolve = 1,
    /// Make the directory's whole listing known.
    Listing = 2,
    /// Put the file's bytes (or the directory's mirror) into the store.
    Content = 3,
    /// The same, with all that the dynamic loader will search for the library at this path.
    Closure = 4,
    /// The path (and the second path, if any) was changed by this process.
    Changed = 5,
    /// The path was opened for writing by this process, and may change until it is closed.
    Writing = 6,
    /// Forget what is known below the path; `/` forgets all.
    Refresh = 16,
    /// Say what is cached and how much was asked; the reply's body is JSON.
    Status = 17,
    /// End, and leave nothing behind.
    Stop = 18,
    /// Say how all nodes of the job are, in JSON. The path is `now SECONDS`, or `ready SECONDS` to
    /// wait until every node has said that it is ready.
    Survey = 20,
    /// End the helpers of all nodes; the reply's body is JSON.
    StopAll = 21,
    /// Say what was obtained, from where and how fast, and what was left to the origin; the reply's
    /// body is JSON. The path is the greatest number of objects to name.
    Journal = 32,
    /// Do what a [control](crate::control) says; the path is its number in decimal digits, the
    /// second path the directory to write to. Where there is none, what is dumped is the body.
    Control = 22,
    /// The same on all nodes, which write to files; the body is JSON.
    ControlAll = 23,
    /// Give the descriptors of the helper's memory, for a process that may not open it by path: that
    /// of the catalog, to read, and that of the alarm page, in one `SCM_RIGHTS` message with the
    /// reply. The body is what the helper's numbers of users, then of groups, are in the process's
    /// user namespace ([`IdMap`](crate::user_ids::IdMap)).
    Memory = 24,
    /// Stay as long as this connection is open (a helper that `copper run` started ends when the
    /// last such connection closes).
    Attach = 19,
}

impl Operation {
    /// The operation of a number, if there is one.
    pub fn from_number(number: u16) -> Option<Operation> {
        use Operation::*;
        [
            Resolve, Listing, Content, Closure, Changed, Writing, Refresh, Status, Stop, Attach,
            Survey, StopAll, Control, ControlAll, Journal, Memory,
        ]
        .into_iter()
        .find(|operation| *operation as u16 == number)
    }
}

/// How a request ended.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the catalog now; look again.
    Known = 1,
    /// Go to the origin: it does not fit, changes, or could not be read; the origin will say.
    PassThrough = 2,
    /// The request was not understood or not allowed.
    Refused = 3,
    /// Not ended: the helper is at work, and the reply follows on the same connection.
    Working = 4,
}

/// Length of a request's header.
pub const REQUEST_LENGTH: usize = 20;
/// Length of a reply's header.
pub const REPLY_LENGTH: usize = 12;

/// Length of the body of a reply to [`Operation::Memory`].
pub const MEMORY_BODY_LENGTH: usize = 2 * crate::user_ids::MAP_LENGTH;

/// The fixed part of a request; the paths follow, the second right behind the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// What is asked.
    pub operation: Operation,
    /// Length of the first path, in bytes.
    pub path_length: u32,
    /// Length of the second path (a `rename`'s or a `link`'s), 0 where there is none.
    pub second_length: u32,
}

impl RequestHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; REQUEST_LENGTH] {
        let mut bytes = [0; REQUEST_LENGTH];
        bytes[0..4].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[4..6].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(self.operation as u16).to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.path_length.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.second_length.to_ne_bytes());
        bytes
    }

    /// Reads and checks a header; `None` where it is not one of ours or names too long a path.
    pub fn decode(bytes: &[u8; REQUEST_LENGTH]) -> Option<RequestHeader> {
        let word = |at: usize| u32::from_ne_bytes(core::array::from_fn(|i| bytes[at + i]));
        let half = |at: usize| u16::from_ne_bytes(core::array::from_fn(|i| bytes[at + i]));
        let header = RequestHeader {
            operation: Operation::from_number(half(6))?,
            path_length: word(8),
            second_length: word(12),
        };
        let bounded = |length: u32| length as usize <= PATH_MAX;
        let ours = word(0) == MAGIC && half(4) == VERSION && word(16) == 0;
        (ours && bounded(header.path_length) && bounded(header.second_length)).then_some(header)
    }
}

/// The fixed part of a reply; `body_length` bytes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// How it ended.
    pub outcome: Outcome,
    /// Length of the body (JSON for [`Operation::Status`], a message where refused).
    pub body_length: u32,
}

impl ReplyHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; REPLY_LENGTH] {
        let mut bytes = [0; REPLY_LENGTH];
        bytes[0..4].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[4..6].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(self.outcome as u16).to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.body_length.to_ne_bytes());
        bytes
    }

    /// Reads and checks a header.
    pub fn decode(bytes: &[u8; REPLY_LENGTH]) -> Option<ReplyHeader> {
        let magic = u32::from_ne_bytes(core::array::from_fn(|i| bytes[i]));
        let version = u16::from_ne_bytes([bytes[4], bytes[5]]);
        let outcome = match u16::from_ne_bytes([bytes[6], bytes[7]]) {
            1 => Outcome::Known,
            2 => Outcome::PassThrough,
            3 => Outcome::Refused,
            4 => Outcome::Working,
            _ => return None,
        };
        let body_length = u32::from_ne_bytes(core::array::from_fn(|i| bytes[8 + i]));
        (magic == MAGIC && version == VERSION).then_some(ReplyHeader {
            outcome,
            body_length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_socket() {
        let request = RequestHeader {
            operation: Operation::Closure,
            path_length: 4095,
            second_length: 7,
        };
        assert_eq!(RequestHeader::decode(&request.encode()), Some(request));
        let reply = ReplyHeader {
            outcome: Outcome::PassThrough,
            body_length: 9,
        };
        assert_eq!(ReplyHeader::decode(&reply.encode()), Some(reply));
    }

    #[test]
    fn strangers_are_refused() {
        let good = RequestHeader {
            operation: Operation::Resolve,
            path_length: 1,
            second_length: 0,
        };
        for (at, value) in [(0, 0xff), (4, 9), (6, 99), (10, 0xff), (16, 1)] {
            let mut bytes = good.encode();
            bytes[at] = value;
            assert_eq!(RequestHeader::decode(&bytes), None, "byte {at}");
        }
    }
}
