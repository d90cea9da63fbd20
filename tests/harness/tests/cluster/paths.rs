//! The paths that stand out in a job, of all its nodes together: in the status, in the advice of the
//! report, and in its page.

use crate::fixture::ONE_TREE;
use crate::reports::{between, look_at};
use copper_core::counters::paths::PERIOD;
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::environment;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const NODES: usize = 4;
/// Runs of `counted_calls DIRECTORY threads` on each node; it makes the calls of a plain run 13 times.
const RUNS: u64 = 4;
/// Files that are larger than what is cached, and how often each node reads them.
const LARGE: u64 = 3;
const READS: u64 = 8;

/// A directory for `counted_calls`.
fn fill(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join("file"), vec![1; 1000]).unwrap();
    symlink("file", directory.join("link")).unwrap();
}

/// What the status of all nodes says of a path in one of its lists.
fn named<'v>(all: &'v Value, list: &str, path: &Path) -> &'v Value {
    let paths = all["paths"][list].as_array().expect("a list");
    let mut paths = paths.iter();
    let found = paths.find(|one| one["path"] == path.to_str().unwrap());
    found.unwrap_or_else(|| panic!("{} is not in {list}: {all}", path.display()))
}

/// No farther off than chance allows: 5 times the deviation of the number of calls noted.
fn must_be_about(estimate: &Value, calls: u64, what: &str) {
    let estimate = estimate.as_u64().expect(what) as f64;
    let calls = calls as f64;
    let allowed = 5.0 * (calls * PERIOD as f64).sqrt();
    assert!(
        (estimate - calls).abs() <= allowed,
        "{what}: about {estimate}, made {calls}"
    );
}

/// A job whose programs have looked into a covered directory and one that is not.
struct Used<'a> {
    job: Job<'a>,
    covered: PathBuf,
    outside: PathBuf,
    _origin: slow_origin::SlowOrigin,
}

impl<'a> Used<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        let source = cluster.place().join("source");
        fill(&source);
        for number in 0..LARGE {
            fs::write(source.join(format!("large-{number}")), vec![2; 300_000]).unwrap();
        }
        for node in 0..NODES {
            fs::write(source.join(format!("own-{node}")), "own").unwrap();
        }
        let outside = cluster.place().join("project/env");
        fill(&outside.join("packages"));
        let origin = cluster.origin("origin", &source);
        let covered = origin.mount().to_owned();
        let arguments = [&ONE_TREE[..], &["--largest", "100K"]].concat();
        let job = Job::start(cluster, &[&covered], Wishes::arguments(&arguments));
        let used = Self {
            job,
            covered,
            outside,
            _origin: origin,
        };
        (0..NODES).for_each(|node| used.make_calls(node));
        used
    }

    fn make_calls(&self, node: usize) {
        for directory in [&self.covered, &self.outside.join("packages")] {
            for _ in 0..RUNS {
                let mut calls = self.job.rank(node, environment::program("counted_calls"));
                let outcome = Outcome::of(calls.arg(directory).arg("threads"));
                assert!(outcome.status.success(), "{outcome:?}");
            }
        }
        let mut read = self.job.rank(node, "sh");
        let script = format!(
            "cat \"$0/own-{node}\" && for i in $(seq {READS}); do cat \"$0\"/large-*; done >/dev/null"
        );
        let outcome = Outcome::of(read.args(["-c", &script]).arg(&self.covered));
        assert_eq!(outcome.text(), "own", "{outcome:?}");
    }
}

#[test]
fn what_all_nodes_ask_for_is_named_with_estimates_until_it_is_reset() {
    let cluster = Cluster::up(NODES);
    let used = Used::start(&cluster);
    let all = used.job.status_all(1).unwrap();
    let runs = RUNS * 13 * NODES as u64;
    let file = named(&all, "hot", &used.covered.join("file"));
    must_be_about(&file["hit"], (100 + 20 + 20 + 7) * runs, "hits of the file");
    let missing = named(&all, "hot", &used.covered.join("missing"));
    must_be_about(&missing["absent"], 50 * runs, "absences");
    let outside = named(&all, "uncovered", &used.outside.join("packages"));
    must_be_about(&outside["families"]["stat"], 150 * runs, "stats outside");
    for number in 0..LARGE {
        let path = used.covered.join(format!("large-{number}"));
        let left = named(&all, "left", &path);
        assert_eq!(
            (&left["why"], &left["bytes"]),
            (&"too_large".into(), &300_000.into())
        );
    }
    let said = Outcome::of(used.job.copper(2).args(["status", "--all"])).text();
    let line = format!("hot       {} (about ", used.covered.join("file").display());
    assert!(said.contains(&line), "{said}");

    let mut reset = used.job.copper(3);
    let outcome = Outcome::of(reset.args(["control", "reset", "counts", "--all"]));
    assert!(outcome.status.success(), "{outcome:?}");
    let all = used.job.status_all(0).unwrap();
    for list in ["hot", "uncovered"] {
        assert_eq!(all["paths"][list], Value::Array(Vec::new()), "{all}");
    }
}

#[test]
fn the_report_of_a_running_job_has_the_paths_of_all_nodes_and_advises_what_to_cover() {
    let cluster = Cluster::up(NODES);
    let used = Used::start(&cluster);
    let page = cluster.place().join("report.html");
    let mut report = used.job.copper(1);
    let outcome = Outcome::of(report.args(["report", "-o"]).arg(&page));
    assert!(outcome.status.success(), "{outcome:?}");
    let advice = outcome.text();
    let reads = LARGE * READS * NODES as u64;
    let wanted = format!("{LARGE} files over the limit were read at the origin {reads} times");
    assert!(advice.contains(&wanted), "{advice}");
    let packages = used.outside.join("packages");
    let cover = format!("`--cover {}`", packages.display());
    let line = advice.lines().find(|line| line.contains(&cover));
    let line = line.unwrap_or_else(|| panic!("no {cover} in {advice}"));
    let stats = between(line, "About ", " stats").replace(',', "");
    must_be_about(
        &stats.parse::<u64>().unwrap().into(),
        150 * RUNS * 13 * NODES as u64,
        "stats that the advice names",
    );

    let (document, data) = look_at(&page, &["Most asked for", "Not covered", "Slowest paths"]);
    assert_eq!(data["nodes"].as_array().unwrap().len(), NODES);
    let slowest = between(&document, "Table of the slowest paths", "</table>");
    for node in 0..NODES {
        let path = used.covered.join(format!("own-{node}"));
        let rest = slowest.split_once(&format!("{}</td>", path.display()));
        let (_, rest) = rest.unwrap_or_else(|| panic!("no {} in {slowest}", path.display()));
        let row = rest.split_once("</tr>").unwrap().0;
        assert!(row.contains(&cluster.host(node)), "{row}");
    }
    let hot = between(&document, "Table of the paths most asked for", "</table>");
    assert!(
        hot.contains(used.covered.join("missing").to_str().unwrap()),
        "{hot}"
    );
    let outside = between(
        &document,
        "Table of directories that are not covered",
        "</table>",
    );
    assert!(outside.contains(packages.to_str().unwrap()), "{outside}");
}
