//! The audit library: whether this machine's dynamic loader runs programs under it as fast as
//! without, which is measured once and kept in the runtime directory.
//!
//! Loaders before glibc 2.35 send every call from one library to another through a slow path as
//! soon as there is any audit library. The library declines to be used by those, unless the user wants
//! it at any cost; what it costs under the others is measured, since that is what matters.

use crate::environment;
use crate::runtime::Runtime;
use anyhow::{Context, Result, ensure};
use copper_core::location::AUDIT_VARIABLE;
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What tells the dynamic loader of audit libraries.
pub(crate) const VARIABLE: &str = "LD_AUDIT";
/// What tells glibc of the memory set aside for libraries' thread-local variables.
pub(crate) const TUNABLES: &str = "GLIBC_TUNABLES";
/// Under an audit library the loader cannot count what a program's libraries need in all before it
/// sets thread-local memory aside; this much more, in bytes, suffices for all but sanitizers'. For
/// those the library starts the program anew without itself.
const STATIC_TLS: &str = "glibc.rtld.optional_static_tls=4096";

/// The names that the library goes by: as installed, and as built.
const NAMES: [&str; 2] = ["libcopper-audit.so", "libcopper_audit.so"];

/// When programs are to run under the audit library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum When {
    /// Where it makes calls no slower.
    #[default]
    Auto,
    /// In any case.
    On,
    /// Never.
    Off,
}

/// The audit library for programs to run under.
#[derive(Debug)]
pub(crate) struct Audit {
    library: PathBuf,
    when: When,
}

/// What was measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Measured {
    /// On which system, with which library: elsewhere it counts for nothing.
    key: String,
    /// How long a call from one library to another takes at best, in nanoseconds.
    pub(crate) plain_ns: f64,
    /// The same under the audit library; `None` where the loader does not take it.
    pub(crate) audited_ns: Option<f64>,
}

impl Measured {
    /// Whether calls are as fast as without: what differs is less than an instruction's time.
    pub(crate) fn is_cheap(&self) -> bool {
        self.audited_ns
            .is_some_and(|audited| audited <= 1.25 * self.plain_ns + 1.0)
    }

    /// The same in words.
    pub(crate) fn describe(&self) -> String {
        match self.audited_ns {
            None => "the dynamic loader does not take it".to_owned(),
            Some(audited) => format!(
                "a call from one library to another takes {audited:.1} ns under it, {:.1} ns without",
                self.plain_ns
            ),
        }
    }
}

/// The audit library, which lies beside the shim; an error says where it was sought.
pub(crate) fn library() -> Result<PathBuf> {
    let shim = environment::library()?;
    let directory = shim.parent().context("the shim has no directory")?;
    let found = NAMES.iter().map(|name| directory.join(name));
    found
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("{} is not in {}", NAMES[0], directory.display()))
}

/// The audit library, if programs are to run under it.
pub(crate) fn wanted(runtime: &Runtime, when: When) -> Result<Option<Audit>> {
    let of = |library| Audit { library, when };
    match when {
        When::Off => Ok(None),
        When::On => library().map(of).map(Some),
        When::Auto => {
            let Ok(library) = library() else {
                return Ok(None);
            };
            let measured = measured(Some(runtime), &library);
            let cheap = measured.as_ref().is_ok_and(Measured::is_cheap);
            match measured {
                Ok(measured) => tracing::info!(cheap, "audit library: {}", measured.describe()),
                Err(error) => tracing::info!("audit library not used: {error:#}"),
            }
            Ok(cheap.then_some(of(library)))
        }
    }
}

/// What was measured earlier or, where nothing was, is now.
pub(crate) fn measured(runtime: Option<&Runtime>, library: &Path) -> Result<Measured> {
    let key = key(library)?;
    let kept = runtime.map(Runtime::audit);
    let known = kept.as_ref().and_then(|file| fs::read(file).ok());
    let known = known.and_then(|bytes| serde_json::from_slice::<Measured>(&bytes).ok());
    if let Some(known) = known.filter(|known| known.key == key) {
        return Ok(known);
    }
    let measured = Measured {
        key,
        ..measure(library)?
    };
    if let Some(file) = kept {
        // Whoever comes second writes the same. Where it cannot be kept it is measured again.
        let aside = file.with_extension(std::process::id().to_string());
        let written = fs::write(&aside, serde_json::to_vec(&measured)?);
        let _ = written.and_then(|()| fs::rename(&aside, &file));
    }
    Ok(measured)
}

/// The machine, its C library and the audit library.
fn key(library: &Path) -> Result<String> {
    let system = rustix::system::uname();
    // SAFETY: takes nothing and returns a string that lives as long as the process.
    let glibc = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) };
    let found = fs::metadata(library)?;
    Ok(format!(
        "{} {} glibc {} {} {} {}.{}",
        system.nodename().to_string_lossy(),
        system.machine().to_string_lossy(),
        glibc.to_string_lossy(),
        library.display(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
    ))
}

/// Other programs may have the processors: the best of several is what counts.
const TRIES: usize = 3;

fn measure(library: &Path) -> Result<Measured> {
    let mut best = Measured {
        key: String::new(),
        plain_ns: f64::INFINITY,
        audited_ns: None,
    };
    for _ in 0..TRIES {
        let plain = probe(None)?;
        best.plain_ns = best.plain_ns.min(plain.call_ns);
        // A loader that cannot run a program under it is no failure of ours.
        if let Some(audited) = probe(Some(library)).ok().filter(|probe| probe.is_audited) {
            let before = best.audited_ns.unwrap_or(f64::INFINITY);
            best.audited_ns = Some(before.min(audited.call_ns));
        }
        if best.is_cheap() {
            break;
        }
    }
    Ok(best)
}

/// What a probe says of itself.
#[derive(Debug, Deserialize, Serialize)]
struct Probe {
    call_ns: f64,
    is_audited: bool,
}

fn probe(library: Option<&Path>) -> Result<Probe> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut command = Command::new(program);
    command.arg("audit-probe").env_remove("LD_PRELOAD");
    match library {
        None => command.env_remove(VARIABLE),
        Some(library) => command
            .env(VARIABLE, library)
            .env(TUNABLES, STATIC_TLS)
            .env_remove(copper_core::location::DISABLE_VARIABLE),
    };
    command.stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().context("cannot run the probe")?;
    ensure!(
        output.status.success(),
        "the probe ended with {}",
        output.status
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// `copper audit-probe`: times calls in this process, and looks who listens.
pub(crate) fn run_probe() -> Result<()> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let probe = Probe {
        call_ns: time_of_a_call(),
        is_audited: NAMES.iter().any(|name| maps.contains(name)),
    };
    crate::commands::print(&serde_json::to_vec(&probe)?)
}

/// The time of a call of another library's function, at best, in nanoseconds.
fn time_of_a_call() -> f64 {
    const BATCHES: usize = 200;
    const CALLS: u32 = 500;
    let batch = || {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call_other_library());
        start.elapsed()
    };
    // The first one is slow anywhere: the loader looks for the function.
    call_other_library();
    let best = (0..BATCHES).map(|_| batch()).min().unwrap_or_default();
    best.as_secs_f64() * 1e9 / f64::from(CALLS)
}

/// Calls `labs`, the shortest function there is, by the procedure linkage table, as C programs call
/// functions; the compiler would take another way.
#[cfg(target_arch = "x86_64")]
fn call_other_library() {
    // SAFETY: an ordinary call of a function that takes a number.
    unsafe {
        std::arch::asm!("call labs@PLT", inout("rdi") 1i64 => _, lateout("rax") _, clobber_abi("C"));
    }
}

/// Calls `labs`, the shortest function there is, by the procedure linkage table, as C programs call
/// functions; the compiler would take another way.
#[cfg(target_arch = "aarch64")]
fn call_other_library() {
    // SAFETY: an ordinary call of a function that takes a number.
    unsafe {
        std::arch::asm!("bl labs", inout("x0") 1i64 => _, lateout("x30") _, clobber_abi("C"));
    }
}

/// The variables that switch the library on, merged with what they hold already.
pub(crate) fn variables(audit: &Audit) -> Vec<(&'static str, OsString)> {
    let joined = |name: &str, own: &std::ffi::OsStr| {
        let mut value = std::env::var_os(name).unwrap_or_default();
        if !value.is_empty() {
            value.push(":");
        }
        value.push(own);
        value
    };
    let holds = |name: &str, what: &str| {
        std::env::var_os(name).is_some_and(|value| value.to_string_lossy().contains(what))
    };
    let mut variables = Vec::new();
    let value = match std::env::var_os(VARIABLE) {
        Some(value) if NAMES.iter().any(|name| holds(VARIABLE, name)) => value,
        _ => joined(VARIABLE, audit.library.as_os_str()),
    };
    variables.push((VARIABLE, value));
    if audit.when == When::On {
        variables.push((AUDIT_VARIABLE, OsString::from("on")));
    }
    let name = STATIC_TLS.split('=').next().unwrap_or(STATIC_TLS);
    if !holds(TUNABLES, name) {
        variables.push((TUNABLES, joined(TUNABLES, STATIC_TLS.as_ref())));
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(plain_ns: f64, audited_ns: Option<f64>) -> Measured {
        Measured {
            key: String::new(),
            plain_ns,
            audited_ns,
        }
    }

    #[test]
    fn only_what_costs_nothing_is_cheap() {
        assert!(measured(1.6, Some(1.6)).is_cheap());
        assert!(measured(1.6, Some(2.4)).is_cheap());
        assert!(!measured(1.6, Some(20.0)).is_cheap());
        assert!(!measured(1.6, None).is_cheap());
    }

    #[test]
    fn a_call_takes_some_time() {
        let time = time_of_a_call();
        assert!(time > 0.1 && time < 1e6, "{time} ns");
    }
}
