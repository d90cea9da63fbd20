//! A real Slurm on namespaces.

use copper_tests::environment;
use std::path::Path;
use std::process::Command;

#[test]
fn srun_starts_helpers_and_ranks_and_a_job_s_end_ends_them() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/slurm_trial.sh");
    // Both must have been built.
    environment::built("libcopper.so");
    let copper = environment::built("copper");
    let output = Command::new(script)
        .arg(copper.parent().unwrap())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
