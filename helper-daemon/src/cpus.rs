//! Lists of processors, as `48-51,60`, and binding a process to one.
#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Numbers of processors, in ascending order, each once.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct CpuList(Vec<usize>);

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<CpuList, String> {
        let mut cpus = Vec::new();
        for range in text.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let number = |digits: &str| {
                let number = digits.trim().parse::<usize>().ok();
                let number = number.filter(|&number| number < CpuSet::MAX_CPU);
                number.ok_or_else(|| format!("'{range}' is no processor, nor a range of them"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("the range '{range}' is empty"));
            }
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        cpus.dedup();
        Ok(CpuList(cpus))
    }
}

impl TryFrom<String> for CpuList {
    type Error = String;

    fn try_from(text: String) -> Result<CpuList, String> {
        text.parse()
    }
}

impl From<CpuList> for String {
    fn from(cpus: CpuList) -> String {
        cpus.to_string()
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        let consecutive = |first: &usize, second: &usize| first + 1 == *second;
        for run in self.0.chunk_by(consecutive) {
            match run {
                [] => {}
                [only] => write!(f, "{separator}{only}")?,
                [first, .., last] => write!(f, "{separator}{first}-{last}")?,
            }
            separator = ",";
        }
        Ok(())
    }
}

/// Binds this process to `wanted`, or to all processors there are: it may have been started by a
/// process of many that is bound to one. Threads that are made later are bound alike.
pub(crate) fn bind(wanted: Option<&CpuList>) -> Result<()> {
    let mut everywhere = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| everywhere.set(cpu));
    let _ = sched_setaffinity(None, &everywhere);
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let allowed = sched_getaffinity(None)?;
    let allowed = CpuList(
        (0..CpuSet::MAX_CPU)
            .filter(|&cpu| allowed.is_set(cpu))
            .collect(),
    );
    let (there, missing): (Vec<usize>, Vec<usize>) =
        wanted.0.iter().partition(|cpu| allowed.0.contains(cpu));
    ensure!(
        missing.is_empty(),
        "--cpus: processor {} cannot be used here; there are {allowed}",
        CpuList(missing)
    );
    let mut bound = CpuSet::new();
    there.into_iter().for_each(|cpu| bound.set(cpu));
    Ok(sched_setaffinity(None, &bound)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        let list = |text: &str| text.parse::<CpuList>().map(|cpus| cpus.to_string());
        assert_eq!(list("48-51"), Ok("48-51".to_owned()));
        assert_eq!(list("7,3,4,5,3"), Ok("3-5,7".to_owned()));
        for bad in ["", "a", "3-1", "1-", "-1", "99999"] {
            assert!(list(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn processors_that_do_not_exist_are_named() {
        let last = CpuSet::MAX_CPU - 1;
        let wanted = format!("0,{last}").parse().expect("a list");
        // On a thread of its own, which is bound alone.
        let bound = std::thread::spawn(move || bind(Some(&wanted)))
            .join()
            .expect("no panic");
        let error = bound.expect_err("no such processor").to_string();
        assert!(
            error.contains(&format!("processor {last} cannot be used here")),
            "{error}"
        );
    }
}
