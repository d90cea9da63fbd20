//! What the transport costs on top of the provider: `scripts/bench/fabric.sh --transport`.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::libfabric::{Config, LibfabricTransport, RailConfig};
use super::{Event, Fetch, MessageKey, Offer, Rank, Session, Transport};

const PATIENCE: Duration = Duration::from_secs(30);
const CHUNK: usize = 1 << 20;
const WINDOW: usize = 4;
const REPEATS: usize = 5;

fn open(rank: Rank) -> LibfabricTransport {
    let rail = RailConfig {
        address: Some([127, 0, 0, 1].into()),
        device: None,
    };
    let config = Config {
        rank,
        provider: None,
        rails: vec![rail],
        peers: 1,
    };
    LibfabricTransport::open(&config).unwrap_or_else(|error| panic!("{error}"))
}

fn admit(own: Rank, transport: &mut LibfabricTransport, addresses: Vec<Vec<u8>>) {
    let key = |from: Rank| MessageKey([from as u8; 32]);
    let session = Session {
        addresses,
        send_key: key(own),
        receive_key: key(1 - own),
    };
    transport.admit(1 - own, session).unwrap();
}

fn wait(transport: &mut LibfabricTransport) {
    if transport.may_sleep() {
        let until = transport
            .next_deadline()
            .unwrap_or(Instant::now() + PATIENCE);
        let time = until
            .saturating_duration_since(Instant::now())
            .min(Duration::from_millis(100));
        let mut descriptors: Vec<PollFd<'_>> = transport
            .wait_descriptors()
            .into_iter()
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        poll(&mut descriptors, Some(&time.try_into().unwrap())).unwrap();
    }
}

/// Calls `handle` with every event until it returns true.
fn run(
    transport: &mut LibfabricTransport,
    mut handle: impl FnMut(&mut LibfabricTransport, Event) -> bool,
) {
    let end = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    loop {
        transport.poll(Instant::now(), &mut events);
        for event in events.drain(..) {
            if handle(transport, event) {
                return;
            }
        }
        wait(transport);
        assert!(Instant::now() < end, "nothing happens");
    }
}

/// Echoes messages; answers `b"offer"` with the descriptors of all chunks of a file.
fn serve(mut transport: LibfabricTransport, file: &File, ended: &AtomicBool) {
    let mut events = Vec::new();
    let mut offers: Vec<Offer> = Vec::new();
    while !ended.load(Ordering::Acquire) {
        transport.poll(Instant::now(), &mut events);
        for event in events.drain(..) {
            let Event::Message { from, mut bytes } = event else {
                panic!("{event:?}")
            };
            if bytes == b"offer" {
                offers
                    .drain(..)
                    .for_each(|offer| transport.withdraw(offer.id));
                let length = file.metadata().unwrap().len();
                offers = (0..length)
                    .step_by(CHUNK)
                    .map(|offset| transport.offer(file, offset, CHUNK).unwrap())
                    .collect();
                bytes = offers
                    .iter()
                    .flat_map(|offer| offer.descriptor.clone())
                    .collect();
            }
            transport
                .send(from, &bytes, Instant::now() + PATIENCE)
                .unwrap();
        }
        wait(&mut transport);
    }
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn half_round_trip(transport: &mut LibfabricTransport, size: usize) -> f64 {
    const TRIPS: u32 = 500;
    let message = vec![0; size];
    let mut left = TRIPS;
    let begin = Instant::now();
    transport.send(1, &message, begin + PATIENCE).unwrap();
    run(transport, |transport, event| {
        assert!(matches!(event, Event::Message { .. }));
        left -= 1;
        if left > 0 {
            transport
                .send(1, &message, Instant::now() + PATIENCE)
                .unwrap();
        }
        left == 0
    });
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(2 * TRIPS)
}

/// Fetches all chunks into a fresh file, a window of them at once; GB/s.
fn fetch_all(transport: &mut LibfabricTransport, length: usize) -> f64 {
    transport
        .send(1, b"offer", Instant::now() + PATIENCE)
        .unwrap();
    let mut descriptors = Vec::new();
    run(transport, |_, event| {
        let Event::Message { bytes, .. } = event else {
            panic!("{event:?}")
        };
        descriptors = bytes.chunks(25).map(<[u8]>::to_vec).collect();
        true
    });
    let begin = Instant::now();
    let file = Arc::new(tempfile::tempfile_in("/dev/shm").unwrap());
    let mut next = 0;
    let mut fetch = |transport: &mut LibfabricTransport| {
        if let Some(descriptor) = descriptors.get(next) {
            let fetch = Fetch {
                token: next as u64,
                descriptor: descriptor.clone(),
                file: file.clone(),
                position: (next * CHUNK) as u64,
                length: CHUNK,
                deadline: Instant::now() + PATIENCE,
            };
            transport.fetch(1, fetch).unwrap();
            next += 1;
        }
    };
    (0..WINDOW).for_each(|_| fetch(transport));
    let mut left = length / CHUNK;
    run(transport, |transport, event| {
        assert!(
            matches!(event, Event::Fetched { result: Ok(()), .. }),
            "{event:?}"
        );
        fetch(transport);
        left -= 1;
        left == 0
    });
    length as f64 * 1e-9 / begin.elapsed().as_secs_f64()
}

#[test]
#[ignore = "it measures"]
fn measure() {
    const LENGTH: usize = 256 << 20;
    let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
    file.write_all(&vec![7; LENGTH]).unwrap();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let (to_server, of_client) = std::sync::mpsc::channel();
        let (to_client, of_server) = std::sync::mpsc::channel();
        let (file, ended) = (&file, &ended);
        scope.spawn(move || {
            let mut transport = open(1);
            to_client.send(transport.addresses()).unwrap();
            admit(1, &mut transport, of_client.recv().unwrap());
            serve(transport, file, ended);
        });
        let mut transport = open(0);
        to_server.send(transport.addresses()).unwrap();
        admit(0, &mut transport, of_server.recv().unwrap());
        println!("{}", transport.describe()[0]);
        for size in [64, 1 << 10, 4 << 10, 64 << 10, 1 << 20] {
            half_round_trip(&mut transport, size);
            let samples = (0..REPEATS).map(|_| half_round_trip(&mut transport, size));
            println!(
                "half round trip, {size} B: {:.2} µs",
                median(samples.collect())
            );
        }
        let samples = (0..REPEATS).map(|_| fetch_all(&mut transport, LENGTH));
        println!(
            "fetches of 1 MiB, 4 at once: {:.2} GB/s",
            median(samples.collect())
        );
        ended.store(true, Ordering::Release);
    });
}
