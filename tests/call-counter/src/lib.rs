//! A preload library that counts the path calls which reach glibc.
//!
//! Preloaded after the shim (`LD_PRELOAD="libcopper.so libcall_counter.so"`) it sees every call
//! that the shim passes on, and every call that the shim has no hook for. A call on a covered path
//! that arrives here although the helper could have answered it shows a hook that is missing.
//!
//! * `CALL_COUNTER_FILE` names the table, shared by all processes that inherit the variable and
//!   laid out as [`table`] says. Without it nothing is counted.
//! * `CALL_COUNTER_PATHS` are colon-separated prefixes: calls on paths below them are counted
//!   apart, and written to `$CALL_COUNTER_FILE.log`, one line `symbol<TAB>path` each.
#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    static_mut_refs,
    unreachable_pub,
    reason = "redhook's macro expands to such code"
)]

mod hooks;
mod resolve;
mod table;
