//! The limits under which helpers and programs run.
#![forbid(unsafe_code)]

use super::{Finding, fabric};
use crate::size;
use rustix::process::{Resource, getrlimit};

/// A helper opens a file per fetch under way and per connection; below this it fails early.
const FEWEST_FILES: u64 = 256;
/// With fewer a helper with many clients may run out.
const ENOUGH_FILES: u64 = 4096;
/// Memory that a fast network's provider registers for the helper, in bytes.
const ENOUGH_LOCKED: u64 = 64 << 20;
/// The catalog's address space, in bytes, and the largest file of the store.
const ENOUGH_SPACE: u64 = 8 << 30;

pub(super) fn check() -> Vec<Finding> {
    let current = |resource| getrlimit(resource).current;
    vec![
        check_files(current(Resource::Nofile)),
        check_locked(current(Resource::Memlock), fabric::fast_network()),
        check_space("ulimit -v", current(Resource::As)),
        check_space("ulimit -f", current(Resource::Fsize)),
    ]
}

fn check_files(limit: Option<u64>) -> Finding {
    const CHECK: &str = "ulimit -n";
    let Some(limit) = limit else {
        return Finding::ok(CHECK, "unlimited open files");
    };
    let found = format!("{limit} open files");
    let advice = format!("raise it: ulimit -n {ENOUGH_FILES}");
    match limit {
        ..FEWEST_FILES => Finding::problem(CHECK, found, advice),
        FEWEST_FILES..ENOUGH_FILES => Finding::note(CHECK, found, advice),
        _ => Finding::ok(CHECK, found),
    }
}

/// `network` is where the system lists a fast network's devices, if it has any.
fn check_locked(limit: Option<u64>, network: Option<&str>) -> Finding {
    const CHECK: &str = "ulimit -l";
    match limit {
        None => Finding::ok(CHECK, "unlimited locked memory"),
        Some(limit) if limit >= ENOUGH_LOCKED || network.is_none() => {
            Finding::ok(CHECK, format!("{} of locked memory", size::show(limit)))
        }
        Some(limit) => Finding::note(
            CHECK,
            format!("{} of locked memory", size::show(limit)),
            "providers of fast networks (verbs, cxi) may need more: ulimit -l unlimited",
        ),
    }
}

fn check_space(check: &str, limit: Option<u64>) -> Finding {
    match limit {
        None => Finding::ok(check, "unlimited"),
        Some(limit) if limit >= ENOUGH_SPACE => Finding::ok(check, size::show(limit)),
        Some(limit) => Finding::note(
            check,
            size::show(limit),
            format!("the catalog and large files need room: {check} unlimited"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn limits_are_judged_by_what_a_helper_needs() {
        assert_eq!(check_files(Some(64)).state, State::Problem);
        assert_eq!(check_files(Some(1024)).state, State::Note);
        assert_eq!(check_files(None).state, State::Ok);
        let little = Some(64 << 10);
        assert_eq!(
            check_locked(little, Some("/sys/class/cxi")).state,
            State::Note
        );
        assert_eq!(check_locked(little, None).state, State::Ok);
        assert_eq!(check_locked(None, Some("/sys/class/cxi")).state, State::Ok);
        let small = check_space("ulimit -v", Some(1 << 20));
        assert_eq!(small.state, State::Note);
        assert!(
            small
                .advice
                .expect("advice")
                .ends_with("ulimit -v unlimited")
        );
    }
}
