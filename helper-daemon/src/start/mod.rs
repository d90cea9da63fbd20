//! `copper start` on several nodes: a helper is started on each, then the tree is asked until all
//! are ready. If one is not, all are stopped again.

mod conversation;
mod fleet;
mod here;
pub(crate) mod hosts;
mod invitation;
pub(crate) mod join;
mod launcher;
mod private_file;
mod progress;
mod step;
mod table;

use crate::cli::{Cluster, TransferName};
use crate::client::connect;
use crate::commands;
use crate::commands::survey::{self, Wait};
use crate::helper::covered_prefixes;
use crate::job::{JOB_VERSION, Job, Transfer};
use crate::launch::Launch;
use crate::meeting::JobKey;
use crate::runtime::Runtime;
use crate::status::Status;
use anyhow::{Context, Result, bail, ensure};
use fleet::{Action, Fleet, Outcome};
use invitation::Invitation;
use launcher::Launcher;
use progress::Progress;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long all helpers together may take to be ready, in seconds, unless the user says otherwise.
const START_TIMEOUT: u32 = 60;
/// One tree for so many nodes.
const NODES_PER_TREE: usize = 8;
/// Most trees, unless the user says otherwise.
const MOST_TREES: usize = 8;
const FAN_OUT: u32 = 8;
/// Ports that helpers meet on: below those that Linux gives to outgoing connections.
const FIRST_PORT: u16 = 16_384;
const PORTS: u16 = 16_384;
/// How many ports are tried.
const PORT_TRIES: u32 = 3;
/// How long the nodes that the tree does not reach may take to end their helpers.
const LEAVE_TIME: Duration = Duration::from_secs(10);
/// How long a running job may take to say that it is ready, in seconds.
const ALREADY_TIME: u32 = 5;

/// The first of many names.
pub(crate) fn shorten(names: &[String]) -> String {
    here::shorten(names.iter())
}

/// Starts a job's helpers on `hosts`.
pub(crate) fn start(cluster: &Cluster, hosts: Vec<String>, launch: &Launch<'_>) -> Result<()> {
    let own_rank = here::rank_of_this_machine(&hosts)?;
    let launcher = Launcher::choose(cluster, &hosts)?;
    let wanted = covered_prefixes(&launch.service.cover)?;
    let enough = enough_nodes(cluster, hosts.len())?;
    if let Some(text) = already_running(&hosts, launch, &wanted, enough)? {
        return commands::print(text.as_bytes());
    }
    let interrupted = watch_signals()?;
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let program = program
        .to_str()
        .context("this program's path is not UTF-8 text; make a link to it that is")?;
    let tries = if cluster.port.is_some() {
        1
    } else {
        PORT_TRIES
    };
    for attempt in 1.. {
        let job = make_job(cluster, &hosts)?;
        let timeout = cluster.start_timeout.unwrap_or(START_TIMEOUT);
        let invitation = Invitation::new(job, launch, timeout)?;
        let fleet = Fleet {
            invitation: &invitation,
            proof: invitation.job.proof()?,
            launcher: &launcher,
            program,
            own_rank,
            watched: launch.watched,
            shared_directory: cluster.shared_directory.as_deref(),
            tolerated: hosts.len() - enough,
            steps: Mutex::default(),
            interrupted: &interrupted,
        };
        match Start::new(&fleet, timeout).run() {
            Err(Unready::PortInUse) if attempt < tries => {
                progress::print_line("trying another port");
            }
            Err(unready) => return Err(unready.into()),
            Ok(()) => break,
        }
    }
    let (status, _) = commands::ask_own_status()?.context("this node's helper ended at once")?;
    commands::print(describe(&status, hosts.len()).as_bytes())
}

fn describe(status: &Status, nodes: usize) -> String {
    format!(
        "copper's helpers started on {nodes} nodes\n{}",
        commands::how_to_use(status, "copper status --all")
    )
}

/// How many nodes must be ready.
fn enough_nodes(cluster: &Cluster, nodes: usize) -> Result<usize> {
    let enough = match (cluster.min_nodes, cluster.min_fraction) {
        (Some(enough), _) => enough as usize,
        (None, Some(part)) => (part * nodes as f64).ceil() as usize,
        (None, None) => nodes,
    };
    ensure!(
        (1..=nodes).contains(&enough),
        "--min-nodes {enough}: the job has {nodes} nodes"
    );
    Ok(enough)
}

/// What to say where the same job runs already; an error where another one does.
fn already_running(
    hosts: &[String],
    launch: &Launch<'_>,
    wanted: &[Vec<u8>],
    enough: usize,
) -> Result<Option<String>> {
    let until = Instant::now() + join::ENDING_TIME;
    let Some(runtime) = Runtime::find()? else {
        return Ok(None);
    };
    // Helpers of a job that was stopped just now, from another node, are about to end.
    while let Some((status, _)) = commands::ask_status(&runtime)? {
        let job = Job::read(&runtime)?;
        let same = refuse_other_job(&status, job.as_ref(), hosts)
            .and_then(|()| commands::refuse_other_wishes(&status, launch.service, wanted))
            .and_then(|()| unready_nodes(&runtime, job.as_ref(), enough));
        match same {
            Ok(missing) => {
                return Ok(Some(format!(
                    "copper's helpers on these {} nodes were running already, and are {missing}\n{}",
                    hosts.len(),
                    commands::how_to_use(&status, "copper status --all")
                )));
            }
            Err(error) if Instant::now() >= until => return Err(error),
            Err(_) => std::thread::sleep(join::PAUSE),
        }
    }
    Ok(None)
}

fn refuse_other_job(status: &Status, job: Option<&Job>, hosts: &[String]) -> Result<()> {
    let Some(job) = job else {
        bail!(
            "a helper (pid {}) that serves this node alone is running; run copper stop first",
            status.pid
        );
    };
    ensure!(
        job.hosts == hosts,
        "helpers of a job on other nodes ({}) are running; run copper stop first",
        shorten(&job.hosts)
    );
    Ok(())
}

/// Says which nodes are ready; an error where they are not enough.
fn unready_nodes(runtime: &Runtime, job: Option<&Job>, enough: usize) -> Result<String> {
    let survey = survey::parse(&survey::ask_now(runtime, ALREADY_TIME)?)?;
    if survey.all_ready() {
        return Ok("all ready".to_owned());
    }
    let missing = job.map_or(String::new(), |job| survey.missing_names(job));
    ensure!(
        survey.ready as usize >= enough,
        "the helpers of these nodes are running, but only {} of {} are ready (missing: {missing}); \
         run copper stop first",
        survey.ready,
        survey.nodes
    );
    Ok(format!("all ready but {missing}"))
}

/// Lets the signals that end a command end the start in good order instead.
fn watch_signals() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())
            .context("cannot watch for signals")?;
    }
    Ok(interrupted)
}

fn make_job(cluster: &Cluster, hosts: &[String]) -> Result<Job> {
    let default_trees = (hosts.len() / NODES_PER_TREE).clamp(1, MOST_TREES) as u16;
    let key = JobKey::draw().context("the system has no random bytes")?;
    let job = Job {
        version: JOB_VERSION,
        key: key.digits(),
        hosts: hosts.to_vec(),
        port: match cluster.port {
            Some(port) => port,
            None => random_port()?,
        },
        trees: cluster.trees.unwrap_or(default_trees),
        fan_out: cluster.fan_out.unwrap_or(FAN_OUT),
        provider: cluster.provider.clone(),
        interfaces: cluster.interfaces.clone(),
        transfer: match cluster.transfer {
            Some(TransferName::Rpc) => Transfer::Rpc,
            Some(TransferName::Rma) | None => Transfer::Rma,
        },
    };
    job.check()?;
    Ok(job)
}

fn random_port() -> Result<u16> {
    let random = getrandom::u32().context("the system has no random bytes")?;
    Ok(FIRST_PORT + (random % u32::from(PORTS)) as u16)
}

/// One line for each reason, with all nodes that have it.
fn by_reason(hosts: &[String], failed: &[(u32, String)]) -> Vec<String> {
    let mut reasons: Vec<&str> = Vec::new();
    let mut names: HashMap<&str, Vec<&str>> = HashMap::new();
    for (rank, reason) in failed {
        let name = hosts[*rank as usize].as_str();
        match names.entry(reason) {
            Entry::Occupied(mut known) => known.get_mut().push(name),
            Entry::Vacant(new) => {
                reasons.push(reason);
                new.insert(vec![name]);
            }
        }
    }
    let line = |reason: &str| format!("{}: {reason}", names[reason].join(", "));
    reasons.into_iter().map(line).collect()
}

/// Why a start did not succeed. What is to be said of single nodes has been said.
#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error("the port on which the helpers meet is in use; give another with --port")]
    PortInUse,
    #[error("{failed} of {nodes} nodes are not ready, so all were stopped again")]
    Failed { failed: usize, nodes: usize },
    #[error(
        "{failed} of {nodes} nodes are not ready, so all were stopped again, but nobody knows whether \
         a helper is left on: {left}"
    )]
    FailedWithLeftovers {
        failed: usize,
        nodes: usize,
        left: String,
    },
    #[error("interrupted; all was stopped again")]
    Interrupted,
}

/// One try to start all helpers.
struct Start<'a> {
    fleet: &'a Fleet<'a>,
    began: Instant,
    deadline: Instant,
    progress: Progress,
}

impl<'a> Start<'a> {
    fn new(fleet: &'a Fleet<'a>, timeout: u32) -> Start<'a> {
        let began = Instant::now();
        Start {
            fleet,
            began,
            deadline: began + Duration::from_secs(timeout.into()),
            progress: Progress::new(fleet.invitation.job.hosts.len()),
        }
    }

    fn job(&self) -> &'a Job {
        &self.fleet.invitation.job
    }

    fn run(mut self) -> Result<(), Unready> {
        let outcomes = self.join_all();
        let failed: Vec<(u32, String)> = outcomes
            .iter()
            .filter_map(|(rank, outcome)| match outcome {
                Outcome::Done => None,
                Outcome::Failed(reason) | Outcome::Unknown(reason) => Some((*rank, reason.clone())),
            })
            .collect();
        let own_failed = failed.iter().any(|(rank, _)| *rank == self.fleet.own_rank);
        let unready = if own_failed || failed.len() > self.fleet.tolerated {
            failed
        } else {
            match self.wait_until_ready(&failed) {
                Ok(()) => return Ok(()),
                Err(unready) => unready,
            }
        };
        Err(self.give_up(&outcomes, &unready))
    }

    fn join_all(&mut self) -> Vec<(u32, Outcome)> {
        let nodes = self.job().hosts.len();
        // This node first: it must be there for the others, and its errors are the cheapest.
        let own = self.fleet.own_rank;
        let mut ranks: Vec<u32> = (0..nodes as u32).filter(|&rank| rank != own).collect();
        ranks.insert(0, own);
        let (mut joined, mut failed) = (0, 0);
        let progress = &mut self.progress;
        progress.joined(0, 0);
        let (fleet, deadline) = (self.fleet, self.deadline);
        fleet.act(Action::Join, &ranks, deadline, &mut |_, outcome| {
            match outcome {
                Outcome::Done => joined += 1,
                Outcome::Failed(_) | Outcome::Unknown(_) => failed += 1,
            }
            progress.joined(joined, failed);
        })
    }

    /// Waits until the tree says that all are ready, or, when the time is over, enough of them;
    /// else the nodes that are not, with reasons. Nodes that have failed already are not waited for.
    fn wait_until_ready(&self, failed: &[(u32, String)]) -> Result<(), Vec<(u32, String)>> {
        let job = self.job();
        self.progress.waiting_for("waiting until all are connected");
        let wait = Wait {
            deadline: self.deadline,
            interrupted: self.fleet.interrupted,
            absent: failed.iter().map(|(rank, _)| *rank).collect(),
        };
        let asked = Runtime::make_at(self.fleet.invitation.runtime_directory())
            .and_then(|runtime| survey::until_ready(&runtime, &wait));
        let survey = match asked {
            Ok(survey) => survey,
            Err(error) => return Err(vec![(self.fleet.own_rank, format!("{error:#}"))]),
        };
        let reason = "its helper was started, but was not ready and connected in time: see its log \
                      (--log FILE), or give it longer (--start-timeout)";
        let known = |rank: u32| failed.iter().find(|(of, _)| *of == rank);
        let missing = survey.missing.iter();
        let missing: Vec<(u32, String)> = missing
            .map(|&rank| known(rank).cloned().unwrap_or((rank, reason.to_owned())))
            .collect();
        if survey.unnamed > 0 {
            let more = format!("{} more nodes are not ready", survey.unnamed);
            self.progress.say(&more);
        }
        if job.hosts.len() - survey.ready as usize > self.fleet.tolerated {
            return Err(missing);
        }
        for line in by_reason(&job.hosts, &missing) {
            self.progress.say(&format!("going on without {line}"));
        }
        self.progress.say(&format!(
            "ready {}/{} in {:.1} s: {}",
            survey.ready,
            job.hosts.len(),
            self.began.elapsed().as_secs_f64(),
            survey::shape(job)
        ));
        Ok(())
    }

    /// Names the nodes that failed, and stops what was started.
    fn give_up(&self, outcomes: &[(u32, Outcome)], failed: &[(u32, String)]) -> Unready {
        let hosts = &self.job().hosts;
        let port = format!("port {} is in use", self.job().port);
        let port_in_use =
            !failed.is_empty() && failed.iter().all(|(_, reason)| reason.contains(&port));
        let interrupted = self.fleet.interrupted.swap(false, Ordering::Relaxed);
        if !interrupted {
            for line in by_reason(hosts, failed) {
                self.progress.say(&line);
            }
        }
        self.progress.waiting_for("stopping what was started");
        let left = self.stop_started(outcomes);
        if !left.is_empty() {
            let left: Vec<String> = left
                .iter()
                .map(|&rank| hosts[rank as usize].clone())
                .collect();
            return Unready::FailedWithLeftovers {
                failed: failed.len(),
                nodes: hosts.len(),
                left: left.join(", "),
            };
        }
        match (interrupted, port_in_use) {
            (true, _) => Unready::Interrupted,
            (false, true) => Unready::PortInUse,
            (false, false) => Unready::Failed {
                failed: failed.len(),
                nodes: hosts.len(),
            },
        }
    }

    /// Stops the helpers: through the tree, and those that it does not reach by their launchers.
    /// Returns the nodes that may have one still.
    fn stop_started(&self, outcomes: &[(u32, Outcome)]) -> Vec<u32> {
        let started: Vec<u32> = outcomes
            .iter()
            .filter(|(_, outcome)| !matches!(outcome, Outcome::Failed(_)))
            .map(|(rank, _)| *rank)
            .collect();
        let ended = self.stop_through_tree();
        let rest: Vec<u32> = started
            .into_iter()
            .filter(|rank| ended.as_ref().is_none_or(|lost| lost.contains(rank)))
            .collect();
        let deadline = Instant::now() + LEAVE_TIME;
        let left = self
            .fleet
            .act(Action::Leave, &rest, deadline, &mut |_, _| {});
        self.fleet.end_steps();
        left.into_iter()
            .filter(|(_, outcome)| *outcome != Outcome::Done)
            .map(|(rank, _)| rank)
            .collect()
    }

    /// The nodes that were lost while the tree stopped; `None` where this node has no helper that
    /// could ask it, or that one does not know of all.
    fn stop_through_tree(&self) -> Option<HashSet<u32>> {
        let invitation = self.fleet.invitation;
        let runtime = Runtime::find_at(invitation.runtime_directory()).ok()??;
        if !invitation.is_of(&runtime).ok()? {
            return None;
        }
        connect(&runtime).ok()??;
        let stopped = survey::stop_all(&runtime).ok()??;
        (stopped.unnamed() == 0).then(|| stopped.lost.into_iter().collect())
    }
}
