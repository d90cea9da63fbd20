//! What the tests and the measuring program share: a peer in another process, and a client that
//! drives an endpoint until what it waits for has happened.
#![allow(dead_code, reason = "each of its users needs a part")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libfabric_sys::{
    Access, Endpoint, EndpointConfig, Event, FabricError, Library, Mapping, Memory, Peer,
    PostError, Region, RemoteRegion,
};

/// Environment variable that tells the peer's process its provider.
pub(crate) const PROVIDER_VARIABLE: &str = "FABRIC_TEST_PROVIDER";
/// Environment variable that tells the peer's process its message size.
pub(crate) const MESSAGE_SIZE_VARIABLE: &str = "FABRIC_TEST_MESSAGE_SIZE";
/// Environment variable that has the peer's process spin rather than sleep.
pub(crate) const SPIN_VARIABLE: &str = "FABRIC_TEST_SPIN";
/// Environment variable that tells a process which address of its own to use instead of the loopback's.
pub(crate) const ADDRESS_VARIABLE: &str = "FABRIC_TEST_ADDRESS";
/// First byte of a message that is answered by one of the same length, without a copy.
pub(crate) const PING: u8 = b'P';
/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const HELLO: u8 = b'H';
const ECHO: u8 = b'E';
const EXPOSE: u8 = b'X';
const WITHDRAW: u8 = b'W';
const STALL: u8 = b'S';

pub(crate) fn loopback() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

/// The providers Copper supports that work here over loopback.
pub(crate) fn providers() -> Vec<String> {
    let library =
        Library::load().unwrap_or_else(|error| panic!("these tests need libfabric: {error}"));
    let mut names: Vec<String> = library
        .usable(Some(loopback()))
        .expect("libfabric lists its providers")
        .into_iter()
        .map(|info| info.name)
        .filter(|name| libfabric_sys::PREFERRED_PROVIDERS.contains(&name.as_str()))
        .collect();
    names.sort();
    names.dedup();
    assert!(
        !names.is_empty(),
        "libfabric {} has no provider for loopback",
        library.version()
    );
    names
}

/// The address that this process is to use.
fn own_address() -> IpAddr {
    std::env::var(ADDRESS_VARIABLE)
        .map_or(loopback(), |address| address.parse().expect("an address"))
}

pub(crate) fn config(provider: &str) -> EndpointConfig {
    EndpointConfig {
        provider: Some(provider.to_owned()),
        address: Some(own_address()),
        ..EndpointConfig::default()
    }
}

/// The byte at a position of every exposed region.
pub(crate) fn pattern(position: usize) -> u8 {
    (position.wrapping_mul(2_654_435_761) >> 13) as u8
}

/// A file of that length on tmpfs, gone when closed.
pub(crate) fn tmpfs_file(length: usize) -> File {
    let file = tempfile::tempfile_in("/dev/shm").expect("a file in /dev/shm");
    file.set_len(length as u64).expect("room in /dev/shm");
    file
}

/// Serves until its standard input ends: greets with its address in hexadecimal, then obeys.
pub(crate) fn serve() {
    let provider = std::env::var(PROVIDER_VARIABLE).expect("the provider's name");
    let mut config = config(&provider);
    if let Ok(size) = std::env::var(MESSAGE_SIZE_VARIABLE) {
        config.message_size = size.parse().expect("a size");
        config.receives = 8;
        config.sends = 8;
    }
    let spin = std::env::var_os(SPIN_VARIABLE).is_some();
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let mut endpoint = Endpoint::open(&config).unwrap_or_else(|error| panic!("{error}"));
    let hex: String = endpoint
        .address()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    println!("\naddress={hex}");
    std::io::stdout().flush().expect("standard output");
    let pong = Memory::anonymous(config.message_size).expect("memory");
    let pong = endpoint
        .register(pong, Access::Local)
        .expect("a registration");
    let mut client = None;
    let mut regions = Vec::new();
    loop {
        let mut message = None;
        let mut ping = None;
        while message.is_none() && ping.is_none() {
            match endpoint
                .next_event()
                .unwrap_or_else(|error| panic!("{error}"))
            {
                Some(Event::Message(bytes)) if bytes.first() == Some(&PING) => {
                    ping = Some(bytes.len());
                }
                Some(Event::Message(bytes)) => message = Some(bytes.to_vec()),
                Some(_) => {}
                None if spin => {}
                None => endpoint.wait(PATIENCE).expect("a wait"),
            }
        }
        if let (Some(length), Some(client)) = (ping, client) {
            post(&mut endpoint, PATIENCE, |endpoint, deadline| {
                endpoint.send_region(client, &pong, 0, length, 0, deadline)
            })
            .expect("an answer");
            continue;
        }
        let message = message.unwrap_or_default();
        let answer = match message[0] {
            HELLO => {
                client = Some(endpoint.insert(&message[1..]).expect("an address"));
                vec![HELLO]
            }
            ECHO => message,
            EXPOSE => {
                let length = u64::from_le_bytes(message[1..9].try_into().expect("eight bytes"));
                let region = expose(&endpoint, length as usize);
                let remote = region.remote().expect("a region for peers");
                regions.push(region);
                encode(&remote)
            }
            WITHDRAW => {
                regions.clear();
                vec![WITHDRAW]
            }
            STALL => {
                let time = u64::from_le_bytes(message[1..9].try_into().expect("eight bytes"));
                std::thread::sleep(Duration::from_millis(time));
                continue;
            }
            other => panic!("unknown command {other}"),
        };
        if let Some(client) = client {
            post(&mut endpoint, PATIENCE, |endpoint, deadline| {
                endpoint.send(client, &answer, 0, deadline)
            })
            .expect("an answer");
        }
    }
}

fn expose(endpoint: &Endpoint, length: usize) -> Region {
    let file = tmpfs_file(length);
    let writer = Memory::map(&file, 0, length, Mapping::ReadWrite).expect("a mapping");
    let block: Vec<u8> = (0..1 << 20).map(pattern).collect();
    for start in (0..length).step_by(block.len()) {
        writer.copy_in(start, &block[..block.len().min(length - start)]);
    }
    // Peers read what a store file would be: a read-only mapping.
    let memory = Memory::map(&file, 0, length, Mapping::ReadOnly).expect("a mapping");
    endpoint
        .register(memory, Access::RemoteRead)
        .expect("a registration")
}

/// Posts, again and again while the provider says so, taking no events of use to anyone else.
fn post(
    endpoint: &mut Endpoint,
    patience: Duration,
    mut attempt: impl FnMut(&mut Endpoint, Instant) -> Result<(), PostError>,
) -> Result<(), PostError> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt(endpoint, deadline) {
            Err(PostError::Again) if Instant::now() < deadline => {
                let _ = endpoint.next_event().map(|_| ());
            }
            result => return result,
        }
    }
}

fn encode(region: &RemoteRegion) -> Vec<u8> {
    [region.address, region.key, region.length]
        .iter()
        .flat_map(|n| n.to_le_bytes())
        .collect()
}

fn decode(bytes: &[u8]) -> RemoteRegion {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    RemoteRegion {
        address: number(0),
        key: number(8),
        length: number(16),
    }
}

/// The other process.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: Vec<u8>,
}

impl Server {
    /// `command` runs [`serve`].
    pub(crate) fn start(mut command: Command, provider: &str) -> Self {
        let mut child = command
            .env(PROVIDER_VARIABLE, provider)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the peer's process");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let address = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("address=").map(str::to_owned))
            .expect("the peer's address");
        let address = (0..address.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&address[at..at + 2], 16).expect("hexadecimal"))
            .collect();
        Self { child, address }
    }

    /// A server that is the calling test program run again, at its test `peer_process`.
    pub(crate) fn of_this_test(provider: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "peer_process", "--ignored", "--nocapture"]);
        Self::start(command, provider)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the peer was running");
        self.child.wait().expect("the peer's end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An endpoint that notes every event by token.
pub(crate) struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) finished: HashMap<u64, Result<(), FabricError>>,
}

impl Client {
    pub(crate) fn open(provider: &str) -> Self {
        Self::with(&config(provider))
    }

    pub(crate) fn with(config: &EndpointConfig) -> Self {
        let endpoint = Endpoint::open(config).unwrap_or_else(|error| panic!("{error}"));
        Self {
            endpoint,
            messages: Vec::new(),
            finished: HashMap::new(),
        }
    }

    /// Inserts the server and exchanges a first message with it.
    pub(crate) fn greet(&mut self, server: &Server) -> Peer {
        let peer = self
            .endpoint
            .insert(&server.address)
            .expect("the server's address");
        let hello = [&[HELLO], self.endpoint.address()].concat();
        assert_eq!(self.ask(peer, &hello), [HELLO]);
        peer
    }

    /// Notes what has happened, without waiting.
    pub(crate) fn note_events(&mut self) {
        loop {
            match self
                .endpoint
                .next_event()
                .unwrap_or_else(|error| panic!("{error}"))
            {
                None => return,
                Some(Event::Message(bytes)) => self.messages.push(bytes.to_vec()),
                Some(Event::Sent { token } | Event::Read { token }) => {
                    self.finished.insert(token, Ok(()));
                }
                Some(Event::Failed { token, error }) => {
                    self.finished.insert(token, Err(error));
                }
            }
        }
    }

    /// Waits for a condition, and says whether it came about.
    pub(crate) fn wait_for(
        &mut self,
        patience: Duration,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = Instant::now() + patience;
        loop {
            self.note_events();
            if condition(self) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            self.endpoint
                .wait(Duration::from_millis(10))
                .expect("a wait");
        }
    }

    /// Posts, repeating while the provider asks for it.
    pub(crate) fn post(
        &mut self,
        patience: Duration,
        mut attempt: impl FnMut(&mut Endpoint, Instant) -> Result<(), PostError>,
    ) -> Result<(), PostError> {
        let deadline = Instant::now() + patience;
        loop {
            match attempt(&mut self.endpoint, deadline) {
                Err(PostError::Again) if Instant::now() < deadline => {
                    self.note_events();
                    self.endpoint
                        .wait(Duration::from_millis(1))
                        .expect("a wait");
                }
                result => return result,
            }
        }
    }

    pub(crate) fn send(&mut self, peer: Peer, message: &[u8], token: u64) {
        self.post(PATIENCE, |endpoint, deadline| {
            endpoint.send(peer, message, token, deadline)
        })
        .expect("a send");
    }

    /// Sends a message and waits for one.
    pub(crate) fn ask(&mut self, peer: Peer, message: &[u8]) -> Vec<u8> {
        self.send(peer, message, u64::MAX);
        assert!(
            self.wait_for(PATIENCE, |client| !client.messages.is_empty()),
            "no answer"
        );
        self.messages.remove(0)
    }

    pub(crate) fn echo(&mut self, peer: Peer, payload: &[u8]) -> Vec<u8> {
        self.ask(peer, &[&[ECHO], payload].concat()).split_off(1)
    }

    /// Has the server expose that many bytes.
    pub(crate) fn expose(&mut self, peer: Peer, length: usize) -> RemoteRegion {
        decode(&self.ask(
            peer,
            &[&[EXPOSE][..], &(length as u64).to_le_bytes()].concat(),
        ))
    }

    pub(crate) fn withdraw(&mut self, peer: Peer) {
        self.ask(peer, &[WITHDRAW]);
    }

    /// Has the server stop calling libfabric for a while. Returns when that message has left.
    pub(crate) fn stall(&mut self, peer: Peer, time: Duration) {
        let time = (time.as_millis() as u64).to_le_bytes();
        self.send(peer, &[&[STALL][..], &time].concat(), u64::MAX - 1);
        assert!(self.wait_for(PATIENCE, |client| {
            client.finished.contains_key(&(u64::MAX - 1))
        }));
    }

    /// Reads a whole remote region, in chunks, a window of them at once.
    pub(crate) fn read_all(
        &mut self,
        peer: Peer,
        source: &RemoteRegion,
        destination: &Region,
        chunk: usize,
    ) {
        const WINDOW: usize = 8;
        let total = source.length as usize;
        self.finished.clear();
        for (token, start) in (0..total).step_by(chunk).enumerate() {
            let length = chunk.min(total - start);
            assert!(
                self.wait_for(PATIENCE, |client| client.endpoint.outstanding() < WINDOW),
                "reads do not end"
            );
            self.post(PATIENCE, |endpoint, deadline| {
                let token = token as u64;
                endpoint.read(
                    peer,
                    source,
                    start as u64,
                    destination,
                    start,
                    length,
                    token,
                    deadline,
                )
            })
            .expect("a read");
        }
        assert!(self.wait_for(PATIENCE, |client| client.endpoint.outstanding() == 0));
        for result in self.finished.values() {
            assert_eq!(*result, Ok(()));
        }
    }
}
