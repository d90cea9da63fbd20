//! Runs the cooperative tree's state machine on a virtual clock: small jobs under faults, to see that
//! it keeps its promises, and large ones in a model of a machine, to see how it scales.

pub mod engine;
pub mod faults;
pub mod machine;
pub mod peer_scheme;
pub mod queue;
pub mod scale;
pub mod workload;
