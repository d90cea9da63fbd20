//! The control socket: one thread that takes commands and answers them.

use crate::load::Gate;
use slow_origin::protocol::Command;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

/// Serves `gate` on a new socket at `path`, in a thread of its own.
pub(crate) fn listen(path: &Path, gate: Arc<Gate>) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            if let Err(error) = connection.and_then(|stream| answer(&stream, &gate)) {
                eprintln!("slow-origin: control: {error}");
            }
        }
    });
    Ok(())
}

fn answer(stream: &UnixStream, gate: &Gate) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(command) => obey(command, gate)?,
            Err(error) => serde_json::json!({ "error": error.to_string() }).to_string(),
        };
        writeln!(&mut &*stream, "{answer}")?;
    }
    Ok(())
}

fn obey(command: Command, gate: &Gate) -> io::Result<String> {
    match command {
        Command::Dump => return Ok(serde_json::to_string(&gate.counts())?),
        Command::Reset => gate.reset(),
        Command::Load(load) => gate.set_load(load),
        Command::Fault(fault) => gate.add_fault(fault),
        Command::ClearFaults => gate.clear_faults(),
    }
    Ok("{}".to_owned())
}
