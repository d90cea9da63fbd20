//! Ending all helpers of a job: an echo through the connections between them.
//!
//! Whoever is asked to end the job tells all whom it has met, and each of them tells all others
//! that it has met. A helper that has heard back from all it told, and whose connections to those
//! that heard it first are gone with their processes, says so to whom it heard from first, and ends.
//! A lost one counts as heard; nobody waits for longer than [`PATIENCE`].
#![forbid(unsafe_code)]

use super::{MESSAGE_TIME, Peers};
use crate::fabric::Rank;
use crate::status::Stopped;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// First byte of messages that are not the tree's.
pub(super) const CONTROL: u8 = 0xc5;

/// How long a helper that is to end waits for the others.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long the last message may take to leave.
const LINGER: Duration = Duration::from_millis(150);
/// Most lost helpers that are named.
const MOST_LOST: usize = 64;

#[derive(Serialize, Deserialize)]
enum Say {
    /// End, and tell the others.
    End,
    /// All whom I have told have ended or are lost.
    Ended { ended: u32, lost: Vec<Rank> },
}

/// The end of the job, as far as it has come here.
pub(super) struct Ending {
    /// Whom it was heard from; none where the user asked for it.
    from: Option<Rank>,
    /// Who was told and has not been heard back from.
    waiting: HashSet<Rank>,
    /// Who has answered and is still to be seen going.
    going: HashSet<Rank>,
    deadline: Instant,
    done: bool,
    ended: Stopped,
}

impl Ending {
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
}

fn encode(say: &Say) -> Vec<u8> {
    let mut message = vec![CONTROL];
    message.extend(postcard::to_allocvec(say).unwrap_or_default());
    message
}

impl Peers {
    /// Begins to end all helpers of the job.
    pub(crate) fn end_all(&mut self) {
        self.begin_ending(None);
    }

    /// Whether the job is being ended and this helper may end now, and what became of the others.
    pub(crate) fn ended(&mut self) -> Option<Stopped> {
        let now = Instant::now();
        let ending = self.ending.as_mut()?;
        let heard = ending.waiting.is_empty() && ending.going.is_empty();
        if !ending.done && (heard || ending.deadline <= now) {
            ending.done = true;
            let missing = ending.waiting.drain();
            ending.ended.lost.extend(missing);
            ending.ended.lost.sort_unstable();
            ending.ended.lost.dedup();
            ending.ended.lost.truncate(MOST_LOST);
            ending.deadline = now;
            if let Some(to) = ending.from {
                ending.deadline = now + LINGER;
                let say = Say::Ended {
                    ended: ending.ended.ended,
                    lost: ending.ended.lost.clone(),
                };
                let _ = self.transport.send(to, &encode(&say), now + MESSAGE_TIME);
            }
        }
        let ending = self.ending.as_ref()?;
        (ending.done && ending.deadline <= now).then(|| ending.ended.clone())
    }

    fn begin_ending(&mut self, from: Option<Rank>) {
        if self.ending.is_some() {
            return;
        }
        let others = self.sessions.keys().copied();
        let others: Vec<Rank> = others.filter(|peer| Some(*peer) != from).collect();
        self.ending = Some(Ending {
            from,
            waiting: HashSet::new(),
            going: HashSet::new(),
            deadline: Instant::now() + PATIENCE,
            done: false,
            ended: Stopped {
                nodes: self.topology.nodes(),
                ended: 1,
                lost: Vec::new(),
            },
        });
        others.into_iter().for_each(|peer| self.end_with(peer));
    }

    /// Tells a peer that the job ends, if it does.
    pub(super) fn end_with(&mut self, peer: Rank) {
        let Some(ending) = self.ending.as_mut().filter(|ending| !ending.done) else {
            return;
        };
        let deadline = Instant::now() + MESSAGE_TIME;
        let sent = self.transport.send(peer, &encode(&Say::End), deadline);
        if sent.is_ok() {
            ending.waiting.insert(peer);
        }
    }

    pub(super) fn note_lost_at_end(&mut self, peer: Rank) {
        if let Some(ending) = &mut self.ending {
            ending.going.remove(&peer);
            if ending.waiting.remove(&peer) {
                ending.ended.lost.push(peer);
            }
        }
    }

    pub(super) fn heed_control(&mut self, from: Rank, message: &[u8]) {
        let Ok(say) = postcard::from_bytes(&message[1..]) else {
            tracing::warn!(host = self.host(from), "a message that is not understood");
            return;
        };
        match say {
            // Two that have told each other wait for each other no more.
            Say::End if self.ending.is_some() => {
                if let Some(ending) = &mut self.ending {
                    ending.waiting.remove(&from);
                }
            }
            Say::End => {
                tracing::info!(host = self.host(from), "asked to end");
                self.begin_ending(Some(from));
            }
            Say::Ended { ended, lost } => {
                if let Some(ending) = &mut self.ending
                    && ending.waiting.remove(&from)
                {
                    ending.going.insert(from);
                    ending.ended.ended = ending.ended.ended.saturating_add(ended);
                    let lost = lost.into_iter().take(MOST_LOST);
                    ending.ended.lost.extend(lost);
                }
            }
        }
    }
}
