//! Binding to a libfabric found at run time, through a small C shim.
