//! How two helpers prove to each other that they know the job's key, without saying it.
//!
//! ```text
//! initiator → responder   hello: magic, version, own rank, peer's rank, 32 random bytes
//! responder → initiator   hello, and the proof of the responder
//! initiator → responder   the proof of the initiator
//! both                    an introduction each, as the link's first frame
//! ```
//!
//! A proof is the keyed hash, under the job's key, of the role and both hellos: it is good for
//! this conversation only, in this role, between these ranks. The keys of the link and of the
//! fabric's messages are derived from the same, one for each direction. So nothing recorded is
//! ever of use again, and no proof can be sent back to the one who made it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Config;
use super::key::JobKey;
use super::link::{Introduction, Keys, Link, LinkError};
use crate::fabric::{MessageKey, Rank};

/// What both sides send first.
const MAGIC: [u8; 8] = *b"CopperMt";
/// Of handshake and link.
const VERSION: u32 = 1;
const HELLO: usize = 8 + 4 + 4 + 4 + 32;
const PROOF: usize = 32;

/// A handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The connection failed, or time was up.
    #[error("the connection failed during the handshake: {0}")]
    Io(#[from] io::Error),
    /// Whoever it is, it is no helper.
    #[error("the peer is not a Copper helper")]
    NotAHelper,
    /// Another Copper.
    #[error(
        "the peer speaks version {0} of the handshake and this helper {VERSION}; start the same copper on all nodes"
    )]
    Version(u32),
    /// Another rank than expected, or one that connects to itself.
    #[error(
        "the peer says it is rank {theirs} and wants rank {wanted}; are hosts listed twice or in another order?"
    )]
    Rank {
        /// The rank it says it has.
        theirs: Rank,
        /// The rank it wants to talk to.
        wanted: Rank,
    },
    /// The peer does not know the job's key.
    #[error("the peer does not know this job's key")]
    Key,
    /// Its introduction was not understood.
    #[error("the peer's introduction failed: {0}")]
    Introduction(#[from] LinkError),
    /// The system has no random bytes.
    #[error("no random bytes: {0}")]
    Random(String),
}

/// A peer that has proved itself.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) peer: Rank,
    pub(crate) introduction: Introduction,
    /// For the fabric's messages.
    pub(crate) send_key: MessageKey,
    pub(crate) receive_key: MessageKey,
    pub(crate) link: Link,
}

#[derive(Clone, Copy)]
struct Hello {
    from: Rank,
    to: Rank,
    nonce: [u8; 32],
}

impl Hello {
    fn new(from: Rank, to: Rank) -> Result<Self, HandshakeError> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|error| HandshakeError::Random(error.to_string()))?;
        Ok(Self { from, to, nonce })
    }

    fn bytes(&self) -> [u8; HELLO] {
        let mut bytes = [0; HELLO];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.from.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.to.to_le_bytes());
        bytes[20..].copy_from_slice(&self.nonce);
        bytes
    }

    fn parse(bytes: &[u8; HELLO]) -> Result<Self, HandshakeError> {
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..8] != MAGIC {
            return Err(HandshakeError::NotAHelper);
        }
        if number(8) != VERSION {
            return Err(HandshakeError::Version(number(8)));
        }
        let mut nonce = [0; 32];
        nonce.copy_from_slice(&bytes[20..]);
        Ok(Self {
            from: number(12),
            to: number(16),
            nonce,
        })
    }
}

/// Both hellos, and what follows from them and the key.
struct Transcript<'a> {
    key: &'a JobKey,
    initiator: Hello,
    responder: Hello,
}

impl Transcript<'_> {
    fn derive(&self, purpose: &str) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(self.key.bytes());
        hasher
            .update(&self.initiator.bytes())
            .update(&self.responder.bytes());
        hasher.update(purpose.as_bytes());
        hasher.finalize()
    }

    fn key(&self, purpose: &str) -> [u8; 32] {
        *self.derive(purpose).as_bytes()
    }

    fn responder_proof(&self) -> blake3::Hash {
        self.derive("copper: the responder knows the key")
    }

    fn initiator_proof(&self) -> blake3::Hash {
        self.derive("copper: the initiator knows the key")
    }

    /// Keys for (link, fabric) messages of the initiator, and of the responder.
    fn keys(&self) -> [([u8; 32], MessageKey); 2] {
        [
            (
                self.key("copper: link, from the initiator"),
                MessageKey(self.key("copper: fabric, from the initiator")),
            ),
            (
                self.key("copper: link, from the responder"),
                MessageKey(self.key("copper: fabric, from the responder")),
            ),
        ]
    }
}

/// A connection whose reads and writes end at a deadline, however slowly bytes trickle.
pub(super) struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl<'a> Timed<'a> {
    pub(super) fn new(stream: &'a TcpStream, deadline: Instant) -> Self {
        Self { stream, deadline }
    }

    fn left(&self) -> io::Result<Duration> {
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            left => Ok(left),
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        match self.stream.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
            }
            result => result,
        }
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

fn read<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The initiator's part, with a peer that should have that rank.
pub(super) fn begin(
    stream: &TcpStream,
    config: &Config,
    peer: Rank,
    begun: Instant,
) -> Result<Met, HandshakeError> {
    let deadline = begun + config.patience.connect + config.patience.handshake;
    stream.set_nodelay(true)?;
    let mut timed = Timed::new(stream, deadline);
    let initiator = Hello::new(config.rank, peer)?;
    timed.write_all(&initiator.bytes())?;
    let responder = Hello::parse(&read(&mut timed)?)?;
    if (responder.from, responder.to) != (peer, config.rank) {
        return Err(HandshakeError::Rank {
            theirs: responder.from,
            wanted: responder.to,
        });
    }
    let transcript = Transcript {
        key: &config.key,
        initiator,
        responder,
    };
    // Comparing with a `Hash` takes the same time whatever differs.
    if transcript.responder_proof() != read::<PROOF>(&mut timed)? {
        return Err(HandshakeError::Key);
    }
    timed.write_all(transcript.initiator_proof().as_bytes())?;
    let [ours, theirs] = transcript.keys();
    introduce(timed, config, peer, ours, theirs)
}

/// The responder's part, with whoever connected.
pub(super) fn answer(stream: &TcpStream, config: &Config) -> Result<Met, HandshakeError> {
    stream.set_nodelay(true)?;
    let mut timed = Timed::new(stream, Instant::now() + config.patience.handshake);
    let initiator = match Hello::parse(&read(&mut timed)?) {
        Err(error @ HandshakeError::Version(_)) => {
            // So that the other side can say what is wrong, too.
            timed.write_all(&Hello::new(config.rank, 0)?.bytes())?;
            return Err(error);
        }
        hello => hello?,
    };
    let responder = Hello::new(config.rank, initiator.from)?;
    timed.write_all(&responder.bytes())?;
    if initiator.to != config.rank || initiator.from == config.rank {
        return Err(HandshakeError::Rank {
            theirs: initiator.from,
            wanted: initiator.to,
        });
    }
    let transcript = Transcript {
        key: &config.key,
        initiator,
        responder,
    };
    timed.write_all(transcript.responder_proof().as_bytes())?;
    if transcript.initiator_proof() != read::<PROOF>(&mut timed)? {
        return Err(HandshakeError::Key);
    }
    let [theirs, ours] = transcript.keys();
    introduce(timed, config, initiator.from, ours, theirs)
}

/// Exchanges introductions, which are the first frames of the link.
fn introduce(
    mut timed: Timed<'_>,
    config: &Config,
    peer: Rank,
    (link_send, send_key): ([u8; 32], MessageKey),
    (link_receive, receive_key): ([u8; 32], MessageKey),
) -> Result<Met, HandshakeError> {
    let mut link = Link::new(Keys {
        send: link_send,
        receive: link_receive,
    });
    link.introduce(&mut timed, &config.introduction)?;
    let introduction = link.be_introduced(&mut timed)?;
    Ok(Met {
        peer,
        introduction,
        send_key,
        receive_key,
        link,
    })
}
