//! Links the library with nothing: a library that it needed would be searched for, and loaded a
//! second time, in every program.

fn main() {
    for argument in [
        "-nostdlib",
        "-nodefaultlibs",
        "-Wl,--as-needed",
        "-Wl,-z,now",
    ] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
