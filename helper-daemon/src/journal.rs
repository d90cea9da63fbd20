//! What a helper obtained: each object with the time it took, where it came from and how often it
//! was asked for; and what it left to the origin, and why.
//!
//! It is kept always, since the question why a job was slow is asked afterwards. It costs a few
//! look-ups in hash maps for each object that comes from the origin or the tree, and nothing where
//! a program is answered from the catalog. Its memory is bounded: [`SHORT`] objects, [`LONG`]
//! where all paths are wanted; what comes later is counted only.
#![forbid(unsafe_code)]

mod timeline;

pub(crate) use timeline::Timeline;

use copper_core::control::Table;
use copper_core::request::Operation;
use copper_core::tree::paths::{Escaped, MAX_NAMED, SlowObject, name};
use copper_core::tree::{Kind, Object, Rank};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Objects that are kept, as a rule.
pub(crate) const SHORT: usize = 16_384;
/// Objects that are kept where all paths are wanted.
pub(crate) const LONG: usize = 1_000_000;
/// Paths that are kept of those left to the origin.
const MOST_PASSED: usize = 4_096;

/// Where an object came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// This helper read it from the origin.
    Origin,
    /// Another helper sent it.
    Tree,
}

/// Why something was left to the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// The file is longer than `--largest` or than the store may be.
    TooLarge,
    /// The store has no room for it.
    NoRoom,
    /// The directory has more names than `--directory-limit`, or may not be listed.
    ByName,
    /// It is no regular file: a device, a pipe, a socket.
    Special,
    /// The origin refused it or failed.
    Refused,
    /// It changed while it was read.
    Changed,
    /// A program has it open for writing.
    Written,
    /// No answer came in time.
    TimedOut,
    /// The catalog is full.
    CatalogFull,
    /// It lies where Copper never serves, as /proc.
    Outside,
}

impl Reason {
    /// All of them, by number.
    const ALL: [Reason; 10] = [
        Reason::TooLarge,
        Reason::NoRoom,
        Reason::ByName,
        Reason::Special,
        Reason::Refused,
        Reason::Changed,
        Reason::Written,
        Reason::TimedOut,
        Reason::CatalogFull,
        Reason::Outside,
    ];

    /// The reason of this number.
    pub(crate) fn from_number(number: u8) -> Option<Reason> {
        Reason::ALL.get(usize::from(number)).copied()
    }

    /// In words that follow a path.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Reason::TooLarge => "longer than the largest file that is cached",
            Reason::NoRoom => "no room in the store",
            Reason::ByName => "directory too large to be fetched whole",
            Reason::Special => "no regular file",
            Reason::Refused => "refused by the origin",
            Reason::Changed => "changed while it was read",
            Reason::Written => "being written",
            Reason::TimedOut => "no answer in time",
            Reason::CatalogFull => "the catalog is full",
            Reason::Outside => "never served by Copper",
        }
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// The attributes of one name.
    #[default]
    Entry,
    /// A directory with the attributes of all names.
    Directory,
    /// A file's bytes.
    File,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Entry => "entry",
            What::Directory => "directory",
            What::File => "file",
        })
    }
}

impl From<Kind> for What {
    fn from(kind: Kind) -> What {
        match kind {
            Kind::Entry | Kind::Closure => What::Entry,
            Kind::Directory => What::Directory,
            Kind::Content => What::File,
        }
    }
}

/// An object that a helper obtained.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Obtained {
    /// Its path on the origin.
    pub(crate) path: String,
    /// What it is.
    pub(crate) what: What,
    /// Where it came from the last time.
    pub(crate) from: Source,
    /// When it was first asked for, in milliseconds since the helper's start.
    pub(crate) asked_at_ms: f64,
    /// How long it took from then until it was here, in milliseconds.
    pub(crate) took_ms: f64,
    /// Its length, in bytes.
    pub(crate) bytes: u64,
    /// Questions of this node's programs that waited for it.
    pub(crate) asked: u32,
    /// How often it was obtained: again after an eviction or a change.
    pub(crate) times: u32,
    /// The origin has no such name.
    pub(crate) absent: bool,
}

/// Something that was left to the origin.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Passed {
    /// Its path on the origin.
    pub(crate) path: String,
    /// Why, the last time.
    pub(crate) why: Reason,
    /// How often the helper said so.
    pub(crate) times: u64,
    /// Its length, in bytes, where it is a file.
    pub(crate) bytes: u64,
}

/// A covered path that programs asked for, with estimates of how often and how that ended.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct HotPath {
    /// It, on the origin.
    pub(crate) path: String,
    /// What it was asked for as: a file, a directory, or a name.
    pub(crate) what: What,
    /// Answered at once.
    pub(crate) hits: u64,
    /// Answered at once: there is no such name.
    pub(crate) absent: u64,
    /// Answered after a question to the helper.
    pub(crate) asked: u64,
    /// Left to the origin.
    pub(crate) passed: u64,
}

impl HotPath {
    /// A path that was asked for in this table.
    pub(crate) fn new(path: String, table: Table) -> HotPath {
        HotPath {
            path,
            what: match table {
                Table::Data => What::File,
                Table::Tree => What::Directory,
                Table::Metadata => What::Entry,
            },
            ..HotPath::default()
        }
    }

    /// All calls.
    pub(crate) fn calls(&self) -> u64 {
        self.hits + self.absent + self.asked + self.passed
    }
}

/// Objects and bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Sum {
    /// Objects.
    pub(crate) objects: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// Questions of one kind that programs asked of the helper.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Questions {
    /// All of them that were answered.
    pub(crate) asked: u64,
    /// Of these, answered from what was known.
    pub(crate) at_once: u64,
    /// Of these, left to the origin.
    pub(crate) passed: u64,
    /// How long all of them together took, in microseconds.
    pub(crate) took_us: u64,
}

/// Questions by what was asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ByQuestion {
    /// Paths to resolve.
    pub(crate) resolve: Questions,
    /// Directories to list.
    pub(crate) list: Questions,
    /// Files to store.
    pub(crate) content: Questions,
    /// Libraries to store with what they need.
    pub(crate) closure: Questions,
    /// Changes and refreshes.
    pub(crate) change: Questions,
}

/// The journal, as it is handed out.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Excerpt {
    /// When the helper started, in milliseconds since 1970.
    pub(crate) started_unix_ms: u64,
    /// Age of the helper, in milliseconds.
    pub(crate) age_ms: u64,
    /// When it served, in milliseconds since its start.
    pub(crate) serving_ms: Option<f64>,
    /// When it had met its parents in the job's trees.
    pub(crate) ready_ms: Option<f64>,
    /// Objects, the slowest first.
    pub(crate) obtained: Vec<Obtained>,
    /// Objects that are not among these.
    pub(crate) left_out: u64,
    /// What was left to the origin, the most frequent first.
    pub(crate) passed: Vec<Passed>,
    /// Paths that are not among these.
    pub(crate) passed_left_out: u64,
    /// All that came from the origin.
    pub(crate) from_origin: Sum,
    /// All that came from other helpers.
    pub(crate) from_tree: Sum,
    /// Names that turned out to be absent.
    pub(crate) absent: u64,
    /// What was asked.
    pub(crate) questions: ByQuestion,
    /// When things came.
    pub(crate) timeline: Timeline,
    /// Covered paths that programs asked for most, as far as calls were noted with their paths.
    pub(crate) hot: Vec<HotPath>,
}

/// What is known of one object.
#[derive(Debug)]
struct Record {
    asked_at: Instant,
    took: Option<Duration>,
    from: Source,
    bytes: u64,
    asked: u32,
    times: u32,
    absent: bool,
}

/// The journal of a helper.
#[derive(Debug)]
pub(crate) struct Journal {
    started: Instant,
    started_unix_ms: u64,
    serving: Option<Duration>,
    ready: Option<Duration>,
    most: usize,
    objects: HashMap<Object, Record>,
    /// Objects that this helper has asked the origin for and not obtained yet.
    asked_origin: HashSet<Object>,
    left_out: u64,
    passed: HashMap<Box<[u8]>, (Reason, u64, u64)>,
    passed_left_out: u64,
    from_origin: Sum,
    from_tree: Sum,
    absent: u64,
    questions: ByQuestion,
    timeline: Timeline,
}

impl Journal {
    /// An empty journal of a helper that `started` then, for up to `most` objects. For none it keeps
    /// only what was left to the origin and why, which the helper goes by itself.
    pub(crate) fn new(started: Instant, most: usize) -> Journal {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = now.unwrap_or_default().saturating_sub(started.elapsed());
        Journal {
            started,
            started_unix_ms: since.as_millis() as u64,
            serving: None,
            ready: None,
            most,
            objects: HashMap::new(),
            asked_origin: HashSet::new(),
            left_out: 0,
            passed: HashMap::new(),
            passed_left_out: 0,
            from_origin: Sum::default(),
            from_tree: Sum::default(),
            absent: 0,
            questions: ByQuestion::default(),
            timeline: Timeline::default(),
        }
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// The helper serves; returns how long that took since its start.
    pub(crate) fn note_serving(&mut self) -> Duration {
        *self.serving.insert(self.started.elapsed())
    }

    /// The helper has met its parents; returns how long that took since its start, the first time.
    pub(crate) fn note_ready(&mut self) -> Option<Duration> {
        let first = self.ready.is_none();
        let ready = *self.ready.get_or_insert(self.started.elapsed());
        first.then_some(ready)
    }

    fn record(&mut self, object: &Object, now: Instant) -> Option<&mut Record> {
        let is_full = self.objects.len() >= self.most;
        match self.objects.entry(object.clone()) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(_) if is_full => None,
            Entry::Vacant(new) => Some(new.insert(Record {
                asked_at: now,
                took: None,
                from: Source::Tree,
                bytes: 0,
                asked: 0,
                times: 0,
                absent: false,
            })),
        }
    }

    /// A question of a program waits for an object.
    pub(crate) fn asked(&mut self, object: &Object) {
        if self.most == 0 {
            return;
        }
        if let Some(record) = self.record(object, Instant::now()) {
            record.asked += 1;
        }
    }

    /// This helper asks the origin for an object.
    pub(crate) fn asked_origin(&mut self, object: &Object) {
        if self.most == 0 {
            return;
        }
        self.record(object, Instant::now());
        if self.asked_origin.len() >= self.most {
            // What the origin never answered.
            self.asked_origin.clear();
        }
        self.asked_origin.insert(object.clone());
    }

    /// An object is here, or is known to be `absent`.
    pub(crate) fn obtained(&mut self, object: &Object, bytes: u64, absent: bool) {
        if self.most == 0 {
            return;
        }
        let now = Instant::now();
        let from = match self.asked_origin.remove(object) {
            true => Source::Origin,
            false => Source::Tree,
        };
        match self.record(object, now) {
            Some(record) => {
                let asked_at = record.asked_at;
                record
                    .took
                    .get_or_insert_with(|| now.saturating_duration_since(asked_at));
                record.from = from;
                record.bytes = bytes;
                record.absent = absent;
                record.times += 1;
            }
            None => self.left_out += 1,
        }
        let sum = match from {
            Source::Origin => &mut self.from_origin,
            Source::Tree => &mut self.from_tree,
        };
        sum.add(bytes);
        self.absent += u64::from(absent);
        let at = self.since(now);
        self.timeline.note(at, from, bytes);
    }

    /// A program is told to ask the origin.
    pub(crate) fn passed(&mut self, path: &[u8], why: Reason, bytes: u64) {
        self.note_passed(path, why, bytes, 1);
    }

    /// Programs that ask from now on will be told to ask the origin.
    pub(crate) fn passing(&mut self, path: &[u8], why: Reason) {
        self.note_passed(path, why, 0, 0);
    }

    fn note_passed(&mut self, path: &[u8], why: Reason, bytes: u64, times: u64) {
        if let Some(known) = self.passed.get_mut(path) {
            known.0 = why;
            known.1 += times;
            known.2 = known.2.max(bytes);
        } else if self.passed.len() < MOST_PASSED {
            self.passed.insert(path.into(), (why, times, bytes));
        } else {
            self.passed_left_out += times;
        }
    }

    /// Why a path was left to the origin before.
    pub(crate) fn why_passed(&self, path: &[u8]) -> Option<Reason> {
        self.passed.get(path).map(|(why, ..)| *why)
    }

    /// A question was answered that came at `asked` and `waited` or not.
    pub(crate) fn answered(
        &mut self,
        operation: Operation,
        asked: Instant,
        waited: bool,
        is_passed: bool,
    ) {
        if self.most == 0 {
            return;
        }
        let now = Instant::now();
        let questions = match operation {
            Operation::Resolve => &mut self.questions.resolve,
            Operation::Listing => &mut self.questions.list,
            Operation::Content => &mut self.questions.content,
            Operation::Closure => &mut self.questions.closure,
            _ => &mut self.questions.change,
        };
        questions.asked += 1;
        questions.at_once += u64::from(!waited && !is_passed);
        questions.passed += u64::from(is_passed);
        questions.took_us += now.saturating_duration_since(asked).as_micros() as u64;
        if !waited && !is_passed {
            let at = self.since(now);
            self.timeline.note_local(at);
        }
    }

    /// The journal with its `most` slowest objects.
    pub(crate) fn excerpt(&self, most: usize) -> Excerpt {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let mut slowest: Vec<(&Object, &Record, Duration)> = self
            .objects
            .iter()
            .filter_map(|(object, record)| Some((object, record, record.took?)))
            .collect();
        let more = slowest.len().saturating_sub(most) as u64;
        slowest.sort_unstable_by(|(one, _, first), (other, _, second)| {
            let slower = second.cmp(first);
            slower.then_with(|| one.path().cmp(other.path()))
        });
        slowest.truncate(most);
        let obtained = slowest.into_iter().map(|(object, record, took)| Obtained {
            path: show_path(object.path()),
            what: object.kind().into(),
            from: record.from,
            asked_at_ms: ms(self.since(record.asked_at)),
            took_ms: ms(took),
            bytes: record.bytes,
            asked: record.asked,
            times: record.times,
            absent: record.absent,
        });
        let passed = self
            .passed
            .iter()
            .map(|(path, (why, times, bytes))| Passed {
                path: show_path(path),
                why: *why,
                times: *times,
                bytes: *bytes,
            });
        let mut passed: Vec<Passed> = passed.collect();
        passed.sort_unstable_by(|one, other| {
            let more = other.times.cmp(&one.times);
            more.then_with(|| one.path.cmp(&other.path))
        });
        Excerpt {
            started_unix_ms: self.started_unix_ms,
            age_ms: self.started.elapsed().as_millis() as u64,
            serving_ms: self.serving.map(ms),
            ready_ms: self.ready.map(ms),
            obtained: obtained.collect(),
            left_out: self.left_out + more,
            passed,
            passed_left_out: self.passed_left_out,
            from_origin: self.from_origin,
            from_tree: self.from_tree,
            absent: self.absent,
            questions: self.questions,
            timeline: self.timeline.clone(),
            hot: Vec::new(),
        }
    }

    /// The slowest objects that programs waited for and the most frequent paths that were left to the
    /// origin, as this node, which is `rank`, names them in a survey.
    pub(crate) fn named(&self, rank: Rank) -> (Vec<SlowObject>, Vec<Escaped>) {
        let came = self.objects.iter();
        let mut slow: Vec<(&Object, &Record, Duration)> = came
            .filter(|(_, record)| record.asked > 0)
            .filter_map(|(object, record)| Some((object, record, record.took?)))
            .collect();
        if slow.len() > MAX_NAMED {
            slow.select_nth_unstable_by_key(MAX_NAMED, |(_, _, took)| Reverse(*took));
            slow.truncate(MAX_NAMED);
        }
        let slow = slow.into_iter().map(|(object, record, took)| SlowObject {
            path: name(object.path()),
            kind: object.kind(),
            rank,
            from_origin: record.from == Source::Origin,
            asked_at: self.started_unix_ms * 1000 + micros(self.since(record.asked_at)),
            took: micros(took),
            bytes: record.bytes,
        });
        let escaped = self.passed.iter();
        let mut escaped: Vec<Escaped> = escaped
            .map(|(path, (why, times, bytes))| Escaped {
                path: name(path),
                why: *why as u8,
                times: *times,
                bytes: *bytes,
            })
            .collect();
        escaped.sort_unstable_by(|one, other| {
            let more = other.times.cmp(&one.times);
            more.then_with(|| one.path.cmp(&other.path))
        });
        escaped.truncate(MAX_NAMED);
        (slow.collect(), escaped)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A path as text; bytes that are no text are escaped.
pub(crate) fn show_path(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(path: &str) -> Object {
        Object::new(Kind::Content, path.as_bytes()).unwrap()
    }

    #[test]
    fn an_object_is_told_by_where_it_came_from_and_how_long_it_took() {
        let mut journal = Journal::new(Instant::now(), 10);
        journal.asked(&object("/from/origin"));
        journal.asked_origin(&object("/from/origin"));
        journal.asked(&object("/from/origin"));
        journal.obtained(&object("/from/origin"), 100, false);
        journal.obtained(&object("/from/tree"), 20, false);
        let excerpt = journal.excerpt(10);
        let found = |path: &str| {
            let mut all = excerpt.obtained.iter();
            all.find(|found| found.path == path).unwrap().clone()
        };
        let origin = found("/from/origin");
        assert_eq!((origin.from, origin.asked), (Source::Origin, 2));
        assert_eq!((origin.bytes, origin.times), (100, 1));
        let tree = found("/from/tree");
        assert_eq!((tree.from, tree.asked), (Source::Tree, 0));
        assert_eq!(excerpt.from_origin.bytes, 100);
        assert_eq!(excerpt.from_tree.bytes, 20);
        assert_eq!(excerpt.timeline.totals(), [1, 1, 0]);
    }

    #[test]
    fn memory_is_bounded_and_sums_are_not() {
        let mut journal = Journal::new(Instant::now(), 3);
        for number in 0..10 {
            let object = object(&format!("/file-{number}"));
            journal.asked(&object);
            journal.asked_origin(&object);
            journal.obtained(&object, 5, false);
            journal.passed(format!("/{number}").as_bytes(), Reason::TooLarge, 9);
        }
        for number in 0..2 * MOST_PASSED {
            journal.passed(format!("/{number}").as_bytes(), Reason::TooLarge, 9);
        }
        let excerpt = journal.excerpt(2);
        assert_eq!((excerpt.obtained.len(), excerpt.left_out), (2, 8));
        assert_eq!(
            (excerpt.from_origin.bytes, excerpt.from_tree.bytes),
            (50, 0)
        );
        assert_eq!(excerpt.passed.len(), MOST_PASSED);
        assert_eq!(excerpt.passed_left_out, MOST_PASSED as u64);
        assert_eq!(excerpt.passed[0].times, 2);
    }

    #[test]
    fn reasons_lead_back_from_their_numbers() {
        for (number, why) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, number);
            assert_eq!(Reason::from_number(number as u8), Some(why));
        }
        assert_eq!(Reason::from_number(Reason::ALL.len() as u8), None);
    }

    #[test]
    fn the_slowest_that_somebody_waited_for_are_named() {
        let mut journal = Journal::new(Instant::now(), 100);
        journal.obtained(&object("/ahead"), 1, false);
        for number in 0..2 * MAX_NAMED {
            let object = object(&format!("/{number}"));
            journal.asked(&object);
            journal.obtained(&object, 5, false);
            journal.passed(object.path(), Reason::NoRoom, 5);
        }
        journal.passed(b"/often", Reason::TooLarge, 9);
        journal.passed(b"/often", Reason::TooLarge, 9);
        let (slow, escaped) = journal.named(7);
        assert_eq!((slow.len(), escaped.len()), (MAX_NAMED, MAX_NAMED));
        assert!(
            slow.iter()
                .all(|one| one.rank == 7 && *one.path != *b"/ahead")
        );
        let first = &escaped[0];
        assert_eq!((&*first.path, first.times), (&b"/often"[..], 2));
        assert_eq!(Reason::from_number(first.why), Some(Reason::TooLarge));
    }

    #[test]
    fn without_objects_it_is_known_what_was_left_to_the_origin_and_no_more() {
        let mut journal = Journal::new(Instant::now(), 0);
        journal.asked(&object("/a"));
        journal.asked_origin(&object("/a"));
        journal.obtained(&object("/a"), 5, false);
        journal.answered(Operation::Resolve, Instant::now(), true, false);
        journal.passed(b"/b", Reason::TooLarge, 9);
        let excerpt = journal.excerpt(10);
        assert_eq!((excerpt.from_origin.objects, excerpt.left_out), (0, 0));
        assert_eq!(excerpt.questions.resolve.asked, 0);
        assert_eq!(excerpt.timeline.totals(), [0; 3]);
        assert_eq!(journal.why_passed(b"/b"), Some(Reason::TooLarge));
    }

    #[test]
    fn strange_paths_are_text() {
        assert_eq!(show_path("/ä/b".as_bytes()), "/ä/b");
        assert_eq!(show_path(b"/a\xff\nb"), "/a\\xff\\nb");
    }
}
