//! The engine as the driver of its node of the cooperative tree.
//!
//! Tasks ask the node for objects; the node sees to it that each is asked for once, by whom, and for
//! how long. The catalog is the truth about what is known here: an object that a task lacks is not
//! taken from the node's memory of earlier answers.
//!
//! | file | what |
//! |---|---|
//! | `mod` | questions and origin answers in, actions performed |
//! | `publish` | what becomes of a record that is whole |
//! | `traffic` | messages to and from other nodes, and the chunks that they grant each other |
//! | `wire`, `mounts` | how bodies travel |
//! | `bodies` | bodies kept for those who ask after us |
//! | `patience` | how long to wait for the tree |
//! | `survey` | how all nodes are, and how they end |
#![forbid(unsafe_code)]

mod bodies;
mod mounts;
mod patience;
mod publish;
mod survey;
mod traffic;
mod wire;

use super::{Engine, Token, Wanted};
use crate::journal::Reason;
use crate::origin::copy::{Aside, Copy, Opened, version_of};
use crate::origin::snapshot::Batches;
use crate::origin::work::Extent;
use crate::origin::{OriginPath, Said};
use bodies::Bodies;
use copper_core::path::split_last;
use copper_core::request::Outcome;
use copper_core::tree::{
    Action, Answer, Change, Counters, Kind, Node, Object, OriginReply, OriginRequest, Plan, Record,
    RequestId, Settings, Time, Topology, TopologyError,
};
pub(super) use copper_core::tree::{Event, Waiter};
use mounts::Mounts;
use patience::Patiences;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the origin may take for one object.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nobody waits for the end of an invalidation that no client asked for.
const NOBODY: Waiter = Waiter(0);
/// Long files that are kept open between a look and the first read.
const MOST_LOOKED_AT: usize = 64;
/// Longest body of a directory that is taken from another node, in bytes.
const MOST_BODY: u64 = 512 << 20;

/// What the tree is to know of: the node, what is handed to it, and the bodies that it decides upon.
pub(super) struct Tree {
    node: Node,
    topology: Topology,
    settings: Settings,
    started: Instant,
    events: VecDeque<Event>,
    /// The body that came with the event that is being handled.
    arrived: Option<(Object, Body)>,
    /// Files that are being copied.
    aside: HashMap<Object, Arc<Aside>>,
    /// Room set aside in the store for files that are on their way.
    rooms: HashMap<Object, u64>,
    /// What came attached to the message that is being handled, and the body's object if it is one.
    attached: Option<(Option<Object>, Arc<[u8]>)>,
    bodies: Bodies,
    mounts: Mounts,
    patiences: Patiences,
    /// Long files that were looked at, and whose bytes nobody has asked for yet.
    looked_at: VecDeque<(Object, Opened)>,
    /// Clients that asked how all nodes are, and when.
    surveys: HashMap<Token, Instant>,
}

/// What an object consists of, between its arrival and its publishing.
pub(super) enum Body {
    /// With how it travels, where there are other nodes.
    Entry(Said, Option<Vec<u8>>),
    Directory(Arc<Batches>, Vec<(usize, Said)>, Option<Vec<u8>>),
    Unlisted,
    File(Box<Copy>),
    Long(Box<Opened>),
    NoFile,
    /// As it came from another node.
    Wire(Arc<[u8]>),
}

impl Tree {
    /// The tree of the node of `rank`.
    pub(super) fn new(
        topology: Topology,
        rank: u32,
        incarnation: u32,
    ) -> Result<Tree, TopologyError> {
        let settings = Settings {
            patience: PATIENCE,
            ..Settings::default()
        };
        let plan = Arc::new(Plan { topology, settings });
        let mut tree = Tree {
            node: Node::new(plan, rank, incarnation)?,
            topology,
            settings,
            started: Instant::now(),
            events: VecDeque::new(),
            arrived: None,
            aside: HashMap::new(),
            rooms: HashMap::new(),
            attached: None,
            bodies: Bodies::default(),
            mounts: Mounts::default(),
            patiences: Patiences::new(topology.trees(), topology.nodes() > 1),
            looked_at: VecDeque::new(),
            surveys: HashMap::new(),
        };
        tree.events.push_back(Event::Ready);
        Ok(tree)
    }

    /// How long to wait for an object; `None` where it is not to be asked for.
    fn patience_for(&mut self, object: &Object) -> Option<Duration> {
        let tree = object.tree(&self.topology);
        let size = self.rooms.get(object).copied().unwrap_or(0);
        self.patiences
            .wait(tree, size, Instant::now(), &self.settings)
    }

    /// Notes whether the tree of an object answers.
    fn note_answer(&mut self, object: &Object, answer: &Answer) {
        let tree = object.tree(&self.topology);
        match answer {
            Answer::Known(_) => self.patiences.has_answered(tree),
            Answer::TimedOut => self.patiences.was_silent(tree, Instant::now()),
            Answer::Failed { .. } | Answer::Busy | Answer::NoSpace => {}
        }
    }

    /// Keeps a long file open until the first of its bytes are asked for.
    fn keep_open(&mut self, object: Object, opened: Opened) {
        self.looked_at.retain(|(other, _)| *other != object);
        if self.looked_at.len() == MOST_LOOKED_AT {
            self.looked_at.pop_front();
        }
        self.looked_at.push_back((object, opened));
    }

    fn take_open(&mut self, record: &Record) -> Option<Opened> {
        let found = self
            .looked_at
            .iter()
            .position(|(object, _)| *object == record.object)?;
        let (_, opened) = self.looked_at.remove(found)?;
        let wanted = match record.outcome {
            copper_core::tree::Outcome::Present { version, .. } => version,
            _ => return None,
        };
        (version_of(&opened.attributes) == wanted).then_some(opened)
    }

    /// The shape of the job's trees.
    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    fn now(&self) -> Time {
        Time::default().after(self.started.elapsed())
    }

    /// What the node has counted.
    pub(super) fn counters(&self) -> &Counters {
        self.node.counters()
    }

    /// Hands in an event after those that wait already.
    pub(super) fn hand_in_later(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// The time after `patience`.
    pub(super) fn deadline(&self, patience: Duration) -> Time {
        self.now().after(patience)
    }

    /// Nodes of the job.
    pub(super) fn nodes(&self) -> u32 {
        self.topology.nodes()
    }

    /// Whether the job has other nodes.
    pub(super) fn has_others(&self) -> bool {
        self.topology.nodes() > 1
    }

    /// Whether a file is on its way.
    pub(super) fn has_room_for(&self, object: &Object) -> bool {
        self.rooms.contains_key(object)
    }

    /// Notes the room that was set aside for a file.
    pub(super) fn note_room(&mut self, object: &Object, size: u64) {
        self.rooms.insert(object.clone(), size);
    }

    /// Takes back the note of the room that was set aside for a file.
    pub(super) fn take_room(&mut self, object: &Object) -> u64 {
        self.rooms.remove(object).unwrap_or(0)
    }

    /// An earlier body that made way for the one that was just published is no loss: takes back
    /// what was to be handed in about it since there were `queued` events.
    fn keep_published(&mut self, queued: usize, object: &Object) {
        let later = self.events.split_off(queued.min(self.events.len()));
        let is_loss = |event: &Event| matches!(event, Event::Evicted(lost) if lost == object);
        self.events
            .extend(later.into_iter().filter(|event| !is_loss(event)));
    }

    /// Hands in that `object` is not here any more, if the node takes it to be.
    pub(super) fn evicted(&mut self, kind: Kind, path: &[u8]) {
        if let Ok(object) = Object::new(kind, path)
            && self.node.lookup(&object).is_some()
        {
            self.events.push_back(Event::Evicted(object));
        }
    }
}

impl Engine {
    /// Asks the tree for an object, for the task `token`.
    pub(super) fn ask_tree(&mut self, token: Token, object: Object) {
        let Some(patience) = self.tree.patience_for(&object) else {
            let same = |(other, task): (&Token, &super::Task)| {
                *other != token && task.copies.0.as_deref() == Some(object.path())
            };
            if !self.tasks.iter().any(same) {
                self.give_room_back(&object);
            }
            self.give_up(token);
            return;
        };
        if self.tree.node.lookup(&object).is_some() {
            self.tree.events.push_back(Event::Evicted(object.clone()));
        }
        self.journal.asked(&object);
        self.tree.events.push_back(Event::Ask {
            waiter: Waiter(token),
            object,
            deadline: self.tree.now().after(patience),
        });
    }

    /// Tells the tree what changed; the task `token` is taken up again when all nodes know.
    pub(super) fn tell_tree(&mut self, token: Token, paths: &[OriginPath]) {
        let event = invalidate(Waiter(token), paths);
        self.tree.events.push_back(event);
    }

    /// Hands in what has piled up, and does what is to be done about it.
    pub(super) fn pump(&mut self) {
        loop {
            if !self.touched.is_empty() {
                let event = invalidate(NOBODY, &std::mem::take(&mut self.touched));
                self.hand_in(event);
            }
            let Some(event) = self.tree.events.pop_front() else {
                return;
            };
            self.hand_in(event);
        }
    }

    /// Hands in what the origin said, with the body that came with it.
    pub(super) fn hand_in_reply(
        &mut self,
        id: RequestId,
        reply: OriginReply,
        body: Option<(Object, Body)>,
    ) {
        self.tree.arrived = match body {
            Some((object, Body::Long(opened))) => {
                self.tree.keep_open(object, *opened);
                None
            }
            body => body,
        };
        self.hand_in(Event::Origin { id, reply });
        // What the node did not want came too late.
        if let Some((_, Body::File(copy))) = self.tree.arrived.take() {
            let _ = std::fs::remove_file(&copy.file);
        }
        self.pump();
    }

    fn hand_in(&mut self, event: Event) {
        let mut actions = Vec::new();
        let now = self.tree.now();
        self.tree.node.handle(now, event, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    /// When there is something to do without being asked; `None` where nothing is under way.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let due = self.tree.node.next_timeout();
        let tree = (due != Time::NEVER).then(|| self.tree.started + Duration::from_nanos(due.0));
        tree.into_iter().chain(self.next_lapse()).min()
    }

    /// Does what is due.
    pub(crate) fn heed_time(&mut self) {
        self.heed_absences();
        if self.tree.node.next_timeout() <= self.tree.now() {
            self.hand_in(Event::Timer);
            self.pump();
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::AskOrigin { id, request } => self.ask_origin(id, request),
            Action::Publish(record) => self.publish_record(&record),
            Action::Answer {
                waiter,
                object,
                answer,
            } => self.answered(waiter.0, &object, &answer),
            Action::Discard(record) => {
                if let Some(aside) = self.tree.aside.remove(&record.object) {
                    aside.discard();
                }
                self.give_room_back(&record.object);
            }
            Action::Drop(change) => self.drop_changed(&change),
            Action::Forget(record) => self.forget_record(&record),
            Action::Command(command) => self.command(&command),
            Action::Settled { waiter, report } => self.settled(waiter, &report),
            Action::Send { to, message } => self.send(to, &message),
            Action::Transfer {
                id,
                from,
                record,
                chunk,
            } => self.transfer(id, from, &record, chunk),
        }
    }

    fn ask_origin(&mut self, id: RequestId, request: OriginRequest) {
        match request {
            OriginRequest::Look { ref object } => self.journal.asked_origin(object),
            OriginRequest::Read { .. } => {}
        }
        match request {
            OriginRequest::Look { object } => match object.kind() {
                Kind::Directory => {
                    let limit = self.policy.directory_limit;
                    self.origin.ask_listing(id, object, limit);
                }
                Kind::Content => self.ask_file(id, object),
                Kind::Entry | Kind::Closure => self.origin.ask_entry(id, object),
            },
            OriginRequest::Read { record, chunk } => self.ask_extent(id, &record, chunk),
        }
    }

    pub(super) fn ask_file(&mut self, id: RequestId, object: Object) {
        let target = self.store.next_partial();
        let limit = self.tree.settings.inline_limit.into();
        self.origin.ask_file(id, object, target, limit);
    }

    fn ask_extent(&mut self, id: RequestId, record: &Record, chunk: u32) {
        let Some(aside) = self.aside_for(record) else {
            let reply = OriginReply::NoSpace;
            self.tree.events.push_back(Event::Origin { id, reply });
            return;
        };
        let (start, length) = self.tree.settings.extent(record.length(), chunk);
        let extent = Extent {
            aside,
            bytes: start..start + u64::from(length),
            tries: 0,
        };
        self.origin.ask_extent(id, extent);
    }

    /// Where the chunks of a body are put together; made with the first of them.
    fn aside_for(&mut self, record: &Record) -> Option<Arc<Aside>> {
        let copper_core::tree::Outcome::Present { version, length } = record.outcome else {
            return None;
        };
        let object = &record.object;
        if let Some(aside) = self.tree.aside.get(object) {
            if aside.version() == version {
                return Some(aside.clone());
            }
            aside.discard();
        }
        let room = match object.kind() {
            Kind::Content => self.make_more_room(object, length),
            _ => length <= MOST_BODY,
        };
        if !room {
            return None;
        }
        let path: OriginPath = object.path().into();
        let target = self.store.next_partial();
        let made = match self.tree.take_open(record) {
            Some(opened) => Aside::opened(opened, &target),
            None => Aside::expected(&path, version, length, &target),
        };
        let shared = self.tree.topology.trees() > 1;
        match made {
            Ok(aside) => {
                let aside = Arc::new(aside.shared(shared));
                self.tree.aside.insert(object.clone(), aside.clone());
                Some(aside)
            }
            Err(why) => {
                tracing::warn!(?why, path = %path.escape_ascii(), "not set aside");
                self.give_room_back(object);
                None
            }
        }
    }

    fn answered(&mut self, token: Token, object: &Object, answer: &Answer) {
        self.tree.note_answer(object, answer);
        if object.kind() == Kind::Content {
            self.give_room_back(object);
            self.content_answered(object.path(), answer);
        }
        match answer {
            Answer::Known(_) => self.advance(token),
            Answer::Failed { .. } | Answer::TimedOut | Answer::Busy | Answer::NoSpace => {
                tracing::debug!(?object, ?answer, "left to the origin");
                if let Some(task) = self.tasks.remove(&token) {
                    let why = match answer {
                        Answer::NoSpace => Reason::NoRoom,
                        Answer::Failed { .. } => Reason::Refused,
                        _ => Reason::TimedOut,
                    };
                    self.pass_goal(&task, why);
                    self.finish(token, &task, Outcome::PassThrough);
                }
            }
        }
    }

    /// Gives back the room that was set aside for a file: it has arrived, or will not.
    fn give_room_back(&mut self, object: &Object) {
        let room = self.tree.take_room(object);
        self.store.release(room);
    }

    /// An object is to be asked for anew by whoever needs it, here and on the nodes that ask us.
    pub(super) fn lapse_object(&mut self, object: &Object) {
        self.tree.bodies.remove(object);
        self.tree.evicted(object.kind(), object.path());
    }

    fn forget_record(&mut self, record: &Record) {
        let path = record.object.path();
        self.tree.bodies.remove(&record.object);
        match record.object.kind() {
            Kind::Content => {
                self.drop_content(path);
                // Another node's file brought its attributes with it.
                if self.tree.has_others() {
                    self.retire_here(path);
                }
            }
            Kind::Entry | Kind::Directory | Kind::Closure => self.retire_here(path),
        }
    }

    /// Forgets what the catalog derived from what is no longer true. On one node that was done when
    /// the change was told.
    fn drop_changed(&mut self, change: &Change) {
        if !self.tree.has_others() {
            return;
        }
        let told = self.touched.len();
        match change {
            Change::All => self.forget_below(b"/"),
            Change::Paths(paths) => {
                for path in paths {
                    let path: OriginPath = path[..].into();
                    if !self.written.has(&path) {
                        self.forget(&path);
                        self.by_name.remove(split_last(&path).0);
                    }
                }
            }
        }
        // All nodes are being told of the change itself.
        self.touched.truncate(told);
    }
}

/// The tree's word for changed paths; too many of them, or one that it cannot name, are everything.
fn invalidate(waiter: Waiter, paths: &[OriginPath]) -> Event {
    let named = paths
        .iter()
        .map(|path| copper_core::tree::check_path(path).map(|()| path[..].into()));
    let change = match named.collect::<Result<Vec<Box<[u8]>>, _>>() {
        Ok(named) if !paths.iter().any(|path| **path == *b"/") => Change::Paths(named),
        _ => Change::All,
    };
    Event::Invalidate { waiter, change }
}

impl Wanted {
    /// The object of this kind at `path`; `None` where the tree cannot name it.
    pub(super) fn object(kind: Kind, path: &[u8]) -> Option<Wanted> {
        Object::new(kind, path).ok().map(Wanted::Object)
    }
}
