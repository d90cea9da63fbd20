//! How helpers meet: over TCP by host name, before and beside the fabric.
//!
//! Every helper listens; a child connects to its parents. The two prove to each other that they
//! know the job's key ([`handshake`]), exchange their fabric addresses, and keep the connection:
//! its end tells of a process's death at once, and its silence of a node's ([`link`]). What they
//! agree on is the [`Session`] under which the fabric's messages are proved.
//!
//! Each connection has a thread of its own. What happens comes out of a channel, in order for
//! each peer.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use crate::fabric::{Rank, Session};

mod handshake;
mod key;
mod link;
#[cfg(test)]
mod tests;

pub(crate) use key::JobKey;
pub(crate) use link::Introduction;

/// Handshakes with strangers that may be under way; further connections are closed unheard.
const MAX_STRANGERS: usize = 128;

/// Bounds on time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a handshake, from the connection to the introduction.
    pub(crate) handshake: Duration,
    /// For one attempt to connect.
    pub(crate) connect: Duration,
    /// Between two signs of life.
    pub(crate) heartbeat: Duration,
    /// Without a sign of life, after which a peer counts as lost.
    pub(crate) silence: Duration,
    /// Between two attempts to reach a peer, at first and at most.
    pub(crate) retry: (Duration, Duration),
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            connect: Duration::from_secs(3),
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(4),
            retry: (Duration::from_millis(20), Duration::from_secs(1)),
        }
    }
}

/// Where and as whom to meet others.
#[derive(Clone)]
pub(crate) struct Config {
    /// Our rank.
    pub(crate) rank: Rank,
    /// The job's key.
    pub(crate) key: JobKey,
    /// What we tell peers of ourselves.
    pub(crate) introduction: Introduction,
    /// Where to listen; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Bounds on time.
    pub(crate) patience: Patience,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer has proved who it is and told its addresses. If it was met before, that is over.
    Met {
        /// The peer.
        peer: Rank,
        /// Numbers this session, for [`Event::Lost`].
        number: u64,
        /// Which start of its helper it is.
        incarnation: u32,
        /// What the transport needs.
        session: Session,
    },
    /// The connection has ended: the peer's process or node is gone. If it was sought, it is
    /// sought on.
    Lost {
        /// The peer.
        peer: Rank,
        /// The session that ended. Another may have begun: then this is of no interest.
        number: u64,
        /// Why, for people.
        reason: String,
    },
    /// A peer that is sought cannot be reached or met. Said again only when the reason changes.
    Unreachable {
        /// The peer.
        peer: Rank,
        /// Why, for people.
        reason: String,
    },
    /// Somebody connected and was not let in.
    Refused {
        /// Where from.
        from: SocketAddr,
        /// Why, for people.
        reason: String,
    },
}

/// The listener and all connections. Ends them when dropped, telling the peers.
pub(crate) struct Meeting {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    config: Config,
    events: Sender<Event>,
    /// Called after each event, to wake its reader.
    wake: Box<dyn Fn() + Send + Sync>,
    ended: AtomicBool,
    sessions: AtomicU64,
    strangers: AtomicUsize,
    state: Mutex<State>,
    /// Rung when `ended` or `state.sought` changes.
    bell: Condvar,
}

#[derive(Default)]
struct State {
    /// The live connection to each peer.
    links: HashMap<Rank, Live>,
    sought: HashMap<Rank, Arc<Sought>>,
}

struct Live {
    /// The session's number.
    number: u64,
    incarnation: u32,
    /// Whether this helper made the connection.
    outgoing: bool,
    stream: TcpStream,
}

impl Live {
    /// Has the thread that keeps the connection notice its end.
    fn end(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// A peer that this helper connects to.
struct Sought {
    peer: Rank,
    host: String,
    port: u16,
    given_up: AtomicBool,
}

impl Meeting {
    /// Begins to listen. `wake` is called after each event that went into `events`.
    ///
    /// # Errors
    ///
    /// The address or port cannot be used.
    pub(crate) fn start(
        config: Config,
        events: Sender<Event>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(config.listen).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot listen on {}: {error}", config.listen),
            )
        })?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            config,
            events,
            wake: Box::new(wake),
            ended: AtomicBool::new(false),
            sessions: AtomicU64::new(0),
            strangers: AtomicUsize::new(0),
            state: Mutex::default(),
            bell: Condvar::new(),
        });
        let accepting = shared.clone();
        thread::Builder::new()
            .name("meeting".to_owned())
            .spawn(move || accept(&accepting, &listener))?;
        Ok(Self { shared, address })
    }

    /// Where this helper listens.
    #[cfg(test)]
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects to a peer, again and again until it is met, and again whenever it is lost.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(crate) fn seek(&self, peer: Rank, host: &str, port: u16) -> io::Result<()> {
        let given_up = AtomicBool::new(false);
        let sought = Arc::new(Sought {
            peer,
            host: host.to_owned(),
            port,
            given_up,
        });
        if let Some(before) = self.shared.lock().sought.insert(peer, sought.clone()) {
            before.given_up.store(true, Ordering::Release);
        }
        let shared = self.shared.clone();
        thread::Builder::new()
            .name(format!("peer {peer}"))
            .spawn(move || seek(&shared, &sought))?;
        Ok(())
    }

    /// Ends the connection to a peer, so that the two meet anew: whichever of them seeks the other
    /// does so. For a transport that says a session is broken.
    pub(crate) fn renew(&self, peer: Rank) {
        if let Some(link) = self.shared.lock().links.remove(&peer) {
            link.end();
            self.shared.bell.notify_all();
        }
    }

    /// No longer connects to a peer, and ends the connection if there is one.
    #[cfg(test)]
    pub(crate) fn forsake(&self, peer: Rank) {
        let mut state = self.shared.lock();
        if let Some(sought) = state.sought.remove(&peer) {
            sought.given_up.store(true, Ordering::Release);
        }
        if let Some(link) = state.links.remove(&peer) {
            link.end();
        }
        self.shared.bell.notify_all();
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        let mut state = self.shared.lock();
        state.links.drain().for_each(|(_, link)| link.end());
        drop(state);
        self.shared.bell.notify_all();
        // The thread that waits for connections sees the end when one comes.
        let own = match self.address.ip() {
            address if !address.is_unspecified() => address,
            IpAddr::V4(_) => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(_) => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        };
        let own = SocketAddr::new(own, self.address.port());
        let _ = TcpStream::connect_timeout(&own, Duration::from_secs(1));
    }
}

impl fmt::Debug for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Meeting({})", self.address)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn tell(&self, event: Event) {
        if !self.ended() && self.events.send(event).is_ok() {
            (self.wake)();
        }
    }

    /// Waits, but not for one who is not sought any more.
    fn pause(&self, sought: &Sought, time: Duration) {
        self.pause_while(sought, time, |_| true);
    }

    /// Waits as long as the peer has found us, but not for one who is not sought any more.
    fn pause_while_met(&self, sought: &Sought) {
        const LONG: Duration = Duration::from_secs(3600);
        self.pause_while(sought, LONG, |state| state.links.contains_key(&sought.peer));
    }

    fn pause_while(&self, sought: &Sought, time: Duration, reason: impl Fn(&State) -> bool) {
        let waiting = |state: &mut State| {
            !self.ended() && !sought.given_up.load(Ordering::Acquire) && reason(state)
        };
        let _ = self.bell.wait_timeout_while(self.lock(), time, waiting);
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    /// After a failure, such as too many open descriptors.
    const PAUSE: Duration = Duration::from_millis(100);
    while !shared.ended() {
        let Ok((stream, from)) = listener.accept() else {
            thread::sleep(PAUSE);
            continue;
        };
        if shared.ended() || shared.strangers.load(Ordering::Acquire) >= MAX_STRANGERS {
            continue;
        }
        shared.strangers.fetch_add(1, Ordering::AcqRel);
        let of_thread = shared.clone();
        let started = thread::Builder::new()
            .name("stranger".to_owned())
            .spawn(move || receive(&of_thread, stream, from));
        if started.is_err() {
            shared.strangers.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Serves a connection that somebody else made.
fn receive(shared: &Shared, stream: TcpStream, from: SocketAddr) {
    let met = handshake::answer(&stream, &shared.config);
    shared.strangers.fetch_sub(1, Ordering::AcqRel);
    match met {
        Ok(met) => {
            keep(shared, stream, met, from, false);
        }
        Err(error) => shared.tell(Event::Refused {
            from,
            reason: error.to_string(),
        }),
    }
}

/// Connects to a peer until it is given up.
fn seek(shared: &Shared, sought: &Sought) {
    let (first, longest) = shared.config.patience.retry;
    let mut pause = first;
    let mut told = None;
    while !shared.ended() && !sought.given_up.load(Ordering::Acquire) {
        // It may have found us first.
        shared.pause_while_met(sought);
        if shared.ended() || sought.given_up.load(Ordering::Acquire) {
            return;
        }
        match reach(shared, sought) {
            Ok((stream, met, from)) => {
                told = None;
                let begin = Instant::now();
                keep(shared, stream, met, from, true);
                // Two helpers that take each other's place must not do so without pause.
                if begin.elapsed() > longest {
                    pause = first;
                }
            }
            Err(reason) => {
                if told.as_ref() != Some(&reason) {
                    told = Some(reason.clone());
                    shared.tell(Event::Unreachable {
                        peer: sought.peer,
                        reason,
                    });
                }
            }
        }
        shared.pause(sought, pause);
        pause = (2 * pause).min(longest);
    }
}

/// Connects to one of the host's addresses and shakes hands.
fn reach(
    shared: &Shared,
    sought: &Sought,
) -> Result<(TcpStream, handshake::Met, SocketAddr), String> {
    let Sought {
        peer, host, port, ..
    } = sought;
    let patience = &shared.config.patience;
    let addresses: Vec<SocketAddr> = (host.as_str(), *port)
        .to_socket_addrs()
        .map_err(|error| format!("host name {host} does not resolve: {error}"))?
        .collect();
    let mut failure = format!("host name {host} has no address");
    for address in addresses {
        let begin = Instant::now();
        let stream = match TcpStream::connect_timeout(&address, patience.connect) {
            Ok(stream) => stream,
            Err(error) => {
                failure = format!("{host} ({address}): {error}");
                continue;
            }
        };
        match handshake::begin(&stream, &shared.config, *peer, begin) {
            Ok(met) => return Ok((stream, met, address)),
            Err(error) => failure = format!("{host} ({address}): {error}"),
        }
    }
    Err(failure)
}

/// Announces a peer that was met, and keeps the connection until it ends.
fn keep(shared: &Shared, stream: TcpStream, met: handshake::Met, from: SocketAddr, outgoing: bool) {
    let peer = met.peer;
    let Some(number) = announce(shared, &stream, &met, from, outgoing) else {
        return;
    };
    let reason = link::keep_alive(&stream, met.link, &shared.config.patience);
    let mut state = shared.lock();
    if state
        .links
        .get(&peer)
        .is_some_and(|link| link.number == number)
    {
        state.links.remove(&peer);
        shared.bell.notify_all();
    }
    shared.tell(Event::Lost {
        peer,
        number,
        reason: reason.to_string(),
    });
}

/// Makes this the connection to the peer and says so. Returns the session's number; `None` if a
/// later start of the same helper is connected, or if the two have sought each other at once and
/// this is the connection that both give up: the one that the lower rank made.
fn announce(
    shared: &Shared,
    stream: &TcpStream,
    met: &handshake::Met,
    from: SocketAddr,
    outgoing: bool,
) -> Option<u64> {
    let stream = stream.try_clone().ok()?;
    let peer = met.peer;
    let incarnation = met.introduction.incarnation;
    let number = shared.sessions.fetch_add(1, Ordering::AcqRel) + 1;
    let mut state = shared.lock();
    if shared.ended() {
        return None;
    }
    if state
        .links
        .get(&peer)
        .is_some_and(|link| link.incarnation > incarnation)
    {
        let reason = format!("a later helper of rank {peer} is connected; is one left running?");
        shared.tell(Event::Refused { from, reason });
        return None;
    }
    let made_by_lower = outgoing == (shared.config.rank < peer);
    let crossing = state
        .links
        .get(&peer)
        .is_some_and(|link| link.incarnation == incarnation && link.outgoing != outgoing);
    if crossing && made_by_lower {
        return None;
    }
    // A peer that comes again has lost the connection it had, which may not show here yet.
    if let Some(before) = state.links.insert(
        peer,
        Live {
            number,
            incarnation,
            outgoing,
            stream,
        },
    ) {
        before.end();
    }
    let session = Session {
        addresses: met.introduction.addresses.clone(),
        send_key: met.send_key.clone(),
        receive_key: met.receive_key.clone(),
    };
    // Told under the lock, so that sessions of one peer are told in their order.
    shared.tell(Event::Met {
        peer,
        number,
        incarnation,
        session,
    });
    Some(number)
}
