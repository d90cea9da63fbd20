//! `slow-origin SOURCE MOUNT --control SOCKET`: serves SOURCE at MOUNT until standard input ends
//! or a signal asks it to stop, and takes commands on SOCKET. Prints `mounted` when it is ready.
#![forbid(unsafe_code)]

mod control;
mod filesystem;
mod load;
mod nodes;

use clap::Parser;
use filesystem::PassThrough;
use fuser::{Config, MountOption, SessionACL};
use load::Gate;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;

/// A pass-through FUSE file system with settable latency, faults and counters.
#[derive(Parser)]
struct Arguments {
    /// The tree that is served.
    source: PathBuf,
    /// The directory it is served at.
    mount: PathBuf,
    /// The path of the control socket, outside of the mount.
    #[arg(long)]
    control: PathBuf,
}

/// Threads that serve the mount. An operation that waits holds one, so there are many.
const THREADS: usize = 48;

fn main() -> ExitCode {
    match serve(&Arguments::parse()) {
        // Threads may still wait inside of the mount that is gone.
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("slow-origin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> std::io::Result<()> {
    raise_descriptor_limit();
    rustix::process::umask(rustix::fs::Mode::empty());
    let gate = Arc::new(Gate::new());
    let filesystem = PassThrough::new(&arguments.source, Arc::clone(&gate))?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("slow-origin".into()),
        MountOption::DefaultPermissions,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(THREADS);
    let session = fuser::spawn_mount(filesystem, &arguments.mount, &config).map_err(|error| {
        std::io::Error::new(
            error.kind(),
            format!(
                "cannot mount at {}: {error} (this needs /dev/fuse, and root or fusermount3)",
                arguments.mount.display()
            ),
        )
    })?;
    control::listen(&arguments.control, Arc::clone(&gate))?;
    println!("mounted");
    wait_for_end()?;
    // Whoever hangs on a fault must get an answer, or the mount could not go.
    gate.clear_faults();
    std::fs::remove_file(&arguments.control)?;
    // A lazy unmount succeeds although somebody still holds a file; this process then ends, and
    // with it the connection.
    match rustix::mount::unmount(&arguments.mount, rustix::mount::UnmountFlags::DETACH) {
        Ok(()) => Ok(()),
        Err(_) => session.umount_and_join(),
    }
}

/// Each inode the kernel knows of holds a descriptor.
fn raise_descriptor_limit() {
    let current = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: Some(500_000),
        maximum: Some(500_000),
    };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        // Without the right to raise the maximum, what it allows must do; a tree with more inodes
        // then fails with EMFILE, which no test would take for a result.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: current.maximum,
                ..current
            },
        );
    }
}

/// Returns when standard input ends, or at SIGTERM, SIGINT or SIGHUP.
fn wait_for_end() -> std::io::Result<()> {
    let (ended, end) = mpsc::channel();
    let by_signal = ended.clone();
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            let _ = by_signal.send(());
        }
    });
    std::thread::spawn(move || {
        let mut sink = [0; 64];
        while matches!(std::io::stdin().read(&mut sink), Ok(count) if count > 0) {}
        let _ = ended.send(());
    });
    end.recv().map_err(std::io::Error::other)
}
