//! Reading ahead: Python modules that are likely to be asked for next.
//!
//! An import asks for one module after the other and waits for each. Once programs have asked for
//! some compiled modules of a directory, or for some extension modules, its others are fetched
//! beside what they do, a few at a time; extension modules with the libraries that they need, since the
//! loader asks for these next. Who looks for a package's `__init__` will ask for the compiled one. What
//! nobody asks for then was read in vain; so this is for modules alone, of which programs load most, and
//! it never makes anything else leave the store.
//!
//! A file is begun only when the event loop has found nothing else to do: whoever waits for an answer
//! goes first.
//!
//! In a job of several nodes nothing is read ahead: what a node is asked depends on which of its
//! neighbours asked first, and the origin is to be asked the same however many nodes there are.
#![forbid(unsafe_code)]

use super::{Engine, Goal, Step, Task, Token};
use crate::origin::OriginPath;
use crate::origin::work::join;
use copper_core::catalog::reader::{Content, Kind};
use copper_core::catalog::writer::Full;
use copper_core::path::{is_within, split_last};
use copper_core::request::Operation;
use std::collections::{HashMap, VecDeque};

/// What is read ahead: names that end so, up to so many bytes. All that follows a name's first dot
/// must be the same, which tells Python's versions and its degrees of optimization apart.
const MODULES: [(&[u8], u64); 3] = [
    (COMPILED, 1 << 20),
    (b"-linux-gnu.so", 4 << 20),
    (b".abi3.so", 4 << 20),
];
/// What compiled modules are called, and where they lie.
const COMPILED: &[u8] = b".pyc";
const COMPILED_PLACE: &[u8] = b"__pycache__";
/// What the names of a package's own module begin with, whatever it is made of.
const PACKAGE: &[u8] = b"__init__.";
/// So many files of a directory must have been asked for.
const ASKED: u32 = 2;
/// Nothing is read ahead where the store has less room than this, in bytes.
const ROOM_LEFT: u64 = 256 << 20;
/// Files that are fetched at a time: what programs ask for meanwhile waits behind few others.
const AT_ONCE: usize = 4;
/// Tokens of the questions that the helper asks itself; the server's clients have none so large.
const OWN: Token = 1 << 63;

/// What is read ahead, and what may be next.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Most files of a directory that are read ahead.
    limit: usize,
    /// How many files of each directory were asked for, by what follows their names' first dot.
    asked: HashMap<(OriginPath, Box<[u8]>), u32>,
    /// What the name of the compiled module ended in that was last asked for.
    compiled: Option<Box<[u8]>>,
    next: VecDeque<OriginPath>,
    under_way: usize,
    /// Files that were asked for so far, for the tokens.
    begun: u64,
}

/// What follows the first dot of a name.
fn suffix_of(name: &[u8]) -> &[u8] {
    let dot = name.iter().position(|&byte| byte == b'.');
    dot.map_or(b"", |dot| &name[dot + 1..])
}

/// Whether the helper asked this itself.
pub(super) fn is_own(token: Token) -> bool {
    token >= OWN
}

impl Ahead {
    /// Reads up to `limit` files of a directory ahead.
    pub(super) fn new(limit: usize) -> Ahead {
        Ahead {
            limit,
            ..Ahead::default()
        }
    }

    /// How many files were fetched, or found to be there, without being asked for.
    pub(super) fn begun(&self) -> u64 {
        self.begun
    }

    /// How many files of a directory were asked for whose names end so.
    fn asked_for(&mut self, directory: &[u8], suffix: &[u8]) -> &mut u32 {
        let key = (directory.into(), suffix.into());
        self.asked.entry(key).or_default()
    }

    /// One of the own questions has its answer.
    pub(super) fn note_end(&mut self) {
        self.under_way -= 1;
    }
}

impl Engine {
    fn reads_ahead(&self) -> bool {
        self.ahead.limit > 0 && !self.tree.has_others()
    }

    /// Notes that a program asked for the bytes of `path`, which is free of links.
    pub(super) fn look_ahead(&mut self, path: &[u8]) {
        let module = MODULES.into_iter().find(|(end, _)| path.ends_with(end));
        let Some((end, largest)) = module.filter(|_| self.reads_ahead()) else {
            return;
        };
        let (directory, name) = split_last(path);
        let suffix = suffix_of(name);
        if end == COMPILED {
            self.ahead.compiled = Some(suffix.into());
        }
        let asked = self.ahead.asked_for(directory, suffix);
        // A package's own module counts once, since it may have been fetched before it was asked for.
        if name.starts_with(PACKAGE) && *asked > 0 {
            return;
        }
        *asked = asked.saturating_add(1);
        if *asked == ASKED {
            let files = self.files_ahead(directory, suffix, largest.min(self.policy.largest));
            self.ahead.next.extend(files);
        }
    }

    /// Notes that a program looked for `path`: if that is the first name that may be a package's own
    /// module, the compiled one is what it will ask for next.
    pub(super) fn look_into_package(&mut self, path: &[u8]) {
        let (package, name) = split_last(path);
        if !name.starts_with(PACKAGE) || !self.reads_ahead() {
            return;
        }
        let Some(suffix) = self.ahead.compiled.clone() else {
            return;
        };
        let directory = join(package, COMPILED_PLACE);
        let reader = self.writer.reader();
        let is_new = reader
            .live(&directory)
            .is_some_and(|found| found.is_directory() && !reader.is_complete(&found));
        if is_new {
            let module = join(&directory, &[PACKAGE, &suffix].concat());
            let asked = self.ahead.asked_for(&directory, &suffix);
            *asked = (*asked).max(1);
            self.ahead.next.push_front(module.into());
        }
    }

    /// The files of a directory, if it is known whole, that are worth reading ahead.
    fn files_ahead(&self, directory: &[u8], suffix: &[u8], largest: u64) -> Vec<OriginPath> {
        let reader = self.writer.reader();
        let known = reader
            .live(directory)
            .and_then(|found| reader.listing(&found));
        let Some(listing) = known else {
            return Vec::new();
        };
        let is_wanted = |path: &OriginPath| {
            reader.live(path).is_some_and(|file| {
                let attributes = file.attributes();
                file.kind() == Kind::Present
                    && attributes.is_regular()
                    && attributes.size <= largest
                    && matches!(reader.content(&file), Content::Unknown)
            })
        };
        listing
            .iter()
            .filter(|entry| suffix_of(entry.name) == suffix)
            .map(|entry| join(directory, entry.name).into())
            .filter(is_wanted)
            .take(self.ahead.limit)
            .collect()
    }

    /// Whether [`Engine::read_ahead`] has something to begin.
    pub(crate) fn may_read_ahead(&self) -> bool {
        self.ahead.under_way < AT_ONCE && !self.ahead.next.is_empty()
    }

    /// Asks for the next file, unless enough is under way; says whether it did.
    pub(crate) fn read_ahead(&mut self) -> bool {
        if !self.may_read_ahead() {
            return false;
        }
        if self.store.room() < ROOM_LEFT {
            self.ahead.next.clear();
        }
        let Some(path) = self.ahead.next.pop_front() else {
            return false;
        };
        let token = OWN | self.ahead.begun;
        self.ahead.begun += 1;
        self.ahead.under_way += 1;
        self.tasks
            .insert(token, Task::new(Goal::Ahead(path), Operation::Content));
        self.advance(token);
        self.pump();
        true
    }

    /// Fetches a module: its bytes, and for one that the loader takes what it will search for besides.
    pub(super) fn fetch_ahead(&mut self, path: &OriginPath, task: &mut Task) -> Result<Step, Full> {
        if path.ends_with(b".so") {
            self.closure(path, task)
        } else {
            self.content(path, task)
        }
    }

    /// Forgets which files below `path` were asked for: they are not there any more.
    pub(super) fn forget_ahead(&mut self, path: &[u8]) {
        self.ahead
            .asked
            .retain(|(directory, _), _| !is_within(directory, path));
        self.ahead.next.retain(|file| !is_within(file, path));
    }
}
