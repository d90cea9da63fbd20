//! What `copper start` tells a node's `copper join` on its standard input, and never on a command
//! line or in an environment: the job with its key, and how its helper is to be.
#![forbid(unsafe_code)]

use crate::cli::{LogType, Service};
use crate::job::Job;
use crate::launch::Launch;
use crate::runtime::{Runtime, default_directory, variable};
use anyhow::{Context, Result};
use copper_core::location::{DISABLE_VARIABLE, JOB_VARIABLES, PATHS_VARIABLE, RUNTIME_VARIABLE};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest invitation that is read, in bytes: the names of 200,000 hosts fit.
const LONGEST: u64 = 64 << 20;

/// Variables beside Copper's own that a node's helper needs and that ssh does not bring along:
/// where libraries are found, and how libfabric and Slingshot are set up.
const CARRIED: [&str; 1] = ["LD_LIBRARY_PATH"];
const CARRIED_PREFIXES: [&str; 2] = ["FI_", "SLINGSHOT_"];

/// Everything that a node must know to start its helper.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Invitation {
    /// The job.
    pub(super) job: Job,
    /// How the helper is to be.
    pub(super) service: Service,
    /// Variables of the starter's, for nodes where they are not set.
    pub(super) environment: BTreeMap<String, String>,
    /// The helper's log.
    pub(super) log: Option<PathBuf>,
    /// How much it logs.
    pub(super) log_level: String,
    /// Where the helper of the starter's node logs.
    #[serde(default)]
    pub(super) log_type: LogType,
    /// How long it may take to serve, in seconds.
    pub(super) patience_seconds: u32,
    /// The ranks of the nodes in the order in which a launcher starts them all; none where each is
    /// told its rank.
    #[serde(default)]
    pub(super) order: Vec<u32>,
}

impl Invitation {
    /// An invitation to the job; relative paths are made absolute, since the other nodes' commands
    /// start in other directories.
    pub(super) fn new(job: Job, launch: &Launch<'_>, patience_seconds: u32) -> Result<Invitation> {
        let absolute = |path: &Path| -> Result<PathBuf> {
            std::path::absolute(path).with_context(|| format!("cannot use {}", path.display()))
        };
        let mut service = launch.service.clone();
        for prefix in &mut service.cover {
            *prefix = absolute(prefix)?;
        }
        service.profile = service
            .profile
            .settled()
            .context("cannot tell where the profile goes")?;
        for place in [&mut service.store, &mut service.view]
            .into_iter()
            .flatten()
        {
            *place = absolute(place)?;
        }
        Ok(Invitation {
            job,
            service,
            environment: carried_environment(),
            log: launch.log.map(absolute).transpose()?,
            log_level: launch.log_level.to_owned(),
            log_type: launch.log_type,
            patience_seconds,
            order: Vec::new(),
        })
    }

    /// The same for a launcher that starts these nodes, in this order.
    pub(super) fn in_order(&self, ranks: &[u32]) -> Invitation {
        Invitation {
            order: ranks.to_vec(),
            ..self.clone()
        }
    }

    /// The same for another node than the starter's, whose standard output is for the starter: a
    /// helper that held it open would keep the launcher from ending.
    pub(super) fn without_output(self) -> Invitation {
        let log_level = match self.log_type {
            LogType::Stdout => "off".to_owned(),
            LogType::File | LogType::Both => self.log_level,
        };
        Invitation {
            log_level,
            log_type: LogType::File,
            ..self
        }
    }

    /// The invitation as text.
    pub(super) fn to_text(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).context("a path is not UTF-8 text; name it by a link that is")
    }

    /// Reads an invitation to the end of `input`.
    pub(super) fn read(input: impl Read) -> Result<Invitation> {
        let mut text = Vec::new();
        input
            .take(LONGEST)
            .read_to_end(&mut text)
            .context("cannot read the job from standard input")?;
        let invitation: Invitation = serde_json::from_slice(&text).context(
            "standard input does not describe a job: this command is for copper start, whose \
             launcher must pass its input on, and all nodes must have the same copper",
        )?;
        invitation.job.check()?;
        Ok(invitation)
    }

    /// The variables that this node does not have.
    pub(super) fn missing_environment(&self) -> BTreeMap<String, String> {
        let missing = self.environment.iter();
        missing
            .filter(|(name, _)| variable(name).is_none())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The helper's runtime directory on this node.
    pub(super) fn runtime_directory(&self) -> PathBuf {
        match self.environment.get(RUNTIME_VARIABLE) {
            Some(named) if variable(RUNTIME_VARIABLE).is_none() => PathBuf::from(named),
            _ => default_directory(),
        }
    }

    /// How long the helper may take to serve.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience_seconds.into())
    }

    /// Whether the helper in `runtime` is one of this very job.
    pub(super) fn is_of(&self, runtime: &Runtime) -> Result<bool> {
        let found = Job::read(runtime)?;
        Ok(found.is_some_and(|found| found.key == self.job.key))
    }
}

fn carried_environment() -> BTreeMap<String, String> {
    let is_carried = |name: &str| {
        let own =
            name.starts_with("COPPER_") && ![DISABLE_VARIABLE, PATHS_VARIABLE].contains(&name);
        own || JOB_VARIABLES.contains(&name)
            || CARRIED.contains(&name)
            || CARRIED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let mut environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(text)
        .filter(|(name, value)| is_carried(name) && !value.is_empty())
        .collect();
    if let Some(directory) = default_directory().to_str() {
        environment.insert(RUNTIME_VARIABLE.to_owned(), directory.to_owned());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JOB_VERSION, Transfer};

    fn invitation() -> Invitation {
        let service = Service {
            cover: vec![PathBuf::from("relative"), PathBuf::from("/with a blank")],
            ..Service::default()
        };
        let job = Job {
            version: JOB_VERSION,
            key: "0".repeat(64),
            hosts: vec!["node1".to_owned()],
            port: 17_000,
            trees: 1,
            fan_out: 8,
            provider: None,
            interfaces: Vec::new(),
            transfer: Transfer::Rma,
        };
        let launch = Launch {
            service: &service,
            log: None,
            log_level: "warn",
            log_type: LogType::File,
            while_attached: false,
            membership: None,
            watched: None,
        };
        Invitation::new(job, &launch, 60).expect("an invitation")
    }

    #[test]
    fn an_invitation_survives_the_way_with_absolute_paths() {
        let text = invitation().to_text().expect("text");
        let read = Invitation::read(&text[..]).expect("an invitation");
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(
            read.service.cover,
            [here.join("relative"), PathBuf::from("/with a blank")]
        );
        assert_eq!(read.job.hosts, ["node1"]);
        assert!(read.environment.contains_key(RUNTIME_VARIABLE));
        assert!(!read.environment.contains_key("PATH"));
    }

    #[test]
    fn other_input_is_refused() {
        for input in ["", "{}", "hello\n"] {
            let error = Invitation::read(input.as_bytes()).err().expect("refused");
            assert!(error.to_string().contains("copper start"), "{error}");
        }
    }
}
