//! The machine that large runs are made on: its network, its nodes and its origin, as numbers.
//!
//! Where the numbers come from stands in `docs/SCALING.md`.

use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;

/// The parameters of the model.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Bytes per second of a node's network card, each way.
    pub link: f64,
    /// One-way time of a small message in nanoseconds, without the nodes' own work.
    pub latency: u64,
    /// A node's own work for sending or receiving one message, in nanoseconds.
    pub message_cost: u64,
    /// A node's work for a request of one of its own ranks, in nanoseconds.
    pub ask_cost: u64,
    /// Bytes of a message besides its path and its body.
    pub header: u64,
    /// The origin.
    pub origin: OriginRates,
}

/// What the origin can do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct OriginRates {
    /// Time of one metadata operation on an idle server, seen by a client, in nanoseconds.
    pub operation: u64,
    /// Metadata operations served at a time, over all servers.
    pub servers: usize,
    /// Bytes per second that one client reads.
    pub client: f64,
    /// Bytes per second that all clients read together.
    pub total: f64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            link: 25e9,
            latency: 2_000,
            message_cost: 1_000,
            ask_cost: 11_000,
            header: 100,
            origin: OriginRates {
                operation: 500_000,
                servers: 200,
                client: 1.5e9,
                total: 650e9,
            },
        }
    }
}

impl Machine {
    /// This machine with an origin that delivers as fast as the network takes.
    #[must_use]
    pub fn with_fast_origin(mut self) -> Self {
        self.origin = OriginRates {
            client: 1e15,
            total: 1e15,
            ..self.origin
        };
        self
    }

    /// The time that `bytes` take on a link, in nanoseconds.
    pub fn on_link(&self, bytes: u64) -> u64 {
        span(bytes, self.link)
    }
}

/// The time that `bytes` take at `rate` bytes per second, in nanoseconds.
pub fn span(bytes: u64, rate: f64) -> u64 {
    (bytes as f64 / rate * 1e9) as u64
}

/// The origin under load: servers for metadata, and pipes for data.
pub struct OriginQueue {
    rates: OriginRates,
    servers: BinaryHeap<Reverse<u64>>,
    data_free: u64,
    /// Metadata operations served.
    pub operations: u64,
    /// Bytes read.
    pub bytes: u64,
}

impl OriginQueue {
    /// An idle origin.
    pub fn new(rates: OriginRates) -> Self {
        let servers = (0..rates.servers).map(|_| Reverse(0)).collect();
        Self {
            rates,
            servers,
            data_free: 0,
            operations: 0,
            bytes: 0,
        }
    }

    /// When `count` metadata operations, one after the other, are done that begin at `now`.
    pub fn operations(&mut self, now: u64, count: u64) -> u64 {
        let mut done = now;
        for _ in 0..count {
            let free = self.servers.pop().map_or(0, |Reverse(free)| free);
            done = done.max(free) + self.rates.operation;
            self.servers.push(Reverse(done));
        }
        self.operations += count;
        done
    }

    /// When `bytes` are read that a client asks for at `now`, and that it can begin to take when it
    /// is free, which it is again then.
    pub fn read(&mut self, now: u64, client_free: &mut u64, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.data_free = self.data_free.max(now) + span(bytes, self.rates.total);
        let taken = now.max(*client_free) + span(bytes, self.rates.client);
        *client_free = taken.max(self.data_free);
        *client_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_serves_so_many_at_a_time_and_no_more() {
        let rates = OriginRates {
            operation: 10,
            servers: 2,
            client: 1e9,
            total: 2e9,
        };
        let mut origin = OriginQueue::new(rates);
        let done: Vec<u64> = (0..4).map(|_| origin.operations(0, 1)).collect();
        assert_eq!(done, [10, 10, 20, 20]);
        let (mut one, mut two) = (0, 0);
        assert_eq!(origin.read(0, &mut one, 100), 100);
        assert_eq!(origin.read(0, &mut two, 100), 100);
        assert_eq!(origin.read(0, &mut one, 100), 200);
        assert_eq!(origin.read(0, &mut two, 300), 400);
    }
}
