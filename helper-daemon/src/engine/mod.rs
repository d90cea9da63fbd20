//! What is asked, and what must be done for it.
//!
//! Every question of a client is a *task*. A task is taken as far as the catalog allows
//! ([`Step::Done`]) or to the first thing that must come from the origin ([`Step::Wait`]); when
//! that has landed and is in the catalog the task is taken up again from its beginning. So a task
//! has no state that could go stale, and whatever happened meanwhile is seen.
//!
//! However many tasks wait for an object, it is asked for once: the tree's node sees to that.
#![forbid(unsafe_code)]

mod absences;
mod ahead;
mod change;
mod closure;
mod content;
mod controls;
mod known;
mod landing;
mod paths;
mod resolve;
mod scope;
mod tally;
mod tree;
mod written;

use crate::elf::Needs;
use crate::journal::{Excerpt, Journal, Reason};
use crate::origin::OriginPath;
use crate::origin::work::Origin;
use crate::peers::{self, Peers};
use crate::store::Store;
use absences::Absences;
use ahead::Ahead;
use anyhow::Context;
use controls::Controls;
use copper_core::catalog::memory::Whole;
use copper_core::catalog::resolve::Walk;
use copper_core::catalog::writer::{Full, Writer};
use copper_core::path;
use copper_core::request::{Operation, Outcome};
use copper_core::tree::{Object, Topology};
use scope::Covered;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tally::Tally;
use tree::Tree;
use written::Written;

/// A client's question, by the number that the server gave it.
pub(crate) type Token = u64;

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    /// An object of the tree.
    Object(Object),
    /// Whether a file that was opened for writing has no writer any more.
    Quiet(OriginPath),
    /// Under which paths a changed path may be known.
    Canonical(Token),
    /// That all nodes know of these changed paths.
    Settled(Vec<OriginPath>),
}

/// How far a task came.
enum Step {
    Done(Outcome),
    Wait(Wanted),
}

/// What a task is to bring about.
#[derive(Debug)]
enum Goal {
    Resolve(OriginPath),
    Listing(OriginPath),
    Content(OriginPath),
    /// A file's bytes that nobody has asked for yet.
    Ahead(OriginPath),
    Closure(OriginPath),
    Changed(change::Change),
}

#[derive(Debug)]
struct Task {
    goal: Goal,
    operation: Operation,
    asked_at: Instant,
    /// How often it has waited, so that a tree that changes all the time cannot hold it for ever.
    waits: u32,
    /// The file whose bytes it waited for last, and how often.
    copies: (Option<OriginPath>, u32),
}

impl Task {
    fn new(goal: Goal, operation: Operation) -> Task {
        Task {
            goal,
            operation,
            asked_at: Instant::now(),
            waits: 0,
            copies: (None, 0),
        }
    }
}

/// More than any walk needs: a path has at most 2,048 components, and 40 links.
const MOST_WAITS: u32 = 8_192;
const MOST_COPIES: u32 = 4;

/// An answer for a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Whose question it was.
    pub(crate) token: Token,
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// What is said beside that.
    pub(crate) body: Vec<u8>,
}

/// How the engine treats directories.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// The view's directory.
    pub(crate) view: Vec<u8>,
    /// The runtime directory.
    pub(crate) runtime: Vec<u8>,
    /// Covered prefixes, in normal form.
    pub(crate) covered: Vec<Vec<u8>>,
    /// Most names of a directory that is fetched whole.
    pub(crate) directory_limit: usize,
    /// Larger files are left to the origin, in bytes.
    pub(crate) largest: u64,
    /// How long absences are believed; until something changes where there is no limit.
    pub(crate) absence_lifetime: Option<Duration>,
    /// Most Python modules of a directory that are read ahead of being asked for.
    pub(crate) read_ahead: usize,
}

/// The engine: catalog, store and origin, and the tasks that need them.
pub(crate) struct Engine {
    writer: Writer<Whole>,
    store: Store,
    origin: Origin,
    covered: Covered,
    policy: Policy,
    walk: Box<Walk>,
    tasks: HashMap<Token, Task>,
    tree: Tree,
    peers: Option<Peers>,
    /// Who waits for what does not come through the tree.
    waiting: HashMap<Wanted, Vec<Token>>,
    /// Paths that were forgotten and that the tree has not been told of.
    touched: Vec<OriginPath>,
    replies: Vec<Reply>,
    /// Directories that are served name by name: too large, or not to be listed.
    by_name: HashSet<OriginPath>,
    /// Directories that are known whole.
    complete: HashSet<OriginPath>,
    /// Where absences are believed for a limited time.
    absences: Option<Absences>,
    written: Written,
    /// The names of files that have several, by device and inode.
    linked: HashMap<(u64, u64), Vec<OriginPath>>,
    /// What the stored libraries need, by store inode.
    needs: HashMap<u64, Option<Arc<Needs>>>,
    tally: Tally,
    journal: Journal,
    controls: Controls,
    ahead: Ahead,
    /// The catalog has no room: nothing new is learnt.
    full: bool,
}

impl Engine {
    /// An engine that knows nothing yet, with the other helpers of its job.
    pub(crate) fn new(
        writer: Writer<Whole>,
        store: Store,
        origin: Origin,
        policy: Policy,
        peers: Option<Peers>,
        journal: Journal,
    ) -> anyhow::Result<Engine> {
        let written = Written::new().context("cannot make an inotify descriptor")?;
        let tree = match &peers {
            Some(peers) => Tree::new(peers.topology(), peers.rank(), peers::incarnation())?,
            None => Tree::new(Topology::fitted(1, 1, 1)?, 0, std::process::id())?,
        };
        let lifetime = policy.absence_lifetime;
        let absences = lifetime.map(|lifetime| Absences::new(lifetime, tree.topology()));
        Ok(Engine {
            writer,
            covered: Covered::new(&policy, store.root()),
            journal,
            store,
            origin,
            ahead: Ahead::new(policy.read_ahead),
            policy,
            walk: Box::default(),
            tasks: HashMap::new(),
            tree,
            peers,
            waiting: HashMap::new(),
            touched: Vec::new(),
            replies: Vec::new(),
            by_name: HashSet::new(),
            complete: HashSet::new(),
            absences,
            written,
            linked: HashMap::new(),
            needs: HashMap::new(),
            tally: Tally::default(),
            controls: Controls::default(),
            full: false,
        })
    }

    /// The origin, for its waker and counters.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Takes a client's question; the reply comes with [`Engine::take_replies`], at once or later.
    pub(crate) fn ask(&mut self, token: Token, operation: Operation, paths: [&[u8]; 2]) {
        self.tally.note(operation);
        match operation {
            Operation::Control => return self.control(token, paths),
            Operation::ControlAll => return self.control_all(token, paths),
            _ => {}
        }
        let [first, second] = paths.map(|path| self.origin_path(path));
        let Some(first) = first else {
            self.reply(token, Outcome::Refused);
            return;
        };
        let goal = match operation {
            Operation::Resolve => Goal::Resolve(first),
            Operation::Listing => Goal::Listing(first),
            Operation::Content => Goal::Content(first),
            Operation::Closure => Goal::Closure(first),
            Operation::Changed => Goal::Changed(self.changed(first, second)),
            Operation::Writing => Goal::Changed(self.opened_for_writing(first)),
            Operation::Refresh => Goal::Changed(self.refreshed(first)),
            Operation::Control
            | Operation::ControlAll
            | Operation::Survey
            | Operation::StopAll
            | Operation::Status
            | Operation::Stop
            | Operation::Journal
            | Operation::Attach
            | Operation::Memory => {
                self.reply(token, Outcome::Refused);
                return;
            }
        };
        self.tasks.insert(token, Task::new(goal, operation));
        self.advance(token);
        self.pump();
    }

    /// The tidy origin path of a path that a client named: absolute, out of the view.
    fn origin_path(&self, named: &[u8]) -> Option<OriginPath> {
        if named.first() != Some(&b'/') || named.contains(&0) {
            return None;
        }
        let outside = path::below(named, &self.policy.view).unwrap_or(named);
        Some(outside.into())
    }

    /// Forgets a question whose asker has gone.
    pub(crate) fn cancel(&mut self, token: Token) {
        self.forget_survey(token);
        self.controls.forget(token);
        self.tasks.remove(&token);
    }

    /// Answers a question that takes too long.
    pub(crate) fn give_up(&mut self, token: Token) {
        let waiting = self.forget_survey(token) | self.controls.forget(token);
        if let Some(task) = self.tasks.remove(&token) {
            self.pass_goal(&task, Reason::TimedOut);
            self.finish(token, &task, Outcome::PassThrough);
        } else if waiting {
            self.reply(token, Outcome::PassThrough);
        }
    }

    /// Answers a task.
    fn finish(&mut self, token: Token, task: &Task, outcome: Outcome) {
        let is_passed = outcome == Outcome::PassThrough;
        if !ahead::is_own(token) {
            self.journal
                .answered(task.operation, task.asked_at, task.waits > 0, is_passed);
        }
        self.reply(token, outcome);
    }

    /// Leaves a path to the origin, for one question.
    fn pass(&mut self, path: &[u8], why: Reason) -> Step {
        self.journal.passed(path, why, 0);
        Step::Done(Outcome::PassThrough)
    }

    /// Leaves what a task is about to the origin.
    fn pass_goal(&mut self, task: &Task, why: Reason) {
        match &task.goal {
            Goal::Resolve(path)
            | Goal::Listing(path)
            | Goal::Content(path)
            | Goal::Closure(path) => self.journal.passed(path, why, 0),
            Goal::Changed(_) | Goal::Ahead(_) => {}
        }
    }

    /// What was obtained and what was left to the origin, with the `most` slowest objects.
    pub(crate) fn journal(&self, most: usize) -> Excerpt {
        let mut excerpt = self.journal.excerpt(most);
        excerpt.hot = self.hot_paths();
        excerpt.hot.truncate(most);
        excerpt
    }

    /// Notes that the helper serves.
    pub(crate) fn note_serving(&mut self) {
        let took = self.journal.note_serving();
        tracing::info!(ms = took.as_millis() as u64, "serving");
        self.note_ready();
    }

    /// Notes that this node has met its parents in all trees, the first time that it has.
    fn note_ready(&mut self) {
        if !self.peers.as_ref().is_none_or(Peers::has_met_parents) {
            return;
        }
        if let Some(took) = self.journal.note_ready() {
            tracing::info!(ms = took.as_millis() as u64, "ready");
        }
    }

    fn reply(&mut self, token: Token, outcome: Outcome) {
        if ahead::is_own(token) {
            return self.ahead.note_end();
        }
        if outcome == Outcome::PassThrough {
            self.tally.asked.passed_through += 1;
        }
        let body = Vec::new();
        self.replies.push(Reply {
            token,
            outcome,
            body,
        });
    }

    /// The answers that are ready.
    pub(crate) fn take_replies(&mut self) -> Vec<Reply> {
        std::mem::take(&mut self.replies)
    }

    /// Takes a task as far as it comes.
    fn advance(&mut self, token: Token) {
        let Some(mut task) = self.tasks.remove(&token) else {
            return;
        };
        match self.step(token, &mut task) {
            Ok(Step::Wait(wanted)) if task.waits < MOST_WAITS => {
                task.waits += 1;
                self.tasks.insert(token, task);
                self.send_for(token, wanted);
            }
            Ok(Step::Done(outcome)) => self.finish(token, &task, outcome),
            Ok(Step::Wait(_)) => {
                self.pass_goal(&task, Reason::Changed);
                self.finish(token, &task, Outcome::PassThrough);
            }
            Err(Full) => {
                self.note_full();
                self.pass_goal(&task, Reason::CatalogFull);
                self.finish(token, &task, Outcome::PassThrough);
            }
        }
    }

    fn note_full(&mut self) {
        if !self.full {
            tracing::warn!("the catalog is full; what is not known yet is served by the origin");
            self.full = true;
        }
    }

    fn step(&mut self, token: Token, task: &mut Task) -> Result<Step, Full> {
        match &task.goal {
            Goal::Resolve(path) => {
                let path = path.clone();
                let step = self.resolve(&path);
                if matches!(step, Ok(Step::Done(Outcome::Known))) {
                    self.look_into_package(&path);
                }
                step
            }
            Goal::Listing(path) => self.list(&path.clone()),
            Goal::Content(path) => {
                let path = path.clone();
                self.content(&path, task)
            }
            Goal::Closure(path) => {
                let path = path.clone();
                self.closure(&path, task)
            }
            Goal::Ahead(path) => {
                let path = path.clone();
                self.fetch_ahead(&path, task)
            }
            Goal::Changed(_) => Ok(self.settle(token, task)),
        }
    }

    /// Sends for what a task waits for.
    fn send_for(&mut self, token: Token, wanted: Wanted) {
        match &wanted {
            Wanted::Object(object) => self.ask_tree(token, object.clone()),
            Wanted::Settled(paths) => self.tell_tree(token, paths),
            Wanted::Quiet(path) => {
                if !self.waiting.contains_key(&wanted) {
                    self.ask_quiet(path.clone());
                }
                self.waiting.entry(wanted).or_default().push(token);
            }
            Wanted::Canonical(_) => {
                self.ask_canonical(token);
                self.waiting.insert(wanted, vec![token]);
            }
        }
    }

    /// Lets the catalog say that nobody keeps it any more.
    pub(crate) fn stop(&mut self) {
        self.writer.stop();
    }

    /// Parts from the other helpers, to whom this says that there is nothing left of this one.
    pub(crate) fn leave(&mut self) {
        self.peers = None;
    }

    /// Acts upon changes that could not be told: nothing that was known is believed any more.
    pub(crate) fn heed_alarms(&mut self, raised: u64) {
        if self.tally.alarms_seen == raised {
            return;
        }
        tracing::info!(
            raised,
            "a change could not be told; everything is forgotten"
        );
        self.tally.alarms_seen = raised;
        self.forget_below(b"/");
        self.pump();
        self.writer.set_alarms_seen(raised);
    }
}
