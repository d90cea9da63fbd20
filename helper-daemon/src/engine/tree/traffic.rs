//! Messages to and from other nodes, and the chunks of bodies that nodes grant each other.
#![forbid(unsafe_code)]

use super::bodies;
use super::bodies::read_whole;
use super::{Body, Event, Kind, Object, Record, RequestId};
use crate::engine::Engine;
use crate::fabric::{Fetch, FetchError, Rank};
use crate::origin::copy::version_of;
use crate::peers::Happened;
use copper_core::tree::{Delivery, Message, Order, Outcome, TransferError};
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

impl Engine {
    /// Whether nothing comes from the other helpers, or goes to them, without waiting.
    pub(crate) fn may_wait(&mut self) -> bool {
        self.peers.as_mut().is_none_or(|peers| peers.may_sleep())
    }

    /// Takes in what has come from the other helpers, and sends what is to be sent.
    pub(crate) fn take_traffic(&mut self) {
        let Some(peers) = &mut self.peers else {
            return;
        };
        // Questions first: those who are asked can work on them while this node does the rest.
        peers.post();
        for happened in peers.poll() {
            match happened {
                Happened::Message { from, bytes } => self.take_message(from, &bytes),
                Happened::Fetched { token, result } => {
                    let id = RequestId::from_raw(token);
                    let result = result.map_err(|why| match why {
                        FetchError::Peer => TransferError::Peer,
                        FetchError::NoSpace => TransferError::NoSpace,
                    });
                    self.hand_in(Event::Transferred { id, result });
                }
                Happened::Lost(peer) => self.hand_in(Event::PeerLost(peer)),
                Happened::Back(peer) => {
                    self.note_ready();
                    self.hand_in(Event::PeerBack(peer));
                }
            }
            self.pump();
        }
        if let Some(peers) = &mut self.peers {
            peers.post();
        }
    }

    fn take_message(&mut self, from: Rank, bytes: &[u8]) {
        let (message, attachment) = match Message::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                tracing::warn!(from, %error, "a message was not believed");
                return;
            }
        };
        let object = carries(&message).map(|record| record.object.clone());
        let attachment: Arc<[u8]> = attachment.into();
        if let Some(object) = &object {
            let body = Body::Wire(attachment.clone());
            self.tree.arrived = Some((object.clone(), body));
        }
        self.tree.attached = Some((object, attachment));
        if let (Message::Release { request }, Some(peers)) = (&message, &mut self.peers) {
            peers.withdraw(from, request.get());
        }
        if is_survey(&message) {
            self.sum_up();
        }
        self.hand_in(Event::Message { from, message });
        self.tree.arrived = None;
        self.tree.attached = None;
    }

    /// Sends a message with what must be attached to it.
    pub(super) fn send(&mut self, to: Rank, message: &Message) {
        let mut wire = Vec::new();
        message.encode(&mut wire);
        let attachment = match message {
            Message::Grant { request, .. } => match self.grant(to, *request) {
                Some(attachment) => attachment,
                // The peer will ask again, and be answered otherwise.
                None => return,
            },
            message => match carries(message) {
                None => Vec::new(),
                Some(record) => match self.body_of(record) {
                    Some(body) => body,
                    None => {
                        let object = record.object.clone();
                        tracing::debug!(?object, "its body is gone");
                        self.tree.events.push_back(Event::Evicted(object));
                        return;
                    }
                },
            },
        };
        wire.extend_from_slice(&attachment);
        if let Some(peers) = &mut self.peers {
            peers.send(to, &wire, asks(message));
        }
    }

    /// A record's body as it travels, for an answer that carries it.
    fn body_of(&mut self, record: &Record) -> Option<Vec<u8>> {
        let object = &record.object;
        if let Some((Some(arrived), bytes)) = &self.tree.attached
            && arrived == object
        {
            return Some(bytes.to_vec());
        }
        let body = match object.kind() {
            Kind::Content => return self.file_body(record),
            _ => self.tree.bodies.get(object)?.clone(),
        };
        let bytes = match body {
            bodies::Body::Short(bytes) => bytes.to_vec(),
            bodies::Body::Long(file) => read_whole(&file, record.length()).ok()?,
        };
        (bytes.len() as u64 == record.length()).then_some(bytes)
    }

    fn file_body(&mut self, record: &Record) -> Option<Vec<u8>> {
        let Outcome::Present { version, length } = record.outcome else {
            return None;
        };
        let stored = self.store.stored(record.object.path())?;
        let (inode, attributes) = (stored.0, *stored.1);
        if version_of(&attributes) != version {
            return None;
        }
        let content = read_whole(&self.store.open(inode).ok()?, length).ok()?;
        let mut body = self.tree.mounts.encode_head(&attributes);
        body.extend_from_slice(&content);
        Some(body)
    }

    /// What a peer needs to fetch the chunk that it is granted.
    fn grant(&mut self, to: Rank, request: RequestId) -> Option<Vec<u8>> {
        let (object, chunk) = self.tree.node.granted(to, request)?;
        let object = object.clone();
        let (file, length, attributes) = self.source_of(&object)?;
        let extent = self.tree.settings.extent(length, chunk);
        let time = self.tree.settings.transfer;
        let peers = self.peers.as_mut()?;
        match peers.offer((to, request.get()), &file, extent, time) {
            Ok(descriptor) => {
                let mounts = &mut self.tree.mounts;
                Some(mounts.encode_grant(attributes.as_ref(), &descriptor))
            }
            Err(error) => {
                tracing::warn!(%error, ?object, "a chunk cannot be offered");
                None
            }
        }
    }

    /// The file that holds a body, whole or in the making, its length, and a file's attributes.
    fn source_of(
        &self,
        object: &Object,
    ) -> Option<(Arc<File>, u64, Option<copper_core::attributes::Attributes>)> {
        if let Some(aside) = self.tree.aside.get(object) {
            let attributes = aside.attributes(None).copied();
            return Some((aside.out().clone(), aside.length(), attributes));
        }
        if object.kind() != Kind::Content {
            return match self.tree.bodies.get(object)? {
                bodies::Body::Long(file) => {
                    let length = file.metadata().ok()?.len();
                    Some((file.clone(), length, None))
                }
                bodies::Body::Short(_) => None,
            };
        }
        let (inode, attributes) = self.store.stored(object.path())?;
        let file = Arc::new(self.store.open(inode).ok()?);
        Some((file, attributes.size, Some(*attributes)))
    }

    /// Fetches a chunk that was granted with the message that is being handled.
    pub(super) fn transfer(&mut self, id: RequestId, from: Rank, record: &Record, chunk: u32) {
        if let Err(why) = self.try_transfer(id, from, record, chunk) {
            let result = Err(why);
            self.tree
                .events
                .push_back(Event::Transferred { id, result });
        }
    }

    fn try_transfer(
        &mut self,
        id: RequestId,
        from: Rank,
        record: &Record,
        chunk: u32,
    ) -> Result<(), TransferError> {
        let attached = self.tree.attached.as_ref().map(|(_, bytes)| bytes);
        let granted = attached.and_then(|bytes| self.tree.mounts.decode_grant(bytes));
        let (attributes, descriptor) = granted.ok_or(TransferError::Peer)?;
        let aside = self.aside_for(record).ok_or(TransferError::NoSpace)?;
        aside.attributes(attributes);
        let (position, length) = self.tree.settings.extent(record.length(), chunk);
        let fetch = Fetch {
            token: id.get(),
            descriptor,
            file: aside.out().clone(),
            position,
            length: length as usize,
            deadline: Instant::now() + self.tree.settings.transfer,
        };
        let peers = self.peers.as_mut().ok_or(TransferError::Peer)?;
        peers.fetch(from, fetch).map_err(|error| {
            tracing::debug!(%error, from, "a chunk is not fetched");
            TransferError::Peer
        })
    }
}

/// The record whose body, or whose file's attributes, go with this message.
fn carries(message: &Message) -> Option<&Record> {
    match message {
        Message::Answer {
            record,
            delivery: Delivery::Inline,
            ..
        } => Some(record),
        Message::Answer {
            record,
            delivery: Delivery::Bare,
            ..
        } if record.is_present() && record.object.kind() == Kind::Content => Some(record),
        _ => None,
    }
}

/// Whether the message asks something of a node that may not have been met yet.
fn asks(message: &Message) -> bool {
    matches!(
        message,
        Message::Request { .. }
            | Message::Pull { .. }
            | Message::Submit { .. }
            | Message::CatchUp { .. }
            | Message::Wave { .. }
    )
}

/// Whether the message makes the node say how it is.
fn is_survey(message: &Message) -> bool {
    let (Message::Wave { order, .. } | Message::Submit { order, .. }) = message else {
        return false;
    };
    matches!(**order, Order::Survey { .. })
}
