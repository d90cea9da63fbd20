//! What users ask to see of a job with options of `copper start`, each by itself on four nodes: logs,
//! profiles, metrics, and what little memory leads to.

use crate::fixture::{ONE_TREE, Part, node_of};
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use serde_json::Value;
use slow_origin::SlowOrigin;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

const NODES: usize = 4;
const FILES: usize = 6;
const SIZE: usize = 300_000;
/// Longer than a busy machine takes to notice a loss, or to write a file.
const LIMIT: Duration = Duration::from_secs(20);

/// A cluster with some files on an origin that all nodes see.
struct Stage {
    // Unmounted before the cluster's place goes.
    origin: SlowOrigin,
    cluster: Cluster,
}

impl Stage {
    fn up() -> Stage {
        let cluster = Cluster::up(NODES);
        let source = cluster.place().join("source");
        fs::create_dir(&source).unwrap();
        for number in 0..FILES {
            fs::write(source.join(format!("file-{number}")), vec![3; SIZE]).unwrap();
        }
        let origin = cluster.origin("origin", &source);
        Stage { origin, cluster }
    }

    fn job(&self, arguments: &[&str]) -> Job<'_> {
        let arguments = [&ONE_TREE[..], arguments].concat();
        Job::prepare(
            &self.cluster,
            &[self.origin.mount()],
            Wishes::arguments(&arguments),
        )
    }

    fn started(&self, arguments: &[&str]) -> Job<'_> {
        let mut job = self.job(arguments);
        job.try_start().unwrap_or_else(|error| panic!("{error:#}"));
        job
    }

    /// Every node reads all files.
    fn read_all(&self, job: &Job<'_>) {
        for node in 0..NODES {
            let mut sums = job.checksums(node, true, self.origin.mount());
            assert!(Outcome::of(&mut sums).status.success());
        }
    }

    /// A file of each node, by its name with the node's for `{host}`; empty where there is none.
    fn of_nodes(&self, name: &str) -> Vec<String> {
        (0..NODES)
            .map(|node| {
                let name = name.replace("{host}", &self.cluster.host(node));
                fs::read_to_string(self.cluster.place().join(name)).unwrap_or_default()
            })
            .collect()
    }
}

fn stop(job: &Job<'_>, node: usize) {
    let outcome = Outcome::of(job.copper(node).arg("stop"));
    assert!(outcome.status.success(), "{outcome:?}");
}

#[test]
fn each_log_level_is_that_of_all_nodes() {
    let stage = Stage::up();
    let (leaf, root) = (node_of(Part::Leaf, NODES), node_of(Part::Root, NODES));
    let mut lengths = Vec::new();
    for level in 0..=5 {
        let name = format!("log-{level}-{{host}}");
        let log = stage.cluster.place().join(&name);
        let number = level.to_string();
        let job = stage.started(&["--log", log.to_str().unwrap(), "--log-level", &number]);
        stage.read_all(&job);
        job.kill(leaf);
        let lost = [stage.cluster.host(leaf)];
        assert!(
            wait_until(LIMIT, || job.missing(root) == lost),
            "level {level}"
        );
        stop(&job, root);
        let logs = stage.of_nodes(&name);
        for (node, said) in logs.iter().enumerate() {
            assert_eq!(
                said.contains("serving ms="),
                level >= 4,
                "{level}, node {node}: {said}"
            );
            assert_eq!(
                said.contains("ready ms="),
                level >= 4,
                "{level}, node {node}: {said}"
            );
        }
        // Whoever it was connected with says so.
        let parents = logs
            .iter()
            .filter(|said| said.contains(&format!("lost host=\"{}\"", lost[0])));
        assert_eq!(parents.count() > 0, level >= 3, "level {level}: {logs:#?}");
        if level < 3 {
            assert!(
                logs.iter().all(String::is_empty),
                "level {level}: {logs:#?}"
            );
        }
        lengths.push(logs.iter().map(|said| said.lines().count()).sum::<usize>());
    }
    // What level 5 has more than level 4 goes wrong on the way, and need not happen in a healthy job.
    assert!(lengths[3] < lengths[4], "lines by level: {lengths:?}");
}

#[test]
fn a_log_goes_where_its_type_says() {
    let stage = Stage::up();
    for (kind, in_files, printed) in [
        ("file", true, false),
        ("stdout", false, true),
        ("both", true, true),
    ] {
        let name = format!("log-{kind}-{{host}}");
        let log = stage.cluster.place().join(&name);
        let output = stage.cluster.place().join(format!("output-{kind}"));
        let log = log.to_str().unwrap();
        let job = stage.job(&["--log", log, "--log-level", "info", "--log-type", kind]);
        // The first node's helper keeps this open: it is a file, whose end nobody waits for.
        let status = job
            .start_command()
            .stdout(fs::File::create(&output).unwrap())
            .status()
            .unwrap();
        assert!(status.success(), "{kind}");
        stop(&job, 0);
        for (node, said) in stage.of_nodes(&name).iter().enumerate() {
            assert_eq!(
                said.contains("ready ms="),
                in_files,
                "{kind}, node {node}: {said}"
            );
        }
        let said = fs::read_to_string(&output).unwrap();
        assert_eq!(said.contains("ready ms="), printed, "{kind}: {said}");
    }
}

/// The rows of the nodes' tables of paths, by node and category; nothing where there are none.
fn listed(profile: &Path) -> Vec<HashMap<String, usize>> {
    let entries = fs::read_dir(profile.join("final")).unwrap().flatten();
    let tables = entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with("-profiling_top_paths.csv"));
    tables
        .map(|path| {
            let mut counts = HashMap::new();
            let mut reader = csv::Reader::from_path(path).unwrap();
            for row in reader.records() {
                *counts.entry(row.unwrap()[0].to_owned()).or_default() += 1;
            }
            counts
        })
        .collect()
}

#[test]
fn each_profile_option_writes_what_it_says_on_all_nodes() {
    let stage = Stage::up();
    for (name, option, most) in [
        ("sums", &["-P"][..], None),
        ("top", &["-N", "2"], Some(2)),
        ("all", &["-A"], Some(FILES)),
    ] {
        let profile = stage.cluster.place().join(name);
        let place = ["--profile-directory", profile.to_str().unwrap()];
        let job = stage.started(&[option, &place].concat());
        stage.read_all(&job);
        job.stop(1).unwrap_or_else(|error| panic!("{error:#}"));
        let mut merge = job.copper(0);
        let merged = Outcome::of(merge.args(["profile", "--merge"]).arg(&profile));
        assert!(merged.text().contains("4 nodes"), "{name}: {merged:?}");
        let tables = listed(&profile);
        let Some(most) = most else {
            assert!(tables.is_empty(), "{name}: {tables:?}");
            continue;
        };
        assert_eq!(tables.len(), NODES, "{name}: {tables:?}");
        for table in &tables {
            assert_eq!(table["data"], most, "{name}: {table:?}");
        }
    }
}

#[test]
fn metrics_of_all_nodes_are_there_while_their_helpers_are() {
    let stage = Stage::up();
    let name = "metrics-{host}.prom";
    let metrics = stage.cluster.place().join(name);
    let job = stage.started(&["--metrics", metrics.to_str().unwrap()]);
    stage.read_all(&job);
    let opened = |node: usize| -> Value {
        let status = job.status(node).unwrap();
        status["calls"]["families"]["open"]["hit"].clone()
    };
    let wanted: Vec<String> = (0..NODES)
        .map(|node| {
            format!(
                "copper_calls_total{{family=\"open\",outcome=\"hit\"}} {}\n",
                opened(node)
            )
        })
        .collect();
    let shown = || {
        let texts = stage.of_nodes(name);
        texts
            .iter()
            .zip(&wanted)
            .all(|(text, wanted)| text.contains(wanted))
    };
    assert!(
        wait_until(LIMIT, shown),
        "no {wanted:?} in {:#?}",
        stage.of_nodes(name)
    );
    job.stop(2).unwrap_or_else(|error| panic!("{error:#}"));
    let left = stage.of_nodes(name);
    assert!(left.iter().all(String::is_empty), "{left:#?}");
}

#[test]
fn little_memory_leads_to_evictions_that_are_counted_and_spoken_of() {
    let stage = Stage::up();
    let job = stage.started(&["--memory", "1M"]);
    (0..2).for_each(|_| stage.read_all(&job));
    let all = job.status_all(3).unwrap();
    let evicted = all["served"]["evictions"].as_u64().unwrap();
    assert!(evicted > 0, "{all}");
    let report = stage.cluster.place().join("report.html");
    let said = Outcome::of(job.copper(1).args(["report", "-o"]).arg(&report)).text();
    assert!(said.contains(" had to make way for others"), "{said}");
}

#[test]
fn without_a_journal_the_report_has_sums_and_says_no_more() {
    let stage = Stage::up();
    let job = stage.started(&["--journal-limit", "0"]);
    stage.read_all(&job);
    let all = job.status_all(0).unwrap();
    assert_eq!(all["paths"]["slowest"], Value::Array(Vec::new()), "{all}");
    assert_eq!(all["origin"]["opens"], FILES, "{all}");
    let report = stage.cluster.place().join("report.html");
    let outcome = Outcome::of(job.copper(1).args(["report", "-o"]).arg(&report));
    assert!(outcome.status.success(), "{outcome:?}");
    let page = fs::read_to_string(&report).unwrap();
    assert!(page.contains("Nothing was waited for."), "{page}");
}
