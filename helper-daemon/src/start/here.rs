//! Which of a job's hosts this machine is.
//!
//! It is recognised by its host name, or else (in a network namespace the host name is that of the
//! whole machine) by an address: one that a listed name resolves to and that an interface has.
#![forbid(unsafe_code)]

use anyhow::{Result, bail};
use std::collections::HashSet;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Names that are resolved at once.
const RESOLVERS: usize = 64;
/// How long resolving may take, for all names together.
const RESOLVE_TIME: Duration = Duration::from_secs(10);
/// Names that an error message lists.
const NAMED: usize = 8;

/// The place of this machine in the list.
pub(super) fn rank_of_this_machine(hosts: &[String]) -> Result<u32> {
    let own = own_name();
    if let Some(place) = place_by_name(hosts) {
        return Ok(place as u32);
    }
    let addresses = own_addresses();
    let resolved = resolve_until_found(hosts, &addresses);
    match resolved.found {
        Some(place) => Ok(place as u32),
        None => bail!("{}", explain(hosts, &own, &addresses, &resolved.unknown)),
    }
}

fn own_name() -> String {
    let system = rustix::system::uname();
    system.nodename().to_string_lossy().into_owned()
}

/// The place in the list that this machine's host name tells.
pub(super) fn place_by_name(hosts: &[String]) -> Option<usize> {
    let own = own_name();
    hosts.iter().position(|host| are_same(host, &own))
}

/// Whether two host names mean the same machine: equal, or one is the other's short form.
fn are_same(host: &str, own: &str) -> bool {
    let is_short_of = |short: &str, long: &str| {
        long.strip_prefix(short)
            .is_some_and(|rest| rest.starts_with('.'))
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    host.eq_ignore_ascii_case(own)
        || !is_address
            && ((!host.contains('.') && is_short_of(host, own))
                || (!own.contains('.') && is_short_of(own, host)))
}

fn own_addresses() -> HashSet<IpAddr> {
    let found = crate::peers::own_addresses().unwrap_or_default();
    found.into_iter().map(|(_, address)| address).collect()
}

fn is_own(address: IpAddr, own: &HashSet<IpAddr>) -> bool {
    // All of 127/8 is this machine, though the interface has one address of it.
    address.is_loopback() || own.contains(&address)
}

#[derive(Default)]
struct Resolved {
    /// The first place whose name leads here.
    found: Option<usize>,
    /// Places whose names do not resolve.
    unknown: Vec<usize>,
}

/// Resolves names, many at once, until the first that leads here is known.
fn resolve_until_found(hosts: &[String], own: &HashSet<IpAddr>) -> Resolved {
    let hosts: Arc<[String]> = hosts.into();
    let next = Arc::new(AtomicUsize::new(0));
    let (sender, answers) = mpsc::channel();
    for _ in 0..RESOLVERS.min(hosts.len()) {
        let (hosts, next, sender) = (hosts.clone(), next.clone(), sender.clone());
        // Not joined: nothing ends a look-up whose server is silent.
        thread::spawn(move || {
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some(host) = hosts.get(place) else {
                    return;
                };
                if sender.send((place, resolve(host))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let until = Instant::now() + RESOLVE_TIME;
    let mut resolved = Resolved::default();
    let mut undecided: HashSet<usize> = (0..hosts.len()).collect();
    while let Ok((place, addresses)) =
        answers.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        undecided.remove(&place);
        if addresses.is_empty() {
            resolved.unknown.push(place);
        } else if addresses.into_iter().any(|address| is_own(address, own)) {
            let first = resolved.found.map_or(place, |found| found.min(place));
            resolved.found = Some(first);
            // Names behind it need not be looked up.
            next.fetch_max(hosts.len(), Ordering::Relaxed);
        }
        if let Some(found) = resolved.found
            && undecided.iter().all(|&place| place > found)
        {
            break;
        }
    }
    resolved
}

fn resolve(host: &str) -> Vec<IpAddr> {
    let addresses = (host, 0).to_socket_addrs();
    addresses.map_or(Vec::new(), |found| {
        found.map(|socket| socket.ip()).collect()
    })
}

fn explain(hosts: &[String], own: &str, addresses: &HashSet<IpAddr>, unknown: &[usize]) -> String {
    let mut addresses: Vec<String> = addresses
        .iter()
        .filter(|address| !address.is_loopback())
        .map(IpAddr::to_string)
        .collect();
    addresses.sort();
    let this = [vec![own.to_owned()], addresses].concat().join(", ");
    let mut text = format!(
        "this machine ({this}) is none of the job's; run copper start on one of the nodes: {}",
        shorten(hosts.iter())
    );
    if !unknown.is_empty() {
        let names = unknown.iter().map(|&place| &hosts[place]);
        text += &format!(" (not resolved here: {})", shorten(names));
    }
    text
}

/// The first of many names.
pub(super) fn shorten<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named: Vec<&str> = names.take(NAMED).map(String::as_str).collect();
    let named = named.join(", ");
    match more {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_short_or_long() {
        assert!(are_same("node1", "node1"));
        assert!(are_same("NODE1", "node1"));
        assert!(are_same("node1", "node1.site"));
        assert!(are_same("node1.site", "node1"));
        assert!(!are_same("node1.site", "node1.other"));
        assert!(!are_same("node1", "node10"));
        assert!(!are_same("10.0.0.1", "10"));
    }

    #[test]
    fn addresses_count_where_names_do_not() {
        let hosts = ["198.51.100.1", "127.0.0.9", "127.0.0.1"].map(str::to_owned);
        assert_eq!(rank_of_this_machine(&hosts).expect("here"), 1);
    }

    #[test]
    fn a_list_without_this_machine_is_refused_quickly() {
        let hosts: Vec<String> = (0..10_000)
            .map(|number| format!("198.51.100.{}", number % 250))
            .collect();
        let start = Instant::now();
        let error = rank_of_this_machine(&hosts)
            .expect_err("not here")
            .to_string();
        assert!(error.contains("run copper start on one of the nodes: 198.51.100.0, 198.51.100.1"));
        assert!(error.contains("and 9992 more"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
