//! The helper: everything it is made of, from its start to the last thing it removes.

use crate::cli;
use crate::cpus;
use crate::engine::{Engine, Policy};
use crate::job::Job;
use crate::journal::Journal;
use crate::log;
use crate::metrics::MetricsFile;
use crate::origin::work::Origin;
use crate::peers::Peers;
use crate::profile::{Profile, Recorder, Shape};
use crate::runtime::{Note, Runtime, host_name, own_uid};
use crate::server::{End, Endings, Handover, Report, Server};
use crate::shared_memory::{CatalogMemory, CommonMemory};
use crate::status::Status;
use crate::store::{self, Store};
use crate::view::{self, View};
use anyhow::{Context, Result, anyhow, ensure};
use copper_core::catalog::writer::{Identity, Writer};
use copper_core::path;
use copper_core::request::{CATALOG, COMMON, Outcome};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open,
    setpriority_process, setrlimit,
};
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a helper says to its starter when it serves.
pub(crate) const READY: &[u8] = b"ready\n";
/// What it says where there is another one.
pub(crate) const BUSY: &[u8] = b"busy\n";

/// Covered prefixes in normal form, free of links: what lies below them has one name.
pub(crate) fn covered_prefixes(named: &[PathBuf]) -> Result<Vec<Vec<u8>>> {
    let mut prefixes = Vec::new();
    for name in named {
        let real =
            fs::canonicalize(name).with_context(|| format!("cannot cover {}", name.display()))?;
        ensure!(
            real.is_dir(),
            "cannot cover {}: it is not a directory",
            name.display()
        );
        let mut add = |prefix: Vec<u8>| -> Result<()> {
            ensure!(
                path::may_be_covered(&prefix) && !prefix.contains(&b':'),
                "cannot cover {}: /, /proc, /sys, /dev, /run and names with a colon cannot be \
                 covered",
                name.display()
            );
            if !prefixes.contains(&prefix) {
                prefixes.push(prefix);
            }
            Ok(())
        };
        let absolute = std::path::absolute(name)?;
        let as_named = absolute.as_os_str().as_bytes();
        let as_named = as_named.strip_suffix(b"/").unwrap_or(as_named);
        add(real.into_os_string().into_vec())?;
        if path::shape(as_named).normal {
            add(as_named.to_vec())?;
        }
    }
    Ok(prefixes)
}

struct Reporter {
    runtime: Runtime,
    view: PathBuf,
    covered: Vec<Vec<u8>>,
    shape: Option<Shape>,
    started: Instant,
}

impl Report for Reporter {
    fn status(&self, engine: &Engine) -> String {
        let mut status = Status {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            view: self.view.display().to_string(),
            covered: self
                .covered
                .iter()
                .map(|prefix| String::from_utf8_lossy(prefix).into_owned())
                .collect(),
            runtime_dir: self.runtime.directory().display().to_string(),
            uptime_seconds: self.started.elapsed().as_secs(),
            ..Status::default()
        };
        engine.fill_status(&mut status);
        serde_json::to_string(&status).unwrap_or_default()
    }

    fn profile(&self, engine: &Engine, most: &[u8]) -> Vec<u8> {
        let most = std::str::from_utf8(most).ok();
        let most = most
            .and_then(|most| most.parse().ok())
            .unwrap_or(usize::MAX);
        serde_json::to_vec(&self.profile_of(engine, most)).unwrap_or_default()
    }
}

impl Reporter {
    fn profile_of(&self, engine: &Engine, most: usize) -> Profile {
        let status = serde_json::from_str(&self.status(engine));
        Profile::new(
            &host_name(),
            self.shape.clone(),
            status.unwrap_or_default(),
            engine.journal(most),
        )
    }
}

/// Inode of this process's namespace of a kind; 0 where the kernel has none.
fn namespace(kind: &str) -> u64 {
    fs::metadata(format!("/proc/self/ns/{kind}")).map_or(0, |namespace| namespace.ino())
}

/// Runs the helper; tells the starter how that went.
pub(crate) fn run(arguments: &cli::Helper) -> Result<()> {
    let began = Instant::now();
    let starter = arguments.starter.map(|descriptor| {
        // SAFETY: the starter gave this descriptor to us for this very purpose.
        unsafe { OwnedFd::from_raw_fd(descriptor) }
    });
    if let Some(starter) = &starter {
        let _ = rustix::io::fcntl_setfd(starter, rustix::io::FdFlags::CLOEXEC);
    }
    let tell = |message: &[u8]| {
        if let Some(starter) = &starter {
            let _ = rustix::io::write(starter, message);
        }
    };
    let runtime = Runtime::make().map_err(fatal)?;
    let lock = if starter.is_some() {
        runtime.wait_for_lock().map(Some)
    } else {
        runtime.lock_helper()
    };
    let Some(_lock) = lock.map_err(fatal)? else {
        tell(BUSY);
        let error = anyhow!("there is a helper already; use it, or run: copper stop");
        return Err(fatal(error));
    };
    let started = Started::new(arguments, &runtime, began);
    match started {
        Ok(started) => started.serve(starter, arguments).map_err(fatal),
        Err(error) => {
            // Logged before the starter, and whoever waits for it, goes on.
            let error = fatal(error);
            tell(format!("{error:#}").as_bytes());
            runtime.clear();
            runtime.remove();
            Err(error)
        }
    }
}

/// Logs why the helper cannot go on.
fn fatal(error: anyhow::Error) -> anyhow::Error {
    tracing::error!(target: log::FATAL, "{error:#}");
    error
}

/// A helper that is complete but does not serve yet.
struct Started {
    engine: Engine,
    // Dropped after the engine, which writes into it.
    catalog: CatalogMemory,
    common: CommonMemory,
    listener: UnixListener,
    view: View,
    store: PathBuf,
    recorder: Option<Recorder>,
    reporter: Reporter,
    signals: OwnedFd,
}

impl Started {
    fn new(arguments: &cli::Helper, runtime: &Runtime, began: Instant) -> Result<Started> {
        let signals = crate::signals::block_for_helper()?;
        prepare_process(&arguments.service)?;
        // Clearing up what a dead helper left takes the description along.
        let job = arguments.rank.map(|rank| (Job::read(runtime), rank));
        clean_leftovers(runtime)?;
        let shape = job
            .as_ref()
            .and_then(|(job, _)| Some(Shape::of(job.as_ref().ok()?.as_ref()?)));
        let peers = job.map(|(job, rank)| join_job(job?, rank, runtime));
        let peers = peers.transpose()?;
        let service = &arguments.service;
        let recorder = Recorder::new(&service.profile)?;
        let journal = Journal::new(began, service.profile.kept_objects());
        let covered = covered_prefixes(&service.cover)?;
        if let Some(metrics) = &service.metrics {
            ensure!(
                metrics.is_absolute(),
                "--metrics must be an absolute path, not '{}'",
                metrics.display()
            );
        }
        let view_directory = view::directory(service.view.as_deref())?;
        runtime.note(Note::View, &view_directory)?;
        let view = View::make(&view_directory)?;
        let place = store::choose(service.store.as_deref(), service.memory)?;
        let root = place.root.clone();
        let make = || {
            runtime.note(Note::Store, &root)?;
            let store = Store::create(place)?;
            let mut catalog = CatalogMemory::create()?;
            let common = CommonMemory::create()?;
            let policy = Policy {
                view: view_directory.as_os_str().as_bytes().to_vec(),
                runtime: runtime.directory().as_os_str().as_bytes().to_vec(),
                covered: covered.clone(),
                directory_limit: service.directory_limit,
                largest: service.largest.unwrap_or(u64::MAX),
                absence_lifetime: service.absence_lifetime.map(Duration::from_millis),
                read_ahead: service.read_ahead,
            };
            // SAFETY: called once; the engine that gets the memory is dropped before it.
            let memory = unsafe { catalog.whole() };
            let identity = Identity {
                pid: std::process::id(),
                uid: own_uid(),
                user_namespace: namespace("user"),
                process_namespace: namespace("pid"),
                store_device: store.device(),
                mirror: store.mirror(),
                view: &policy.view,
                runtime: &policy.runtime,
                covered: &policy.covered,
            };
            let writer = Writer::create(memory, &identity)?;
            let origin = Origin::new(service.threads.into()).context("cannot make an eventfd")?;
            let mut engine = Engine::new(writer, store, origin, policy, peers, journal)?;
            // SAFETY: the engine is dropped before the memory.
            engine.set_counters(unsafe { common.counters() });
            let listener = listen(runtime)?;
            Ok((engine, catalog, common, listener))
        };
        let made: Result<_> = make();
        let (engine, catalog, common, listener) = match made {
            Ok(made) => made,
            Err(error) => {
                let _ = fs::remove_dir_all(&root);
                return Err(error);
            }
        };
        Ok(Started {
            engine,
            catalog,
            common,
            listener,
            view,
            store: root,
            recorder,
            reporter: Reporter {
                runtime: runtime.clone(),
                view: view_directory,
                covered,
                shape,
                started: Instant::now(),
            },
            signals,
        })
    }

    fn serve(mut self, starter: Option<OwnedFd>, arguments: &cli::Helper) -> Result<()> {
        let runtime = self.reporter.runtime.clone();
        runtime.link_memory(COMMON, self.common.descriptor())?;
        runtime.link_memory(CATALOG, self.catalog.descriptor())?;
        if let Some(starter) = &starter {
            let _ = rustix::io::write(starter, READY);
        }
        tracing::info!(
            runtime = %runtime.directory().display(),
            store = %self.store.display(),
            view = %self.reporter.view.display(),
            "set up"
        );
        self.engine.note_serving();
        if let Some(recorder) = &self.recorder {
            recorder.begin_snapshots(&runtime)?;
        }
        let metrics = arguments.service.metrics.as_deref();
        let metrics = metrics.map(|path| MetricsFile::begin(path, &runtime));
        let metrics = metrics.transpose()?;
        let mut server = Server::new(
            &self.listener,
            &self.signals,
            Endings {
                starter: starter.filter(|_| arguments.while_attached),
                watched: arguments.watch.and_then(watch),
                idle_limit: arguments.service.idle_limit,
                cut_off_limit: Some(arguments.service.cut_off_limit).filter(|&limit| limit > 0),
                catalog: self.catalog.inode()?,
            },
            Handover::new(self.catalog.descriptor(), self.common.descriptor())?,
            &self.common,
            &mut self.engine,
            &self.reporter,
        )?;
        let end = server.serve();
        tracing::info!(?end, "ending");
        if let Some(recorder) = &self.recorder {
            let profile =
                server.with_engine(|engine| self.reporter.profile_of(engine, recorder.wanted()));
            if let Err(error) = recorder.write_last(profile) {
                tracing::error!("the profile was not written: {error:#}");
            }
        }
        server.stop_engine();
        drop(metrics);
        runtime.clear();
        remove_store(&self.store);
        drop(self.view);
        runtime.remove();
        server.leave();
        if let Ok(End::Asked(token, body)) = &end {
            server.answer(*token, Outcome::Known, body);
        }
        end.map(|_| ())
    }
}

/// What becomes readable when this process ends, or has ended already.
fn watch(process: i32) -> Option<OwnedFd> {
    match pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()) {
        Ok(descriptor) => Some(descriptor),
        Err(error) => {
            tracing::warn!(process, %error, "the batch job's process cannot be watched");
            None
        }
    }
}

/// Removes the store. A thread that still copies a file may put one more into it meanwhile.
fn remove_store(root: &Path) {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        match fs::remove_dir_all(root) {
            Ok(()) => return,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => tracing::debug!(%error, "the store is not empty yet"),
        }
    }
    tracing::warn!(store = %root.display(), "the store was not removed");
}

/// Opens the fabric and begins to meet the other helpers.
fn join_job(job: Option<Job>, rank: u32, runtime: &Runtime) -> Result<Peers> {
    let job = job.with_context(|| {
        format!(
            "there is no description of the job in {}",
            runtime.directory().display()
        )
    })?;
    job.write(runtime)?;
    let peers = Peers::open(&job, rank)?;
    tracing::info!(
        rank,
        nodes = job.hosts.len(),
        provider = peers.provider(),
        "in the job"
    );
    Ok(peers)
}

fn listen(runtime: &Runtime) -> Result<UnixListener> {
    let socket = runtime.socket();
    let aside = runtime.directory().join("socket.new");
    let _ = fs::remove_file(&aside);
    let listener = UnixListener::bind(&aside)
        .with_context(|| format!("cannot listen on {}", aside.display()))?;
    fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))?;
    fs::rename(&aside, &socket)
        .with_context(|| format!("cannot listen on {}", socket.display()))?;
    rustix::net::listen(&listener, 4096).context("cannot listen")?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes what a helper that died left behind; the lock says that it is dead.
fn clean_leftovers(runtime: &Runtime) -> Result<()> {
    runtime.unlink_memory();
    if let Some(view) = runtime.noted(Note::View) {
        view::clean_up(&view);
    }
    if let Some(root) = runtime.noted(Note::Store)
        && let Err(error) = store::clean_up(&root)
    {
        tracing::warn!("{error:#}");
    }
    runtime.clear();
    Ok(())
}

fn prepare_process(service: &cli::Service) -> Result<()> {
    // Processes of the job reopen the catalog through /proc, which needs this.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, all);
    cpus::bind(service.cpus.as_ref())?;
    if let Some(nice) = service.nice {
        setpriority_process(None, nice.into())
            .with_context(|| format!("--nice {nice}: this needs more rights than you have"))?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let _ = std::env::set_current_dir(Path::new("/"));
    Ok(())
}
