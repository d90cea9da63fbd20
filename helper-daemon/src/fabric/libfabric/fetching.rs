//! Fetches over libfabric: what a peer offers, read piece by piece and written to a file.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use libfabric_sys::{Access, Memory, PostError as FabricPostError, Region, RemoteRegion};

use super::{LibfabricTransport, Rail, UnderWay};
use crate::fabric::{Event, Fetch, FetchError, MAX_DESCRIPTOR, Rank};

/// Longest piece of a fetch in bytes.
const PIECE: usize = 1 << 20;
/// Pieces under way from one peer.
const PIECES_PER_PEER: usize = 4;
/// Reads of one piece that may fail. Where a peer refuses one read, for a key it has withdrawn,
/// some providers cut the connection, and all that is under way or posted right after fails too.
/// So a piece that failed is read again by itself, which tells who is to blame, and more than
/// once, as the connection may be down still.
const ATTEMPTS: u32 = 5;

/// A fetch that has not ended.
pub(super) struct FetchState {
    pub(super) fetch: Fetch,
    pub(super) peer: Rank,
    pub(super) rail: usize,
    pub(super) source: RemoteRegion,
    /// What is left to post.
    pub(super) left: VecDeque<Piece>,
    /// Bytes in the file.
    pub(super) written: usize,
}

/// Part of a fetch.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) at: usize,
    pub(super) length: usize,
    /// How often its read has failed.
    pub(super) failures: u32,
}

/// The pieces of a fetch of that many bytes.
pub(super) fn pieces(length: usize) -> VecDeque<Piece> {
    (0..length)
        .step_by(PIECE)
        .map(|at| Piece {
            at,
            length: PIECE.min(length - at),
            failures: 0,
        })
        .collect()
}

/// Rail, then address, key and length of the region, little endian.
pub(super) fn describe_offer(rail: usize, region: &RemoteRegion) -> Vec<u8> {
    let mut bytes = vec![rail as u8];
    for number in [region.address, region.key, region.length] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    debug_assert!(bytes.len() <= MAX_DESCRIPTOR);
    bytes
}

/// The reverse of [`describe_offer`]; `None` for anything else.
pub(super) fn parse_offer(bytes: &[u8]) -> Option<(usize, RemoteRegion)> {
    let (&rail, numbers) = bytes.split_first()?;
    let mut numbers = numbers
        .chunks_exact(8)
        .map(|b| b.try_into().ok().map(u64::from_le_bytes));
    let mut number = || numbers.next().flatten();
    let region = RemoteRegion {
        address: number()?,
        key: number()?,
        length: number()?,
    };
    (bytes.len() == 25).then_some((usize::from(rail), region))
}

impl LibfabricTransport {
    /// A read has ended, well or not.
    pub(super) fn piece_ended(&mut self, peer: Rank, session: u64) {
        if let Some(peer) = self
            .peers
            .get_mut(&peer)
            .filter(|peer| peer.session == session)
        {
            peer.pieces -= 1;
            peer.alone = false;
        }
    }

    /// Has a piece read again, or gives its fetch up.
    pub(super) fn piece_failed(&mut self, id: u64, piece: Piece) {
        let failures = piece.failures + 1;
        let Some(state) = self.fetches.get_mut(&id) else {
            return;
        };
        let Some(peer) = self
            .peers
            .get_mut(&state.peer)
            .filter(|_| failures < ATTEMPTS)
        else {
            return self.end_fetch(id, Err(FetchError::Peer));
        };
        peer.set_back(Instant::now());
        if state.left.is_empty() {
            peer.fetches.push_back(id);
        }
        state.left.push_front(Piece { failures, ..piece });
    }

    /// Writes a piece that has come to its file.
    pub(super) fn store(&mut self, id: u64, buffer: &Region, Piece { at, length, .. }: Piece) {
        let Some(state) = self.fetches.get_mut(&id) else {
            return;
        };
        let position = state.fetch.position + at as u64;
        if buffer
            .memory()
            .write_to(0, length, &state.fetch.file, position)
            .is_err()
        {
            return self.end_fetch(id, Err(FetchError::NoSpace));
        }
        self.counters.fetched += length as u64;
        state.written += length;
        if state.written == state.fetch.length {
            self.end_fetch(id, Ok(()));
        }
    }

    /// Reports a fetch; pieces of it that are under way are then of no interest.
    pub(super) fn end_fetch(&mut self, id: u64, result: Result<(), FetchError>) {
        if let Some(state) = self.fetches.remove(&id) {
            self.events.push(Event::Fetched {
                token: state.fetch.token,
                result,
            });
        }
    }

    pub(super) fn fail_fetches_of(&mut self, rank: Rank) {
        let theirs = |(&id, state): (&u64, &FetchState)| (state.peer == rank).then_some(id);
        let ids: Vec<u64> = self.fetches.iter().filter_map(theirs).collect();
        ids.into_iter()
            .for_each(|id| self.end_fetch(id, Err(FetchError::Peer)));
        if let Some(peer) = self.peers.get_mut(&rank) {
            peer.fetches.clear();
        }
    }

    /// Returns whether a provider refused for the time being.
    pub(super) fn flush_fetches(&mut self, rank: Rank, now: Instant) -> bool {
        loop {
            let token = self.number();
            let peer = self.peers.get_mut(&rank).filter(|peer| peer.may_post(now));
            let Some(peer) = peer else {
                return false;
            };
            let Some(&id) = peer
                .fetches
                .front()
                .filter(|_| peer.pieces < PIECES_PER_PEER)
            else {
                return false;
            };
            let Some(state) = self.fetches.get_mut(&id) else {
                peer.fetches.pop_front();
                continue;
            };
            let (Some(rail), Some(&from)) =
                (self.rails.get_mut(state.rail), peer.rails.get(state.rail))
            else {
                return false;
            };
            let Ok(buffer) = rail.buffer() else {
                return true;
            };
            let Some(piece) = state.left.front().copied() else {
                rail.idle_buffers.push(buffer);
                peer.fetches.pop_front();
                continue;
            };
            let alone = piece.failures > 0;
            if peer.alone || alone && peer.pieces > 0 {
                rail.idle_buffers.push(buffer);
                return false;
            }
            let deadline = state.fetch.deadline;
            match rail.endpoint.read(
                from,
                &state.source,
                piece.at as u64,
                &buffer,
                0,
                piece.length,
                token,
                deadline,
            ) {
                Ok(()) => {
                    state.left.pop_front();
                    peer.pieces += 1;
                    peer.alone = alone;
                    if state.left.is_empty() {
                        peer.fetches.pop_front();
                    }
                    let (session, rail) = (peer.session, state.rail);
                    let piece = UnderWay::Piece {
                        peer: rank,
                        session,
                        fetch: id,
                        rail,
                        buffer,
                        piece,
                    };
                    self.under_way.insert(token, piece);
                }
                Err(error) => {
                    rail.idle_buffers.push(buffer);
                    if error == FabricPostError::Again {
                        return true;
                    }
                    self.end_fetch(id, Err(FetchError::Peer));
                }
            }
        }
    }
}

impl Rail {
    /// An idle buffer, or a new one.
    fn buffer(&mut self) -> Result<Region, io::Error> {
        if let Some(buffer) = self.idle_buffers.pop() {
            return Ok(buffer);
        }
        let memory = Memory::anonymous(PIECE)?;
        self.endpoint
            .register(memory, Access::Local)
            .map_err(io::Error::other)
    }
}
