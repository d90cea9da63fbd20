//! Frames: what one message of the fabric holds, and how it is proved.
//!
//! A message of ours may be longer than one of the fabric's, so it travels as fragments. Each
//! frame carries a keyed hash over all of it, under a key that one session with one peer uses in
//! one direction, and a number that only rises: a stranger cannot make a frame, and nobody can
//! use one twice.
//!
//! ```text
//! offset  bytes
//!      0     32  keyed hash of the rest
//!     32      1  kind: 1 fragment, 2 acknowledgement, 3 greeting
//!     33      3  zero
//!     36      4  rank of the sender
//!     40      8  number of the fragment, from 1; else 0
//!     48      8  number of the last fragment that the sender has received
//!     56      4  length of the whole message
//!     60      4  offset of this fragment in it
//!     64         fragment
//! ```
//!
//! Numbers are little endian.

use super::{MAX_MESSAGE, MessageKey, Rank};

/// Bytes before the fragment.
pub(crate) const HEADER: usize = 64;
const HASH: usize = 32;

const FRAGMENT: u8 = 1;
const ACKNOWLEDGEMENT: u8 = 2;
const GREETING: u8 = 3;

/// What a frame says before its fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The sender.
    pub(crate) from: Rank,
    /// Fragments are numbered from 1 in each session and direction. What brings no fragment has
    /// none.
    pub(crate) number: Option<u64>,
    /// Asks for what the sender has not received, which may have been lost. Has no number.
    pub(crate) greeting: bool,
    /// The last fragment that the sender has received.
    pub(crate) received: u64,
    /// Length of the whole message in bytes.
    pub(crate) message_length: u32,
    /// Where in it this fragment lies.
    pub(crate) offset: u32,
}

impl Header {
    fn bytes(&self) -> [u8; HEADER - HASH] {
        let mut bytes = [0; HEADER - HASH];
        bytes[0] = match (self.number, self.greeting) {
            (Some(_), _) => FRAGMENT,
            (None, false) => ACKNOWLEDGEMENT,
            (None, true) => GREETING,
        };
        bytes[4..8].copy_from_slice(&self.from.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.unwrap_or(0).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.received.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.message_length.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let four = |at: usize| {
            bytes
                .get(at..at + 4)?
                .try_into()
                .ok()
                .map(u32::from_le_bytes)
        };
        let eight = |at: usize| {
            bytes
                .get(at..at + 8)?
                .try_into()
                .ok()
                .map(u64::from_le_bytes)
        };
        let (number, greeting) = match (bytes.first()?, eight(8)?) {
            (&FRAGMENT, number @ 1..) => (Some(number), false),
            (&ACKNOWLEDGEMENT, 0) => (None, false),
            (&GREETING, 0) => (None, true),
            _ => return None,
        };
        let header = Self {
            from: four(4)?,
            number,
            greeting,
            received: eight(16)?,
            message_length: four(24)?,
            offset: four(28)?,
        };
        (bytes == header.bytes()).then_some(header)
    }
}

/// Writes a frame into `frame`.
pub(crate) fn seal(header: &Header, fragment: &[u8], key: &MessageKey, frame: &mut Vec<u8>) {
    frame.clear();
    frame.extend_from_slice(&[0; HASH]);
    frame.extend_from_slice(&header.bytes());
    frame.extend_from_slice(fragment);
    let hash = blake3::keyed_hash(&key.0, &frame[HASH..]);
    frame[..HASH].copy_from_slice(hash.as_bytes());
}

/// A frame whose hash has not been checked.
#[derive(Debug)]
pub(crate) struct Unproved<'a> {
    header: Header,
    frame: &'a [u8],
}

impl<'a> Unproved<'a> {
    /// Reads a frame's header; `None` if it is not well formed.
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        let header = Header::parse(frame.get(HASH..HEADER)?)?;
        let length = u64::from(header.message_length);
        let end = u64::from(header.offset) + (frame.len() - HEADER) as u64;
        let valid = match header.number {
            Some(_) => length <= MAX_MESSAGE as u64 && end <= length,
            None => frame.len() == HEADER && length == 0 && header.offset == 0,
        };
        valid.then_some(Self { header, frame })
    }

    /// The rank that the sender claims: whose key is to be tried.
    pub(crate) fn claimed_rank(&self) -> Rank {
        self.header.from
    }

    /// Header and fragment, if the hash is right under the key.
    pub(crate) fn prove(self, key: &MessageKey) -> Option<(Header, &'a [u8])> {
        let (theirs, rest) = self.frame.split_first_chunk::<HASH>()?;
        // Comparing with a `Hash` takes the same time whatever differs.
        (blake3::keyed_hash(&key.0, rest) == *theirs).then(|| (self.header, &self.frame[HEADER..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: MessageKey = MessageKey([7; 32]);

    fn header(number: Option<u64>, length: u32, offset: u32) -> Header {
        Header {
            from: 3,
            number,
            greeting: false,
            received: 9,
            message_length: length,
            offset,
        }
    }

    fn sealed(header: &Header, fragment: &[u8]) -> Vec<u8> {
        let mut frame = vec![1, 2, 3];
        seal(header, fragment, &KEY, &mut frame);
        frame
    }

    #[test]
    fn a_sealed_frame_is_read_back() {
        for (header, fragment) in [
            (header(Some(1), 5, 0), b"hello".as_slice()),
            (header(Some(u64::MAX), 100, 95), b"world"),
            (header(Some(2), 0, 0), b""),
            (header(None, 0, 0), b""),
            (
                Header {
                    greeting: true,
                    ..header(None, 0, 0)
                },
                b"",
            ),
        ] {
            let frame = sealed(&header, fragment);
            assert_eq!(frame.len(), HEADER + fragment.len());
            let unproved = Unproved::parse(&frame).unwrap();
            assert_eq!(unproved.claimed_rank(), 3);
            assert_eq!(unproved.prove(&KEY), Some((header, fragment)));
        }
    }

    #[test]
    fn changing_any_bit_is_noticed() {
        let frame = sealed(&header(Some(1), 5, 0), b"hello");
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let believed = Unproved::parse(&changed).is_some_and(|f| f.prove(&KEY).is_some());
            assert!(!believed, "bit {bit}");
        }
        assert!(
            Unproved::parse(&frame)
                .unwrap()
                .prove(&MessageKey([8; 32]))
                .is_none()
        );
        for length in 0..frame.len() {
            let believed =
                Unproved::parse(&frame[..length]).is_some_and(|f| f.prove(&KEY).is_some());
            assert!(!believed, "{length} bytes");
        }
    }

    #[test]
    fn what_no_helper_sends_is_refused_even_with_the_key() {
        let too_long = MAX_MESSAGE as u32 + 1;
        for (header, fragment) in [
            (header(Some(1), 4, 0), b"hello".as_slice()),
            (header(Some(1), 5, 1), b"hello"),
            (header(Some(1), 5, u32::MAX), b"hello"),
            (header(Some(1), too_long, 0), b"hello"),
            (header(None, 0, 0), b"hello"),
            (header(None, 5, 0), b""),
            (header(None, 0, 1), b""),
            (header(Some(0), 5, 0), b"hello"),
        ] {
            assert!(
                Unproved::parse(&sealed(&header, fragment)).is_none(),
                "{header:?}"
            );
        }
    }
}
