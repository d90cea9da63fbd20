//! Changes that a process of the job made, and refreshes: what is no longer to be believed.
//!
//! What the catalog knew under the path that was named, and under the paths free of links that it
//! may also be known by, is forgotten before the answer is given. Whatever is on its way from the
//! origin for such a path is asked for again.
#![forbid(unsafe_code)]

use super::resolve::Walked;
use super::{Engine, Goal, Step, Task, Token, Wanted};
use crate::origin::OriginPath;
use crate::origin::work::Canonical;
use copper_core::catalog::writer::What;
use copper_core::path::{PATH_MAX, is_within, split_last, tidy};
use copper_core::request::Outcome;

/// What a process told.
#[derive(Debug)]
pub(super) struct Change {
    kind: ChangeKind,
    /// Paths whose other names are still to be found out.
    open: Vec<OriginPath>,
    /// Paths that were forgotten.
    forgotten: Vec<OriginPath>,
    /// Whether all nodes have been told.
    told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChangeKind {
    /// The path is another one now, or none.
    Changed,
    /// The path is being written to.
    Writing,
    /// Nothing below the path is to be believed.
    Refresh,
}

fn tidied(path: &[u8]) -> Option<OriginPath> {
    let mut room = [0; PATH_MAX + 1];
    let tidied = tidy(path, &mut room)?;
    (!tidied.parents).then(|| room[..tidied.length].into())
}

impl Engine {
    /// A process changed `first`, and `second` if it moved or linked.
    pub(super) fn changed(&mut self, first: OriginPath, second: Option<OriginPath>) -> Change {
        if let Some(second) = &second {
            let from = self.known_as(&first, false).unwrap_or(first.clone());
            let to = self.known_as(second, false).unwrap_or(second.clone());
            self.carry_marks(&from, &to);
        }
        let named = [Some(first), second].into_iter().flatten().collect();
        self.note_change(ChangeKind::Changed, named)
    }

    /// A process opened `path` for writing.
    pub(super) fn opened_for_writing(&mut self, path: OriginPath) -> Change {
        self.note_change(ChangeKind::Writing, vec![path])
    }

    /// The user wants `path` and all below it to be read again.
    pub(super) fn refreshed(&mut self, path: OriginPath) -> Change {
        self.note_change(ChangeKind::Refresh, vec![path])
    }

    /// Applies a change to the paths as they were named, and to what the catalog knows that they
    /// lead to; what the catalog does not know stays open.
    fn note_change(&mut self, kind: ChangeKind, named: Vec<OriginPath>) -> Change {
        let mut open = Vec::new();
        for path in named {
            let known = [self.known_as(&path, true), self.known_as(&path, false)];
            if kind == ChangeKind::Writing || known.contains(&None) {
                open.push(path.clone());
            }
            if let Some(tidied) = tidied(&path) {
                self.forget_named(kind, &tidied);
            }
            let [target, beside] = known;
            self.apply(kind, beside, target, None);
        }
        Change {
            kind,
            open,
            forgotten: self.touched.clone(),
            told: false,
        }
    }

    /// Where `path` leads, if the catalog knows: free of links, but for the last component unless
    /// that is to be followed.
    fn known_as(&mut self, path: &[u8], follow: bool) -> Option<OriginPath> {
        match self.walk(path, follow) {
            Walked::Found(found) => Some(found.path),
            Walked::Absent(at) => tidied(path).filter(|tidied| *tidied == at),
            _ => None,
        }
    }

    pub(super) fn settle(&mut self, token: Token, task: &mut Task) -> Step {
        let Goal::Changed(change) = &mut task.goal else {
            return Step::Done(Outcome::Refused);
        };
        if !change.open.is_empty() {
            return Step::Wait(Wanted::Canonical(token));
        }
        if !std::mem::replace(&mut change.told, true) {
            return Step::Wait(Wanted::Settled(std::mem::take(&mut change.forgotten)));
        }
        Step::Done(Outcome::Known)
    }

    pub(super) fn ask_canonical(&mut self, token: Token) {
        let (open, writing) = match self.tasks.get(&token).map(|task| &task.goal) {
            Some(Goal::Changed(change)) => {
                (change.open.clone(), change.kind == ChangeKind::Writing)
            }
            _ => (Vec::new(), false),
        };
        let notifier = writing.then(|| self.written.notifier());
        self.origin.ask_canonical(token, open, notifier);
    }

    /// Where changed paths lead has been found out.
    pub(super) fn canonical_landed(&mut self, token: Token, found: Vec<Canonical>) {
        let kind = match self.tasks.get_mut(&token).map(|task| &mut task.goal) {
            Some(Goal::Changed(change)) => {
                change.open.clear();
                change.kind
            }
            _ => ChangeKind::Changed,
        };
        for canonical in found {
            if let Some((watch, target)) = canonical.watch.zip(canonical.target.clone()) {
                self.written.note_watch(watch, target);
            }
            self.forget_names(canonical.identity);
            self.apply(kind, canonical.beside, canonical.target, canonical.identity);
        }
        let touched = self.touched.clone();
        if let Some(Goal::Changed(change)) = self.tasks.get_mut(&token).map(|task| &mut task.goal) {
            change.forgotten.extend(touched);
        }
    }

    fn forget_named(&mut self, kind: ChangeKind, path: &OriginPath) {
        self.by_name.remove(path);
        match kind {
            ChangeKind::Refresh => self.forget_below(path),
            ChangeKind::Changed | ChangeKind::Writing => self.forget(path),
        }
    }

    /// Applies a change to a path, and to where it leads if it is a link.
    fn apply(
        &mut self,
        kind: ChangeKind,
        path: Option<OriginPath>,
        target: Option<OriginPath>,
        identity: Option<(u64, u64)>,
    ) {
        if let Some(path) = path {
            self.forget_named(kind, &path);
        }
        let Some(target) = target else { return };
        self.forget_named(kind, &target);
        if kind == ChangeKind::Writing {
            if self.writer.publish(&target, What::Pass).is_err() {
                self.note_full();
            }
            self.written.mark(target, identity);
        }
    }

    /// Forgets a path, its other names, its directory, and what lay below it if it was one.
    pub(super) fn forget(&mut self, path: &OriginPath) {
        self.touched.push(path.clone());
        let Some(old) = self.writer.reader().find(path) else {
            self.retire_here(path);
            return;
        };
        let was = *old.attributes();
        let may_hold_more = was.is_directory() || !was.is_regular() && !was.is_link();
        if may_hold_more {
            self.forget_below(path);
            return;
        }
        self.drop_content(path);
        self.retire_here(path);
        self.forget_names(was.is_regular().then_some((was.device, was.inode)));
    }

    /// Forgets all names of a file that has several.
    pub(super) fn forget_names(&mut self, identity: Option<(u64, u64)>) {
        let names = identity.and_then(|identity| self.linked.remove(&identity));
        for name in names.into_iter().flatten() {
            self.drop_content(&name);
            self.retire_here(&name);
            self.touched.push(name);
        }
    }

    /// Lets the catalog forget one path and its directory.
    pub(super) fn retire_here(&mut self, path: &[u8]) {
        self.complete.remove(path);
        self.complete.remove(split_last(path).0);
        self.writer.retire(path);
    }

    /// Forgets a path and all below it.
    pub(super) fn forget_below(&mut self, path: &[u8]) {
        self.touched.push(path.into());
        self.drop_content(path);
        self.complete.remove(split_last(path).0);
        self.complete
            .retain(|directory| !is_within(directory, path));
        for name in self.writer.retire_below(path) {
            self.drop_content(&name);
        }
        self.by_name.retain(|directory| !is_within(directory, path));
        self.forget_ahead(path);
    }
}
