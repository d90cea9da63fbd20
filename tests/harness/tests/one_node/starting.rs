//! Programs and libraries that are started from the tree, descriptors that are handed on, and
//! arguments that are no pointers.

use crate::fixture::{self, Awkward, NOBODY};
use copper_tests::compare::Outcome;
use copper_tests::environment;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn programs_only(path: &[u8]) -> bool {
    path.starts_with(b"programs/")
        || path.starts_with(b"permissions/file")
        || [
            b"missing".as_slice(),
            b"sizes",
            b"sizes/1/x",
            b"special/fifo",
            b"links/loop",
        ]
        .contains(&path)
}

fn exec(user: Option<u32>) {
    let tree = Awkward::new();
    let root = tree.root();
    // The kernel names a script that was found through a descriptor by that descriptor; the shim
    // names it by its path, under which an interpreter finds it too.
    let by_path = |outcome: Outcome| outcome.with_path(Path::new("/dev/fd/3"), &root);
    fixture::compare(&tree, "exec_family", programs_only, user, by_path);
}

#[test]
fn programs_as_root() {
    exec(None);
}

#[test]
fn programs_as_nobody() {
    exec(Some(NOBODY));
}

#[test]
fn descriptors() {
    let kept = |path: &[u8]| path.starts_with(b"sizes/") || path.starts_with(b"sparse/");
    fixture::compare(
        &Awkward::new(),
        "descriptor_family",
        kept,
        None,
        |outcome| outcome,
    );
}

fn telling(user: Option<u32>) {
    let kept = |path: &[u8]| {
        let places: [&[u8]; 6] = [
            b"sizes/",
            b"sparse/",
            b"special/",
            b"attributes/",
            b"links/hard",
            b"permissions/file",
        ];
        places.iter().any(|place| path.starts_with(place))
    };
    fixture::compare(&Awkward::new(), "telling_family", kept, user, |outcome| {
        outcome
    });
}

#[test]
fn telling_descriptors_as_root() {
    telling(None);
}

#[test]
fn telling_descriptors_as_nobody() {
    telling(Some(NOBODY));
}

#[test]
fn pointers_that_are_none() {
    fixture::compare(
        &Awkward::new(),
        "pointer_family",
        |_| true,
        None,
        |outcome| outcome,
    );
}

/// Builds the libraries that `loader_family` opens.
fn build_libraries(place: &Path) {
    let sub = place.join("sub");
    fs::create_dir_all(&sub).unwrap();
    fs::create_dir(place.join("directory.so")).unwrap();
    fs::create_dir(place.join("gone")).unwrap();
    let leaf = place.join("libleaf.so");
    let far = sub.join("libfar.so");
    let build = |to: &Path, text: &str, arguments: &[&str]| {
        let source = to.with_extension("c");
        fs::write(&source, text).unwrap();
        let name = to.file_name().unwrap().to_str().unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-D_GNU_SOURCE", "-o"]).arg(to).arg(&source);
        if name.ends_with(".so") {
            gcc.args(["-shared", "-fPIC", &format!("-Wl,-soname,{name}")]);
        }
        gcc.arg("-L").arg(to.parent().unwrap()).args(arguments);
        assert!(gcc.status().unwrap().success(), "gcc {}", to.display());
        fs::remove_file(source).unwrap();
    };
    let origin = "-Wl,--enable-new-dtags,-rpath,$ORIGIN";
    build(
        &leaf,
        "int leaf(void) { return 1; } int answer(void) { return 41; }",
        &[],
    );
    let needs = "int leaf(void); int answer(void) { return leaf() + 1; }";
    build(&place.join("libneeds_leaf.so"), needs, &["-lleaf", origin]);
    build(
        &place.join("libgone.so"),
        "int leaf(void) { return 1; }",
        &[],
    );
    build(
        &place.join("libneeds_missing.so"),
        needs,
        &["-lgone", origin],
    );
    fs::remove_file(place.join("libgone.so")).unwrap();
    // The absolute RPATH names the origin's own directory.
    let rpath = format!("-Wl,--disable-new-dtags,-rpath,{}", place.display());
    let library = format!("-L{}", place.display());
    build(&far, needs, &[&library, "-lleaf", &rpath]);
    let opens =
        "#include <dlfcn.h>\nint answer(void) { return dlopen(\"libleaf.so\", RTLD_NOW) ? 3 : 4; }";
    build(&place.join("libopens_leaf.so"), opens, &["-ldl", origin]);
    let main = "int leaf(void); int main(void) { return leaf() + 10; }";
    build(&place.join("linked"), main, &["-lleaf", origin]);

    symlink("libleaf.so", place.join("link.so")).unwrap();
    symlink("nowhere.so", place.join("dangling.so")).unwrap();
    fs::hard_link(&leaf, place.join("hard.so")).unwrap();
    fs::write(
        place.join("garbage.so"),
        b"\x7fELF and nothing else that makes sense ".repeat(40),
    )
    .unwrap();
    fs::write(place.join("empty.so"), b"").unwrap();
    fs::write(
        place.join("text.so"),
        "/* GNU ld script */ INPUT(libleaf.so)\n",
    )
    .unwrap();
    let whole = fs::read(&leaf).unwrap();
    fs::write(place.join("truncated.so"), &whole[..whole.len() / 3]).unwrap();
    fs::copy(&leaf, place.join("unreadable.so")).unwrap();
    fs::set_permissions(
        place.join("unreadable.so"),
        fs::Permissions::from_mode(0o000),
    )
    .unwrap();
}

fn libraries(user: Option<u32>) {
    let tree = Awkward::new();
    build_libraries(&tree.root().join("libraries"));
    fixture::compare(&tree, "loader_family", |_| false, user, |outcome| outcome);
}

#[test]
fn libraries_as_root() {
    libraries(None);
}

#[test]
fn libraries_as_nobody() {
    libraries(Some(NOBODY));
}

#[test]
fn the_test_programs_compile() {
    for entry in fs::read_dir(environment::sources()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_none_or(|extension| extension != "c") {
            continue;
        }
        match name {
            library if library.ends_with("_preload") => {
                environment::program(&format!("{library}.so"));
            }
            program => {
                environment::program(program);
            }
        }
    }
}
