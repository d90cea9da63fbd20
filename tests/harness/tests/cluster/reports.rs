//! What users see of a job: its profile, its report in a browser, and the helpers' logs.

use crate::fixture::{ONE_TREE, imports, packages, plain_import};
use copper_tests::browser;
use copper_tests::cluster::{Cluster, Job, Wishes, ranks};
use copper_tests::compare::Outcome;
use copper_tests::python;
use copper_tests::session::wait_until;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NODES: usize = 4;
/// A snapshot is due each second; a busy machine takes longer.
const SNAPSHOT_TIME: Duration = Duration::from_secs(30);

/// Files of a directory whose names end so; none where it is not there.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.ends_with(end) && !name.starts_with('.')
        })
        .collect();
    found.sort();
    found
}

/// The rows of a CSV file, each by the names of its columns.
fn rows(file: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(file).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

/// The metrics of a `profiling_aggregate.csv`.
fn metrics(file: &Path) -> BTreeMap<String, f64> {
    let rows = rows(file).into_iter();
    rows.map(|row| (row["metric"].clone(), row["value"].parse().unwrap()))
        .collect()
}

fn copper(job: &Job<'_>, arguments: &[&str]) -> String {
    let outcome = Outcome::of(job.copper(0).args(arguments));
    assert!(
        outcome.status.success(),
        "copper {arguments:?}: {outcome:?}"
    );
    String::from_utf8(outcome.stdout).unwrap()
}

/// What stands between two texts.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before}"));
    rest.split_once(after)
        .unwrap_or_else(|| panic!("no {after}"))
        .0
}

/// Checks a report in the browser; returns the data that is in it.
pub(crate) fn look_at(report: &Path, sections: &[&str]) -> (String, Value) {
    let html = fs::read_to_string(report).unwrap();
    for outside in ["src=", "href=\"http", "url(", "@import"] {
        assert!(!html.contains(outside), "{outside} in the report");
    }
    let page = browser::load(report);
    assert!(page.console.is_empty(), "{:#?}", page.console);
    for section in sections {
        assert!(
            page.document.contains(section),
            "no {section} in {}",
            page.document
        );
    }
    for width in [390, 1280] {
        let needed = browser::content_width(report, width);
        assert!(
            needed <= width,
            "{needed} pixels wide in a window of {width}"
        );
    }
    // Each drawing says what it shows to those who do not see it.
    let drawings = page.document.matches("<svg").count();
    let described = page
        .document
        .matches("<svg class=\"plot\" role=\"img\" aria-label=")
        .count();
    assert!(
        drawings > 0 && drawings == described,
        "{described} of {drawings}"
    );
    let data = between(&page.document, "id=\"copper-data\">", "</script>");
    let data = serde_json::from_str(data).unwrap();
    (page.document, data)
}

/// The numbers that the page shows must be those of the JSON that they are taken from.
fn numbers_must_equal(document: &str, json: &Value) {
    let mut shown = 0;
    for part in document.split("data-from=\"").skip(1) {
        let (from, rest) = part.split_once('"').unwrap();
        let (_, pointer) = from.split_once(':').unwrap();
        let value = between(rest, "data-value=\"", "\"");
        let wanted = json
            .pointer(pointer)
            .unwrap_or_else(|| panic!("no {pointer} in {json}"));
        assert_eq!(value, wanted.to_string(), "{pointer}");
        let text = between(rest, ">", "<").replace(',', "");
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            assert_eq!(text, value, "{pointer}");
        }
        shown += 1;
    }
    assert!(shown >= 5, "{shown} numbers in {document}");
}

#[test]
fn an_import_on_four_nodes_is_profiled_and_reported() {
    let cluster = Cluster::up(NODES);
    let origin = packages(&cluster);
    let profile = cluster.place().join("profile");
    let logs = cluster.place().join("log-{host}");
    let arguments = [
        &ONE_TREE[..],
        &[
            "-P",
            "-N",
            "20",
            "-A",
            "-I",
            "1",
            "--profile-directory",
            profile.to_str().unwrap(),
        ],
        &["--log", logs.to_str().unwrap(), "--log-level", "4"],
    ]
    .concat();
    let mut job = Job::prepare(&cluster, &[origin.mount()], Wishes::arguments(&arguments));
    let (plain, _) = plain_import(&job, origin.mount(), 1, python::IMPORT);
    job.try_start().unwrap_or_else(|error| panic!("{error:#}"));
    ranks::must_equal(
        &ranks::run(imports(&job, origin.mount(), 1, python::IMPORT)),
        &plain,
        "cold",
    );

    let cold_logs = logs_of(&cluster, &job);
    for (node, said) in cold_logs.iter().enumerate() {
        for wanted in ["serving ms=", "ready ms="] {
            assert!(
                said.contains(wanted),
                "node {node} does not log {wanted}: {said}"
            );
        }
    }
    ranks::must_equal(
        &ranks::run(imports(&job, origin.mount(), 1, python::IMPORT)),
        &plain,
        "warm",
    );
    assert_eq!(logs_of(&cluster, &job), cold_logs, "hits are logged");

    must_snapshot(&profile);
    let hosts: Vec<String> = (0..NODES).map(|node| cluster.host(node)).collect();
    live_report(&job, cluster.place(), origin.mount(), &hosts);
    let last: Vec<Value> = (0..NODES).map(|node| job.status(node).unwrap()).collect();
    job.stop(1).unwrap_or_else(|error| panic!("{error:#}"));
    profile_of_all(&job, &profile, origin.mount(), &last);
    report_of_files(&job, cluster.place(), &profile, &last);
}

fn logs_of(cluster: &Cluster, job: &Job<'_>) -> Vec<String> {
    (0..job.nodes())
        .map(|node| {
            let log = cluster.place().join(format!("log-{}", cluster.host(node)));
            fs::read_to_string(log).unwrap()
        })
        .collect()
}

fn must_snapshot(profile: &Path) {
    let first = profile.join("snapshot-1");
    let all_there = || files(&first, "-snapshot-1-profiling_aggregate.csv").len() == NODES;
    assert!(
        wait_until(SNAPSHOT_TIME, all_there),
        "no snapshots in {}",
        profile.display()
    );
}

/// The report of a running job, and that its numbers are those of `status --all --json`.
fn live_report(job: &Job<'_>, place: &Path, packages: &Path, hosts: &[String]) {
    let report = place.join("live.html");
    let before = job.status_all(0).unwrap();
    copper(job, &["report", "-o", report.to_str().unwrap()]);
    let sections = [
        "Tree 1",
        "Slowest paths",
        "Left to the origin",
        "What to do",
    ];
    let (document, data) = look_at(&report, &sections);
    numbers_must_equal(&document, &before);
    assert_eq!(data["nodes"].as_array().unwrap().len(), NODES);
    let covered = packages.to_str().unwrap();
    assert!(document.contains(covered), "{covered} is not named");
    // The report is made on node 0, but nodes farther down the tree wait longer.
    let slowest = between(&document, "Table of the slowest paths", "</table>");
    let named = hosts
        .iter()
        .filter(|host| slowest.contains(&format!("<td>{host}</td>")));
    assert!(named.count() > 1, "only one of {hosts:?} in {slowest}");
}

/// The files of the nodes and the merged ones, and that these are the sum of those.
fn profile_of_all(job: &Job<'_>, profile: &Path, packages: &Path, last: &[Value]) {
    let of_nodes = files(&profile.join("final"), "-profiling_aggregate.csv");
    assert_eq!(of_nodes.len(), NODES, "{of_nodes:?}");
    let said = copper(job, &["profile", "--merge", profile.to_str().unwrap()]);
    assert!(said.contains("4 nodes"), "{said}");
    let cluster = profile.join("cluster");
    let merged = metrics(&cluster.join("cluster-profiling_aggregate.csv"));
    for (metric, sum) in &merged {
        let each: f64 = of_nodes.iter().map(|file| metrics(file)[metric]).sum();
        assert!((each - sum).abs() < 0.001, "{metric}: {each} and {sum}");
    }
    let from_tree = merged["bytes_from_tree"];
    assert!(
        from_tree > 1e6 && merged["bytes_from_origin"] > 1e6,
        "{merged:?}"
    );
    assert!(merged["total_measured_latency_seconds"] > 0.0, "{merged:?}");

    let operations = rows(&cluster.join("cluster-profiling_operations.csv"));
    let row = operations
        .iter()
        .find(|row| row["operation"] == "open")
        .unwrap();
    for column in [
        "total_calls",
        "cache_hits",
        "cache_misses",
        "negative_results",
        "avg_latency_us",
    ] {
        row[column]
            .parse::<f64>()
            .unwrap_or_else(|_| panic!("{column} in {row:?}"));
    }
    let paths = rows(&cluster.join("cluster-profiling_top_paths.csv"));
    let numpy = packages.join("numpy");
    let found = paths.iter().find(|row| {
        let events: usize = row["total_events"].parse().unwrap();
        row["category"] == "data" && Path::new(&row["path"]).starts_with(&numpy) && events >= NODES
    });
    let found = found.unwrap_or_else(|| panic!("no file of {} on all nodes", numpy.display()));
    assert_eq!(found["source"], "origin", "{found:?}");
    assert!(
        paths.iter().any(|row| row["category"] == "tree"),
        "no directories"
    );
    // Nobody but the programs' own library knew which names these were.
    let from_memory = paths.iter().filter(|row| row["source"] == "memory");
    let absent = from_memory.filter(|row| row["category"] == "metadata_ttl");
    let served: u64 = absent
        .map(|row| row["ttl_serves"].parse::<u64>().unwrap())
        .sum();
    assert!(served > 0, "no absences that were answered from memory");
    let summary = fs::read_to_string(cluster.join("cluster-profiling_summary.md")).unwrap();
    for status in last {
        let rank = status["peers"]["rank"].to_string();
        assert!(
            summary.contains(&format!("| {rank} |")),
            "rank {rank} in {summary}"
        );
    }
}

/// The report of a job that has ended, from what it left.
fn report_of_files(job: &Job<'_>, place: &Path, profile: &Path, last: &[Value]) {
    let report = place.join("files.html");
    copper(
        job,
        &[
            "report",
            "--profile",
            profile.to_str().unwrap(),
            "-o",
            report.to_str().unwrap(),
        ],
    );
    let (document, data) = look_at(&report, &["The job's start", "Slowest paths", "numpy"]);
    let sum = |pointer: &str| -> u64 {
        let values = last.iter().map(|status| status.pointer(pointer).unwrap());
        values.map(|value| value.as_u64().unwrap()).sum()
    };
    for pointer in [
        "/origin/bytes_read",
        "/origin/stats",
        "/cached/files",
        "/served/bytes_from_tree",
    ] {
        assert_eq!(
            data["sum"].pointer(pointer).unwrap(),
            sum(pointer),
            "{pointer}"
        );
    }
    numbers_must_equal(&document, &data["sum"]);
    let nodes = data["nodes"].as_array().unwrap();
    assert!(
        nodes.iter().all(|node| node["state"] == "ready"),
        "{nodes:?}"
    );
}

#[test]
fn a_report_names_lost_nodes_and_what_escaped() {
    let cluster = Cluster::up(NODES);
    let source = cluster.place().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("small"), "small\n").unwrap();
    fs::write(source.join("large"), vec![7; 300_000]).unwrap();
    let origin = cluster.origin("origin", &source);
    let arguments = [&ONE_TREE[..], &["--largest", "100K"]].concat();
    let job = Job::start(&cluster, &[origin.mount()], Wishes::arguments(&arguments));
    for node in 0..NODES {
        let mut sums = job.checksums(node, true, origin.mount());
        assert!(Outcome::of(&mut sums).status.success());
    }
    let leaf = crate::fixture::node_of(crate::fixture::Part::Leaf, NODES);
    let reporter = (0..NODES).find(|node| *node != leaf).unwrap();
    job.kill(leaf);
    let report = cluster.place().join("lost.html");
    let mut make = job.copper(reporter);
    make.args(["report", "-o"]).arg(&report);
    let outcome = Outcome::of(&mut make);
    assert!(outcome.status.success(), "{outcome:?}");
    let advice = String::from_utf8(outcome.stdout).unwrap();
    let lost = cluster.host(leaf);
    assert!(
        advice.contains(&format!("1 node does not answer: {lost}")),
        "{advice}"
    );
    assert!(
        advice.contains("--largest") && advice.contains("/large"),
        "{advice}"
    );
    let (document, data) = look_at(&report, &["longer than the largest file that is cached"]);
    assert!(document.contains("does not answer"), "{document}");
    assert_eq!(data["nodes"][leaf]["state"], "missing");
}
