//! Launchers that start a task on each of many nodes with one command: a table of their command
//! lines, and of what must be known to use them.
//!
//! The nodes' tasks are told apart by where they run, not by what they are told: each finds itself
//! in the job's list of hosts (see `join`).
#![forbid(unsafe_code)]

use crate::cli::LauncherName;

/// Replaced by the nodes' names between commas, in brackets where that is shorter.
const HOSTS: &str = "{hosts}";
/// Replaced by the number of nodes.
const COUNT: &str = "{count}";
/// Replaced by the name of a file with a node's name in each line.
const HOSTFILE: &str = "{hostfile}";
/// Replaced by the nodes' places in the launcher's own list, in Flux the brokers' ranks.
const PLACES: &str = "{places}";

/// How a launcher gives all tasks the job's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Every task gets a copy of the launcher's standard input.
    Broadcast,
    /// It gives standard input to one task or none, so a file that all nodes see takes its place.
    File,
}

/// One launcher.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: LauncherName,
    /// Its command line, before the words of the command it is to run.
    words: &'static [&'static str],
    pub(super) input: Input,
    /// Whether what a task leaves behind is killed when the task ends, so that it must stay.
    pub(super) stays: bool,
    /// Whether a task learns its place from one of these variables, where neither its host's name
    /// nor the batch system's name for the node is in the list.
    pub(super) place_variables: &'static [&'static str],
}

/// All of them.
static TABLE: [Entry; 6] = [
    Entry {
        name: LauncherName::Srun,
        // Beside the ranks' job steps; the end of one task is not the end of the others.
        words: &[
            "srun",
            "--overlap",
            "--nodes={count}",
            "--ntasks={count}",
            "--ntasks-per-node=1",
            "--nodelist={hosts}",
            "--input=all",
            "--export=ALL",
            "--cpu-bind=none",
            "--kill-on-bad-exit=0",
            "--wait=0",
            "--job-name=copper",
        ],
        input: Input::Broadcast,
        stays: true,
        // Slurm sorts the list of nodes, so a task's number does not tell.
        place_variables: &[],
    },
    Entry {
        name: LauncherName::Pals,
        words: &[
            "mpiexec",
            "--hostfile",
            "{hostfile}",
            "-n",
            "{count}",
            "--ppn",
            "1",
            "--cpu-bind",
            "none",
        ],
        input: Input::File,
        stays: true,
        place_variables: &["PALS_RANKID", "PMI_RANK"],
    },
    Entry {
        name: LauncherName::Mpiexec,
        words: &[
            "mpiexec",
            "-f",
            "{hostfile}",
            "-n",
            "{count}",
            "-ppn",
            "1",
            "-bind-to",
            "none",
            "-disable-auto-cleanup",
        ],
        input: Input::File,
        stays: true,
        place_variables: &["PMI_RANK"],
    },
    Entry {
        name: LauncherName::Flux,
        // The brokers run it, so that it takes none of the ranks' resources.
        words: &["flux", "exec", "--rank={places}"],
        input: Input::Broadcast,
        stays: false,
        place_variables: &[],
    },
    Entry {
        name: LauncherName::Clush,
        words: &["clush", "-S", "-w", "{hosts}"],
        input: Input::Broadcast,
        stays: false,
        place_variables: &[],
    },
    Entry {
        name: LauncherName::Pdsh,
        words: &["pdsh", "-S", "-R", "ssh", "-w", "{hosts}"],
        input: Input::File,
        stays: false,
        place_variables: &[],
    },
];

/// The launcher of this name, where it is one that starts all tasks at once.
pub(super) fn find(name: LauncherName) -> Option<&'static Entry> {
    TABLE.iter().find(|entry| entry.name == name)
}

/// Whether some launcher's task may learn its place from one of these variables.
pub(super) fn place_variables() -> impl Iterator<Item = &'static str> {
    TABLE
        .iter()
        .flat_map(|entry| entry.place_variables)
        .copied()
}

/// What the placeholders of a command line stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nodes<'a> {
    pub(super) hosts: &'a [&'a str],
    pub(super) hostfile: &'a str,
    /// See [`PLACES`]; empty where the launcher has no such list.
    pub(super) places: &'a [u32],
}

impl Entry {
    /// The program.
    pub(super) fn program(&self) -> &'static str {
        self.words[0]
    }

    /// Whether it reads the nodes' names from a file.
    pub(super) fn wants_hostfile(&self) -> bool {
        self.words.contains(&HOSTFILE)
    }

    /// The words that run `command` on the nodes.
    pub(super) fn words(&self, nodes: Nodes<'_>, command: &[String]) -> Vec<String> {
        let fill = |word: &&str| -> String {
            let count = nodes.hosts.len().to_string();
            let word = word
                .replace(COUNT, &count)
                .replace(HOSTFILE, nodes.hostfile);
            match () {
                () if word.contains(HOSTS) => word.replace(HOSTS, &fold(nodes.hosts)),
                () if word.contains(PLACES) => word.replace(PLACES, &fold_numbers(nodes.places)),
                () => word,
            }
        };
        let own = self.words.iter().map(fill);
        own.chain(command.iter().cloned()).collect()
    }
}

/// Names between commas; neighbours that differ in the number at their end alone share brackets, as
/// Slurm, clush and pdsh write and read them: a single word may be 128 KiB long.
fn fold(hosts: &[&str]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut rest = hosts;
    while let Some(&first) = rest.first() {
        let run = run_length(rest);
        parts.push(match run {
            1 => first.to_owned(),
            run => {
                let (name, from) = split_number(first);
                let (_, to) = split_number(rest[run - 1]);
                format!("{name}[{from}-{to}]")
            }
        });
        rest = &rest[run..];
    }
    parts.join(",")
}

/// A name without and with the digits at its end.
fn split_number(name: &str) -> (&str, &str) {
    name.split_at(
        name.trim_end_matches(|last: char| last.is_ascii_digit())
            .len(),
    )
}

/// How many of the first names count up from the very first.
fn run_length(hosts: &[&str]) -> usize {
    let (name, digits) = split_number(hosts[0]);
    let Ok(first) = digits.parse::<u64>() else {
        return 1;
    };
    // Of equal length, so that it does not matter whether a reader keeps leading zeros.
    let counts_up = |(place, host): &(usize, &&str)| {
        let (other, number) = split_number(host);
        other == name && number.len() == digits.len() && number.parse() == Ok(first + *place as u64)
    };
    hosts
        .iter()
        .enumerate()
        .take_while(counts_up)
        .count()
        .max(1)
}

/// Numbers between commas, runs as `1-3`.
fn fold_numbers(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|first, second| first + 1 == *second);
    let text = |run: &[u32]| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(u32::to_string).collect(),
    };
    runs.map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: LauncherName) -> String {
        let nodes = Nodes {
            hosts: &["node02", "node03", "node07", "login"],
            hostfile: "/tmp/hosts",
            places: &[1, 2, 6, 9],
        };
        let command = ["/opt/copper", "join"].map(str::to_owned);
        find(name)
            .expect("in the table")
            .words(nodes, &command)
            .join(" ")
    }

    #[test]
    fn command_lines() {
        assert_eq!(
            line(LauncherName::Srun),
            "srun --overlap --nodes=4 --ntasks=4 --ntasks-per-node=1 \
             --nodelist=node[02-03],node07,login --input=all --export=ALL --cpu-bind=none \
             --kill-on-bad-exit=0 --wait=0 --job-name=copper /opt/copper join"
        );
        assert_eq!(
            line(LauncherName::Pals),
            "mpiexec --hostfile /tmp/hosts -n 4 --ppn 1 --cpu-bind none /opt/copper join"
        );
        assert_eq!(
            line(LauncherName::Mpiexec),
            "mpiexec -f /tmp/hosts -n 4 -ppn 1 -bind-to none -disable-auto-cleanup \
             /opt/copper join"
        );
        assert_eq!(
            line(LauncherName::Flux),
            "flux exec --rank=1-2,6,9 /opt/copper join"
        );
        assert_eq!(
            line(LauncherName::Clush),
            "clush -S -w node[02-03],node07,login /opt/copper join"
        );
        assert_eq!(
            line(LauncherName::Pdsh),
            "pdsh -S -R ssh -w node[02-03],node07,login /opt/copper join"
        );
    }

    #[test]
    fn long_lists_of_names_stay_short() {
        let names: Vec<String> = (1..=10_000)
            .map(|number| format!("nid{number:06}"))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(fold(&names), "nid[000001-010000]");
        assert_eq!(fold(&["n9", "n10", "n11"]), "n9,n[10-11]");
        assert_eq!(
            fold(&["a", "b1", "b3", "c1.site", "c2.site"]),
            "a,b1,b3,c1.site,c2.site"
        );
        assert_eq!(fold(&[]), "");
    }
}
