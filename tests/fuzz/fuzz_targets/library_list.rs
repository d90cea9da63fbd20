//! Any bytes as the system's list of its libraries: a path that is given for a name stands in the list,
//! is absolute, and is the only one.
#![no_main]

#[path = "../../../cdylib-shim/audit/src/cache.rs"]
mod cache;

use libfuzzer_sys::fuzz_target;

/// Where the input's bytes come in a list that is sound so far.
const START: &[u8] = b"glibc-ld.so.cache1.1";

fuzz_target!(|input: &[u8]| {
    let _ = cache::only_path(input, b"libm.so.6");
    let list = [START, input].concat();
    let Some(path) = cache::only_path(&list, b"libm.so.6") else {
        return;
    };
    let bytes = path.to_bytes();
    assert!(bytes.starts_with(b"/"));
    let terminated = path.to_bytes_with_nul();
    assert!(list.windows(terminated.len()).any(|part| part == terminated));
    assert!(list.windows(10).any(|part| part == b"libm.so.6\0"));
});
