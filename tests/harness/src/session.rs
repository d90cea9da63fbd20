//! A helper of a test's own, and the three ways to run a program: plain, in the view, covered.

use crate::environment;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How a program reaches the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Without Copper.
    Plain,
    /// Through the view: the tree's path is prefixed.
    View,
    /// Below a covered prefix: the path stays as it is.
    Covered,
}

/// A running helper with a runtime directory and a view of its own, stopped when dropped.
#[derive(Debug)]
pub struct Session {
    scratch: tempfile::TempDir,
    covered: Vec<PathBuf>,
    user: Option<u32>,
    store: Option<PathBuf>,
    audited: bool,
    helper: Option<u32>,
}

impl Session {
    /// Starts a helper that covers `covered` besides its view.
    ///
    /// # Panics
    /// When the helper does not start.
    pub fn start(covered: &[&Path]) -> Self {
        Self::prepare(covered).started()
    }

    /// As [`Session::start`], without starting the helper yet.
    ///
    /// # Panics
    /// When its directories cannot be made.
    pub fn prepare(covered: &[&Path]) -> Self {
        let scratch = environment::scratch();
        let bin = scratch.path().join("bin");
        // Another user may not be able to reach the build directory.
        std::fs::create_dir(&bin).expect("scratch directory is new");
        // Copied by another process: a descriptor of ours, open for writing, could be inherited by
        // a child that another thread starts, and keep the program from being executed.
        let copied = Command::new("cp")
            .args(["copper", "libcopper.so"].map(environment::built))
            .arg(&bin)
            .status();
        let audit = Command::new("cp")
            .arg(environment::built("libcopper_audit.so"))
            .arg(bin.join("libcopper-audit.so"))
            .status();
        assert!(
            [copied, audit]
                .iter()
                .all(|copied| copied.as_ref().is_ok_and(|status| status.success())),
            "copy of the built files"
        );
        let covered = covered.iter().map(|path| path.to_path_buf()).collect();
        Self {
            scratch,
            covered,
            user: None,
            store: None,
            // To try all tests once under it.
            audited: std::env::var_os("COPPER_TEST_AUDIT").is_some(),
            helper: None,
        }
    }

    /// Everything of this session runs as the user `uid`; needs root.
    #[must_use]
    pub fn as_user(mut self, uid: u32) -> Self {
        std::os::unix::fs::chown(self.scratch.path(), Some(uid), Some(uid))
            .expect("only root can test as another user");
        self.user = Some(uid);
        self
    }

    /// The helper keeps its store in `directory`.
    #[must_use]
    pub fn with_store(mut self, directory: &Path) -> Self {
        self.store = Some(directory.to_owned());
        self
    }

    /// Programs run under the audit library as well.
    #[must_use]
    pub fn audited(mut self) -> Self {
        self.audited = true;
        self
    }

    /// Starts the helper.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn started(mut self) -> Self {
        self.try_start().unwrap_or_else(|error| panic!("{error:#}"));
        self
    }

    /// Starts the helper, or says why not.
    ///
    /// # Errors
    /// What `copper start` printed, when it failed.
    pub fn try_start(&mut self) -> Result<()> {
        let mut start = self.copper();
        start.arg("start");
        for covered in &self.covered {
            start.arg("--cover").arg(covered);
        }
        if let Some(store) = &self.store {
            start.arg("--store").arg(store);
        }
        // Into a file, not a pipe: the helper may keep what it inherits.
        let log = self.scratch.path().join("start.log");
        let output = std::fs::File::create(&log)?;
        start.stdout(output.try_clone()?).stderr(output);
        let status = start.status().context("cannot run copper")?;
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        ensure!(status.success(), "copper start: {status}: {said}");
        self.helper = Some(self.status()?["pid"].as_u64().context("no pid in status")? as u32);
        Ok(())
    }

    /// The directory that holds this session's runtime directory and view.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// The view's directory.
    pub fn view(&self) -> PathBuf {
        self.scratch.path().join("view")
    }

    /// The directory through which shim and helper find each other.
    pub fn runtime_directory(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    /// The process id of the helper that was started last.
    ///
    /// # Panics
    /// When none was started.
    pub fn helper(&self) -> u32 {
        self.helper.expect("the helper was started")
    }

    /// The shim.
    pub fn shim(&self) -> PathBuf {
        self.scratch.path().join("bin/libcopper.so")
    }

    /// The audit library.
    pub fn audit_library(&self) -> PathBuf {
        self.scratch.path().join("bin/libcopper-audit.so")
    }

    /// The `copper` command in this session's environment.
    pub fn copper(&self) -> Command {
        let mut command = self.plain(self.scratch.path().join("bin/copper"));
        self.set_environment(&mut command);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        command.env("COPPER_RUNTIME_DIR", self.runtime_directory());
        command.env("COPPER_VIEW", self.view());
    }

    fn plain(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(uid) = self.user else {
            let mut command = Command::new(program);
            forget_copper(&mut command);
            return command;
        };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={uid}"));
        command.arg("--clear-groups").arg("--").arg(program);
        forget_copper(&mut command);
        command
    }

    /// A command that runs `program` the given way. Its arguments are up to the caller: in the
    /// view, paths go through [`Session::seen`].
    pub fn command(&self, way: Way, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.plain(program);
        if way != Way::Plain {
            self.set_environment(&mut command);
            command.env("LD_PRELOAD", self.shim());
        }
        if way != Way::Plain && self.audited {
            command.env("LD_AUDIT", self.audit_library());
            command.env("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=4096");
        }
        if way == Way::Covered {
            let covered: Vec<_> = self.covered.iter().map(|path| path.as_os_str()).collect();
            command.env("COPPER_PATHS", covered.join(OsStr::new(":")));
        }
        command
    }

    /// The path by which a program that runs this way reaches `path`.
    pub fn seen(&self, way: Way, path: &Path) -> PathBuf {
        if way != Way::View {
            return path.to_owned();
        }
        let mut seen: OsString = self.view().into();
        seen.push(path);
        seen.into()
    }

    /// The answer of `copper status --json`.
    ///
    /// # Errors
    /// When the command fails or prints no JSON.
    pub fn status(&self) -> Result<Value> {
        let output = self.copper().args(["status", "--json"]).output()?;
        ensure!(
            output.status.success(),
            "copper status: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "copper status --json printed {}",
                String::from_utf8_lossy(&output.stdout)
            )
        })
    }

    /// One number of the status, by its place, e.g. `["origin", "opens"]`.
    ///
    /// # Panics
    /// When there is no such number.
    pub fn status_number(&self, place: [&str; 2]) -> u64 {
        let status = self.status().unwrap_or_else(|error| panic!("{error:#}"));
        status[place[0]][place[1]]
            .as_u64()
            .unwrap_or_else(|| panic!("no number {place:?} in {status}"))
    }

    /// Stops the helper, and waits until it is gone.
    ///
    /// # Errors
    /// When `copper stop` fails or the helper stays.
    pub fn stop(&mut self) -> Result<()> {
        let Some(helper) = self.helper.take() else {
            return Ok(());
        };
        let output = self.copper().arg("stop").output()?;
        if !wait_until(Duration::from_secs(5), || !is_alive(helper)) {
            bail!(
                "helper {helper} stays after copper stop ({}): {}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        ensure!(
            output.status.success(),
            "copper stop: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Sends a signal to the helper.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.helper() as i32).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("the helper takes signals");
    }

    /// Ends the helper at once, as a crash would.
    ///
    /// # Panics
    /// When it stays alive.
    pub fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
        let helper = self.helper();
        assert!(
            wait_until(Duration::from_secs(5), || !is_alive(helper)),
            "helper survives SIGKILL"
        );
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(helper) = self.helper else { return };
        if !is_alive(helper) {
            return;
        }
        let _ = self.stop();
        if is_alive(helper)
            && let Some(pid) = rustix::process::Pid::from_raw(helper as i32)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Removes what would make Copper, or another preload, take part.
fn forget_copper(command: &mut Command) {
    for name in [
        "LD_PRELOAD",
        "LD_AUDIT",
        "GLIBC_TUNABLES",
        "COPPER_RUNTIME_DIR",
        "COPPER_VIEW",
        "COPPER_PATHS",
        "COPPER_DISABLE",
    ] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C.UTF-8");
}

/// Whether a process runs (a zombie does not).
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    })
}

/// Waits for `condition`, but not longer than `limit`; returns whether it came true.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
