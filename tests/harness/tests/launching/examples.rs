//! The job scripts that are installed as examples, as they are but for the directory that they name:
//! every rank is served, and nothing is left. That for Slurm is run by `scripts/slurm_trial.sh`.

use crate::fixture::{must_leave_nothing, said, stand_ins, without_copper};
use copper_tests::cluster::Cluster;
use copper_tests::compare::Outcome;
use copper_tests::python;
use std::path::Path;

const APPLICATION: &str = "\
import os, shared, socket
shimmed = 'libcopper.so' in open('/proc/self/maps').read()
os.write(1, f'{socket.gethostname()} {shimmed} {shared.value}\\n'.encode())
";

/// Runs an example on four nodes, where it has so many ranks on each.
fn run(
    name: &str,
    launcher: &str,
    ranks: usize,
    environment: &dyn Fn(&Cluster) -> [(&'static str, String); 2],
) {
    let cluster = Cluster::up(4);
    let place = cluster.place();
    let modules = place.join("modules");
    std::fs::create_dir(&modules).unwrap();
    std::fs::write(modules.join("shared.py"), "value = 42\n").unwrap();
    std::fs::write(place.join("app.py"), APPLICATION).unwrap();
    std::fs::write(place.join("nodes"), cluster.hosts(4).join("\n") + "\n").unwrap();

    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/examples");
    let script = std::fs::read_to_string(source.join(name)).unwrap();
    let lines = script
        .lines()
        .map(|line| match line.strip_prefix("ENVIRONMENT=") {
            Some(_) => format!("ENVIRONMENT={}\n", modules.display()),
            // Without it the nodes would be seen to be namespaces.
            None => format!("{line}\n").replace(
                "copper start",
                &format!("copper start --launcher {launcher}"),
            ),
        });
    let script = place.join(name);
    std::fs::write(&script, lines.collect::<String>()).unwrap();

    let copper = cluster.built("copper");
    cluster.built("libcopper.so");
    let mut command = cluster.command(0, "bash");
    let path = [
        stand_ins(&cluster).display().to_string(),
        copper.parent().unwrap().display().to_string(),
        std::env::var("PATH").unwrap_or_default(),
    ];
    command
        .arg(&script)
        .current_dir(place)
        .env("PATH", path.join(":"))
        .env("HOME", place)
        .envs(environment(&cluster));
    without_copper(&mut command);
    python::settle(&mut command);
    let outcome = Outcome::of(&mut command);
    let text = said(&outcome);
    assert!(outcome.status.success(), "{name}: {text}");
    assert!(text.contains("ready 4/4"), "{name}: {text}");
    for host in cluster.hosts(4) {
        let served = format!("{host} True 42");
        let count = text.lines().filter(|line| *line == served).count();
        assert_eq!(count, ranks, "{name}: '{served}' in {text}");
    }
    must_leave_nothing(&cluster, name);
}

#[test]
fn pbs_with_pals() {
    run("pbs.sh", "pals", 12, &|cluster| {
        let place = cluster.place();
        [
            ("PBS_NODEFILE", place.join("nodes").display().to_string()),
            ("PBS_O_WORKDIR", place.display().to_string()),
        ]
    });
}

#[test]
fn flux() {
    run("flux.sh", "flux", 8, &|cluster| {
        [
            (
                "FLUX_URI",
                format!("stand-in://{}", cluster.hosts(4).join(",")),
            ),
            ("FLUX_JOB_ID", "f17".to_owned()),
        ]
    });
}

#[test]
fn ssh_with_the_mpirun_of_mpich() {
    run("ssh.sh", "ssh", 8, &|cluster| {
        let mpirun = stand_ins(cluster).join("mpirun");
        std::fs::write(&mpirun, "#!/bin/sh\nexec mpirun.mpich \"$@\"\n").unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&mpirun, executable).unwrap();
        [
            ("HYDRA_LAUNCHER", "ssh".to_owned()),
            ("LANG", "C".to_owned()),
        ]
    });
}
