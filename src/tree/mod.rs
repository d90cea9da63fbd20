//! The cooperative tree as a state machine: no I/O, no clock, no threads.
