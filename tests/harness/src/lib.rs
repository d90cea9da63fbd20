//! Runs programs plain and shimmed, and compares.
