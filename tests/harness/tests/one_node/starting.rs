//! Programs and libraries that are started from the tree, descriptors that are handed on, and
//! arguments that are no pointers.

use crate::fixture::{self, Awkward, NOBODY};
use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::session::Session;
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

/// Builds libraries that are found along search paths of every form.
fn build_search_paths(place: &Path) {
    let directory = |name: &str| {
        let directory = place.join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    };
    let build = |to: &Path, text: &str, arguments: &[&str]| {
        let source = to.with_extension("c");
        fs::write(&source, text).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.arg("-o").arg(to).arg(&source);
        let name = to.file_name().unwrap().to_str().unwrap();
        if let Some((stem, _)) = name.split_once(".so") {
            // The soname is what comes before a second number.
            let soname = name.strip_suffix(".2").unwrap_or(name);
            gcc.args(["-shared", "-fPIC", &format!("-Wl,-soname,{soname}")]);
            assert!(!stem.is_empty());
        }
        gcc.arg("-Wl,--allow-shlib-undefined").args(arguments);
        assert!(gcc.status().unwrap().success(), "gcc {}", to.display());
        fs::remove_file(source).unwrap();
    };
    let answers = |number: u32| format!("int inner(void) {{ return {number}; }}");
    let asks = "int inner(void); int answer(void) { return inner() + 100; }";
    let needs = |name: &str, from: &Path, search: &str, old: bool| {
        let tags = if old {
            "--disable-new-dtags"
        } else {
            "--enable-new-dtags"
        };
        let library = format!("-L{}", from.display());
        let arguments = [
            library,
            "-linner".to_owned(),
            format!("-Wl,{tags},-rpath,{search}"),
        ];
        build(
            &place.join(name),
            asks,
            &arguments.each_ref().map(String::as_str),
        );
    };
    // Each place has a library of the same name that says where it was found.
    let plain = directory("search/plain");
    build(&plain.join("libinner.so"), &answers(1), &[]);
    needs(
        "libabsolute_rpath.so",
        &plain,
        plain.to_str().unwrap(),
        true,
    );
    needs(
        "libabsolute_runpath.so",
        &plain,
        plain.to_str().unwrap(),
        false,
    );
    let missing = place.join("search/none");
    let second = format!(
        "{}:$ORIGIN/search/plain/../plain:/nowhere",
        missing.display()
    );
    needs("libsecond_element.so", &plain, &second, false);
    for (number, name) in ["lib64", "lib", "lib/x86_64-linux-gnu"].iter().enumerate() {
        let place = directory(&format!("search/{name}"));
        build(
            &place.join("libinner.so"),
            &answers(10 + number as u32),
            &[],
        );
    }
    needs("libtoken_lib.so", &plain, "$ORIGIN/search/$LIB", false);
    needs(
        "libtoken_lib_old.so",
        &plain,
        "${ORIGIN}/search/${LIB}",
        true,
    );
    for (number, name) in ["x86_64", "haswell", "xeon_phi"].iter().enumerate() {
        let place = directory(&format!("search/platforms/{name}"));
        build(
            &place.join("libinner.so"),
            &answers(20 + number as u32),
            &[],
        );
    }
    needs(
        "libtoken_platform.so",
        &plain,
        "$ORIGIN/search/platforms/$PLATFORM",
        false,
    );
    let variants = directory("search/variants");
    build(&variants.join("libinner.so"), &answers(30), &[]);
    for (number, name) in ["x86-64-v2", "x86-64-v3", "x86-64-v4"].iter().enumerate() {
        let place = directory(&format!("search/variants/glibc-hwcaps/{name}"));
        build(
            &place.join("libinner.so"),
            &answers(31 + number as u32),
            &[],
        );
    }
    needs(
        "libvariants_absolute.so",
        &plain,
        variants.to_str().unwrap(),
        false,
    );
    needs(
        "libvariants_origin.so",
        &plain,
        "$ORIGIN/search/variants",
        true,
    );
    // An RPATH holds for what is needed by what is needed; a RUNPATH does not.
    let middle = directory("search/middle");
    let library = format!("-L{}", plain.display());
    build(&middle.join("libmiddle.so"), asks, &[&library, "-linner"]);
    let both = format!("{}:{}", middle.display(), plain.display());
    for (name, tags) in [
        ("libinherits.so", "--disable-new-dtags"),
        ("libinherits_not.so", "--enable-new-dtags"),
    ] {
        let outer = "int answer(void); int outer(void) { return answer(); }";
        let rpath = format!("-Wl,{tags},-rpath,{both}");
        build(
            &place.join(name),
            outer,
            &[&format!("-L{}", middle.display()), "-lmiddle", &rpath],
        );
    }
    // Names with versions, as packages have them.
    let versions = directory("search/versions");
    build(&versions.join("libinner.so.1.2"), &answers(40), &[]);
    symlink("libinner.so.1.2", versions.join("libinner.so.1")).unwrap();
    symlink("libinner.so.1", versions.join("libinner.so")).unwrap();
    needs(
        "libversions.so",
        &versions,
        versions.to_str().unwrap(),
        false,
    );
    needs(
        "libversions_old.so",
        &versions,
        "$ORIGIN/search/versions",
        true,
    );
    // A library for another machine is passed over.
    let foreign = directory("search/foreign");
    let mut bytes = fs::read(plain.join("libinner.so")).unwrap();
    bytes[18] = 40;
    fs::write(foreign.join("libinner.so"), bytes).unwrap();
    let both = format!("{}:{}", foreign.display(), plain.display());
    needs("libpasses_over.so", &plain, &both, false);
    let main = "#include <stdio.h>\nint inner(void); int main(void) { printf(\"inner %d\\n\", inner()); return 0; }";
    let from = format!("-L{}", plain.display());
    build(&place.join("by_library_path"), main, &[&from, "-linner"]);
    for (name, tags) in [
        ("by_rpath", "--disable-new-dtags"),
        ("by_runpath", "--enable-new-dtags"),
    ] {
        let rpath = format!("-Wl,{tags},-rpath,{}", plain.display());
        build(&place.join(name), main, &[&from, "-linner", &rpath]);
    }
}

fn libraries(user: Option<u32>, prepare: fn(Session) -> Session) {
    let tree = Awkward::new();
    let place = tree.root().join("libraries");
    build_libraries(&place);
    build_search_paths(&place);
    fixture::compare_in(
        &tree,
        "loader_family",
        |_| false,
        user,
        |outcome| outcome,
        prepare,
    );
}

#[test]
fn libraries_as_root() {
    libraries(None, |session| session);
}

#[test]
fn libraries_as_nobody() {
    libraries(Some(NOBODY), |session| session);
}

#[test]
fn libraries_as_root_under_the_audit_library() {
    libraries(None, Session::audited);
}

#[test]
fn libraries_as_nobody_under_the_audit_library() {
    libraries(Some(NOBODY), Session::audited);
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
