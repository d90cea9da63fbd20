//! Two processes over every provider that works here: messages, reads, and what goes wrong.

mod common;

use std::io::{Read, Seek};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Client, PATIENCE, Server, config, pattern, providers, tmpfs_file};
use libfabric_sys::{Access, Closed, Endpoint, Mapping, Memory, PostError, RemoteRegion};

/// Within this, a failure must be known: ours to decide, by the deadline of each operation.
const DEADLINE: Duration = Duration::from_millis(500);

#[test]
#[ignore = "it is the other process of these tests"]
fn peer_process() {
    common::serve();
}

#[test]
fn messages_of_every_size_come_back_unchanged() {
    for provider in providers() {
        let server = Server::of_this_test(&provider);
        let mut client = Client::open(&provider);
        let peer = client.greet(&server);
        for size in [0, 1, 63, 64, 65, 4096, 16_383] {
            let payload: Vec<u8> = (0..size).map(pattern).collect();
            assert_eq!(
                client.echo(peer, &payload),
                payload,
                "{provider}, {size} bytes"
            );
        }
        assert_eq!(
            client.endpoint.close(PATIENCE),
            Closed::Orderly,
            "{provider}"
        );
    }
}

#[test]
fn a_window_of_messages_arrives_complete_and_in_order() {
    const MESSAGES: u64 = 20_000;
    const WINDOW: u64 = 32;
    for provider in providers() {
        let server = Server::of_this_test(&provider);
        let mut client = Client::open(&provider);
        let peer = client.greet(&server);
        let mut answered = 0;
        for sent in 0..MESSAGES {
            client.send(peer, &[b"E".as_slice(), &sent.to_le_bytes()].concat(), sent);
            let due = if sent + 1 == MESSAGES {
                MESSAGES
            } else {
                (sent + 1).saturating_sub(WINDOW)
            };
            while answered < due {
                assert!(
                    client.wait_for(PATIENCE, |c| !c.messages.is_empty()),
                    "{provider}"
                );
                for message in std::mem::take(&mut client.messages) {
                    assert_eq!(message[1..], answered.to_le_bytes(), "{provider}");
                    answered += 1;
                }
            }
        }
        assert_eq!(answered, MESSAGES);
    }
}

#[test]
fn reads_fill_a_fresh_file_on_tmpfs() {
    for provider in providers() {
        let server = Server::of_this_test(&provider);
        let mut client = Client::open(&provider);
        let peer = client.greet(&server);
        for (length, chunk) in [
            (1 << 20, 1 << 20),
            ((8 << 20) + 13, 1 << 20),
            (64 << 20, 4 << 20),
        ] {
            let source = client.expose(peer, length);
            let mut file = tmpfs_file(length);
            let memory = Memory::map(&file, 0, length, Mapping::ReadWrite).unwrap();
            let region = client.endpoint.register(memory, Access::Local).unwrap();
            client.read_all(peer, &source, &region, chunk);
            client.withdraw(peer);
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            let expected: Vec<u8> = (0..1 << 20).map(pattern).collect();
            let same = bytes
                .chunks(1 << 20)
                .all(|block| *block == expected[..block.len()]);
            assert!(bytes.len() == length && same, "{provider}, {length} bytes");
        }
        assert_eq!(
            client.endpoint.close(PATIENCE),
            Closed::Orderly,
            "{provider}"
        );
    }
}

/// A client with one local region and one of the server's, both of that length.
fn with_regions(
    provider: &str,
    length: usize,
) -> (
    Server,
    Client,
    libfabric_sys::Peer,
    RemoteRegion,
    libfabric_sys::Region,
) {
    let server = Server::of_this_test(provider);
    let mut client = Client::open(provider);
    let peer = client.greet(&server);
    let source = client.expose(peer, length);
    let memory = Memory::anonymous(length).unwrap();
    let region = client.endpoint.register(memory, Access::Local).unwrap();
    client.finished.clear();
    (server, client, peer, source, region)
}

#[test]
fn a_read_with_a_wrong_or_withdrawn_key_fails() {
    const LENGTH: usize = 1 << 20;
    for provider in providers() {
        for withdrawn in [false, true] {
            let (_server, mut client, peer, mut source, region) = with_regions(&provider, LENGTH);
            if withdrawn {
                client.withdraw(peer);
            } else {
                source.key ^= 1;
            }
            client.finished.clear();
            client
                .post(PATIENCE, |endpoint, _| {
                    let deadline = Instant::now() + DEADLINE;
                    endpoint.read(peer, &source, 0, &region, 0, LENGTH, 1, deadline)
                })
                .unwrap();
            let failed = client.wait_for(2 * DEADLINE, |c| c.finished.contains_key(&1));
            assert!(
                failed,
                "{provider}: the read neither failed nor was it refused"
            );
            assert!(
                client.finished[&1].is_err(),
                "{provider}: {:?}",
                client.finished[&1]
            );
            let mut bytes = vec![1; LENGTH];
            region.memory().copy_out(0, &mut bytes);
            assert!(
                bytes.iter().all(|&byte| byte == 0),
                "{provider}: bytes leaked"
            );
        }
    }
}

#[test]
fn a_read_beyond_the_region_fails() {
    for provider in providers() {
        let (_server, mut client, peer, mut source, region) = with_regions(&provider, 1 << 20);
        source.length *= 2;
        client
            .post(PATIENCE, |endpoint, _| {
                let deadline = Instant::now() + DEADLINE;
                endpoint.read(peer, &source, 1 << 19, &region, 0, 1 << 20, 1, deadline)
            })
            .unwrap();
        assert!(
            client.wait_for(2 * DEADLINE, |c| c.finished.contains_key(&1)),
            "{provider}"
        );
        assert!(client.finished[&1].is_err(), "{provider}");
    }
}

#[test]
fn a_peer_killed_during_reads_is_noticed_by_the_deadline() {
    const LENGTH: usize = 4 << 20;
    const READS: u64 = 8;
    for provider in providers() {
        let (mut server, mut client, peer, source, region) = with_regions(&provider, LENGTH);
        let mut token = 0;
        let mut read = |client: &mut Client| {
            token += 1;
            client
                .endpoint
                .read(
                    peer,
                    &source,
                    0,
                    &region,
                    0,
                    LENGTH,
                    token,
                    Instant::now() + DEADLINE,
                )
                .is_ok()
        };
        while client.endpoint.outstanding() < READS as usize {
            read(&mut client);
            client.note_events();
        }
        server.kill();
        let killed = Instant::now();
        // What was in the socket may still complete; new reads must not.
        let ended = client.wait_for(2 * DEADLINE, |client| {
            let live = client.endpoint.next_deadline().is_some();
            client.endpoint.expire(Instant::now());
            !live
        });
        assert!(
            ended,
            "{provider}: reads of a dead peer are neither failed nor expired"
        );
        assert!(killed.elapsed() < 2 * DEADLINE, "{provider}");
        client.finished.clear();
        let mut posted = 0;
        client.wait_for(DEADLINE / 2, |client| {
            posted += usize::from(read(client));
            false
        });
        client.wait_for(2 * DEADLINE, |client| {
            client.endpoint.expire(Instant::now());
            client.endpoint.next_deadline().is_none()
        });
        assert!(
            client.finished.values().all(Result::is_err),
            "{provider}: read from the dead"
        );
        client.endpoint.close(DEADLINE);
    }
}

#[test]
fn an_idle_peers_death_is_found_by_the_next_message() {
    for provider in providers() {
        let mut server = Server::of_this_test(&provider);
        let mut client = Client::open(&provider);
        let peer = client.greet(&server);
        server.kill();
        client.finished.clear();
        let end = Instant::now() + DEADLINE;
        let mut tokens = 0..;
        // The first messages may still go into the socket's buffer.
        let found = client.wait_for(2 * DEADLINE, |client| {
            let token = tokens.next().expect("endless");
            let refused = client.endpoint.send(peer, b"E?", token, end).is_err();
            let expired = !client.endpoint.expire(Instant::now()).is_empty();
            let failed = client.finished.values().any(Result::is_err);
            failed || expired || (refused && Instant::now() > end)
        });
        assert!(found, "{provider}");
        assert!(
            client.messages.is_empty(),
            "{provider}: an answer from the dead"
        );
        client.endpoint.close(DEADLINE);
    }
}

#[test]
fn posting_to_an_absent_peer_ends_by_the_deadline() {
    for provider in providers() {
        let address = Server::of_this_test(&provider).address.clone();
        let mut client = Client::open(&provider);
        let peer = client.endpoint.insert(&address).unwrap();
        let begin = Instant::now();
        let posted = client.post(DEADLINE, |endpoint, deadline| {
            endpoint.send(peer, b"anyone there?", 1, deadline)
        });
        if posted.is_ok() {
            client.wait_for(2 * DEADLINE, |client| {
                client.finished.contains_key(&1)
                    || client.endpoint.expire(Instant::now()).contains(&1)
            });
            assert!(
                !matches!(client.finished.get(&1), Some(Ok(()))),
                "{provider}"
            );
        } else {
            assert!(
                matches!(posted, Err(PostError::Again | PostError::Fabric(_))),
                "{provider}"
            );
        }
        assert!(begin.elapsed() < 3 * DEADLINE, "{provider}");
        client.endpoint.close(DEADLINE);
    }
}

#[test]
fn a_peer_that_does_not_call_libfabric_delays_reads_and_loses_none() {
    for provider in providers() {
        let (_server, mut client, peer, source, region) = with_regions(&provider, 4 << 20);
        client.stall(peer, DEADLINE);
        client.read_all(peer, &source, &region, 1 << 20);
        let mut bytes = [0; 1000];
        region.memory().copy_out(3 << 20, &mut bytes);
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(at, &byte)| byte == pattern(at)),
            "{provider}"
        );
    }
}

#[test]
#[ignore = "it is a process of closing_with_reads_under_way_is_orderly"]
fn closes_with_reads_under_way() {
    let provider = std::env::var(common::PROVIDER_VARIABLE).expect("the provider's name");
    const LENGTH: usize = 4 << 20;
    for grace in [Duration::ZERO, Duration::from_millis(50), PATIENCE] {
        let (_server, mut client, peer, source, region) = with_regions(&provider, LENGTH);
        client.stall(peer, Duration::from_millis(300));
        for token in 0..8 {
            client
                .post(PATIENCE, |endpoint, deadline| {
                    endpoint.read(peer, &source, 0, &region, 0, LENGTH, token, deadline)
                })
                .unwrap();
        }
        // The peer may have served one before it stopped.
        match client.endpoint.close(grace) {
            Closed::Orderly => assert_eq!(grace, PATIENCE, "{provider}"),
            Closed::Abandoned { outstanding } => {
                assert!(
                    grace < PATIENCE && (1..=8).contains(&outstanding),
                    "{provider}"
                );
            }
        }
    }
}

#[test]
fn closing_with_reads_under_way_is_orderly() {
    for provider in providers() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "closes_with_reads_under_way",
                "--ignored",
                "--nocapture",
            ])
            .env(common::PROVIDER_VARIABLE, &provider)
            .output()
            .unwrap();
        assert!(output.status.success(), "{provider}: {output:?}");
    }
}

#[test]
fn a_peer_restarted_elsewhere_is_reached_after_the_old_one_is_forgotten() {
    for provider in providers() {
        let mut client = Client::open(&provider);
        for _ in 0..3 {
            let mut server = Server::of_this_test(&provider);
            let peer = client.greet(&server);
            assert_eq!(client.echo(peer, b"again"), b"again", "{provider}");
            server.kill();
            assert!(
                client.wait_for(PATIENCE, |c| c.endpoint.outstanding() == 0),
                "{provider}"
            );
            client.endpoint.remove(peer).unwrap();
            assert_eq!(client.endpoint.remove(peer), Err(PostError::UnknownPeer));
        }
    }
}

#[test]
fn what_cannot_be_posted_is_refused() {
    for provider in providers() {
        let (_server, mut client, peer, source, region) = with_regions(&provider, 4096);
        let later = Instant::now() + DEADLINE;
        let endpoint = &mut client.endpoint;
        let too_long = vec![0; endpoint.message_size() + 1];
        assert!(matches!(
            endpoint.send(peer, &too_long, 0, later),
            Err(PostError::TooLong { .. })
        ));
        for (offset, length) in [(0, 4097), (4096, 1), (usize::MAX, 2), (0, 0)] {
            let result = endpoint.read(peer, &source, 0, &region, offset, length, 0, later);
            assert!(
                matches!(result, Err(PostError::OutOfBounds { .. })),
                "{offset}, {length}"
            );
        }
        let result = endpoint.read(peer, &source, u64::MAX, &region, 0, 1, 0, later);
        assert!(matches!(result, Err(PostError::OutOfBounds { .. })));
        let file = tmpfs_file(4096);
        let memory = Memory::map(&file, 0, 4096, Mapping::ReadOnly).unwrap();
        let read_only = endpoint.register(memory, Access::RemoteRead).unwrap();
        let result = endpoint.read(peer, &source, 0, &read_only, 0, 1, 0, later);
        assert_eq!(result, Err(PostError::WrongRegion));
        let other = Endpoint::open(&config(&provider)).unwrap();
        let foreign = other
            .register(Memory::anonymous(4096).unwrap(), Access::Local)
            .unwrap();
        let result = endpoint.read(peer, &source, 0, &foreign, 0, 1, 0, later);
        assert_eq!(result, Err(PostError::WrongRegion));
        for address in [&[][..], &[0; 16], &[255; 300]] {
            assert!(endpoint.insert(address).is_err(), "{provider}: {address:?}");
        }
        assert_eq!(endpoint.outstanding(), 0);
    }
}

#[test]
fn keys_are_random_and_new_for_every_region() {
    for provider in providers() {
        let endpoint = Endpoint::open(&config(&provider)).unwrap();
        let mut keys: Vec<u64> = (0..32)
            .map(|_| {
                let memory = Memory::anonymous(4096).unwrap();
                endpoint
                    .register(memory, Access::RemoteRead)
                    .unwrap()
                    .remote()
                    .unwrap()
                    .key
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 32, "{provider}");
    }
}
