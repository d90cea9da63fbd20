//! The awkward tree: everything that has broken a cache of files before, and the paths by which
//! the test programs visit it.

use anyhow::{Result, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Sizes around which caches go wrong.
pub const SIZES: [usize; 9] = [0, 1, 4095, 4096, 4097, 8192, 65_536, 65_537, 1_048_579];

/// A name of the greatest length.
const LONGEST_NAME: usize = 255;

/// The paths to visit, relative to the root, in the order they are visited.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    paths: Vec<Vec<u8>>,
}

impl Manifest {
    /// Adds a path.
    pub fn add(&mut self, path: impl AsRef<[u8]>) {
        self.paths.push(path.as_ref().to_vec());
    }

    /// The paths.
    pub fn paths(&self) -> &[Vec<u8>] {
        &self.paths
    }

    /// Only the paths that `keep` keeps.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&[u8]) -> bool) -> Self {
        Self {
            paths: self
                .paths
                .iter()
                .filter(|path| keep(path))
                .cloned()
                .collect(),
        }
    }

    /// Writes the paths, each ended by a NUL, to a file that the test programs read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut text = Vec::new();
        for path in &self.paths {
            text.extend_from_slice(path);
            text.push(0);
        }
        Ok(fs::write(file, text)?)
    }
}

/// Fills the empty directory `root` with the awkward tree.
///
/// `seen_as` is the length of the longest path by which `root` will be reached; the deep branch is
/// made so that paths in it come near the limit of 4,095 bytes from there.
///
/// # Errors
/// When something cannot be made; only root can make the device and give files away.
pub fn awkward(root: &Path, seen_as: usize) -> Result<Manifest> {
    let mut manifest = Manifest::default();
    sizes(root, &mut manifest)?;
    sparse(root, &mut manifest)?;
    links(root, &mut manifest)?;
    names(root, &mut manifest)?;
    permissions(root, &mut manifest)?;
    special(root, &mut manifest)?;
    attributes(root, &mut manifest)?;
    directories(root, &mut manifest)?;
    programs(root, &mut manifest)?;
    walk(root)?;
    deep(root, seen_as, &mut manifest)?;
    awkward_paths(&mut manifest);
    settle_times(root)?;
    Ok(manifest)
}

/// Contents that differ at every place, so that a shifted page is seen.
pub fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| ((at * 31 + at / 251 + seed * 17) % 251) as u8 + 1)
        .collect()
}

fn sizes(root: &Path, manifest: &mut Manifest) -> Result<()> {
    fs::create_dir(root.join("sizes"))?;
    for size in SIZES {
        fs::write(root.join(format!("sizes/{size}")), pattern(size, size))?;
        manifest.add(format!("sizes/{size}"));
    }
    manifest.add("sizes");
    Ok(())
}

fn sparse(root: &Path, manifest: &mut Manifest) -> Result<()> {
    fs::create_dir(root.join("sparse"))?;
    let make = |name: &str, size: u64, data: &[u64]| -> Result<()> {
        let file = File::create(root.join("sparse").join(name))?;
        file.set_len(size)?;
        for at in data {
            file.write_all_at(&pattern(4096, 7), *at)?;
        }
        Ok(())
    };
    make("only-a-hole", 1 << 20, &[])?;
    make("hole-in-front", 1 << 20, &[(1 << 20) - 4096])?;
    make("hole-in-the-middle", 1 << 20, &[0, (1 << 20) - 4096])?;
    make("hole-behind", 1 << 20, &[0])?;
    make("hole-behind-unaligned", (1 << 20) + 17, &[0])?;
    for name in [
        "only-a-hole",
        "hole-in-front",
        "hole-in-the-middle",
        "hole-behind",
    ] {
        manifest.add(format!("sparse/{name}"));
    }
    manifest.add("sparse/hole-behind-unaligned");
    Ok(())
}

fn links(root: &Path, manifest: &mut Manifest) -> Result<()> {
    let links = root.join("links");
    fs::create_dir_all(links.join("dir/sub"))?;
    fs::write(links.join("file"), "linked\n")?;
    fs::write(links.join("dir/file"), "in dir\n")?;
    fs::write(links.join("dir/sub/file"), "in dir/sub\n")?;
    fs::hard_link(links.join("file"), links.join("hard"))?;
    fs::hard_link(links.join("file"), links.join("dir/hard"))?;
    let absolute = |path: &str| links.join(path).into_os_string();
    let text = |path: &str| path.to_owned().into();
    let made: Vec<(&str, std::ffi::OsString)> = vec![
        ("relative", text("file")),
        ("absolute", absolute("file")),
        ("absolute-dir", absolute("dir")),
        ("with-dots", text("dir/../dir/./sub/../file")),
        ("dir/up", text("../file")),
        ("dir/sub/up", text("../../dir")),
        ("to-dir", text("dir")),
        ("to-dir-slash", text("dir/")),
        ("to-file-slash", text("file/")),
        ("to-sub", text("dir/sub")),
        ("here", text(".")),
        ("parent", text("..")),
        ("slashes", text("dir////sub//file")),
        ("loop", text("loop")),
        ("loop-one", text("loop-two")),
        ("loop-two", text("loop-one")),
        ("dangling", text("missing")),
        ("dangling-dir", text("missing/deeper")),
        ("dangling-absolute", absolute("missing")),
        ("through-file", text("file/x")),
        ("outside", text("/etc/hostname")),
        ("outside-dir", text("/etc")),
        ("outside-root", text("/")),
        ("outside-dev", text("/dev/null")),
        (
            "not-utf8",
            std::ffi::OsString::from(OsStr::from_bytes(b"dir/\xff")),
        ),
        ("long", text(&"x/".repeat(2000))),
    ];
    for (name, target) in &made {
        symlink(target, links.join(name))?;
        manifest.add(format!("links/{name}"));
    }
    // The kernel follows forty links and no more.
    for length in 0..42 {
        let target = if length == 0 {
            "file".to_owned()
        } else {
            format!("chain-{}", length - 1)
        };
        symlink(target, links.join(format!("chain-{length}")))?;
    }
    for length in [1, 5, 38, 39, 40, 41] {
        manifest.add(format!("links/chain-{length}"));
    }
    for path in [
        "file",
        "hard",
        "dir",
        "dir/hard",
        "dir/file",
        "dir/sub",
        "dir/sub/file",
    ] {
        manifest.add(format!("links/{path}"));
    }
    Ok(())
}

fn names(root: &Path, manifest: &mut Manifest) -> Result<()> {
    let names = root.join("names");
    fs::create_dir(&names)?;
    let longest = vec![b'n'; LONGEST_NAME];
    let all: Vec<&[u8]> = vec![
        b"\xff\xfe not utf-8 \x80",
        b"line\nbreak",
        b" leading and trailing space ",
        b"tab\tand\rreturn",
        b"quote'and\"and`and$HOME",
        b"back\\slash",
        b"-rf",
        b"...",
        b".hidden",
        b"co:lon",
        b"*?[a-z]{x,y}",
        b"\x01\x02\x7f",
        "composed \u{e9}".as_bytes(),
        "decomposed e\u{301}".as_bytes(),
        "\u{1f400} emoji".as_bytes(),
        &longest,
    ];
    for name in all {
        fs::write(names.join(OsStr::from_bytes(name)), name)?;
        manifest.add([b"names/", name].concat());
    }
    manifest.add("names");
    manifest.add([b"names/".as_slice(), &[b'n'; LONGEST_NAME - 1]].concat());
    manifest.add([b"names/".as_slice(), &[b'n'; LONGEST_NAME + 1]].concat());
    manifest.add([b"names/".as_slice(), &[b'n'; LONGEST_NAME + 1], b"/x"].concat());
    Ok(())
}

fn permissions(root: &Path, manifest: &mut Manifest) -> Result<()> {
    let place = root.join("permissions");
    fs::create_dir(&place)?;
    for mode in [
        0o000, 0o100, 0o200, 0o400, 0o444, 0o555, 0o600, 0o644, 0o711, 0o4755, 0o2755,
    ] {
        let name = format!("file-{mode:04o}");
        fs::write(place.join(&name), "#!/bin/sh\necho ran\n")?;
        fs::set_permissions(place.join(&name), Permissions::from_mode(mode))?;
        manifest.add(format!("permissions/{name}"));
    }
    for mode in [0o000, 0o111, 0o444, 0o555, 0o700, 0o1777, 0o2755] {
        let name = format!("dir-{mode:04o}");
        let directory = place.join(&name);
        fs::create_dir(&directory)?;
        fs::write(directory.join("file"), "inside\n")?;
        fs::create_dir(directory.join("sub"))?;
        fs::write(directory.join("sub/file"), "deeper\n")?;
        symlink("file", directory.join("link"))?;
        fs::set_permissions(&directory, Permissions::from_mode(mode))?;
        for path in [
            "",
            "/file",
            "/sub",
            "/sub/file",
            "/link",
            "/missing",
            "/sub/..",
            "/.",
        ] {
            manifest.add(format!("permissions/{name}{path}"));
        }
    }
    if crate::environment::is_root() {
        for (name, owner, mode) in [("of-another", 12_345, 0o640), ("of-nobody", 65_534, 0o640)] {
            fs::write(place.join(name), "owned\n")?;
            std::os::unix::fs::chown(place.join(name), Some(owner), Some(owner))?;
            fs::set_permissions(place.join(name), Permissions::from_mode(mode))?;
            manifest.add(format!("permissions/{name}"));
        }
    }
    Ok(())
}

fn special(root: &Path, manifest: &mut Manifest) -> Result<()> {
    let place = root.join("special");
    fs::create_dir(&place)?;
    let mode = Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(CWD, place.join("fifo"), FileType::Fifo, mode, 0)?;
    rustix::fs::mknodat(CWD, place.join("socket"), FileType::Socket, mode, 0)?;
    symlink("fifo", place.join("link-to-fifo"))?;
    for name in ["fifo", "socket", "link-to-fifo"] {
        manifest.add(format!("special/{name}"));
    }
    if crate::environment::is_root() {
        let null = rustix::fs::makedev(1, 3);
        rustix::fs::mknodat(
            CWD,
            place.join("null"),
            FileType::CharacterDevice,
            mode,
            null,
        )?;
        manifest.add("special/null");
    }
    manifest.add("special");
    Ok(())
}

fn attributes(root: &Path, manifest: &mut Manifest) -> Result<()> {
    let place = root.join("attributes");
    fs::create_dir_all(place.join("dir"))?;
    fs::write(place.join("file"), "with attributes\n")?;
    symlink("file", place.join("link"))?;
    for path in ["file", "dir"] {
        let path = place.join(path);
        rustix::fs::setxattr(&path, "user.one", b"value \0 with NUL", XattrFlags::empty())?;
        rustix::fs::setxattr(&path, "user.empty", b"", XattrFlags::empty())?;
    }
    for path in ["file", "dir", "link"] {
        manifest.add(format!("attributes/{path}"));
    }
    Ok(())
}

fn directories(root: &Path, manifest: &mut Manifest) -> Result<()> {
    fs::create_dir(root.join("empty"))?;
    let many = root.join("many");
    fs::create_dir(&many)?;
    for number in 0..3000 {
        fs::write(many.join(format!("name-{number}")), format!("{number}\n"))?;
    }
    for path in [
        "empty",
        "many",
        "many/name-0",
        "many/name-2999",
        "many/name-3000",
    ] {
        manifest.add(path);
    }
    Ok(())
}

fn programs(root: &Path, manifest: &mut Manifest) -> Result<()> {
    let place = root.join("programs");
    fs::create_dir(&place)?;
    let scripts = [
        ("a-script", "#!/bin/sh\necho script \"$0\" \"$@\"\n", 0o755),
        ("not-executable", "#!/bin/sh\necho never\n", 0o644),
        ("no-interpreter-line", "echo plain \"$@\"\n", 0o755),
        ("with-argument", "#!/bin/sh -e\necho with \"$@\"\n", 0o755),
        ("by-env", "#!/usr/bin/env sh\necho env \"$@\"\n", 0o755),
        ("missing-interpreter", "#!/no/such/interpreter\n", 0o755),
        ("empty", "", 0o755),
        ("garbage", "\x7fELF garbage", 0o755),
        ("exit-7", "#!/bin/sh\nexit 7\n", 0o755),
        ("killed", "#!/bin/sh\nkill -9 $$\n", 0o755),
    ];
    for (name, text, mode) in scripts {
        fs::write(place.join(name), text)?;
        fs::set_permissions(place.join(name), Permissions::from_mode(mode))?;
        manifest.add(format!("programs/{name}"));
    }
    fs::copy("/bin/true", place.join("true"))?;
    fs::copy("/bin/echo", place.join("echo"))?;
    symlink("a-script", place.join("link-to-script"))?;
    let own_interpreter = format!("#!{} own\n", place.join("echo").display());
    fs::write(place.join("own-interpreter"), own_interpreter)?;
    fs::set_permissions(place.join("own-interpreter"), Permissions::from_mode(0o755))?;
    for name in ["true", "echo", "link-to-script", "own-interpreter"] {
        manifest.add(format!("programs/{name}"));
    }
    Ok(())
}

/// A small plain tree for the calls that walk a whole tree.
fn walk(root: &Path) -> Result<()> {
    let place = root.join("walk");
    for directory in ["alpha/one", "alpha/two", "beta", "gamma/deep/deeper"] {
        fs::create_dir_all(place.join(directory))?;
        fs::write(place.join(directory).join("file"), directory)?;
    }
    symlink("alpha", place.join("link"))?;
    symlink("missing", place.join("dangling"))?;
    Ok(())
}

/// Directories whose full path comes as near to 4,095 bytes as whole components allow.
fn deep(root: &Path, seen_as: usize, manifest: &mut Manifest) -> Result<()> {
    const LIMIT: usize = 4095;
    let mut directory = rustix::fs::open(root, OFlags::PATH, Mode::empty())?;
    let mut relative = Vec::new();
    let step = |directory: &mut rustix::fd::OwnedFd, name: &[u8]| -> Result<()> {
        let name = OsStr::from_bytes(name);
        rustix::fs::mkdirat(&*directory, name, Mode::from_raw_mode(0o755))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        *directory = rustix::fs::openat(&*directory, name, flags, Mode::empty())?;
        Ok(())
    };
    step(&mut directory, b"deep")?;
    relative.extend_from_slice(b"deep");
    loop {
        let room = LIMIT - seen_as - 1 - relative.len();
        if room < 20 {
            break;
        }
        let name = vec![b'd'; (room - 10).min(200)];
        step(&mut directory, &name)?;
        relative.push(b'/');
        relative.extend_from_slice(&name);
    }
    let file = rustix::fs::openat(
        &directory,
        "file",
        OFlags::WRONLY | OFlags::CREATE,
        Mode::RUSR,
    )?;
    rustix::io::write(&file, b"deep\n")?;
    manifest.add(&relative);
    manifest.add([relative.as_slice(), b"/file"].concat());
    manifest.add([relative.as_slice(), b"/missing"].concat());
    // Beyond the limit from everywhere.
    manifest.add([relative.as_slice(), b"/", vec![b'x'; 250].as_slice()].concat());
    manifest.add([b"./".repeat(2500).as_slice(), b"sizes"].concat());
    // Only just below it, from everywhere.
    manifest.add(
        [
            b"./".repeat((LIMIT - seen_as - 10) / 2).as_slice(),
            b"sizes",
        ]
        .concat(),
    );
    Ok(())
}

/// Ways to write a path that mean something particular.
fn awkward_paths(manifest: &mut Manifest) {
    let paths = [
        "",
        ".",
        "..",
        "./",
        "../",
        "//",
        "/./",
        "sizes/",
        "sizes/.",
        "sizes/..",
        "sizes//1",
        "./sizes/1",
        "sizes/./1",
        "sizes/../sizes/1",
        "sizes/1/",
        "sizes/1/.",
        "sizes/1/..",
        "sizes/1/x",
        "missing",
        "missing/",
        "missing/.",
        "missing/..",
        "missing/x",
        "missing/../sizes",
        "links/to-dir/",
        "links/to-dir/.",
        "links/to-dir/..",
        "links/to-dir/../file",
        "links/to-dir/sub",
        "links/to-sub/..",
        "links/to-sub/../file",
        "links/to-sub/../../file",
        "links/absolute-dir/..",
        "links/absolute-dir/file",
        "links/dangling/",
        "links/dangling/x",
        "links/loop/",
        "links/loop/x",
        "links/relative/",
        "links/relative/x",
        "links/here/here/file",
        "links/parent/links/file",
        "links/outside-dir/hostname",
        "links/outside-root/etc/hostname",
        "links/outside-dir/..",
        "links/dir/up",
        "links/dir/sub/up/file",
        "links/dir/sub/up/..",
        "empty/",
        "empty/x",
        "empty/..",
        "many/",
        "programs",
        "walk",
        "walk/alpha",
        "special/fifo/",
        "special/fifo/x",
    ];
    for path in paths {
        manifest.add(path);
    }
}

/// Gives some files times that a cache may not be able to hold, and all the rest one time of long
/// ago: rsync takes a copy made within the same second for one that has its time already.
fn settle_times(root: &Path) -> Result<()> {
    let touched = Command::new("find")
        .arg(root)
        .args([
            "-depth",
            "-exec",
            "touch",
            "-h",
            "-d",
            "@1600000000.123456789",
            "{}",
            "+",
        ])
        .status()?;
    ensure!(touched.success(), "cannot set the times of the tree");
    let times = [
        (0, 0),
        (-1, 5),
        (1, 999_999_999),
        (4_294_967_296, 1),
        (-2_000_000_000, 0),
    ];
    for (size, (seconds, nanoseconds)) in SIZES.iter().zip(times) {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::utimensat(
            CWD,
            root.join(format!("sizes/{size}")),
            &times,
            AtFlags::empty(),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_tree_holds_what_it_promises() {
        let scratch = crate::environment::scratch();
        let root = scratch.path().join("tree");
        fs::create_dir(&root).unwrap();
        let manifest = awkward(&root, root.as_os_str().len() + 40).unwrap();
        assert!(manifest.paths().len() > 200);
        for size in SIZES {
            assert_eq!(
                fs::metadata(root.join(format!("sizes/{size}")))
                    .unwrap()
                    .size(),
                size as u64
            );
        }
        let hole = fs::metadata(root.join("sparse/only-a-hole")).unwrap();
        assert_eq!((hole.size(), hole.blocks()), (1 << 20, 0));
        assert_eq!(fs::metadata(root.join("links/hard")).unwrap().nlink(), 3);
        assert_eq!(fs::read_dir(root.join("many")).unwrap().count(), 3000);
        assert!(manifest.paths().iter().any(|path| {
            let length = root.as_os_str().len() + 40 + 1 + path.len();
            (4070..=4095).contains(&length)
        }));
    }
}
