//! Manual pages and shell completions, made from the command line's own definition.
#![forbid(unsafe_code)]

use crate::cli::Cli;
use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

/// Where each shell looks for completions below a prefix.
const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "share/bash-completion/completions"),
    (Shell::Zsh, "share/zsh/site-functions"),
    (Shell::Fish, "share/fish/vendor_completions.d"),
];

/// Writes them below `directory`, where an installation's prefix has them.
pub(crate) fn write(directory: &Path) -> Result<()> {
    let pages = directory.join("share/man/man1");
    fs::create_dir_all(&pages).with_context(|| format!("cannot make {}", pages.display()))?;
    clap_mangen::generate_to(Cli::command(), &pages).context("cannot write the manual pages")?;
    for (shell, place) in COMPLETIONS {
        let place = directory.join(place);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        clap_complete::generate_to(shell, &mut Cli::command(), "copper", &place)
            .with_context(|| format!("cannot write to {}", place.display()))?;
    }
    Ok(())
}
