//! The origin of a fault run: what every file was when, what it answers, and what it was asked.

use copper_core::tree::{Kind, Object, OriginReply, OriginRequest, Outcome, Record, Version};
use std::collections::HashMap;

use super::schedule::{Fault, FileIndex, FileState};

/// One read of the origin: an object as a whole, or a chunk of one version of it.
pub(super) type ReadKey = (Object, Option<(u64, u32)>);

/// Files over time.
pub(super) struct Origin {
    paths: Vec<Vec<u8>>,
    index: HashMap<Vec<u8>, FileIndex>,
    history: Vec<Vec<(u64, FileState)>>,
    /// How often each thing was read.
    pub(super) reads: HashMap<ReadKey, u32>,
}

impl Origin {
    pub(super) fn new(files: &[FileState]) -> Self {
        let mut origin = Self {
            paths: Vec::new(),
            index: HashMap::new(),
            history: Vec::new(),
            reads: HashMap::new(),
        };
        files.iter().for_each(|&state| {
            origin.add(state);
        });
        origin
    }

    /// A new file; its name is one that only a byte-exact path carries through.
    pub(super) fn add(&mut self, state: FileState) -> FileIndex {
        let file = self.paths.len();
        let path = [format!("/env/d{}/f{file}", file % 5).as_bytes(), b"\xff\n"].concat();
        self.index.insert(path.clone(), file);
        self.paths.push(path);
        self.history.push(vec![(0, state)]);
        file
    }

    pub(super) fn path(&self, file: FileIndex) -> &[u8] {
        &self.paths[file]
    }

    pub(super) fn object(&self, kind: Kind, file: FileIndex) -> Object {
        Object::new(kind, &self.paths[file]).expect("the paths made here are canonical")
    }

    pub(super) fn file(&self, object: &Object) -> FileIndex {
        self.index[object.path()]
    }

    pub(super) fn change(&mut self, file: FileIndex, at: u64, into: FileState) {
        let version = self.history[file].len() as u64 + 1;
        let into = match into {
            FileState::Present { length, .. } => FileState::Present { version, length },
            other => other,
        };
        self.history[file].push((at, into));
    }

    pub(super) fn outcome(&self, object: &Object, at: u64) -> Outcome {
        let file = self.file(object);
        let state = self.history[file].iter().rfind(|&&(from, _)| from <= at);
        outcome(object.kind(), file, state.expect("history begins at 0").1)
    }

    /// Whether `outcome` was true of `object` at any moment from `from` until `until`.
    pub(super) fn was_true(
        &self,
        object: &Object,
        outcome_told: Outcome,
        from: u64,
        until: u64,
    ) -> bool {
        let file = self.file(object);
        let history = &self.history[file];
        history.iter().enumerate().any(|(i, &(begins, state))| {
            let ends = history.get(i + 1).map_or(u64::MAX, |next| next.0);
            begins <= until && ends > from && outcome(object.kind(), file, state) == outcome_told
        })
    }

    pub(super) fn changes(&self, file: FileIndex) -> u32 {
        self.history[file].len() as u32 - 1
    }

    pub(super) fn count(&mut self, request: &OriginRequest) {
        let key = match request {
            OriginRequest::Look { object } => (object.clone(), None),
            OriginRequest::Read { record, chunk } => {
                (record.object.clone(), Some((record.stamp(), *chunk)))
            }
        };
        *self.reads.entry(key).or_insert(0) += 1;
    }

    /// What is answered to a request that was under way from `began` until `ended`.
    pub(super) fn reply(
        &self,
        request: &OriginRequest,
        began: u64,
        ended: u64,
        faults: &[Fault],
    ) -> OriginReply {
        let object = match request {
            OriginRequest::Look { object } => object,
            OriginRequest::Read { record, .. } => &record.object,
        };
        let file = self.file(object);
        let error = faults.iter().find_map(|fault| match *fault {
            Fault::OriginError {
                file: f,
                at,
                until,
                errno,
            } if f == file && at <= began && began < until => Some(errno),
            _ => None,
        });
        match (error, request) {
            (Some(errno), _) => OriginReply::Failed { errno },
            (None, OriginRequest::Read { record, .. }) => self.reread(record, began, ended),
            (None, OriginRequest::Look { .. }) => OriginReply::Known(self.outcome(object, ended)),
        }
    }

    fn reread(&self, record: &Record, began: u64, ended: u64) -> OriginReply {
        let same = |at| self.outcome(&record.object, at) == record.outcome;
        if same(began) && same(ended) {
            OriginReply::Stored
        } else {
            OriginReply::Changed
        }
    }
}

fn outcome(kind: Kind, file: FileIndex, state: FileState) -> Outcome {
    match (state, kind) {
        (FileState::Absent, _) => Outcome::Absent { errno: 2 },
        (FileState::Denied, _) => Outcome::Absent { errno: 13 },
        (FileState::TooLarge, Kind::Content | Kind::Directory) => Outcome::TooLarge,
        (FileState::TooLarge, _) => present(kind, file, 1, 1 << 40),
        (FileState::Present { version, length }, _) => present(kind, file, version, length),
    }
}

fn present(kind: Kind, file: FileIndex, state: u64, size: u64) -> Outcome {
    let length = match kind {
        Kind::Entry => 200,
        Kind::Closure => 300,
        Kind::Directory => size / 2,
        Kind::Content => size,
    };
    let time = (state as i64, 0);
    let version = Version {
        inode: file as u64 + 1,
        size,
        modified: time,
        changed: time,
    };
    Outcome::Present { version, length }
}
