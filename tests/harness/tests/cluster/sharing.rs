//! Once for all: the ranks of all nodes together read each file and each directory of the origin one
//! time, however many nodes there are, and a second start of them reads nothing.

use crate::fixture::{imports, plain_import};
use copper_tests::cluster::{Cluster, Job, Wishes, ranks};
use copper_tests::{origin, python, tree};
use slow_origin::{Counts, Load, Operation};
use std::fs;

/// In how many trees the nodes are arranged, so that as many roots read the origin.
const TREES: u64 = 2;

/// A number that an environment variable asks for.
fn asked_for(variable: &str) -> Option<usize> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Cold and warm imports of a job on `nodes` nodes; returns what the cold one asked of the origin.
fn import_once(cluster: &Cluster, nodes: usize) -> Counts {
    let origin = cluster.own_mounts("packages", python::packages(), nodes);
    let wishes = Wishes {
        nodes,
        ..Wishes::arguments(&["--trees", &TREES.to_string(), "--fan-out", "2"])
    };
    let mut job = Job::prepare(cluster, &[origin.mount()], wishes);
    let (plain, _) = plain_import(&job, origin.mount(), 1, python::IMPORT);
    origin.set_load(&Load::latency_us(200)).unwrap();
    job.try_start().unwrap_or_else(|error| panic!("{error:#}"));
    origin.reset().unwrap();
    let each = asked_for("COPPER_TEST_RANKS").unwrap_or(2);
    let import = || ranks::run(imports(&job, origin.mount(), each, python::IMPORT));
    ranks::must_equal(&import(), &plain, &format!("cold on {nodes} nodes"));
    let cold = origin::settled(|| origin.counts());
    assert!(
        cold.of(Operation::Open) > 300,
        "{}",
        origin::most_touched(&cold)
    );
    let wrong = origin::read_more_than_once(&cold, python::packages(), TREES);
    assert!(
        wrong.is_empty(),
        "asked of the origin more than once by {nodes} nodes: {wrong:#?}"
    );

    origin.reset().unwrap();
    ranks::must_equal(&import(), &plain, &format!("warm on {nodes} nodes"));
    let warm = origin.counts().unwrap();
    assert_eq!(
        warm.total(),
        0,
        "a second start of the ranks on {nodes} nodes reached the origin:\n{}",
        origin::most_touched(&warm)
    );
    let status = job.status_all(nodes - 1).unwrap();
    for (field, value) in [("nodes", nodes), ("reached", nodes), ("ready", nodes)] {
        assert_eq!(status[field], value, "{status}");
    }
    job.stop(nodes - 1)
        .unwrap_or_else(|error| panic!("{error:#}"));
    cold
}

#[test]
fn each_file_is_read_once_whatever_the_number_of_nodes() {
    let most = asked_for("COPPER_TEST_NODES").unwrap_or(4);
    let cluster = Cluster::up(most);
    let mut first: Option<(usize, Counts)> = None;
    for nodes in [2, 4, 8].into_iter().filter(|&nodes| nodes <= most) {
        let counts = import_once(&cluster, nodes);
        println!("{nodes} nodes: {:?}", counts.operations);
        let Some((fewer, expected)) = &first else {
            first = Some((nodes, counts));
            continue;
        };
        assert_eq!(
            counts.operations,
            expected.operations,
            "{nodes} nodes ask more or less of the origin than {fewer}: {:#?}",
            differing(&counts, expected)
        );
    }
}

/// Paths on which two runs did not make the same operations.
fn differing(one: &Counts, other: &Counts) -> Vec<String> {
    let mut paths: Vec<_> = one.paths.keys().chain(other.paths.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter(|path| one.paths.get(*path) != other.paths.get(*path))
        .map(|path| {
            let (one, other) = (one.paths.get(path), other.paths.get(path));
            format!("{path:?}: {one:?}, {other:?}")
        })
        .take(40)
        .collect()
}

/// Files of all sizes, larger than a message and than a chunk, are what they are on the origin.
#[test]
fn files_of_any_size_arrive_whole() {
    const SIZES: [usize; 9] = [
        0, 1, 4096, 65_535, 65_537, 1_048_576, 1_048_577, 5_000_000, 40_000_000,
    ];
    let cluster = Cluster::with(4, &["--rails", "2"]);
    let source = cluster.place().join("source");
    fs::create_dir(&source).unwrap();
    for (seed, size) in SIZES.into_iter().enumerate() {
        fs::write(source.join(size.to_string()), tree::pattern(size, seed)).unwrap();
    }
    let origin = cluster.own_mounts("origin", &source, 4);
    let sum = format!(
        "cksum {0}/*; cmp {0}/5000000 {1}/5000000",
        origin.mount().display(),
        source.display()
    );
    for (trees, more) in [
        (1, vec!["--fan-out", "1"]),
        (2, vec!["--fan-out", "2"]),
        (4, vec!["--interface", "eth0", "--interface", "eth1"]),
        (2, vec!["--fan-out", "2", "--transfer", "rpc"]),
    ] {
        let trees_said = trees.to_string();
        let arguments = [vec!["--trees", &trees_said], more].concat();
        let what = format!("with {}", arguments.join(" "));
        let job = Job::start(&cluster, &[origin.mount()], Wishes::arguments(&arguments));
        let shell = |shimmed: bool, node| {
            let mut shell = if shimmed {
                job.rank(node, "sh")
            } else {
                job.plain(node, "sh")
            };
            shell.args(["-c", &sum]);
            shell
        };
        let plain = ranks::run(vec![shell(false, 0)]);
        let plain = &plain[0].outcome;
        assert!(plain.status.success(), "{plain:?}");
        origin.reset().unwrap();
        let ended = ranks::run((0..4).map(|node| shell(true, node)).collect());
        ranks::must_equal(&ended, plain, &what);
        let wrong = origin::read_more_than_once(&origin.counts().unwrap(), &source, trees);
        assert!(wrong.is_empty(), "asked more than once {what}: {wrong:#?}");
        job.stop(0).unwrap_or_else(|error| panic!("{error:#}"));
    }
}
