//! Our declarations of libfabric's binary interface agree with real headers.

use std::path::Path;
use std::process::Command;

#[test]
fn declarations_agree_with_the_installed_headers() {
    let directory = std::env::var("COPPER_LIBFABRIC_INCLUDE").unwrap_or("/usr/include".to_owned());
    assert!(
        Path::new(&directory).join("rdma/fabric.h").exists(),
        "this test needs libfabric's headers (Debian: apt install libfabric-dev), or the \
         directory that holds rdma/fabric.h in COPPER_LIBFABRIC_INCLUDE"
    );
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim");
    let output = Command::new("cc")
        .args([
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsyntax-only",
            "-isystem",
            &directory,
        ])
        .arg(shim.join("abi_check.c"))
        .output()
        .expect("a C compiler");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
