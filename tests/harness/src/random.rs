//! Trees and sequences of operations that nobody thought of: names few and short, so that
//! operations meet; links that lead anywhere; `.`, `..` and trailing slashes in the paths.

use anyhow::Result;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// One thing that a tree is made of; what cannot be made (its parent is a file) is left out.
#[derive(Clone, Debug)]
pub enum Thing {
    /// A directory.
    Directory(Vec<u8>),
    /// A file with contents of this length, and its mode.
    File(Vec<u8>, usize, u32),
    /// A symbolic link and its target.
    Link(Vec<u8>, Vec<u8>),
    /// A second name of a file.
    HardLink(Vec<u8>, Vec<u8>),
}

/// One operation of the program `random_operations`: a letter that says what, two paths and a
/// number.
#[derive(Clone, Debug)]
pub struct Operation {
    /// See `tests/programs/random_operations.c`.
    pub what: char,
    /// The path it is about.
    pub path: Vec<u8>,
    /// A second path, for those that take two.
    pub other: Vec<u8>,
    /// A size, an offset or a mode.
    pub number: u32,
}

/// The operations that change nothing.
pub const ASKING: &str = "slrRoOdacpxf";
/// The operations that change something.
pub const CHANGING: &str = "wWtmkunhySCEe";

fn component() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        10 => prop_oneof!["a", "b", "c", "d"].prop_map(String::into_bytes),
        1 => Just(b"\xff\n".to_vec()),
        1 => Just(vec![b'l'; 255]),
    ]
}

/// A path in the tree, without `.` and `..`.
fn plain_path() -> impl Strategy<Value = Vec<u8>> {
    vec(component(), 1..4).prop_map(|parts| parts.join(b"/".as_slice()))
}

/// A path as programs write them.
fn any_path() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        12 => component(),
        2 => Just(b".".to_vec()),
        2 => Just(b"..".to_vec()),
        1 => Just(Vec::new()),
    ];
    // A first component that exists keeps `..` from leaving the tree too often.
    (component(), vec(part, 0..5)).prop_map(|(first, rest)| {
        let mut parts = vec![first];
        parts.extend(rest);
        parts.join(b"/".as_slice())
    })
}

/// The things of a tree, in the order they are made.
pub fn tree() -> impl Strategy<Value = Vec<Thing>> {
    let target = prop_oneof![
        3 => plain_path(),
        2 => any_path(),
        1 => plain_path().prop_map(|path| [b"../".as_slice(), &path].concat()),
        1 => Just(b".".to_vec()),
    ];
    let size = prop_oneof![Just(0), Just(1), 4090_usize..4100, 0_usize..20_000];
    let mode =
        prop_oneof![4 => Just(0o644_u32), 1 => Just(0o755), 1 => Just(0o000), 1 => Just(0o444)];
    let thing = prop_oneof![
        3 => plain_path().prop_map(Thing::Directory),
        5 => (plain_path(), size, mode).prop_map(|(path, size, mode)| Thing::File(path, size, mode)),
        3 => (plain_path(), target).prop_map(|(path, target)| Thing::Link(path, target)),
        1 => (plain_path(), plain_path()).prop_map(|(path, other)| Thing::HardLink(path, other)),
    ];
    vec(thing, 5..40)
}

/// A sequence of operations out of `letters`.
pub fn operations(
    letters: &'static str,
    length: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Operation>> {
    let letters: Vec<char> = letters.chars().collect();
    let operation = (
        proptest::sample::select(letters),
        any_path(),
        any_path(),
        0_u32..9000,
    )
        .prop_map(|(what, path, other, number)| Operation {
            what,
            path,
            other,
            number,
        });
    vec(operation, length)
}

/// Makes the tree below the empty directory `root`.
///
/// # Errors
/// When `root` cannot be written.
pub fn make(root: &Path, things: &[Thing]) -> Result<()> {
    let at = |path: &[u8]| root.join(std::ffi::OsStr::from_bytes(path));
    for thing in things {
        let path = match thing {
            Thing::Directory(path) | Thing::File(path, ..) => path,
            Thing::Link(path, _) | Thing::HardLink(path, _) => path,
        };
        let path = at(path);
        // Parents are plain directories or nothing is made: through a link it could be anywhere.
        let parent = path.parent().unwrap_or(root);
        let leads_away = parent
            .ancestors()
            .take_while(|ancestor| *ancestor != root)
            .any(|ancestor| fs::symlink_metadata(ancestor).is_ok_and(|found| !found.is_dir()));
        if leads_away || fs::create_dir_all(parent).is_err() || path.symlink_metadata().is_ok() {
            continue;
        }
        match thing {
            Thing::Directory(_) => fs::create_dir(&path)?,
            Thing::File(_, size, mode) => {
                fs::write(&path, crate::tree::pattern(*size, *size))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
            }
            Thing::Link(_, target) => symlink(std::ffi::OsStr::from_bytes(target), &path)?,
            Thing::HardLink(_, other) => {
                if fs::symlink_metadata(at(other)).is_ok_and(|found| found.is_file()) {
                    fs::hard_link(at(other), &path)?;
                }
            }
        }
    }
    Ok(())
}

/// Writes the operations to a file for `random_operations`: fields end with NULs.
///
/// # Errors
/// When it cannot be written.
pub fn write(operations: &[Operation], file: &Path) -> Result<()> {
    let mut text = Vec::new();
    for operation in operations {
        text.extend_from_slice(format!("{}\0", operation.what).as_bytes());
        for path in [&operation.path, &operation.other] {
            text.extend_from_slice(path);
            text.push(0);
        }
        text.extend_from_slice(format!("{}\0", operation.number).as_bytes());
    }
    Ok(fs::write(file, text)?)
}
