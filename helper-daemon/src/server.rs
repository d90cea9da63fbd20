//! The event loop: the one thread that owns the catalog, and that never waits for the origin.
//!
//! It waits without a timer when nothing is outstanding.

mod bursts;
mod client;
mod handover;
mod idleness;

use crate::engine::{Engine, Token};
use crate::lending::Lender;
use crate::shared_memory::CommonMemory;
use anyhow::{Context, Result};
use bursts::Bursts;
use client::{Client, Progress};
use copper_core::request::{Operation, Outcome};
pub(crate) use handover::Handover;
use idleness::Idleness;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// Clients that are served at once; more wait in the listener's queue.
const MOST_CLIENTS: usize = 4096;
/// How long a client may take to send its question, or to take its answer.
const CLIENT_TIME: Duration = Duration::from_secs(2);
/// How often a client that waits is told that its question is being worked on.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// After this a client is sent to the origin.
const QUESTION_TIME: Duration = Duration::from_secs(60);

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const WAKERS: u64 = 2;
const STARTER: u64 = 3;
const CLOSED: u64 = 4;
const PEERS: u64 = 5;
const WATCHED: u64 = 6;
const FIRST_CLIENT: u64 = 16;

/// Why the helper ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A signal.
    Signal,
    /// `copper stop`, with what became of the other helpers.
    Asked(Token, Vec<u8>),
    /// Another helper of the job.
    Job,
    /// The last attached client has gone.
    Alone,
    /// The process that stands for the batch job has ended.
    BatchJob,
    /// Nobody has used it for a long time.
    Idle,
    /// The same, and no other helper of the job could be reached.
    CutOff,
}

/// What ends the helper without anybody asking for it.
#[derive(Debug)]
pub(crate) struct Endings {
    /// A connection that counts as an attached client; the helper ends with the last of these.
    pub(crate) starter: Option<OwnedFd>,
    /// Readable when the batch job has ended.
    pub(crate) watched: Option<OwnedFd>,
    /// How long it may go unused, in seconds.
    pub(crate) idle_limit: Option<u32>,
    /// The same, while no other helper of its job can be reached.
    pub(crate) cut_off_limit: Option<u32>,
    /// The catalog's inode, by which processes that use it are known.
    pub(crate) catalog: u64,
}

/// What the server needs to say of the helper as a whole.
pub(crate) trait Report {
    /// The helper's status, as JSON.
    fn status(&self, engine: &Engine) -> String;
    /// Its status and its journal with up to `most` objects (a number in digits), as JSON.
    fn profile(&self, engine: &Engine, most: &[u8]) -> Vec<u8>;
}

/// The server.
pub(crate) struct Server<'a> {
    epoll: OwnedFd,
    listener: &'a UnixListener,
    listening: bool,
    handover: Handover,
    alarm: &'a CommonMemory,
    engine: &'a mut Engine,
    report: &'a dyn Report,
    clients: HashMap<Token, Client>,
    deadlines: BTreeSet<(Instant, Token)>,
    next_token: Token,
    attached: usize,
    while_attached: bool,
    starter: Option<OwnedFd>,
    watched: Option<OwnedFd>,
    idleness: Option<Idleness>,
    cut_off_limit: Option<u32>,
    /// How long nobody has used it since it lost the last of the other helpers.
    cut_off: Option<Idleness>,
    /// The catalog's inode.
    catalog: u64,
    bursts: Bursts,
    lender: Lender,
    uid: u32,
    end: Option<End>,
    /// Who asked for the end of the job.
    ender: Option<Token>,
}

impl<'a> Server<'a> {
    /// A server on `listener`.
    pub(crate) fn new(
        listener: &'a UnixListener,
        signals: &OwnedFd,
        endings: Endings,
        handover: Handover,
        alarm: &'a CommonMemory,
        engine: &'a mut Engine,
        report: &'a dyn Report,
    ) -> Result<Server<'a>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("cannot make an epoll")?;
        let watch_for = |flags: epoll::EventFlags, source: &dyn AsFd, token: u64| {
            let data = epoll::EventData::new_u64(token);
            epoll::add(&epoll, source.as_fd(), data, flags).context("cannot watch a descriptor")
        };
        let watch = |source: &dyn AsFd, token| watch_for(epoll::EventFlags::IN, source, token);
        watch(&listener, LISTENER)?;
        watch(&signals, SIGNALS)?;
        for waker in engine.wakers() {
            watch_for(epoll::EventFlags::IN | epoll::EventFlags::ET, waker, WAKERS)?;
        }
        watch(&engine.notifier(), CLOSED)?;
        for descriptor in engine.traffic_descriptors() {
            watch(&descriptor, PEERS)?;
        }
        let Endings {
            starter,
            watched,
            idle_limit,
            cut_off_limit,
            catalog,
        } = endings;
        if let Some(starter) = &starter {
            watch(starter, STARTER)?;
        }
        if let Some(watched) = &watched {
            watch(watched, WATCHED)?;
        }
        Ok(Server {
            epoll,
            listener,
            listening: true,
            handover,
            alarm,
            engine,
            report,
            clients: HashMap::new(),
            deadlines: BTreeSet::new(),
            next_token: FIRST_CLIENT,
            attached: usize::from(starter.is_some()),
            while_attached: starter.is_some(),
            starter,
            watched,
            idleness: idle_limit.map(|limit| Idleness::new(limit, catalog)),
            cut_off_limit,
            cut_off: None,
            catalog,
            bursts: Bursts::default(),
            lender: Lender::new(),
            uid: crate::runtime::own_uid(),
            end: None,
            ender: None,
        })
    }

    /// Serves until there is a reason to end.
    pub(crate) fn serve(&mut self) -> Result<End> {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            self.engine.take_traffic();
            self.send_replies();
            self.heed_end_of_job();
            self.heed_idleness();
            if let Some(end) = self.end.take() {
                return Ok(end);
            }
            let timeout = self.timeout();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot wait for events"),
            }
            if events.is_empty()
                && timeout == Some(Timespec::default())
                && !self.engine.read_ahead()
            {
                self.lender.lend(self.engine.origin().is_at_work());
            }
            self.alarm.clear_silent();
            self.engine.heed_alarms(self.alarm.raised());
            for event in &events {
                self.take_event(event.data.u64());
            }
            self.engine.take_landings();
            self.engine.heed_time();
            self.send_replies();
            self.heed_deadlines();
            self.listen_again();
        }
    }

    /// Ends when the job is ended and nobody else waits for this helper.
    fn heed_end_of_job(&mut self) {
        if let Some(body) = self.engine.job_ended() {
            self.end = Some(match self.ender {
                Some(token) => End::Asked(token, body),
                None => End::Job,
            });
        }
    }

    /// Looks into the engine.
    pub(crate) fn with_engine<T>(&self, look: impl FnOnce(&Engine) -> T) -> T {
        look(self.engine)
    }

    /// Lets the catalog say that nobody keeps it any more.
    pub(crate) fn stop_engine(&mut self) {
        self.engine.stop();
    }

    /// Parts from the other helpers.
    pub(crate) fn leave(&mut self) {
        self.engine.leave();
    }

    fn timeout(&mut self) -> Option<Timespec> {
        let stays_awake = self.bursts.goes_on() && self.lender.may_lend();
        if stays_awake || self.engine.may_read_ahead() || !self.engine.may_wait() {
            return Some(Timespec::default());
        }
        let client = self.deadlines.first().map(|(first, _)| *first);
        let tree = self.engine.next_timeout();
        let limits = self.idleness.iter().chain(&self.cut_off);
        let first = [client, tree, self.engine.next_traffic()]
            .into_iter()
            .flatten()
            .chain(limits.map(Idleness::deadline))
            .min()?;
        let wait = first.saturating_duration_since(Instant::now());
        Some(Timespec {
            tv_sec: wait.as_secs().min(3600) as i64,
            tv_nsec: wait.subsec_nanos().into(),
        })
    }

    fn take_event(&mut self, token: u64) {
        match token {
            // One at a time: the next makes the listener readable again, and to look in vain costs as
            // much as a good part of an answer.
            LISTENER => drop(self.accept_one()),
            SIGNALS => self.end = Some(End::Signal),
            WAKERS | PEERS => {}
            CLOSED => self.engine.take_closed(),
            STARTER => self.starter_gone(),
            WATCHED => self.batch_job_ended(),
            token => self.serve_client(token),
        }
    }

    /// Accepts whoever waits.
    fn accept_all(&mut self) {
        while self.accept_one() {}
    }

    /// Accepts one client, if one waits and there is room for it; says whether it did.
    fn accept_one(&mut self) -> bool {
        if self.clients.len() >= MOST_CLIENTS {
            self.pause_listening();
            return false;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match accept_with(self.listener, flags) {
            Ok(socket) => UnixStream::from(socket),
            Err(Errno::WOULDBLOCK) => return false,
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                self.pause_listening();
                return false;
            }
        };
        if let Some(client) = Client::new(socket, self.uid) {
            let token = self.next_token;
            self.next_token += 1;
            self.clients.insert(token, client);
            self.set_deadline(token, Some(Instant::now() + CLIENT_TIME));
            self.serve_client(token);
        }
        true
    }

    /// Has the event loop told of a client's socket. Most clients have asked all when they are
    /// accepted, and get their answer without.
    fn watch_client(&mut self, token: Token, flags: epoll::EventFlags) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        let data = epoll::EventData::new_u64(token);
        let watched = if std::mem::replace(&mut client.is_watched, true) {
            epoll::modify(&self.epoll, client.socket(), data, flags)
        } else {
            epoll::add(&self.epoll, client.socket(), data, flags)
        };
        if watched.is_err() {
            self.drop_client(token);
        }
    }

    /// Leaves new clients in the listener's queue until one has gone.
    fn pause_listening(&mut self) {
        if self.listening && !self.clients.is_empty() {
            self.listening = epoll::delete(&self.epoll, self.listener).is_err();
        }
    }

    fn listen_again(&mut self) {
        if !self.listening && self.clients.len() < MOST_CLIENTS {
            let data = epoll::EventData::new_u64(LISTENER);
            let added = epoll::add(&self.epoll, self.listener, data, epoll::EventFlags::IN);
            self.listening = added.is_ok();
        }
    }

    fn set_deadline(&mut self, token: Token, deadline: Option<Instant>) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut client.deadline, deadline) {
            self.deadlines.remove(&(old, token));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, token));
        }
    }

    fn serve_client(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        match client.advance() {
            Progress::Waiting => self.watch_client(token, epoll::EventFlags::IN),
            Progress::Gone => self.drop_client(token),
            Progress::Asked(operation) => self.take_question(token, operation),
            Progress::Answered => self.drop_client(token),
        }
    }

    fn take_question(&mut self, token: Token, operation: Operation) {
        let now = Instant::now();
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        client.asked_at = Some(now);
        self.bursts.note(now);
        if !matches!(operation, Operation::Status | Operation::Journal) {
            let limits = self.idleness.iter_mut().chain(&mut self.cut_off);
            limits.for_each(Idleness::note_use);
        }
        match operation {
            Operation::Attach => {
                self.attached += 1;
                self.set_deadline(token, None);
                if let Some(client) = self.clients.get_mut(&token) {
                    client.attach();
                }
                self.watch_client(token, epoll::EventFlags::IN);
            }
            Operation::Status => {
                let status = self.report.status(self.engine);
                self.answer(token, Outcome::Known, status.as_bytes());
            }
            Operation::Journal => {
                let (most, _) = client.take_paths();
                let profile = self.report.profile(self.engine, &most);
                self.answer(token, Outcome::Known, &profile);
            }
            Operation::Memory => {
                self.handover.answer(client.socket());
                self.drop_client(token);
            }
            Operation::Survey => {
                let (wish, _) = client.take_paths();
                self.set_deadline(token, Some(now + SIGN_OF_LIFE));
                self.engine.survey(token, &wish);
            }
            Operation::StopAll if self.engine.is_in_job() => {
                self.set_deadline(token, Some(now + SIGN_OF_LIFE));
                self.ender = Some(token);
                self.engine.end_all();
            }
            Operation::Stop | Operation::StopAll => {
                self.end = Some(End::Asked(token, Vec::new()));
            }
            operation => {
                let (first, second) = client.take_paths();
                self.set_deadline(token, Some(now + SIGN_OF_LIFE));
                self.engine.ask(token, operation, [&first, &second]);
            }
        }
    }

    fn send_replies(&mut self) {
        for reply in self.engine.take_replies() {
            self.answer(reply.token, reply.outcome, &reply.body);
        }
    }

    /// Sends an answer; what the socket does not take at once follows when it can.
    pub(crate) fn answer(&mut self, token: Token, outcome: Outcome, body: &[u8]) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        client.answer(outcome, body);
        match client.advance() {
            Progress::Waiting => {
                self.watch_client(token, epoll::EventFlags::OUT);
                self.set_deadline(token, Some(Instant::now() + CLIENT_TIME));
            }
            _ => self.drop_client(token),
        }
    }

    fn heed_deadlines(&mut self) {
        let now = Instant::now();
        while let Some(&(deadline, token)) = self.deadlines.first() {
            if deadline > now {
                return;
            }
            let Some(client) = self.clients.get_mut(&token) else {
                self.deadlines.remove(&(deadline, token));
                continue;
            };
            match client.asked_at.filter(|_| !client.is_answered()) {
                Some(asked) if now.duration_since(asked) < QUESTION_TIME => {
                    if client.sign_of_life() {
                        self.set_deadline(token, Some(now + SIGN_OF_LIFE));
                    } else {
                        self.drop_client(token);
                    }
                }
                Some(_) => {
                    self.set_deadline(token, None);
                    self.engine.give_up(token);
                    self.send_replies();
                }
                None => self.drop_client(token),
            }
        }
    }

    fn drop_client(&mut self, token: Token) {
        self.set_deadline(token, None);
        let Some(client) = self.clients.remove(&token) else {
            return;
        };
        self.engine.cancel(token);
        if client.is_attached() {
            self.detach();
        }
    }

    /// Ends all helpers of the job: the others may not notice its end by themselves.
    fn batch_job_ended(&mut self) {
        let Some(watched) = self.watched.take() else {
            return;
        };
        let _ = epoll::delete(&self.epoll, watched);
        tracing::info!("the batch job has ended");
        if self.engine.is_in_job() {
            self.engine.end_all();
        } else {
            self.end = Some(End::BatchJob);
        }
    }

    fn heed_idleness(&mut self) {
        let attached = self.attached > 0;
        let is_over = |limit: &mut Option<Idleness>| {
            limit.as_mut().is_some_and(|limit| limit.is_over(attached))
        };
        if is_over(&mut self.idleness) {
            self.end = Some(End::Idle);
        }
        match self.cut_off_limit {
            Some(limit) if self.engine.is_cut_off() => {
                let catalog = self.catalog;
                self.cut_off
                    .get_or_insert_with(|| Idleness::new(limit, catalog));
            }
            _ => self.cut_off = None,
        }
        if is_over(&mut self.cut_off) {
            tracing::warn!(
                "no other helper of the job was reached for long, and nobody uses this one"
            );
            self.end = Some(End::CutOff);
        }
    }

    fn starter_gone(&mut self) {
        if self.starter.take().is_some() {
            self.detach();
        }
    }

    fn detach(&mut self) {
        self.attached = self.attached.saturating_sub(1);
        if self.attached == 0 && self.while_attached {
            self.accept_all();
            if self.attached == 0 {
                self.end = Some(End::Alone);
            }
        }
    }
}
