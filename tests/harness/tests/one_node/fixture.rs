//! The awkward tree and the ways a test program is run on it.

use copper_tests::compare::Outcome;
use copper_tests::session::{Session, Way};
use copper_tests::tree::{self, Manifest};
use copper_tests::{environment, origin};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user without rights of its own.
pub(crate) const NOBODY: u32 = 65_534;

/// The view's prefix makes paths longer; the deep branch leaves room for it.
const ROOM_FOR_VIEW: usize = 64;

/// Where the tree lies: so deep that `../../..` of it is still this test's own.
const ROOT: &str = "above/it/all/tree";

/// An awkward tree of a test's own.
pub(crate) struct Awkward {
    scratch: tempfile::TempDir,
    manifest: Manifest,
}

impl Awkward {
    pub(crate) fn new() -> Self {
        let scratch = environment::scratch();
        let root = scratch.path().join(ROOT);
        std::fs::create_dir_all(&root).unwrap();
        let manifest = tree::awkward(&root, root.as_os_str().len() + ROOM_FOR_VIEW).unwrap();
        Self { scratch, manifest }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.scratch.path().join(ROOT)
    }

    /// The file with the paths that `keep` keeps; it does not lie below the tree.
    pub(crate) fn manifest(&self, keep: fn(&[u8]) -> bool) -> PathBuf {
        let file = self.scratch.path().join("manifest");
        self.manifest.only(keep).write(&file).unwrap();
        file
    }
}

/// The program as it is called: ROOT, as it is seen this way, and the manifest.
pub(crate) fn call(
    session: &Session,
    way: Way,
    program: &Path,
    root: &Path,
    manifest: &Path,
) -> Command {
    let mut command = session.command(way, program);
    command.arg(session.seen(way, root)).arg(manifest);
    command.env("OUTSIDE", environment::base());
    if way == Way::View {
        command.env("WITHOUT_MOUNT_FLAGS", "1");
    }
    command
}

/// Runs a program that changes nothing every way on the tree, and compares: covered with plain,
/// the view with the tree mounted read-only; each cold and warm.
pub(crate) fn compare(
    tree: &Awkward,
    program: &str,
    keep: fn(&[u8]) -> bool,
    user: Option<u32>,
    settle: impl Fn(Outcome) -> Outcome,
) {
    compare_in(tree, program, keep, user, settle, |session| session);
}

/// The same, in sessions that `prepare` has prepared further.
pub(crate) fn compare_in(
    tree: &Awkward,
    program: &str,
    keep: fn(&[u8]) -> bool,
    user: Option<u32>,
    settle: impl Fn(Outcome) -> Outcome,
    prepare: fn(Session) -> Session,
) {
    let (root, manifest) = (tree.root(), tree.manifest(keep));
    let program = environment::program(program);
    // The view has a helper of its own, which covers nothing else: a directory's descriptor that
    // lies in the view and below a covered prefix counts as opened by the prefix.
    let start = |covered: &[&Path]| {
        let session = prepare(Session::prepare(covered));
        match user {
            Some(user) => session.as_user(user).started(),
            None => session.started(),
        }
    };
    let (session, view) = (start(&[&root]), start(&[]));
    let run = |way| {
        let session = if way == Way::View { &view } else { &session };
        settle(Outcome::of(&mut call(
            session, way, &program, &root, &manifest,
        )))
    };

    let plain = run(Way::Plain);
    assert!(plain.status.success(), "the plain run failed: {plain:?}");
    assert!(
        plain.stdout.len() > 1000,
        "the plain run said next to nothing: {plain:?}"
    );
    run(Way::Plain).must_equal(&plain, "a second plain run");
    for state in ["cold", "warm"] {
        run(Way::Covered).must_equal(&plain, &format!("the covered run, {state},"));
    }

    let mut reference = session.command(Way::Plain, &program);
    reference
        .arg(&root)
        .arg(&manifest)
        .env("OUTSIDE", environment::base())
        .env("WITHOUT_MOUNT_FLAGS", "1");
    let reference = settle(Outcome::of(&mut origin::read_only(
        tree.scratch.path(),
        &reference,
    )));
    assert!(
        reference.status.success(),
        "the read-only run failed: {reference:?}"
    );
    for state in ["cold", "warm"] {
        run(Way::View)
            .without_view(&view.view())
            .must_equal(&reference, &format!("the run in the view, {state},"));
    }
}
