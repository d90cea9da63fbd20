//! The batch job that this command runs in, seen as a process: the leader of the session, which is
//! the job's script or its interactive shell. When it ends, the job ends.
#![forbid(unsafe_code)]

use crate::runtime::variable;
use copper_core::location::JOB_VARIABLES;
use rustix::process::{Pid, getpid, getsid};

/// A user's own name for a job is no batch system's.
const OWN_VARIABLE: &str = "COPPER_JOB";

/// The process that stands for the batch job; `None` outside of one, where a helper outlives the
/// shell that started it.
pub(crate) fn find() -> Option<Pid> {
    let in_batch_job = JOB_VARIABLES
        .iter()
        .any(|name| *name != OWN_VARIABLE && variable(name).is_some());
    let leader = getsid(None).ok()?;
    // A launcher may have made this very command the leader.
    (in_batch_job && leader != getpid()).then_some(leader)
}
