//! An endpoint: messages to peers, reads of their memory, completions, and an orderly end.
//!
//! One thread owns an endpoint (it cannot be sent to another) and drives it: providers make
//! progress, **for their peers' reads too, only while that thread calls**. So it must never
//! block elsewhere. It drains [`Endpoint::next_event`], asks [`Endpoint::may_sleep`], and then
//! waits for [`Endpoint::wait_descriptor`] along with whatever else it serves.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::{FabricError, OpenError, PostError};
use crate::library::{Hints, Library, ProviderInfo};
use crate::memory::Memory;
use crate::operations::{Operation, Operations, Source};
use crate::provider::{EndpointConfig, choose_provider, same_family};
use crate::raw;
use crate::region::{Access, Handle, Region, RemoteRegion};
use crate::signals::SignalGuard;

/// The longest address accepted from a peer, in bytes.
const MAX_ADDRESS: usize = 256;
/// Completions taken from the provider at once.
const COMPLETIONS: usize = 16;
/// Longest wait between two looks at the queue while closing.
const CLOSING_STEP: Duration = Duration::from_millis(5);

/// A peer that can be sent to and read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer(usize);

/// Something that happened. Tokens are the caller's.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message came, from whom it must say itself. Its bytes are valid until the next call.
    Message(&'a [u8]),
    /// A message has left; its region, if it had one, may be changed again.
    Sent {
        /// The send's token.
        token: u64,
    },
    /// All bytes of a read are in its region.
    Read {
        /// The read's token.
        token: u64,
    },
    /// A send or read failed. What it may have written is undefined.
    Failed {
        /// The operation's token.
        token: u64,
        /// Why.
        error: FabricError,
    },
}

/// How an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Nothing was under way any more, and all was given back.
    Orderly,
    /// Operations did not end in time. As some providers crash when closed like that, the
    /// endpoint and the memory of those operations stay allocated until the process ends.
    Abandoned {
        /// How many sends and reads were under way.
        outstanding: usize,
    },
}

/// An open endpoint.
pub struct Endpoint {
    handle: Rc<Handle>,
    info: ProviderInfo,
    address: Vec<u8>,
    wait_descriptor: RawFd,
    message_size: usize,
    operations: Operations,
    max_posted: usize,
    completed: VecDeque<raw::Completion>,
    /// The provider gave as many as there was room for, and may have more.
    full_batch: bool,
    receive_ring: Region,
    /// Slots of the receive ring that wait to be posted again.
    idle_receives: Vec<usize>,
    /// The slot lent out with the last event.
    lent_receive: Option<usize>,
    send_ring: Region,
    idle_sends: Vec<usize>,
    /// Provider addresses of the peers; removed ones leave a gap that is used again.
    peers: Vec<Option<u64>>,
    shut_down: bool,
}

/// An event that names a receive slot rather than borrowing it.
enum Finished {
    Message { slot: usize, length: usize },
    Sent { token: u64 },
    Read { token: u64 },
    Failed { token: u64, error: FabricError },
}

impl Endpoint {
    /// Opens an endpoint, loading libfabric if that has not happened yet.
    ///
    /// # Errors
    ///
    /// There is no libfabric, no such provider, or the provider refuses; see [`OpenError`].
    pub fn open(config: &EndpointConfig) -> Result<Self, OpenError> {
        let library = Library::load()?;
        let hints = choose_provider(library, config)?;
        let (handle, info) = open_handle(&hints, config)?;
        let ring = |slots: usize| -> Result<Region, OpenError> {
            let bytes = slots.max(1).saturating_mul(config.message_size.max(1));
            let memory =
                Memory::anonymous(bytes).map_err(|error| OpenError::Memory(error.to_string()))?;
            Ok(Region::register(&handle, memory, Access::Local)?)
        };
        let max_posted = config.sends + config.reads;
        let mut endpoint = Self {
            address: own_address(&handle)?,
            wait_descriptor: wait_descriptor(&handle)?,
            message_size: config.message_size,
            operations: Operations::new(config.receives + max_posted),
            max_posted,
            completed: VecDeque::with_capacity(COMPLETIONS),
            full_batch: false,
            receive_ring: ring(config.receives)?,
            idle_receives: (0..config.receives).rev().collect(),
            lent_receive: None,
            send_ring: ring(config.sends)?,
            idle_sends: (0..config.sends).rev().collect(),
            peers: Vec::new(),
            shut_down: false,
            handle,
            info,
        };
        endpoint.post_receives()?;
        Ok(endpoint)
    }

    /// The provider in use.
    pub fn provider(&self) -> &ProviderInfo {
        &self.info
    }

    /// The longest message in bytes.
    pub fn message_size(&self) -> usize {
        self.message_size
    }

    /// The address by which peers know this endpoint: opaque bytes, all of one length for one
    /// provider.
    pub fn address(&self) -> &[u8] {
        &self.address
    }

    /// An address in words, for logs.
    ///
    /// An address of the wrong length gives `"?"`.
    pub fn address_text(&self, address: &[u8]) -> String {
        if address.len() != self.address.len() {
            return "?".to_owned();
        }
        let mut text = [0; 256];
        // SAFETY: the address is as long as the endpoint's own, and `text` as long as stated.
        unsafe {
            raw::lfs_address_text(
                self.handle.raw(),
                address.as_ptr().cast(),
                text.as_mut_ptr(),
                text.len(),
            );
        }
        raw::text(&text)
    }

    /// Makes a peer known by its address. Nothing is sent.
    ///
    /// # Errors
    ///
    /// The address is not one of this provider's.
    pub fn insert(&mut self, address: &[u8]) -> Result<Peer, FabricError> {
        if address.len() != self.address.len() || !same_family(address, &self.address, &self.info) {
            return Err(FabricError::new("fi_av_insert", libc::EINVAL.into()));
        }
        let mut peer = 0;
        // SAFETY: the address is as long as this provider's are, and `peer` is valid.
        let result =
            unsafe { raw::lfs_insert(self.handle.raw(), address.as_ptr().cast(), &mut peer) };
        if result != 0 {
            return Err(FabricError::new("fi_av_insert", result.into()));
        }
        let place = self
            .peers
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.peers.len());
        if place == self.peers.len() {
            self.peers.push(None);
        }
        self.peers[place] = Some(peer);
        Ok(Peer(place))
    }

    /// Forgets a peer.
    ///
    /// # Errors
    ///
    /// [`PostError::Again`] while an operation with the peer is under way,
    /// [`PostError::UnknownPeer`] if it was removed before.
    pub fn remove(&mut self, peer: Peer) -> Result<(), PostError> {
        let address = self.peer_address(peer)?;
        if self.operations.uses_peer(peer.0) {
            return Err(PostError::Again);
        }
        self.peers[peer.0] = None;
        // SAFETY: the address is in the table, and is taken out once.
        let result = unsafe { raw::lfs_remove(self.handle.raw(), address) };
        if result != 0 {
            return Err(FabricError::new("fi_av_remove", result.into()).into());
        }
        Ok(())
    }

    /// Registers memory under a new random key.
    ///
    /// # Errors
    ///
    /// The provider refuses, for lack of memory that may be pinned as a rule (`ulimit -l`).
    pub fn register(&self, memory: Memory, access: Access) -> Result<Region, FabricError> {
        Region::register(&self.handle, memory, access)
    }

    /// Sends a copy of `message`.
    ///
    /// # Errors
    ///
    /// See [`PostError`]; nothing was sent.
    pub fn send(
        &mut self,
        to: Peer,
        message: &[u8],
        token: u64,
        deadline: Instant,
    ) -> Result<(), PostError> {
        if message.len() > self.message_size {
            return Err(PostError::TooLong {
                length: message.len(),
                limit: self.message_size,
            });
        }
        let slot = self.idle_sends.pop().ok_or(PostError::Again)?;
        let offset = slot * self.message_size;
        self.send_ring.memory().copy_in(offset, message);
        let ring = self.send_ring.clone();
        let source = Source::Slot(slot);
        let result = self.post_send(to, &ring, (offset, message.len()), token, deadline, source);
        if result.is_err() {
            self.idle_sends.push(slot);
        }
        result
    }

    /// Sends `length` bytes of a region from `offset` on, without a copy of ours. The bytes must
    /// stay as they are until the event.
    ///
    /// # Errors
    ///
    /// See [`PostError`]; nothing was sent.
    pub fn send_region(
        &mut self,
        to: Peer,
        region: &Region,
        offset: usize,
        length: usize,
        token: u64,
        deadline: Instant,
    ) -> Result<(), PostError> {
        self.check_region(region, offset, length)?;
        if length > self.message_size {
            return Err(PostError::TooLong {
                length,
                limit: self.message_size,
            });
        }
        let source = Source::Region {
            _region: region.clone(),
        };
        self.post_send(to, region, (offset, length), token, deadline, source)
    }

    fn post_send(
        &mut self,
        to: Peer,
        region: &Region,
        (offset, length): (usize, usize),
        token: u64,
        deadline: Instant,
        source: Source,
    ) -> Result<(), PostError> {
        let address = self.peer_address(to)?;
        let index = self.reserve()?;
        // SAFETY: the range lies within the region, which `source` keeps alive and registered
        // until the completion, as the table does with the context.
        let result = unsafe {
            raw::lfs_send(
                self.handle.raw(),
                address,
                region.memory().pointer().add(offset).cast(),
                length,
                region.descriptor(),
                self.operations.context(index),
            )
        };
        let operation = Operation::Send {
            token,
            peer: to.0,
            deadline,
            source,
        };
        self.started("fi_send", index, operation, result)
    }

    /// Reads `length` bytes of a peer's region, from `remote_offset` on, into a region of ours
    /// from `offset` on. It costs the peer nothing but progress.
    ///
    /// # Errors
    ///
    /// See [`PostError`]; nothing was started.
    #[allow(
        clippy::too_many_arguments,
        reason = "two ranges, a peer and what every post needs"
    )]
    pub fn read(
        &mut self,
        from: Peer,
        source: &RemoteRegion,
        remote_offset: u64,
        destination: &Region,
        offset: usize,
        length: usize,
        token: u64,
        deadline: Instant,
    ) -> Result<(), PostError> {
        self.check_region(destination, offset, length)?;
        let fits = remote_offset
            .checked_add(length as u64)
            .is_some_and(|end| end <= source.length);
        let remote_address = source.address.checked_add(remote_offset);
        let (true, Some(remote_address)) = (fits, remote_address) else {
            return Err(PostError::OutOfBounds {
                offset: usize::try_from(remote_offset).unwrap_or(usize::MAX),
                length,
                region: usize::try_from(source.length).unwrap_or(usize::MAX),
            });
        };
        if !destination.memory().is_writable() {
            return Err(PostError::WrongRegion);
        }
        let address = self.peer_address(from)?;
        let index = self.reserve()?;
        // SAFETY: the range lies within the region, which the operation keeps alive and
        // registered until the completion, as the table does with the context.
        let result = unsafe {
            raw::lfs_read(
                self.handle.raw(),
                address,
                destination.memory().pointer().add(offset).cast(),
                length,
                destination.descriptor(),
                remote_address,
                source.key,
                self.operations.context(index),
            )
        };
        let operation = Operation::Read {
            token,
            peer: from.0,
            deadline,
            _destination: destination.clone(),
        };
        self.started("fi_read", index, operation, result)
    }

    /// The next event, if there is one. Failures of receives are not reported: their slots are
    /// posted again.
    ///
    /// # Errors
    ///
    /// The completion queue itself fails; the endpoint should be closed.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, FabricError> {
        loop {
            if let Some(finished) = self.next_finished()? {
                return Ok(Some(self.event(finished)));
            }
            if self.take_completions()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The same among the events that were taken from the provider together with earlier ones; it is
    /// asked for more only where it had as many as it could give at once.
    ///
    /// # Errors
    ///
    /// As for [`Endpoint::next_event`].
    pub fn next_taken_event(&mut self) -> Result<Option<Event<'_>>, FabricError> {
        match self.next_finished()? {
            Some(finished) => Ok(Some(self.event(finished))),
            None if self.full_batch => self.next_event(),
            None => Ok(None),
        }
    }

    fn event(&mut self, finished: Finished) -> Event<'_> {
        match finished {
            Finished::Message { slot, length } => {
                self.lent_receive = Some(slot);
                let memory = self.receive_ring.memory();
                // SAFETY: the provider has finished with the slot and gets it back only at the
                // next call that takes `&mut self` after the event's borrow has ended.
                Event::Message(unsafe { memory.slice(slot * self.message_size, length) })
            }
            Finished::Sent { token } => Event::Sent { token },
            Finished::Read { token } => Event::Read { token },
            Finished::Failed { token, error } => Event::Failed { token, error },
        }
    }

    fn next_finished(&mut self) -> Result<Option<Finished>, FabricError> {
        self.post_receives()?;
        while let Some(completion) = self.completed.pop_front() {
            if let Some(finished) = self.finish(&completion) {
                return Ok(Some(finished));
            }
        }
        Ok(None)
    }

    /// Takes completions from the provider, which also lets it make progress; says how many.
    fn take_completions(&mut self) -> Result<usize, FabricError> {
        let mut batch = [raw::Completion::EMPTY; COMPLETIONS];
        // SAFETY: the endpoint is open, and `batch` has room for the count given.
        let count =
            unsafe { raw::lfs_completions(self.handle.raw(), batch.as_mut_ptr(), COMPLETIONS) };
        let count =
            usize::try_from(count).map_err(|_| FabricError::new("fi_cq_read", count as i64))?;
        self.completed.extend(&batch[..count]);
        self.full_batch = count == COMPLETIONS;
        Ok(count)
    }

    /// What a completion means to the caller; `None` for what is no business of his.
    fn finish(&mut self, completion: &raw::Completion) -> Option<Finished> {
        let (operation, expired) = self.operations.finish(completion.context)?;
        let error = (completion.error != 0).then_some(completion.error);
        let (token, call) = match operation {
            Operation::Receive { slot } if error.is_some() => {
                self.idle_receives.push(slot);
                return None;
            }
            Operation::Receive { slot } => {
                let length = completion.length.min(self.message_size);
                return Some(Finished::Message { slot, length });
            }
            Operation::Send { token, source, .. } => {
                if let Source::Slot(slot) = source {
                    self.idle_sends.push(slot);
                }
                (token, "fi_send")
            }
            Operation::Read { token, .. } => (token, "fi_read"),
        };
        match error {
            _ if expired => None,
            Some(code) => Some(Finished::Failed {
                token,
                error: FabricError::new(call, code.into()),
            }),
            None if call == "fi_send" => Some(Finished::Sent { token }),
            None => Some(Finished::Read { token }),
        }
    }

    /// The tokens of the sends and reads whose deadline has passed. Each is named once, no event
    /// follows, and its memory stays untouched by us until the provider lets go of it.
    pub fn expire(&mut self, now: Instant) -> Vec<u64> {
        self.operations.expire(now)
    }

    /// The earliest deadline of what is under way.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.operations.next_deadline()
    }

    /// Sends and reads under way, those past their deadline among them.
    pub fn outstanding(&self) -> usize {
        self.operations.posted()
    }

    /// A descriptor that becomes readable when there may be something to do. Wait for it only
    /// after [`Endpoint::may_sleep`].
    pub fn wait_descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to the completion queue, open as long as the handle.
        unsafe { BorrowedFd::borrow_raw(self.wait_descriptor) }
    }

    /// Whether it is safe to wait: nothing is ready, and the provider has armed the descriptor.
    /// If not, take events first.
    pub fn may_sleep(&mut self) -> bool {
        // SAFETY: the endpoint is open.
        self.completed.is_empty() && unsafe { raw::lfs_may_sleep(self.handle.raw()) } == 0
    }

    /// Waits until there may be something to do, at most `timeout`.
    ///
    /// # Errors
    ///
    /// poll(2) fails.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if !self.may_sleep() {
            return Ok(());
        }
        let mut poll = libc::pollfd {
            fd: self.wait_descriptor,
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: one valid entry, a valid timeout, no signal mask.
        let result = unsafe { libc::ppoll(&mut poll, 1, &timeout, std::ptr::null()) };
        if result < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends the endpoint: waits at most `grace` for what is under way, withdraws every region,
    /// and closes it. Events that come meanwhile are dropped.
    pub fn close(mut self, grace: Duration) -> Closed {
        self.shut_down(grace)
    }

    fn shut_down(&mut self, grace: Duration) -> Closed {
        self.shut_down = true;
        let end = Instant::now() + grace;
        loop {
            while self.take_completions().unwrap_or(0) > 0 {}
            while let Some(completion) = self.completed.pop_front() {
                self.finish(&completion);
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.outstanding() == 0 || left.is_zero() {
                break;
            }
            if self.wait(left.min(CLOSING_STEP)).is_err() {
                break;
            }
        }
        let outstanding = self.outstanding();
        if outstanding > 0 {
            // The provider still holds pointers to contexts and buffers: none may ever be freed.
            std::mem::forget(self.handle.clone());
            std::mem::forget(std::mem::replace(&mut self.operations, Operations::new(0)));
            std::mem::forget((self.send_ring.clone(), self.receive_ring.clone()));
            return Closed::Abandoned { outstanding };
        }
        for context in self.operations.receives() {
            // SAFETY: the context is that of a receive under way.
            unsafe { raw::lfs_cancel(self.handle.raw(), context) };
        }
        while self.take_completions().unwrap_or(0) > 0 {}
        self.handle.close();
        Closed::Orderly
    }

    fn peer_address(&self, peer: Peer) -> Result<u64, PostError> {
        self.peers
            .get(peer.0)
            .copied()
            .flatten()
            .ok_or(PostError::UnknownPeer)
    }

    fn check_region(&self, region: &Region, offset: usize, length: usize) -> Result<(), PostError> {
        if !region.belongs_to(&self.handle) {
            return Err(PostError::WrongRegion);
        }
        let size = region.memory().len();
        if length == 0 || offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(PostError::OutOfBounds {
                offset,
                length,
                region: size,
            });
        }
        Ok(())
    }

    /// A place for a send or read, so that receives always find one.
    fn reserve(&mut self) -> Result<usize, PostError> {
        if self.operations.posted() >= self.max_posted {
            return Err(PostError::Again);
        }
        self.operations.reserve().ok_or(PostError::Again)
    }

    fn started(
        &mut self,
        call: &'static str,
        index: usize,
        operation: Operation,
        result: isize,
    ) -> Result<(), PostError> {
        if result == 0 {
            self.operations.start(index, operation);
            return Ok(());
        }
        self.operations.release(index);
        if result == -(libc::EAGAIN as isize) {
            return Err(PostError::Again);
        }
        Err(FabricError::new(call, result as i64).into())
    }

    /// Gives idle slots of the receive ring to the provider, as many as it takes.
    fn post_receives(&mut self) -> Result<(), FabricError> {
        self.idle_receives.extend(self.lent_receive.take());
        while let Some(slot) = self.idle_receives.pop() {
            let Some(index) = self.operations.reserve() else {
                self.idle_receives.push(slot);
                return Ok(());
            };
            let memory = self.receive_ring.memory();
            // SAFETY: the slot lies within the ring, is lent to nobody, and stays with its
            // context until the completion.
            let result = unsafe {
                raw::lfs_receive(
                    self.handle.raw(),
                    memory.pointer().add(slot * self.message_size).cast(),
                    self.message_size,
                    self.receive_ring.descriptor(),
                    self.operations.context(index),
                )
            };
            if result == 0 {
                self.operations.start(index, Operation::Receive { slot });
                continue;
            }
            self.operations.release(index);
            self.idle_receives.push(slot);
            if result == -(libc::EAGAIN as isize) {
                return Ok(());
            }
            return Err(FabricError::new("fi_recv", result as i64));
        }
        Ok(())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if !self.shut_down {
            self.shut_down(Duration::ZERO);
        }
    }
}

/// Opens the libfabric objects; whatever the provider does to signals is undone.
fn open_handle(
    hints: &Hints,
    config: &EndpointConfig,
) -> Result<(Rc<Handle>, ProviderInfo), OpenError> {
    let _signals = SignalGuard::new();
    let mut endpoint = std::ptr::null_mut();
    let mut info = raw::ProviderInfo::EMPTY;
    let mut step = std::ptr::null();
    // Queues of providers have sizes that are powers of two.
    let transmits = (config.sends + config.reads).next_power_of_two();
    let receives = config.receives.next_power_of_two();
    let result = hints.with_raw(|want| {
        // SAFETY: the library is loaded and all pointers are valid for the call.
        unsafe {
            raw::lfs_open(
                want,
                transmits,
                receives,
                &mut endpoint,
                &mut info,
                &mut step,
            )
        }
    });
    match NonNull::new(endpoint) {
        Some(endpoint) if result == 0 => {
            let info = ProviderInfo::from(&info);
            Ok((Rc::new(Handle::new(endpoint, info.key_size)), info))
        }
        _ => {
            // SAFETY: `step` is null or a string literal of the shim's.
            let step = unsafe { raw::static_text(step) };
            Err(FabricError::new(&step, result.into()).into())
        }
    }
}

fn own_address(handle: &Handle) -> Result<Vec<u8>, FabricError> {
    let mut address = vec![0; MAX_ADDRESS];
    let mut length = address.len();
    // SAFETY: the endpoint is open, and `address` is as long as stated.
    let result =
        unsafe { raw::lfs_address(handle.raw(), address.as_mut_ptr().cast(), &mut length) };
    if result != 0 {
        return Err(FabricError::new("fi_getname", result.into()));
    }
    address.truncate(length);
    Ok(address)
}

fn wait_descriptor(handle: &Handle) -> Result<RawFd, FabricError> {
    // SAFETY: the endpoint is open.
    let descriptor: c_int = unsafe { raw::lfs_wait_descriptor(handle.raw()) };
    if descriptor < 0 {
        return Err(FabricError::new(
            "fi_control(FI_GETWAIT)",
            descriptor.into(),
        ));
    }
    Ok(descriptor)
}
