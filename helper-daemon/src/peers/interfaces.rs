//! Which network interfaces, and which of their addresses, the fabric uses.
#![forbid(unsafe_code)]

use crate::fabric::libfabric::RailConfig;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

/// Most interfaces that may be named.
const MOST_RAILS: usize = 16;

/// The addresses of this machine's interfaces, by the interfaces' names.
pub(crate) fn own_addresses() -> Result<Vec<(String, IpAddr)>> {
    let interfaces = nix::ifaddrs::getifaddrs().context("cannot list the network interfaces")?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        Some((interface.interface_name, v4.or_else(v6)?))
    });
    Ok(addresses.collect())
}

/// The rails to use: the interfaces named, or the one that the node's own host name leads to.
pub(super) fn rails(named: &[String], host: &str) -> Result<Vec<RailConfig>> {
    ensure!(
        named.len() <= MOST_RAILS,
        "{} interfaces are more than {MOST_RAILS}",
        named.len()
    );
    let own = own_addresses()?;
    if named.is_empty() {
        let address = address_of_host(host, &own)?;
        return Ok(vec![RailConfig {
            address: Some(address),
            device: None,
        }]);
    }
    named.iter().map(|name| rail(name, &own)).collect()
}

fn rail(name: &str, own: &[(String, IpAddr)]) -> Result<RailConfig> {
    let usable = |address: &&IpAddr| !is_link_local(address);
    let addresses = own.iter().filter(|(of, _)| of == name);
    let mut addresses: Vec<&IpAddr> = addresses.map(|(_, address)| address).collect();
    addresses.sort_by_key(|address| !address.is_ipv4());
    if let Some(&address) = addresses.into_iter().find(usable) {
        return Ok(RailConfig {
            address: Some(address),
            device: None,
        });
    }
    if Path::new("/sys/class/net").join(name).exists() {
        bail!(
            "interface {name} has no address; name another with --interface ({})",
            names(own)
        );
    }
    // A device of a provider that does not work over sockets, such as cxi0.
    let of_fabric = ["/sys/class/cxi", "/sys/class/infiniband"];
    if of_fabric
        .iter()
        .any(|class| Path::new(class).join(name).exists())
    {
        return Ok(RailConfig {
            address: None,
            device: Some(name.to_owned()),
        });
    }
    bail!("there is no interface {name}; there are: {}", names(own))
}

fn names(own: &[(String, IpAddr)]) -> String {
    let names: BTreeSet<String> = own
        .iter()
        .map(|(name, address)| format!("{name} ({address})"))
        .collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Checks that the name of a node that this one must reach leads anywhere.
pub(super) fn check_name(host: &str, here: &str) -> Result<()> {
    (host, 0)
        .to_socket_addrs()
        .map(|_| ())
        .with_context(|| format!("host name {host} does not resolve on {here}"))
}

/// The address that others reach this node under.
fn address_of_host(host: &str, own: &[(String, IpAddr)]) -> Result<IpAddr> {
    let found: Vec<IpAddr> = (host, 0)
        .to_socket_addrs()
        .with_context(|| format!("this node's own host name {host} does not resolve"))?
        .map(|address| address.ip())
        .collect();
    let here = |address: &&IpAddr| own.iter().any(|(_, own)| own == *address);
    let mut candidates: Vec<&IpAddr> = found.iter().filter(here).collect();
    // Some systems give a machine's own name a loopback address, under which nobody else reaches it.
    candidates.sort_by_key(|address| (address.is_loopback(), !address.is_ipv4()));
    match candidates.first() {
        Some(address) => Ok(**address),
        None => bail!(
            "{host} leads to {}, which is no address of this node ({}); name an interface with \
             --interface",
            found
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            names(own)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_found_by_name_and_host() {
        let found = rails(&["lo".to_owned()], "unused").unwrap();
        assert_eq!(found[0].address, Some([127, 0, 0, 1].into()));
        let found = rails(&[], "localhost").unwrap();
        assert!(found[0].address.unwrap().is_loopback());
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_can() {
        let error = rails(&["nowhere0".to_owned()], "x")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("nowhere0") && error.contains("lo (127.0.0.1)"),
            "{error}"
        );
        let error = rails(&[], "no-such-host.invalid").unwrap_err().to_string();
        assert!(error.contains("no-such-host.invalid"), "{error}");
        let many = vec!["lo".to_owned(); MOST_RAILS + 1];
        assert!(rails(&many, "x").is_err());
    }
}
