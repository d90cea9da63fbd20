//! Giving the helper's memory to processes that may not open it by path: those of another user
//! namespace, or of another process namespace.
//!
//! They may have other numbers for users and groups as well, so they are told theirs. The shim takes
//! it that a program may read what its helper could. That is not so where the helper is root and the
//! program is in a user namespace, in which its root's rights end; there it is given nothing.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use copper_core::request::{MEMORY_BODY_LENGTH, Outcome, ReplyHeader};
use copper_core::user_ids::{IdMap, MAP_LENGTH};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::thread::{CapabilitySet, capabilities};
use std::fs;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

/// What is given.
#[derive(Debug)]
pub(crate) struct Handover {
    /// The catalog, opened for reading.
    catalog: OwnedFd,
    /// The alarm page and the counters, which everybody may write.
    common: OwnedFd,
}

fn reopen(descriptor: i32, access: OFlags) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{descriptor}");
    rustix::fs::open(&path, access | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open the shared memory again ({path}); is /proc mounted?"))
}

/// One of the maps of a process.
fn map(process: i32, name: &str) -> Result<[u8; MAP_LENGTH]> {
    let path = format!("/proc/{process}/{name}");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let map = IdMap::parse(&text)
        .with_context(|| format!("{path} has too many lines, or is of a namespace around ours"))?;
    Ok(map.encode())
}

/// Whether files' modes mean nothing to this process.
fn is_privileged() -> bool {
    let above = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
    capabilities(None).is_ok_and(|sets| sets.effective.intersects(above))
}

/// Whether a process is in the same user namespace as this one, as far as can be seen.
fn shares_namespace(process: i32) -> bool {
    let namespace = |process: &str| {
        let found = fs::metadata(format!("/proc/{process}/ns/user"));
        found.map(|found| (found.dev(), found.ino())).ok()
    };
    let own = namespace("self");
    own.is_some() && own == namespace(&process.to_string())
}

impl Handover {
    /// For the memory files that this process has under these descriptors.
    pub(crate) fn new(catalog: i32, common: i32) -> Result<Handover> {
        Ok(Handover {
            catalog: reopen(catalog, OFlags::RDONLY)?,
            common: reopen(common, OFlags::RDWR)?,
        })
    }

    /// Answers a client that asks for the memory. One that cannot be given it goes to the origin, so
    /// it need not be told why.
    pub(super) fn answer(&self, client: &UnixStream) {
        if let Err(error) = self.give(client) {
            tracing::info!("the memory was not given to a client: {error:#}");
        }
    }

    fn give(&self, client: &UnixStream) -> Result<()> {
        let peer = socket_peercred(client).context("nobody is there")?.pid;
        let peer = peer.as_raw_nonzero().get();
        ensure!(
            shares_namespace(peer) || !is_privileged(),
            "it is in a user namespace, and this helper may read more than programs there; start \
             the helper as an ordinary user"
        );
        let header = ReplyHeader {
            outcome: Outcome::Known,
            body_length: MEMORY_BODY_LENGTH as u32,
        };
        let parts = [
            header.encode().to_vec(),
            map(peer, "uid_map")?.to_vec(),
            map(peer, "gid_map")?.to_vec(),
        ];
        let descriptors = [self.catalog.as_fd(), self.common.as_fd()];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut room);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        let slices = parts.each_ref().map(|part| IoSlice::new(part));
        // So little goes into a fresh socket's buffer in one piece.
        sendmsg(client, &slices, &mut ancillary, SendFlags::NOSIGNAL)
            .context("cannot send it")
            .map(drop)
    }
}
