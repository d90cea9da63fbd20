//! How the library is linked.

fn main() {
    for argument in [
        // What it calls of its own it calls directly. Otherwise the loader would look up each hook by
        // name whenever a program starts, and other preload libraries' functions would come between.
        "-Wl,-Bsymbolic",
        // The compiler's start-up code has nothing to do here, and takes pages of its own.
        "-nostartfiles",
    ] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
