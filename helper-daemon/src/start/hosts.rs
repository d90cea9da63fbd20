//! The list of a job's hosts: from an option, from a file, or from a batch system's environment.
//!
//! A host's place in the list is its rank.
#![forbid(unsafe_code)]

use crate::cli::Cluster;
use crate::runtime::variable;
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// More hosts than this are a mistake.
const MOST_HOSTS: usize = 200_000;
/// Longest name of a host, in bytes (DNS allows no longer one).
const LONGEST_NAME: usize = 253;

/// How a batch system tells which hosts a job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The variable names a file, see [`parse_file`].
    File,
    /// The variable is a list, see [`parse_list`].
    List,
    /// The variable says that there is a Flux instance, which is asked.
    Flux,
}

/// A variable that a batch system sets in its jobs, or with which an MPI is told.
#[derive(Debug)]
struct Source {
    variable: &'static str,
    form: Form,
}

/// In the order in which they are believed.
const SOURCES: [Source; 10] = [
    Source::new("PBS_NODEFILE", Form::File),
    Source::new("SLURM_JOB_NODELIST", Form::List),
    Source::new("SLURM_NODELIST", Form::List),
    Source::new("FLUX_URI", Form::Flux),
    Source::new("LSB_DJOB_HOSTFILE", Form::File),
    Source::new("COBALT_NODEFILE", Form::File),
    Source::new("PE_HOSTFILE", Form::File),
    Source::new("HYDRA_HOST_FILE", Form::File),
    Source::new("OMPI_MCA_orte_default_hostfile", Form::File),
    Source::new("PRTE_MCA_prte_default_hostfile", Form::File),
];

impl Source {
    const fn new(variable: &'static str, form: Form) -> Source {
        Source { variable, form }
    }

    fn hosts(&self, value: &str) -> Result<Vec<String>> {
        let hosts = match self.form {
            Form::File => read_file(Path::new(value)),
            Form::List => parse_list(value),
            Form::Flux => of_flux(),
        };
        hosts.with_context(|| format!("{} does not help", self.variable))
    }
}

/// The hosts that the options name; `None` where they name none, and one helper is wanted.
pub(crate) fn listed(cluster: &Cluster) -> Result<Option<Vec<String>>> {
    let hosts = if let Some(list) = &cluster.hosts {
        parse_list(list).context("--hosts")?
    } else if let Some(file) = &cluster.hostfile {
        read_file(file).context("--hostfile")?
    } else if cluster.allocation {
        from_environment(&|name| variable(name)?.into_string().ok())?
    } else {
        return Ok(None);
    };
    Ok(Some(hosts))
}

/// The hosts of the batch job whose variables `lookup` knows.
fn from_environment(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>> {
    let found = SOURCES
        .iter()
        .find_map(|source| Some((source, lookup(source.variable)?)));
    let Some((source, value)) = found else {
        let names: Vec<_> = SOURCES.iter().map(|source| source.variable).collect();
        bail!(
            "no batch system says which nodes this job has (none of {} is set); name them with \
             --hosts or --hostfile",
            names.join(", ")
        );
    };
    source.hosts(&value)
}

/// The hosts of this Flux instance, in the order of its brokers' ranks.
pub(super) fn of_flux() -> Result<Vec<String>> {
    let mut first_error = None;
    for arguments in FLUX_QUESTIONS {
        match ask("flux", arguments).and_then(|list| parse_list(&list)) {
            Ok(hosts) => return Ok(hosts),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    match first_error {
        Some(error) => Err(error),
        None => bail!("nothing was asked"),
    }
}

/// Newer and older versions of Flux answer the first or only the second.
const FLUX_QUESTIONS: [&[&str]; 2] = [
    &["getattr", "hostlist"],
    &["resource", "list", "-s", "all", "-n", "-o", "{nodelist}"],
];

/// What a command prints.
fn ask(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read_file(path: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_file(&text).with_context(|| PathBuf::from(path).display().to_string())
}

/// The hosts of a file in the manner of MPI's: one per line, its first word, `:SLOTS` left out.
/// A host that is named again (once per slot, as PBS does) is one host. `#` starts a comment.
fn parse_file(text: &str) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let mut hosts = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(word) = line.split_whitespace().next() else {
            continue;
        };
        let host = without_slots(word);
        check_name(host)?;
        if seen.insert(host) {
            hosts.push(host.to_owned());
        }
    }
    check_number(&hosts)?;
    Ok(hosts)
}

/// `node1:4` is four slots on node1; more than one colon makes an address.
fn without_slots(word: &str) -> &str {
    match word.split_once(':') {
        Some((host, slots)) if slots.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => word,
    }
}

/// The hosts of a list: names between commas or blanks, each with any number of parts in brackets
/// (`node[01-04,7]`, `rack[1-2]n[1-8]`), as Slurm writes them.
fn parse_list(text: &str) -> Result<Vec<String>> {
    let mut hosts = Vec::new();
    for item in split_outside_brackets(text)? {
        expand(item, &mut hosts)?;
    }
    check_number(&hosts)?;
    let mut seen = HashSet::new();
    for host in &hosts {
        check_name(host)?;
        ensure!(seen.insert(host), "host {host} is listed twice");
    }
    Ok(hosts)
}

fn split_outside_brackets(text: &str) -> Result<Vec<&str>> {
    let mut items = Vec::new();
    let mut inside = false;
    let mut start = 0;
    for (at, character) in text.char_indices() {
        match character {
            '[' | ']' if inside != (character == ']') => {
                bail!("the brackets of '{}' do not match", shorten(text));
            }
            '[' | ']' => inside = !inside,
            ',' | ' ' | '\t' | '\n' if !inside => {
                items.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    ensure!(!inside, "the brackets of '{}' do not match", shorten(text));
    items.push(&text[start..]);
    items.retain(|item| !item.is_empty());
    Ok(items)
}

/// Appends all names that `item` stands for.
fn expand(item: &str, hosts: &mut Vec<String>) -> Result<()> {
    let mut names = vec![String::new()];
    let mut rest = item;
    while let Some((before, after)) = rest.split_once('[') {
        let Some((ranges, behind)) = after.split_once(']') else {
            bail!("the brackets of '{}' do not match", shorten(item));
        };
        let numbers = numbers(ranges).with_context(|| format!("'{}'", shorten(item)))?;
        ensure_few(names.len().saturating_mul(numbers.len()))?;
        names = names
            .iter()
            .flat_map(|name| {
                let longer = numbers.iter();
                longer.map(move |number| format!("{name}{before}{number}"))
            })
            .collect();
        rest = behind;
    }
    ensure_few(hosts.len() + names.len())?;
    hosts.extend(names.into_iter().map(|name| name + rest));
    Ok(())
}

/// The numbers of `1-3,07,9`, as text: those of a range are as long as its first one.
fn numbers(ranges: &str) -> Result<Vec<String>> {
    let mut numbers = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let parse = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
            let number = text.parse::<u32>().ok().filter(|_| digits);
            number.with_context(|| format!("'{}' is not a range of numbers", shorten(range)))
        };
        let (from, to) = (parse(first)?, parse(last)?);
        ensure!(from <= to, "the range '{range}' is empty");
        ensure_few(numbers.len() + (to - from) as usize + 1)?;
        let width = first.len();
        numbers.extend((from..=to).map(|number| format!("{number:0width$}")));
    }
    Ok(numbers)
}

fn ensure_few(hosts: usize) -> Result<()> {
    ensure!(
        hosts <= MOST_HOSTS,
        "more than {MOST_HOSTS} hosts are listed"
    );
    Ok(())
}

fn check_number(hosts: &[String]) -> Result<()> {
    ensure!(!hosts.is_empty(), "no host is listed");
    ensure_few(hosts.len())
}

/// A name must not be taken for an option, a path, or a text that a shell would not leave as it is.
fn check_name(name: &str) -> Result<()> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let first = name.bytes().next();
    let sound = first.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b':')
        && name.len() <= LONGEST_NAME
        && name.bytes().all(plain);
    ensure!(
        sound,
        "'{}' is not a host name (letters, digits and - . _ : only, no user names)",
        shorten(name).escape_debug()
    );
    Ok(())
}

/// Enough of a text for an error message.
fn shorten(text: &str) -> &str {
    const ENOUGH: usize = 80;
    let end = text.char_indices().nth(ENOUGH).map(|(at, _)| at);
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn list(text: &str) -> Vec<String> {
        parse_list(text).expect("a list")
    }

    fn error(text: &str) -> String {
        format!("{:#}", parse_list(text).expect_err("no list"))
    }

    #[test]
    fn lists_are_expanded_as_slurm_writes_them() {
        assert_eq!(list("a,b c"), ["a", "b", "c"]);
        assert_eq!(list("a,"), ["a"]);
        assert_eq!(
            list("nid[008-010,12],login1"),
            ["nid008", "nid009", "nid010", "nid12", "login1"]
        );
        assert_eq!(
            list("r[1-2]n[1,3].site"),
            ["r1n1.site", "r1n3.site", "r2n1.site", "r2n3.site"]
        );
        assert_eq!(list("10.77.0.1,fe80::1"), ["10.77.0.1", "fe80::1"]);
        assert_eq!(list("n[99-101]"), ["n99", "n100", "n101"]);
    }

    #[test]
    fn bad_lists_are_explained() {
        assert!(error("").contains("no host is listed"));
        assert!(error(" , ").contains("no host is listed"));
        assert!(error("a,b,a").contains("host a is listed twice"));
        assert!(error("n[1-2],n2").contains("host n2 is listed twice"));
        assert!(error("n[1-2").contains("do not match"));
        assert!(error("n1-2]").contains("do not match"));
        assert!(error("n[[1]]").contains("do not match"));
        assert!(error("n[3-1]").contains("empty"));
        assert!(error("n[a-b]").contains("not a range"));
        assert!(error("n[+1]").contains("not a range"));
        assert!(error("n[]").contains("not a range"));
        for name in ["-oProxyCommand=x", "a;b", "a/b", "..", "user@node1", "ü"] {
            assert!(error(name).contains("not a host name"), "{name}");
        }
        assert!(error(&"x".repeat(300)).contains("not a host name"));
    }

    #[test]
    fn long_lists_take_no_time() {
        let start = Instant::now();
        assert_eq!(list("node[1-10000]").len(), 10_000);
        let names: Vec<String> = (0..10_000).map(|number| format!("n{number}")).collect();
        assert_eq!(list(&names.join(",")), names);
        for endless in ["n[1-4000000000]", "a[0-9999]b[0-9999]c[0-9999]"] {
            assert!(error(endless).contains("more than"));
        }
        assert!(start.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn files_may_name_slots() {
        let text = "# by hand\nnode1 slots=4\nnode2:8\n\nnode2:8\n  fe80::1 # ib\n";
        assert_eq!(
            parse_file(text).expect("a list"),
            ["node1", "node2", "fe80::1"]
        );
        let none = parse_file("# none\n").expect_err("no list");
        assert!(none.to_string().contains("no host is listed"));
    }

    #[test]
    fn batch_systems_are_understood() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let nodefile = directory.path().join("nodes");
        fs::write(&nodefile, "x1.site\nx1.site\nx2.site\nx2.site\n").expect("written");
        let nodefile = nodefile.to_str().expect("plain").to_owned();
        let environment = |variable: &'static str, value: String| {
            from_environment(&move |name| (name == variable).then(|| value.clone()))
        };
        for variable in [
            "PBS_NODEFILE",
            "LSB_DJOB_HOSTFILE",
            "COBALT_NODEFILE",
            "PE_HOSTFILE",
            "HYDRA_HOST_FILE",
            "OMPI_MCA_orte_default_hostfile",
            "PRTE_MCA_prte_default_hostfile",
        ] {
            let hosts = environment(variable, nodefile.clone()).expect("hosts");
            assert_eq!(hosts, ["x1.site", "x2.site"], "{variable}");
        }
        for variable in ["SLURM_JOB_NODELIST", "SLURM_NODELIST"] {
            let hosts = environment(variable, "frontier[00001-00003],login2".to_owned());
            assert_eq!(
                hosts.expect("hosts"),
                ["frontier00001", "frontier00002", "frontier00003", "login2"],
                "{variable}"
            );
        }
        // A batch system is believed before an MPI's defaults.
        let both = from_environment(&|name| match name {
            "SLURM_JOB_NODELIST" => Some("n1".to_owned()),
            "HYDRA_HOST_FILE" => Some(nodefile.clone()),
            _ => None,
        });
        assert_eq!(both.expect("hosts"), ["n1"]);
        let gone = environment("PBS_NODEFILE", "/nowhere".to_owned()).expect_err("no file");
        assert!(format!("{gone:#}").contains("PBS_NODEFILE does not help: cannot read /nowhere"));
        let none = from_environment(&|_| None).expect_err("no batch system");
        assert!(none.to_string().contains("--hosts or --hostfile"));
    }
}
