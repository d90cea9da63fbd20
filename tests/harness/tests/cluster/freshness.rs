//! Changes: when a write or a refresh on one node returns, all nodes see what is new; a node that was
//! cut off sees it soon after it is back.

use crate::fixture::{ONE_TREE, Part, node_of};
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use slow_origin::SlowOrigin;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a lost node may add to a write on another: about a second on each level of the tree, of
/// which there are two here, and what a busy machine takes.
const DELAY: Duration = Duration::from_secs(5);

/// Until a node that is back has heard what it missed.
const RETURN: Duration = Duration::from_secs(10);

/// A directory with a file on an origin, served by a job on four nodes.
struct Shared<'a> {
    job: Job<'a>,
    source: PathBuf,
    /// By its path on the origin's mount.
    directory: PathBuf,
}

impl<'a> Shared<'a> {
    fn start(cluster: &'a Cluster) -> (SlowOrigin, Self) {
        Self::start_with(cluster, &[])
    }

    /// With further arguments of `copper start`.
    fn start_with(cluster: &'a Cluster, arguments: &[&str]) -> (SlowOrigin, Self) {
        let source = cluster.place().join("source");
        fs::create_dir_all(source.join("directory")).unwrap();
        fs::write(source.join("directory/file"), "old\n").unwrap();
        let origin = cluster.origin("origin", &source);
        let directory = origin.mount().join("directory");
        let wishes = Wishes::arguments(&[&ONE_TREE[..], arguments].concat());
        let job = Job::start(cluster, &[origin.mount()], wishes);
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
fn a_write_is_seen_by_all_when_it_returns() {
    let cluster = Cluster::up(4);
    let (_origin, shared) = Shared::start(&cluster);
    for writer in 0..4 {
        let expected = format!("by {writer}\nfile\nnew-{writer}\n");
        let script = format!("rm -f new-*; echo 'by {writer}' >file; touch new-{writer}");
        shared.shell(writer, &script);
        for reader in 0..4 {
            assert_eq!(
                shared.look(reader),
                expected,
                "node {reader} when node {writer} had written"
            );
        }
    }
}

#[test]
fn a_node_that_was_cut_off_sees_what_it_missed() {
    let cluster = Cluster::up(4);
    let (_origin, shared) = Shared::start(&cluster);
    for cut in [node_of(Part::Leaf, 4), node_of(Part::Interior, 4)] {
        let writer = node_of(Part::Root, 4);
        let expected = format!("without {cut}\nfile\n");
        cluster.set_link(cut, false);
        let begun = Instant::now();
        shared.shell(writer, &format!("echo 'without {cut}' >file"));
        let took = begun.elapsed();
        assert!(
            took < DELAY,
            "a write while node {cut} is cut off took {took:?}"
        );
        assert_eq!(shared.look(writer), expected, "on the writer's own node");
        cluster.set_link(cut, true);
        for reader in 0..4 {
            let seen = wait_until(RETURN, || shared.look(reader) == expected);
            let found = shared.look(reader);
            assert!(seen, "node {reader} after node {cut} came back: {found:?}");
        }
    }
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

/// Each level of the tree keeps an absence for its share of the lifetime.
#[test]
fn a_file_made_behind_copper_s_back_is_found_on_all_nodes_after_the_lifetime_of_absences() {
    const LIFETIME: Duration = Duration::from_secs(3);
    let cluster = Cluster::up(4);
    let lifetime = LIFETIME.as_millis().to_string();
    let (origin, shared) = Shared::start_with(&cluster, &["--absence-lifetime", &lifetime]);
    let look = |node| {
        let script = "cat new none/file 2>/dev/null; ls; cat file";
        shared.shell(node, script)
    };
    for node in 0..4 {
        assert_eq!(look(node), "file\nold\n", "node {node} at first");
    }
    let directory = shared.source.join("directory");
    fs::write(directory.join("new"), "new\n").unwrap();
    fs::create_dir(directory.join("none")).unwrap();
    fs::write(directory.join("none/file"), "below\n").unwrap();
    let begun = Instant::now();
    for node in 0..4 {
        let mut seen = String::new();
        let found = wait_until(LIFETIME + DELAY, || {
            seen = look(node);
            seen == "new\nbelow\nfile\nnew\nnone\nold\n"
        });
        assert!(found, "node {node} after {:?}: {seen}", begun.elapsed());
    }
    let counts = origin.counts().unwrap();
    for name in ["file", "new", "none/file"] {
        let operations = &counts.paths[&format!("directory/{name}")];
        assert_eq!(operations[&slow_origin::Operation::Open], 1, "{name}");
    }
}

/// A refresh of everything on one node makes all nodes ask again, once for all of them.
#[test]
fn after_a_refresh_of_everything_the_origin_is_asked_once_again() {
    let cluster = Cluster::up(4);
    let (origin, shared) = Shared::start(&cluster);
    fs::write(shared.source.join("directory/file"), "new\n").unwrap();
    origin.reset().unwrap();
    shared.job.refresh(3, Path::new("/"));
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
