//! Controls: what a user can have dumped, cleared and set back, by the numbers that the first
//! Copper's scripts give to `ioctl` on its mount.
#![forbid(unsafe_code)]

use crate::counters::{Family, Outcome, Totals};

/// The name of the file that the first Copper's scripts open for the sake of `ioctl`, for reading
/// and writing.
pub const FILE: &[u8] = b".spec_ioctl_file";

/// Defines the controls with their numbers and the words that `copper control` takes.
macro_rules! controls {
    ($($(#[$what:meta])* $name:ident = $number:literal, $action:ident $subject:literal;)*) => {
        /// One control.
        #[repr(u16)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Control {
            $($(#[$what])* $name = $number,)*
        }

        impl Control {
            /// All of them.
            pub const ALL: &[Control] = &[$(Control::$name,)*];

            /// What it does.
            pub const fn action(self) -> Action {
                match self {
                    $(Control::$name => Action::$action,)*
                }
            }

            /// To what it does it.
            pub const fn subject(self) -> &'static str {
                match self {
                    $(Control::$name => $subject,)*
                }
            }
        }
    };
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is written down.
    Dump,
    /// It is forgotten, and will be asked of those above, or the origin, again.
    Clear,
    /// Its counts begin at zero again.
    Reset,
}

controls! {
    /// Everything that is cached on the node.
    ClearTables = 100, Clear "tables";
    /// The cached files, the directories known whole, and the attributes known.
    DumpTables = 200, Dump "tables";
    /// Calls by family.
    DumpCounts = 300, Dump "counts";
    /// Time that programs waited for the helper.
    DumpTimes = 400, Dump "times";
    /// Calls that were answered at once.
    DumpHits = 500, Dump "hits";
    /// Calls for which the helper had to be asked.
    DumpMisses = 600, Dump "misses";
    /// All counts of calls, hits, misses and negatives among them.
    ResetCounts = 700, Reset "counts";
    /// See [`Control::DumpHits`].
    ResetHits = 800, Reset "hits";
    /// See [`Control::DumpMisses`].
    ResetMisses = 900, Reset "misses";
    /// See [`Control::DumpTimes`].
    ResetTimes = 1000, Reset "times";
    /// Hits, misses and negatives of calls that need files' bytes.
    DumpDataEvents = 1100, Dump "data-events";
    /// Hits, misses and negatives of calls that list directories.
    DumpTreeEvents = 1200, Dump "tree-events";
    /// Hits, misses and negatives of calls that need attributes.
    DumpMetadataEvents = 1300, Dump "metadata-events";
    /// See [`Control::DumpDataEvents`].
    ResetDataEvents = 1400, Reset "data-events";
    /// See [`Control::DumpTreeEvents`].
    ResetTreeEvents = 1500, Reset "tree-events";
    /// See [`Control::DumpMetadataEvents`].
    ResetMetadataEvents = 1600, Reset "metadata-events";
    /// Calls that were answered at once with "no such file".
    DumpNegatives = 1700, Dump "negatives";
    /// See [`Control::DumpNegatives`].
    ResetNegatives = 1800, Reset "negatives";
    /// All that is cached, and all counts.
    ResetAll = 1900, Reset "all";
    /// All that can be dumped, each in its own file.
    DumpAll = 2000, Dump "all";
    /// The controls that were used.
    ResetControls = 2100, Reset "controls";
    /// See [`Control::ResetControls`].
    DumpControls = 2200, Dump "controls";
    /// The cached files and their sizes.
    DumpDataSizes = 2300, Dump "data-sizes";
    /// The directories known whole and the sizes of their listings.
    DumpTreeSizes = 2400, Dump "tree-sizes";
    /// The paths whose attributes are known.
    DumpMetadataSizes = 2500, Dump "metadata-sizes";
}

impl Control {
    /// Its number, which is `ioctl`'s request.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The control of a number.
    pub fn from_number(number: u16) -> Option<Control> {
        let at = usize::from(number / 100).checked_sub(1)?;
        let found = Control::ALL.get(at).copied()?;
        (found.number() == number).then_some(found)
    }

    /// The control that does `action` to `subject`.
    pub fn named(action: Action, subject: &str) -> Option<Control> {
        let mut all = Control::ALL.iter().copied();
        all.find(|control| control.action() == action && control.subject() == subject)
    }

    /// The controls that [`Control::DumpAll`] stands for, or the control itself.
    pub fn parts(self) -> impl Iterator<Item = Control> {
        let is_part = move |part: &Control| match self {
            Control::DumpAll => part.file().is_some(),
            one => *part == one,
        };
        Control::ALL.iter().copied().filter(is_part)
    }

    /// The name of the file that a dump is written to, behind the node's name and the helper's pid.
    pub const fn file(self) -> Option<&'static str> {
        Some(match self {
            Control::DumpTables => "cache_tables.output",
            Control::DumpCounts => "operation_count.output",
            Control::DumpTimes => "operation_time.output",
            Control::DumpHits => "operation_cache_hit.output",
            Control::DumpMisses => "operation_cache_miss.output",
            Control::DumpNegatives => "operation_cache_neg.output",
            Control::DumpDataEvents => "data_table_cache_event.output",
            Control::DumpTreeEvents => "tree_table_cache_event.output",
            Control::DumpMetadataEvents => "md_table_cache_event.output",
            Control::DumpControls => "ioctl_cache_event.output",
            Control::DumpDataSizes => "data_cache_size.output",
            Control::DumpTreeSizes => "tree_cache_size.output",
            Control::DumpMetadataSizes => "md_cache_size.output",
            _ => return None,
        })
    }

    /// Whether it makes the node forget what it has cached.
    pub const fn clears(self) -> bool {
        matches!(self, Control::ClearTables | Control::ResetAll)
    }

    /// Begins the counts that this sets back at what there is `now`.
    pub fn set_back(self, since: &mut Totals, now: &Totals) {
        let mut calls = |families: fn(Family) -> bool, outcomes: &[Outcome]| {
            for family in Family::ALL.into_iter().filter(|family| families(*family)) {
                for &outcome in outcomes {
                    let place = (family as usize, outcome as usize);
                    since.calls[place.0][place.1] = now.calls[place.0][place.1];
                }
            }
        };
        let events = &EVENTS;
        match self {
            Control::ResetHits => calls(|_| true, &[Outcome::Hit]),
            Control::ResetMisses => calls(|_| true, &[Outcome::Asked]),
            Control::ResetNegatives => calls(|_| true, &[Outcome::Absent]),
            Control::ResetDataEvents => calls(|family| table(family) == Table::Data, events),
            Control::ResetTreeEvents => calls(|family| table(family) == Table::Tree, events),
            Control::ResetMetadataEvents => {
                calls(|family| table(family) == Table::Metadata, events);
            }
            Control::ResetCounts => {
                calls(|_| true, &Outcome::ALL);
                (since.processes, since.bytes_served) = (now.processes, now.bytes_served);
            }
            Control::ResetTimes => {
                (since.waits, since.waited) = (now.waits, now.waited);
            }
            Control::ResetAll => *since = now.clone(),
            _ => {}
        }
    }
}

/// The outcomes that are events of a table: hits, misses, negatives.
pub const EVENTS: [Outcome; 3] = [Outcome::Hit, Outcome::Asked, Outcome::Absent];

/// What the first Copper keeps apart as tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The bytes of files.
    Data,
    /// The listings of directories.
    Tree,
    /// The attributes of paths.
    Metadata,
}

impl Table {
    /// All of them, by number.
    pub const ALL: [Table; 3] = [Table::Data, Table::Tree, Table::Metadata];
}

/// The table that a family's calls are answered from.
pub const fn table(family: Family) -> Table {
    match family {
        Family::Open | Family::Dlopen => Table::Data,
        Family::List => Table::Tree,
        _ => Table::Metadata,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn numbers_are_hundreds_and_lead_back() {
        for (at, control) in Control::ALL.iter().enumerate() {
            assert_eq!(usize::from(control.number()), (at + 1) * 100);
            assert_eq!(Control::from_number(control.number()), Some(*control));
            let named = Control::named(control.action(), control.subject());
            assert_eq!(named, Some(*control));
        }
        for number in [0, 1, 99, 150, 101, 2600, u16::MAX] {
            assert_eq!(Control::from_number(number), None, "{number}");
        }
    }

    #[test]
    fn every_dump_has_a_file_of_its_own() {
        let dumps: Vec<_> = Control::DumpAll.parts().collect();
        assert_eq!(dumps.len(), 13);
        let mut files: Vec<_> = dumps.iter().filter_map(|dump| dump.file()).collect();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), dumps.len());
        let one: Vec<_> = Control::DumpHits.parts().collect();
        assert_eq!(one, [Control::DumpHits]);
        assert_eq!(Control::DumpAll.file(), None);
    }

    #[test]
    fn what_is_set_back_begins_anew_and_nothing_else() {
        let mut now = Totals {
            processes: 3,
            bytes_served: 10,
            ..Totals::default()
        };
        now.calls.as_flattened_mut().fill(5);
        now.waits.fill(2);
        let after = |control: Control| {
            let mut since = Totals::default();
            control.set_back(&mut since, &now);
            let mut rest = now.clone();
            rest.subtract(&since);
            rest
        };
        let rest = after(Control::ResetHits);
        assert_eq!(rest.ended(Outcome::Hit), 5, "one place has no family");
        assert_eq!(rest.of(Family::Stat, Outcome::Hit), 0);
        assert_eq!(rest.of(Family::Stat, Outcome::Asked), 5);
        assert_eq!(rest.waits[0], 2);
        let rest = after(Control::ResetDataEvents);
        assert_eq!(rest.of(Family::Open, Outcome::Hit), 0);
        assert_eq!(rest.of(Family::Open, Outcome::Uncovered), 5);
        assert_eq!(rest.of(Family::Stat, Outcome::Hit), 5);
        let rest = after(Control::ResetTimes);
        assert_eq!((rest.waits(), rest.of(Family::Open, Outcome::Hit)), (0, 5));
        let rest = after(Control::ResetCounts);
        assert_eq!((rest.processes, rest.bytes_served), (0, 0));
        assert_eq!(rest.of(Family::Stat, Outcome::Uncovered), 0);
        assert_eq!(rest.waits[0], 2);
        assert_eq!(after(Control::ResetAll), Totals::default());
        assert_eq!(after(Control::DumpAll), now);
    }
}
