//! The command line of `copper`.
#![forbid(unsafe_code)]

use crate::audit;
use crate::cpus::CpuList;
use crate::doctor;
use crate::log;
use crate::size;
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::PathBuf;

/// Read each file from the parallel file system once, and serve it to every process of this node
/// from memory.
#[derive(Debug, Parser)]
#[command(name = "copper", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Append the log to this file (the default is standard error; a helper in the background
    /// logs nowhere unless told); {host} is replaced by the node's name.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// How much to log: off, fatal, error, warn, info, debug or trace, or 0 (nothing) to 5
    /// (everything).
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn",
          value_parser = log::parse_level)]
    pub(crate) log_level: String,
    /// Where to log. A helper in the background has the standard output of the copper start or run
    /// that started it on the same node, and none on other nodes.
    #[arg(long, global = true, value_name = "TYPE", default_value = "file")]
    pub(crate) log_type: LogType,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command whose files are served by Copper, and start a helper if there is none.
    ///
    /// Several runs of one user and job share one helper; the helper that a run started ends with
    /// the last of them. The exit status is the command's (128 + n if signal n ended it, 127 if it
    /// was not found, 126 if it could not be run, 125 if Copper could not be set up).
    Run(Run),
    /// Start a helper that stays until `copper stop`; with --hosts one on every node of a job, which
    /// read each file from the origin once for all of them.
    Start(Start),
    /// Stop the helper, and all helpers of its job; nothing is left behind.
    Stop,
    /// Say what is cached, how much was asked and how much came from the origin.
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
        /// Of all helpers of the job: which are ready, which are missing, what went wrong.
        #[arg(long)]
        all: bool,
    },
    /// Print the exports that let a shell's commands use the helper: eval "$(copper env)".
    ///
    /// With --format the words to put on the launch line of ranks, for a launcher that does not pass
    /// the environment on: mpiexec $(copper env --format hydra) -n 8 ./app.
    Env {
        /// Print the path of libcopper.so alone.
        #[arg(long, conflicts_with = "format")]
        lib: bool,
        /// For whom.
        #[arg(long, value_name = "FORMAT", default_value = "sh")]
        format: Format,
        /// Whether the dynamic loader takes libraries from Copper at a program's start, and along
        /// absolute search paths (libcopper-audit.so by LD_AUDIT).
        #[arg(
            long,
            value_name = "WHEN",
            default_value = "auto",
            conflicts_with = "lib"
        )]
        audit: audit::When,
    },
    /// Forget what is known of a path and of all below it, or of everything.
    Refresh {
        /// The path; everything if it is left out.
        path: Option<PathBuf>,
    },
    /// Say what was asked for most and what took longest, on this node or, merged, on all.
    Profile(Profile),
    /// Write a report of the job as one HTML file: the tree, the time line of the start, the slowest
    /// paths, what was served from where, what was left to the origin and what to do about it.
    Report(Report),
    /// Show live what the helper does, or those of all nodes: q to end.
    Top(Top),
    /// Dump, clear and set back what is cached and counted: what the first Copper does by ioctl.
    ///
    /// copper control dump tables; copper control reset all --all. See docs/METRICS.md for all that
    /// can be named and for the numbers by which programs can ask for it.
    Control(Control),
    /// Check whether this node can run Copper; the exit status is 1 where there is a problem.
    Doctor(doctor::Options),
    /// Write manual pages and shell completions below a directory, for packages.
    #[command(hide = true)]
    Documents {
        /// The directory.
        directory: PathBuf,
    },
    /// Become another program, for `copper run`: under the shim, which finds programs that are
    /// covered.
    #[command(hide = true)]
    Exec(Exec),
    /// Time calls between libraries in this process.
    #[command(hide = true)]
    AuditProbe,
    /// The helper itself, in the foreground of its own session.
    #[command(hide = true)]
    Helper(Helper),
    /// Start this node's helper of the job that standard input describes, for `copper start`.
    #[command(hide = true)]
    Join(Member),
    /// End this node's helper of the job that standard input describes, for `copper start`.
    #[command(hide = true)]
    Leave(Member),
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
pub(crate) enum LogType {
    /// To the file that --log names.
    #[default]
    File,
    /// To standard output.
    Stdout,
    /// To both.
    #[value(alias = "file_and_stdout")]
    Both,
}

impl LogType {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LogType::File => "file",
            LogType::Stdout => "stdout",
            LogType::Both => "both",
        }
    }
}

/// `copper control`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Control {
    /// What to do.
    pub(crate) action: ControlAction,
    /// With what: tables, counts, times, hits, misses, negatives, data-events, tree-events,
    /// metadata-events, data-sizes, tree-sizes, metadata-sizes, controls or all [default: all; to
    /// clear, tables].
    pub(crate) what: Option<String>,
    /// On all nodes of the job.
    #[arg(long)]
    pub(crate) all: bool,
    /// Write each dump to a file in this directory, NODE-PID-KIND.output, instead of printing it;
    /// with --all every node writes there [default: the working directory].
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
}

/// What `copper control` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ControlAction {
    /// Write it down.
    Dump,
    /// Forget it, to ask again.
    Clear,
    /// Count it from zero again.
    Reset,
}

/// How `copper env` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Exports for a shell: eval "$(copper env)".
    Sh,
    /// Options of PALS' mpiexec and aprun: --genv=NAME=VALUE.
    Pals,
    /// Options of Hydra's mpiexec (MPICH, Intel MPI): -genv NAME VALUE.
    Hydra,
    /// Options of Open MPI's mpirun: -x NAME=VALUE.
    Openmpi,
    /// An option of Slurm's srun: --export=ALL,NAME=VALUE,...
    Srun,
    /// Options of flux run: --env=NAME=VALUE.
    Flux,
}

/// `copper profile`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Profile {
    /// Merge the profiles that the nodes of a job left in this directory (copper start --profile)
    /// into one, as CSV and Markdown files in its directory cluster.
    #[arg(long, value_name = "DIR")]
    pub(crate) merge: Option<PathBuf>,
    /// Without --merge: list so many paths of each kind.
    #[arg(short = 'N', long, value_name = "NUMBER", default_value_t = 10)]
    pub(crate) top: u32,
}

/// `copper report`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Report {
    /// The file to write.
    #[arg(short, long, value_name = "FILE", default_value = "copper-report.html")]
    pub(crate) output: PathBuf,
    /// Take the nodes' profiles from this directory (copper start --profile) instead of asking this
    /// node's helper; the job may have ended.
    #[arg(long, value_name = "DIR")]
    pub(crate) profile: Option<PathBuf>,
}

/// `copper top`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Top {
    /// Of all helpers of the job (the default where it has several nodes).
    #[arg(long, conflicts_with = "node")]
    pub(crate) all: bool,
    /// Of this node's helper alone.
    #[arg(long)]
    pub(crate) node: bool,
    /// How often to ask, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) interval: u32,
}

/// Whether and how a job is profiled.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[command(next_help_heading = "Profile")]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProfileOptions {
    /// Write sums of what was asked and how long it took, on each node, when the helper ends.
    #[arg(short = 'P', long)]
    pub(crate) profile: bool,
    /// The same, with so many paths of each kind: those asked for most.
    #[arg(short = 'N', long, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) profile_top: Option<u32>,
    /// The same, with all paths.
    #[arg(short = 'A', long)]
    pub(crate) profile_paths: bool,
    /// The same, also every so many seconds while the job runs.
    #[arg(short = 'I', long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) profile_interval: Option<u32>,
    /// Where all nodes write their profiles [default: copper-profile].
    #[arg(long, value_name = "DIR")]
    pub(crate) profile_directory: Option<PathBuf>,
    /// Objects whose times each node keeps, for reports [default: 16384, with --profile-paths
    /// 1000000]; with 0 reports have neither paths nor a time line.
    #[arg(long, value_name = "NUMBER",
          value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub(crate) journal_limit: Option<u32>,
}

impl ProfileOptions {
    /// The same with an absolute directory, since helpers run in another one.
    ///
    /// # Errors
    /// When the current directory cannot be told.
    pub(crate) fn settled(&self) -> std::io::Result<ProfileOptions> {
        let directory = self.directory().map(std::path::absolute).transpose()?;
        Ok(ProfileOptions {
            profile_directory: directory,
            ..self.clone()
        })
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if self.profile {
            arguments.push("--profile".into());
        }
        if self.profile_paths {
            arguments.push("--profile-paths".into());
        }
        for (name, number) in [
            ("--profile-top", self.profile_top),
            ("--profile-interval", self.profile_interval),
            ("--journal-limit", self.journal_limit),
        ] {
            if let Some(number) = number {
                arguments.extend([name.into(), number.to_string().into()]);
            }
        }
        if let Some(directory) = &self.profile_directory {
            arguments.extend(["--profile-directory".into(), directory.into()]);
        }
        arguments
    }
}

/// `copper join` and `copper leave`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Member {
    /// The node's place in the job's list of hosts, from 0; where it is left out, the node finds
    /// itself in the list.
    #[arg(long)]
    pub(crate) rank: Option<u32>,
    /// Stay in the foreground until the helper ends, and end it when this is ended.
    #[arg(long)]
    pub(crate) stay: bool,
    /// Read the job's description from this file instead of standard input.
    #[arg(long, value_name = "FILE")]
    pub(crate) invitation: Option<PathBuf>,
}

/// `copper start`.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// How the helper, or each of them, is to be.
    #[command(flatten)]
    pub(crate) service: Service,
    /// On which nodes, and how they are joined.
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

/// The nodes of a job and how their helpers are started and joined.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "On several nodes")]
#[command(group = ArgGroup::new("nodes"))]
pub(crate) struct Cluster {
    /// Start one helper on each of these nodes, e.g. node1,node2 or node[01-16]. This node must be
    /// one of them.
    #[arg(long, value_name = "LIST", group = "nodes")]
    pub(crate) hosts: Option<String>,
    /// The same, with the nodes' names in a file, one per line ("node1 slots=4" and repeated names
    /// are understood).
    #[arg(long, value_name = "FILE", group = "nodes")]
    pub(crate) hostfile: Option<PathBuf>,
    /// The same, on all nodes of this batch job, as its environment lists them (PBS_NODEFILE,
    /// SLURM_JOB_NODELIST, FLUX_URI, LSB_DJOB_HOSTFILE, COBALT_NODEFILE, PE_HOSTFILE) or else an
    /// MPI's (HYDRA_HOST_FILE, OMPI_MCA_orte_default_hostfile, PRTE_MCA_prte_default_hostfile).
    #[arg(long, group = "nodes")]
    pub(crate) allocation: bool,
    /// How commands are started on the other nodes.
    #[arg(
        long,
        value_name = "LAUNCHER",
        requires = "nodes",
        conflicts_with = "launch"
    )]
    pub(crate) launcher: Option<LauncherName>,
    /// How commands are started on the other nodes, e.g. "ssh -p 2222 {host} {command}".
    ///
    /// The template is split into words as a shell would (quotes and backslashes are understood,
    /// nothing else). {host} and {rank} become the node's name and its place in the list. {command}
    /// as a word of its own becomes several words, of letters, digits and - . / _ alone, so that it
    /// does not matter whether the tool runs them (nsenter, env) or has a remote shell read them
    /// (ssh); in quotes, as in "ssh {host} 'module load x; exec {command}'", it becomes text that a
    /// shell understands. The tool must pass its standard input on to the command, and the
    /// command's standard output back.
    #[arg(long, value_name = "TEMPLATE", requires = "nodes")]
    pub(crate) launch: Option<String>,
    /// Number of trees, each with a root of its own [default: a tree for every 8 nodes, at most 8].
    #[arg(long, value_name = "NUMBER", requires = "nodes",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) trees: Option<u16>,
    /// How many children an interior node of a tree has [default: 8].
    #[arg(long, value_name = "NUMBER", requires = "nodes",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) fan_out: Option<u32>,
    /// The libfabric provider [default: the fastest that all nodes have].
    #[arg(long, value_name = "NAME", requires = "nodes")]
    pub(crate) provider: Option<String>,
    /// Use this network interface (may be given several times: long files are spread over them).
    #[arg(long = "interface", value_name = "NAME", requires = "nodes")]
    pub(crate) interfaces: Vec<String>,
    /// How files travel from node to node: read from the other's memory, or sent in messages
    /// [default: rma].
    #[arg(long, value_name = "HOW", requires = "nodes")]
    pub(crate) transfer: Option<TransferName>,
    /// TCP port on which the helpers meet [default: a random one, another where that is taken].
    #[arg(long, value_name = "PORT", requires = "nodes",
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// How long all helpers together may take to be ready [default: 60].
    #[arg(long, value_name = "SECONDS", requires = "nodes",
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) start_timeout: Option<u32>,
    /// Go on where at least so many nodes are ready, and name the others [default: all must be].
    #[arg(
        long,
        value_name = "NUMBER",
        requires = "nodes",
        conflicts_with = "min_fraction"
    )]
    pub(crate) min_nodes: Option<u32>,
    /// The same, as a part of all nodes, e.g. 0.95.
    #[arg(long, value_name = "PART", requires = "nodes", value_parser = parse_fraction)]
    pub(crate) min_fraction: Option<f64>,
    /// A directory that all nodes see, for launchers that do not pass standard input on (pals,
    /// mpiexec, pdsh): the job's description lies there, readable by you alone, until all nodes have joined
    /// [default: your home directory].
    #[arg(long, value_name = "DIR", requires = "nodes")]
    pub(crate) shared_directory: Option<PathBuf>,
}

/// A way to start commands on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LauncherName {
    /// Local where all nodes are network namespaces of this machine, srun in a Slurm job, flux in a
    /// Flux instance, pals in a PBS job whose mpiexec is PALS', else ssh.
    #[default]
    Auto,
    /// One job step of Slurm, beside those of the ranks.
    Srun,
    /// One mpiexec of PALS.
    Pals,
    /// One mpiexec of Hydra (MPICH, Intel MPI).
    Mpiexec,
    /// One flux exec.
    Flux,
    /// One clush.
    Clush,
    /// One pdsh.
    Pdsh,
    /// An ssh for each node, without questions.
    Ssh,
    /// nsenter into the network namespace that has the node's name.
    Local,
}

/// How files travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransferName {
    /// By remote reads.
    Rma,
    /// In messages.
    Rpc,
}

/// `copper run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How the helper is to be, if one must be started.
    #[command(flatten)]
    pub(crate) service: Service,
    /// Whether the dynamic loader takes libraries from Copper at a program's start, and along
    /// absolute search paths (libcopper-audit.so by LD_AUDIT).
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) audit: audit::When,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// `copper exec`.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<OsString>,
}

/// How a helper is to be.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Service {
    /// Serve the files below this directory under their own paths (may be given several times).
    #[arg(long = "cover", value_name = "DIR", value_parser = absolute_path())]
    pub(crate) cover: Vec<PathBuf>,
    /// Keep the cached files on this tmpfs (the default is the first that allows execution of
    /// /dev/shm, $XDG_RUNTIME_DIR, /tmp and $TMPDIR).
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub(crate) store: Option<PathBuf>,
    /// Use no more memory than this for cached files, e.g. 8G (the default is half of what is
    /// free).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) memory: Option<u64>,
    /// Where every absolute path appears again, served by Copper (the default is $COPPER_VIEW or
    /// /tmp/$USER/copper).
    #[arg(long, value_name = "DIR", value_parser = absolute_path())]
    pub(crate) view: Option<PathBuf>,
    /// Fetch directories of up to this many names whole; larger ones are served name by name.
    #[arg(long, value_name = "NAMES", default_value_t = DIRECTORY_LIMIT)]
    pub(crate) directory_limit: usize,
    /// How many operations may be outstanding on the origin at once.
    #[arg(long, value_name = "NUMBER", default_value_t = THREADS,
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// Leave files larger than this to the origin, e.g. 10M (the default is what the memory holds).
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    pub(crate) largest: Option<u64>,
    /// Once programs have asked for two Python modules (compiled ones, or extensions) of a
    /// directory, fetch up to so many of its others before they are asked for; 0 to fetch nothing
    /// that nobody asked for. With several nodes nothing is fetched ahead.
    #[arg(long, value_name = "FILES", default_value_t = READ_AHEAD)]
    #[serde(default = "read_ahead")]
    pub(crate) read_ahead: usize,
    /// Bind all of the helper's threads to these processors, e.g. 48-51,60.
    #[arg(long, value_name = "LIST")]
    pub(crate) cpus: Option<CpuList>,
    /// The helper's nice value (19: only when nobody else wants to run).
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i8).range(-20..=19))]
    pub(crate) nice: Option<i8>,
    /// End when nobody has asked for anything for so long, and no process uses the helper (the
    /// default is to stay).
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) idle_limit: Option<u32>,
    /// With several nodes: end when no other helper of the job could be reached for so long, and
    /// no process uses this one; 0 to stay. The helper of the node where copper start was given
    /// stays, and so do those that end with their launcher (srun, pals, mpiexec).
    #[arg(long, value_name = "SECONDS", default_value_t = CUT_OFF_LIMIT)]
    #[serde(default)]
    pub(crate) cut_off_limit: u32,
    /// Whether and how it is profiled.
    #[command(flatten)]
    #[serde(default)]
    pub(crate) profile: ProfileOptions,
    /// Write what copper status says to this file every few seconds, for Prometheus' node_exporter
    /// (textfile collector); {host} is replaced by the node's name. The file goes with the helper.
    #[arg(long, value_name = "FILE", value_parser = absolute_path())]
    #[serde(default)]
    pub(crate) metrics: Option<PathBuf>,
    /// Ask the origin again for names that it did not have, when so much time has passed (the
    /// default is to take them for absent until a program of the job makes them, or until copper
    /// refresh).
    #[arg(long, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) absence_lifetime: Option<u64>,
}

/// Paths are the user's, as seen from where the command was given: the helper works elsewhere.
fn absolute_path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

fn parse_fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(part) if part > 0.0 && part <= 1.0 => Ok(part),
        _ => Err("a number above 0, up to 1".to_owned()),
    }
}

const DIRECTORY_LIMIT: usize = 20_000;
const THREADS: u16 = 16;
const READ_AHEAD: usize = 512;
/// A switch that is started anew is back by then.
const CUT_OFF_LIMIT: u32 = 900;

fn read_ahead() -> usize {
    READ_AHEAD
}

/// `copper helper`.
#[derive(Debug, Args)]
pub(crate) struct Helper {
    /// How it is to be.
    #[command(flatten)]
    pub(crate) service: Service,
    /// Descriptor of the socket on which the starter waits for the helper to be ready.
    #[arg(long, value_name = "FD")]
    pub(crate) starter: Option<i32>,
    /// The helper's place in the job that the runtime directory holds; alone where there is none.
    #[arg(long)]
    pub(crate) rank: Option<u32>,
    /// End when the last attached client, the starter among them, has gone.
    #[arg(long)]
    pub(crate) while_attached: bool,
    /// End, with all helpers of the job, when this process has ended.
    #[arg(long, value_name = "PID")]
    pub(crate) watch: Option<i32>,
}

impl Service {
    /// The same as arguments of `copper helper`.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        for prefix in &self.cover {
            arguments.extend(["--cover".into(), prefix.into()]);
        }
        if let Some(store) = &self.store {
            arguments.extend(["--store".into(), store.into()]);
        }
        if let Some(view) = &self.view {
            arguments.extend(["--view".into(), view.into()]);
        }
        if let Some(metrics) = &self.metrics {
            arguments.extend(["--metrics".into(), metrics.into()]);
        }
        if let Some(memory) = self.memory {
            arguments.extend(["--memory".into(), memory.to_string().into()]);
        }
        arguments.extend([
            "--directory-limit".into(),
            self.directory_limit.to_string().into(),
            "--threads".into(),
            self.threads.to_string().into(),
            "--read-ahead".into(),
            self.read_ahead.to_string().into(),
            "--cut-off-limit".into(),
            self.cut_off_limit.to_string().into(),
        ]);
        let numbers = [
            ("--largest", self.largest.map(|size| size.to_string())),
            ("--cpus", self.cpus.as_ref().map(CpuList::to_string)),
            ("--nice", self.nice.map(|nice| nice.to_string())),
            (
                "--idle-limit",
                self.idle_limit.map(|limit| limit.to_string()),
            ),
            (
                "--absence-lifetime",
                self.absence_lifetime.map(|time| time.to_string()),
            ),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                arguments.extend([name.into(), value.into()]);
            }
        }
        arguments.extend(self.profile.arguments());
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_service_survives_the_way_to_the_helper() {
        let line = "copper run --cover /a --cover /b --memory 8G --view /v --largest 10M --cpus \
                    1,0 --nice -5 --idle-limit 60 --cut-off-limit 30 --absence-lifetime 250 --metrics /m -P -N 5 -A -I 10 \
                    --profile-directory /p --journal-limit 7 -- x --cover y";
        let cli = Cli::parse_from(line.split(' '));
        let Command::Run(run) = cli.command else {
            panic!("not a run");
        };
        assert_eq!(run.command, ["x", "--cover", "y"]);
        let mut line: Vec<OsString> = vec!["copper".into(), "helper".into()];
        line.extend(run.service.arguments());
        let Command::Helper(helper) = Cli::parse_from(line).command else {
            panic!("not a helper");
        };
        assert_eq!(helper.service.cover, run.service.cover);
        assert_eq!(helper.service.memory, Some(8 << 30));
        assert_eq!(helper.service.view, run.service.view);
        assert_eq!(helper.service.largest, Some(10 << 20));
        assert_eq!(helper.service.cpus, run.service.cpus);
        assert_eq!(helper.service.nice, Some(-5));
        assert_eq!(helper.service.idle_limit, Some(60));
        assert_eq!(helper.service.cut_off_limit, 30);
        assert_eq!(helper.service.profile, run.service.profile);
        assert!(helper.service.profile.is_on());
        assert_eq!(helper.service.metrics, Some("/m".into()));
        assert_eq!(helper.service.absence_lifetime, Some(250));
    }
}
