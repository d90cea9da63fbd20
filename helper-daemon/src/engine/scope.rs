//! Which paths of the origin the helper will learn about.
#![forbid(unsafe_code)]

use super::Policy;
use copper_core::catalog::resolve::Scope;
use copper_core::path::{is_node_local, is_within};
use std::path::Path;

/// Everything but what the kernel makes, the view and the helper's own directories.
///
/// Wider than what any one process has covered, since processes may name prefixes of their own;
/// each shim asks for, and believes, only what it covers itself.
pub(super) struct Covered {
    never: Vec<Vec<u8>>,
    prefixes: Vec<Vec<u8>>,
}

impl Covered {
    pub(super) fn new(policy: &Policy, store: &Path) -> Covered {
        Covered {
            never: vec![
                policy.view.clone(),
                policy.runtime.clone(),
                store.as_os_str().as_encoded_bytes().to_vec(),
            ],
            prefixes: policy.covered.clone(),
        }
    }

    /// Whether a directory may be fetched whole for the sake of one name: not where it lies above
    /// a covered prefix or so near the root that it holds other people's things.
    pub(super) fn is_worth_a_snapshot(&self, directory: &[u8]) -> bool {
        let above = |prefix: &Vec<u8>| prefix != directory && is_within(prefix, directory);
        if self.prefixes.iter().any(above) {
            return false;
        }
        let covered = self
            .prefixes
            .iter()
            .any(|prefix| is_within(directory, prefix));
        covered || (directory != b"/" && directory.iter().filter(|&&byte| byte == b'/').count() > 1)
    }
}

impl Scope for Covered {
    fn covers(&self, path: &[u8]) -> bool {
        let made_by_kernel = is_node_local(path) && !is_within(path, b"/tmp");
        !made_by_kernel && !self.never.iter().any(|own| is_within(path, own))
    }

    fn leads_inside(&self, path: &[u8]) -> bool {
        self.covers(path)
    }

    fn above_root(&self) -> Option<&[u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered() -> Covered {
        let policy = Policy {
            view: b"/tmp/me/copper".to_vec(),
            runtime: b"/tmp/copper-1".to_vec(),
            covered: vec![b"/lus/project/env".to_vec(), b"/data".to_vec()],
            directory_limit: 10,
            largest: u64::MAX,
            absence_lifetime: None,
            read_ahead: 0,
        };
        Covered::new(&policy, Path::new("/dev/shm/copper-1"))
    }

    #[test]
    fn own_and_kernel_trees_are_left_out() {
        let covered = covered();
        for path in [
            "/proc/1",
            "/dev/shm/copper-1/tree",
            "/tmp/me/copper/lus",
            "/tmp/copper-1",
        ] {
            assert!(!covered.covers(path.as_bytes()), "{path}");
        }
        for path in ["/lus", "/", "/tmp/other", "/tmp/me"] {
            assert!(covered.covers(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn only_deep_or_covered_directories_are_fetched_whole() {
        let covered = covered();
        for path in ["/", "/home", "/lus", "/lus/project"] {
            assert!(!covered.is_worth_a_snapshot(path.as_bytes()), "{path}");
        }
        for path in [
            "/data",
            "/lus/project/env",
            "/lus/project/env/lib",
            "/home/me",
        ] {
            assert!(covered.is_worth_a_snapshot(path.as_bytes()), "{path}");
        }
    }
}
