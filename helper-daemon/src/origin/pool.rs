//! A bounded pool of threads that start when there is work for them and wait without a timer.
#![forbid(unsafe_code)]

use crossbeam::channel::{Receiver, Sender, TryRecvError, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Work for one thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Room for the deepest job, which keeps its large buffers on the heap.
const STACK: usize = 128 << 10;

/// A thread that has worked looks for more so long before it sleeps: to wake a core that has gone
/// idle takes longer than most jobs.
const LOOKOUT: Duration = Duration::from_micros(50);

/// The pool. Its threads end with the process.
pub(crate) struct Pool {
    name: &'static str,
    limit: usize,
    started: usize,
    unfinished: Arc<AtomicUsize>,
    jobs: Sender<Job>,
    queue: Receiver<Job>,
}

impl Pool {
    /// A pool of up to `limit` threads, none of which is started yet.
    pub(crate) fn new(name: &'static str, limit: usize) -> Pool {
        let (jobs, queue) = unbounded();
        Pool {
            name,
            limit: limit.max(1),
            started: 0,
            unfinished: Arc::default(),
            jobs,
            queue,
        }
    }

    /// How many threads there may be.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a thread works, or is about to.
    pub(crate) fn is_at_work(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) > 0
    }

    /// Hands a job to the first thread that is free.
    pub(crate) fn submit(&mut self, job: Job) {
        let unfinished = self.unfinished.fetch_add(1, Ordering::AcqRel) + 1;
        if unfinished > self.started && self.started < self.limit {
            self.start_thread();
        }
        if self.jobs.send(job).is_err() {
            tracing::error!(pool = self.name, "a job was lost");
        }
    }

    fn start_thread(&mut self) {
        let (queue, unfinished) = (self.queue.clone(), self.unfinished.clone());
        let started = std::thread::Builder::new()
            .name(self.name.to_owned())
            .stack_size(STACK)
            .spawn(move || {
                while let Some(job) = next_job(&queue) {
                    job();
                    unfinished.fetch_sub(1, Ordering::AcqRel);
                }
            });
        match started {
            Ok(_) => self.started += 1,
            Err(error) => tracing::warn!(%error, pool = self.name, "cannot start a thread"),
        }
    }
}

/// The next job; `None` where there will be no more.
fn next_job(queue: &Receiver<Job>) -> Option<Job> {
    let until = Instant::now() + LOOKOUT;
    while Instant::now() < until {
        match queue.try_recv() {
            Err(TryRecvError::Empty) => std::thread::yield_now(),
            found => return found.ok(),
        }
    }
    queue.recv().ok()
}
