//! Runs the cooperative tree on a virtual clock.
