//! Device and mount numbers, which every node gives to the origin's file systems as it likes.
//!
//! What travels names the mount point beside the numbers; the receiver puts its own numbers for
//! that mount point in their place. Both are read from `/proc/self/mountinfo`, so the origin is
//! not asked.
#![forbid(unsafe_code)]

use copper_core::attributes::Attributes;
use rustix::fs::makedev;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Bit of `stx_mask` that says that the mount's number is known.
const STATX_MNT_ID: u32 = 0x1000;
/// Longer tables are not believed.
const MOST_MOUNTS: usize = 4096;

/// A mount as the node that asked the origin knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mount {
    id: u64,
    device: u64,
    point: Vec<u8>,
}

impl Mount {
    /// Whether it has this number where it was read.
    pub(super) fn is(&self, id: u64) -> bool {
        self.id == id
    }
}

/// The mounts of this node.
#[derive(Default)]
pub(super) struct Mounts {
    by_id: HashMap<u64, Option<Mount>>,
    by_point: HashMap<Vec<u8>, Option<Mount>>,
}

impl Mounts {
    /// The mount that a file lies on, by its attributes; `None` where it cannot be told.
    pub(super) fn of(&mut self, attributes: &Attributes) -> Option<Mount> {
        if attributes.statx_mask & STATX_MNT_ID == 0 {
            return None;
        }
        if !self.by_id.contains_key(&attributes.mount) {
            self.read();
            self.by_id.entry(attributes.mount).or_insert(None);
        }
        self.by_id.get(&attributes.mount)?.clone()
    }

    /// Puts this node's numbers in the place of another's. Where the mount is not found here, or
    /// the file system has devices of its own for parts of it, they stay.
    pub(super) fn translate(&mut self, there: &Mount, attributes: &mut Attributes) {
        if !self.by_point.contains_key(&there.point) {
            self.read();
            self.by_point.entry(there.point.clone()).or_insert(None);
        }
        let Some(Some(here)) = self.by_point.get(&there.point) else {
            return;
        };
        if attributes.mount == there.id {
            attributes.mount = here.id;
        }
        if attributes.device == there.device {
            attributes.device = here.device;
        }
    }

    fn read(&mut self) {
        let Ok(text) = std::fs::read("/proc/self/mountinfo") else {
            return;
        };
        // The last mount on a point is the one that is seen.
        for mount in text.split(|&byte| byte == b'\n').filter_map(parse) {
            if self.by_id.len() > MOST_MOUNTS {
                self.by_id.clear();
            }
            self.by_id.insert(mount.id, Some(mount.clone()));
            self.by_point.insert(mount.point.clone(), Some(mount));
        }
    }
}

/// Reads a line of `/proc/self/mountinfo`: `id parent major:minor root point ...`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
    let id = number(fields.next()?)?;
    let device = std::str::from_utf8(fields.nth(1)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = fields.nth(1)?.to_vec();
    Some(Mount {
        id,
        device: makedev(major.parse().ok()?, minor.parse().ok()?),
        point,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line = b"36 35 98:0 /mnt1 /lus/work rw,noatime master:1 - lustre server:/x rw";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.device), (36, makedev(98, 0)));
        assert_eq!(mount.point, b"/lus/work");
        assert!(parse(b"").is_none() && parse(b"x 1 2:3 / /a").is_none());
    }

    #[test]
    fn a_mount_that_is_here_gets_this_nodes_numbers_and_another_keeps_its_own() {
        let mut mounts = Mounts::default();
        let mut attributes = Attributes {
            device: 77,
            mount: 1_000_000,
            ..Attributes::default()
        };
        let elsewhere = Mount {
            id: 1_000_000,
            device: 77,
            point: b"/no/such/mount".to_vec(),
        };
        mounts.translate(&elsewhere, &mut attributes);
        assert_eq!((attributes.mount, attributes.device), (1_000_000, 77));
        let proc = Mount {
            point: b"/proc".to_vec(),
            ..elsewhere
        };
        mounts.translate(&proc, &mut attributes);
        let here = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let id = attributes.mount.to_string();
        assert!(
            here.lines()
                .any(|line| line.starts_with(&id) && line.contains(" /proc "))
        );
        assert_ne!(attributes.device, 77);
    }
}
