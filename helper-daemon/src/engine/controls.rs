//! Controls: dumping what is cached and counted, and beginning anew.
//!
//! What is dumped is put together at once; threads write it to files, since a directory that a user
//! names may lie on the origin.
#![forbid(unsafe_code)]

use super::tree::{Event, Waiter};
use super::{Engine, Reply, Token};
use crate::status::Survey;
use copper_core::catalog::reader::{Content, Kind};
use copper_core::control::{Control, EVENTS, Table, table};
use copper_core::counters::{Family, Outcome as Counted, QUESTIONS, Totals};
use copper_core::request::Outcome;
use copper_core::tree::Report;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// How long a control waits for nodes that do not reply.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest dump that an answer carries, in bytes.
const MOST_BODY: usize = 16 << 20;
/// Controls that are remembered.
const MOST_REMEMBERED: usize = 1024;
/// Nobody waits for what all nodes were told to write.
const NOBODY: Token = 0;

/// Controls that were used, and those under way.
#[derive(Debug, Default)]
pub(super) struct Controls {
    used: Vec<Control>,
    /// Clients that wait until all nodes have been told.
    telling: HashSet<Token>,
    /// Dumps that are being written because all nodes were told to.
    pending: u64,
    failed: u64,
}

impl Controls {
    /// Forgets a client that waits; says whether there was one.
    pub(super) fn forget(&mut self, token: Token) -> bool {
        self.telling.remove(&token)
    }

    /// Dumps for all nodes that are being written.
    pub(super) fn pending(&self) -> u64 {
        self.pending
    }

    /// Dumps for all nodes that could not be written.
    pub(super) fn failed(&self) -> u64 {
        self.failed
    }
}

impl Engine {
    /// Does what a client wants on this node.
    pub(super) fn control(&mut self, token: Token, [number, directory]: [&[u8]; 2]) {
        let Some(control) = parse(number) else {
            self.refuse(token, "no such control");
            return;
        };
        let directory = match self.directory(directory) {
            Ok(directory) => directory,
            Err(why) => return self.refuse(token, why),
        };
        let files = self.carry_out(control);
        self.pump();
        match directory {
            _ if files.is_empty() => self.reply(token, Outcome::Known),
            Some(directory) => {
                let directory = Path::new(OsStr::from_bytes(&directory)).to_owned();
                self.origin.write_out(token, directory, named(files));
            }
            None => {
                let body: Vec<u8> = files.into_iter().flat_map(|(_, text)| text).collect();
                if body.len() > MOST_BODY {
                    self.refuse(
                        token,
                        "this is too much to print; name a directory (--to DIR)",
                    );
                } else {
                    let outcome = Outcome::Known;
                    self.replies.push(Reply {
                        token,
                        outcome,
                        body,
                    });
                }
            }
        }
    }

    /// Tells all nodes what a client wants of them.
    pub(super) fn control_all(&mut self, token: Token, [number, directory]: [&[u8]; 2]) {
        let Some(control) = parse(number) else {
            self.refuse(token, "no such control");
            return;
        };
        let directory = match self.directory(directory) {
            Ok(directory) => directory.unwrap_or_default(),
            Err(why) => return self.refuse(token, why),
        };
        if directory.is_empty() && control.parts().any(|part| part.file().is_some()) {
            return self.refuse(token, "a directory is needed that all nodes see (--to DIR)");
        }
        let command = [&control.number().to_le_bytes()[..], &directory].concat();
        self.controls.telling.insert(token);
        self.tree.hand_in_later(Event::Command {
            waiter: Waiter(token),
            command: command.into(),
            deadline: self.tree.deadline(PATIENCE),
        });
        self.pump();
    }

    /// All nodes that can be reached have been told.
    pub(super) fn told_all(&mut self, token: Token, report: &Report) {
        let told = Survey {
            nodes: self.tree.nodes(),
            reached: report.reached,
            missing: report.missing.clone(),
            unnamed: report.unnamed,
            ..Survey::default()
        };
        self.replies.push(Reply {
            token,
            outcome: Outcome::Known,
            body: serde_json::to_vec(&told).unwrap_or_default(),
        });
    }

    /// Does what all nodes were told to do.
    pub(super) fn command(&mut self, command: &[u8]) {
        let Some((number, directory)) = command.split_first_chunk::<2>() else {
            return;
        };
        let Some(control) = Control::from_number(u16::from_le_bytes(*number)) else {
            tracing::warn!("a control that this version does not know was not carried out");
            self.controls.failed += 1;
            return;
        };
        let files = self.carry_out(control);
        if !files.is_empty() {
            self.controls.pending += 1;
            let directory = Path::new(OsStr::from_bytes(directory)).to_owned();
            self.origin.write_out(NOBODY, directory, named(files));
        }
    }

    /// A dump has been written, or not.
    pub(super) fn control_done(&mut self, token: Token, written: Result<(), String>) {
        if let Err(why) = &written {
            tracing::warn!(why, "a control was not carried out");
        }
        if token == NOBODY {
            self.controls.pending -= 1;
            self.controls.failed += u64::from(written.is_err());
            return;
        }
        match written {
            Ok(()) => self.reply(token, Outcome::Known),
            Err(why) => self.refuse(token, &why),
        }
    }

    fn refuse(&mut self, token: Token, why: &str) {
        self.replies.push(Reply {
            token,
            outcome: Outcome::Refused,
            body: why.as_bytes().to_vec(),
        });
    }

    /// Where to write to: out of the view, absolute; `None` where nothing is named.
    fn directory(&self, named: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
        if named.is_empty() {
            return Ok(None);
        }
        let directory = self.origin_path(named);
        let directory = directory.ok_or("the directory must be an absolute path")?;
        Ok(Some(directory.to_vec()))
    }

    /// Clears and sets back; returns what is to be written, by file.
    fn carry_out(&mut self, control: Control) -> Vec<(Control, Vec<u8>)> {
        let files = control
            .parts()
            .filter(|part| part.file().is_some())
            .map(|part| (part, self.dump(part)))
            .collect();
        if control.clears() {
            self.clear();
        }
        self.tally.set_back(control);
        match control {
            Control::ResetControls | Control::ResetAll => self.controls.used.clear(),
            used if self.controls.used.len() < MOST_REMEMBERED => self.controls.used.push(used),
            _ => {}
        }
        files
    }

    /// Forgets what is cached on this node; the others keep what they have.
    fn clear(&mut self) {
        let told = self.touched.len();
        self.forget_below(b"/");
        self.touched.truncate(told);
    }

    fn dump(&self, control: Control) -> Vec<u8> {
        let calls = || self.tally.calls();
        match control {
            Control::DumpTables => {
                [self.tree_table(), self.data_table(), self.metadata_table()].concat()
            }
            Control::DumpDataSizes => self.data_sizes(),
            Control::DumpTreeSizes => self.tree_sizes(),
            Control::DumpMetadataSizes => self.metadata_sizes(),
            Control::DumpCounts => by_family("operation", &calls(), &Counted::ALL),
            Control::DumpHits => by_family("operation_cache_hit", &calls(), &[Counted::Hit]),
            Control::DumpMisses => by_family("operation_cache_miss", &calls(), &[Counted::Asked]),
            Control::DumpNegatives => {
                by_family("operation_cache_neg", &calls(), &[Counted::Absent])
            }
            Control::DumpTimes => times(&calls()),
            Control::DumpDataEvents => events("data_cache_event", &calls(), Table::Data),
            Control::DumpTreeEvents => events("tree_cache_event", &calls(), Table::Tree),
            Control::DumpMetadataEvents => events("md_cache_event", &calls(), Table::Metadata),
            Control::DumpControls => self.controls_used(),
            _ => Vec::new(),
        }
    }

    /// The files whose bytes are stored, with their sizes.
    fn stored(&self) -> Vec<(&[u8], u64)> {
        let reader = self.writer.reader();
        let stored = reader.records().filter(|record| {
            record.attributes().is_regular() && matches!(reader.content(record), Content::Stored(_))
        });
        let mut stored: Vec<_> = stored
            .map(|record| (record.path(), record.attributes().size))
            .collect();
        stored.sort_unstable();
        stored
    }

    /// The directories known whole, with the number of names and the bytes of these.
    fn listed(&self) -> Vec<(&[u8], usize, usize)> {
        let reader = self.writer.reader();
        let mut listed: Vec<_> = reader
            .records()
            .filter_map(|record| {
                let listing = reader.listing(&record)?;
                let names = listing.iter().map(|entry| entry.name.len());
                let (count, bytes) = names.fold((0, 0), |(n, sum), length| (n + 1, sum + length));
                Some((record.path(), count, bytes))
            })
            .collect();
        listed.sort_unstable();
        listed
    }

    fn tree_table(&self) -> Vec<u8> {
        let lines = self.listed().into_iter();
        lines_in(
            "tree_cache_table",
            lines.map(|(path, names, _)| (path, format!("{names} names"))),
        )
    }

    fn data_table(&self) -> Vec<u8> {
        let lines = self.stored().into_iter();
        lines_in(
            "data_cache_table",
            lines.map(|(path, size)| (path, format!("data_size: {size}"))),
        )
    }

    fn metadata_table(&self) -> Vec<u8> {
        let mut known: Vec<_> = self
            .writer
            .reader()
            .records()
            .map(|record| {
                let attributes = record.attributes();
                let said = match record.kind() {
                    Kind::Present => format!(
                        "mode: {:o}, size: {}, inode: {}",
                        attributes.mode, attributes.size, attributes.inode
                    ),
                    Kind::Absent(errno) => format!("absent: errno {errno}"),
                    Kind::Pass => "left to the origin".to_owned(),
                };
                (record.path(), said)
            })
            .collect();
        known.sort_unstable();
        lines_in("md_cache_table", known.into_iter())
    }

    fn data_sizes(&self) -> Vec<u8> {
        let mut stored = self.stored();
        stored.sort_by_key(|(_, size)| *size);
        let (files, bytes) = (stored.len(), stored.iter().map(|(_, size)| size).sum());
        sizes(stored.into_iter(), files, bytes)
    }

    fn tree_sizes(&self) -> Vec<u8> {
        let listed = self.listed();
        let bytes = listed.iter().map(|(_, _, bytes)| *bytes as u64).sum();
        let lines = listed.iter().map(|(path, _, bytes)| (*path, *bytes as u64));
        sizes(lines, listed.len(), bytes)
    }

    fn metadata_sizes(&self) -> Vec<u8> {
        let reader = self.writer.reader();
        let mut known: Vec<_> = reader
            .records()
            .map(|record| (record.path(), record.length()))
            .collect();
        known.sort_unstable();
        let (entries, bytes) = (known.len(), known.iter().map(|(_, length)| length).sum());
        sizes(known.into_iter(), entries, bytes)
    }

    fn controls_used(&self) -> Vec<u8> {
        let mut text = String::from("Ioctl Events {\n");
        for control in &self.controls.used {
            let _ = writeln!(text, "cmd: {}", control.number());
        }
        text += "}\n";
        text.into_bytes()
    }
}

fn parse(number: &[u8]) -> Option<Control> {
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    Control::from_number(number)
}

/// Dumps with the names of their files: the node's name and the helper's pid before the control's.
fn named(files: Vec<(Control, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let system = rustix::system::uname();
    let start = format!(
        "{}-{}",
        system.nodename().to_string_lossy(),
        std::process::id()
    );
    let name = |control: Control| format!("{start}-{}", control.file().unwrap_or_default());
    let files = files.into_iter();
    files.map(|(control, text)| (name(control), text)).collect()
}

/// What the first Copper calls a family's operation.
fn operation(family: Family) -> &'static str {
    match family {
        Family::Stat => "getattr",
        Family::List => "readdir",
        family => family.name(),
    }
}

fn by_family(title: &str, calls: &Totals, outcomes: &[Counted]) -> Vec<u8> {
    let mut text = format!("{title} {{\n");
    for family in Family::ALL {
        let sums = outcomes.iter().map(|&how| calls.of(family, how));
        let sum = sums.fold(0, u64::saturating_add);
        let _ = writeln!(text, "{}: {sum},", operation(family));
    }
    text += "}\n";
    text.into_bytes()
}

fn events(title: &str, calls: &Totals, of: Table) -> Vec<u8> {
    let mut text = format!("{title} {{\n");
    for family in Family::ALL
        .into_iter()
        .filter(|family| table(*family) == of)
    {
        let [hit, miss, neg] = EVENTS.map(|how| calls.of(family, how));
        let name = operation(family);
        let _ = writeln!(text, "{name}: hit: {hit}, miss: {miss}, neg: {neg},");
    }
    text += "}\n";
    text.into_bytes()
}

fn times(calls: &Totals) -> Vec<u8> {
    let mut text = String::from("operation_timer {\n");
    for (question, waited) in QUESTIONS.iter().zip(calls.waited) {
        let _ = writeln!(text, "{question}: {} ms,", waited / 1000);
    }
    text += "}\nwaits {\n";
    for (bucket, waits) in calls
        .waits
        .iter()
        .enumerate()
        .filter(|(_, waits)| **waits > 0)
    {
        let _ = writeln!(text, "up to {} us: {waits},", 2_u64 << bucket);
    }
    text += "}\n";
    text.into_bytes()
}

fn lines_in<'p>(title: &str, lines: impl Iterator<Item = (&'p [u8], String)>) -> Vec<u8> {
    let mut text = format!("{title} {{\n").into_bytes();
    for (path, said) in lines {
        text.extend_from_slice(path);
        text.extend_from_slice(format!(": {said}\n").as_bytes());
    }
    text.extend_from_slice(b"}\n");
    text
}

fn sizes<'p>(lines: impl Iterator<Item = (&'p [u8], u64)>, entries: usize, bytes: u64) -> Vec<u8> {
    const RULE: &str = "=============================================\n";
    let mut text = Vec::new();
    for (path, size) in lines {
        text.extend_from_slice(path);
        text.extend_from_slice(format!(": {size}\n").as_bytes());
    }
    let end = format!("{RULE}Total bytes: {bytes}\ntotal number of entries: {entries}\n{RULE}");
    text.extend_from_slice(end.as_bytes());
    text
}
