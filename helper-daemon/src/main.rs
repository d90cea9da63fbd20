//! The `copper` command.
fn main() {}
