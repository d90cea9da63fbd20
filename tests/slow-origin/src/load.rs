//! What an operation goes through before it is served: it is counted, meets a fault if one is
//! set for its path, waits for its turn, and takes its time.

use fuser::Errno;
use slow_origin::protocol::{Counts, Fault, FaultKind, Load, Operation};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts, faults and load, shared by all threads that serve the mount.
pub(crate) struct Gate {
    state: Mutex<State>,
    /// Told when a turn becomes free, a fault is cleared or the load changes.
    changed: Condvar,
}

struct State {
    load: Load,
    counts: Counts,
    faults: Vec<Fault>,
    being_served: usize,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let state = State {
            load: Load::none(),
            counts: Counts::default(),
            faults: Vec::new(),
            being_served: 0,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Counts one operation on `path`, and returns when it may be served, or its fault.
    pub(crate) fn pass(&self, operation: Operation, path: &OsStr) -> Result<(), Errno> {
        let label = printable(path);
        let mut state = self.lock();
        state.count(operation, &label);
        loop {
            match state.fault(operation, &label) {
                Some(FaultKind::Eio) => return Err(Errno::EIO),
                Some(FaultKind::Estale) => return Err(Errno::from_i32(ESTALE)),
                Some(FaultKind::Hang) => state = self.wait(state),
                None => break,
            }
        }
        while state.load.served_at_a_time != 0 && state.being_served >= state.load.served_at_a_time
        {
            state = self.wait(state);
        }
        state.being_served += 1;
        let latency = state.latency(operation);
        drop(state);
        if !latency.is_zero() {
            std::thread::sleep(latency);
        }
        self.lock().being_served -= 1;
        self.changed.notify_all();
        Ok(())
    }

    /// Counts an operation that nobody waits for.
    pub(crate) fn count(&self, operation: Operation, path: &OsStr) {
        self.lock().count(operation, &printable(path));
    }

    pub(crate) fn count_bytes(&self, path: &OsStr, bytes: usize) {
        *self
            .lock()
            .counts
            .bytes_read
            .entry(printable(path))
            .or_default() += bytes as u64;
    }

    /// For how long the kernel may keep a name or attributes.
    pub(crate) fn kept_by_kernel(&self) -> Duration {
        Duration::from_millis(self.lock().load.kept_by_kernel_ms)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts.clone()
    }

    pub(crate) fn reset(&self) {
        self.lock().counts = Counts::default();
    }

    pub(crate) fn set_load(&self, load: Load) {
        self.lock().load = load;
        self.changed.notify_all();
    }

    pub(crate) fn add_fault(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    pub(crate) fn clear_faults(&self) {
        self.lock().faults.clear();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// `ESTALE` on Linux, which `fuser` does not name.
const ESTALE: i32 = 116;

impl State {
    fn count(&mut self, operation: Operation, label: &str) {
        *self.counts.operations.entry(operation).or_default() += 1;
        let of_path: &mut BTreeMap<_, _> = match self.counts.paths.get_mut(label) {
            Some(of_path) => of_path,
            None => self.counts.paths.entry(label.to_owned()).or_default(),
        };
        *of_path.entry(operation).or_default() += 1;
    }

    fn fault(&self, operation: Operation, label: &str) -> Option<FaultKind> {
        let covers = |fault: &&Fault| {
            let below = label.strip_prefix(fault.path.as_str()).is_some_and(|rest| {
                rest.is_empty() || fault.path.is_empty() || rest.starts_with('/')
            });
            below && (fault.operations.is_empty() || fault.operations.contains(&operation))
        };
        self.faults.iter().find(covers).map(|fault| fault.kind)
    }

    fn latency(&self, operation: Operation) -> Duration {
        let load = &self.load;
        Duration::from_micros(*load.latency_of.get(&operation).unwrap_or(&load.latency_us))
    }
}

/// The path as text, with bytes that are no UTF-8 as `\xNN`.
fn printable(path: &OsStr) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}
