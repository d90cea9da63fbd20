//! Pages in a headless Chromium: what they became, what the console said, whether they fit.

use crate::compare::Outcome;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Longer than any page takes to be loaded on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A page after its scripts have run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The document as HTML.
    pub document: String,
    /// What the console said: errors, and resources that could not be had.
    pub console: Vec<String>,
}

fn chromium(profile: &Path, more: &[OsString]) -> Outcome {
    let mut command = Command::new("chromium");
    command
        .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
        .args([
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-extensions",
        ])
        .args([
            "--disable-background-networking",
            "--allow-file-access-from-files",
        ])
        .args([
            "--enable-logging=stderr",
            "--log-level=0",
            "--virtual-time-budget=4000",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(more)
        .env_remove("LD_PRELOAD");
    Outcome::within(&mut command, LIMIT)
        .unwrap_or_else(|error| panic!("{error:#} (chromium is missing? run scripts/setup.sh)"))
}

fn address(page: &Path) -> OsString {
    let mut address = OsString::from("file://");
    address.push(page);
    address
}

/// Loads a page.
///
/// # Panics
/// When there is no browser, or it fails.
pub fn load(page: &Path) -> Loaded {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let outcome = chromium(profile.path(), &["--dump-dom".into(), address(page)]);
    assert!(outcome.status.success(), "chromium: {outcome:?}");
    let console = String::from_utf8_lossy(&outcome.stderr);
    Loaded {
        document: String::from_utf8_lossy(&outcome.stdout).into_owned(),
        console: console
            .lines()
            .filter(|line| line.contains("CONSOLE"))
            .map(str::to_owned)
            .collect(),
    }
}

/// How wide the page's contents are, in pixels, in a window of this width.
///
/// # Panics
/// When there is no browser, or it fails.
pub fn content_width(page: &Path, width: u32) -> u32 {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let wrapper = profile.path().join("wrapper.html");
    let frame = format!(
        "<!DOCTYPE html><p id=said></p><iframe id=page width={width} height=800 style='border:0' \
         src='{}'></iframe><script>page.onload = () => {{ said.textContent = 'fits in ' + \
         page.contentDocument.documentElement.scrollWidth + ';' }}</script>",
        address(page).to_string_lossy()
    );
    std::fs::write(&wrapper, frame).expect("the directory is ours");
    let loaded = load(&wrapper);
    let said = loaded.document.split_once(">fits in ");
    let said = said.and_then(|(_, rest)| rest.split_once(';')?.0.parse().ok());
    said.unwrap_or_else(|| panic!("the page was not loaded in a frame: {loaded:?}"))
}
