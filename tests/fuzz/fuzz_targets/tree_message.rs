//! Any bytes as messages from peers: a decoder that refuses or reads exactly what was written, and a
//! node that neither panics nor grows, whatever well-formed nonsense it is told.
//!
//! The input is a sequence of frames: who sends, how much time went by, how long, and the message.
#![no_main]

use copper_core::tree::{
    Actions, Event, Kind, Message, Node, Object, OriginReply, OriginRequest, Plan, Settings, Time, Topology,
    TransferError, Waiter,
};
use copper_core::tree::{Action, Outcome};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use std::time::Duration;

const NODES: u32 = 9;

fuzz_target!(|input: &[u8]| {
    let settings = Settings {
        open: 16,
        credits: 8,
        waiters: 16,
        inline_limit: 64,
        chunk: 64,
        patience: Duration::from_secs(4),
        ..Settings::default()
    };
    let topology = Topology::new(NODES, 3, 2).expect("a valid shape");
    let mut node = Node::new(Arc::new(Plan { topology, settings }), 1, 7).expect("a rank of the job");
    let mut actions = Actions::new();
    let mut now = 0_u64;
    let mut rest = input;
    while let [from, step, length, tail @ ..] = rest {
        let length = usize::from(*length).min(tail.len());
        let (frame, after) = tail.split_at(length);
        rest = after;
        now += u64::from(*step) * 10_000_000;
        let event = match *from % 16 {
            from @ 0..12 => match Message::decode(frame) {
                Ok((message, attachment)) => {
                    reads_back(&message, attachment);
                    Event::Message { from: u32::from(from), message }
                }
                Err(_) => Event::Timer,
            },
            12 | 13 => ask(frame, now),
            _ => Event::Timer,
        };
        node.handle(Time(now), event, &mut actions);
        respond(&mut node, &mut actions, now, frame.len());
        let load = node.load();
        assert!(load.open + load.partial <= 16 && load.waiters <= 16 && load.waves <= 512, "{load:?}");
        assert!(load.peers <= u64::from(NODES) * 8 * 3, "{load:?}");
    }
});

/// What was decoded is what its own encoding decodes to.
fn reads_back(message: &Message, attachment: &[u8]) {
    let mut wire = Vec::new();
    message.encode(&mut wire);
    wire.extend_from_slice(attachment);
    let (again, same) = Message::decode(&wire).expect("an encoded message decodes");
    assert!(again == *message && same == attachment);
}

fn ask(frame: &[u8], now: u64) -> Event {
    let kind = Kind::ALL[frame.len() % Kind::ALL.len()];
    let path = [&b"/"[..], &frame[..frame.len().min(2)]].concat();
    let object = Object::new(kind, &path).or_else(|_| Object::new(kind, b"/a")).expect("a canonical path");
    Event::Ask { waiter: Waiter(now), object, deadline: Time(now + 1_000_000_000) }
}

/// Plays the driver: what the origin and transfers bring follows from the input too.
fn respond(node: &mut Node, actions: &mut Actions, now: u64, choice: usize) {
    for _ in 0..4 {
        let todo = std::mem::take(actions);
        for action in todo {
            let event = match action {
                Action::AskOrigin { id, request: OriginRequest::Look { .. } } => {
                    let reply = match choice % 4 {
                        0 => OriginReply::Failed { errno: 5 },
                        1 => OriginReply::Known(Outcome::Absent { errno: 2 }),
                        _ => {
                            let length = choice as u64 * 16;
                            let outcome = Outcome::Present { version: Default::default(), length };
                            OriginReply::Known(outcome)
                        }
                    };
                    Event::Origin { id, reply }
                }
                Action::AskOrigin { id, .. } => {
                    let reply = if choice % 3 == 0 { OriginReply::Changed } else { OriginReply::Stored };
                    Event::Origin { id, reply }
                }
                Action::Transfer { id, .. } => {
                    let result = if choice % 5 == 0 { Err(TransferError::Peer) } else { Ok(()) };
                    Event::Transferred { id, result }
                }
                _ => continue,
            };
            node.handle(Time(now), event, actions);
        }
    }
    actions.clear();
}
