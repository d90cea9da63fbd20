//! Asking the helper: one connection for one exchange, with a bound on every wait.
//!
//! Nothing is held between exchanges, so a program that closes descriptors it does not know
//! closes nothing of ours. After one silence the process stops asking, and the alarm page tells
//! all others; the helper clears that when it is back.

use crate::counters;
use crate::process::{errno, now_ns, set_errno};
use crate::session::{Session, runtime_path};
use crate::sys::{Descriptor, call};
use copper_core::catalog::layout::Alarm;
use copper_core::lending::Lending;
use copper_core::request::{
    self, Operation, Outcome, PATIENCE_IN_ALL_MS, PATIENCE_MS, REPLY_LENGTH, ReplyHeader,
    RequestHeader,
};
use core::sync::atomic::{AtomicBool, Ordering};

/// An answer that needs no other node comes about as fast as a core that has gone idle wakes: so
/// long the core is only lent to others, in nanoseconds.
const AWAKE_NS: u64 = 100_000;

/// How lending it has gone in this process.
static LENDING: Lending = Lending::new();

/// This process has waited in vain, or found nobody at the socket, or may not look for one.
static GAVE_UP: AtomicBool = AtomicBool::new(false);

pub(crate) enum Failure {
    /// Nobody is there, or the connection broke.
    Gone,
    /// Somebody is there and says nothing.
    Silent,
}

/// Asks the helper and waits for its answer; everything that goes wrong is "pass through".
pub(crate) fn ask(session: &Session, operation: Operation, path: &[u8], second: &[u8]) -> Outcome {
    if has_given_up(session) {
        return Outcome::PassThrough;
    }
    let before = errno();
    let started = now_ns();
    let outcome = exchange(session, operation, path, second).unwrap_or_else(|failure| {
        give_up();
        if matches!(failure, Failure::Silent) {
            let silent = session.alarm_word(Alarm::SILENT);
            silent.store(1, Ordering::Relaxed);
        }
        Outcome::PassThrough
    });
    counters::wait(operation, now_ns().saturating_sub(started) / 1000);
    set_errno(before);
    outcome
}

/// Tells the helper that this process changed `path`; where that fails, tells everybody not to
/// believe the catalog any more.
pub(crate) fn tell(session: &Session, operation: Operation, path: &[u8], second: &[u8]) {
    if ask(session, operation, path, second) != Outcome::Known {
        session
            .alarm_word(Alarm::RAISED)
            .fetch_add(1, Ordering::AcqRel);
    }
}

fn exchange(
    session: &Session,
    operation: Operation,
    path: &[u8],
    second: &[u8],
) -> Result<Outcome, Failure> {
    let started = now_ms();
    let socket = connect(session.runtime(), session.uid, started)?;
    let header = RequestHeader {
        operation,
        path_length: path.len() as u32,
        second_length: second.len() as u32,
    };
    send(&socket, [&header.encode(), path, second])?;
    let awake_until = now_ns() + AWAKE_NS;
    loop {
        let deadline = (now_ms() + PATIENCE_MS).min(started + PATIENCE_IN_ALL_MS);
        match receive(&socket, awake_until, deadline)?.outcome {
            Outcome::Working => {}
            outcome => return Ok(outcome),
        }
    }
}

/// Asks nobody any more.
pub(crate) fn give_up() {
    GAVE_UP.store(true, Ordering::Relaxed);
}

/// Whether nobody is asked any more.
pub(crate) fn has_given_up(session: &Session) -> bool {
    GAVE_UP.load(Ordering::Relaxed)
        || session.alarm_word(Alarm::SILENT).load(Ordering::Relaxed) != 0
}

/// Milliseconds since some moment in the past.
pub(crate) fn now_ms() -> u64 {
    now_ns() / 1_000_000
}

/// A connection to the helper of the runtime directory, which must belong to the user; `started` is
/// when the wait began.
pub(crate) fn connect(directory: &[u8], uid: u32, started: u64) -> Result<Descriptor, Failure> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain arguments.
    let made = unsafe { call!(libc::SYS_socket, libc::AF_UNIX, kind, 0) };
    let socket = Descriptor::from_result(made).ok_or(Failure::Gone)?;
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as u16,
        sun_path: [0; 108],
    };
    let path = runtime_path(directory, request::SOCKET).ok_or(Failure::Gone)?;
    for (to, from) in address.sun_path.iter_mut().zip(path).take(107) {
        *to = from as core::ffi::c_char;
    }
    loop {
        // SAFETY: the address and its length belong together.
        let result = unsafe {
            let length = size_of::<libc::sockaddr_un>();
            call!(
                libc::SYS_connect,
                socket.number(),
                &raw const address,
                length
            )
        };
        match -result as i32 {
            0 => break,
            libc::EINTR => {}
            // The queue of the helper's socket is full: it is alive, or was lately.
            libc::EAGAIN if now_ms() < started + PATIENCE_MS => pause(),
            libc::EAGAIN => return Err(Failure::Silent),
            _ => return Err(Failure::Gone),
        }
    }
    check_peer(&socket, uid)?;
    Ok(socket)
}

fn pause() {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 1_000_000,
    };
    // SAFETY: sleeps; the remaining time is not asked for.
    unsafe { call!(libc::SYS_nanosleep, &raw const time, 0) };
}

fn check_peer(socket: &Descriptor, uid: u32) -> Result<(), Failure> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: u32::MAX,
        gid: 0,
    };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel fills `peer`, whose length is given.
    let result = unsafe {
        let (level, option) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        call!(
            libc::SYS_getsockopt,
            socket.number(),
            level,
            option,
            &raw mut peer,
            &raw mut length
        )
    };
    if result == 0 && peer.uid == uid {
        Ok(())
    } else {
        Err(Failure::Gone)
    }
}

/// Sends a request, in these parts.
pub(crate) fn send(socket: &Descriptor, parts: [&[u8]; 3]) -> Result<(), Failure> {
    let vectors = parts.map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    let wanted: usize = parts.iter().map(|part| part.len()).sum();
    // SAFETY: an all-zero msghdr is valid; the vectors outlive the call.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = vectors.as_ptr().cast_mut();
    message.msg_iovlen = parts.len() as _;
    loop {
        // SAFETY: the message and what it points to are valid for the call.
        let sent = unsafe {
            call!(
                libc::SYS_sendmsg,
                socket.number(),
                &raw const message,
                libc::MSG_NOSIGNAL
            )
        };
        match sent {
            // A request is far smaller than a socket's buffer, so it goes in one piece.
            length if length == wanted as isize => return Ok(()),
            error if error == -(libc::EINTR as isize) => {}
            _ => return Err(Failure::Gone),
        }
    }
}

fn receive(socket: &Descriptor, awake_until: u64, deadline: u64) -> Result<ReplyHeader, Failure> {
    let mut bytes = [0u8; REPLY_LENGTH];
    let mut length = 0;
    while length < REPLY_LENGTH {
        let rest = &mut bytes[length..];
        // SAFETY: the room and its length belong together.
        let got = unsafe {
            let (room, size) = (rest.as_mut_ptr(), rest.len());
            call!(libc::SYS_recvfrom, socket.number(), room, size, 0, 0, 0)
        };
        match got {
            1.. => length += got as usize,
            _ if got == -(libc::EAGAIN as isize) && lends_core(awake_until) => {}
            _ if got == -(libc::EAGAIN as isize) => wait(socket, deadline)?,
            _ if got == -(libc::EINTR as isize) => {}
            _ => return Err(Failure::Gone),
        }
    }
    ReplyHeader::decode(&bytes).ok_or(Failure::Gone)
}

/// Lends the core to whoever wants it, unless it is time to sleep.
fn lends_core(awake_until: u64) -> bool {
    let lent = now_ns();
    if lent >= awake_until || !LENDING.may_lend(lent) {
        return false;
    }
    // SAFETY: no arguments.
    unsafe { call!(libc::SYS_sched_yield) };
    LENDING.note(lent, now_ns());
    true
}

/// Waits until something can be received.
pub(crate) fn wait(socket: &Descriptor, deadline: u64) -> Result<(), Failure> {
    let left = deadline
        .checked_sub(now_ms())
        .filter(|&left| left > 0)
        .ok_or(Failure::Silent)?;
    let time = libc::timespec {
        tv_sec: (left / 1000) as i64,
        tv_nsec: (left % 1000) as i64 * 1_000_000,
    };
    let poll = libc::pollfd {
        fd: socket.number(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd and a timeout, both valid for the call; no signal mask.
    let ready = unsafe { call!(libc::SYS_ppoll, &raw const poll, 1, &raw const time, 0, 0) };
    if ready == 0 {
        Err(Failure::Silent)
    } else {
        Ok(())
    }
}
