//! The environment under which a program uses the helper.
#![forbid(unsafe_code)]

use crate::audit::{self, Audit};
use crate::runtime::Runtime;
use anyhow::{Context, Result, bail, ensure};
use copper_core::location::{PATHS_VARIABLE, RUNTIME_VARIABLE};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Overrides where libcopper.so is.
const LIBRARY_VARIABLE: &str = "COPPER_LIB";
const LIBRARY: &str = "libcopper.so";
const PRELOAD: &str = "LD_PRELOAD";

/// The path of libcopper.so: `COPPER_LIB`, or beside this program, or in `../lib`.
pub(crate) fn library() -> Result<PathBuf> {
    let found = find_library()?;
    let bytes = found.as_os_str().as_bytes();
    ensure!(
        !bytes
            .iter()
            .any(|byte| matches!(byte, b' ' | b':' | b'\t' | b'\n')),
        "{} cannot be preloaded: its path has a space or a colon; set {LIBRARY_VARIABLE} to a copy",
        found.display()
    );
    Ok(found)
}

fn find_library() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(LIBRARY_VARIABLE).filter(|named| !named.is_empty()) {
        let named = std::path::absolute(named)?;
        ensure!(
            named.is_file(),
            "{LIBRARY_VARIABLE} names {}, which is not a file",
            named.display()
        );
        return Ok(named);
    }
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let directory = program.parent().context("this program has no directory")?;
    let candidates = [
        directory.join(LIBRARY),
        directory.join("../lib").join(LIBRARY),
    ];
    for candidate in &candidates {
        if let Ok(found) = candidate.canonicalize() {
            return Ok(found);
        }
    }
    bail!(
        "{LIBRARY} is neither beside {} nor in ../lib; set {LIBRARY_VARIABLE} to its path",
        program.display()
    )
}

/// The variables and their values: the library before whatever is preloaded already; with `audit`
/// also those of the audit library.
pub(crate) fn variables(
    runtime: &Runtime,
    covered: &[Vec<u8>],
    audit: Option<&Audit>,
) -> Result<Vec<(&'static str, OsString)>> {
    let preload = with_library(library()?.as_os_str(), std::env::var_os(PRELOAD).as_deref());
    let known = std::env::var_os(PATHS_VARIABLE).unwrap_or_default();
    let mut variables = vec![
        (PRELOAD, preload),
        (RUNTIME_VARIABLE, runtime.directory().into()),
        (PATHS_VARIABLE, with_paths(covered, known.as_bytes())),
    ];
    variables.extend(audit.map(audit::variables).unwrap_or_default());
    Ok(variables)
}

fn with_library(library: &OsStr, preloaded: Option<&OsStr>) -> OsString {
    let mut value = library.to_owned();
    for other in preloaded
        .unwrap_or_default()
        .as_bytes()
        .split(|byte| matches!(byte, b' ' | b':'))
        .filter(|other| !other.is_empty() && *other != library.as_bytes())
    {
        value.push(":");
        value.push(OsStr::from_bytes(other));
    }
    value
}

fn with_paths(covered: &[Vec<u8>], known: &[u8]) -> OsString {
    let mut prefixes: Vec<&[u8]> = covered.iter().map(Vec::as_slice).collect();
    for prefix in known.split(|&byte| byte == b':') {
        if !prefix.is_empty() && !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    OsString::from_vec(prefixes.join(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_comes_first_and_once() {
        let library = OsStr::new("/x/libcopper.so");
        assert_eq!(with_library(library, None), "/x/libcopper.so");
        let both = with_library(library, Some(OsStr::new("/a.so:/x/libcopper.so /b.so")));
        assert_eq!(both, "/x/libcopper.so:/a.so:/b.so");
    }

    #[test]
    fn prefixes_are_joined_without_repeats() {
        let covered = [b"/a".to_vec(), b"/b".to_vec()];
        assert_eq!(with_paths(&covered, b"/b:/c:"), "/a:/b:/c");
    }
}
