//! One node by itself, driven by hand: what the one-node helper relies on.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use super::super::interface::{TransferError, Waiter};
use super::super::message::Change;
use super::super::object::{Kind, Version};
use super::*;

struct Alone {
    node: Node,
    now: Time,
    actions: Actions,
}

impl Alone {
    fn new(settings: Settings) -> Self {
        let topology = Topology::new(1, 1, 1).unwrap();
        let plan = Arc::new(Plan { topology, settings });
        Self {
            node: Node::new(plan, 0, 1).unwrap(),
            now: Time(0),
            actions: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        self.node.handle(self.now, event, &mut self.actions);
        core::mem::take(&mut self.actions)
    }

    fn ask(&mut self, waiter: u64, object: &Object) -> Vec<Action> {
        let deadline = self.now.after(Duration::from_secs(2));
        self.event(Event::Ask {
            waiter: Waiter(waiter),
            object: object.clone(),
            deadline,
        })
    }

    fn reply(&mut self, id: RequestId, reply: OriginReply) -> Vec<Action> {
        self.event(Event::Origin { id, reply })
    }

    fn wait(&mut self, seconds: u64) -> Vec<Action> {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.event(Event::Timer)
    }
}

fn object(kind: Kind, path: &str) -> Object {
    Object::new(kind, path.as_bytes()).unwrap()
}

fn present(length: u64) -> Outcome {
    let version = Version {
        inode: 5,
        size: length,
        modified: (1, 0),
        changed: (1, 0),
    };
    Outcome::Present { version, length }
}

fn looks(actions: &[Action]) -> Vec<RequestId> {
    let look = |action: &Action| match action {
        Action::AskOrigin {
            id,
            request: OriginRequest::Look { .. },
        } => Some(*id),
        _ => None,
    };
    actions.iter().filter_map(look).collect()
}

fn reads(actions: &[Action]) -> Vec<(RequestId, u32)> {
    let read = |action: &Action| match action {
        Action::AskOrigin {
            id,
            request: OriginRequest::Read { chunk, .. },
        } => Some((*id, *chunk)),
        _ => None,
    };
    actions.iter().filter_map(read).collect()
}

fn answers(actions: &[Action]) -> Vec<(u64, Answer)> {
    let answer = |action: &Action| match action {
        Action::Answer { waiter, answer, .. } => Some((waiter.0, answer.clone())),
        _ => None,
    };
    actions.iter().filter_map(answer).collect()
}

fn is_known(answer: &Answer, outcome: Outcome) -> bool {
    matches!(answer, Answer::Known(record) if record.outcome == outcome)
}

#[test]
fn many_ask_the_origin_is_asked_once_and_all_are_answered_after_publishing() {
    let mut alone = Alone::new(Settings::default());
    let listing = object(Kind::Directory, "/lib");
    let first = alone.ask(1, &listing);
    let ids = looks(&first);
    assert_eq!((ids.len(), first.len()), (1, 1));
    assert!(alone.ask(2, &listing).is_empty());
    let done = alone.reply(ids[0], OriginReply::Known(present(3_000_000)));
    assert!(matches!(done[0], Action::Publish(_)));
    let told = answers(&done);
    assert_eq!(told.iter().map(|t| t.0).collect::<Vec<_>>(), vec![1, 2]);
    assert!(
        told.iter()
            .all(|(_, answer)| is_known(answer, present(3_000_000)))
    );
    let again = answers(&alone.ask(3, &listing));
    assert!(is_known(&again[0].1, present(3_000_000)));
}

#[test]
fn absences_are_kept_and_passing_errors_are_not() {
    let mut alone = Alone::new(Settings::default());
    let missing = object(Kind::Entry, "/lib/none");
    let id = looks(&alone.ask(1, &missing))[0];
    let told = answers(&alone.reply(id, OriginReply::Failed { errno: 5 }));
    assert_eq!(told, vec![(1, Answer::Failed { errno: 5 })]);
    let id = looks(&alone.ask(2, &missing))[0];
    let absent = Outcome::Absent { errno: 2 };
    assert!(is_known(
        &answers(&alone.reply(id, OriginReply::Known(absent)))[0].1,
        absent
    ));
    assert!(is_known(&answers(&alone.ask(3, &missing))[0].1, absent));
}

#[test]
fn a_long_file_is_read_chunk_by_chunk_and_published_when_whole() {
    let settings = Settings {
        chunk: 1_000,
        inline_limit: 100,
        window: 2,
        ..Settings::default()
    };
    let mut alone = Alone::new(settings);
    let file = object(Kind::Content, "/lib/big.so");
    let id = looks(&alone.ask(1, &file))[0];
    let mut pending = reads(&alone.reply(id, OriginReply::Known(present(5_500))));
    assert_eq!(pending.iter().map(|p| p.1).collect::<Vec<_>>(), vec![0, 1]);
    let mut seen = Vec::new();
    while let Some((id, chunk)) = pending.pop() {
        seen.push(chunk);
        let actions = alone.reply(id, OriginReply::Stored);
        pending.extend(reads(&actions));
        let published = actions
            .iter()
            .any(|action| matches!(action, Action::Publish(_)));
        assert_eq!(published, seen.len() == 6);
        assert_eq!(answers(&actions).len(), usize::from(published));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..6).collect::<Vec<_>>());
    assert_eq!(
        alone.node.load(),
        Load {
            known: 1,
            ..Load::default()
        }
    );
}

#[test]
fn what_is_longer_than_any_store_is_too_large_for_all() {
    let settings = Settings {
        largest: 1_000,
        inline_limit: 100,
        ..Settings::default()
    };
    let mut alone = Alone::new(settings);
    let file = object(Kind::Content, "/data/huge");
    let id = looks(&alone.ask(1, &file))[0];
    let told = answers(&alone.reply(id, OriginReply::Known(present(1_001))));
    assert!(is_known(&told[0].1, Outcome::TooLarge));
}

#[test]
fn a_file_that_changes_on_the_way_is_looked_up_anew_and_at_last_given_up() {
    let settings = Settings {
        chunk: 1_000,
        inline_limit: 100,
        ..Settings::default()
    };
    let mut alone = Alone::new(settings);
    let file = object(Kind::Content, "/data/log");
    let mut actions = alone.ask(1, &file);
    for _ in 0..4 {
        let id = looks(&actions)[0];
        let chunks = reads(&alone.reply(id, OriginReply::Known(present(1_500))));
        assert_eq!(chunks.len(), 2);
        actions = alone.reply(chunks[0].0, OriginReply::Changed);
        assert!(
            actions
                .iter()
                .any(|action| matches!(action, Action::Discard(_)))
        );
        let late = alone.reply(chunks[1].0, OriginReply::Stored);
        assert!(late.is_empty());
    }
    assert_eq!(
        answers(&actions),
        vec![(1, Answer::Failed { errno: ESTALE })]
    );
    assert_eq!(alone.node.counters().dropped, 4);
    assert_eq!(alone.node.load(), Load::default());
}

#[test]
fn a_waiter_is_told_at_its_deadline_and_the_late_reply_still_serves_the_next() {
    let mut alone = Alone::new(Settings::default());
    let entry = object(Kind::Entry, "/slow");
    let id = looks(&alone.ask(1, &entry))[0];
    assert_eq!(
        alone.node.next_timeout(),
        Time(0).after(Duration::from_secs(2))
    );
    assert_eq!(answers(&alone.wait(2)), vec![(1, Answer::TimedOut)]);
    let late = alone.reply(id, OriginReply::Known(present(10)));
    assert!(matches!(late[..], [Action::Publish(_)]));
    assert_eq!(answers(&alone.ask(2, &entry)).len(), 1);
}

#[test]
fn an_origin_that_never_answers_is_given_up_and_leaves_nothing_behind() {
    let mut alone = Alone::new(Settings::default());
    let entry = object(Kind::Entry, "/hang");
    let id = looks(&alone.ask(1, &entry))[0];
    alone.wait(2);
    alone.wait(30);
    assert_eq!(alone.node.load(), Load::default());
    assert_eq!(alone.node.next_timeout(), Time::NEVER);
    assert!(alone.reply(id, OriginReply::Known(present(1))).is_empty());
    assert_eq!(alone.node.counters().dropped, 1);
}

#[test]
fn bounds_refuse_instead_of_growing() {
    let mut alone = Alone::new(Settings {
        open: 2,
        waiters: 3,
        ..Settings::default()
    });
    for (i, path) in ["/a", "/b", "/b"].into_iter().enumerate() {
        assert!(answers(&alone.ask(i as u64, &object(Kind::Entry, path))).is_empty());
    }
    assert_eq!(
        answers(&alone.ask(8, &object(Kind::Entry, "/a"))),
        vec![(8, Answer::Busy)]
    );
    let mut alone = Alone::new(Settings {
        open: 1,
        ..Settings::default()
    });
    alone.ask(1, &object(Kind::Entry, "/a"));
    assert_eq!(
        answers(&alone.ask(2, &object(Kind::Entry, "/b"))),
        vec![(2, Answer::Busy)]
    );
}

#[test]
fn an_invalidation_drops_the_name_its_directory_and_what_lies_below() {
    let mut alone = Alone::new(Settings::default());
    let gone = [
        object(Kind::Content, "/env/pkg/a.py"),
        object(Kind::Entry, "/env/pkg/a.py"),
        object(Kind::Directory, "/env/pkg"),
        object(Kind::Entry, "/env/pkg"),
        object(Kind::Content, "/env/pkg/a.py/below"),
        object(Kind::Closure, "/elsewhere/lib.so"),
    ];
    let kept = [
        object(Kind::Content, "/env/pkg/a.pyc"),
        object(Kind::Directory, "/env"),
        object(Kind::Content, "/env/pkg/b.py"),
    ];
    for object in gone.iter().chain(&kept) {
        let id = looks(&alone.ask(1, object))[0];
        alone.reply(id, OriginReply::Known(present(10)));
    }
    let change = Change::Paths(vec![b"/env/pkg/a.py"[..].into()]);
    let actions = alone.event(Event::Invalidate {
        waiter: Waiter(9),
        change,
    });
    let forgotten = actions
        .iter()
        .filter(|action| matches!(action, Action::Forget(_)))
        .count();
    assert_eq!(forgotten, gone.len());
    assert!(
        matches!(actions.last(), Some(Action::Settled { waiter: Waiter(9), report }) if report.reached == 1)
    );
    assert!(
        gone.iter()
            .all(|object| alone.node.lookup(object).is_none())
    );
    assert!(
        kept.iter()
            .all(|object| alone.node.lookup(object).is_some())
    );
}

#[test]
fn what_was_read_before_an_invalidation_is_not_kept_after_it() {
    let mut alone = Alone::new(Settings::default());
    let file = object(Kind::Content, "/env/a.py");
    let old = looks(&alone.ask(1, &file))[0];
    let actions = alone.event(Event::Invalidate {
        waiter: Waiter(9),
        change: Change::All,
    });
    let new = looks(&actions)[0];
    assert!(alone.reply(old, OriginReply::Known(present(1))).is_empty());
    let told = answers(&alone.reply(new, OriginReply::Known(present(2))));
    assert!(is_known(&told[0].1, present(2)));
}

#[test]
fn what_the_store_cannot_hold_goes_to_the_origin_for_a_while() {
    let mut alone = Alone::new(Settings::default());
    let file = object(Kind::Content, "/env/huge");
    let id = looks(&alone.ask(1, &file))[0];
    assert_eq!(
        answers(&alone.reply(id, OriginReply::NoSpace)),
        vec![(1, Answer::NoSpace)]
    );
    assert_eq!(answers(&alone.ask(2, &file)), vec![(2, Answer::NoSpace)]);
    alone.wait(6);
    assert_eq!(looks(&alone.ask(3, &file)).len(), 1);
}

#[test]
fn what_was_evicted_is_read_again() {
    let mut alone = Alone::new(Settings::default());
    let file = object(Kind::Content, "/env/a.py");
    let id = looks(&alone.ask(1, &file))[0];
    alone.reply(id, OriginReply::Known(present(1)));
    alone.event(Event::Evicted(file.clone()));
    assert_eq!(looks(&alone.ask(2, &file)).len(), 1);
}

#[test]
fn reports_for_unknown_requests_are_counted_and_dropped() {
    let mut alone = Alone::new(Settings::default());
    for raw in [0, 1, u64::MAX, 1 << 32] {
        let id = RequestId::from_raw(raw);
        assert!(alone.reply(id, OriginReply::Stored).is_empty());
        let result = Err(TransferError::Peer);
        assert!(alone.event(Event::Transferred { id, result }).is_empty());
    }
    assert_eq!(alone.node.counters().dropped, 8);
}

#[test]
fn a_survey_waits_for_readiness_when_asked_to() {
    let mut alone = Alone::new(Settings::default());
    let deadline = Time(0).after(Duration::from_secs(9));
    let event = Event::Survey {
        waiter: Waiter(4),
        until_ready: true,
        deadline,
    };
    assert!(alone.event(event).is_empty());
    let actions = alone.event(Event::Ready);
    assert!(
        matches!(&actions[..], [Action::Settled { waiter: Waiter(4), report }] if report.ready == 1)
    );
}

/// Rank 1 of a job of three, in a tree whose root is 0 and whose other leaf is 2.
fn leaf() -> Alone {
    let topology = Topology::new(3, 1, 2).unwrap();
    let plan = Arc::new(Plan {
        topology,
        settings: Settings::default(),
    });
    Alone {
        node: Node::new(plan, 1, 1).unwrap(),
        now: Time(0),
        actions: Vec::new(),
    }
}

fn answer_to(request: RequestId, object: &Object) -> Message {
    let record = Arc::new(Record {
        object: object.clone(),
        outcome: Outcome::Absent { errno: 2 },
    });
    Message::Answer {
        request,
        record,
        delivery: Delivery::Bare,
        epoch: Epoch::default(),
    }
}

#[test]
fn messages_that_nobody_may_send_are_counted_and_dropped() {
    let mut leaf = leaf();
    let file = object(Kind::Content, "/a");
    let sent = leaf.ask(1, &file);
    let Action::Send {
        to: 0,
        message: Message::Request { request, .. },
    } = &sent[0]
    else {
        panic!("{sent:?}");
    };
    let request = *request;
    let pull = Message::Pull {
        request,
        record: Arc::new(Record {
            object: file.clone(),
            outcome: present(1 << 40),
        }),
        chunk: 0,
        stand_in: false,
        epoch: Epoch::default(),
    };
    let asked = Message::Request {
        request,
        object: file.clone(),
        avoid: 0,
        stand_in: false,
        epoch: Epoch::default(),
    };
    let wrong = [
        (1, answer_to(request, &file)),
        (7, answer_to(request, &file)),
        (2, answer_to(request, &file)),
        (0, answer_to(RequestId::from_raw(99), &file)),
        (0, answer_to(request, &object(Kind::Content, "/b"))),
        (2, asked),
        (2, pull),
        (0, Message::Grant { request, chunk: 0 }),
    ];
    let count = wrong.len() as u64;
    for (from, message) in wrong {
        let actions = leaf.event(Event::Message { from, message });
        assert!(answers(&actions).is_empty(), "{actions:?}");
    }
    assert_eq!(leaf.node.counters().dropped, count);
    let right = answer_to(request, &file);
    let message = right.clone();
    let told = answers(&leaf.event(Event::Message { from: 0, message }));
    assert_eq!(told.len(), 1);
    let replayed = Event::Message {
        from: 0,
        message: right,
    };
    assert!(leaf.event(replayed).is_empty());
    assert_eq!(leaf.node.counters().dropped, count + 1);
}

#[test]
fn a_rank_outside_the_job_is_refused() {
    let topology = Topology::new(3, 1, 2).unwrap();
    let settings = Settings::default();
    let plan = Arc::new(Plan { topology, settings });
    assert!(matches!(
        Node::new(plan, 3, 1),
        Err(TopologyError::Rank { asked: 3, nodes: 3 })
    ));
}

/// A root with a file of four chunks and an entry, and three children.
fn root_with_a_long_file(settings: Settings) -> (Alone, Arc<Record>, Object) {
    let topology = Topology::new(4, 1, 3).unwrap();
    let plan = Arc::new(Plan { topology, settings });
    let mut root = Alone {
        node: Node::new(plan, 0, 1).unwrap(),
        now: Time(0),
        actions: Vec::new(),
    };
    let entry = object(Kind::Entry, "/lib/small.py");
    let id = looks(&root.ask(1, &entry))[0];
    root.reply(id, OriginReply::Known(present(40)));
    let file = object(Kind::Content, "/lib/big.so");
    let id = looks(&root.ask(2, &file))[0];
    let mut pending = reads(&root.reply(id, OriginReply::Known(present(4_000))));
    while let Some((id, _)) = pending.pop() {
        pending.extend(reads(&root.reply(id, OriginReply::Stored)));
    }
    let record = root.node.lookup(&file).map(Arc::clone).expect("published");
    (root, record, entry)
}

fn message_to(root: &mut Alone, from: Rank, message: Message) -> Vec<Action> {
    root.event(Event::Message { from, message })
}

fn pull(root: &mut Alone, from: Rank, record: &Arc<Record>, chunk: u32) -> Vec<Action> {
    let message = Message::Pull {
        request: RequestId::from_raw(u64::from(chunk) + 1),
        record: Arc::clone(record),
        chunk,
        stand_in: false,
        epoch: Epoch::default(),
    };
    message_to(root, from, message)
}

fn granted(actions: &[Action]) -> Vec<(Rank, u32)> {
    let grant = |action: &Action| match action {
        Action::Send {
            to,
            message: Message::Grant { chunk, .. },
        } => Some((*to, *chunk)),
        _ => None,
    };
    actions.iter().filter_map(grant).collect()
}

/// One chunk at a time is granted.
fn one_at_a_time() -> Settings {
    Settings {
        chunk: 1_000,
        inline_limit: 100,
        grants: 1,
        ..Settings::default()
    }
}

#[test]
fn small_requests_are_answered_at_once_while_bulk_waits_for_its_turn() {
    let (mut root, file, entry) = root_with_a_long_file(one_at_a_time());
    assert_eq!(granted(&pull(&mut root, 1, &file, 0)), [(1, 0)]);
    for (child, chunk) in [(1, 1), (2, 0), (1, 2), (3, 0)] {
        assert!(granted(&pull(&mut root, child, &file, chunk)).is_empty());
    }
    let request = RequestId::from_raw(9);
    let asked = Message::Request {
        request,
        object: entry.clone(),
        avoid: 0,
        stand_in: false,
        epoch: Epoch::default(),
    };
    let actions = message_to(&mut root, 3, asked);
    assert!(
        matches!(
            &actions[..],
            [Action::Send { to: 3, message: Message::Answer { request: answered, record, .. } }]
                if *answered == request && record.object == entry
        ),
        "{actions:?}"
    );
    // Each release lets the next in, in the order in which they came: nobody is passed over.
    let mut active = (1, 0);
    for next in [(1, 1), (2, 0), (1, 2), (3, 0)] {
        let (child, chunk) = active;
        let request = RequestId::from_raw(u64::from(chunk) + 1);
        let actions = message_to(&mut root, child, Message::Release { request });
        assert_eq!(granted(&actions), [next]);
        active = next;
    }
}

#[test]
fn a_peer_that_pulls_without_end_is_refused_at_its_credits() {
    let settings = Settings {
        credits: 2,
        ..one_at_a_time()
    };
    let (mut root, file, _) = root_with_a_long_file(settings);
    for chunk in 0..2 {
        pull(&mut root, 1, &file, chunk);
    }
    let actions = pull(&mut root, 1, &file, 2);
    assert!(
        matches!(
            &actions[..],
            [Action::Send {
                to: 1,
                message: Message::Refusal {
                    reason: Reason::Busy,
                    ..
                }
            }]
        ),
        "{actions:?}"
    );
    // What one peer has used up is not another's.
    let request = RequestId::from_raw(1);
    pull(&mut root, 2, &file, 0);
    assert_eq!(
        granted(&message_to(&mut root, 1, Message::Release { request })),
        [(1, 1)]
    );
}
