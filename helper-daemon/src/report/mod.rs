//! `copper report`: what a job did, as one HTML file without outside resources.
//!
//! | file | what |
//! |---|---|
//! | `gather` | what it is made of: asked of the helpers, or read from a profile's files |
//! | `page` | the numbers and tables, and the page itself (`templates/report.html`) |
//! | `times` | the job's start and the slowest paths |
//! | `plots`, `tree` | the drawings |
//! | `advice` | what to do, in words |
//! | `uncovered` | the directories that are worth covering |
//! | `words` | numbers as people read them |
#![forbid(unsafe_code)]

mod advice;
mod gather;
mod page;
mod plots;
mod times;
mod tree;
mod uncovered;
mod words;

use crate::cli::Report;
use crate::commands;
use anyhow::{Context, Result};
use askama::Template;
use page::Page;
use std::fs;

/// Writes the report.
pub(crate) fn write(arguments: &Report) -> Result<()> {
    let gathered = match &arguments.profile {
        Some(directory) => gather::read(directory)?,
        None => gather::ask()?,
    };
    let page = Page::of(&gathered)?;
    let html = page.render().context("cannot make the report")?;
    fs::write(&arguments.output, html)
        .with_context(|| format!("cannot write {}", arguments.output.display()))?;
    let mut text = format!("wrote {}\n", arguments.output.display());
    for advice in &page.advice {
        text += &format!("- {advice}\n");
    }
    commands::print(text.as_bytes())
}
