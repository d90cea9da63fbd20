//! Transport and meeting together, between helpers of one process.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, unbounded};

use crate::fabric::libfabric::{Config as FabricConfig, LibfabricTransport, RailConfig};
use crate::fabric::{Event, Rank, Transport};
use crate::meeting::{
    Config as MeetingConfig, Event as Meet, Introduction, JobKey, Meeting, Patience,
};

/// One helper's way to the others.
struct Helper {
    meeting: Meeting,
    met: Receiver<Meet>,
    transport: LibfabricTransport,
    heard: HashMap<Rank, Vec<u8>>,
    lost: usize,
}

impl Helper {
    fn start(rank: Rank, incarnation: u32, key: &JobKey) -> Self {
        let rail = RailConfig {
            address: Some([127, 0, 0, 1].into()),
            device: None,
        };
        let config = FabricConfig {
            rank,
            provider: None,
            rails: vec![rail],
            peers: 4,
        };
        let transport = LibfabricTransport::open(&config)
            .unwrap_or_else(|error| panic!("this test needs libfabric: {error}"));
        let config = MeetingConfig {
            rank,
            key: key.clone(),
            introduction: Introduction {
                incarnation,
                addresses: transport.addresses(),
            },
            listen: "127.0.0.1:0".parse().unwrap(),
            patience: Patience::default(),
        };
        let (sender, met) = unbounded();
        let meeting = Meeting::start(config, sender, || {}).unwrap();
        Self {
            meeting,
            met,
            transport,
            heard: HashMap::new(),
            lost: 0,
        }
    }

    /// Greets whom it meets, and notes what it hears.
    fn step(&mut self) {
        for event in self.met.try_iter() {
            match event {
                Meet::Met { peer, session, .. } => {
                    self.transport.admit(peer, session).unwrap();
                    let greeting = [peer as u8; 100_000];
                    let deadline = Instant::now() + Duration::from_secs(10);
                    self.transport.send(peer, &greeting, deadline).unwrap();
                }
                Meet::Lost { peer, .. } => {
                    self.transport.dismiss(peer);
                    self.lost += 1;
                }
                Meet::Unreachable { .. } | Meet::Refused { .. } => {}
            }
        }
        let mut events = Vec::new();
        self.transport.poll(Instant::now(), &mut events);
        for event in events {
            match event {
                Event::Message { from, bytes } => {
                    self.heard.insert(from, bytes);
                }
                Event::Broken { peer } => self.meeting.renew(peer),
                Event::Fetched { .. } => panic!("nothing was fetched"),
            }
        }
    }
}

fn step_until(helpers: &mut [Helper], mut done: impl FnMut(&[Helper]) -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done(helpers) {
        helpers.iter_mut().for_each(Helper::step);
        assert!(Instant::now() < end, "it does not come about");
    }
}

#[test]
fn helpers_that_meet_hear_each_other_and_again_after_a_restart() {
    let key = JobKey::draw().unwrap();
    let mut helpers: Vec<Helper> = (0..3).map(|rank| Helper::start(rank, 1, &key)).collect();
    let port = helpers[0].meeting.address().port();
    for child in &helpers[1..] {
        child.meeting.seek(0, "localhost", port).unwrap();
    }
    let greeted = |helper: &Helper, own: u8, peer: Rank| {
        helper
            .heard
            .get(&peer)
            .is_some_and(|bytes| *bytes == [own; 100_000])
    };
    step_until(&mut helpers, |helpers| {
        greeted(&helpers[0], 0, 1)
            && greeted(&helpers[0], 0, 2)
            && greeted(&helpers[1], 1, 0)
            && greeted(&helpers[2], 2, 0)
    });
    helpers.iter_mut().for_each(|helper| helper.heard.clear());
    let mut ended = helpers.pop().unwrap();
    ended.transport.close(Duration::from_millis(100));
    drop(ended);
    step_until(&mut helpers, |helpers| helpers[0].lost == 1);
    helpers.push(Helper::start(2, 2, &key));
    helpers[2].meeting.seek(0, "localhost", port).unwrap();
    step_until(&mut helpers, |helpers| {
        greeted(&helpers[0], 0, 2) && greeted(&helpers[2], 2, 0)
    });
    assert_eq!(helpers[1].lost, 0);
}
