//! How a command is started on another node: the argument vectors of the launchers.
//!
//! The command is `copper join --rank R` (or `leave`); all else that it must know comes on its
//! standard input. So its words need no quotes, and a launcher may run them or hand them to a shell.
#![forbid(unsafe_code)]

use super::hosts;
use super::table::{self, Entry};
use crate::cli::{Cluster, LauncherName};
use crate::runtime::variable;
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

const HOST: &str = "{host}";
const RANK: &str = "{rank}";
const COMMAND: &str = "{command}";

/// Where `ip netns add HOST` makes the network namespace of a host.
const NETWORK_NAMESPACES: &str = "/run/netns";
/// Where `scripts/cluster.sh` keeps the other namespaces of its hosts.
const OTHER_NAMESPACES: &str = "/run/copper-cluster";
/// How long ssh waits for a node, in seconds.
const CONNECT_TIME: u32 = 10;

/// A way to start a command on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Launcher {
    /// ssh.
    Ssh,
    /// nsenter.
    Local,
    /// The words of a user's template.
    Template(Vec<Word>),
    /// One command for all nodes.
    Once(Once),
}

/// A launcher that starts all tasks with one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Once {
    pub(super) entry: &'static Entry,
    /// The nodes by which the launcher counts, where it does: those of a Flux instance.
    list: Vec<String>,
}

impl Once {
    /// The hosts' places in the launcher's own list.
    pub(super) fn places_of(&self, hosts: &[&str]) -> Result<Vec<u32>> {
        if self.list.is_empty() {
            return Ok(Vec::new());
        }
        let place = |host: &&str| {
            let place = self.list.iter().position(|listed| listed == host);
            let place = place.with_context(|| format!("{host} is not in this Flux instance"))?;
            Ok(u32::try_from(place)?)
        };
        hosts.iter().map(place).collect()
    }
}

/// A word of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The words of the command.
    Command,
    /// Text, in which placeholders are replaced, `{command}` by quoted text for a shell.
    Text(String),
}

impl Launcher {
    /// The launcher that the options ask for, for these hosts.
    pub(super) fn choose(cluster: &Cluster, hosts: &[String]) -> Result<Launcher> {
        if let Some(template) = &cluster.launch {
            return Launcher::from_template(template, hosts.len());
        }
        let is_local = |host: &String| network_namespace(host).exists();
        let wanted = match cluster.launcher.unwrap_or_default() {
            LauncherName::Auto if hosts.iter().all(is_local) => LauncherName::Local,
            LauncherName::Auto => by_environment(
                &|name| variable(name).is_some(),
                &|program| find_program(program).is_some(),
                has_pals,
            ),
            named => named,
        };
        match (wanted, hosts.iter().find(|host| !is_local(host))) {
            (LauncherName::Local, None) => Ok(Launcher::Local),
            (LauncherName::Local, Some(host)) => bail!(
                "--launcher local: {} is not a network namespace of this machine (there is no \
                 {}); see scripts/cluster.sh, or use --launcher ssh",
                host,
                network_namespace(host).display()
            ),
            (name, _) => match table::find(name) {
                Some(entry) => Launcher::once(entry),
                None => Ok(Launcher::Ssh),
            },
        }
    }

    fn once(entry: &'static Entry) -> Result<Launcher> {
        let list = match entry.name {
            LauncherName::Flux => hosts::of_flux().context("--launcher flux")?,
            _ => Vec::new(),
        };
        Ok(Launcher::Once(Once { entry, list }))
    }

    fn from_template(template: &str, hosts: usize) -> Result<Launcher> {
        let words = split(template)
            .with_context(|| format!("--launch '{template}' cannot be split into words"))?;
        ensure!(
            template.contains(COMMAND),
            "--launch '{template}' has no {COMMAND}; e.g. --launch \"ssh {HOST} {COMMAND}\""
        );
        ensure!(
            hosts == 1 || template.contains(HOST) || template.contains(RANK),
            "--launch '{template}' has no {HOST} (nor {RANK}), so all helpers would be started in \
             one place; e.g. --launch \"ssh {HOST} {COMMAND}\""
        );
        ensure!(
            words.first() != Some(&Word::Command),
            "--launch '{template}' names no program that starts the command elsewhere"
        );
        Ok(Launcher::Template(words))
    }

    /// The words that run `command` on `host`.
    pub(super) fn words(&self, host: &str, rank: u32, command: &[String]) -> Result<Vec<String>> {
        match self {
            Launcher::Ssh => Ok(ssh(host, command)),
            Launcher::Local => Ok(nsenter(host, command)),
            Launcher::Template(words) => fill_in(words, host, rank, command),
            Launcher::Once(once) => bail!("{} starts all nodes at once", once.entry.program()),
        }
    }

    /// What the launcher is called in messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Launcher::Ssh => "ssh",
            Launcher::Local => "nsenter",
            Launcher::Template(words) => match words.first() {
                Some(Word::Text(program)) => program,
                Some(Word::Command) | None => "the launcher",
            },
            Launcher::Once(once) => once.entry.program(),
        }
    }
}

/// The launcher that goes with the batch system whose variables are set.
fn by_environment(
    is_set: &dyn Fn(&str) -> bool,
    is_there: &dyn Fn(&str) -> bool,
    has_pals: impl Fn() -> bool,
) -> LauncherName {
    if is_set("SLURM_JOB_ID") && is_there("srun") {
        LauncherName::Srun
    } else if is_set("FLUX_URI") && is_there("flux") {
        LauncherName::Flux
    } else if is_set("PBS_NODEFILE") && has_pals() {
        LauncherName::Pals
    } else {
        LauncherName::Ssh
    }
}

/// The file that a program's name leads to.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = variable("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}

/// Whether mpiexec is PALS', which is installed in a directory of that name.
fn has_pals() -> bool {
    let file = find_program("mpiexec").and_then(|file| file.canonicalize().ok());
    file.is_some_and(|file| file.components().any(|part| part.as_os_str() == "pals"))
}

fn network_namespace(host: &str) -> PathBuf {
    Path::new(NETWORK_NAMESPACES).join(host)
}

fn ssh(host: &str, command: &[String]) -> Vec<String> {
    let connect_time = format!("ConnectTimeout={CONNECT_TIME}");
    let words = [
        "ssh",
        "-T",
        "-o",
        "BatchMode=yes",
        "-o",
        &connect_time,
        host,
    ];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push(shell_words::join(command));
    words
}

fn nsenter(host: &str, command: &[String]) -> Vec<String> {
    let mut words = vec![
        "nsenter".to_owned(),
        format!("--net={}", network_namespace(host).display()),
    ];
    for (option, file) in [("--mount", "mnt"), ("--uts", "uts")] {
        let namespace = Path::new(OTHER_NAMESPACES).join(host).join(file);
        if namespace.exists() {
            words.push(format!("{option}={}", namespace.display()));
        }
    }
    words.push("--".to_owned());
    words.extend_from_slice(command);
    words
}

/// Splits a template as a shell would. An unquoted `{command}` between blanks is a word by itself;
/// in quotes or with anything beside it, it is part of a text.
fn split(template: &str) -> Result<Vec<Word>, shell_words::ParseError> {
    /// Stands for a `{command}` between blanks until it is known whether quotes are around those.
    const ALONE: &str = "\u{1}";
    let marked: Vec<&str> = template
        .split(' ')
        .map(|part| if part == COMMAND { ALONE } else { part })
        .collect();
    let words = shell_words::split(&marked.join(" "))?.into_iter();
    let word = |word: String| match word == ALONE {
        true => Word::Command,
        false => Word::Text(word.replace(ALONE, COMMAND)),
    };
    Ok(words.map(word).collect())
}

fn fill_in(words: &[Word], host: &str, rank: u32, command: &[String]) -> Result<Vec<String>> {
    let mut filled = Vec::new();
    for word in words {
        match word {
            Word::Command => {
                let odd = command
                    .iter()
                    .find(|part| shell_words::quote(part) != **part);
                if let Some(odd) = odd {
                    bail!(
                        "copper is installed as {odd}, which a shell on another node would not \
                         read as one word; make a link to it with a plain name"
                    );
                }
                filled.extend_from_slice(command);
            }
            Word::Text(text) => {
                let text = text.replace(HOST, host).replace(RANK, &rank.to_string());
                filled.push(text.replace(COMMAND, &shell_words::join(command)));
            }
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(program: &str) -> Vec<String> {
        [program, "join", "--rank", "7"].map(str::to_owned).into()
    }

    fn words(template: &str) -> Result<Vec<String>> {
        Launcher::from_template(template, 4)?.words("n1", 7, &command("/opt/copper"))
    }

    #[test]
    fn a_template_s_command_is_words_where_it_stands_alone() {
        let alone = words("ssh -p 2222 {host} {command}").expect("a template");
        let wanted = "ssh -p 2222 n1 /opt/copper join --rank 7";
        assert_eq!(alone, wanted.split(' ').collect::<Vec<_>>());
        let inside = words("in-node{rank} bash -lc 'module load x; exec {command}'");
        assert_eq!(
            inside.expect("a template"),
            [
                "in-node7",
                "bash",
                "-lc",
                "module load x; exec /opt/copper join --rank 7"
            ]
        );
    }

    #[test]
    fn a_program_s_name_with_blanks_is_quoted_where_a_shell_reads_it() {
        let odd = command("/my opt/copper");
        let quoted = "'/my opt/copper' join --rank 7";
        let ssh = Launcher::Ssh.words("n1", 7, &odd).expect("words");
        assert_eq!(ssh.last().map(String::as_str), Some(quoted));
        let template = |text| Launcher::from_template(text, 4).expect("a template");
        let inside = template("on {host} sh -c '{command}'").words("n1", 7, &odd);
        assert_eq!(
            inside.expect("words").last().map(String::as_str),
            Some(quoted)
        );
        let alone = template("on {host} {command}").words("n1", 7, &odd);
        assert!(
            alone
                .expect_err("ambiguous")
                .to_string()
                .contains("make a link")
        );
    }

    #[test]
    fn bad_templates_are_explained() {
        let error = |template| format!("{:#}", words(template).expect_err("not a template"));
        assert!(error("ssh {host}").contains("has no {command}"));
        assert!(error("ssh node1 {command}").contains("has no {host}"));
        assert!(error("").contains("has no {command}"));
        assert!(error("{command} {host}").contains("names no program"));
        assert!(error("ssh '{host} {command}").contains("cannot be split"));
        let one = Launcher::from_template("env X=1 {command}", 1);
        assert!(one.is_ok(), "one node needs no name");
    }

    #[test]
    fn namespaces_are_entered_by_their_names() {
        let words = Launcher::Local.words("no-such-host", 7, &command("/opt/copper"));
        let wanted = "nsenter --net=/run/netns/no-such-host -- /opt/copper join --rank 7";
        assert_eq!(words.expect("words"), wanted.split(' ').collect::<Vec<_>>());
        let local = Cluster {
            launcher: Some(LauncherName::Local),
            ..Cluster::default()
        };
        let hosts = ["no-such-host".to_owned()];
        let error = Launcher::choose(&local, &hosts).expect_err("no namespace");
        assert!(error.to_string().contains("/run/netns/no-such-host"));
    }

    #[test]
    fn the_batch_system_s_own_launcher_is_preferred() {
        let chosen = |set: &'static str, there: &'static str, pals| {
            by_environment(&|name| name == set, &|program| program == there, || pals)
        };
        assert_eq!(chosen("SLURM_JOB_ID", "srun", false), LauncherName::Srun);
        assert_eq!(chosen("SLURM_JOB_ID", "", false), LauncherName::Ssh);
        assert_eq!(chosen("FLUX_URI", "flux", false), LauncherName::Flux);
        assert_eq!(chosen("PBS_NODEFILE", "mpiexec", true), LauncherName::Pals);
        assert_eq!(chosen("PBS_NODEFILE", "mpiexec", false), LauncherName::Ssh);
        assert_eq!(chosen("", "srun", true), LauncherName::Ssh);
    }

    #[test]
    fn flux_counts_by_its_brokers() {
        let once = Once {
            entry: table::find(LauncherName::Flux).expect("in the table"),
            list: ["n3", "n1", "n2"].map(str::to_owned).into(),
        };
        assert_eq!(once.places_of(&["n1", "n3"]).expect("known"), [1, 0]);
        let error = once.places_of(&["n9"]).expect_err("not there").to_string();
        assert!(error.contains("n9 is not in this Flux instance"), "{error}");
    }
}
