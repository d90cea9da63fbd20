//! Helpers that meet, strangers that do not, and how ends are noticed.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, unbounded};

use super::{Config, Event, Introduction, JobKey, Meeting, Patience};
use crate::fabric::{Rank, Session};

const PATIENCE: Duration = Duration::from_secs(20);

fn key() -> JobKey {
    JobKey::draw().unwrap()
}

fn config(rank: Rank, key: &JobKey) -> Config {
    Config {
        rank,
        key: key.clone(),
        introduction: Introduction {
            incarnation: 7 + rank,
            addresses: vec![vec![rank as u8; 16]],
        },
        listen: "127.0.0.1:0".parse().unwrap(),
        patience: Patience {
            handshake: Duration::from_millis(500),
            heartbeat: Duration::from_millis(100),
            silence: Duration::from_millis(500),
            ..Patience::default()
        },
    }
}

struct Helper {
    meeting: Meeting,
    events: Receiver<Event>,
}

impl Helper {
    fn start(config: Config) -> Self {
        let (sender, events) = unbounded();
        Self {
            meeting: Meeting::start(config, sender, || {}).unwrap(),
            events,
        }
    }

    fn port(&self) -> u16 {
        self.meeting.address().port()
    }

    fn next(&self) -> Event {
        self.events
            .recv_timeout(PATIENCE)
            .expect("something happens")
    }

    /// The next meeting with that peer: its number and what was agreed on.
    fn met(&self, wanted: Rank) -> (u64, Session) {
        loop {
            match self.next() {
                Event::Met {
                    peer,
                    number,
                    incarnation,
                    session,
                } => {
                    assert_eq!((peer, incarnation), (wanted, 7 + wanted));
                    assert_eq!(session.addresses, [[wanted as u8; 16]]);
                    return (number, session);
                }
                Event::Unreachable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn lost(&self, wanted: Rank) -> String {
        loop {
            match self.next() {
                Event::Lost { peer, reason, .. } => {
                    assert_eq!(peer, wanted);
                    return reason;
                }
                Event::Unreachable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn unreachable(&self) -> String {
        match self.next() {
            Event::Unreachable { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&self) -> String {
        match self.next() {
            Event::Refused { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.meeting.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// A parent of rank 0 and a child of rank 1 that seeks it.
fn family() -> (Helper, Helper) {
    let key = key();
    let (parent, child) = (
        Helper::start(config(0, &key)),
        Helper::start(config(1, &key)),
    );
    child.meeting.seek(0, "localhost", parent.port()).unwrap();
    (parent, child)
}

#[test]
fn two_helpers_agree_on_secrets_that_nobody_else_has() {
    let (parent, child) = family();
    let ((_, above), (_, below)) = (parent.met(1), child.met(0));
    assert_eq!(above.send_key.0, below.receive_key.0);
    assert_eq!(above.receive_key.0, below.send_key.0);
    assert_ne!(above.send_key.0, above.receive_key.0);
    let (other_parent, _other_child) = family();
    assert_ne!(above.send_key.0, other_parent.met(1).1.send_key.0);
}

#[test]
fn sixty_children_meet_one_parent() {
    let key = key();
    let parent = Helper::start(config(0, &key));
    let begin = Instant::now();
    let children: Vec<Helper> = (1..=60)
        .map(|rank| Helper::start(config(rank, &key)))
        .collect();
    for child in &children {
        child.meeting.seek(0, "127.0.0.1", parent.port()).unwrap();
    }
    let mut met: Vec<Rank> = (0..60)
        .map(|_| match parent.next() {
            Event::Met { peer, .. } => peer,
            other => panic!("{other:?}"),
        })
        .collect();
    met.sort_unstable();
    assert!(met.into_iter().eq(1..=60));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_child_that_starts_first_waits_for_its_parent() {
    let key = key();
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let child = Helper::start(config(1, &key));
    child.meeting.seek(0, "127.0.0.1", address.port()).unwrap();
    let reason = child.unreachable();
    assert!(reason.contains("refused"), "{reason}");
    let parent = Helper::start(Config {
        listen: address,
        ..config(0, &key)
    });
    parent.met(1);
    child.met(0);
}

#[test]
fn the_end_of_a_helper_is_noticed_at_once_and_its_restart_too() {
    let (mut parent, child) = family();
    let first = child.met(0);
    let again = config(0, &parent.meeting.shared.config.key);
    let again = Config {
        listen: parent.meeting.address(),
        ..again
    };
    let begin = Instant::now();
    drop(parent);
    let reason = child.lost(0);
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    assert!(reason.contains("ended"), "{reason}");
    // The old listener may take a moment to let go of the port.
    parent = loop {
        let (sender, events) = unbounded();
        match Meeting::start(again.clone(), sender, || {}) {
            Ok(meeting) => break Helper { meeting, events },
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    };
    let second = child.met(0);
    assert!(second.0 > first.0);
    assert_ne!(second.1.send_key.0, first.1.send_key.0);
    parent.met(1);
}

#[test]
fn a_forsaken_peer_is_told_so_and_not_sought_again() {
    let (parent, child) = family();
    child.met(0);
    parent.met(1);
    child.meeting.forsake(0);
    child.lost(0);
    parent.lost(1);
    assert!(
        parent
            .events
            .recv_timeout(Duration::from_millis(300))
            .is_err()
    );
}

#[test]
fn two_helpers_meet_anew_when_either_asks_for_it() {
    let (parent, child) = family();
    let mut keys = Vec::new();
    for asks in [Some(&parent), Some(&child), None] {
        let ((_, above), (_, below)) = (parent.met(1), child.met(0));
        assert_eq!(above.send_key.0, below.receive_key.0);
        assert!(!keys.contains(&above.send_key.0));
        keys.push(above.send_key.0);
        if let Some(helper) = asks {
            helper
                .meeting
                .renew(if std::ptr::eq(helper, &parent) { 1 } else { 0 });
            parent.lost(1);
            child.lost(0);
        }
    }
}

#[test]
fn who_does_not_know_the_key_is_refused() {
    let parent = Helper::start(config(0, &key()));
    let child = Helper::start(config(1, &key()));
    child.meeting.seek(0, "127.0.0.1", parent.port()).unwrap();
    let reason = child.unreachable();
    assert!(reason.contains("does not know this job's key"), "{reason}");
    let reason = parent.refused();
    assert!(reason.contains("closed") || reason.contains("end of file") || reason.contains("fill"));
    assert!(
        child
            .events
            .recv_timeout(Duration::from_millis(300))
            .is_err(),
        "said twice"
    );
}

#[test]
fn who_is_not_the_expected_rank_is_refused() {
    let key = key();
    let parent = Helper::start(config(5, &key));
    let child = Helper::start(config(1, &key));
    child.meeting.seek(0, "127.0.0.1", parent.port()).unwrap();
    for reason in [child.unreachable(), parent.refused()] {
        assert!(
            reason.contains("rank") && reason.contains("twice"),
            "{reason}"
        );
    }
    parent.meeting.seek(5, "127.0.0.1", parent.port()).unwrap();
    loop {
        if let Event::Unreachable { peer: 5, reason } = parent.next() {
            assert!(
                reason.contains("rank") || reason.contains("connection"),
                "{reason}"
            );
            break;
        }
    }
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let child = Helper::start(config(1, &key()));
    child.meeting.seek(0, "no-such-host.invalid", 1).unwrap();
    let reason = child.unreachable();
    assert!(
        reason.contains("no-such-host.invalid does not resolve"),
        "{reason}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let first = Helper::start(config(0, &key()));
    let listen = first.meeting.address();
    let (sender, _events) = unbounded();
    let error = Meeting::start(
        Config {
            listen,
            ..config(1, &key())
        },
        sender,
        || {},
    )
    .unwrap_err();
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}

#[test]
fn strangers_are_refused_and_do_not_hinder_others() {
    let (parent, child) = family();
    parent.met(1);
    child.met(0);
    let noise: Vec<u8> = (0..100_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 9) as u8)
        .collect();
    let mut version = b"CopperMt".to_vec();
    version.extend_from_slice(&2u32.to_le_bytes());
    version.resize(52, 0);
    let mut hello = b"CopperMt".to_vec();
    for number in [1u32, 9, 0] {
        hello.extend_from_slice(&number.to_le_bytes());
    }
    hello.resize(52 + 32, 0);
    for (bytes, expected) in [
        (&noise[..], "not a Copper helper"),
        (
            b"GET / HTTP/1.1\r\nHost: example\r\n\r\nmore than a hello is long",
            "not a Copper helper",
        ),
        (&version, "version 2"),
        (&hello, "does not know this job's key"),
    ] {
        let mut stream = parent.connect();
        let _ = stream.write_all(bytes);
        let reason = parent.refused();
        assert!(reason.contains(expected), "{reason}");
    }
    // Silent ones, and those that trickle, are let go by the deadline, and hold up nobody.
    let begin = Instant::now();
    let mut silent: Vec<TcpStream> = (0..100).map(|_| parent.connect()).collect();
    let trickling = AtomicBool::new(true);
    thread::scope(|scope| {
        let (first, _) = silent.split_first_mut().unwrap();
        scope.spawn(|| {
            for byte in &hello {
                if !trickling.load(Ordering::Acquire) || first.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        let other = Helper::start(config(2, &parent.meeting.shared.config.key));
        other.meeting.seek(0, "127.0.0.1", parent.port()).unwrap();
        other.met(0);
        parent.met(2);
        assert!(
            begin.elapsed() < Duration::from_millis(400),
            "{:?}",
            begin.elapsed()
        );
        for _ in 0..100 {
            let reason = parent.refused();
            assert!(reason.contains("in time"), "{reason}");
        }
        trickling.store(false, Ordering::Release);
        assert!(
            begin.elapsed() < Duration::from_secs(3),
            "{:?}",
            begin.elapsed()
        );
    });
}

/// Passes bytes on between a child and its parent, recording the child's, until it is frozen.
struct Middle {
    address: SocketAddr,
    frozen: Arc<AtomicBool>,
    corrupting: Arc<AtomicBool>,
    recorded: Arc<Mutex<Vec<u8>>>,
}

impl Middle {
    fn before(parent: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let middle = Self {
            address: listener.local_addr().unwrap(),
            frozen: Arc::default(),
            corrupting: Arc::default(),
            recorded: Arc::default(),
        };
        let flags = [middle.frozen.clone(), middle.corrupting.clone()];
        let recorded = middle.recorded.clone();
        thread::spawn(move || {
            let (child, _) = listener.accept().unwrap();
            let parent = TcpStream::connect(parent).unwrap();
            let (from, to) = (child.try_clone().unwrap(), parent.try_clone().unwrap());
            let same_flags = flags.clone();
            let note = move |bytes: &[u8]| recorded.lock().unwrap().extend_from_slice(bytes);
            thread::spawn(move || pass(from, to, &same_flags, note));
            pass(parent, child, &flags, |_| {});
        });
        middle
    }
}

fn pass(
    mut from: TcpStream,
    mut to: TcpStream,
    [frozen, corrupting]: &[Arc<AtomicBool>; 2],
    note: impl Fn(&[u8]),
) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while frozen.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(5));
        }
        note(&bytes[..count]);
        bytes[count - 1] ^= u8::from(corrupting.load(Ordering::Acquire));
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn family_with_middle() -> (Helper, Helper, Middle) {
    let key = key();
    let (parent, child) = (
        Helper::start(config(0, &key)),
        Helper::start(config(1, &key)),
    );
    let middle = Middle::before(parent.meeting.address());
    child
        .meeting
        .seek(0, "127.0.0.1", middle.address.port())
        .unwrap();
    parent.met(1);
    child.met(0);
    (parent, child, middle)
}

#[test]
fn silence_is_noticed_and_life_is_not_mistaken_for_it() {
    let (parent, child, middle) = family_with_middle();
    let quiet = Duration::from_millis(1500);
    assert!(
        parent.events.recv_timeout(quiet).is_err(),
        "an idle peer was lost"
    );
    assert!(child.events.try_recv().is_err(), "an idle peer was lost");
    middle.frozen.store(true, Ordering::Release);
    let begin = Instant::now();
    for reason in [parent.lost(1), child.lost(0)] {
        assert!(
            reason.contains("no sign of life") || reason.contains("ended"),
            "{reason}"
        );
    }
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    middle.frozen.store(false, Ordering::Release);
}

#[test]
fn a_recorded_conversation_is_of_no_use() {
    let (parent, _child, middle) = family_with_middle();
    let recorded = middle.recorded.lock().unwrap().clone();
    assert!(recorded.len() > 84 + 16);
    let mut stream = parent.connect();
    stream.write_all(&recorded).unwrap();
    let reason = parent.refused();
    assert!(reason.contains("does not know this job's key"), "{reason}");
    assert!(
        parent
            .events
            .recv_timeout(Duration::from_millis(200))
            .is_err(),
        "the child was lost"
    );
}

#[test]
fn a_helpers_own_proof_is_of_no_use_against_it() {
    // A stranger connects to a parent twice and hands the one what the other says.
    let parent = Helper::start(config(0, &key()));
    let (mut one, mut two) = (parent.connect(), parent.connect());
    let mut hello = b"CopperMt".to_vec();
    for number in [1u32, 1, 0] {
        hello.extend_from_slice(&number.to_le_bytes());
    }
    hello.extend_from_slice(&[5; 32]);
    one.write_all(&hello).unwrap();
    let mut answer = [0; 52 + 32];
    one.read_exact(&mut answer).unwrap();
    // The same hello, with the parent's own random bytes, so that hellos are alike.
    hello[20..].copy_from_slice(&answer[20..52]);
    two.write_all(&hello).unwrap();
    let mut second = [0; 52 + 32];
    two.read_exact(&mut second).unwrap();
    one.write_all(&second[52..]).unwrap();
    two.write_all(&answer[52..]).unwrap();
    for _ in 0..2 {
        assert!(parent.refused().contains("does not know this job's key"));
    }
}

#[test]
fn a_changed_byte_ends_the_session() {
    let (parent, child, middle) = family_with_middle();
    middle.corrupting.store(true, Ordering::Release);
    let reasons = [parent.lost(1), child.lost(0)];
    assert!(
        reasons
            .iter()
            .any(|reason| reason.contains("broke the protocol")),
        "{reasons:?}"
    );
}

#[test]
fn a_helper_that_comes_again_takes_the_place_of_its_former_self() {
    let key = key();
    let parent = Helper::start(config(0, &key));
    let start = |incarnation| {
        let introduction = Introduction {
            incarnation,
            addresses: vec![vec![1; 16]],
        };
        let child = Helper::start(Config {
            introduction,
            ..config(1, &key)
        });
        child.meeting.seek(0, "127.0.0.1", parent.port()).unwrap();
        child
    };
    let old = start(8);
    let (first, _) = parent.met(1);
    old.met(0);
    let introduction = Introduction {
        incarnation: 9,
        addresses: vec![],
    };
    let new = Helper::start(Config {
        introduction,
        ..config(1, &key)
    });
    new.meeting.seek(0, "127.0.0.1", parent.port()).unwrap();
    new.met(0);
    old.lost(0);
    let mut lost = None;
    let mut refused = None;
    let mut met = false;
    while lost.is_none() || refused.is_none() {
        match parent.next() {
            Event::Met {
                peer: 1,
                incarnation,
                ..
            } => {
                assert!(incarnation == 9 && !met, "the old one was let in again");
                met = true;
            }
            Event::Lost {
                peer: 1, number, ..
            } => lost = Some(number),
            Event::Refused { from, reason } => {
                assert!(
                    from.ip().is_loopback() && reason.contains("later helper"),
                    "{reason}"
                );
                refused = Some(reason);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lost, Some(first));
    assert!(new.events.try_recv().is_err(), "the new one was disturbed");
}
