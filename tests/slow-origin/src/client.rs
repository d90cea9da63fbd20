//! The handle by which a test holds a slow origin.

use crate::protocol::{Command, Counts, Fault, Load};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A mounted slow origin; dropping it unmounts and ends its process.
#[derive(Debug)]
pub struct SlowOrigin {
    process: Child,
    mount: PathBuf,
    control: PathBuf,
}

impl SlowOrigin {
    /// Mounts the tree `source` at the directory `mount`, served by `program` (the binary
    /// `slow-origin`). The control socket lies beside the mount point, as `<mount>.control`.
    ///
    /// # Errors
    /// When the program cannot be started or does not report the mount; its own message is on
    /// standard error (most often: no `/dev/fuse`, or not root and no `fusermount3`).
    pub fn start(program: &Path, source: &Path, mount: &Path, load: &Load) -> io::Result<Self> {
        std::fs::create_dir_all(mount)?;
        let mut control = mount.as_os_str().to_owned();
        control.push(".control");
        let mut process = std::process::Command::new(program)
            .arg(source)
            .arg(mount)
            .arg("--control")
            .arg(&control)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line.trim() != "mounted" {
            let status = process.wait()?;
            return Err(io::Error::other(format!(
                "slow-origin could not mount {} ({status}); see its message above",
                mount.display()
            )));
        }
        let origin = Self {
            process,
            mount: mount.to_owned(),
            control: control.into(),
        };
        origin.set_load(load)?;
        Ok(origin)
    }

    /// The directory it is mounted at.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// What it has served since the last reset.
    ///
    /// # Errors
    /// When its process does not answer.
    pub fn counts(&self) -> io::Result<Counts> {
        Ok(serde_json::from_str(&self.command(&Command::Dump)?)?)
    }

    /// Sets all counts to zero.
    ///
    /// # Errors
    /// When its process does not answer.
    pub fn reset(&self) -> io::Result<()> {
        self.command(&Command::Reset).map(drop)
    }

    /// Makes it as slow as `load` says from now on.
    ///
    /// # Errors
    /// When its process does not answer.
    pub fn set_load(&self, load: &Load) -> io::Result<()> {
        self.command(&Command::Load(load.clone())).map(drop)
    }

    /// Adds a fault.
    ///
    /// # Errors
    /// When its process does not answer.
    pub fn fault(&self, fault: &Fault) -> io::Result<()> {
        self.command(&Command::Fault(fault.clone())).map(drop)
    }

    /// Removes all faults; operations that hang go on.
    ///
    /// # Errors
    /// When its process does not answer.
    pub fn clear_faults(&self) -> io::Result<()> {
        self.command(&Command::ClearFaults).map(drop)
    }

    fn command(&self, command: &Command) -> io::Result<String> {
        let mut socket = UnixStream::connect(&self.control)?;
        writeln!(socket, "{}", serde_json::to_string(command)?)?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        if answer.is_empty() {
            return Err(io::Error::other(
                "slow-origin closed its control socket without answer",
            ));
        }
        Ok(answer)
    }
}

impl Drop for SlowOrigin {
    fn drop(&mut self) {
        // The program unmounts and ends when its standard input ends.
        drop(self.process.stdin.take());
        if let Err(error) = self.process.wait() {
            eprintln!(
                "slow-origin at {} did not end: {error}",
                self.mount.display()
            );
        }
    }
}
