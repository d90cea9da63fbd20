//! Compiles the C shim. It needs a C compiler and no libfabric header: see `shim/abi.h`.

fn main() {
    println!("cargo:rerun-if-changed=shim");
    cc::Build::new()
        .file("shim/shim.c")
        .std("c11")
        .warnings(true)
        .extra_warnings(true)
        .compile("copper_libfabric_shim");
    println!("cargo:rustc-link-lib=dl");
}
