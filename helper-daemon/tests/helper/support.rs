//! A helper for one test, asked over its socket and looked into through its catalog.

use copper_core::attributes::Attributes;
use copper_core::catalog::layout::{Alarm, header};
use copper_core::catalog::memory::{Mapping, Memory};
use copper_core::catalog::reader::{Content, Kind, Reader};
use copper_core::request::{
    CATALOG, COMMON, Operation, Outcome, REPLY_LENGTH, ReplyHeader, RequestHeader, SOCKET,
};
use memmap2::{Mmap, MmapMut, MmapOptions};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

pub(crate) const COPPER: &str = env!("CARGO_BIN_EXE_copper");

/// A user's machine, as far as one test needs it: a runtime directory, a view, an origin.
pub(crate) struct Stage {
    pub(crate) base: TempDir,
    pub(crate) memory: TempDir,
    pub(crate) origin: PathBuf,
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let make = |place| {
            let mut builder = tempfile::Builder::new();
            builder.prefix("copper-test-").tempdir_in(place)
        };
        let base = make("/tmp").expect("temporary directory");
        let memory = make("/dev/shm").expect("temporary directory in memory");
        let origin = base.path().join("origin");
        fs::create_dir(&origin).expect("origin");
        Stage {
            base,
            memory,
            origin,
        }
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.base.path().join("runtime")
    }

    pub(crate) fn view(&self) -> PathBuf {
        self.base.path().join("view")
    }

    /// The command, with everything set for this stage.
    pub(crate) fn copper(&self, arguments: &[&str]) -> Command {
        // Whoever runs the tests may have signals ignored, which shells then cannot trap.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=INT,QUIT,HUP,TERM", COPPER])
            .args(arguments)
            .env("COPPER_RUNTIME_DIR", self.runtime())
            .env("COPPER_VIEW", self.view())
            // Any file that the loader only complains about will do: no shim is needed here.
            .env("COPPER_LIB", COPPER)
            .env_remove("LD_PRELOAD");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.copper(arguments).output().expect("copper runs")
    }

    /// Starts a helper that covers the origin.
    pub(crate) fn start(&self, more: &[&str]) -> Helper<'_> {
        let origin = self.origin.to_str().expect("plain");
        let store = self.memory.path().to_str().expect("plain");
        let arguments = [&["start", "--cover", origin, "--store", store], more].concat();
        let output = self.run(&arguments);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Helper::of(self)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.origin.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the origin")).expect("directory");
        fs::write(&path, bytes).expect("file");
        path
    }
}

/// A running helper.
pub(crate) struct Helper<'s> {
    pub(crate) stage: &'s Stage,
    catalog: Mmap,
    alarm: MmapMut,
    stopped: bool,
}

impl<'s> Helper<'s> {
    pub(crate) fn of(stage: &'s Stage) -> Helper<'s> {
        let catalog = File::open(stage.runtime().join(CATALOG)).expect("catalog");
        let alarm = File::options()
            .read(true)
            .write(true)
            .open(stage.runtime().join(COMMON))
            .expect("alarm");
        // SAFETY: sealed memory files of the helper, which cannot shrink.
        let (catalog, alarm) = unsafe {
            let catalog = MmapOptions::new().no_reserve_swap().map(&catalog);
            (
                catalog.expect("mapped"),
                MmapMut::map_mut(&alarm).expect("mapped"),
            )
        };
        Helper {
            stage,
            catalog,
            alarm,
            stopped: false,
        }
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.stage.runtime().join(SOCKET)).expect("the helper listens")
    }

    pub(crate) fn ask(&self, operation: Operation, path: &Path) -> Outcome {
        self.ask_two(operation, path, Path::new(""))
    }

    pub(crate) fn ask_two(&self, operation: Operation, first: &Path, second: &Path) -> Outcome {
        let mut socket = self.connect();
        let (first, second) = (first.as_os_str().as_bytes(), second.as_os_str().as_bytes());
        let header = RequestHeader {
            operation,
            path_length: first.len() as u32,
            second_length: second.len() as u32,
        };
        let message = [&header.encode()[..], first, second].concat();
        socket.write_all(&message).expect("asked");
        loop {
            let mut reply = [0; REPLY_LENGTH];
            socket.read_exact(&mut reply).expect("answered");
            let reply = ReplyHeader::decode(&reply).expect("sound");
            if reply.outcome != Outcome::Working {
                return reply.outcome;
            }
        }
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        let output = self.stage.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn reader(&self) -> Reader<InOnePiece> {
        // SAFETY: mapped as long as the helper's value lives, written by the helper alone.
        let mapping = unsafe { Mapping::new(self.catalog.as_ptr(), self.catalog.len() as u64) };
        Reader::new(InOnePiece(mapping))
    }

    /// What the catalog knows of a path.
    pub(crate) fn known(&self, path: &Path) -> Option<(Kind, Attributes)> {
        let reader = self.reader();
        let live = reader.live(path.as_os_str().as_bytes())?;
        Some((live.kind(), *live.attributes()))
    }

    pub(crate) fn link(&self, path: &Path) -> Vec<u8> {
        let reader = self.reader();
        let live = reader.live(path.as_os_str().as_bytes()).expect("known");
        live.link().to_vec()
    }

    /// The names of a directory that is known whole.
    pub(crate) fn listing(&self, path: &Path) -> Option<Vec<(Vec<u8>, u8)>> {
        let reader = self.reader();
        let live = reader.live(path.as_os_str().as_bytes())?;
        let listing = reader.listing(&live)?;
        let names = listing
            .iter()
            .map(|entry| (entry.name.to_vec(), entry.directory_type));
        Some(names.collect())
    }

    pub(crate) fn content(&self, path: &Path) -> Content {
        let reader = self.reader();
        reader
            .live(path.as_os_str().as_bytes())
            .map_or(Content::Unknown, |live| reader.content(&live))
    }

    /// The store's file of a path, by its number; what is not stored has a name that is not there.
    pub(crate) fn stored(&self, path: &Path) -> PathBuf {
        let inode = match self.content(path) {
            Content::Stored(inode) => inode,
            _ => 0,
        };
        let mirror = self.mirrored(Path::new("/"));
        let store = mirror.parent().expect("inside the store");
        store.join("files").join(inode.to_string())
    }

    /// The name of a path in the store's mirror, where libraries and directories lie.
    pub(crate) fn mirrored(&self, path: &Path) -> PathBuf {
        let reader = self.reader();
        let mirror = reader.strings().next().expect("a mirror").to_vec();
        let mirror = std::ffi::OsString::from(String::from_utf8(mirror).expect("plain"));
        Path::new(&mirror).join(path.strip_prefix("/").expect("absolute"))
    }

    pub(crate) fn word(&self, at: u64) -> u64 {
        self.reader().word(at)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.word(header::PID) as u32
    }

    pub(crate) fn raise_alarm(&self) -> u64 {
        // SAFETY: inside the page, aligned, accessed as an atomic word by everybody.
        let word = unsafe { &*self.alarm.as_ptr().add(Alarm::RAISED).cast::<AtomicU64>() };
        word.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn kill(&mut self) {
        let pid = self.pid();
        let done = Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .expect("kill");
        assert!(done.success());
        wait_for_end(pid);
        self.stopped = true;
    }

    pub(crate) fn stop(&mut self) {
        assert!(self.stage.run(&["stop"]).status.success());
        self.stopped = true;
    }
}

impl Drop for Helper<'_> {
    fn drop(&mut self) {
        if !self.stopped {
            let _ = self.stage.run(&["stop"]);
        }
    }
}

struct InOnePiece(Mapping);

impl Memory for InOnePiece {
    fn load(&self, offset: u64) -> Option<u64> {
        self.0.load(offset)
    }
    fn bytes(&self, offset: u64, length: usize) -> Option<&[u8]> {
        self.0.bytes(offset, length)
    }
}

/// Waits until a process has ended.
pub(crate) fn wait_for_end(pid: u32) {
    let gone = || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    };
    wait_until("the process ends", gone);
}

/// Waits, up to ten seconds, until something holds.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("in vain: {what}");
}
