//! A pass-through FUSE file system with settable latency and counters.
fn main() {}
