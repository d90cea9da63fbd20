//! Half round trips of messages: the time from one process to the other.

use std::time::{Duration, Instant};

use libfabric_sys::{Access, Endpoint, EndpointConfig, Event, Memory, PostError, Region};

use crate::common::{Client, PATIENCE, PING, config};
use crate::{Figure, OtherProcess, server};

const SIZES: [usize; 6] = [64, 1 << 10, 4 << 10, 64 << 10, 1 << 20, 4 << 20];
const LARGEST: usize = 4 << 20;
/// Round trips per measurement: for this many bytes, within bounds.
const BYTES: usize = 64 << 20;

/// Half round trips, both sides sleeping, and both spinning where each has a core to spin on.
pub(crate) fn measure(
    provider: &str,
    repeats: usize,
    other: &OtherProcess,
    note: &mut impl FnMut(Figure),
) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    for spin in [false, true].into_iter().filter(|&spin| !spin || cores > 1) {
        let server = server(provider, LARGEST, spin, other);
        let mut client = Client::with(&EndpointConfig {
            message_size: LARGEST,
            receives: 8,
            sends: 1,
            ..config(provider)
        });
        let peer = client.greet(&server);
        let memory = Memory::anonymous(LARGEST).expect("memory");
        memory.copy_in(0, &vec![PING; LARGEST]);
        let ping = client
            .endpoint
            .register(memory, Access::Local)
            .expect("a registration");
        for size in SIZES {
            let trips = (BYTES / size).clamp(20, 2000);
            let mut trip = || round_trip(&mut client.endpoint, peer, &ping, size, spin);
            for _ in 0..trips / 10 {
                trip();
            }
            let samples = (0..repeats)
                .map(|_| {
                    let begin = Instant::now();
                    for _ in 0..trips {
                        trip();
                    }
                    begin.elapsed().as_secs_f64() * 1e6 / (2 * trips) as f64
                })
                .collect();
            let waiting = if spin { "spinning" } else { "sleeping" };
            note(Figure::new(
                format!("half round trip, {size} B, {waiting}"),
                samples,
                "µs",
            ));
        }
    }
}

fn round_trip(
    endpoint: &mut Endpoint,
    peer: libfabric_sys::Peer,
    ping: &Region,
    size: usize,
    spin: bool,
) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = endpoint.send_region(peer, ping, 0, size, 0, deadline) {
        assert_eq!(error, PostError::Again);
        endpoint.next_event().expect("an event");
    }
    // Both the answer and the send's own event: one may come before the other.
    let (mut answered, mut sent) = (false, false);
    while !(answered && sent) {
        match endpoint.next_event().expect("an event") {
            Some(Event::Message(bytes)) => {
                assert_eq!(bytes.len(), size);
                answered = true;
            }
            Some(Event::Sent { .. }) => sent = true,
            Some(other) => panic!("{other:?}"),
            None => {
                assert!(Instant::now() < deadline, "no answer");
                if !spin {
                    endpoint.wait(Duration::from_secs(1)).expect("a wait");
                }
            }
        }
    }
}
