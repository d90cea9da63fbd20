//! Real programs on covered paths: output, errors and exit status are those of a plain run.
//!
//! Each case is a shell script that finds the tree at `$TREE` and may write to `$OUT`, a directory
//! of its own that is not covered. It runs twice plain, to see that it says the same each time,
//! then covered and in the view, each cold and warm.

use crate::fixture::Awkward;
use copper_tests::compare::Outcome;
use copper_tests::environment;
use copper_tests::python;
use copper_tests::session::{Session, Way};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One way to run all cases, with what a failure calls it.
const RUNS: [(Way, &str); 5] = [
    (Way::Plain, "second plain run"),
    (Way::Covered, "covered run, cold"),
    (Way::Covered, "covered run, warm"),
    (Way::View, "run in the view, cold"),
    (Way::View, "run in the view, warm"),
];

pub(crate) struct Bench {
    session: Session,
    scratch: tempfile::TempDir,
    tree: PathBuf,
}

impl Bench {
    pub(crate) fn new(tree: &Path) -> Self {
        let session = Session::start(&[tree]);
        let scratch = environment::scratch();
        // Younger than the tree, older than what the scripts make.
        std::thread::sleep(Duration::from_millis(20));
        fs::write(scratch.path().join("stamp"), "").unwrap();
        std::thread::sleep(Duration::from_millis(20));
        Self {
            session,
            scratch,
            tree: tree.to_owned(),
        }
    }

    fn run(&self, way: Way, script: &str) -> Outcome {
        let out = self.scratch.path().join("out");
        if out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        fs::create_dir(&out).unwrap();
        let mut command = self.session.command(way, "bash");
        command
            .args(["-c", script])
            .current_dir(&out)
            .env("OUT", &out)
            .env("TZ", "UTC");
        command
            .env("TREE", self.session.seen(way, &self.tree))
            .env("HOME", self.scratch.path());
        command
            .env("PYTHON", python::interpreter())
            .env("GIT_PAGER", "cat");
        command.env("STAMP", self.scratch.path().join("stamp"));
        python::settle(&mut command);
        Outcome::of(&mut command).without_view(&self.session.view())
    }

    /// Runs all scripts every way; fails with the differences of all of them.
    pub(crate) fn compare(&self, scripts: &[&str]) {
        let plain: Vec<_> = scripts
            .iter()
            .map(|script| self.run(Way::Plain, script))
            .collect();
        let mut wrong = String::new();
        for (way, what) in RUNS {
            for (script, expected) in scripts.iter().zip(&plain) {
                if let Some(difference) = self.run(way, script).difference(expected) {
                    wrong += &format!("== {what} of: {script}\n{difference}\n");
                }
            }
        }
        assert!(wrong.is_empty(), "differs from the plain run:\n{wrong}");
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("{program} is not installed: not tried");
    }
    found
}

fn on_awkward_tree(scripts: &[&str]) {
    let tree = Awkward::new();
    Bench::new(&tree.root()).compare(scripts);
}

#[test]
fn listing_and_finding() {
    on_awkward_tree(&[
        "ls -lR --time-style=full-iso $TREE",
        "ls -laZ $TREE/links $TREE/attributes",
        "ls -liU $TREE/many | cksum",
        "cd $TREE/links && ls -lL; ls -d ../*/; pwd",
        // %p after the contents of a directory comes in the order the directory lists.
        "find $TREE -printf '%p %y %Y %m %s %i %n %U %T@ %C@ %l\\n'",
        "find -L $TREE/walk $TREE/sizes -ls",
        "find $TREE -xdev -type f -size +4095c -perm /444 | sort",
        "find $TREE -samefile $TREE/links/file; find $TREE -empty; find $TREE -xtype l",
        "cd $TREE; find . -newer sizes/1 -name '*[0-9]' | cksum; find . -executable | cksum",
        "find $TREE/sizes $TREE/walk -type f -exec wc -c {} +",
        "du -a $TREE | sort; du -sb $TREE; du --inodes $TREE",
        "stat $TREE/sizes/* $TREE/links/* $TREE/special/* | grep -v Access:; stat -f -c %T,%s $TREE",
        "readlink -f $TREE/links/*; realpath $TREE/links/chain-5; readlink $TREE/links/*",
        "df --output=source,fstype,target $TREE",
        "tree -a $TREE/walk 2>/dev/null; file $TREE/programs/* $TREE/special/*",
    ]);
}

#[test]
fn reading_and_comparing() {
    on_awkward_tree(&[
        "find $TREE -type f -print0 | sort -z | xargs -0 md5sum",
        "cat $TREE/sizes/* | cksum; cat $TREE/missing $TREE/sizes $TREE/permissions/file-0000",
        "head -c 5000 $TREE/sizes/65537 | od -c | tail -2; tail -c 10 $TREE/sizes/1048579 | od -c",
        "tail -n 2 $TREE/many/name-1 $TREE/many/name-2; wc $TREE/sizes/*; sort $TREE/many/name-2* | tail -3",
        "grep -r 2999 $TREE/many; grep -rc linked $TREE/links; grep -l in -R $TREE/walk",
        "cmp $TREE/sizes/4096 $TREE/sizes/4097; diff -r $TREE/walk $TREE/links; cmp $TREE/links/file $TREE/links/hard",
        "awk '{ n += $1 } END { print n }' $TREE/many/*; sed -n 1p $TREE/links/file",
        "dd if=$TREE/sizes/1048579 bs=4095 skip=3 count=7 status=none | cksum",
        "test -x $TREE/programs/a-script; echo $?; test -x $TREE/programs/not-executable; echo $?; test -w $TREE/sizes/1 -o 1; test -p $TREE/special/fifo; echo $?; test $TREE/sizes/1 -nt $TREE/sizes/0; echo $?; test $TREE/links/file -ef $TREE/links/hard; echo $?",
    ]);
}

#[test]
fn copying_and_archiving() {
    // What arrives is compared without Copper's help: `env -u` of the preload.
    // Times that were copied are compared, times of the copying are not.
    let look = "unset LD_PRELOAD; show='%P %y %m %s %n %b %l'; \
                find $OUT -mindepth 1 ! -newer $STAMP -printf \"$show %T@\\n\" | sort; \
                find $OUT -mindepth 1 -newer $STAMP -printf \"$show\\n\" | sort; \
                find $OUT -type f -print0 | sort -z | xargs -0r md5sum";
    let with_look = |script: &str| format!("{script}; echo status $?; {look}");
    let scripts: Vec<String> = [
        "cp -a $TREE/links $TREE/sizes $TREE/sparse $TREE/attributes $TREE/permissions $OUT",
        "cp -r $TREE/walk $TREE/names $OUT; cp --reflink=auto --sparse=always $TREE/sparse/* $OUT",
        "cp -s $TREE/links/file $OUT/soft; cat $OUT/soft; rm $OUT/soft; cp -u $TREE/many/name-1* $OUT",
        "rsync -aHX $TREE/links $TREE/sizes $TREE/attributes $TREE/walk $OUT; rsync -aHXni $TREE/links $TREE/sizes $OUT",
        "tar -C $TREE -xf <(tar -C $TREE -cf - walk) -C $OUT; tar -C $OUT -xf <(tar -C $TREE -cSf - sparse links attributes)",
        "install -m 640 $TREE/sizes/4097 $OUT/installed; ln -s $TREE/sizes/1 $OUT/link && cat $OUT/link; rm $OUT/link",
    ]
    .iter()
    .map(|script| with_look(script))
    .collect();
    let mut scripts: Vec<&str> = scripts.iter().map(String::as_str).collect();
    scripts.extend([
        "tar -C $TREE -cf - . 2>&1 | md5sum",
        "tar -C $TREE --sort=name --xattrs --pax-option='exthdr.name=%d/%f,delete=atime,delete=ctime' -cf - attributes links names | md5sum",
        "cd $TREE && tar -cf - sizes permissions special 2>&1 | md5sum; find walk | cpio -o -H newc --quiet 2>/dev/null | md5sum",
        "gzip -c $TREE/sizes/1048579 | gunzip | cksum; cd $TREE/walk && tar -chf - alpha link 2>&1 | tar -tvf -",
    ]);
    on_awkward_tree(&scripts);
}

#[test]
fn shells() {
    let tree = Awkward::new();
    fs::write(
        tree.root().join("walk/sourced.sh"),
        "echo sourced $0 $1; value=7\n",
    )
    .unwrap();
    Bench::new(&tree.root()).compare(&[
        "echo $TREE/*; echo $TREE/*/f*; echo $TREE/many/name-1?; echo $TREE/no*thing; shopt -s globstar; echo $TREE/walk/**",
        "source $TREE/walk/sourced.sh argument; echo $value; cd $TREE/walk; . ./sourced.sh; pwd; pwd -P; cd ..; pwd; cd - >/dev/null; pwd",
        "cd $TREE/links/to-dir && pwd && pwd -P && cd .. && pwd; cd $TREE/links/absolute-dir/.. && pwd -P; pushd sub",
        "cd $TREE/programs; ./a-script one; ./not-executable; echo $?; ./missing-interpreter; echo $?; ./exit-7; echo $?; perl -e 'print system(q(./killed)), qq(\\n)'; ./no-interpreter-line x",
        "PATH=$TREE/programs:$PATH; a-script two; by-env three; type a-script; hash -r; command -v echo; not-executable; echo $?",
        "exec 5< $TREE/many/name-7; read line <&5; echo $line; while read -r line; do echo \"$line\"; done < $TREE/links/file; mapfile < $TREE/names/-rf; echo ${#MAPFILE[@]}",
        "echo x > $OUT/new; cat < $OUT/new; cat $TREE/sizes/1 >> $OUT/new; wc -c < $OUT/new; [ -e $TREE/missing ]; echo $?; [[ -L $TREE/links/loop ]]; echo $?",
        "for f in $TREE/permissions/*; do [ -r \"$f\" ] && [ -d \"$f\" ] && ls -a \"$f\"; done; umask; ulimit -n > /dev/null",
        "dash -c 'cd $TREE/walk; echo *; pwd; . ./sourced.sh; cat alpha/one/file; true; cat beta/file'",
        "dash -c 'cat $TREE/sizes/4097; true' | cksum; dash $TREE/programs/a-script 5; echo $(dash -c 'read x < $TREE/many/name-3; echo $x')",
        "cat $TREE/walk/*/one/file | (cd $TREE; tr a-z A-Z; pwd); (cd $TREE/walk && (cd alpha && pwd; ls) ; pwd)",
    ]);
}

#[test]
fn perl() {
    let tree = Awkward::new();
    let module = tree.root().join("walk/lib/Own");
    fs::create_dir_all(&module).unwrap();
    fs::write(
        module.join("Module.pm"),
        "package Own::Module; sub answer { 42 } 1;\n",
    )
    .unwrap();
    Bench::new(&tree.root()).compare(&[
        "perl -I$TREE/walk/lib -MOwn::Module -e 'print Own::Module::answer(), \" $INC{q(Own/Module.pm)}\\n\"'",
        "perl -MFile::Find -e 'find({wanted => sub { my @s = lstat; print \"$File::Find::name $s[1] $s[7] $s[9]\\n\" }, no_chdir => 0}, $ENV{TREE}.\"/walk\", $ENV{TREE}.\"/links\")'",
        "perl -e 'for (glob \"$ENV{TREE}/permissions/*\") { print \"$_ \", join(\",\", map { $_ // q() } -r, -w, -x, -e, -s, -d, -f, -l, -M > -1), \"\\n\" }'",
        "perl -e 'opendir D, \"$ENV{TREE}/many\"; my $p = telldir D; my @n = readdir D; seekdir D, $p; print scalar(@n), \" \", scalar(readdir D) eq $n[0], \"\\n\"'",
        "perl -MCwd -e 'chdir \"$ENV{TREE}/links/to-dir\" or die; print getcwd, \" \", Cwd::realpath(q(..)), \"\\n\"; system q(pwd -P)'",
        "perl -ne 'print \"$ARGV: $_\"' $TREE/walk/*/file $TREE/missing $TREE/links/file",
    ]);
}

#[test]
fn git() {
    let scratch = environment::scratch();
    let tree = scratch.path().join("clone");
    let setup = "git init -q . && git config user.email a@b && git config user.name n && \
        mkdir -p src/deep && echo one > src/one && echo two > src/deep/two && ln -s src/one link && \
        seq 3000 > numbers && chmod +x src/one && printf '*.o\\n' > .gitignore && touch x.o && \
        git add . && GIT_AUTHOR_DATE='2001-01-01T00:00Z' GIT_COMMITTER_DATE='2001-01-01T00:00Z' git commit -qm first && \
        echo more >> src/one && git commit -qam second --date=2002-01-01T00:00Z && git gc -q && git branch other && \
        echo changed >> numbers && echo untracked > untracked && sleep 1.1 && git status > /dev/null";
    fs::create_dir(&tree).unwrap();
    let made = Command::new("bash")
        .args(["-c", setup])
        .current_dir(&tree)
        .status()
        .unwrap();
    assert!(made.success());
    Bench::new(&tree).compare(&[
        "git -C $TREE status; git -C $TREE status --porcelain=v2 --ignored",
        "git -C $TREE log --stat --format='%s %an'; cd $TREE/src && git log --oneline -- deep | wc -l",
        "git -C $TREE grep -n two; git -C $TREE grep -c 1 numbers; git -C $TREE diff; git -C $TREE ls-files -s",
        "git -C $TREE rev-parse --show-toplevel; cd $TREE/src/deep && git rev-parse --show-prefix --show-cdup && git status -s",
        "git -C $TREE fsck 2>&1; git -C $TREE cat-file -p HEAD:src/one; git -C $TREE blame -s src/one | cut -c 10-",
        "git clone -q $TREE $OUT/copy && git -C $OUT/copy log --oneline | wc -l && diff -r $TREE/src $OUT/copy/src && echo same",
        "git -C $TREE diff-files --quiet; echo $?; git -C $TREE describe --all; git -C $TREE show other:.gitignore",
    ]);
}

#[test]
fn compilers() {
    let scratch = environment::scratch();
    let tree = scratch.path().join("project");
    fs::create_dir_all(tree.join("include/sub")).unwrap();
    fs::create_dir(tree.join("src")).unwrap();
    let write = |path: &str, text: &str| fs::write(tree.join(path), text).unwrap();
    write(
        "include/one.h",
        "#pragma once\n#include \"sub/two.h\"\n#define ONE 1\n",
    );
    write(
        "include/sub/two.h",
        "#pragma once\n#include <stdio.h>\nstatic inline int two(void) { return 2; }\n",
    );
    write(
        "src/main.c",
        "#include <one.h>\n#include \"near.h\"\nint far(void);\nint main(void) { printf(\"%d\\n\", ONE + two() + NEAR + far()); return 0; }\n",
    );
    write("src/near.h", "#define NEAR 4\n");
    write("src/far.c", "int far(void) { return 8; }\n");
    write("src/wrong.c", "#include <missing.h>\n");
    write("src/warn.c", "int f(int x) { if (x = 1) return 2; }\n");
    write(
        "Makefile",
        "vpath %.c src\n$(OUT)/main: main.c far.c include/one.h\n\tgcc -Iinclude -o $@ $(filter %.c,$^)\nprint:\n\t@echo $(wildcard src/*.c) $(abspath src)\n",
    );
    let library = Command::new("sh")
        .args(["-c", "gcc -c -o far.o src/far.c && ar rc libfar.a far.o && gcc -shared -fPIC -o libfar.so src/far.c"])
        .current_dir(&tree)
        .status();
    assert!(library.unwrap().success());
    Bench::new(&tree).compare(&[
        "gcc -I$TREE/include -o $OUT/main $TREE/src/main.c $TREE/src/far.c && $OUT/main",
        "gcc -I$TREE/include -MM $TREE/src/main.c | tr -s ' \\\\\\n' '\\n'; gcc -I$TREE/include -E -P $TREE/src/main.c | cksum",
        "gcc -I$TREE/include -c $TREE/src/wrong.c; gcc -Wall -c -o $OUT/warn.o $TREE/src/warn.c; gcc -c $TREE/src/none.c",
        "cd $TREE && gcc -Iinclude -S -o - src/main.c | cksum; cd src && gcc -I../include -E main.c | grep near.h",
        "gcc -I$TREE/include -o $OUT/main $TREE/src/main.c -L$TREE -l:libfar.a && $OUT/main",
        "gcc -I$TREE/include -o $OUT/main $TREE/src/main.c -L$TREE -lfar && LD_LIBRARY_PATH=$TREE $OUT/main",
        "nm $TREE/libfar.a; ar t $TREE/libfar.a; objdump -d $TREE/libfar.so | tail -5; readelf -h $TREE/libfar.so; size $TREE/far.o",
        "make -s -C $TREE OUT=$OUT && $OUT/main; cd $TREE && make -s print",
    ]);
}

#[test]
fn node() {
    if !is_installed("node") {
        return;
    }
    let tree = Awkward::new();
    let place = tree.root().join("walk");
    fs::create_dir_all(place.join("node_modules/own")).unwrap();
    fs::write(
        place.join("node_modules/own/index.js"),
        "exports.answer = 42;\n",
    )
    .unwrap();
    fs::write(
        place.join("node_modules/own/package.json"),
        "{\"name\": \"own\", \"version\": \"1.0.0\"}\n",
    )
    .unwrap();
    let main = "const fs = require('fs'), path = require('path'), own = require('own');\n\
        console.log(own.answer, __filename, require.resolve('own'), process.cwd());\n\
        const root = path.join(__dirname, '..');\n\
        console.log(fs.readdirSync(root), fs.readdirSync(__dirname, {withFileTypes: true}).map(e => [e.name, e.isDirectory()]));\n\
        const s = fs.statSync(root + '/sizes/4097'); console.log(s.ino, s.size, s.mtimeMs, s.dev, s.nlink);\n\
        console.log(fs.readFileSync(root + '/sizes/65537').length, fs.realpathSync(root + '/links/chain-5'));\n\
        for (const f of ['/missing', '/sizes/1/x', '/links/loop']) { try { fs.readFileSync(root + f) } catch (e) { console.log(e.code, e.path) } }\n\
        fs.promises.readFile(root + '/links/file', 'utf8').then(t => console.log(t));\n";
    fs::write(place.join("main.js"), main).unwrap();
    fs::write(place.join("module.mjs"), "import { readFileSync } from 'fs'; import own from 'own'; console.log(own.answer, import.meta.url);\n").unwrap();
    Bench::new(&tree.root()).compare(&[
        "node $TREE/walk/main.js",
        "cd $TREE/walk && node main.js && node ./module.mjs",
        "node -e 'require(process.env.TREE + \"/walk/missing\")' 2>&1 | grep -c Cannot",
    ]);
}

#[test]
fn java() {
    if !is_installed("javac") {
        return;
    }
    let scratch = environment::scratch();
    let tree = scratch.path().join("java");
    fs::create_dir_all(tree.join("classes")).unwrap();
    let main = "import java.nio.file.*;\npublic class Main { public static void main(String[] a) throws Exception {\n\
        System.out.println(Helper.answer());\n\
        try (var s = Files.list(Path.of(a[0]))) { s.map(Path::toString).sorted().forEach(System.out::println); }\n\
        System.out.println(Files.readString(Path.of(a[0], \"data\")) + Files.size(Path.of(a[0], \"data\")) + Path.of(a[0]).toRealPath());\n\
        System.out.println(new java.io.File(a[0], \"missing\").exists());\n\
        System.out.println(Main.class.getResource(\"/data\") != null); } }\n";
    fs::write(tree.join("Main.java"), main).unwrap();
    fs::write(
        tree.join("Helper.java"),
        "class Helper { static int answer() { return 42; } }\n",
    )
    .unwrap();
    fs::write(tree.join("data"), "contents").unwrap();
    let compiled = Command::new("sh")
        .args(["-c", "javac -d classes Main.java Helper.java && cp data classes && jar cf all.jar -C classes ."])
        .current_dir(&tree)
        .status();
    assert!(compiled.unwrap().success());
    Bench::new(&tree).compare(&[
        "java -Xshare:auto -XX:TieredStopAtLevel=1 -cp $TREE/classes Main $TREE",
        "java -XX:TieredStopAtLevel=1 -cp $TREE/all.jar Main $TREE; jar tf $TREE/all.jar",
    ]);
}

#[test]
fn python_packages() {
    let import = "PYTHONPATH=$TREE $PYTHON -c \"$CODE\"; \
                  PYTHONPATH=$TREE $PYTHON -c 'import numpy; print(numpy.core_is_missing)'";
    let code = python::IMPORT.replace('"', "\\\"");
    let import = import.replace("$CODE", &code);
    let memory_map = "PYTHONPATH=$TREE $PYTHON -c '
import numpy, glob, os
numpy.save(os.environ[\"OUT\"] + \"/a.npy\", numpy.arange(1000))
print(numpy.load(os.environ[\"OUT\"] + \"/a.npy\", mmap_mode=\"r\").sum())
path = sorted(glob.glob(os.environ[\"TREE\"] + \"/numpy/**/*.npz\", recursive=True) + glob.glob(os.environ[\"TREE\"] + \"/numpy/**/*.py\", recursive=True))
print(len(path), path[0])
print(numpy.memmap(path[-1], dtype=numpy.uint8, mode=\"r\").sum())
'";
    let many = "PYTHONPATH=$TREE $PYTHON -c '
import importlib.metadata, importlib.resources, pathlib, pkgutil, sys
print([(d.metadata[\"Name\"], d.version) for d in sorted(importlib.metadata.distributions(path=[sys.path[1]]), key=str)] != [])
print(importlib.metadata.version(\"numpy\"), importlib.resources.files(\"numpy\"))
print(len(list(pkgutil.iter_modules([sys.path[1]]))), sum(1 for _ in pathlib.Path(sys.path[1]).rglob(\"*.py\")))
import scipy.linalg, scipy.fft, numpy.linalg
print(scipy.linalg.det(numpy.eye(3)), scipy.fft.fft([1, 2]).tolist())
'";
    Bench::new(python::packages()).compare(&[&import, memory_map, many]);
}

#[test]
fn python_files_and_processes() {
    on_awkward_tree(&[
        "$PYTHON -c '
import os
t = os.environ[\"TREE\"].encode()
for d, ds, fs in os.walk(t):
    print(d[len(t):][-60:], ds[:50], fs[:50])
'",
        "$PYTHON -c '
import os
t = os.environ[\"TREE\"]
for e in sorted(os.scandir(t + \"/links\"), key=lambda e: e.name):
    s = e.stat(follow_symlinks=False)
    print(e.name.encode(\"utf8\", \"backslashreplace\"), e.is_dir(), e.is_file(), e.is_symlink(), e.inode() == s.st_ino, s.st_ino, s.st_nlink)
print(os.path.samefile(t + \"/links/file\", t + \"/links/hard\"), os.path.realpath(t + \"/links/to-sub/..\"), os.path.ismount(t))
for p in [\"links/loop\", \"missing\", \"sizes/1/x\", \"permissions/file-0000\", \"sizes\", \"\"]:
    try: print(len(open(t + \"/\" + p, \"rb\").read()))
    except OSError as e: print(e)
'",
        "$PYTHON -c '
import subprocess, os, sys
t = os.environ[\"TREE\"]
print(subprocess.run([\"pwd\"], cwd=t + \"/walk\", capture_output=True), os.getcwd() == os.environ[\"OUT\"])
print(subprocess.run([t + \"/programs/a-script\", \"x\"], capture_output=True, cwd=t))
print(subprocess.run([\"./programs/a-script\", \"x\"], capture_output=True, cwd=t))
print(subprocess.run(\"cat file; pwd\", shell=True, capture_output=True, cwd=t + \"/links/to-dir\"))
print(subprocess.run([sys.executable, \"-c\", \"import os; print(os.getcwd(), os.listdir())\"], capture_output=True, cwd=t + \"/walk/alpha\"))
for p in [\"/missing\", \"/sizes/1\", \"/permissions/dir-0000/sub\"]:
    try: print(subprocess.run([\"pwd\"], cwd=t + p, capture_output=True))
    except OSError as e: print(e)
print(os.getcwd() == os.environ[\"OUT\"])
'",
        "$PYTHON -c '
import shutil, os, filecmp, glob, pathlib, tarfile, hashlib
t, o = os.environ[\"TREE\"], os.environ[\"OUT\"]
shutil.copytree(t + \"/walk\", o + \"/walk\", symlinks=True); shutil.copy2(t + \"/sizes/0\", o)
c = filecmp.dircmp(t + \"/walk\", o + \"/walk\"); print(c.left_only, c.right_only, c.diff_files)
print(os.stat(o + \"/0\").st_mtime_ns == os.stat(t + \"/sizes/0\").st_mtime_ns)
print(sorted(glob.glob(t + \"/walk/**/file\", recursive=True)))
print(sorted(map(str, pathlib.Path(t).glob(\"*/*-*\")))[:20])
os.chdir(t + \"/links/dir\"); print(os.getcwd(), os.listdir(\"..\") == os.listdir(t + \"/links\"), open(\"file\").read())
fd = os.open(t + \"/walk\", os.O_RDONLY); os.fchdir(fd); print(os.getcwd(), sorted(os.listdir(fd)), os.stat(\"alpha\", dir_fd=fd).st_ino == os.stat(t + \"/walk/alpha\").st_ino)
with open(t + \"/sizes/1048579\", \"rb\") as f: print(hashlib.file_digest(f, \"md5\").hexdigest(), f.seek(0, 2))
'",
    ]);
}

#[test]
fn python_environments() {
    // A whole interpreter on the tree: venvs made from it, programs installed in it.
    let scratch = environment::scratch();
    let tree = scratch.path().join("prefix");
    let code = "import sys; print(sys.base_prefix)";
    let prefix = Outcome::of(Command::new(python::interpreter()).args(["-c", code])).text();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(prefix.trim())
        .arg(&tree)
        .status();
    assert!(copied.unwrap().success());
    let venv = Command::new(tree.join("bin/python3"))
        .args(["-m", "venv", "--without-pip"])
        .arg(tree.join("venv"))
        .status();
    assert!(venv.unwrap().success());
    let tool = tree.join("venv/bin/tool");
    let text = "#!/usr/bin/env python3\nimport sys; print(sys.prefix, sys.argv[1:])\n";
    fs::write(&tool, text).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    Bench::new(&tree).compare(&[
        "$TREE/bin/python3 -c 'import sys, os, json, ssl, sqlite3, ctypes; print(sys.executable, sys.prefix, os.__file__, sys.path)'",
        "$TREE/venv/bin/python -c 'import sys, site; print(sys.executable, sys.prefix, sys.base_prefix, site.getsitepackages())'",
        "PATH=$TREE/venv/bin:$PATH tool a b; source $TREE/venv/bin/activate; which python; python -c 'import sys; print(sys.prefix)'; echo $VIRTUAL_ENV",
        "$TREE/bin/python3 -m venv --without-pip $OUT/made && $OUT/made/bin/python -c 'import sys; print(sys.prefix, sys.base_prefix)'; cat $OUT/made/pyvenv.cfg; find $OUT/made | sort",
        "cd $TREE/lib && ../bin/python3 -m timeit -n 1 -r 1 pass >/dev/null && ../bin/python3 -m sysconfig | sed -n 1,20p",
        "$TREE/bin/python3 -c 'import multiprocessing as m; p = m.get_context(\"spawn\").Pool(2); print(p.map(abs, [-1, -2])); p.close(); p.join()'",
        "$TREE/bin/python3 $TREE/missing.py; echo $?; $TREE/bin/missing; echo $?",
    ]);
}
