//! Changes: a write on one node is seen at once there, and soon on all others; a refresh on any node
//! has reached all when it returns.

use crate::fixture::ONE_TREE;
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use slow_origin::SlowOrigin;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Within this time all nodes see what one of them wrote (docs/SEMANTICS.md).
const BOUND: Duration = Duration::from_secs(2);

/// A directory with a file on an origin, served by a job on four nodes.
struct Shared<'a> {
    job: Job<'a>,
    source: PathBuf,
    /// By its path on the origin's mount.
    directory: PathBuf,
}

impl<'a> Shared<'a> {
    fn start(cluster: &'a Cluster) -> (SlowOrigin, Self) {
        let source = cluster.place().join("source");
        fs::create_dir_all(source.join("directory")).unwrap();
        fs::write(source.join("directory/file"), "old\n").unwrap();
        let origin = cluster.origin("origin", &source);
        let directory = origin.mount().join("directory");
        let job = Job::start(cluster, &[origin.mount()], Wishes::arguments(&ONE_TREE));
        let shared = Self {
            job,
            source,
            directory,
        };
        for node in 0..shared.job.nodes() {
            assert_eq!(shared.look(node), "old\nfile\n", "node {node} at first");
        }
        (origin, shared)
    }

    /// What a new process on a node finds: the file's contents and the directory's names.
    fn look(&self, node: usize) -> String {
        self.shell(node, "cat file; ls")
    }

    fn shell(&self, node: usize, script: &str) -> String {
        let mut shell = self.job.rank(node, "sh");
        shell
            .args(["-c", "cd \"$0\" && eval \"$1\""])
            .arg(&self.directory)
            .arg(script);
        let outcome = Outcome::of(&mut shell);
        assert!(
            outcome.status.success(),
            "{script} on node {node}: {outcome:?}"
        );
        outcome.text()
    }
}

#[test]
fn a_write_is_seen_at_once_on_its_node_and_soon_on_all() {
    let cluster = Cluster::up(4);
    let (_origin, shared) = Shared::start(&cluster);
    let mut slowest = Duration::ZERO;
    for writer in 0..4 {
        let expected = format!("by {writer}\nfile\nnew-{writer}\n");
        let script = format!("rm -f new-*; echo 'by {writer}' >file; touch new-{writer}");
        shared.shell(writer, &script);
        let written = Instant::now();
        assert_eq!(
            shared.look(writer),
            expected,
            "on the writer's own node {writer}"
        );
        for reader in 0..4 {
            let seen = wait_until(BOUND, || shared.look(reader) == expected);
            assert!(
                seen,
                "node {reader} does not see what node {writer} wrote: {:?}",
                shared.look(reader)
            );
        }
        slowest = slowest.max(written.elapsed());
    }
    println!("all nodes saw each write within {slowest:?}");
}

#[test]
fn a_refresh_on_any_node_has_reached_all_when_it_returns() {
    let cluster = Cluster::up(4);
    let (_origin, shared) = Shared::start(&cluster);
    for node in 0..4 {
        // Behind Copper's back, so that nobody knows.
        fs::write(
            shared.source.join("directory/file"),
            format!("version {node}\n"),
        )
        .unwrap();
        fs::write(shared.source.join(format!("directory/more-{node}")), "").unwrap();
        shared.job.refresh(node, &shared.directory);
        let mut expected = format!("version {node}\nfile\n");
        for more in 0..=node {
            expected += &format!("more-{more}\n");
        }
        for reader in 0..4 {
            assert_eq!(
                shared.look(reader),
                expected,
                "node {reader} after a refresh on node {node}"
            );
        }
    }
}

/// A refresh of everything on one node makes all nodes ask again, once for all of them.
#[test]
fn after_a_refresh_of_everything_the_origin_is_asked_once_again() {
    let cluster = Cluster::up(4);
    let (origin, shared) = Shared::start(&cluster);
    fs::write(shared.source.join("directory/file"), "new\n").unwrap();
    origin.reset().unwrap();
    shared.job.refresh(3, std::path::Path::new("/"));
    for node in 0..4 {
        assert_eq!(
            shared.look(node),
            "new\nfile\n",
            "node {node} after the refresh"
        );
    }
    let counts = origin.counts().unwrap();
    assert_eq!(
        counts.paths["directory/file"][&slow_origin::Operation::Open],
        1,
        "{counts:?}"
    );
}
