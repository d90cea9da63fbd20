//! `copper top` in a terminal (tmux), on a job of four nodes.

use copper_tests::cluster::{Cluster, Job, Wishes};
use copper_tests::compare::Outcome;
use copper_tests::session::wait_until;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Longer than a busy machine takes to draw.
const LIMIT: Duration = Duration::from_secs(30);

/// A terminal of its own, which goes when this is dropped.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Runs `command` in a terminal of 110 columns and 34 rows.
    fn run(command: &Command) -> Terminal {
        let terminal = Terminal {
            socket: format!("copper-test-{}", std::process::id()),
        };
        let mut tmux = terminal.tmux(&["new-session", "-d", "-x", "110", "-y", "34", "--"]);
        tmux.arg(command.get_program()).args(command.get_args());
        let outcome = Outcome::of(&mut tmux);
        assert!(
            outcome.status.success(),
            "{outcome:?} (tmux is missing? run scripts/setup.sh)"
        );
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.args(["-f", "/dev/null", "-L", &self.socket])
            .args(arguments)
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color");
        tmux
    }

    fn screen(&self) -> String {
        let outcome = Outcome::of(&mut self.tmux(&["capture-pane", "-p"]));
        String::from_utf8_lossy(&outcome.stdout).into_owned()
    }

    fn must_show(&self, wanted: &str) -> String {
        let shown = wait_until(LIMIT, || self.screen().contains(wanted));
        let screen = self.screen();
        assert!(shown, "no '{wanted}' in\n{screen}");
        screen
    }

    fn press(&self, key: &str) {
        Outcome::of(&mut self.tmux(&["send-keys", key]));
    }

    fn has_ended(&self) -> bool {
        let sessions = Outcome::of(&mut self.tmux(&["list-sessions"]));
        !sessions.status.success()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]).output();
    }
}

#[test]
fn what_four_nodes_do_is_seen_live() {
    let cluster = Cluster::up(4);
    let source = cluster.place().join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..20 {
        fs::write(source.join(format!("file-{number}")), vec![1; 10_000]).unwrap();
    }
    let origin = cluster.origin("origin", &source);
    let job = Job::start(&cluster, &[origin.mount()], Wishes::default());
    let mut top = job.copper(1);
    top.args(["top", "--all"]);
    let terminal = Terminal::run(&top);
    terminal.must_show("copper on 4 nodes");
    let idle = terminal.must_show("all ready");
    assert!(idle.contains(" 0 opens"), "{idle}");

    for node in 0..4 {
        let mut sums = job.checksums(node, true, origin.mount());
        assert!(Outcome::of(&mut sums).status.success());
    }
    // One of the four reads the files for all.
    terminal.must_show(" 20 opens");
    terminal.must_show("80 files");

    job.kill(3);
    terminal.must_show(&format!("3 of 4 ready; missing: {}", cluster.host(3)));
    terminal.press("p");
    terminal.must_show("paused");
    terminal.press("q");
    assert!(
        wait_until(LIMIT, || terminal.has_ended()),
        "{}",
        terminal.screen()
    );
}

#[test]
fn without_a_terminal_it_says_what_else_there_is() {
    let cluster = Cluster::up(2);
    let job = Job::start(&cluster, &[], Wishes::default());
    let outcome = Outcome::of(job.copper(0).arg("top"));
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(
        !outcome.status.success() && said.contains("copper status --json"),
        "{said}"
    );
}
