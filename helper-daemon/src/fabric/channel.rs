//! One session with one peer, without I/O: what waits to be sent, how much may be, and what has
//! come in part.
//!
//! Providers accept messages without end and keep them in memory, so the receiver's room is
//! counted here: at most [`WINDOW`] fragments are on their way to a peer, which says with each
//! frame how many it has received, and by an acknowledgement where it has nothing else to say.
//!
//! The two sides of a session do not begin at once, and a frame that comes before its receiver
//! knows the session is lost. So each begins with a greeting, and sends fragments only once it
//! has heard from the other. A provider that has to connect anew loses frames, too, on both
//! sides: what is not acknowledged is kept, and sent again after a failure ([`Channel::rewind`])
//! or when the peer, after one, greets again. What arrives twice is taken once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::{self, HEADER, Header};
use super::{MAX_MESSAGE, MessageKey, PostError, Rank};

/// Fragments that may be on their way to a peer.
pub(crate) const WINDOW: u64 = 16;

/// Frames that a peer may have under way to us: its fragments, and the acknowledgements of ours
/// that no fragment carried.
pub(crate) const FRAMES_PER_PEER: usize = 2 * WINDOW as usize;

/// Fragments received after which an acknowledgement is owed.
const OWED: u64 = WINDOW / 2;

/// Pauses between greetings, at first and at most, until the peer is heard.
const GREETING_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a peer may leave a full window unacknowledged while more waits. A provider that had to
/// connect anew may have lost all of it without a word.
const STALL: Duration = Duration::from_secs(1);

/// Bytes that may wait to be sent to a peer.
const MAX_QUEUED: usize = 16 << 20;

struct Outgoing {
    bytes: Vec<u8>,
    /// How much of it has been sent.
    sent: usize,
    deadline: Instant,
}

/// A fragment's frame that the peer has not acknowledged.
struct Unacknowledged {
    number: u64,
    frame: Vec<u8>,
    deadline: Instant,
}

struct Incoming {
    bytes: Vec<u8>,
    length: usize,
}

/// What became of [`Channel::receive`]'s frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A message is complete.
    Message(Vec<u8>),
    /// Nothing is complete yet, or it was an acknowledgement.
    Part,
    /// It was sent before, or is out of order or bounds.
    Rejected,
}

/// A session with one peer.
pub(crate) struct Channel {
    own_rank: Rank,
    send_key: MessageKey,
    receive_key: MessageKey,
    fragment_size: usize,
    queue: VecDeque<Outgoing>,
    queued: usize,
    /// The frame being sent, and how many bytes of the first message it takes (none for an
    /// acknowledgement).
    frame: Vec<u8>,
    prepared: Option<Prepared>,
    /// The peer has been heard in this session.
    heard: bool,
    /// It is owed a greeting.
    greet: bool,
    /// When to greet again a peer that has not been heard.
    next_greeting: Option<Instant>,
    greeting_pause: Duration,
    last_sent: u64,
    peer_received: u64,
    unacknowledged: VecDeque<Unacknowledged>,
    /// How many of them need not be sent again.
    settled: usize,
    /// The frame last given is one of them.
    repeating: bool,
    /// Since when the window is full and more waits.
    full_since: Option<Instant>,
    incoming: Option<Incoming>,
    last_received: u64,
    last_acknowledged: u64,
    /// What was received is to be acknowledged again: the peer seems not to know.
    owed: bool,
}

#[derive(Clone, Copy)]
enum Prepared {
    Fragment { length: usize, acknowledges: u64 },
    Acknowledgement { acknowledges: u64 },
    Greeting { acknowledges: u64 },
}

impl Channel {
    /// `frame_size` is the longest frame in bytes.
    pub(crate) fn new(
        own_rank: Rank,
        send_key: MessageKey,
        receive_key: MessageKey,
        frame_size: usize,
    ) -> Self {
        Self {
            own_rank,
            send_key,
            receive_key,
            fragment_size: frame_size.saturating_sub(HEADER).max(1),
            queue: VecDeque::new(),
            queued: 0,
            frame: Vec::new(),
            prepared: None,
            heard: false,
            greet: true,
            next_greeting: None,
            greeting_pause: GREETING_PAUSE.0,
            last_sent: 0,
            peer_received: 0,
            unacknowledged: VecDeque::new(),
            settled: 0,
            repeating: false,
            full_since: None,
            incoming: None,
            last_received: 0,
            last_acknowledged: 0,
            owed: false,
        }
    }

    /// The key under which the peer's frames are proved.
    pub(crate) fn receive_key(&self) -> &MessageKey {
        &self.receive_key
    }

    /// Queues a message.
    pub(crate) fn queue(&mut self, message: &[u8], deadline: Instant) -> Result<(), PostError> {
        if message.len() > MAX_MESSAGE {
            return Err(PostError::Invalid);
        }
        if self.queued + message.len() > MAX_QUEUED {
            return Err(PostError::Busy);
        }
        self.queued += message.len();
        let bytes = message.to_vec();
        self.queue.push_back(Outgoing {
            bytes,
            sent: 0,
            deadline,
        });
        Ok(())
    }

    /// Drops messages whose deadline has passed, the rest of one begun too, and says how many.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let before = self.queue.len();
        if self
            .queue
            .front()
            .is_some_and(|first| first.deadline <= now)
        {
            // What was prepared of it is not to be sent; it has not got a number yet.
            self.prepared = None;
        }
        self.queue.retain(|message| message.deadline > now);
        self.queued = self.queue.iter().map(|message| message.bytes.len()).sum();
        (before - self.queue.len()) as u64
    }

    /// Frames may have been lost: sends again what is not acknowledged, and asks the peer to do so.
    pub(crate) fn rewind(&mut self) {
        (self.settled, self.greet) = (0, true);
        self.full_since = None;
    }

    /// Drops all that waits.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.queued = 0;
        self.prepared = None;
        self.unacknowledged.clear();
        self.settled = 0;
        self.full_since = None;
    }

    /// When something is to be done, if nothing happens before: the earliest deadline of what
    /// waits, or the next greeting.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let messages = self.queue.iter().map(|message| message.deadline);
        let stall = self.full_since.map(|since| since + STALL);
        messages.chain(self.next_greeting).chain(stall).min()
    }

    /// Whether the peer has left a full window unacknowledged for too long.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.full_since.is_some_and(|since| since + STALL <= now)
    }

    /// Messages that wait or are under way in part.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next frame to send and its deadline (`None` for an acknowledgement), if there is one
    /// and the peer has room for it. The same one, until [`Channel::frame_sent`].
    pub(crate) fn next_frame(&mut self, now: Instant) -> Option<(&[u8], Option<Instant>)> {
        if self.next_greeting.is_some_and(|due| due <= now) {
            (self.greet, self.next_greeting) = (true, None);
        }
        let full = self.last_sent - self.peer_received >= WINDOW && !self.queue.is_empty();
        self.full_since = full.then(|| self.full_since.unwrap_or(now));
        if self.greet && !matches!(self.prepared, Some(Prepared::Greeting { .. })) {
            // It comes first. What was prepared has not been given a number yet.
            self.prepared = None;
        }
        self.repeating = self.heard && !self.greet && self.settled < self.unacknowledged.len();
        if self.repeating {
            let again = &self.unacknowledged[self.settled];
            return Some((&again.frame, Some(again.deadline.max(now + STALL))));
        }
        if self.prepared.is_none() {
            self.prepare();
        }
        match self.prepared? {
            Prepared::Fragment { .. } => Some((
                &self.frame,
                self.queue.front().map(|message| message.deadline),
            )),
            Prepared::Acknowledgement { .. } | Prepared::Greeting { .. } => {
                Some((&self.frame, None))
            }
        }
    }

    fn prepare(&mut self) {
        let acknowledges = self.last_received;
        let header = Header {
            from: self.own_rank,
            number: None,
            greeting: self.greet,
            received: acknowledges,
            message_length: 0,
            offset: 0,
        };
        if self.greet {
            frame::seal(&header, &[], &self.send_key, &mut self.frame);
            self.prepared = Some(Prepared::Greeting { acknowledges });
        } else if self.heard
            && self.last_sent - self.peer_received < WINDOW
            && let Some(message) = self.queue.front()
        {
            let rest = &message.bytes[message.sent..];
            let fragment = &rest[..rest.len().min(self.fragment_size)];
            let header = Header {
                number: Some(self.last_sent + 1),
                message_length: message.bytes.len() as u32,
                offset: message.sent as u32,
                ..header
            };
            frame::seal(&header, fragment, &self.send_key, &mut self.frame);
            self.prepared = Some(Prepared::Fragment {
                length: fragment.len(),
                acknowledges,
            });
        } else if self.owed || self.last_received - self.last_acknowledged >= OWED {
            frame::seal(&header, &[], &self.send_key, &mut self.frame);
            self.prepared = Some(Prepared::Acknowledgement { acknowledges });
        }
    }

    /// The frame last given was accepted. Returns whether a message has left with it.
    pub(crate) fn frame_sent(&mut self, now: Instant) -> bool {
        if std::mem::take(&mut self.repeating) {
            self.settled += 1;
            return false;
        }
        let prepared = self.prepared.take();
        if prepared.is_some() {
            self.owed = false;
        }
        match prepared {
            None => false,
            Some(Prepared::Greeting { acknowledges }) => {
                self.last_acknowledged = acknowledges;
                self.greet = false;
                self.next_greeting = (!self.heard).then_some(now + self.greeting_pause);
                self.greeting_pause = (2 * self.greeting_pause).min(GREETING_PAUSE.1);
                false
            }
            Some(Prepared::Acknowledgement { acknowledges }) => {
                self.last_acknowledged = acknowledges;
                false
            }
            Some(Prepared::Fragment {
                length,
                acknowledges,
            }) => {
                self.last_acknowledged = acknowledges;
                self.last_sent += 1;
                let number = self.last_sent;
                let frame = std::mem::take(&mut self.frame);
                let deadline = self.queue.front().map_or(now, |message| message.deadline);
                self.unacknowledged.push_back(Unacknowledged {
                    number,
                    frame,
                    deadline,
                });
                self.settled = self.unacknowledged.len();
                let Some(message) = self.queue.front_mut() else {
                    return false;
                };
                message.sent += length;
                let complete = message.sent == message.bytes.len();
                if complete && let Some(message) = self.queue.pop_front() {
                    self.queued -= message.bytes.len();
                }
                complete
            }
        }
    }

    /// Takes in a frame that was proved to be the peer's.
    pub(crate) fn receive(&mut self, header: &Header, fragment: &[u8]) -> Received {
        if header.received > self.last_sent {
            return Received::Rejected;
        }
        if header.received > self.peer_received {
            self.peer_received = header.received;
            self.full_since = None;
            while self
                .unacknowledged
                .front()
                .is_some_and(|first| first.number <= header.received)
            {
                self.unacknowledged.pop_front();
                self.settled = self.settled.saturating_sub(1);
            }
        }
        if header.greeting {
            self.settled = 0;
        }
        if header.greeting || !self.heard {
            // The peer knows the session; that we do is for it to hear. Not by another greeting, for
            // which it would send again what it has begun to send.
            self.owed = true;
        }
        (self.heard, self.next_greeting) = (true, None);
        let Some(number) = header.number else {
            return Received::Part;
        };
        // Numbers may leave gaps, where a message was lost; but never go beyond the window.
        if number <= self.last_received {
            self.owed = true;
            return Received::Rejected;
        }
        if number - self.last_acknowledged > WINDOW {
            return Received::Rejected;
        }
        let follows = number == self.last_received + 1;
        self.last_received = number;
        let length = header.message_length as usize;
        let offset = header.offset as usize;
        if offset == 0 {
            self.incoming = Some(Incoming {
                bytes: Vec::new(),
                length,
            });
        }
        let fits = |incoming: &Incoming| {
            (follows || offset == 0) && incoming.length == length && incoming.bytes.len() == offset
        };
        let Some(mut incoming) = self.incoming.take().filter(fits) else {
            // The rest of a message whose beginning was lost.
            return Received::Rejected;
        };
        incoming.bytes.extend_from_slice(fragment);
        if incoming.bytes.len() == length {
            return Received::Message(incoming.bytes);
        }
        if fragment.is_empty() {
            return Received::Rejected;
        }
        self.incoming = Some(incoming);
        Received::Part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::frame::Unproved;
    use std::time::Duration;

    const FRAME: usize = HEADER + 100;

    /// Two sides that have not heard of each other.
    fn strangers() -> (Channel, Channel) {
        let (there, back) = (MessageKey([1; 32]), MessageKey([2; 32]));
        (
            Channel::new(0, there.clone(), back.clone(), FRAME),
            Channel::new(1, back, there, FRAME),
        )
    }

    /// Two sides that have greeted each other.
    fn pair() -> (Channel, Channel) {
        let (mut a, mut b) = strangers();
        for _ in 0..2 {
            frames(&mut a)
                .iter()
                .for_each(|frame| assert_eq!(receive(&mut b, frame), Received::Part));
            frames(&mut b)
                .iter()
                .for_each(|frame| assert_eq!(receive(&mut a, frame), Received::Part));
        }
        assert!(a.heard && b.heard && frames(&mut a).is_empty() && frames(&mut b).is_empty());
        (a, b)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Takes all frames that may be sent now.
    fn frames(channel: &mut Channel) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some((frame, _)) = channel.next_frame(Instant::now()) {
            frames.push(frame.to_vec());
            channel.frame_sent(Instant::now());
        }
        frames
    }

    fn receive(channel: &mut Channel, frame: &[u8]) -> Received {
        let unproved = Unproved::parse(frame).expect("a frame");
        let (header, fragment) = unproved
            .prove(channel.receive_key())
            .expect("the right key");
        channel.receive(&header, fragment)
    }

    fn message(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7) as u8).collect()
    }

    #[test]
    fn nothing_is_sent_before_the_other_side_has_begun() {
        let (mut a, mut b) = strangers();
        a.queue(b"early", later()).unwrap();
        let greeting = frames(&mut a);
        assert!(greeting.len() == 1 && greeting[0].len() == HEADER);
        // It is lost; the other side begins later, and greets too.
        let answer = frames(&mut b);
        assert_eq!(receive(&mut a, &answer[0]), Received::Part);
        let sent = frames(&mut a);
        assert_eq!(sent.len(), 1);
        assert_eq!(
            receive(&mut b, &sent[0]),
            Received::Message(b"early".to_vec())
        );
        assert_eq!((a.next_deadline(), b.next_deadline()), (None, None));
    }

    #[test]
    fn a_greeting_is_answered_however_often_it_comes_and_repeats_nothing() {
        let (mut a, mut b) = strangers();
        frames(&mut a);
        // The first answer is lost; b greets again, and hears that it is known.
        let greeting = frames(&mut b);
        for _ in 0..2 {
            assert_eq!(receive(&mut a, &greeting[0]), Received::Part);
            let answer = frames(&mut a);
            assert_eq!(answer.len(), 1);
            if a.last_sent == 0 {
                a.queue(b"first", later()).unwrap();
                let first = frames(&mut a);
                assert_eq!(
                    receive(&mut b, &first[0]),
                    Received::Message(b"first".to_vec())
                );
                let heard = frames(&mut b);
                heard.iter().for_each(|frame| {
                    receive(&mut a, frame);
                });
                assert!(frames(&mut a).is_empty(), "nothing is sent twice");
            }
        }
    }

    #[test]
    fn one_who_is_not_heard_is_greeted_again_and_again() {
        let (mut a, _) = strangers();
        let mut now = Instant::now();
        for _ in 0..10 {
            assert!(a.next_frame(now).is_some());
            a.frame_sent(now);
            assert!(a.next_frame(now).is_none());
            let next = a.next_deadline().unwrap();
            assert!(next > now && next <= now + GREETING_PAUSE.1);
            now = next;
        }
    }

    #[test]
    fn messages_of_every_length_arrive_in_order() {
        let (mut a, mut b) = pair();
        let lengths = [0, 1, 99, 100, 101, 200, 1234];
        for length in lengths {
            a.queue(&message(length), later()).unwrap();
        }
        let mut arrived = Vec::new();
        for _ in 0..10 {
            for frame in frames(&mut a) {
                assert!(frame.len() <= FRAME);
                match receive(&mut b, &frame) {
                    Received::Message(bytes) => arrived.push(bytes),
                    other => assert_eq!(other, Received::Part),
                }
            }
            for frame in frames(&mut b) {
                assert_eq!(receive(&mut a, &frame), Received::Part);
            }
        }
        assert_eq!(arrived, lengths.map(message));
        assert_eq!((a.waiting(), a.queued), (0, 0));
    }

    #[test]
    fn no_more_than_the_window_is_on_its_way() {
        let (mut a, mut b) = pair();
        for _ in 0..100 {
            a.queue(b"x", later()).unwrap();
        }
        let first = frames(&mut a);
        assert_eq!(first.len() as u64, WINDOW);
        for frame in &first[..OWED as usize - 1] {
            receive(&mut b, frame);
        }
        assert!(
            b.next_frame(Instant::now()).is_none(),
            "an acknowledgement too early"
        );
        receive(&mut b, &first[OWED as usize - 1]);
        let acknowledgements = frames(&mut b);
        assert_eq!(acknowledgements.len(), 1);
        receive(&mut a, &acknowledgements[0]);
        assert_eq!(frames(&mut a).len() as u64, OWED);
    }

    #[test]
    fn a_window_that_is_lost_as_a_whole_is_noticed() {
        let (mut a, mut b) = pair();
        for _ in 0..2 * WINDOW {
            a.queue(b"x", later()).unwrap();
        }
        let lost = frames(&mut a);
        let now = Instant::now();
        assert!(a.next_frame(now).is_none() && !a.is_stalled(now));
        let due = a.next_deadline().unwrap();
        assert!(due <= now + STALL && a.is_stalled(due));
        // It was only slow after all.
        for frame in &lost {
            receive(&mut b, frame);
        }
        frames(&mut b)
            .iter()
            .for_each(|frame| assert_eq!(receive(&mut a, frame), Received::Part));
        assert!(!a.is_stalled(due));
        assert_eq!(frames(&mut a).len() as u64, WINDOW);
    }

    #[test]
    fn what_a_new_connection_lost_is_sent_again_by_both_sides_and_taken_once() {
        let (mut a, mut b) = pair();
        for text in [b"a1", b"a2", b"a3"] {
            a.queue(text, later()).unwrap();
        }
        b.queue(b"b1", later()).unwrap();
        // One arrives, the others are lost; only one side notices.
        assert!(matches!(
            receive(&mut b, &frames(&mut a)[0]),
            Received::Message(_)
        ));
        assert_eq!(frames(&mut b).len(), 1);
        a.rewind();
        let again = frames(&mut a);
        assert_eq!(again.len(), 1 + 3);
        let arrived: Vec<Received> = again.iter().map(|frame| receive(&mut b, frame)).collect();
        assert_eq!(arrived[..2], [Received::Part, Received::Rejected]);
        assert_eq!(arrived[2], Received::Message(b"a2".to_vec()));
        assert_eq!(arrived[3], Received::Message(b"a3".to_vec()));
        let answers = frames(&mut b);
        assert_eq!(
            receive(&mut a, &answers[0]),
            Received::Message(b"b1".to_vec())
        );
        answers[1..]
            .iter()
            .for_each(|frame| assert_eq!(receive(&mut a, frame), Received::Part));
        assert!(
            a.unacknowledged.is_empty(),
            "the acknowledgement was not repeated"
        );
        assert!(frames(&mut a).len() <= 1 && frames(&mut b).is_empty());
    }

    #[test]
    fn an_answer_carries_the_acknowledgement() {
        let (mut a, mut b) = pair();
        for _ in 0..1000 {
            a.queue(b"question", later()).unwrap();
            for frame in frames(&mut a) {
                assert!(matches!(receive(&mut b, &frame), Received::Message(_)));
            }
            b.queue(b"answer", later()).unwrap();
            let answers = frames(&mut b);
            assert_eq!(answers.len(), 1);
            receive(&mut a, &answers[0]);
        }
        assert_eq!(a.waiting(), 0);
    }

    #[test]
    fn a_frame_is_taken_once_and_in_order() {
        let (mut a, mut b) = pair();
        a.queue(b"one", later()).unwrap();
        a.queue(b"two", later()).unwrap();
        let sent = frames(&mut a);
        assert_eq!(
            receive(&mut b, &sent[1]),
            Received::Message(b"two".to_vec())
        );
        for frame in &sent {
            assert_eq!(receive(&mut b, frame), Received::Rejected);
        }
    }

    #[test]
    fn a_session_does_not_believe_the_frames_of_another() {
        let (mut a, _) = pair();
        a.queue(b"old", later()).unwrap();
        let old = frames(&mut a).remove(0);
        let new = Channel::new(1, MessageKey([3; 32]), MessageKey([4; 32]), FRAME);
        assert!(
            Unproved::parse(&old)
                .unwrap()
                .prove(new.receive_key())
                .is_none()
        );
    }

    #[test]
    fn a_message_that_loses_a_fragment_is_lost_alone() {
        let (mut a, mut b) = pair();
        a.queue(&message(350), later()).unwrap();
        a.queue(b"next", later()).unwrap();
        let sent = frames(&mut a);
        assert_eq!(sent.len(), 5);
        assert_eq!(receive(&mut b, &sent[0]), Received::Part);
        assert_eq!(receive(&mut b, &sent[2]), Received::Rejected);
        assert_eq!(receive(&mut b, &sent[3]), Received::Rejected);
        assert_eq!(
            receive(&mut b, &sent[4]),
            Received::Message(b"next".to_vec())
        );
    }

    #[test]
    fn what_expires_is_dropped_and_the_rest_goes_on() {
        let (mut a, mut b) = pair();
        let now = Instant::now();
        a.queue(&message(150), now).unwrap();
        a.queue(b"alive", later()).unwrap();
        let first = a.next_frame(now).unwrap().0.to_vec();
        a.frame_sent(now);
        a.next_frame(now).unwrap();
        assert_eq!(a.next_deadline(), Some(now));
        assert_eq!(a.expire(now), 1);
        assert_eq!(receive(&mut b, &first), Received::Part);
        let rest = frames(&mut a);
        assert_eq!(rest.len(), 1);
        assert_eq!(
            receive(&mut b, &rest[0]),
            Received::Message(b"alive".to_vec())
        );
    }

    #[test]
    fn bounds_hold() {
        let (mut a, mut b) = pair();
        assert_eq!(
            a.queue(&vec![0; MAX_MESSAGE + 1], later()),
            Err(PostError::Invalid)
        );
        let mut accepted = 0;
        while a.queue(&vec![0; MAX_MESSAGE], later()).is_ok() {
            accepted += MAX_MESSAGE;
        }
        assert!(accepted <= MAX_QUEUED && accepted + MAX_MESSAGE > MAX_QUEUED);
        // A peer that holds the key and ignores its window, or acknowledges what was not sent.
        let mut header = Header {
            from: 0,
            number: Some(WINDOW + 1),
            greeting: false,
            received: 0,
            message_length: 1,
            offset: 0,
        };
        assert_eq!(b.receive(&header, b"x"), Received::Rejected);
        header = Header {
            number: Some(1),
            received: 1,
            ..header
        };
        assert_eq!(b.receive(&header, b"x"), Received::Rejected);
        header = Header {
            number: Some(1),
            received: 0,
            message_length: 2,
            ..header
        };
        assert_eq!(b.receive(&header, b""), Received::Rejected);
    }
}
