//! The command's side of the helper's socket.
#![forbid(unsafe_code)]

use crate::runtime::{Runtime, own_uid};
use anyhow::{Context, Result, bail, ensure};
use copper_core::request::{Operation, Outcome, REPLY_LENGTH, ReplyHeader, RequestHeader};
use rustix::net::sockopt::socket_peercred;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A helper that is silent for longer than this does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest body that is believed.
const MOST_BODY: u32 = 16 << 20;

/// The helper is there but does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the helper does not answer; see whether it is stopped, or kill it")]
pub(crate) struct NoAnswer;

/// A connection to the helper; closing it detaches.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: UnixStream,
}

/// Connects to the helper of this runtime directory; `None` where there is none.
pub(crate) fn connect(runtime: &Runtime) -> Result<Option<Connection>> {
    let path = runtime.socket();
    let socket = match UnixStream::connect(&path) {
        Ok(socket) => socket,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot connect to {}", path.display()));
        }
    };
    let peer = socket_peercred(&socket).context("cannot tell who the helper is")?;
    ensure!(
        peer.uid.as_raw() == own_uid(),
        "the helper at {} runs as another user (uid {})",
        path.display(),
        peer.uid.as_raw()
    );
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(Some(Connection { socket }))
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> OwnedFd {
        connection.socket.into()
    }
}

impl Connection {
    /// Asks one question; returns the body of the answer, or `None` where the helper was ending.
    pub(crate) fn ask(&self, operation: Operation, path: &[u8]) -> Result<Option<Vec<u8>>> {
        self.ask_while(operation, path, &|| Ok(()))
    }

    /// The same about two paths.
    pub(crate) fn ask_about(
        &self,
        operation: Operation,
        paths: [&[u8]; 2],
    ) -> Result<Option<Vec<u8>>> {
        self.exchange(operation, paths, &|| Ok(()))
    }

    /// The same; `go_on` is called at each sign of life and ends the waiting with its error.
    pub(crate) fn ask_while(
        &self,
        operation: Operation,
        path: &[u8],
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Option<Vec<u8>>> {
        self.exchange(operation, [path, b""], go_on)
    }

    fn exchange(
        &self,
        operation: Operation,
        [path, second]: [&[u8]; 2],
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Option<Vec<u8>>> {
        let header = RequestHeader {
            operation,
            path_length: u32::try_from(path.len())?,
            second_length: u32::try_from(second.len())?,
        };
        let message = [&header.encode()[..], path, second].concat();
        if let Err(error) = (&self.socket).write_all(&message) {
            return ended(error);
        }
        loop {
            let mut bytes = [0; REPLY_LENGTH];
            if let Err(error) = (&self.socket).read_exact(&mut bytes) {
                return ended(error);
            }
            let reply = ReplyHeader::decode(&bytes)
                .context("the helper is of another version; run: copper stop")?;
            ensure!(
                reply.body_length <= MOST_BODY,
                "the helper's answer is too long"
            );
            let mut body = vec![0; reply.body_length as usize];
            (&self.socket).read_exact(&mut body)?;
            match reply.outcome {
                Outcome::Working => go_on()?,
                Outcome::Refused => bail!("the helper refused: {}", String::from_utf8_lossy(&body)),
                Outcome::Known | Outcome::PassThrough => return Ok(Some(body)),
            }
        }
    }
}

/// What an error on the connection means: the helper ended, or it is stuck.
fn ended(error: std::io::Error) -> Result<Option<Vec<u8>>> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(NoAnswer.into()),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(None),
        _ => Err(error).context("cannot talk to the helper"),
    }
}
