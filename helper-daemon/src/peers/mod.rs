//! The other helpers of the job: whom to meet, what comes from them, and what goes to them.
//!
//! A helper seeks its parents in every tree, and whoever it must turn to when those are lost; its
//! children seek it. Whom it has met it can send messages to, and fetch bytes from.
#![forbid(unsafe_code)]

mod ending;
pub(crate) mod interfaces;
mod rpc;
#[cfg(test)]
mod tests;

pub(crate) use interfaces::own_addresses;

use crate::fabric::libfabric::{Config as FabricConfig, LibfabricTransport};
use crate::fabric::nobody::{self, Nobody};
use crate::fabric::{Event as FabricEvent, Fetch, Offer, OfferId, PostError, Rank, Transport};
use crate::job::{Job, Transfer};
use crate::meeting::{
    Config as MeetingConfig, Event as MeetingEvent, Introduction, JobKey, Meeting, Patience,
};
use crate::status::PeersStatus;
use crate::waker::Waker;
use anyhow::{Context, Result};
use copper_core::tree::Topology;
use crossbeam::channel::{Receiver, unbounded};
use ending::{CONTROL, Ending};
use rpc::Rpc;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A message that could not leave by then is of no use any more: it has been asked again.
const MESSAGE_TIME: Duration = Duration::from_secs(5);
/// How long what is under way may take when the helper ends.
const GRACE: Duration = Duration::from_millis(200);
/// Whoever cannot be reached before is not lost: its helper may not have been started yet.
const START_TIME: Duration = Duration::from_secs(10);
/// Peers beside parents and children for which there is room to receive.
const MORE_PEERS: usize = 16;
/// The most peers for which there is room to receive.
const MOST_PEERS: usize = 512;

/// Something that happened among the helpers.
#[derive(Debug)]
pub(crate) enum Happened {
    /// A message of the tree.
    Message { from: Rank, bytes: Vec<u8> },
    /// A fetch ended; whether there was room is told apart.
    Fetched {
        token: u64,
        result: Result<(), crate::fabric::FetchError>,
    },
    /// The peer's process or node is gone.
    Lost(Rank),
    /// The peer can be reached.
    Back(Rank),
}

/// The other helpers.
pub(crate) struct Peers {
    rank: Rank,
    topology: Topology,
    hosts: Vec<String>,
    port: u16,
    transport: Box<dyn Transport>,
    meeting: Meeting,
    met: Receiver<MeetingEvent>,
    waker: Arc<Waker>,
    /// The session with each peer that is met, by the meeting's number.
    sessions: HashMap<Rank, u64>,
    sought: HashSet<Rank>,
    /// What was offered for a request of a peer, and until when.
    offers: HashMap<(Rank, u64), (Offer, Instant)>,
    ending: Option<Ending>,
    provider: String,
    opened: Instant,
}

impl Peers {
    /// Opens the fabric and begins to meet the others.
    ///
    /// # Errors
    /// The port is in use; or, where there are other nodes, there is no libfabric, no such provider
    /// or interface, or this node's own host name or a parent's leads nowhere.
    pub(crate) fn open(job: &Job, rank: Rank) -> Result<Peers> {
        let topology = job.topology()?;
        topology.check(rank)?;
        let host = &job.hosts[rank as usize];
        let Opened {
            transport,
            provider,
            own,
        } = match topology.nodes() {
            1 => Opened {
                transport: Box::new(Nobody),
                provider: nobody::NAME.to_owned(),
                own: None,
            },
            _ => open_fabric(job, &topology, rank)?,
        };
        let waker = Arc::new(Waker::new()?);
        let everywhere = match own {
            Some(IpAddr::V6(_)) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        };
        let config = MeetingConfig {
            rank,
            key: JobKey::parse(&job.key).context("the job has no key")?,
            introduction: Introduction {
                incarnation: incarnation(),
                addresses: transport.addresses(),
            },
            listen: SocketAddr::new(everywhere, job.port),
            patience: Patience::default(),
        };
        let (sender, met) = unbounded();
        let ring = waker.clone();
        let wake = move || ring.wake();
        let meeting = Meeting::start(config, sender, wake).map_err(|error| {
            if error.kind() == std::io::ErrorKind::AddrInUse {
                anyhow::anyhow!(
                    "port {} is in use on {host}; stop what uses it, or give another --port",
                    job.port
                )
            } else {
                error.into()
            }
        })?;
        let mut peers = Peers {
            rank,
            topology,
            hosts: job.hosts.clone(),
            port: job.port,
            transport,
            meeting,
            met,
            waker,
            sessions: HashMap::new(),
            sought: HashSet::new(),
            offers: HashMap::new(),
            ending: None,
            provider,
            opened: Instant::now(),
        };
        for parent in parents(&topology, rank) {
            // Of two that are each other's parent the higher rank seeks.
            let mutual = parents(&topology, parent).any(|above| above == rank);
            if !mutual || rank > parent {
                peers.seek(parent);
            }
        }
        Ok(peers)
    }

    /// The rank of this node.
    pub(crate) fn rank(&self) -> Rank {
        self.rank
    }

    /// The trees of the job.
    pub(crate) fn topology(&self) -> Topology {
        self.topology
    }

    /// The provider and device of each rail.
    pub(crate) fn provider(&self) -> &str {
        &self.provider
    }

    /// The name of the node of that rank.
    pub(crate) fn host(&self, rank: Rank) -> &str {
        self.hosts.get(rank as usize).map_or("?", String::as_str)
    }

    /// What there is to say of the other helpers.
    pub(crate) fn status(&self) -> PeersStatus {
        let counters = self.transport.counters();
        PeersStatus {
            rank: self.rank,
            nodes: self.topology.nodes(),
            provider: self.provider.clone(),
            connected: self.sessions.len() as u64,
            messages_received: counters.received,
            messages_sent: counters.sent,
            messages_expired: counters.expired,
            frames_rejected: counters.rejected,
            bytes_fetched: counters.fetched,
        }
    }

    /// Whether this helper is connected with its parents in all trees.
    pub(crate) fn has_met_parents(&self) -> bool {
        parents(&self.topology, self.rank).all(|parent| self.sessions.contains_key(&parent))
    }

    /// Whether there are others, and this helper is connected with none of them.
    pub(crate) fn are_all_lost(&self) -> bool {
        self.topology.nodes() > 1 && self.sessions.is_empty()
    }

    fn seek(&mut self, peer: Rank) {
        if peer == self.rank || !self.sought.insert(peer) {
            return;
        }
        let host = self.host(peer).to_owned();
        if let Err(error) = self.meeting.seek(peer, &host, self.port) {
            tracing::error!(%error, host, "cannot seek a helper");
            self.sought.remove(&peer);
        }
    }

    /// Sends a message of the tree. Whoever is asked for something and is not met is sought; the
    /// message is lost, and the tree will ask again.
    pub(crate) fn send(&mut self, to: Rank, message: &[u8], seek: bool) {
        let deadline = Instant::now() + MESSAGE_TIME;
        match self.transport.send(to, message, deadline) {
            Ok(()) => {}
            Err(PostError::Unknown) if seek && !self.sessions.contains_key(&to) => {
                // A child seeks its parents by itself.
                if !parents(&self.topology, to).any(|above| above == self.rank) {
                    self.seek(to);
                }
            }
            Err(error) => tracing::debug!(%error, host = self.host(to), "a message was not sent"),
        }
    }

    /// Offers a part of a file for a request of a peer, until it is withdrawn or the time is over.
    /// Gives the descriptor that the peer needs. An offer that is made again is the same.
    pub(crate) fn offer(
        &mut self,
        (peer, request): (Rank, u64),
        file: &File,
        (offset, length): (u64, u32),
        time: Duration,
    ) -> std::io::Result<Vec<u8>> {
        let until = Instant::now() + time;
        self.withdraw_expired();
        if let Some((offer, end)) = self.offers.get_mut(&(peer, request)) {
            *end = until;
            return Ok(offer.descriptor.clone());
        }
        let offer = self.transport.offer(file, offset, length as usize)?;
        let descriptor = offer.descriptor.clone();
        self.offers.insert((peer, request), (offer, until));
        Ok(descriptor)
    }

    /// Ends an offer.
    pub(crate) fn withdraw(&mut self, peer: Rank, request: u64) {
        if let Some((offer, _)) = self.offers.remove(&(peer, request)) {
            self.transport.withdraw(offer.id);
        }
    }

    fn withdraw_expired(&mut self) {
        let now = Instant::now();
        self.withdraw_where(|_, until| until <= now);
    }

    fn withdraw_where(&mut self, mut which: impl FnMut(Rank, Instant) -> bool) {
        let gone: Vec<OfferId> = self
            .offers
            .extract_if(|(peer, _), (_, until)| which(*peer, *until))
            .map(|(_, (offer, _))| offer.id)
            .collect();
        gone.into_iter()
            .for_each(|offer| self.transport.withdraw(offer));
    }

    /// Begins to fetch what a peer offers.
    ///
    /// # Errors
    /// Nothing was begun.
    pub(crate) fn fetch(&mut self, from: Rank, fetch: Fetch) -> Result<(), PostError> {
        self.transport.fetch(from, fetch)
    }

    /// Sends what was queued, as far as it goes.
    pub(crate) fn post(&mut self) {
        self.transport.post(Instant::now());
    }

    /// Does what can be done without waiting, and says what happened.
    pub(crate) fn poll(&mut self) -> Vec<Happened> {
        let mut happened = Vec::new();
        while let Ok(event) = self.met.try_recv() {
            self.heed_meeting(event, &mut happened);
        }
        let mut events = Vec::new();
        self.transport.poll(Instant::now(), &mut events);
        for event in events {
            match event {
                FabricEvent::Message { from, bytes } if bytes.first() == Some(&CONTROL) => {
                    self.heed_control(from, &bytes);
                }
                FabricEvent::Message { from, bytes } => {
                    happened.push(Happened::Message { from, bytes });
                }
                FabricEvent::Fetched { token, result } => {
                    happened.push(Happened::Fetched { token, result });
                }
                FabricEvent::Broken { peer } => {
                    tracing::info!(host = self.host(peer), "meeting anew");
                    self.meeting.renew(peer);
                }
            }
        }
        happened
    }

    fn heed_meeting(&mut self, event: MeetingEvent, happened: &mut Vec<Happened>) {
        match event {
            MeetingEvent::Met {
                peer,
                number,
                incarnation,
                session,
            } => match self.transport.admit(peer, session) {
                Ok(()) => {
                    tracing::info!(host = self.host(peer), peer, incarnation, "met");
                    self.sessions.insert(peer, number);
                    self.end_with(peer);
                    happened.push(Happened::Back(peer));
                }
                Err(error) => tracing::error!(%error, host = self.host(peer), "cannot be used"),
            },
            MeetingEvent::Lost {
                peer,
                number,
                reason,
            } => {
                if self.sessions.get(&peer) == Some(&number) {
                    tracing::warn!(host = self.host(peer), peer, reason, "lost");
                    self.sessions.remove(&peer);
                    self.transport.dismiss(peer);
                    self.withdraw_where(|owner, _| owner == peer);
                    self.note_lost_at_end(peer);
                    happened.push(Happened::Lost(peer));
                }
            }
            MeetingEvent::Unreachable { peer, reason } => {
                tracing::warn!(host = self.host(peer), peer, reason, "cannot be reached");
                if self.opened.elapsed() > START_TIME {
                    happened.push(Happened::Lost(peer));
                }
            }
            MeetingEvent::Refused { from, reason } => {
                tracing::warn!(%from, reason, "a connection was refused");
            }
        }
    }

    /// Descriptors that become readable when there may be something to do.
    pub(crate) fn wait_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.transport.wait_descriptors()
    }

    /// Has an event when a peer was met or refused.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether it is safe to wait for the descriptors.
    pub(crate) fn may_sleep(&mut self) -> bool {
        self.transport.may_sleep()
    }

    /// When to poll at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let ending = self.ending.as_ref().map(Ending::deadline);
        self.transport
            .next_deadline()
            .into_iter()
            .chain(ending)
            .min()
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.transport.close(GRACE);
    }
}

/// A transport that is ready.
struct Opened {
    transport: Box<dyn Transport>,
    /// The provider and device of each rail.
    provider: String,
    /// This node's address, where it is known.
    own: Option<IpAddr>,
}

fn open_fabric(job: &Job, topology: &Topology, rank: Rank) -> Result<Opened> {
    let host = &job.hosts[rank as usize];
    for parent in parents(topology, rank) {
        interfaces::check_name(&job.hosts[parent as usize], host)?;
    }
    let rails = interfaces::rails(&job.interfaces, host)?;
    let own = rails.iter().find_map(|rail| rail.address);
    let fabric = FabricConfig {
        rank,
        provider: job.provider.clone(),
        rails,
        peers: expected_peers(topology, rank),
    };
    let transport = LibfabricTransport::open(&fabric)
        .with_context(|| format!("the fabric cannot be used on {host}"))?;
    Ok(Opened {
        provider: transport.describe().join(", "),
        transport: match job.transfer {
            Transfer::Rma => Box::new(transport),
            Transfer::Rpc => Box::new(Rpc::over(transport)),
        },
        own,
    })
}

/// Parents in all trees, each once.
fn parents(topology: &Topology, rank: Rank) -> impl Iterator<Item = Rank> + use<> {
    let topology = *topology;
    let found: HashSet<Rank> = (0..topology.trees())
        .filter_map(|tree| topology.parent(tree, rank))
        .collect();
    found.into_iter()
}

fn expected_peers(topology: &Topology, rank: Rank) -> usize {
    let children = |tree| topology.children(tree, rank).count();
    let below: usize = (0..topology.trees()).map(children).sum();
    (parents(topology, rank).count() + below + MORE_PEERS).min(MOST_PEERS)
}

/// Which start of this helper it is: later ones have greater numbers.
pub(crate) fn incarnation() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs() as u32)
}
