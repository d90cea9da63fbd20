//! Counts the libc calls that reach glibc.
