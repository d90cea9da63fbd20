//! `libcopper.so`: where it is, whether programs start under it, and what earlier sessions left in
//! the environment.
#![forbid(unsafe_code)]

use super::{Finding, process};
use crate::audit;
use crate::environment;
use crate::runtime::variable;
use copper_core::location::{DISABLE_VARIABLE, RUNTIME_VARIABLE};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIBRARY: &str = "libcopper.so";
const PRELOAD: &str = "LD_PRELOAD";

/// How long `/bin/true` may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn check() -> Vec<Finding> {
    let library = environment::library();
    let preloaded = variable(PRELOAD).unwrap_or_default();
    let mut findings = match &library {
        Ok(library) => vec![
            check_library(library),
            judge_preload(&preloaded, Some(library)),
        ],
        Err(error) => vec![
            Finding::problem(
                LIBRARY,
                format!("{error:#}"),
                "install the whole package: bin/copper and lib/libcopper.so",
            ),
            judge_preload(&preloaded, None),
        ],
    };
    findings.push(check_audit());
    findings.extend(check_variables(&preloaded));
    findings
}

/// Whether programs may run under the audit library.
fn check_audit() -> Finding {
    const NAME: &str = "audit library";
    let advice = "programs run without it: libraries that are loaded at their start, or found along \
                  absolute RPATHs, come from the origin; copper run --audit=on has them all the same";
    let measured = audit::library().and_then(|library| audit::measured(None, &library));
    match measured {
        Ok(measured) if measured.is_cheap() => Finding::ok(NAME, measured.describe()),
        Ok(measured) => Finding::note(NAME, measured.describe(), advice),
        Err(error) => Finding::note(
            NAME,
            format!("{error:#}"),
            "install the whole package: lib/libcopper-audit.so beside lib/libcopper.so",
        ),
    }
}

/// Whether a program starts under the library, and the loader has nothing to say about it.
fn check_library(library: &Path) -> Finding {
    let shown = library.display();
    let mut command = Command::new("/bin/true");
    command.env(PRELOAD, library);
    let advice = "install the library of this machine's architecture on a file system that is not \
                  mounted noexec";
    match process::run(command, PATIENCE) {
        Err(error) => Finding::problem(LIBRARY, format!("{shown}: {error:#}"), advice),
        Ok(ended) if !ended.status.success() || !ended.errors.is_empty() => {
            let said = ended.errors.trim();
            Finding::problem(
                LIBRARY,
                format!("{shown}: /bin/true under it: {} {said}", ended.status),
                advice,
            )
        }
        Ok(_) => Finding::ok(LIBRARY, format!("{shown}; /bin/true runs under it")),
    }
}

/// What is in `LD_PRELOAD` already.
fn judge_preload(preloaded: &OsStr, own: Option<&Path>) -> Finding {
    let entries = preloaded
        .as_bytes()
        .split(|byte| matches!(byte, b' ' | b':'))
        .filter(|entry| !entry.is_empty())
        .map(|entry| PathBuf::from(OsStr::from_bytes(entry)));
    let entries: Vec<PathBuf> = entries.collect();
    for entry in &entries {
        let shown = entry.display();
        let named = entry.components().count() > 1;
        let is_ours = entry.file_name() == Some(OsStr::new(LIBRARY));
        let found = entry.canonicalize().ok();
        if is_ours && (found.is_none() || found.as_deref() != own) {
            return Finding::problem(
                PRELOAD,
                format!("{shown} is not the libcopper.so of this copper"),
                "unset LD_PRELOAD, then: eval \"$(copper env)\"",
            );
        }
        if named && found.is_none() {
            return Finding::note(
                PRELOAD,
                format!("{shown} is not there"),
                "take it out of LD_PRELOAD: the loader complains at every program's start",
            );
        }
    }
    match entries.len() {
        0 => Finding::ok(PRELOAD, "not set"),
        _ => Finding::ok(PRELOAD, preloaded.to_string_lossy()),
    }
}

/// Variables of an earlier session with which programs would not use the helper.
fn check_variables(preloaded: &OsStr) -> Vec<Finding> {
    let mut findings = Vec::new();
    if variable(DISABLE_VARIABLE).is_some_and(|value| value == "1") {
        findings.push(Finding::note(
            DISABLE_VARIABLE,
            "is 1: programs do not use Copper",
            format!("unset {DISABLE_VARIABLE}"),
        ));
    }
    let bytes = preloaded.as_bytes();
    let is_preloaded = bytes
        .windows(LIBRARY.len())
        .any(|part| part == LIBRARY.as_bytes());
    let runtime = variable(RUNTIME_VARIABLE).map(PathBuf::from);
    if let Some(runtime) = runtime.filter(|runtime| is_preloaded && !runtime.exists()) {
        findings.push(Finding::note(
            RUNTIME_VARIABLE,
            format!("{} is not there: the helper has gone", runtime.display()),
            format!("unset {RUNTIME_VARIABLE} LD_PRELOAD, or copper start"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;
    use std::fs;
    use tempfile::tempdir;

    #[test]
    fn leftovers_in_the_environment_are_told() {
        let base = tempdir().expect("directory");
        let own = base.path().canonicalize().expect("there").join(LIBRARY);
        fs::write(&own, "").expect("file");
        let judge = |text: &str| judge_preload(OsStr::new(text), Some(&own));
        assert_eq!(judge("").state, State::Ok);
        assert_eq!(judge(own.to_str().expect("plain")).state, State::Ok);
        assert_eq!(judge("libjemalloc.so.2").state, State::Ok);
        let gone = judge("/gone/libother.so");
        assert_eq!(gone.state, State::Note);
        assert!(gone.found.contains("/gone/libother.so"));
        assert_eq!(judge("/opt/old/libcopper.so").state, State::Problem);
    }

    #[test]
    fn a_file_that_is_no_library_is_a_problem() {
        let base = tempdir().expect("directory");
        let library = base.path().join(LIBRARY);
        fs::write(&library, "not a library").expect("file");
        let finding = check_library(&library);
        assert_eq!(finding.state, State::Problem);
        assert!(finding.found.contains("/bin/true"), "{finding:?}");
    }
}
