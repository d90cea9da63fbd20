//! One client of the server: its question as it comes in, its answer as it goes out.
#![forbid(unsafe_code)]

use copper_core::request::{Operation, Outcome, REQUEST_LENGTH, ReplyHeader, RequestHeader};
use rustix::net::sockopt::socket_peercred;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// A connection.
pub(super) struct Client {
    socket: UnixStream,
    state: State,
    /// When the question was complete.
    pub(super) asked_at: Option<Instant>,
    /// When something must be done about the client.
    pub(super) deadline: Option<Instant>,
    /// The event loop is told of what becomes of the socket.
    pub(super) is_watched: bool,
}

enum State {
    /// The question is coming in.
    Asking {
        received: Vec<u8>,
        header: Option<RequestHeader>,
    },
    /// The question is being worked on; its paths.
    Waiting { first: Vec<u8>, second: Vec<u8> },
    /// It stays as long as it wants.
    Attached,
    /// The answer is going out.
    Answering { bytes: Vec<u8>, sent: usize },
}

/// Most questions are no longer, and are received at once.
const USUAL_LENGTH: usize = 512;

/// What became of a client.
pub(super) enum Progress {
    /// It is to be looked at again when there is an event.
    Waiting,
    /// Its question is complete.
    Asked(Operation),
    /// It has its answer.
    Answered,
    /// It went away, or broke the protocol.
    Gone,
}

enum Received {
    All,
    NotYet,
    End,
}

impl Client {
    /// A client with a socket that does not block, if it belongs to user `uid` (or to root).
    pub(super) fn new(socket: UnixStream, uid: u32) -> Option<Client> {
        let peer = socket_peercred(&socket).ok()?.uid.as_raw();
        if peer != uid && peer != 0 {
            tracing::warn!(peer, "a client of another user was refused");
            return None;
        }
        Some(Client {
            socket,
            state: State::Asking {
                received: Vec::new(),
                header: None,
            },
            asked_at: None,
            deadline: None,
            is_watched: false,
        })
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Goes on as far as the socket allows.
    pub(super) fn advance(&mut self) -> Progress {
        match &mut self.state {
            State::Asking { .. } => self.receive(),
            State::Waiting { .. } | State::Attached => self.watch(),
            State::Answering { .. } => self.send(),
        }
    }

    fn receive(&mut self) -> Progress {
        let State::Asking { received, header } = &mut self.state else {
            return Progress::Gone;
        };
        if header.is_none() {
            match fill(&self.socket, received, REQUEST_LENGTH, USUAL_LENGTH) {
                Received::NotYet => return Progress::Waiting,
                Received::End => return Progress::Gone,
                Received::All => {}
            }
            *header = received
                .first_chunk::<REQUEST_LENGTH>()
                .and_then(RequestHeader::decode);
        }
        let Some(known) = *header else {
            self.refuse();
            return self.send();
        };
        let first_end = REQUEST_LENGTH + known.path_length as usize;
        let end = first_end + known.second_length as usize;
        match fill(&self.socket, received, end, end) {
            Received::NotYet => return Progress::Waiting,
            Received::End => return Progress::Gone,
            Received::All => {}
        }
        self.state = State::Waiting {
            first: received[REQUEST_LENGTH..first_end].to_vec(),
            second: received[first_end..end].to_vec(),
        };
        Progress::Asked(known.operation)
    }

    fn refuse(&mut self) {
        self.answer(Outcome::Refused, b"not a question this helper understands");
    }

    /// A client that waits has nothing more to say: whatever comes is its end.
    fn watch(&mut self) -> Progress {
        let mut byte = [0];
        match (&self.socket).read(&mut byte) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Progress::Waiting,
            _ => Progress::Gone,
        }
    }

    fn send(&mut self) -> Progress {
        let State::Answering { bytes, sent } = &mut self.state else {
            return Progress::Gone;
        };
        while *sent < bytes.len() {
            match (&self.socket).write(&bytes[*sent..]) {
                Ok(0) => return Progress::Gone,
                Ok(length) => *sent += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waiting,
                Err(_) => return Progress::Gone,
            }
        }
        Progress::Answered
    }

    /// The paths of the question.
    pub(super) fn take_paths(&mut self) -> (Vec<u8>, Vec<u8>) {
        match &mut self.state {
            State::Waiting { first, second } => (std::mem::take(first), std::mem::take(second)),
            _ => (Vec::new(), Vec::new()),
        }
    }

    /// Keeps the client as long as it wants, and tells it so.
    pub(super) fn attach(&mut self) {
        self.state = State::Attached;
        let reply = ReplyHeader {
            outcome: Outcome::Known,
            body_length: 0,
        };
        let _ = (&self.socket).write(&reply.encode());
    }

    pub(super) fn is_attached(&self) -> bool {
        matches!(self.state, State::Attached)
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.state, State::Answering { .. })
    }

    /// Tells the client that its question is being worked on; says whether it is still there.
    pub(super) fn sign_of_life(&mut self) -> bool {
        let reply = ReplyHeader {
            outcome: Outcome::Working,
            body_length: 0,
        };
        (&self.socket).write(&reply.encode()).is_ok()
    }

    /// Sets the answer, which [`Client::advance`] sends.
    pub(super) fn answer(&mut self, outcome: Outcome, body: &[u8]) {
        let header = ReplyHeader {
            outcome,
            body_length: u32::try_from(body.len()).unwrap_or(u32::MAX),
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend_from_slice(body);
        self.state = State::Answering { bytes, sent: 0 };
    }
}

/// Receives until there are at least `length` bytes, and no more than `most`.
fn fill(mut socket: &UnixStream, received: &mut Vec<u8>, length: usize, most: usize) -> Received {
    let mut at = received.len();
    received.resize(most.max(at), 0);
    let outcome = loop {
        if at >= length {
            break Received::All;
        }
        match socket.read(&mut received[at..]) {
            Ok(0) => break Received::End,
            Ok(read) => at += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break Received::NotYet,
            Err(_) => break Received::End,
        }
    };
    received.truncate(at);
    outcome
}
