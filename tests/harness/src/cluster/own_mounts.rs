//! A slow origin that each node has mounted for itself, at the same path, as nodes do: what one has
//! read is in no other's cache, so what is counted is what an origin's servers would see.

use super::Cluster;
use crate::origin;
use slow_origin::{Counts, Load, SlowOrigin};
use std::io;
use std::path::{Path, PathBuf};

/// One mount for each node; they go when this is dropped.
#[derive(Debug)]
pub struct OwnMounts {
    mounts: Vec<SlowOrigin>,
    seen_at: PathBuf,
}

impl OwnMounts {
    pub(super) fn make(cluster: &Cluster, name: &str, source: &Path, count: usize) -> Self {
        let seen_at = cluster.place().join(name);
        std::fs::create_dir_all(&seen_at).expect("the place is ours");
        let mounts = (0..count)
            .map(|node| {
                let own = cluster.place().join(format!("{name}-{node}"));
                let mount = origin::slow(source, &own, &Load::none());
                let (from, to) = (own.display(), seen_at.display());
                cluster.shell(node, &format!("mount --bind {from} {to}"));
                mount
            })
            .collect();
        Self { mounts, seen_at }
    }

    /// The directory at which each node sees it.
    pub fn mount(&self) -> &Path {
        &self.seen_at
    }

    /// What all mounts together have served since the last reset.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn counts(&self) -> io::Result<Counts> {
        let mut all = Counts::default();
        for mount in &self.mounts {
            all.add(&mount.counts()?);
        }
        Ok(all)
    }

    /// Sets all counts to zero.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn reset(&self) -> io::Result<()> {
        self.mounts.iter().try_for_each(SlowOrigin::reset)
    }

    /// Makes all mounts as slow as `load` says from now on.
    ///
    /// # Errors
    /// When one does not answer.
    pub fn set_load(&self, load: &Load) -> io::Result<()> {
        self.mounts
            .iter()
            .try_for_each(|mount| mount.set_load(load))
    }
}
