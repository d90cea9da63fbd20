//! What every transport promises, tried on each; and what only the one over libfabric has to.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use libfabric_sys::{Endpoint, EndpointConfig, Event as Completion};

use super::in_process::Hub;
use super::libfabric::{Config, LibfabricTransport, RailConfig};
use super::{
    Event, Fetch, FetchError, MAX_MESSAGE, MessageKey, Offer, PostError, Rank, Session, Transport,
};

const PATIENCE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(300);

fn rail(address: &str) -> RailConfig {
    RailConfig {
        address: Some(address.parse().expect("an address")),
        device: None,
    }
}

fn over_libfabric(rank: Rank, rails: &[&str]) -> LibfabricTransport {
    let rails = rails.iter().map(|address| rail(address)).collect();
    let config = Config {
        rank,
        provider: None,
        rails,
        peers: 4,
    };
    LibfabricTransport::open(&config)
        .unwrap_or_else(|error| panic!("these tests need libfabric: {error}"))
}

/// The key for what `from` sends to `to`, in a session that `epoch` tells from others.
fn key(from: Rank, to: Rank, epoch: u8) -> MessageKey {
    let mut key = [epoch; 32];
    key[0] = from as u8;
    key[1] = to as u8;
    MessageKey(key)
}

fn session(own: Rank, peer: Rank, addresses: Vec<Vec<u8>>, epoch: u8) -> Session {
    Session {
        addresses,
        send_key: key(own, peer, epoch),
        receive_key: key(peer, own, epoch),
    }
}

/// Transports of ranks 0, 1, ... and what has happened to each.
struct Group {
    transports: Vec<Box<dyn Transport>>,
    events: Vec<Vec<Event>>,
}

impl Group {
    /// Each has met every other.
    fn new(transports: Vec<Box<dyn Transport>>) -> Self {
        let events = transports.iter().map(|_| Vec::new()).collect();
        let mut group = Self { transports, events };
        for own in 0..group.transports.len() {
            for peer in (0..group.transports.len()).filter(|&peer| peer != own) {
                group.meet(own, peer, 1);
            }
        }
        group
    }

    fn all_kinds(count: Rank) -> Vec<Self> {
        let hub = Hub::default();
        let in_process =
            (0..count).map(|rank| Box::new(hub.transport(rank).unwrap()) as Box<dyn Transport>);
        let libfabric = (0..count)
            .map(|rank| Box::new(over_libfabric(rank, &["127.0.0.1"])) as Box<dyn Transport>);
        vec![
            Self::new(in_process.collect()),
            Self::new(libfabric.collect()),
        ]
    }

    fn meet(&mut self, own: usize, peer: usize, epoch: u8) {
        let addresses = self.transports[peer].addresses();
        let session = session(own as Rank, peer as Rank, addresses, epoch);
        self.transports[own].admit(peer as Rank, session).unwrap();
    }

    fn poll(&mut self) {
        for (transport, events) in self.transports.iter_mut().zip(&mut self.events) {
            transport.poll(Instant::now(), events);
        }
    }

    fn run_until(&mut self, patience: Duration, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            self.poll();
            if done(self) {
                return true;
            }
            self.sleep(end);
        }
        false
    }

    /// Sleeps as a helper does: a wakeup that does not come shows as a test that takes too long.
    fn sleep(&mut self, end: Instant) {
        if !self
            .transports
            .iter_mut()
            .all(|transport| transport.may_sleep())
        {
            return;
        }
        let deadlines = self
            .transports
            .iter()
            .filter_map(|transport| transport.next_deadline());
        let until = deadlines.chain([end]).min().unwrap_or(end);
        let time = until
            .saturating_duration_since(Instant::now())
            .min(Duration::from_millis(200));
        let mut descriptors: Vec<PollFd<'_>> = self
            .transports
            .iter()
            .flat_map(|transport| transport.wait_descriptors())
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        poll(&mut descriptors, Some(&time.try_into().unwrap())).unwrap();
    }

    fn messages(&mut self, rank: usize) -> Vec<Vec<u8>> {
        let is_message = |event: &mut Event| matches!(event, Event::Message { .. });
        self.events[rank]
            .extract_if(.., is_message)
            .filter_map(|event| match event {
                Event::Message { bytes, .. } => Some(bytes),
                _ => None,
            })
            .collect()
    }

    /// How a fetch by rank 1 from rank 0 ended.
    fn fetch(&mut self, fetch: Fetch) -> Option<Result<(), FetchError>> {
        let wanted = fetch.token;
        let patience = fetch.deadline.saturating_duration_since(Instant::now()) + SOON;
        self.transports[1].fetch(0, fetch).unwrap();
        let mut ended = None;
        self.run_until(patience, |group| {
            for event in group.events[1].drain(..) {
                if let Event::Fetched { token, result } = event {
                    assert_eq!((token, ended), (wanted, None));
                    ended = Some(result);
                }
            }
            ended.is_some()
        });
        ended
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn into_file(token: u64, offer: &Offer, file: &Arc<File>, position: u64, length: usize) -> Fetch {
    let file = file.clone();
    let deadline = Instant::now() + PATIENCE;
    Fetch {
        token,
        descriptor: offer.descriptor.clone(),
        file,
        position,
        length,
        deadline,
    }
}

fn later() -> Instant {
    Instant::now() + PATIENCE
}

#[test]
fn messages_of_every_length_arrive_unchanged_and_in_order() {
    for mut group in Group::all_kinds(2) {
        let lengths = [0, 1, 1000, 15_295, 15_296, 15_297, 65_536, MAX_MESSAGE];
        for length in lengths {
            group.transports[0]
                .send(1, &pattern(length), later())
                .unwrap();
        }
        let mut arrived = Vec::new();
        group.run_until(PATIENCE, |group| {
            arrived.append(&mut group.messages(1));
            arrived.len() == lengths.len()
        });
        assert_eq!(arrived.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
        assert!(
            arrived
                .iter()
                .zip(lengths)
                .all(|(bytes, length)| *bytes == pattern(length))
        );
        assert_eq!(group.transports[0].counters().sent, lengths.len() as u64);
        assert_eq!(group.transports[1].counters().rejected, 0);
    }
}

#[test]
fn thousands_of_messages_between_three_peers_lose_none() {
    const EACH: u32 = 3000;
    for mut group in Group::all_kinds(3) {
        let mut next = [0u32; 9];
        let mut sent = 0;
        let complete = group.run_until(PATIENCE, |group| {
            if sent < EACH {
                for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0), (1, 2)] {
                    group.transports[from]
                        .send(to, &sent.to_le_bytes(), later())
                        .unwrap();
                }
                sent += 1;
            }
            for rank in 0..3 {
                for event in group.events[rank].drain(..) {
                    let Event::Message { from, bytes } = event else {
                        panic!("{event:?}")
                    };
                    let expected = &mut next[rank * 3 + from as usize];
                    assert_eq!(bytes, expected.to_le_bytes());
                    *expected += 1;
                }
            }
            next.iter().sum::<u32>() == 5 * EACH
        });
        assert!(complete, "{next:?}");
    }
}

#[test]
fn a_fetch_brings_exactly_what_is_offered() {
    for mut group in Group::all_kinds(2) {
        let bytes = pattern((5 << 20) + 13);
        let source = file_of(&bytes);
        let target = Arc::new(file_of(b"head"));
        for (token, (offset, length)) in [
            (0, 1),
            (0, 4096),
            (1 << 20, 1 << 20),
            (3 << 20, (2 << 20) + 13),
        ]
        .iter()
        .enumerate()
        {
            let offer = group.transports[0]
                .offer(&source, *offset as u64, *length)
                .unwrap();
            let fetch = into_file(token as u64, &offer, &target, 4, *length);
            assert_eq!(group.fetch(fetch), Some(Ok(())));
            let mut written = Vec::new();
            let mut file = &*target;
            file.rewind().unwrap();
            file.read_to_end(&mut written).unwrap();
            assert_eq!(&written[..4], b"head");
            assert!(written[4..4 + length] == bytes[*offset..offset + length]);
            group.transports[0].withdraw(offer.id);
        }
    }
}

#[test]
fn what_was_withdrawn_cannot_be_fetched_and_the_rest_still_can() {
    for mut group in Group::all_kinds(2) {
        let source = file_of(&pattern(1 << 20));
        let target = Arc::new(file_of(b""));
        let gone = group.transports[0].offer(&source, 0, 1 << 20).unwrap();
        let kept = group.transports[0].offer(&source, 0, 1 << 20).unwrap();
        group.transports[0].withdraw(gone.id);
        let fetch = into_file(1, &gone, &target, 0, 1 << 20);
        assert_eq!(group.fetch(fetch), Some(Err(FetchError::Peer)));
        assert_eq!(target.metadata().unwrap().len(), 0);
        let fetch = into_file(2, &kept, &target, 0, 1 << 20);
        assert_eq!(group.fetch(fetch), Some(Ok(())));
    }
}

#[test]
fn refused_fetches_cost_no_message_and_no_other_fetch() {
    const ROUNDS: u32 = 12;
    for mut group in Group::all_kinds(2) {
        let source = file_of(&pattern(1 << 20));
        let target = Arc::new(file_of(b""));
        let kept = group.transports[0].offer(&source, 0, 1 << 20).unwrap();
        let mut next = [0u32; 2];
        let mut ended = Vec::new();
        for round in 0..ROUNDS {
            let gone = group.transports[0].offer(&source, 0, 4096).unwrap();
            group.transports[0].withdraw(gone.id);
            let bad = into_file(2 * u64::from(round), &gone, &target, 0, 4096);
            let good = into_file(2 * u64::from(round) + 1, &kept, &target, 0, 1 << 20);
            for fetch in [bad, good] {
                group.transports[1].fetch(0, fetch).unwrap();
            }
            for own in 0..2 {
                let message = [&round.to_le_bytes()[..], &[0; 40_000]].concat();
                group.transports[own]
                    .send(1 - own as Rank, &message, later())
                    .unwrap();
            }
            let all = group.run_until(PATIENCE, |group| {
                for (own, next) in next.iter_mut().enumerate() {
                    for event in group.events[own].drain(..) {
                        match event {
                            Event::Message { bytes, .. } => {
                                assert_eq!(bytes[..4], next.to_le_bytes(), "lost or doubled");
                                *next += 1;
                            }
                            Event::Fetched { token, result } => ended.push((token, result)),
                            Event::Broken { .. } => panic!("a session broke in round {round}"),
                        }
                    }
                }
                // Rounds overlap, but for the last.
                round + 1 < ROUNDS || next == [ROUNDS; 2] && ended.len() == 2 * ROUNDS as usize
            });
            assert!(all, "{next:?}, {} fetches", ended.len());
        }
        for (token, result) in ended {
            let expected = if token % 2 == 0 {
                Err(FetchError::Peer)
            } else {
                Ok(())
            };
            assert_eq!(result, expected, "fetch {token}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_told_from_a_peer_that_fails() {
    for mut group in Group::all_kinds(2) {
        let offer = group.transports[0]
            .offer(&file_of(&pattern(4096)), 0, 4096)
            .unwrap();
        let full = Arc::new(File::options().write(true).open("/dev/full").unwrap());
        let fetch = into_file(1, &offer, &full, 0, 4096);
        assert_eq!(group.fetch(fetch), Some(Err(FetchError::NoSpace)));
    }
}

#[test]
fn what_is_not_valid_is_refused() {
    for mut group in Group::all_kinds(2) {
        let offer = group.transports[0]
            .offer(&file_of(&pattern(4096)), 0, 4096)
            .unwrap();
        let target = Arc::new(file_of(b""));
        let transport = &mut group.transports[1];
        assert_eq!(transport.send(7, b"who?", later()), Err(PostError::Unknown));
        assert_eq!(
            transport.send(0, &vec![0; MAX_MESSAGE + 1], later()),
            Err(PostError::Invalid)
        );
        let fetch = into_file(1, &offer, &target, 0, 4096);
        assert_eq!(transport.fetch(7, fetch.clone()), Err(PostError::Unknown));
        for descriptor in [vec![], vec![9; 25], vec![0; 300]] {
            let fetch = Fetch {
                descriptor,
                ..fetch.clone()
            };
            assert_eq!(transport.fetch(0, fetch), Err(PostError::Invalid));
        }
        assert!(transport.offer(&file_of(b"short"), 0, 6).is_err());
        let stranger = session(1, 5, vec![vec![1, 2, 3]], 1);
        assert!(transport.admit(5, stranger).is_err());
    }
}

#[test]
fn a_dismissed_peer_is_not_heard_and_its_fetches_fail() {
    for mut group in Group::all_kinds(2) {
        let offer = group.transports[0]
            .offer(&file_of(&pattern(4096)), 0, 4096)
            .unwrap();
        let target = Arc::new(file_of(b""));
        group.transports[1]
            .fetch(0, into_file(1, &offer, &target, 0, 4096))
            .unwrap();
        group.transports[1].dismiss(0);
        group.transports[0]
            .send(1, b"still there?", Instant::now() + SOON)
            .unwrap();
        group.run_until(2 * SOON, |_| false);
        let failed = Event::Fetched {
            token: 1,
            result: Err(FetchError::Peer),
        };
        assert_eq!(group.events[1], [failed]);
    }
}

#[test]
fn a_message_to_one_who_has_not_met_us_yet_waits_for_that() {
    let hub = Hub::default();
    let libfabric = |rank| Box::new(over_libfabric(rank, &["127.0.0.1"])) as Box<dyn Transport>;
    let in_process = |rank| Box::new(hub.transport(rank).unwrap()) as Box<dyn Transport>;
    let kinds: [&dyn Fn(Rank) -> Box<dyn Transport>; 2] = [&in_process, &libfabric];
    for make in kinds {
        let transports = vec![make(0), make(1)];
        let mut group = Group {
            transports,
            events: vec![Vec::new(), Vec::new()],
        };
        group.meet(0, 1, 1);
        let early = Instant::now() + SOON / 3;
        group.transports[0].send(1, b"too early", early).unwrap();
        group.transports[0].send(1, &[7; 100_000], later()).unwrap();
        group.run_until(SOON, |_| false);
        assert_eq!(group.transports[0].counters().expired, 1);
        group.meet(1, 0, 1);
        assert!(group.run_until(PATIENCE, |g| g.messages(1) == [[7; 100_000]]));
    }
}

#[test]
fn a_peer_met_again_after_its_restart_is_heard_again() {
    let hub = Hub::default();
    let libfabric = |rank| Box::new(over_libfabric(rank, &["127.0.0.1"])) as Box<dyn Transport>;
    let in_process = |rank| Box::new(hub.transport(rank).unwrap()) as Box<dyn Transport>;
    let kinds: [&dyn Fn(Rank) -> Box<dyn Transport>; 2] = [&in_process, &libfabric];
    for make in kinds {
        let mut group = Group::new(vec![make(0), make(1)]);
        for epoch in 2..5 {
            group.transports[1].close(SOON);
            group.transports[1] = make(1);
            group.meet(0, 1, epoch);
            group.meet(1, 0, epoch);
            group.transports[0].send(1, &[epoch], later()).unwrap();
            group.transports[1].send(0, &[epoch], later()).unwrap();
            let heard = group.run_until(PATIENCE, |group| {
                let told = Event::Message {
                    from: 0,
                    bytes: vec![epoch],
                };
                let answered = Event::Message {
                    from: 1,
                    bytes: vec![epoch],
                };
                group.events[1].contains(&told) && group.events[0].contains(&answered)
            });
            assert!(heard, "epoch {epoch}: {:?}", group.events);
        }
    }
}

#[test]
fn a_cut_in_process_delays_fetches_to_their_deadline() {
    let hub = Hub::default();
    let make = |rank| Box::new(hub.transport(rank).unwrap()) as Box<dyn Transport>;
    let mut group = Group::new(vec![make(0), make(1)]);
    let offer = group.transports[0]
        .offer(&file_of(&pattern(10)), 0, 10)
        .unwrap();
    let target = Arc::new(file_of(b""));
    hub.cut(0, 1, true);
    group.transports[0].send(1, b"lost", later()).unwrap();
    let deadline = Instant::now() + SOON;
    let fetch = Fetch {
        deadline,
        ..into_file(1, &offer, &target, 0, 10)
    };
    assert_eq!(group.fetch(fetch), Some(Err(FetchError::Peer)));
    hub.cut(0, 1, false);
    assert_eq!(
        group.fetch(into_file(2, &offer, &target, 0, 10)),
        Some(Ok(()))
    );
    assert_eq!(group.messages(1), [[0; 0]; 0]);
}

fn libfabric_pair() -> Group {
    Group::new(vec![
        Box::new(over_libfabric(0, &["127.0.0.1"])),
        Box::new(over_libfabric(1, &["127.0.0.1"])),
    ])
}

/// An endpoint that is nobody's helper.
fn stranger() -> Endpoint {
    let address = Some("127.0.0.1".parse().unwrap());
    Endpoint::open(&EndpointConfig {
        address,
        ..EndpointConfig::default()
    })
    .unwrap()
}

/// Sends, and lets the group receive, until the frame has left.
fn throw(stranger: &mut Endpoint, group: &mut Group, address: &[u8], frame: &[u8]) {
    let peer = stranger.insert(address).unwrap();
    let mut left = false;
    let mut posted = false;
    let done = group.run_until(PATIENCE, |_| {
        posted |= !posted && stranger.send(peer, frame, 1, later()).is_ok();
        while let Ok(Some(event)) = stranger.next_event() {
            left |= matches!(event, Completion::Sent { .. });
        }
        left
    });
    assert!(done, "a stranger's frame did not leave");
}

#[test]
fn a_strangers_frames_are_counted_and_change_nothing() {
    let mut group = libfabric_pair();
    let mut stranger = stranger();
    let victim = group.transports[1].addresses().remove(0);
    let mut expected = 0;
    for length in [1, 63, 64, 65, 1000, 15_000] {
        // At random, and with a header as a helper's is.
        let header = [
            [1, 0, 0, 0],
            [0; 4],
            [1, 0, 0, 0],
            [0; 4],
            [0; 4],
            [0; 4],
            [0, 0, 1, 0],
        ];
        let mut frame = pattern(length);
        for header in [[].as_slice(), header.as_flattened()] {
            let end = (32 + header.len()).min(length);
            let begin = end.min(32);
            frame[begin..end].copy_from_slice(&header[..end - begin]);
            throw(&mut stranger, &mut group, &victim, &frame);
            expected += 1;
        }
    }
    let all = group.run_until(PATIENCE, |g| {
        g.transports[1].counters().rejected == expected
    });
    assert!(all, "{:?}", group.transports[1].counters());
    group.transports[0]
        .send(1, b"undisturbed", later())
        .unwrap();
    assert!(group.run_until(PATIENCE, |g| g.messages(1) == [b"undisturbed"]));
}

#[test]
fn bytes_that_no_provider_sends_change_nothing() {
    let mut group = libfabric_pair();
    let address = group.transports[1].addresses().remove(0);
    // A socket address: family, port in network order, IP address.
    let port = u16::from_be_bytes([address[2], address[3]]);
    for (round, length) in [0, 1, 16, 100, 4096, 100_000].into_iter().enumerate() {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nonblocking(true).unwrap();
        let noise: Vec<u8> = pattern(length + round).split_off(round);
        let _ = stream.write(&noise);
        // Some leave at once, some stay.
        let stream = (round % 2 == 0).then_some(stream);
        group.transports[0]
            .send(1, &[round as u8], later())
            .unwrap();
        assert!(
            group.run_until(PATIENCE, |g| g.messages(1) == [[round as u8]]),
            "{length}"
        );
        group.run_until(Duration::from_millis(50), |_| false);
        drop(stream);
    }
}

#[test]
fn a_recorded_frame_is_believed_once() {
    // Rank 0 takes the stranger's address for rank 1's; the stranger passes on what it gets.
    let mut group = libfabric_pair();
    let mut middle = stranger();
    let address = middle.address().to_vec();
    group.transports[0]
        .admit(1, session(0, 1, vec![address], 9))
        .unwrap();
    group.meet(1, 0, 9);
    group.transports[0].send(1, b"pay 100", later()).unwrap();
    let mut recorded = Vec::new();
    group.run_until(PATIENCE, |_| {
        while let Ok(Some(event)) = middle.next_event() {
            // The kind of a fragment.
            if let Completion::Message(frame) = event
                && frame[32] == 1
            {
                recorded = frame.to_vec();
            }
        }
        !recorded.is_empty()
    });
    let victim = group.transports[1].addresses().remove(0);
    for _ in 0..3 {
        throw(&mut middle, &mut group, &victim, &recorded);
    }
    assert!(group.run_until(PATIENCE, |g| g.transports[1].counters().rejected == 2));
    assert_eq!(group.messages(1), [b"pay 100"]);
    // Nor in another session.
    group.meet(1, 0, 10);
    throw(&mut middle, &mut group, &victim, &recorded);
    assert!(group.run_until(PATIENCE, |g| g.transports[1].counters().rejected >= 3));
    assert_eq!(group.messages(1), [[0; 0]; 0]);
}

#[test]
fn nothing_waits_for_an_absent_peer_beyond_its_deadline() {
    let mut group = libfabric_pair();
    let offer = group.transports[0]
        .offer(&file_of(&pattern(4096)), 0, 4096)
        .unwrap();
    group.transports[0].close(SOON);
    let begin = Instant::now();
    let deadline = begin + SOON;
    let _ = group.transports[1].send(0, b"anyone?", deadline);
    let target = Arc::new(file_of(b""));
    let fetch = Fetch {
        deadline,
        ..into_file(1, &offer, &target, 0, 4096)
    };
    assert_eq!(group.fetch(fetch), Some(Err(FetchError::Peer)));
    let idle = group.run_until(PATIENCE, |g| {
        g.transports[1].next_deadline().is_none_or(|d| d > deadline)
    });
    assert!(idle && begin.elapsed() < 3 * SOON, "{:?}", begin.elapsed());
    assert!(group.transports[1].counters().expired <= 1);
    group.transports[1].close(SOON);
}

#[test]
fn a_peer_that_stops_answers_after_it_goes_on() {
    let mut group = libfabric_pair();
    let source = file_of(&pattern(1 << 20));
    let target = Arc::new(file_of(b""));
    let offer = group.transports[0].offer(&source, 0, 1 << 20).unwrap();
    assert_eq!(
        group.fetch(into_file(1, &offer, &target, 0, 1 << 20)),
        Some(Ok(()))
    );
    // Rank 0 is not polled meanwhile.
    let deadline = Instant::now() + SOON;
    let fetch = Fetch {
        deadline,
        ..into_file(2, &offer, &target, 0, 1 << 20)
    };
    group.transports[1].fetch(0, fetch).unwrap();
    let mut events = Vec::new();
    while events.is_empty() {
        group.transports[1].poll(Instant::now(), &mut events);
        assert!(
            Instant::now() < deadline + SOON,
            "the fetch outlives its deadline"
        );
    }
    assert_eq!(
        events,
        [Event::Fetched {
            token: 2,
            result: Err(FetchError::Peer)
        }]
    );
    assert_eq!(
        group.fetch(into_file(3, &offer, &target, 0, 1 << 20)),
        Some(Ok(()))
    );
    assert_eq!(target.metadata().unwrap().len(), 1 << 20);
}

#[test]
fn what_was_queued_keeps_its_helper_awake_until_it_was_tried() {
    let mut group = libfabric_pair();
    let sleepy = |group: &mut Group| group.transports.iter_mut().all(|t| t.may_sleep());
    assert!(group.run_until(PATIENCE, sleepy));
    group.transports[0].send(1, b"hello", later()).unwrap();
    assert!(!group.transports[0].may_sleep());
    assert!(group.run_until(PATIENCE, |g| g.messages(1) == [b"hello"]));
}

#[test]
fn offers_are_spread_over_the_rails() {
    let rails = ["127.0.0.1", "127.0.0.2"];
    let mut group = Group::new(vec![
        Box::new(over_libfabric(0, &rails)),
        Box::new(over_libfabric(1, &rails)),
    ]);
    let bytes = pattern(3 << 20);
    let source = file_of(&bytes);
    let target = Arc::new(file_of(b""));
    let mut used = Vec::new();
    for chunk in 0..3 {
        let offer = group.transports[0]
            .offer(&source, chunk << 20, 1 << 20)
            .unwrap();
        used.push(offer.descriptor[0]);
        let fetch = into_file(chunk, &offer, &target, chunk << 20, 1 << 20);
        assert_eq!(group.fetch(fetch), Some(Ok(())));
    }
    assert_eq!(used, [0, 1, 0]);
    let mut written = Vec::new();
    let mut file = &*target;
    file.rewind().unwrap();
    file.read_to_end(&mut written).unwrap();
    assert!(written == bytes);
    let mut one = over_libfabric(2, &rails[..1]);
    assert!(one.describe()[0].contains("tcp"), "{:?}", one.describe());
    let error = one
        .admit(0, session(2, 0, group.transports[0].addresses(), 1))
        .unwrap_err();
    assert!(
        error.to_string().contains("2 interfaces and this helper 1"),
        "{error}"
    );
}
