//! Starting a helper as a process of its own, and waiting until it serves.

use crate::audit;
use crate::cli::{LogType, Service};
use crate::client::connect;
use crate::helper::READY;
use crate::runtime::Runtime;
use anyhow::{Context, Result, bail};
use copper_core::location::{DISABLE_VARIABLE, RUNTIME_VARIABLE};
use copper_core::request::Operation;
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a helper that serves its node alone may take to serve.
const START_TIME: Duration = Duration::from_secs(20);

/// How a helper is started.
#[derive(Clone, Debug)]
pub(crate) struct Launch<'a> {
    /// How it is to be.
    pub(crate) service: &'a Service,
    /// Its log.
    pub(crate) log: Option<&'a Path>,
    /// How much it logs.
    pub(crate) log_level: &'a str,
    /// Where it logs.
    pub(crate) log_type: LogType,
    /// Whether it ends with the last attached client.
    pub(crate) while_attached: bool,
    /// What it is in its job, where there is one.
    pub(crate) membership: Option<Membership<'a>>,
    /// Ends with this process, if it is given.
    pub(crate) watched: Option<Pid>,
}

/// What one helper of several must know beside the job's file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Membership<'a> {
    /// Its place in the job's list of hosts.
    pub(crate) rank: u32,
    /// Variables that it gets beside its starter's.
    pub(crate) environment: &'a BTreeMap<String, String>,
    /// How long it may take to serve.
    pub(crate) patience: Duration,
}

/// Attaches to the helper, after starting one if there is none. A helper that was started by a
/// run stays as long as anybody keeps such a descriptor open.
pub(crate) fn attach(runtime: &Runtime, launch: &Launch<'_>) -> Result<OwnedFd> {
    if let Some(joined) = join(runtime)? {
        return Ok(joined);
    }
    let _starting = runtime.lock_starting()?;
    if let Some(joined) = join(runtime)? {
        return Ok(joined);
    }
    start(runtime, launch).map(OwnedFd::from)
}

fn join(runtime: &Runtime) -> Result<Option<OwnedFd>> {
    let Some(connection) = connect(runtime)? else {
        return Ok(None);
    };
    let attached = connection.ask(Operation::Attach, b"")?;
    Ok(attached.map(|_| OwnedFd::from(connection)))
}

/// Starts a helper; the caller holds the starting lock and knows that none answers.
pub(crate) fn start(runtime: &Runtime, launch: &Launch<'_>) -> Result<UnixStream> {
    if launch.membership.is_none() {
        // Of a helper that died.
        runtime.remove_job();
    }
    let (ours, theirs) = UnixStream::pair().context("cannot make a socket")?;
    let mut child = spawn(runtime, launch, &theirs)?;
    drop(theirs);
    let patience = launch.membership.map_or(START_TIME, |of| of.patience);
    ours.set_read_timeout(Some(patience))?;
    let mut said = Vec::new();
    let mut part = [0; 4096];
    loop {
        match (&ours).read(&mut part) {
            Ok(0) => break,
            Ok(length) => said.extend_from_slice(&part[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                end(&mut child);
                return Err(error).context(
                    "the helper did not start in time; another one may be stopped or stuck \
                     (see: copper status)",
                );
            }
        }
        if said == READY {
            return Ok(ours);
        }
    }
    end(&mut child);
    runtime.remove_as_starter();
    match String::from_utf8_lossy(&said).trim() {
        "" => bail!("the helper died at its start; see its log with --log FILE --log-level debug"),
        error => bail!("{error}"),
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn spawn(runtime: &Runtime, launch: &Launch<'_>, starter: &UnixStream) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let descriptor = starter.as_raw_fd();
    let service = Service {
        profile: launch.service.profile.settled()?,
        ..launch.service.clone()
    };
    let mut command = Command::new(program);
    command
        .arg("helper")
        .args(service.arguments())
        .args(["--starter", &descriptor.to_string()])
        .args(["--log-level", launch.log_level])
        .args(["--log-type", launch.log_type.name()])
        .env(RUNTIME_VARIABLE, runtime.directory())
        .env(DISABLE_VARIABLE, "1")
        .env_remove("LD_PRELOAD")
        .env_remove(audit::VARIABLE)
        .stdin(Stdio::null())
        .stdout(match launch.log_type {
            LogType::File => Stdio::null(),
            LogType::Stdout | LogType::Both => Stdio::inherit(),
        })
        .stderr(Stdio::null());
    if let Some(membership) = launch.membership {
        command
            .args(["--rank", &membership.rank.to_string()])
            .envs(membership.environment);
    }
    for (name, value) in libfabric_sys::RECOMMENDED_ENVIRONMENT {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    if launch.while_attached {
        command.arg("--while-attached");
    }
    if let Some(watched) = launch.watched {
        let pid = watched.as_raw_nonzero().to_string();
        command.args(["--watch", &pid]);
    }
    if let Some(log) = launch.log {
        let absolute = std::path::absolute(log)?;
        command.args([OsString::from("--log"), absolute.into()]);
    }
    // SAFETY: between fork and exec only system calls are made, on numbers.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            keep_only(descriptor)
        });
    }
    command.spawn().context("cannot start the helper")
}

/// Lets the exec close all descriptors but the standard ones and `kept`, so that the helper does
/// not hold a pipe of its starter's open.
fn keep_only(kept: i32) -> std::io::Result<()> {
    let cloexec = |first: i32, last: u32| {
        // SAFETY: close_range with CLOEXEC changes flags of descriptors only.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                first,
                last,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        }
    };
    // A kernel without close_range leaves them open, which costs no more than a pipe.
    if kept > 3 {
        cloexec(3, kept as u32 - 1);
    }
    cloexec(kept + 1, u32::MAX);
    // SAFETY: `kept` is open in this process.
    if unsafe { libc::fcntl(kept, libc::F_SETFD, 0) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
