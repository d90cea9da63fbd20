//! The connection between two helpers that have met: introductions, and signs of life.
//!
//! A frame is its kind (one byte), the length of its body (four bytes, little endian), the body,
//! and the keyed hash of its number and all that. Frames are numbered from 0 in each direction.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Patience;
use super::handshake::Timed;

const INTRODUCTION: u8 = 1;
const HEARTBEAT: u8 = 2;
/// Longest body of a frame in bytes.
const MAX_BODY: usize = 8 << 10;
/// Most rails of a helper.
const MAX_RAILS: usize = 16;
/// Longest fabric address in bytes.
const MAX_ADDRESS: usize = 256;
const HASH: usize = 32;

/// What a helper tells another of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Introduction {
    /// Which start of this helper it is: later ones have greater numbers.
    pub(crate) incarnation: u32,
    /// Its fabric addresses, one per rail.
    pub(crate) addresses: Vec<Vec<u8>>,
}

impl Introduction {
    fn is_valid(&self) -> bool {
        self.addresses.len() <= MAX_RAILS
            && self
                .addresses
                .iter()
                .all(|address| address.len() <= MAX_ADDRESS)
    }
}

/// Keys of the two directions.
pub(super) struct Keys {
    pub(super) send: [u8; 32],
    pub(super) receive: [u8; 32],
}

/// One end of a connection.
pub(crate) struct Link {
    keys: Keys,
    sent: u64,
    received: u64,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} sent, {} received)", self.sent, self.received)
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The peer's process ended, or its system closed the connection.
    #[error("the connection was closed: its helper has ended")]
    Closed,
    /// No sign of life.
    #[error("no sign of life: its node is gone, stopped, or cut off")]
    Silent,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::Error),
    /// What came is no frame, or not the peer's.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Closed,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Silent,
            _ => Self::Io(error),
        }
    }
}

fn hash(key: &[u8; 32], number: u64, head: &[u8], body: &[u8]) -> blake3::Hash {
    blake3::Hasher::new_keyed(key)
        .update(&number.to_le_bytes())
        .update(head)
        .update(body)
        .finalize()
}

impl Link {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            sent: 0,
            received: 0,
        }
    }

    fn send(&mut self, stream: &mut impl Write, kind: u8, body: &[u8]) -> Result<(), LinkError> {
        let mut frame = vec![kind];
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let proof = hash(&self.keys.send, self.sent, &frame, body);
        frame.extend_from_slice(body);
        frame.extend_from_slice(proof.as_bytes());
        stream.write_all(&frame)?;
        self.sent += 1;
        Ok(())
    }

    fn receive(&mut self, stream: &mut impl Read) -> Result<(u8, Vec<u8>), LinkError> {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > MAX_BODY {
            return Err(LinkError::Protocol("a frame longer than any"));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let mut proof = [0; HASH];
        stream.read_exact(&mut proof)?;
        // Comparing with a `Hash` takes the same time whatever differs.
        if hash(&self.keys.receive, self.received, &head, &body) != proof {
            return Err(LinkError::Protocol("a frame that is not the peer's"));
        }
        self.received += 1;
        Ok((head[0], body))
    }

    pub(super) fn introduce(
        &mut self,
        stream: &mut impl Write,
        introduction: &Introduction,
    ) -> Result<(), LinkError> {
        let body = postcard::to_allocvec(introduction)
            .map_err(|_| LinkError::Protocol("our own introduction cannot be written"))?;
        self.send(stream, INTRODUCTION, &body)
    }

    pub(super) fn be_introduced(
        &mut self,
        stream: &mut impl Read,
    ) -> Result<Introduction, LinkError> {
        let (INTRODUCTION, body) = self.receive(stream)? else {
            return Err(LinkError::Protocol("something else than an introduction"));
        };
        match postcard::take_from_bytes::<Introduction>(&body) {
            Ok((introduction, [])) if introduction.is_valid() => Ok(introduction),
            _ => Err(LinkError::Protocol("an introduction that cannot be read")),
        }
    }
}

/// Gives signs of life and waits for them, until there are none. Says why it ended.
pub(super) fn keep_alive(stream: &TcpStream, mut link: Link, patience: &Patience) -> LinkError {
    let mut heard = Instant::now();
    let mut next_beat = Instant::now() + patience.heartbeat;
    loop {
        match next_frame(stream, &mut link, next_beat.min(heard + patience.silence)) {
            Ok(true) => heard = Instant::now(),
            Ok(false) => {}
            Err(error) => return error,
        }
        let now = Instant::now();
        if now >= heard + patience.silence {
            return LinkError::Silent;
        }
        if now >= next_beat {
            next_beat = now + patience.heartbeat;
            let mut timed = Timed::new(stream, now + patience.silence);
            if let Err(error) = link.send(&mut timed, HEARTBEAT, &[]) {
                return error;
            }
        }
    }
}

/// Waits for a sign of life until then; whether one came.
fn next_frame(stream: &TcpStream, link: &mut Link, until: Instant) -> Result<bool, LinkError> {
    // Looked at even when time is up: after a stop of our own, what came meanwhile still counts.
    let wait = until
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(1));
    stream.set_read_timeout(Some(wait))?;
    match stream.peek(&mut [0]) {
        Ok(0) => return Err(LinkError::Closed),
        Ok(_) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ) =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    }
    // A frame that has begun is short, and was written at once.
    let mut timed = Timed::new(stream, until.max(Instant::now() + FRAME_PATIENCE));
    match link.receive(&mut timed)? {
        (HEARTBEAT, body) if body.is_empty() => Ok(true),
        _ => Err(LinkError::Protocol("an unknown kind of frame")),
    }
}

/// How long the rest of a frame may take.
const FRAME_PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, Link) {
        let (there, back) = ([1; 32], [2; 32]);
        (
            Link::new(Keys {
                send: there,
                receive: back,
            }),
            Link::new(Keys {
                send: back,
                receive: there,
            }),
        )
    }

    fn introduction() -> Introduction {
        Introduction {
            incarnation: 3,
            addresses: vec![vec![4; 16], vec![], vec![5; 256]],
        }
    }

    fn introduced(link: &mut Link, introduction: &Introduction) -> Vec<u8> {
        let mut wire = Vec::new();
        link.introduce(&mut wire, introduction).unwrap();
        wire
    }

    #[test]
    fn an_introduction_is_read_back() {
        let (mut a, mut b) = pair();
        let wire = introduced(&mut a, &introduction());
        assert_eq!(b.be_introduced(&mut &wire[..]).unwrap(), introduction());
    }

    #[test]
    fn changing_cutting_or_repeating_a_frame_is_noticed() {
        let (mut a, _) = pair();
        let wire = introduced(&mut a, &introduction());
        for bit in 0..wire.len() * 8 {
            let mut changed = wire.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                pair().1.be_introduced(&mut &changed[..]).is_err(),
                "bit {bit}"
            );
        }
        for length in 0..wire.len() {
            let error = pair().1.be_introduced(&mut &wire[..length]).unwrap_err();
            assert!(
                matches!(error, LinkError::Closed),
                "{length} bytes: {error}"
            );
        }
        let (_, mut b) = pair();
        b.be_introduced(&mut &wire[..]).unwrap();
        assert!(b.be_introduced(&mut &wire[..]).is_err(), "taken twice");
        assert!(
            pair().0.be_introduced(&mut &wire[..]).is_err(),
            "taken back by its sender"
        );
    }

    #[test]
    fn introductions_out_of_bounds_are_refused() {
        for addresses in [vec![vec![1]; MAX_RAILS + 1], vec![vec![1; MAX_ADDRESS + 1]]] {
            let (mut a, mut b) = pair();
            let wire = introduced(
                &mut a,
                &Introduction {
                    incarnation: 1,
                    addresses,
                },
            );
            assert!(b.be_introduced(&mut &wire[..]).is_err());
        }
        let (mut a, mut b) = pair();
        let mut wire = Vec::new();
        a.send(&mut wire, HEARTBEAT, &[]).unwrap();
        assert!(b.be_introduced(&mut &wire[..]).is_err());
    }

    #[test]
    fn a_stated_length_is_not_believed_beyond_its_bound() {
        let (mut a, _) = pair();
        let mut wire = vec![INTRODUCTION];
        wire.extend_from_slice(&u32::MAX.to_le_bytes());
        let error = a.receive(&mut &wire[..]).unwrap_err();
        assert!(matches!(error, LinkError::Protocol(_)), "{error}");
    }
}
