//! A stranger who can reach the helpers' fabric ports and reads with guessed keys gets no byte, and
//! the job goes on.

use crate::fixture::ONE_TREE;
use copper_tests::cluster::{Cluster, Job, Wishes, ranks};
use copper_tests::compare::Outcome;
use copper_tests::tree;
use libfabric_sys::{Access, Endpoint, EndpointConfig, Event, Memory, RemoteRegion};
use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the stranger is to guess: `IP:PORT`, several separated by blanks.
const TARGETS: &str = "COPPER_TEST_TARGETS";
/// The stranger's own address.
const OWN: &str = "COPPER_TEST_OWN_ADDRESS";
/// The node beside the job's.
const OUTSIDE: usize = 2;
const GUESSES: u64 = 20;
const LENGTH: usize = 4096;

/// `sockaddr_in`, the provider's form of an address.
fn socket_address(address: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut bytes = 2_u16.to_ne_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend(address.octets());
    bytes.extend([0; 8]);
    bytes
}

/// Reads with one guessed key; gives whether bytes came.
fn guess(own: Ipv4Addr, target: &[u8], key: u64) -> bool {
    let mut endpoint = Endpoint::open(&EndpointConfig {
        provider: None,
        address: Some(own.into()),
        device: None,
        port: 0,
        message_size: 4096,
        receives: 4,
        sends: 4,
        reads: 4,
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let memory = Memory::anonymous(LENGTH).unwrap();
    let region = endpoint.register(memory, Access::Local).unwrap();
    let peer = endpoint.insert(target).unwrap();
    let source = RemoteRegion {
        address: 0,
        key,
        length: LENGTH as u64,
    };
    let end = Instant::now() + Duration::from_secs(2);
    let mut posted = false;
    let mut came = false;
    while Instant::now() < end {
        posted |= !posted
            && endpoint
                .read(peer, &source, 0, &region, 0, LENGTH, 1, end)
                .is_ok();
        match endpoint.next_event() {
            Ok(Some(Event::Read { .. })) => {
                came = true;
                break;
            }
            Ok(Some(Event::Failed { .. })) | Err(_) => break,
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    let mut bytes = [0; LENGTH];
    region.memory().copy_out(0, &mut bytes);
    came || bytes.iter().any(|&byte| byte != 0)
}

#[test]
#[ignore = "it is the stranger of reads_with_guessed_keys_get_nothing, on a node of its own"]
fn stranger() {
    let own: Ipv4Addr = std::env::var(OWN).unwrap().parse().unwrap();
    let mut tried = 0;
    for target in std::env::var(TARGETS).unwrap().split(' ') {
        let (address, port) = target.split_once(':').unwrap();
        let target = socket_address(address.parse().unwrap(), port.parse().unwrap());
        for number in 0..GUESSES {
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert!(!guess(own, &target, key), "key {key} was right");
            tried += 1;
        }
    }
    println!("tried {tried} keys");
}

fn fabric_ports(cluster: &Cluster, node: usize, meeting: &str) -> Vec<String> {
    let listing = cluster.shell(node, "ss -Hltn | awk '{ print $4 }'");
    let ports = listing.lines().filter_map(|line| line.rsplit(':').next());
    ports
        .filter(|port| *port != meeting)
        .map(str::to_owned)
        .collect()
}

#[test]
fn reads_with_guessed_keys_get_nothing() {
    const PORT: &str = "23458";
    let cluster = Cluster::up(3);
    let source = cluster.place().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("long"), tree::pattern(60_000_000, 5)).unwrap();
    let origin = cluster.origin("origin", &source);
    let mut wishes = Wishes::arguments(&ONE_TREE);
    wishes.arguments.extend(["--port".into(), PORT.into()]);
    wishes.nodes = 2;
    let job = Job::start(&cluster, &[origin.mount()], wishes);
    let mut targets = Vec::new();
    for node in 0..2 {
        for port in fabric_ports(&cluster, node, PORT) {
            targets.push(format!("10.77.0.{}:{port}", node + 1));
        }
    }
    assert!(!targets.is_empty(), "no helper has a fabric port");
    let sum = |mut command: Command| {
        command
            .args(["-c", "cksum \"$0\""])
            .arg(origin.mount().join("long"));
        command
    };
    let plain = Outcome::of(&mut sum(job.plain(0, "sh")));
    let readers = (0..2).map(|node| sum(job.rank(node, "sh"))).collect();
    let ended = ranks::run_during(readers, || {
        let mut stranger = cluster.command(OUTSIDE, std::env::current_exe().unwrap());
        stranger
            .args(["--exact", "guessing::stranger", "--ignored", "--nocapture"])
            .env(TARGETS, targets.join(" "))
            .env(OWN, format!("10.77.0.{}", OUTSIDE + 1));
        let outcome = Outcome::of(&mut stranger);
        assert!(outcome.status.success(), "{outcome:?}");
        assert!(outcome.text().contains("tried"), "{outcome:?}");
    });
    ranks::must_equal(&ended, &plain, "while a stranger guesses keys");
    job.refresh(0, origin.mount());
    let readers = (0..2).map(|node| sum(job.rank(node, "sh"))).collect();
    let ended = ranks::run_during(readers, || ());
    ranks::must_equal(&ended, &plain, "after a stranger has guessed keys");
    assert!(job.missing(0).is_empty());
}
