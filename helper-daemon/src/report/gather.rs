//! What a report is made of: asked of this node's helper and, through it, of all nodes; or read from
//! the files of a profile, when the job has ended.
#![forbid(unsafe_code)]

use crate::commands::{self, survey};
use crate::job::Job;
use crate::journal::SHORT;
use crate::profile::{self, Profile, Shape};
use anyhow::{Context, Result};
use copper_core::tree::Topology;
use serde_json::Value;
use std::collections::HashSet;
use std::path::Path;

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It answered and is ready.
    Ready,
    /// It did not answer, or left no profile.
    Missing,
}

/// A node of the job.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) rank: u32,
    pub(super) host: String,
    pub(super) state: State,
    /// What it said, where it was asked or left files.
    pub(super) profile: Option<Profile>,
}

/// All that a report is made of.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    /// The nodes in the order of their ranks; one where the helper is alone.
    pub(super) nodes: Vec<Node>,
    /// The job's trees, where it has several nodes.
    pub(super) topology: Option<Topology>,
    /// The answer of all nodes, as `copper status --all --json` gives it.
    pub(super) survey: Option<Value>,
    /// Read from files.
    pub(super) from_files: bool,
}

impl Gathered {
    /// What the nodes said, in the order of their ranks.
    pub(super) fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.nodes.iter().filter_map(|node| node.profile.as_ref())
    }

    /// Nodes that did not answer.
    pub(super) fn missing(&self) -> Vec<&str> {
        let missing = self.nodes.iter();
        missing
            .filter(|node| node.state == State::Missing)
            .map(|node| node.host.as_str())
            .collect()
    }
}

/// Asks this node's helper, and all of its job.
pub(super) fn ask() -> Result<Gathered> {
    let runtime = commands::running()?;
    let own = profile::ask(&runtime, SHORT)?.context(commands::NO_HELPER)?;
    let Some(job) = Job::read(&runtime)? else {
        return Ok(alone(own));
    };
    let survey = commands::survey_of_all(&runtime, &job)?;
    let answered = survey::parse(survey.to_string().as_bytes())?;
    let missing: HashSet<u32> = answered.missing.iter().copied().collect();
    let own_rank = own.rank();
    let nodes = (0u32..).zip(&job.hosts).map(|(rank, host)| Node {
        rank,
        host: host.clone(),
        state: match missing.contains(&rank) {
            true => State::Missing,
            false => State::Ready,
        },
        profile: (rank == own_rank).then(|| own.clone()),
    });
    Ok(Gathered {
        nodes: nodes.collect(),
        topology: Some(job.topology()?),
        survey: Some(survey),
        from_files: false,
    })
}

fn alone(own: Profile) -> Gathered {
    Gathered {
        nodes: vec![Node {
            rank: 0,
            host: own.host.clone(),
            state: State::Ready,
            profile: Some(own),
        }],
        topology: None,
        survey: None,
        from_files: false,
    }
}

/// Reads what the nodes of a job left.
pub(super) fn read(directory: &Path) -> Result<Gathered> {
    let profiles = profile::read_all(directory)?;
    let shape = profiles.iter().find_map(|profile| profile.shape.clone());
    let Some(shape) = shape else {
        let last = profiles.into_iter().next_back();
        let mut gathered = alone(last.context("there is no profile")?);
        gathered.from_files = true;
        return Ok(gathered);
    };
    let Shape {
        nodes: count,
        trees,
        fan_out,
    } = shape;
    let topology = Topology::fitted(count, trees, fan_out)?;
    let mut nodes: Vec<Node> = (0..count)
        .map(|rank| Node {
            rank,
            host: format!("rank {rank}"),
            state: State::Missing,
            profile: None,
        })
        .collect();
    for profile in profiles {
        if let Some(node) = nodes.get_mut(profile.rank() as usize) {
            node.host.clone_from(&profile.host);
            node.state = State::Ready;
            node.profile = Some(profile);
        }
    }
    Ok(Gathered {
        nodes,
        topology: Some(topology),
        survey: None,
        from_files: true,
    })
}
