//! libfabric: which file is loaded, and which of its providers can be used here.
#![forbid(unsafe_code)]

use super::{Finding, Report, process};
use anyhow::{Context, Result, ensure};
use libfabric_sys::{Library, PATH_VARIABLE, PREFERRED_PROVIDERS, RECOMMENDED_ENVIRONMENT};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const CHECK: &str = "libfabric";
const PROVIDERS: &str = "providers";

/// Providers look for hardware when they are loaded.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tries libfabric in a process of its own: its providers may hang or crash.
pub(super) fn check() -> Vec<Finding> {
    check_apart().unwrap_or_else(|error| {
        vec![Finding::note(
            CHECK,
            format!("it could not be tried: {error:#}"),
            format!("name another libfabric.so.1 in {PATH_VARIABLE}; one node alone needs none"),
        )]
    })
}

fn check_apart() -> Result<Vec<Finding>> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut command = Command::new(program);
    command.args(["doctor", "--json", "--only", "fabric"]);
    for (name, value) in RECOMMENDED_ENVIRONMENT {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    let ended = process::run(command, PATIENCE)?;
    ensure!(
        !ended.output.is_empty(),
        "loading it ended with {}: {}",
        ended.status,
        ended.errors.trim()
    );
    // A provider may have printed something before.
    let last = ended.output.lines().last().unwrap_or_default();
    let report: Report = serde_json::from_str(last).context("its findings cannot be read")?;
    Ok(report.findings)
}

/// Tries libfabric in this process.
pub(super) fn check_here() -> Vec<Finding> {
    let library = match Library::load() {
        Ok(library) => library,
        Err(error) => {
            let advice = "one node alone needs none; for several install it, load its module, or \
                          name its file in COPPER_LIBFABRIC";
            return vec![Finding::note(CHECK, shorten(&error.to_string()), advice)];
        }
    };
    let file = fs::read_to_string("/proc/self/maps")
        .ok()
        .and_then(|maps| mapped(&maps))
        .unwrap_or_else(|| library.path().to_owned());
    let found = format!("{}, API {}", file.display(), library.version());
    let providers = library.providers().unwrap_or_default();
    let usable = library.usable(None).unwrap_or_default();
    let mut usable: Vec<String> = usable.into_iter().map(|info| info.name).collect();
    usable.sort();
    usable.dedup();
    vec![Finding::ok(CHECK, found), judge(&providers, &usable)]
}

/// What the providers allow: `known` are in the library, `usable` can make an endpoint here.
fn judge(known: &[String], usable: &[String]) -> Finding {
    let preferred = PREFERRED_PROVIDERS
        .into_iter()
        .find(|name| usable.iter().any(|usable| usable == name));
    let known = known.join(", ");
    let Some(preferred) = preferred else {
        return Finding::note(
            PROVIDERS,
            format!("none that Copper uses works here; the library has: {known}"),
            format!(
                "one node alone needs none; for several a libfabric is needed with one of: {}",
                PREFERRED_PROVIDERS.join(", ")
            ),
        );
    };
    let found = format!(
        "{preferred} is taken; usable here: {}; in the library: {known}",
        usable.join(", ")
    );
    let sockets = preferred.starts_with("tcp");
    match fast_network() {
        Some(class) if sockets => Finding::note(
            PROVIDERS,
            format!("{found}; the fast network in {class} would not be used"),
            format!("load the site's libfabric module, or name its file in {PATH_VARIABLE}"),
        ),
        _ => Finding::ok(PROVIDERS, found),
    }
}

/// Where the system lists devices of a fast network, if it has any.
pub(super) fn fast_network() -> Option<&'static str> {
    ["/sys/class/cxi", "/sys/class/infiniband"]
        .into_iter()
        .find(|class| fs::read_dir(class).is_ok_and(|mut devices| devices.next().is_some()))
}

/// The libfabric among the mappings of a process.
fn mapped(maps: &str) -> Option<PathBuf> {
    let paths = maps
        .lines()
        .filter_map(|line| Some(&line[line.find('/')?..]));
    let mut found = paths.filter(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.starts_with("libfabric") && name.contains(".so")
    });
    found.next().map(PathBuf::from)
}

/// Why none was loaded, in one line: files that are not there need not be listed.
fn shorten(error: &str) -> String {
    let tried = error.lines().filter(|line| line.starts_with(' '));
    let (missing, refused): (Vec<&str>, Vec<&str>) =
        tried.partition(|line| line.contains("No such file"));
    let refused: Vec<&str> = refused.into_iter().map(str::trim).collect();
    let mut text = format!("tried {} files that are not there", missing.len());
    if !refused.is_empty() {
        text += &format!("; refused: {}", refused.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn the_file_is_found_among_the_mappings() {
        let maps = "7f0-7f1 r--p 00000000 fe:00 11 /usr/lib/libc.so.6\n\
                    7f2-7f3 r-xp 00000000 fe:00 12 /opt/libfabric/lib/libfabric.so.1.18.1\n\
                    7f4-7f5 rw-p 00000000 00:00 0 [heap]\n";
        let file = mapped(maps).expect("there");
        assert_eq!(
            file,
            PathBuf::from("/opt/libfabric/lib/libfabric.so.1.18.1")
        );
        assert_eq!(mapped("7f4-7f5 rw-p 00000000 00:00 0 [heap]\n"), None);
    }

    #[test]
    fn files_that_were_refused_are_named() {
        let error = "no usable libfabric was found. Tried:\n  libfabric.so.1: cannot open: No such \
                     file or directory\n  /opt/libfabric.so.1: version 1.11 is too old\nInstall";
        let short = shorten(error);
        assert_eq!(
            short,
            "tried 1 files that are not there; refused: /opt/libfabric.so.1: version 1.11 is too old"
        );
    }

    #[test]
    fn the_first_usable_provider_is_named() {
        let names = ["shm", "tcp", "tcp;ofi_rxm"].map(str::to_owned);
        let finding = judge(&names, &names);
        assert!(finding.found.starts_with("tcp is taken"), "{finding:?}");
        let none = judge(&names, &names[..1]);
        assert_eq!(none.state, State::Note);
        assert!(none.advice.expect("advice").contains("cxi"));
    }
}
