//! Copper on several nodes, seen by the ranks of a job: whatever they print must be what they print
//! without it, and the origin is asked once for all of them.
//!
//! Nodes are namespaces of this machine (`scripts/cluster.sh`), so root is needed. Tests on them
//! take turns. What takes long is ignored here and run by `scripts/faults.sh`.

mod faults;
mod fixture;
mod freshness;
mod guessing;
mod jobs;
mod metrics;
mod nodes;
mod options;
mod origin_faults;
mod paths;
mod reports;
mod sharing;
mod starting;
mod strangers;
mod top;
