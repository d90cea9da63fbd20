//! Defects planted at the edge of a node, to see that the checks catch them.
//!
//! Each makes node and driver together behave as if the node's code had the fault.

use copper_core::tree::{Action, Actions, Message, Reason, RequestId};
use fastrand::Rng;

/// What is wrong with every node of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// One answer in twenty to a local waiter is dropped.
    DropAnswer,
    /// One local waiter in twenty is answered twice.
    DoubleAnswer,
    /// Deadlines pass unnoticed.
    ForgetDeadlines,
    /// One request in ten to the origin is made twice.
    DoubleRead,
    /// One chunk in twenty counts as brought though it was not.
    LoseChunks,
    /// What a node no longer believes stays in its catalog.
    IgnoreInvalidation,
    /// Publishing is forgotten one time in twenty.
    ForgetPublish,
    /// Waves are not passed on.
    SwallowWaves,
    /// Answers come before what they rest on is published.
    AnswerEarly,
    /// A passing error of the origin is not heard by who asked for it.
    DropRefusals,
}

impl Defect {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::DropAnswer,
        Self::DoubleAnswer,
        Self::ForgetDeadlines,
        Self::DoubleRead,
        Self::LoseChunks,
        Self::IgnoreInvalidation,
        Self::ForgetPublish,
        Self::SwallowWaves,
        Self::AnswerEarly,
        Self::DropRefusals,
    ];

    pub(super) fn lets_timer_through(self) -> bool {
        self != Self::ForgetDeadlines
    }

    pub(super) fn lets_chunk_in(self, random: &mut Rng) -> bool {
        self != Self::LoseChunks || random.u32(0..20) > 0
    }

    pub(super) fn lets_message_in(self, message: &Message) -> bool {
        match message {
            Message::Refusal {
                reason: Reason::Failed { .. },
                ..
            } => self != Self::DropRefusals,
            _ => true,
        }
    }

    pub(super) fn alter(self, actions: &mut Actions, random: &mut Rng) {
        let mut once = |one_in: u32| random.u32(0..one_in) == 0;
        match self {
            Self::DropAnswer => {
                actions.retain(|a| !matches!(a, Action::Answer { .. }) || !once(20))
            }
            Self::ForgetPublish => {
                actions.retain(|a| !matches!(a, Action::Publish(_)) || !once(20))
            }
            Self::IgnoreInvalidation => actions.retain(|a| !matches!(a, Action::Forget(_))),
            Self::SwallowWaves => actions.retain(|a| {
                !matches!(
                    a,
                    Action::Send {
                        message: Message::Wave { .. },
                        ..
                    }
                )
            }),
            Self::DoubleAnswer => {
                let again: Vec<Action> = actions
                    .iter()
                    .filter(|a| matches!(a, Action::Answer { .. }) && once(20))
                    .cloned()
                    .collect();
                actions.extend(again);
            }
            Self::DoubleRead => {
                let again: Vec<Action> = actions
                    .iter()
                    .filter_map(|action| match action {
                        Action::AskOrigin { request, .. } if once(10) => {
                            let id = RequestId::from_raw(u64::MAX);
                            Some(Action::AskOrigin {
                                id,
                                request: request.clone(),
                            })
                        }
                        _ => None,
                    })
                    .collect();
                actions.extend(again);
            }
            Self::AnswerEarly => {
                actions.sort_by_key(|action| !matches!(action, Action::Answer { .. }))
            }
            Self::ForgetDeadlines | Self::LoseChunks | Self::DropRefusals => {}
        }
    }
}
