//! What the tests on clusters share: a job that imports packages from a slow origin, and the parts
//! that nodes play in its tree.

use copper_core::tree::Topology;
use copper_tests::cluster::ranks;
use copper_tests::cluster::{Cluster, Job};
use copper_tests::compare::Outcome;
use copper_tests::python;
use slow_origin::SlowOrigin;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Part of [`python::IMPORT`] that takes a quarter of the time.
pub(crate) const SMALL_IMPORT: &str = "\
import numpy
print(numpy.linalg.det(numpy.arange(9.0).reshape(3, 3) + numpy.eye(3)), numpy.__file__)
";

/// Ranks that run the import `code`, `each` on every node of the job.
pub(crate) fn imports(job: &Job<'_>, packages: &Path, each: usize, code: &str) -> Vec<Command> {
    (0..job.nodes() * each)
        .map(|rank| job.python(rank % job.nodes(), true, packages, code))
        .collect()
}

/// What a rank says without Copper, and how long as many ranks take at once.
pub(crate) fn plain_import(
    job: &Job<'_>,
    packages: &Path,
    each: usize,
    code: &str,
) -> (Outcome, Duration) {
    let plainly = || {
        let commands = (0..job.nodes() * each)
            .map(|rank| job.python(rank % job.nodes(), false, packages, code));
        ranks::run(commands.collect())
    };
    // The first run brings the interpreter and the packages into memory.
    plainly();
    let ended = plainly();
    let plain = ended[0].outcome.clone();
    assert!(
        plain.status.success() && !plain.stdout.is_empty(),
        "{plain:?}"
    );
    ranks::must_equal(&ended, &plain, "of a plain run");
    (plain, ranks::longest(&ended))
}

/// The packages on a slow origin that all nodes see.
pub(crate) fn packages(cluster: &Cluster) -> SlowOrigin {
    cluster.origin("packages", python::packages())
}

/// A node's part in a job's only tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Asks the origin.
    Root,
    /// Has a parent and children.
    Interior,
    /// Has no children.
    Leaf,
}

/// The arguments of `copper start` for one tree in which nodes play all parts.
pub(crate) const ONE_TREE: [&str; 4] = ["--trees", "1", "--fan-out", "2"];

/// A node that plays the part in a job of `nodes` nodes started with [`ONE_TREE`].
pub(crate) fn node_of(part: Part, nodes: usize) -> usize {
    let topology = Topology::new(nodes as u32, 1, 2).expect("a tree of these nodes");
    let plays = |rank: &u32| {
        let has_parent = topology.parent(0, *rank).is_some();
        let has_children = topology.children(0, *rank).next().is_some();
        match part {
            Part::Root => !has_parent,
            Part::Interior => has_parent && has_children,
            Part::Leaf => !has_children,
        }
    };
    let rank = (0..nodes as u32).find(plays);
    rank.expect("a tree of four nodes has all parts") as usize
}

/// What a fault may add to the time of a run: 5 s until a vanished node is noticed, 2 s that a shim
/// waits for a helper without a sign of life, and what a busy machine takes.
pub(crate) const DELAY: Duration = Duration::from_secs(10);
