//! Cutting the kernel's connections with a peer that was lost.
//!
//! Providers over TCP keep the connection with a peer that has vanished, and use it again when the peer
//! is back. By then the kernel tries what it could not deliver at longer and longer intervals: after
//! half a minute without an answer it waits as long again. Cut, the provider connects anew.

use std::fs;
use std::mem::ManuallyDrop;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::FromRawFd;

/// The address in the words of libfabric (`fi_sockaddr_in://10.77.0.1:43331`), where it is one of IP.
pub(super) fn parse(words: &str) -> Option<SocketAddr> {
    let (kind, address) = words.split_once("://")?;
    kind.starts_with("fi_sockaddr_in")
        .then(|| address.parse().ok())?
}

/// Cuts this process's connections between a rail's `own` address and a peer's, whoever made them.
pub(super) fn cut(own: SocketAddr, peer: SocketAddr) {
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else {
        return;
    };
    let numbers: Vec<i32> = descriptors
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for number in numbers {
        // SAFETY: the descriptor is not closed, as the value is never dropped. Where it is no
        // connection of TCP, or another thread has closed it meanwhile, the calls below fail, and
        // one that has taken its number since has other addresses.
        let connection = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(number) });
        let (Ok(there), Ok(here)) = (connection.peer_addr(), connection.local_addr()) else {
            continue;
        };
        if there == peer || here == own && there.ip() == peer.ip() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn addresses_of_ip_are_read() {
        let address = parse("fi_sockaddr_in://10.77.0.1:43331").unwrap();
        assert_eq!(address, "10.77.0.1:43331".parse().unwrap());
        assert!(parse("fi_sockaddr_in6://[fe80::1]:80").is_some());
        assert_eq!(parse("fi_addr_cxi://0x1234"), None);
        assert_eq!(parse("?"), None);
    }

    #[test]
    fn connections_with_the_peer_are_cut_and_no_others() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (peer, other) = (listen(), listen());
        let mut ours = TcpStream::connect(peer.local_addr().unwrap()).unwrap();
        let mut others = TcpStream::connect(other.local_addr().unwrap()).unwrap();
        let unused = listen().local_addr().unwrap();
        cut(unused, peer.local_addr().unwrap());
        assert_eq!(ours.read(&mut [0]).unwrap(), 0, "not cut");
        others.set_nonblocking(true).unwrap();
        let left = others.read(&mut [0]).unwrap_err();
        assert_eq!(left.kind(), std::io::ErrorKind::WouldBlock);
    }
}
