//! What all nodes have counted comes back as one through the tree, and each control has its effect on
//! every node of a running job.

use crate::fixture::ONE_TREE;
use copper_core::control::{Action, Control};
use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::python;
use copper_tests::session::wait_until;
use serde_json::Value;
use slow_origin::SlowOrigin;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const SIZE: u64 = 300_000;

/// A job on four nodes, each of which has looked at the same files.
struct Watched<'a> {
    job: Job<'a>,
    origin: SlowOrigin,
    source: PathBuf,
    directory: PathBuf,
}

impl<'a> Watched<'a> {
    fn start(cluster: &'a Cluster) -> Self {
        let source = cluster.place().join("source");
        fs::create_dir_all(source.join("directory")).unwrap();
        fs::write(source.join("directory/large"), vec![5; SIZE as usize]).unwrap();
        fs::write(source.join("directory/.spec_ioctl_file"), "").unwrap();
        let origin = cluster.origin("origin", &source);
        let directory = origin.mount().join("directory");
        let job = Job::start(cluster, &[origin.mount()], Wishes::arguments(&ONE_TREE));
        let watched = Self {
            job,
            origin,
            source,
            directory,
        };
        (0..4).for_each(|node| watched.use_files(node));
        watched
    }

    fn shell(&self, node: usize, script: &str) -> Outcome {
        let mut shell = self.job.rank(node, "sh");
        shell.args(["-c", script]).arg(&self.directory);
        Outcome::of(&mut shell)
    }

    /// A hit, a miss and a negative of each kind, at least.
    fn use_files(&self, node: usize) {
        let look = "cat \"$0/large\" \"$0/large\" >/dev/null; ls \"$0\" >/dev/null; \
                    ls \"$0\" >/dev/null; test -e \"$0/none\"; test -e \"$0/none\"; test -f \"$0/large\"";
        let outcome = self.shell(node, look);
        assert!(outcome.status.success(), "{outcome:?}");
    }

    fn all(&self) -> Value {
        self.job.status_all(2).unwrap()
    }

    fn control(&self, node: usize, arguments: &[&str]) -> Outcome {
        let mut control = self.job.copper(node);
        Outcome::of(control.arg("control").args(arguments))
    }

    fn must_control(&self, node: usize, arguments: &[&str]) -> String {
        let outcome = self.control(node, arguments);
        assert!(outcome.status.success(), "{arguments:?}: {outcome:?}");
        outcome.text()
    }

    /// The names of the dumps in the directory of the origin.
    fn dumps(&self) -> Vec<String> {
        let found = fs::read_dir(self.source.join("directory"))
            .unwrap()
            .flatten();
        let names = found.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.ends_with(".output")).collect()
    }
}

/// The sum of what all families ended in.
fn ended(calls: &Value, how: &str) -> u64 {
    let families = calls["families"].as_object().expect("families");
    families
        .values()
        .map(|family| family[how].as_u64().expect("a number"))
        .sum()
}

fn number(value: &Value, place: &str) -> u64 {
    let found = value.pointer(place).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number {place} in {value}"))
}

#[test]
fn the_whole_job_is_the_sum_of_its_nodes() {
    let cluster = Cluster::up(4);
    let watched = Watched::start(&cluster);
    let nodes: Vec<Value> = (0..4)
        .map(|node| watched.job.status(node).unwrap())
        .collect();
    let all = watched.all();
    let sum = |place: &str| nodes.iter().map(|node| number(node, place)).sum::<u64>();
    for place in [
        "/calls/processes",
        "/calls/bytes_served",
        "/calls/families/open/hit",
        "/calls/families/list/hit",
        "/cached/files",
        "/cached/bytes",
        "/cached/directories",
        "/memory/store_bytes",
        "/origin/opens",
        "/origin/bytes_read",
        "/served/requests_up",
        "/served/requests_down",
        "/served/bytes_from_tree",
        "/served/bytes_from_origin",
        "/served/evictions",
        "/served/coalesced",
        "/served/retries",
        "/served/reparentings",
        "/served/errors",
    ] {
        assert_eq!(number(&all, place), sum(place), "{place}: {all}");
    }
    for how in ["hit", "absent", "asked"] {
        let nodes: u64 = nodes.iter().map(|node| ended(&node["calls"], how)).sum();
        assert_eq!(ended(&all["calls"], how), nodes, "{how}: {all}");
        assert!(nodes >= 4, "{how}: {all}");
    }
    assert_eq!(number(&all, "/origin/opens"), 1, "read once for all: {all}");
    assert_eq!(number(&all, "/served/bytes_from_origin"), SIZE, "{all}");
    assert!(number(&all, "/served/bytes_from_tree") >= 3 * SIZE, "{all}");
    assert!(number(&all, "/served/requests_up") >= 3, "{all}");
    assert!(number(&all, "/saved/operations") > 0, "{all}");
    assert_eq!(number(&all, "/served/errors"), 0, "{all}");
    let slowest = all["slowest"].as_array().expect("a list");
    assert_eq!(slowest.len(), 4, "{all}");
    let hosts: Vec<String> = (0..4).map(|node| cluster.host(node)).collect();
    for slow in slowest {
        let host = slow["host"].as_str().expect("a name").to_owned();
        assert_eq!(
            slow["rank"],
            hosts.iter().position(|other| *other == host).unwrap()
        );
        assert!(slow["mean_microseconds"].as_u64() > Some(0), "{slow}");
    }
    for (arguments, said) in [
        (&["status", "--all"][..], "slowest "),
        (&["status"], "saved "),
    ] {
        let outcome = Outcome::of(watched.job.copper(1).args(arguments));
        assert!(outcome.text().contains(said), "{outcome:?}");
    }
}

#[test]
fn a_lost_node_is_named_and_another_takes_its_place() {
    let cluster = Cluster::up(4);
    let watched = Watched::start(&cluster);
    let interior = crate::fixture::node_of(crate::fixture::Part::Interior, 4);
    let root = crate::fixture::node_of(crate::fixture::Part::Root, 4);
    watched.job.kill(interior);
    for node in (0..4).filter(|node| *node != interior) {
        fs::write(watched.source.join(format!("directory/new-{node}")), "new").unwrap();
        let script = format!("cat \"$0/new-{node}\"");
        watched.job.refresh(node, &watched.directory);
        assert_eq!(watched.shell(node, &script).text(), "new", "node {node}");
    }
    let lost = [cluster.host(interior)];
    let named = wait_until(Duration::from_secs(10), || {
        watched.job.missing(root) == lost
    });
    assert!(named, "{:?}", watched.job.missing(root));
    let all = watched.job.status_all(root).unwrap();
    assert!(number(&all, "/served/reparentings") > 0, "{all}");
    assert_eq!(number(&all, "/ready"), 3, "{all}");
}

#[test]
fn every_dump_says_what_it_is_for() {
    let cluster = Cluster::up(4);
    let watched = Watched::start(&cluster);
    let large = watched.directory.join("large");
    let large = large.to_str().unwrap();
    let directory = watched.directory.to_str().unwrap();
    let size = format!("{large}: {SIZE}");
    let expected = [
        (
            Control::DumpTables,
            vec![
                large,
                "md_cache_table {",
                "tree_cache_table {",
                "data_size: 300000",
            ],
        ),
        (
            Control::DumpCounts,
            vec!["operation {", "open: ", "getattr: "],
        ),
        (
            Control::DumpTimes,
            vec!["operation_timer {", "content: ", "up to "],
        ),
        (Control::DumpHits, vec!["operation_cache_hit {"]),
        (Control::DumpMisses, vec!["operation_cache_miss {"]),
        (Control::DumpNegatives, vec!["operation_cache_neg {"]),
        (
            Control::DumpDataEvents,
            vec!["data_cache_event {", "open: hit: "],
        ),
        (
            Control::DumpTreeEvents,
            vec!["tree_cache_event {", "readdir: hit: "],
        ),
        (
            Control::DumpMetadataEvents,
            vec!["md_cache_event {", "access: hit: "],
        ),
        (Control::DumpControls, vec!["cmd: 200"]),
        (
            Control::DumpDataSizes,
            vec![&size, "total number of entries: "],
        ),
        (Control::DumpTreeSizes, vec![directory, "Total bytes: "]),
        (Control::DumpMetadataSizes, vec![large, "Total bytes: "]),
    ];
    for node in [0, 3] {
        for (control, parts) in &expected {
            let said = watched.must_control(node, &["dump", control.subject()]);
            for part in parts {
                assert!(
                    said.contains(part),
                    "no '{part}' in {control:?} of node {node}: {said}"
                );
            }
        }
    }
    let whole = watched.must_control(1, &["dump"]);
    assert!(
        whole.contains("md_cache_table {") && whole.contains("operation_timer {"),
        "{whole}"
    );
    let outcome = watched.control(0, &["dump", "nonsense"]);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(
        !outcome.status.success() && said.contains("metadata-sizes"),
        "{said}"
    );
}

#[test]
fn all_nodes_write_their_dumps_where_they_are_told_to() {
    let cluster = Cluster::up(4);
    let watched = Watched::start(&cluster);
    let directory = watched.directory.to_str().unwrap();
    let said = watched.must_control(1, &["dump", "--all", "--to", directory]);
    assert!(said.contains("done on 4 of 4 nodes"), "{said}");
    let dumps = watched.dumps();
    for node in 0..4 {
        let start = format!("{}-{}-", cluster.host(node), watched.job.helper(node));
        let own = dumps.iter().filter(|name| name.starts_with(&start)).count();
        assert_eq!(own, Control::DumpAll.parts().count(), "{start}: {dumps:?}");
    }
    let outcome = watched.control(0, &["dump", "hits", "--all", "--to", "/proc"]);
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(
        !outcome.status.success() && said.contains("4 nodes could not write"),
        "{said}"
    );
}

#[test]
fn what_is_reset_begins_at_zero_on_all_nodes_and_nothing_else_does() {
    let cluster = Cluster::up(4);
    let watched = Watched::start(&cluster);
    let resets = Control::ALL
        .iter()
        .filter(|control| control.action() == Action::Reset);
    for control in resets {
        for node in 0..4 {
            watched.use_files(node);
            watched.must_control(node, &["dump", "hits"]);
        }
        let before = watched.all();
        watched.must_control(3, &["reset", control.subject(), "--all"]);
        let after = watched.all();
        let waits = |value: &Value| -> u64 {
            let waits = value["calls"]["waits"].as_array().expect("buckets");
            waits.iter().filter_map(Value::as_u64).sum()
        };
        let family = |value: &Value, name: &str, how: &str| {
            number(value, &format!("/calls/families/{name}/{how}"))
        };
        let (hits, negatives) = (
            ended(&after["calls"], "hit"),
            ended(&after["calls"], "absent"),
        );
        match control {
            Control::ResetHits => {
                assert_eq!(hits, 0, "{after}");
                assert!(negatives > 0 && waits(&after) == waits(&before), "{after}");
            }
            Control::ResetMisses => {
                assert_eq!(ended(&after["calls"], "asked"), 0, "{after}");
                assert!(hits > 0, "{after}");
            }
            Control::ResetNegatives => assert!(negatives == 0 && hits > 0, "{after}"),
            Control::ResetTimes => assert!(waits(&after) == 0 && hits > 0, "{after}"),
            Control::ResetCounts => assert_eq!(hits + negatives, 0, "{after}"),
            Control::ResetDataEvents => {
                assert_eq!(family(&after, "open", "hit"), 0, "{after}");
                assert!(family(&after, "list", "hit") > 0, "{after}");
            }
            Control::ResetTreeEvents => {
                assert_eq!(family(&after, "list", "hit"), 0, "{after}");
                assert!(family(&after, "open", "hit") > 0, "{after}");
            }
            Control::ResetMetadataEvents => {
                assert_eq!(family(&after, "access", "absent"), 0, "{after}");
                assert_eq!(family(&after, "stat", "absent"), 0, "{after}");
                assert!(family(&after, "open", "hit") > 0, "{after}");
            }
            Control::ResetControls => {
                let said = watched.must_control(2, &["dump", "controls"]);
                assert!(!said.contains("cmd: 500"), "{said}");
            }
            Control::ResetAll => {
                assert_eq!(hits + negatives + waits(&after), 0, "{after}");
                assert_eq!(number(&after, "/cached/files"), 0, "{after}");
            }
            other => panic!("{other:?} has no check"),
        }
    }
}

#[test]
fn what_is_cleared_is_asked_of_the_origin_again() {
    let cluster = Cluster::up(4);
    let watched = Watched::start(&cluster);
    assert_eq!(number(&watched.all(), "/cached/files"), 4);
    watched.must_control(0, &["clear"]);
    let status = watched.job.status(0).unwrap();
    assert_eq!(number(&status, "/cached/files"), 0, "{status}");
    let others = watched.job.status(1).unwrap();
    assert_eq!(
        number(&others, "/cached/files"),
        1,
        "only node 0 was told: {others}"
    );
    watched.use_files(0);
    watched.must_control(3, &["clear", "tables", "--all"]);
    let all = watched.all();
    assert_eq!(
        (
            number(&all, "/cached/files"),
            number(&all, "/cached/directories")
        ),
        (0, 0),
        "{all}"
    );
    watched.origin.reset().unwrap();
    (0..4).for_each(|node| watched.use_files(node));
    let opens = watched.origin.counts().unwrap();
    let path = &opens.paths["directory/large"];
    assert_eq!(
        path[&slow_origin::Operation::Open],
        1,
        "once again for all: {opens:?}"
    );
}

/// The first Copper's script: opens the file in the view for reading and writing.
const SCRIPT: &str = "\
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
for number in range(100, 2501, 100):
    assert fcntl.ioctl(descriptor, number, 0) == 0, number
try:
    fcntl.ioctl(descriptor, 2600, 0)
    print('2600 is no control')
except OSError as error:
    print(error.strerror)
try:
    os.write(descriptor, b'x')
except OSError as error:
    print(error.strerror)
plain = os.open('/etc/passwd', os.O_RDONLY)
try:
    fcntl.ioctl(plain, 200, 0)
except OSError as error:
    print(error.strerror)
";

#[test]
fn ioctl_takes_the_first_coppers_numbers() {
    let cluster = Cluster::up(4);
    let watched = Watched::start(&cluster);
    let view = watched.job.status(2).unwrap()["view"]
        .as_str()
        .unwrap()
        .to_owned();
    let device = format!("{view}{}/.spec_ioctl_file", watched.directory.display());
    let mut script = watched.job.rank(2, python::interpreter());
    script.args(["-c", SCRIPT, &device]);
    python::settle(&mut script);
    let outcome = Outcome::of(&mut script);
    assert!(outcome.status.success(), "{outcome:?}");
    let lines =
        "Inappropriate ioctl for device\nBad file descriptor\nInappropriate ioctl for device\n";
    assert_eq!(outcome.text(), lines, "{outcome:?}");
    let mut dumps = watched.dumps();
    dumps.sort();
    let start = format!("{}-{}-", cluster.host(2), watched.job.helper(2));
    let parts = Control::DumpAll.parts().filter_map(Control::file);
    let mut expected: Vec<String> = parts.map(|file| format!("{start}{file}")).collect();
    expected.sort();
    assert_eq!(dumps, expected);
    let sizes = watched
        .source
        .join(format!("directory/{start}data_cache_size.output"));
    assert!(fs::read_to_string(sizes).unwrap().contains("Total bytes: "));
}
