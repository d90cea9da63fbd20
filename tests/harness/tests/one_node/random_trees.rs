//! Random operations on random trees: the same operations on two equal trees, one of them plain,
//! must say the same and leave the same behind.

use copper_tests::compare::Outcome;
use copper_tests::random::{self, ASKING, CHANGING, Operation, Thing};
use copper_tests::session::{Session, Way};
use copper_tests::{environment, origin};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::path::Path;
use std::process::Command;

/// Each case is this many operations.
const OPERATIONS: std::ops::Range<usize> = 250..400;

/// The tree lies so deep that no path of the operations leads to what two trees share.
const ROOT: &str = "one/two/three/four/five/six/tree";

/// Where every run begins unless it is told otherwise: what fails once must fail again.
const FIRST_SEED: u64 = 20_260_101;

/// The first case's seed; `COPPER_RANDOM_SEED` sets it, as `scripts/random.sh` does. The seed of a
/// case that fails is printed.
fn seed() -> u64 {
    std::env::var("COPPER_RANDOM_SEED").map_or(FIRST_SEED, |seed| {
        seed.parse().expect("COPPER_RANDOM_SEED is a number")
    })
}

fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    TestRunner::new_with_rng(Config::default(), random)
}

fn draw<T>(runner: &mut TestRunner, strategy: &impl Strategy<Value = T>) -> T {
    strategy
        .new_tree(runner)
        .expect("the strategies reject nothing")
        .current()
}

/// What a tree looks like from outside, without what two equal trees may differ in.
fn look_of(root: &Path) -> Outcome {
    let script = "find . -printf '%P %y %m %l\\n' | sort; \
                  find . -type f -print0 | sort -z | xargs -0r cksum";
    Outcome::of(Command::new("sh").args(["-c", script]).current_dir(root))
}

/// Says what the tree is and what the plain run says, which is shown where the case fails.
fn show(seed: u64, tree: &Outcome, expected: &Outcome) {
    let (tree, expected) = (tree.text(), expected.text());
    println!("the tree with COPPER_RANDOM_SEED={seed}:\n{tree}\nthe plain run:\n{expected}");
}

fn changes_below_a_covered_prefix(seed: u64, things: &[Thing], operations: &[Operation]) {
    let scratch = environment::scratch();
    let top = |name: &str| scratch.path().join(name);
    let (plain, covered) = (top("plain").join(ROOT), top("cover").join(ROOT));
    for root in [&plain, &covered] {
        std::fs::create_dir_all(root).unwrap();
        random::make(root, things).unwrap();
    }
    let tree = look_of(&plain);
    let script = scratch.path().join("operations");
    random::write(operations, &script).unwrap();
    let program = environment::program("random_operations");
    let session = Session::start(&[&covered]);
    let run = |way, name: &str| {
        let root = top(name).join(ROOT);
        let outcome = Outcome::of(session.command(way, &program).arg(root).arg(&script));
        outcome.with_path(&top(name), Path::new("TOP"))
    };
    let expected = run(Way::Plain, "plain");
    show(seed, &tree, &expected);
    assert!(expected.status.success(), "{expected:?}");
    let what = format!("the covered run with COPPER_RANDOM_SEED={seed}");
    run(Way::Covered, "cover").must_equal(&expected, &what);
    look_of(&covered).must_equal(&look_of(&plain), &format!("the tree left by {what}"));
}

fn questions_in_the_view(seed: u64, things: &[Thing], operations: &[Operation]) {
    let scratch = environment::scratch();
    let root = scratch.path().join(ROOT);
    std::fs::create_dir_all(&root).unwrap();
    random::make(&root, things).unwrap();
    let tree = look_of(&root);
    let script = scratch.path().join("operations");
    random::write(operations, &script).unwrap();
    let program = environment::program("random_operations");
    let (session, view) = (Session::start(&[&root]), Session::start(&[]));
    let mut plain = session.command(Way::Plain, &program);
    plain.arg(&root).arg(&script);
    let expected = Outcome::of(&mut origin::read_only(scratch.path(), &plain));
    show(seed, &tree, &expected);
    for (state, way) in [
        ("cold", Way::View),
        ("warm", Way::View),
        ("covered", Way::Covered),
    ] {
        let session = if way == Way::View { &view } else { &session };
        let mut command = session.command(way, &program);
        command.arg(session.seen(way, &root)).arg(&script);
        if way == Way::Covered {
            // Only the view is read-only.
            command = origin::read_only(scratch.path(), &command);
        }
        Outcome::of(&mut command)
            .without_view(&view.view())
            .must_equal(
                &expected,
                &format!("the {state} run with COPPER_RANDOM_SEED={seed}"),
            );
    }
}

#[test]
fn random_changes_below_a_covered_prefix() {
    let letters: &'static str = Box::leak(format!("{ASKING}{ASKING}{CHANGING}").into_boxed_str());
    let first = seed();
    for seed in first..first + 8 {
        let mut runner = runner(seed);
        let things = draw(&mut runner, &random::tree());
        let operations = draw(&mut runner, &random::operations(letters, OPERATIONS));
        changes_below_a_covered_prefix(seed, &things, &operations);
    }
}

#[test]
fn random_questions_in_the_view() {
    let first = seed();
    for seed in first..first + 4 {
        let mut runner = runner(seed);
        let things = draw(&mut runner, &random::tree());
        let operations = draw(&mut runner, &random::operations(ASKING, OPERATIONS));
        questions_in_the_view(seed, &things, &operations);
    }
}

/// In the view every change fails, and leaves the origin as it is.
#[test]
fn random_changes_in_the_view() {
    let letters: &'static str = Box::leak(format!("{ASKING}{CHANGING}").into_boxed_str());
    let first = seed();
    for seed in first..first + 4 {
        let mut runner = runner(seed);
        let things = draw(&mut runner, &random::tree());
        let operations = draw(&mut runner, &random::operations(letters, OPERATIONS));
        questions_in_the_view(seed, &things, &operations);
    }
}
