//! Whether other nodes' helpers can find this one: its name, its addresses and its ports.
#![forbid(unsafe_code)]

use super::Finding;
use crate::peers::interfaces::own_addresses;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener, ToSocketAddrs};

const NAME: &str = "host name";
const PORTS: &str = "ports";

pub(super) fn check(port: Option<u16>) -> Vec<Finding> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let addresses: Vec<IpAddr> = (&*name, 0)
        .to_socket_addrs()
        .map(|found| found.map(|address| address.ip()).collect())
        .unwrap_or_default();
    vec![judge_name(&name, &addresses), check_port(port)]
}

fn judge_name(name: &str, addresses: &[IpAddr]) -> Finding {
    let advice = "for several nodes give them names that lead to their network addresses, or list \
                  addresses with --hosts";
    if addresses.is_empty() {
        return Finding::note(NAME, format!("{name} does not resolve"), advice);
    }
    let reachable = addresses.iter().find(|address| !address.is_loopback());
    match reachable {
        None => Finding::note(
            NAME,
            format!("{name} leads to {} alone", addresses[0]),
            advice,
        ),
        Some(address) => {
            let own = own_addresses().unwrap_or_default();
            match own.iter().find(|(_, own)| own == address) {
                Some((interface, _)) => {
                    Finding::ok(NAME, format!("{name} leads to {address} ({interface})"))
                }
                None => Finding::note(
                    NAME,
                    format!("{name} leads to {address}, which is not this machine's"),
                    advice,
                ),
            }
        }
    }
}

/// Whether a helper could listen: on the port asked for, or on any.
fn check_port(port: Option<u16>) -> Finding {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.unwrap_or(0)));
    match (listener, port) {
        (Err(error), Some(port)) => Finding::problem(
            PORTS,
            format!("port {port}: {error}"),
            "give another --port, or none: then a free one is looked for",
        ),
        (Err(error), None) => Finding::problem(
            PORTS,
            format!("cannot listen on any: {error}"),
            "helpers of several nodes meet over TCP; have a network interface set up",
        ),
        (Ok(_), Some(port)) => Finding::ok(PORTS, format!("port {port} is free")),
        (Ok(_), None) => {
            let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
            let range = range.unwrap_or_default();
            let range: Vec<&str> = range.split_whitespace().collect();
            Finding::ok(
                PORTS,
                format!("can listen; local ports are {}", range.join(" to ")),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_port_in_use_is_a_problem() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("listens");
        let port = taken.local_addr().expect("bound").port();
        let finding = check_port(Some(port));
        assert_eq!(finding.state, State::Problem);
        assert!(finding.found.contains(&port.to_string()), "{finding:?}");
        assert_eq!(check_port(None).state, State::Ok);
    }

    #[test]
    fn a_name_that_only_this_node_understands_is_noted() {
        let loopback = [IpAddr::from([127, 0, 1, 1])];
        let finding = judge_name("node1", &loopback);
        assert_eq!(finding.state, State::Note);
        assert!(finding.found.contains("127.0.1.1"), "{finding:?}");
        assert_eq!(judge_name("node1", &[]).state, State::Note);
        let foreign = [IpAddr::from([198, 51, 100, 7])];
        assert_eq!(judge_name("node1", &foreign).state, State::Note);
    }
}
