//! The batch job that this command runs in, seen as a process: the first of its session that is an
//! ancestor of ours, which is the job's script or its interactive shell. When it ends, the job ends.
//!
//! The session's leader is not asked for: some batch systems leave it long before the script runs.
#![forbid(unsafe_code)]

use crate::runtime::{own_uid, variable};
use copper_core::location::JOB_VARIABLES;
use rustix::process::{Pid, getpid, getsid};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// A user's own name for a job is no batch system's.
const OWN_VARIABLE: &str = "COPPER_JOB";
/// More ancestors than any process has.
const MOST_ANCESTORS: usize = 1000;

/// The process that stands for the batch job; `None` outside of one, where a helper outlives the
/// shell that started it.
pub(crate) fn find() -> Option<Pid> {
    let in_batch_job = JOB_VARIABLES
        .iter()
        .any(|name| *name != OWN_VARIABLE && variable(name).is_some());
    in_batch_job.then(first_of_session).flatten()
}

/// The furthest ancestor in this process's session that belongs to this user.
fn first_of_session() -> Option<Pid> {
    let session = getsid(None).ok()?.as_raw_nonzero().get();
    let own = getpid().as_raw_nonzero().get();
    let mut found = None;
    let mut process = parent_and_session(own)?.0;
    for _ in 0..MOST_ANCESTORS {
        match parent_and_session(process) {
            Some((parent, of)) if of == session && is_own(process) => {
                found = Pid::from_raw(process);
                process = parent;
            }
            _ => break,
        }
    }
    found
}

fn is_own(process: i32) -> bool {
    fs::metadata(format!("/proc/{process}")).is_ok_and(|found| found.uid() == own_uid())
}

/// A process's parent, and its session.
fn parent_and_session(process: i32) -> Option<(i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // After the name, which may hold anything: state, parent, group, session.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_are_read() {
        let own = std::process::id() as i32;
        let (parent, session) = parent_and_session(own).expect("this process runs");
        assert_eq!(parent, std::os::unix::process::parent_id() as i32);
        assert_eq!(
            session,
            getsid(None).expect("a session").as_raw_nonzero().get()
        );
        assert_ne!(
            first_of_session().map(|first| first.as_raw_nonzero().get()),
            Some(own)
        );
    }
}
