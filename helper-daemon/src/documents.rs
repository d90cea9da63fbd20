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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The long options of a command, as users write them.
    fn options(command: &clap::Command) -> BTreeSet<String> {
        let arguments = command
            .get_arguments()
            .filter(|argument| !argument.is_hide_set());
        let long = arguments.filter_map(clap::Arg::get_long);
        long.map(|name| format!("--{name}")).collect()
    }

    #[test]
    fn every_option_has_its_place_in_page_and_completions() {
        let directory = tempfile::tempdir().expect("temporary directory");
        write(directory.path()).expect("written");
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect("there");
        let completion = read("share/bash-completion/completions/copper.bash");
        let mut cli = Cli::command();
        cli.build();
        for command in cli
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
        {
            let name = command.get_name();
            if name == "help" {
                continue;
            }
            let page = read(&format!("share/man/man1/copper-{name}.1")).replace('\\', "");
            for option in options(command) {
                assert!(
                    page.contains(&option),
                    "copper {name} {option} has no manual"
                );
                assert!(completion.contains(&option), "{option} is not completed");
            }
        }
    }

    #[test]
    fn every_option_of_start_and_run_is_explained_in_the_documents() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let documents = fs::read_dir(root.join("docs"))
            .expect("documents")
            .flatten();
        let mut paths: Vec<_> = documents.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
        paths.push(root.join("README.md"));
        let text: String = paths
            .iter()
            .map(|path| fs::read_to_string(path).expect("text"))
            .collect();
        let cli = Cli::command();
        for name in ["start", "run"] {
            let command = cli.find_subcommand(name).expect("a command");
            for option in options(command) {
                assert!(
                    text.contains(&option),
                    "no document explains copper {name} {option}"
                );
            }
        }
    }
}
