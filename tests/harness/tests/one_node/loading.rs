//! Programs and libraries on the slow origin: what the kernel opens to start a program, and what the
//! dynamic loader opens for it, are the store's files once they are there.

use copper_tests::compare::Outcome;
use copper_tests::session::{Session, Way};
use copper_tests::{environment, origin, python};
use slow_origin::{Counts, Load, SlowOrigin};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree on a slow origin, and sessions that cover it.
struct Mounted {
    /// Declared first, so that the helpers are gone before the origin is.
    session: Session,
    origin: SlowOrigin,
    scratch: tempfile::TempDir,
}

impl Mounted {
    /// Lets `build` make a tree that will be seen at another place, and mounts it there.
    fn new(build: impl FnOnce(&Path, &Path), prepare: fn(Session) -> Session) -> Self {
        let scratch = environment::scratch();
        let (source, mount) = (scratch.path().join("source"), scratch.path().join("mount"));
        fs::create_dir(&source).unwrap();
        build(&source, &mount);
        let origin = origin::slow(&source, &mount, &Load::none());
        let session = prepare(Session::prepare(&[&mount])).started();
        Self {
            session,
            origin,
            scratch,
        }
    }

    fn mount(&self) -> &Path {
        self.origin.mount()
    }

    /// Runs a shell script, which finds the tree at `$TREE`.
    fn run(&self, way: Way, script: &str) -> Outcome {
        let mut command = self.session.command(way, "bash");
        command
            .args(["-c", script])
            .env("TREE", self.session.seen(way, self.mount()))
            .current_dir(self.scratch.path());
        python::settle(&mut command);
        Outcome::of(&mut command).without_view(&self.session.view())
    }

    /// What reached the origin when the script ran the third time, saying what it says plain.
    fn counts_when_warm(&self, way: Way, script: &str) -> Counts {
        let plain = self.run(Way::Plain, script);
        assert!(plain.status.success(), "{plain:?}");
        for state in ["cold", "warm"] {
            self.run(way, script)
                .must_equal(&plain, &format!("the {state} run of {script}"));
        }
        origin::settled(|| self.origin.counts());
        self.origin.reset().unwrap();
        self.run(way, script).must_equal(&plain, "a further run");
        self.origin.counts().unwrap()
    }

    fn nothing_escapes_warm(&self, way: Way, script: &str) {
        let counts = self.counts_when_warm(way, script);
        assert_eq!(
            counts.total(),
            0,
            "{script}\nreached the origin:\n{}",
            origin::most_touched(&counts)
        );
    }
}

fn compile(to: &Path, text: &str, arguments: &[&str]) {
    let source = to.with_extension("c");
    fs::write(&source, text).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.arg("-o").arg(to).arg(&source).args(arguments);
    assert!(gcc.status().unwrap().success(), "gcc {}", to.display());
    fs::remove_file(source).unwrap();
}

/// How many libraries the closure has.
const LIBRARIES: usize = 200;

/// Builds libraries in eight directories, each of which needs up to two others, and all of which
/// name the directories by absolute paths; and programs that open the first, or are linked with it.
fn build_closure(source: &Path, mount: &Path) {
    const DIRECTORIES: usize = 8;
    let directory = |number: usize| format!("lib{}", number % DIRECTORIES);
    let paths: Vec<String> = (0..DIRECTORIES)
        .map(|number| {
            fs::create_dir(source.join(directory(number))).unwrap();
            mount.join(directory(number)).display().to_string()
        })
        .collect();
    // Both kinds of search paths.
    let rpath = |number: usize| {
        let tags = ["--enable-new-dtags", "--disable-new-dtags"][number % 2];
        format!("-Wl,{tags},-rpath,{}", paths.join(":"))
    };
    for number in (0..LIBRARIES).rev() {
        let needs = [2 * number + 1, 2 * number + 2];
        let needs = needs.iter().filter(|&&other| other < LIBRARIES);
        let mut text = String::new();
        let mut sum = "1".to_owned();
        let mut arguments = vec!["-shared".to_owned(), "-fPIC".to_owned()];
        arguments.push(format!("-Wl,-soname,libpart{number}.so.1"));
        for other in needs {
            text += &format!("int part{other}(void);\n");
            sum += &format!(" + part{other}()");
            let place = source.join(directory(*other));
            arguments.push(
                place
                    .join(format!("libpart{other}.so.1"))
                    .display()
                    .to_string(),
            );
        }
        text += &format!("int part{number}(void) {{ return {sum}; }}\n");
        arguments.extend([rpath(number), "-lm".to_owned()]);
        let place = source.join(directory(number));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let file = place.join(format!("libpart{number}.so.1.0"));
        compile(&file, &text, &arguments);
        symlink(
            file.file_name().unwrap(),
            place.join(format!("libpart{number}.so.1")),
        )
        .unwrap();
    }
    let first = source.join("lib0/libpart0.so.1");
    let linked = "#include <stdio.h>\nint part0(void);\n\
                  int main(void) { printf(\"%d\\n\", part0()); return 0; }";
    let aside = format!("-Wl,-rpath-link,{}", source.join("lib0").display());
    let arguments = [
        first.to_str().unwrap(),
        &rpath(0),
        &aside,
        "-Wl,--allow-shlib-undefined",
    ];
    compile(&source.join("linked"), linked, &arguments);
    build_opener(&source.parent().unwrap().join("opens"));
}

/// A program that opens a library and calls it.
fn build_opener(place: &Path) {
    let opens = "#include <dlfcn.h>\n#include <stdio.h>\nint main(int count, char **arguments) {\n\
                 void *first = dlopen(arguments[count - 1], RTLD_NOW);\n\
                 if (!first) return puts(dlerror()), 1;\n\
                 printf(\"%d\\n\", ((int (*)(void))dlsym(first, \"part0\"))()); return 0; }";
    compile(place, opens, &["-ldl"]);
}

#[test]
fn a_large_closure_along_absolute_search_paths_escapes_nothing_warm() {
    let tree = Mounted::new(build_closure, Session::audited);
    tree.nothing_escapes_warm(
        Way::Covered,
        "./opens $TREE/lib0/libpart0.so.1; $TREE/linked",
    );
}

/// Copies the interpreter with its library and its modules to `prefix`, and says what it is called.
/// Packages beside the standard library are not needed, and many.
fn copy_interpreter(prefix: &Path) -> String {
    let code = "import sys; print(sys.base_prefix); print('python%d.%d' % sys.version_info[:2])";
    let said = Outcome::of(Command::new(python::interpreter()).args(["-c", code])).text();
    let (from, version) = said.trim().split_once('\n').unwrap();
    let from = Path::new(from);
    let (bin, lib) = (prefix.join("bin"), prefix.join("lib"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&lib).unwrap();
    fs::copy(python::interpreter(), bin.join(version)).unwrap();
    symlink(version, bin.join("python3")).unwrap();
    let copied = Command::new("rsync")
        .args([
            "-a",
            "--exclude=site-packages",
            "--exclude=test",
            "--exclude=__pycache__",
        ])
        .arg(from.join("lib").join(version))
        .arg(&lib)
        .status();
    assert!(copied.unwrap().success());
    for entry in fs::read_dir(from.join("lib")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("libpython") {
            fs::copy(entry.path(), lib.join(entry.file_name())).unwrap();
        }
    }
    version.to_owned()
}

/// Writes an executable script.
fn write_script(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A venv whose interpreter lies on the origin as well, as in an installation of one's own.
fn build_environment(source: &Path, mount: &Path) {
    let version = &copy_interpreter(&source.join("base"));
    let (bin, lib) = (source.join("base/bin"), source.join("base/lib"));
    let (from, to) = (source.display().to_string(), mount.display().to_string());
    let made = Command::new(bin.join("python3"))
        .env("LD_LIBRARY_PATH", &lib)
        .args(["-m", "venv", "--without-pip"])
        .arg(source.join("venv"))
        .status();
    assert!(made.unwrap().success());
    // It will be seen at another place than it was made at.
    for file in ["pyvenv.cfg", "bin/activate"] {
        let file = source.join("venv").join(file);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace(&from, &to)).unwrap();
    }
    for name in ["python", "python3", version] {
        let link = source.join("venv/bin").join(name);
        fs::remove_file(&link).unwrap();
        symlink(mount.join("base/bin").join(version), link).unwrap();
    }
    let packages = source.join("venv/lib").join(version).join("site-packages");
    fs::create_dir(packages.join("own")).unwrap();
    fs::write(packages.join("own/__init__.py"), "answer = 42\n").unwrap();
    fs::write(source.join("app.py"), APPLICATION).unwrap();
    let tool = source.join("venv/bin/tool");
    let line = format!("#!{}/venv/bin/python3 -B\n", mount.display());
    write_script(&tool, &(line + APPLICATION));
}

/// Says where it is, in all ways in which programs find out.
const APPLICATION: &str = "\
import ctypes, email.mime.text, json, os, sqlite3, subprocess, sys, sysconfig
import own
print(own.answer, own.__file__, json.__file__)
print(sys.executable, sys.prefix, sys.base_prefix, sys.argv, sys.flags.dont_write_bytecode)
print(os.path.realpath(sys.executable), os.readlink('/proc/self/exe'), os.path.realpath('/proc/self/exe'))
print(open('/proc/self/comm').read(), sysconfig.get_path('purelib'))
print(sorted(name for name in os.environ if not name.startswith(('LD_', 'COPPER', 'GLIBC_'))))
code = 'import sys; print(sys.executable, sys.prefix, sys.orig_argv)'
print(subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout)
print(subprocess.run(['tool', '--version'] if sys.argv[1:] == ['again'] else ['true'], capture_output=True).returncode)
";

/// The interpreter finds its own library by `LD_LIBRARY_PATH`, as modules of a site set it.
const ACTIVATED: &str = "export LD_LIBRARY_PATH=$TREE/base/lib; source $TREE/venv/bin/activate && \
                         python3 $TREE/app.py again && tool argument && cd $TREE/venv && bin/tool x";

#[test]
fn an_activated_environment_escapes_nothing_warm() {
    let tree = Mounted::new(build_environment, Session::audited);
    // The working directory is the origin's own, and changing into it asks the kernel.
    let (stays, _) = ACTIVATED.rsplit_once(" && cd").unwrap();
    tree.nothing_escapes_warm(Way::Covered, stays);
    let plain = tree.run(Way::Plain, ACTIVATED);
    tree.run(Way::Covered, ACTIVATED)
        .must_equal(&plain, "the run from within");
}

#[test]
fn an_interpreter_in_the_view_comes_from_the_store() {
    let tree = Mounted::new(build_environment, Session::audited);
    let script = "export LD_LIBRARY_PATH=$TREE/base/lib PATH=$TREE/venv/bin:$PATH; \
                  python3 $TREE/app.py; $TREE/base/bin/python3 -c 'import sys; print(sys.prefix)'";
    tree.nothing_escapes_warm(Way::View, script);
}

/// An environment as conda lays them out: all files are hard links to those of unpacked packages, each
/// environment has an interpreter of its own that knows its prefix by its place, and activating one
/// means to evaluate what a program of the base environment prints, and to source what packages have
/// left in `etc/conda/activate.d`.
fn build_conda(source: &Path, mount: &Path) {
    let package = source.join("pkgs/python");
    let version = copy_interpreter(&package);
    fs::create_dir(source.join("envs")).unwrap();
    for prefix in [source.join("base"), source.join("envs/work")] {
        let linked = Command::new("cp")
            .arg("-al")
            .args([&package, &prefix])
            .status();
        assert!(linked.unwrap().success());
        for directory in [
            "conda-meta",
            "etc/conda/activate.d",
            "etc/conda/deactivate.d",
        ] {
            fs::create_dir_all(prefix.join(directory)).unwrap();
        }
        let packages = prefix.join("lib").join(&version).join("site-packages/own");
        fs::create_dir_all(&packages).unwrap();
        fs::write(packages.join("__init__.py"), "answer = 42\n").unwrap();
        fs::write(prefix.join("conda-meta/history"), "").unwrap();
        let record = format!("{{\"name\": \"python\", \"version\": \"{version}\"}}\n");
        fs::write(prefix.join("conda-meta/python-0.json"), record).unwrap();
    }
    fs::write(source.join("base/bin/conda"), CONDA_PROGRAM).unwrap();
    fs::write(source.join("base/bin/activate"), CONDA_ACTIVATE).unwrap();
    let work = source.join("envs/work");
    let hook =
        "export OWN_DATA=\"$CONDA_PREFIX/share/own\" LD_LIBRARY_PATH=\"$CONDA_PREFIX/lib\"\n";
    fs::write(work.join("etc/conda/activate.d/own.sh"), hook).unwrap();
    fs::write(
        work.join("etc/conda/deactivate.d/own.sh"),
        "unset OWN_DATA\n",
    )
    .unwrap();
    // Prefixes are written into scripts when they are installed.
    let line = format!("#!{}/envs/work/bin/python3 -B\n", mount.display());
    write_script(&work.join("bin/tool"), &(line + APPLICATION));
    fs::write(source.join("app.py"), APPLICATION).unwrap();
}

/// Prints the shell's commands for a change of the environment.
const CONDA_PROGRAM: &str = "\
import glob, json, os, sys
base = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
command, name = sys.argv[1], sys.argv[2] if sys.argv[2:] else None
old = os.environ.get('CONDA_PREFIX')
paths = os.environ['PATH'].split(os.pathsep)
if old:
    for script in sorted(glob.glob(old + '/etc/conda/deactivate.d/*.sh'), reverse=True):
        print('. %r' % script)
    paths = [path for path in paths if path != old + '/bin']
if command == 'activate':
    prefix = os.path.join(os.path.dirname(base), 'envs', name)
    if not os.path.isdir(prefix + '/conda-meta'):
        sys.exit('EnvironmentNameNotFound: ' + name)
    for record in sorted(glob.glob(prefix + '/conda-meta/*.json')):
        with open(record) as file:
            print('# %(name)s %(version)s' % json.load(file))
    print('export PATH=%r' % os.pathsep.join([prefix + '/bin', *paths]))
    print('export CONDA_PREFIX=%r CONDA_DEFAULT_ENV=%r CONDA_SHLVL=1' % (prefix, name))
    for script in sorted(glob.glob(prefix + '/etc/conda/activate.d/*.sh')):
        print('. %r' % script)
else:
    print('unset CONDA_PREFIX CONDA_DEFAULT_ENV; export CONDA_SHLVL=0 PATH=%r' % os.pathsep.join(paths))
";

/// What is sourced, with the name of an environment.
const CONDA_ACTIVATE: &str = "\
_CONDA_ROOT=${BASH_SOURCE[0]%/bin/activate}
conda() {
  local said
  said=$(\"$_CONDA_ROOT/bin/python3\" \"$_CONDA_ROOT/bin/conda\" \"$@\") || return
  eval \"$said\"
  hash -r
}
conda activate \"$@\"
";

#[test]
fn a_conda_environment_escapes_nothing_warm() {
    let tree = Mounted::new(build_conda, Session::audited);
    let activated = "export LD_LIBRARY_PATH=$TREE/base/lib; source $TREE/base/bin/activate work && \
                     echo $CONDA_DEFAULT_ENV $CONDA_PREFIX $OWN_DATA && type -p python3 && \
                     python3 $TREE/app.py && stat -c '%h %i' $CONDA_PREFIX/bin/conda $TREE/app.py; \
                     conda deactivate; echo ${CONDA_PREFIX-none} ${OWN_DATA-none}; conda activate missing; echo $?";
    tree.nothing_escapes_warm(
        Way::Covered,
        &format!("{activated}; $TREE/envs/work/bin/tool x"),
    );
    // The script names its interpreter by the origin's path.
    tree.nothing_escapes_warm(Way::View, activated);
}

/// Without the audit library the kernel still opens the store's file of a program.
#[test]
fn without_the_audit_library_only_the_loader_escapes() {
    let tree = Mounted::new(build_environment, |session| session);
    let (stays, _) = ACTIVATED.rsplit_once(" && cd").unwrap();
    let counts = tree.counts_when_warm(Way::Covered, stays);
    eprintln!("{}", origin::most_touched(&counts));
    let by_loader = |path: &str| {
        let along: [&str; 3] = ["", "base", "base/lib"];
        along.contains(&path) || path.starts_with("base/lib/lib") || is_variant(path)
    };
    let escaped: Vec<_> = counts
        .paths
        .keys()
        .filter(|path| !by_loader(path))
        .collect();
    assert!(escaped.is_empty(), "reached the origin: {escaped:#?}");
}

/// Where the loader looks for variants of a library for certain processors.
fn is_variant(path: &str) -> bool {
    let below = path.strip_prefix("base/lib/").unwrap_or_default();
    let first = below.split('/').next().unwrap_or_default();
    [
        "glibc-hwcaps",
        "tls",
        "haswell",
        "avx512_1",
        "xeon_phi",
        "x86_64",
    ]
    .contains(&first)
}

#[test]
fn copper_run_starts_covered_programs_from_the_store() {
    let tree = Mounted::new(build_closure, |session| session);
    let program = tree.mount().join("linked");
    let run = |audit: &str| {
        let mut command = tree.session.copper();
        command.args(["run", audit, "--"]).arg(&program);
        Outcome::of(&mut command)
    };
    let plain = Outcome::of(&mut Command::new(&program));
    assert_eq!(plain.text(), format!("{LIBRARIES}\n"));
    for _ in 0..2 {
        run("--audit=on").must_equal(&plain, "copper run --audit=on");
    }
    tree.origin.reset().unwrap();
    run("--audit=on").must_equal(&plain, "copper run --audit=on");
    let counts = tree.origin.counts().unwrap();
    assert_eq!(counts.total(), 0, "{}", origin::most_touched(&counts));
    run("--audit=off").must_equal(&plain, "copper run --audit=off");
    let missing = Outcome::of(
        tree.session
            .copper()
            .args(["run", "--", "/no/such/program"]),
    );
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
}

/// What a library needs is not asked for again, unless something was changed or evicted meanwhile.
#[test]
fn what_a_library_needs_is_looked_for_again_after_changes() {
    let scratch = environment::scratch();
    let (tree, made) = (scratch.path().join("tree"), scratch.path().join("made"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&made).unwrap();
    let shared = ["-shared", "-fPIC", "-Wl,-soname,libinner.so"];
    for number in 1..=3 {
        let text = format!("int inner(void) {{ return {number}; }}");
        compile(&made.join(format!("libinner{number}.so")), &text, &shared);
    }
    let inner = made.join("libinner1.so").display().to_string();
    let outer = "int inner(void); int part0(void) { return inner(); }";
    let along = "-Wl,-rpath,$ORIGIN/first:$ORIGIN";
    compile(
        &tree.join("libouter.so"),
        outer,
        &["-shared", "-fPIC", &inner, along],
    );
    build_opener(&made.join("opens"));
    let script = "load() { $MADE/opens $TREE/libouter.so; }
        put() { cp $MADE/libinner$1.so $2.new && mv $2.new $2; }
        put 1 $TREE/libinner.so; load; load
        put 2 $TREE/libinner.so; load; load
        mkdir $TREE/first; load; put 3 $TREE/first/libinner.so; load; load
        cp $MADE/libinner1.so $TREE/first/libinner.so; load; load
        rm $TREE/first/libinner.so; load; rmdir $TREE/first; load
        mv $TREE/libinner.so $TREE/aside; load | grep -c inner; mv $TREE/aside $TREE/libinner.so; load
        rm $TREE/libinner.so";
    for prepare in [|session| session, Session::audited] {
        let prepared: Session = Session::prepare(&[&tree]);
        let session = (prepare as fn(Session) -> Session)(prepared).started();
        let run = |way| {
            let mut command = session.command(way, "bash");
            command
                .args(["-c", script])
                .env("TREE", &tree)
                .env("MADE", &made);
            Outcome::of(&mut command)
        };
        let plain = run(Way::Plain);
        assert_eq!(plain.text(), "1\n1\n2\n2\n2\n3\n3\n1\n1\n2\n2\n1\n2\n");
        for state in ["cold", "warm"] {
            run(Way::Covered).must_equal(&plain, &format!("the {state} run"));
        }
    }
}

/// What `copper env` prints is what the probe has found; `copper doctor` says it.
#[test]
fn the_audit_library_is_switched_on_where_it_costs_nothing() {
    let session = Session::start(&[]);
    let said = |arguments: &[&str]| Outcome::of(session.copper().args(arguments)).text();
    let library = session.audit_library().display().to_string();
    let on = said(&["env", "--audit=on"]);
    assert!(
        on.contains(&format!("export LD_AUDIT='{library}'\n")),
        "{on}"
    );
    assert!(
        on.contains("export GLIBC_TUNABLES='glibc.rtld.optional_static_tls="),
        "{on}"
    );
    let off = said(&["env", "--audit=off"]);
    assert!(
        !off.contains("LD_AUDIT") && off.contains("LD_PRELOAD"),
        "{off}"
    );
    let doctor = said(&["doctor", "--json"]);
    let doctor: serde_json::Value = serde_json::from_str(&doctor).unwrap();
    let findings = doctor["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|finding| finding["check"] == "audit library");
    let is_cheap = finding.unwrap()["state"] == "ok";
    assert_eq!(said(&["env"]).contains("LD_AUDIT"), is_cheap, "{finding:?}");
    // What was measured is kept, and gone with the helper.
    assert!(session.runtime_directory().join("audit").exists());
}

/// Libraries that need more thread-local memory at fixed places than is set aside under an audit
/// library would keep the program from starting.
#[test]
fn a_program_with_much_thread_local_memory_starts_under_the_audit_library() {
    let build = |source: &Path, mount: &Path| {
        let large = "__thread char large[100000]; int part0(void) { large[5] = 1; return large[5] + large[6]; }";
        let arguments = [
            "-shared",
            "-fPIC",
            "-ftls-model=initial-exec",
            "-Wl,-soname,liblarge.so",
        ];
        compile(&source.join("liblarge.so"), large, &arguments);
        let main = "#include <stdio.h>\n#include <stdlib.h>\nint part0(void);\n\
                    int main(int count, char **arguments) { printf(\"%d %d %s %s\\n\", part0(), count, arguments[0], getenv(\"TREE\")); return 0; }";
        let rpath = format!("-Wl,-rpath,{}", mount.display());
        let library = source.join("liblarge.so");
        compile(
            &source.join("large"),
            main,
            &[library.to_str().unwrap(), &rpath],
        );
    };
    let tree = Mounted::new(build, Session::audited);
    let script = "$TREE/large a b; cd $TREE && ./large; (exec -a other ./large)";
    let plain = tree.run(Way::Plain, script);
    assert!(plain.status.success(), "{plain:?}");
    for state in ["cold", "warm"] {
        tree.run(Way::Covered, script)
            .must_equal(&plain, &format!("the {state} run"));
    }
}

/// An audit library that itself needed a library would have it searched for, and loaded, in every
/// program.
#[test]
fn the_audit_library_needs_nothing() {
    let library = environment::built("libcopper_audit.so");
    let dump = |option: &str| Outcome::of(Command::new("readelf").arg(option).arg(&library)).text();
    let dynamic = dump("-dW");
    assert!(
        dynamic.contains("INIT_ARRAY") && !dynamic.contains("NEEDED"),
        "{dynamic}"
    );
    let symbols = dump("--dyn-syms");
    assert!(
        symbols.contains("la_objsearch") && !symbols.contains("GLIBC"),
        "{symbols}"
    );
    assert!(
        !symbols.contains("la_symbind") && !symbols.contains("pltenter"),
        "{symbols}"
    );
    let segments = dump("-lW");
    assert!(
        segments.contains("LOAD") && !segments.contains("TLS"),
        "{segments}"
    );
}

/// A program that is of another kind is started by its own name.
#[test]
fn programs_without_the_shim_are_started_by_their_own_names() {
    let build = |source: &Path, _: &Path| {
        let main = "#include <stdio.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
                    int main(void) { char name[4096]; long length = syscall(SYS_readlink, \"/proc/self/exe\", name, sizeof name);\n\
                    return printf(\"%.*s\\n\", (int)length, name) < 0; }";
        compile(&source.join("static"), main, &["-static"]);
    };
    let tree = Mounted::new(build, |session| session);
    let static_name: PathBuf = tree.mount().join("static");
    for script in [
        "$TREE/static",
        "exec -a x $TREE/static",
        "COPPER_DISABLE=1 bash -c $TREE/static",
    ] {
        for _ in 0..2 {
            let said = tree.run(Way::Covered, script).text();
            assert_eq!(said.trim(), static_name.to_str().unwrap(), "{script}");
        }
    }
}
