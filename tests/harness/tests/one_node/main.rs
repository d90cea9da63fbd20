//! Copper on one node, seen by the programs that run under it: whatever they print must be what
//! they print without it.

mod absences;
mod changes;
mod coexistence;
mod containers;
mod counters;
mod escapes;
mod faults;
mod fixture;
mod library_storm;
mod lifecycle;
mod loading;
mod random_trees;
mod reading;
mod real_programs;
mod starting;
mod symbols;
