//! Absences that are believed for a limited time only (`--absence-lifetime`).
//!
//! A name is absent because the origin said so, or because its directory is known whole and lacks it.
//! Both lapse some time after this node learnt them, and are asked for again by whoever needs them. An
//! answer comes through as many nodes as the tree has levels, and each may have kept it, so each keeps it
//! for its share of the lifetime only.
#![forbid(unsafe_code)]

use super::Engine;
use crate::origin::OriginPath;
use copper_core::tree::{Kind, Object, Outcome, Record, Topology};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Those that lapse within this part of the share lapse together, so that the helper seldom wakes up.
const TOGETHER: u32 = 8;

/// What is known to be absent, or to lack names, and since when.
#[derive(Debug)]
pub(super) struct Absences {
    share: Duration,
    /// In the order in which they were learnt; what was learnt again later is there twice.
    queue: VecDeque<(Instant, Object)>,
    learnt: HashMap<Object, Instant>,
}

impl Absences {
    /// With the lifetime that the user gave, on a node of this tree.
    pub(super) fn new(lifetime: Duration, topology: &Topology) -> Absences {
        Absences {
            share: lifetime / (topology.depth() + 1),
            queue: VecDeque::new(),
            learnt: HashMap::new(),
        }
    }

    fn note(&mut self, object: &Object, now: Instant) {
        self.learnt.insert(object.clone(), now);
        self.queue.push_back((now, object.clone()));
    }

    /// When the next one lapses.
    fn next(&self) -> Option<Instant> {
        let (learnt, _) = self.queue.front()?;
        Some(*learnt + self.share)
    }

    /// Those whose time is over, or nearly.
    fn take_lapsed(&mut self, now: Instant) -> Vec<Object> {
        let mut lapsed = Vec::new();
        if self.next().is_none_or(|next| now < next) {
            return lapsed;
        }
        let until = now + self.share / TOGETHER;
        while self.next().is_some_and(|next| next <= until) {
            let Some((learnt, object)) = self.queue.pop_front() else {
                break;
            };
            if self.learnt.get(&object) == Some(&learnt) {
                self.learnt.remove(&object);
                lapsed.push(object);
            }
        }
        lapsed
    }
}

impl Engine {
    /// Notes that a record which was just published says that something is absent.
    pub(super) fn note_absences(&mut self, record: &Record) {
        let Some(absences) = &mut self.absences else {
            return;
        };
        let whole = record.object.kind() == Kind::Directory && record.is_present();
        if whole || matches!(record.outcome, Outcome::Absent { .. }) {
            absences.note(&record.object, Instant::now());
        }
    }

    /// When the next absence lapses.
    pub(super) fn next_lapse(&self) -> Option<Instant> {
        self.absences.as_ref()?.next()
    }

    /// Forgets the absences whose time is over.
    pub(super) fn heed_absences(&mut self) {
        let Some(absences) = &mut self.absences else {
            return;
        };
        let lapsed = absences.take_lapsed(Instant::now());
        if lapsed.is_empty() {
            return;
        }
        tracing::debug!(number = lapsed.len(), "absences lapse");
        for object in lapsed {
            let path: OriginPath = object.path().into();
            match object.kind() {
                Kind::Directory => {
                    self.complete.remove(&path);
                    self.writer.lapse_listing(&path);
                }
                Kind::Entry => self.writer.lapse_absence(&path),
                Kind::Content | Kind::Closure => {}
            }
            // Those who ask after us are to hear it anew as well.
            self.lapse_object(&object);
        }
        self.pump();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn absences(nodes: u32) -> Absences {
        let topology = Topology::fitted(nodes, 1, 2).expect("a tree");
        Absences::new(Duration::from_secs(9), &topology)
    }

    fn object(path: &str) -> Object {
        Object::new(Kind::Entry, path.as_bytes()).expect("a path")
    }

    #[test]
    fn each_level_of_the_tree_has_its_share() {
        assert_eq!(absences(1).share, Duration::from_secs(9));
        assert_eq!(absences(7).share, Duration::from_secs(3));
    }

    #[test]
    fn what_is_learnt_again_lives_on() {
        let mut absences = absences(1);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(absences.next(), None);
        absences.note(&object("/a"), at(0));
        absences.note(&object("/b"), at(1));
        absences.note(&object("/a"), at(5));
        assert_eq!(absences.next(), Some(at(9)));
        assert!(absences.take_lapsed(at(8)).is_empty());
        // The first is done with, as it was learnt again; the second lapses with it.
        assert_eq!(absences.take_lapsed(at(9)), [object("/b")]);
        assert!(absences.take_lapsed(at(13)).is_empty());
        assert_eq!(absences.take_lapsed(at(14)), [object("/a")]);
        assert_eq!(absences.next(), None);
        assert!(absences.learnt.is_empty());
    }
}
