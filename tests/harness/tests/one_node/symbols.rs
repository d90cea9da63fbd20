//! Which functions of libc are hooked, what each does and which test holds it: the table of
//! docs/SYMBOLS.md, compared with what `libcopper.so` exports.
//!
//! `COPPER_WRITE_DOCS=1 cargo test --release --test one_node symbols` writes the document anew.

use copper_tests::environment;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Functions that do the same.
struct Family {
    /// Their names, separated by blanks.
    names: &'static str,
    /// What they do on a path in the view, and on one under a covered prefix.
    view: &'static str,
    covered: &'static str,
    /// The tests that hold this, as `module::function`.
    tests: &'static [&'static str],
    /// The programs (or, with a dot, the file of tests) in which each name is called.
    callers: &'static [&'static str],
}

const SAME: &str = "the same";
const READ_ONLY: &str = "`EROFS`, in the order in which a read-only mount refuses";
const WRITTEN: &str = "made on the origin, then told to the helper";

const FAMILIES: &[Family] = &[
    Family {
        names: "open open64 openat openat64 __open __open64 __open_2 __open64_2 __openat_2 __openat64_2 \
                fopen fopen64 _IO_fopen freopen freopen64 setmntent",
        view: "reading: the store's file; writing: what a read-only mount says",
        covered: "reading: the store's file; writing: the origin's, and the helper is told",
        tests: &[
            "reading::opening_as_root",
            "reading::opening_as_nobody",
            "reading::other_names_as_root",
        ],
        callers: &["open_family", "alias_family"],
    },
    Family {
        names: "creat creat64",
        view: READ_ONLY,
        covered: WRITTEN,
        tests: &["changes::changes_as_root", "changes::changes_as_nobody"],
        callers: &["write_family"],
    },
    Family {
        names: "stat stat64 lstat lstat64 fstatat fstatat64 statx __xstat __xstat64 __lxstat __lxstat64 \
                __fxstatat __fxstatat64 ftok",
        view: "from the catalog",
        covered: SAME,
        tests: &[
            "reading::attributes_as_root",
            "reading::attributes_as_nobody",
            "reading::other_names_as_root",
        ],
        callers: &["stat_family", "alias_family"],
    },
    Family {
        names: "fstat fstat64 __fxstat __fxstat64",
        view: "of a descriptor on the store: the origin's attributes, from the catalog",
        covered: SAME,
        tests: &[
            "reading::attributes_as_root",
            "reading::other_names_as_root",
            "starting::telling_descriptors_as_root",
        ],
        callers: &["stat_family", "alias_family"],
    },
    Family {
        names: "access faccessat euidaccess eaccess",
        view: "from the mode bits where these settle it; writing is `EROFS`",
        covered: "from the mode bits where these settle it; writing is the origin's to say",
        tests: &["reading::paths_as_root", "reading::paths_as_nobody"],
        callers: &["path_family"],
    },
    Family {
        names: "readlink readlinkat __readlink_chk __readlinkat_chk",
        view: "the link's own text, from the catalog",
        covered: SAME,
        tests: &[
            "reading::paths_as_root",
            "starting::telling_descriptors_as_root",
        ],
        callers: &["path_family"],
    },
    Family {
        names: "realpath __realpath_chk canonicalize_file_name",
        view: "a name in the view, from the catalog",
        covered: "the origin's name, from the catalog",
        tests: &["reading::paths_as_root", "reading::paths_as_nobody"],
        callers: &["path_family"],
    },
    Family {
        names: "opendir fdopendir readdir readdir64 readdir_r readdir64_r closedir dirfd rewinddir seekdir \
                telldir scandir scandir64 scandirat scandirat64",
        view: "the origin's listing in the origin's order, from the catalog",
        covered: SAME,
        tests: &[
            "reading::directories_as_root",
            "reading::directories_as_nobody",
            "reading::other_names_as_root",
        ],
        callers: &["directory_family", "alias_family"],
    },
    Family {
        names: "getdents64 getdirentries getdirentries64",
        view: "the kernel lists the origin's directory",
        covered: SAME,
        tests: &[
            "reading::directories_as_root",
            "reading::other_names_as_root",
        ],
        callers: &["directory_family", "alias_family"],
    },
    Family {
        names: "glob glob64",
        view: "libc's, over our `opendir`, `readdir`, `stat` and `lstat`",
        covered: SAME,
        tests: &[
            "reading::directories_as_root",
            "reading::other_names_as_root",
        ],
        callers: &["directory_family", "alias_family"],
    },
    Family {
        names: "ftw ftw64 nftw nftw64",
        view: "walks over our own hooks; with `FTW_CHDIR` through the store's directories",
        covered: "walks over our own hooks; with `FTW_CHDIR` through the origin's directories",
        tests: &[
            "reading::walks_as_root",
            "reading::walks_as_nobody",
            "reading::other_names_as_root",
            "reading::other_names_as_nobody",
        ],
        callers: &["alias_family", "fts_family"],
    },
    Family {
        names: "fts_open fts_read fts_children fts_close fts64_open fts64_read fts64_children fts64_close",
        view: "walks over our own hooks; without `FTS_NOCHDIR` through the store's directories",
        covered: "walks over our own hooks; without `FTS_NOCHDIR` through the origin's directories",
        tests: &[
            "reading::walks_as_root",
            "reading::walks_as_nobody",
            "reading::directories_as_root",
            "reading::other_names_as_root",
        ],
        callers: &["fts_family", "directory_family", "alias_family"],
    },
    Family {
        names: "chdir fchdir",
        view: "into the store's directory",
        covered: "into the origin's directory",
        tests: &[
            "reading::working_directory_as_root",
            "reading::working_directory_as_nobody",
        ],
        callers: &["cwd_family"],
    },
    Family {
        names: "getcwd __getcwd_chk getwd __getwd_chk get_current_dir_name",
        view: "a name in the view",
        covered: "the origin's name",
        tests: &["reading::working_directory_as_root"],
        callers: &["cwd_family"],
    },
    Family {
        names: "chroot setuid seteuid setreuid setresuid setgid setegid setregid setresgid",
        view: "libc's; the process goes to the origin from then on where it lost rights or its root",
        covered: SAME,
        tests: &["coexistence::other_rights_and_another_root"],
        callers: &["coexistence.rs"],
    },
    Family {
        names: "prctl",
        view: "libc's; a process that gives itself a filter of system calls which may end it goes to the \
               origin from then on, and asks nobody",
        covered: SAME,
        tests: &["coexistence::awkward_moments"],
        callers: &["storm_family"],
    },
    Family {
        names: "statfs statfs64 __statfs statvfs statvfs64 fstatfs fstatfs64 __fstatfs fstatvfs fstatvfs64",
        view: "the origin's answer, flagged read-only",
        covered: "the origin's answer",
        tests: &[
            "reading::file_system_queries_as_root",
            "reading::other_names_as_root",
        ],
        callers: &["query_family", "alias_family"],
    },
    Family {
        names: "pathconf fpathconf getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr \
                inotify_add_watch name_to_handle_at",
        view: "the origin's answer",
        covered: SAME,
        tests: &[
            "reading::file_system_queries_as_root",
            "reading::other_names_as_root",
        ],
        callers: &["query_family", "alias_family"],
    },
    Family {
        names: "lseek lseek64",
        view: "of a descriptor on the store: holes and data where the origin's file has them",
        covered: SAME,
        tests: &[
            "starting::telling_descriptors_as_root",
            "reading::other_names_as_root",
        ],
        callers: &["telling_family", "alias_family"],
    },
    Family {
        names: "copy_file_range ioctl",
        view: "of a descriptor on the store: what only the origin's file system can do (sharing and \
               copying blocks within it, flags, extents) is asked of the origin's file; a control by its \
               number is carried out by the helper",
        covered: SAME,
        tests: &[
            "starting::telling_descriptors_as_root",
            "starting::telling_descriptors_as_nobody",
        ],
        callers: &["telling_family"],
    },
    Family {
        names: "flock fcntl fcntl64 lockf lockf64",
        view: "locks and leases: a descriptor on the store becomes one on the origin's file first; else \
               libc's",
        covered: SAME,
        tests: &[
            "starting::telling_descriptors_as_root",
            "starting::telling_descriptors_as_nobody",
        ],
        callers: &["telling_family"],
    },
    Family {
        names: "dlopen dlmopen",
        view: "the store's file, with its `DT_NEEDED` closure; what fails is repeated on the origin",
        covered: SAME,
        tests: &[
            "starting::libraries_as_root",
            "starting::libraries_as_nobody",
        ],
        callers: &["loader_family"],
    },
    Family {
        names: "dlerror",
        view: "the text that the program would get without Copper",
        covered: SAME,
        tests: &["starting::libraries_as_root"],
        callers: &["loader_family"],
    },
    Family {
        names: "execve execv execvp execvpe execl execlp execle execveat fexecve posix_spawn posix_spawnp",
        view: "the origin's file, by its name in the view; `PATH` is searched in the catalog; the preload goes along",
        covered: "the origin's file; `PATH` is searched in the catalog; the preload goes along",
        tests: &["starting::programs_as_root", "starting::programs_as_nobody"],
        callers: &["exec_family"],
    },
    Family {
        names: "posix_spawn_file_actions_addopen posix_spawn_file_actions_addchdir_np",
        view: "the store's file, the origin's directory; opening for writing fails when the action is added",
        covered: "the store's file, the origin's directory",
        tests: &["starting::programs_as_root"],
        callers: &["exec_family"],
    },
    Family {
        names: "unlink unlinkat remove rename renameat renameat2 mkdir mkdirat rmdir link linkat symlink symlinkat \
                mknod mknodat __xmknod __xmknodat mkfifo mkfifoat chmod fchmodat lchmod chown lchown fchownat \
                utime utimes lutimes futimesat utimensat truncate truncate64 mkstemp mkstemp64 mkostemp mkostemp64 \
                mkstemps mkstemps64 mkostemps mkostemps64 mkdtemp setxattr lsetxattr removexattr lremovexattr",
        view: READ_ONLY,
        covered: WRITTEN,
        tests: &["changes::changes_as_root", "changes::changes_as_nobody"],
        callers: &["write_family"],
    },
    Family {
        names: "fchmod fchown futimens futimes fsetxattr fremovexattr",
        view: "of a descriptor on the store: `EROFS`",
        covered: "of a descriptor on the store: made on the origin, then told to the helper",
        tests: &["changes::changes_as_root", "changes::changes_as_nobody"],
        callers: &["write_family"],
    },
    Family {
        names: "syscall",
        view: "as the function of the same name, for the numbers below; all others go to the kernel from \
               the caller's own frame",
        covered: SAME,
        tests: &[
            "reading::opening_as_root",
            "reading::attributes_as_root",
            "changes::changes_as_root",
        ],
        callers: &["open_family", "stat_family", "write_family"],
    },
];

/// The functions of libc that take paths, or tell of files, and that programs were seen to use.
const LISTED: &str = "\
    _IO_fopen __fxstatat __fxstatat64 __getcwd_chk __getwd_chk __lxstat __lxstat64 __open \
    __open64 __open64_2 __open_2 __openat64_2 __openat_2 __readlink_chk __readlinkat_chk \
    __realpath_chk __statfs __xmknod __xmknodat __xstat __xstat64 access bindtextdomain \
    canonicalize_file_name catopen chdir chmod chown chroot closedir creat creat64 dirfd \
    dlmopen dlopen eaccess euidaccess execl execle execlp execv execve execveat execvp execvpe \
    faccessat fchdir fchmodat fchownat fdopendir fexecve fopen fopen64 freopen freopen64 \
    fstatat fstatat64 ftok fts64_children fts64_close fts64_open fts64_read fts64_set \
    fts_children fts_close fts_open fts_read fts_set ftw ftw64 futimesat get_current_dir_name \
    getcwd getdents64 getdirentries getdirentries64 getwd getxattr glob glob64 iconv_open \
    inotify_add_watch lchmod lchown lgetxattr link linkat listxattr llistxattr lremovexattr \
    lsetxattr lstat lstat64 lutimes mkdir mkdirat mkdtemp mkfifo mkfifoat mknod mknodat \
    mkostemp mkostemp64 mkostemps mkostemps64 mkstemp mkstemp64 mkstemps mkstemps64 mktemp \
    name_to_handle_at newlocale nftw nftw64 open open64 openat openat64 opendir pathconf popen \
    posix_spawn posix_spawn_file_actions_addchdir_np posix_spawn_file_actions_addopen \
    posix_spawnp readdir readdir64 readdir64_r readdir_r readlink readlinkat realpath remove \
    removexattr rename renameat renameat2 rewinddir rmdir scandir scandir64 scandirat \
    scandirat64 seekdir setlocale setmntent setxattr shm_open stat stat64 statfs statfs64 \
    statvfs statvfs64 statx symlink symlinkat syscall system telldir tempnam truncate \
    truncate64 tzset unlink unlinkat utime utimensat utimes wordexp";

/// What docs/LIMITATIONS.md must explain: listed, and not hooked.
const NOT_HOOKED: &str = "bindtextdomain catopen fts_set fts64_set \
    iconv_open mktemp newlocale popen setlocale shm_open system tempnam \
    tzset wordexp";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text_of(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What `libcopper.so` puts in front of libc's.
fn exported() -> BTreeSet<String> {
    let listing = Command::new("nm")
        .args(["-D", "--defined-only"])
        .arg(environment::built("libcopper.so"))
        .output()
        .expect("nm is installed with the compiler");
    String::from_utf8_lossy(&listing.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .filter(|name| !name.ends_with("_copper_originals"))
        .map(str::to_owned)
        .collect()
}

fn names(list: &str) -> BTreeSet<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn in_table() -> BTreeSet<String> {
    FAMILIES
        .iter()
        .flat_map(|family| names(family.names))
        .collect()
}

/// Whether `text` has `name` as a whole word.
fn mentions(text: &str, name: &str) -> bool {
    let part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.match_indices(name).any(|(at, _)| {
        let before = at.checked_sub(1).map(|before| text.as_bytes()[before]);
        let after = text.as_bytes().get(at + name.len()).copied();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[test]
fn the_table_names_exactly_what_is_hooked() {
    let (exported, table) = (exported(), in_table());
    let missing: Vec<_> = exported.difference(&table).collect();
    let too_many: Vec<_> = table.difference(&exported).collect();
    assert!(
        missing.is_empty() && too_many.is_empty(),
        "hooked, but not in the table: {missing:?}; in the table, but not hooked: {too_many:?}"
    );
}

#[test]
fn every_listed_function_is_hooked_or_explained() {
    let (hooked, not_hooked) = (exported(), names(NOT_HOOKED));
    let limitations = text_of("docs/LIMITATIONS.md");
    let forgotten: Vec<_> = names(LISTED)
        .into_iter()
        .filter(|name| !hooked.contains(name))
        .filter(|name| !not_hooked.contains(name) || !limitations.contains(&format!("`{name}`")))
        .collect();
    assert!(
        forgotten.is_empty(),
        "neither hooked nor explained in docs/LIMITATIONS.md: {forgotten:?}"
    );
    let hooked_by_now: Vec<_> = hooked.intersection(&not_hooked).collect();
    assert!(hooked_by_now.is_empty(), "hooked by now: {hooked_by_now:?}");
}

#[test]
fn every_hooked_function_is_held_by_a_test() {
    let mut wrong = Vec::new();
    for family in FAMILIES {
        for test in family.tests {
            let (module, function) = test.split_once("::").expect("module::function");
            let source = text_of(format!("tests/harness/tests/one_node/{module}.rs"));
            if !source.contains(&format!("#[test]\nfn {function}()")) {
                wrong.push(format!("there is no test {test}"));
            }
        }
        let callers: Vec<_> = family
            .callers
            .iter()
            .map(|caller| {
                if caller.ends_with(".rs") {
                    text_of(format!("tests/harness/tests/one_node/{caller}"))
                } else {
                    text_of(format!("tests/programs/{caller}.c"))
                }
            })
            .collect();
        for name in names(family.names) {
            // libc itself no longer has this one, for older programs.
            let tried = name == "__fstatfs" || callers.iter().any(|text| mentions(text, &name));
            if !tried {
                wrong.push(format!("{name} is called in none of {:?}", family.callers));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The numbers that `syscall` knows, as the shim's source lists them.
fn system_calls() -> BTreeSet<String> {
    let source = text_of("cdylib-shim/src/raw.rs");
    source
        .lines()
        .filter_map(|line| line.split_once(" => "))
        .filter_map(|(number, _)| number.split_whitespace().last()?.rsplit("SYS_").next())
        .filter(|name| {
            !name.is_empty() && !name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        })
        .map(str::to_lowercase)
        .filter(|name| name != "_")
        .collect()
}

fn document() -> String {
    let mut text = String::from(
        "# Symbols\n\nEvery function of libc that Copper stands in front of, what it does on a covered path, and \
         the tests (`tests/harness/tests/one_node`) that compare it with a plain run. Written by \
         `COPPER_WRITE_DOCS=1 cargo test --release --test one_node symbols`; a test fails when it is out of \
         date. What is not hooked, and why, is in [LIMITATIONS.md](LIMITATIONS.md).\n\n\
         | symbol | in the view | under a covered prefix | held by |\n|---|---|---|---|\n",
    );
    let mut rows = BTreeMap::new();
    for family in FAMILIES {
        let tests: Vec<_> = family
            .tests
            .iter()
            .map(|test| format!("`{test}`"))
            .collect();
        for name in names(family.names) {
            let order = name.trim_start_matches('_').to_owned();
            let row = format!(
                "| `{name}` | {} | {} | {} |",
                family.view,
                family.covered,
                tests.join(", ")
            );
            rows.insert((order, name), row);
        }
    }
    for row in rows.values() {
        writeln!(text, "{row}").expect("a string grows");
    }
    text +=
        "\n## Numbers of `syscall`\n\nThese are answered as the function of the same name is:\n\n";
    let calls: Vec<_> = system_calls()
        .into_iter()
        .map(|name| format!("`{name}`"))
        .collect();
    for line in calls.chunks(8) {
        writeln!(text, "{},", line.join(", ")).expect("a string grows");
    }
    text.truncate(text.trim_end().trim_end_matches(',').len());
    text.push_str(".\n");
    text
}

#[test]
fn the_document_is_up_to_date() {
    let path = repository().join("docs/SYMBOLS.md");
    let expected = document();
    if std::env::var_os("COPPER_WRITE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &expected).expect("the document can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/SYMBOLS.md is out of date: COPPER_WRITE_DOCS=1 cargo test --release --test one_node symbols"
    );
}
