//! Any bytes as a library whose needs the helper reads: an answer of bounded size, or none; and search
//! paths out of such a file never lead to where the file does not say.
#![no_main]

#[allow(dead_code)]
#[path = "../../../helper-daemon/src/elf.rs"]
mod elf;

use libfuzzer_sys::fuzz_target;
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

/// More libraries than a file has entries are not read.
const MOST_LIBRARIES: usize = 4096;

fn file_of(bytes: &[u8]) -> File {
    // SAFETY: the name is NUL-terminated; the descriptor is new and nobody else's.
    let mut file = unsafe {
        let descriptor = libc::memfd_create(c"fuzzed".as_ptr(), libc::MFD_CLOEXEC);
        assert!(descriptor >= 0, "memory for a file");
        File::from_raw_fd(descriptor)
    };
    file.write_all(bytes).expect("memory for a file");
    file
}

fuzz_target!(|input: &[u8]| {
    for element in input.split(|&byte| byte == b':').take(8) {
        for expanded in elf::expand(element, b"/origin") {
            assert!(expanded.starts_with(b"/origin"));
        }
    }
    let Some(needs) = elf::needs(&file_of(input)) else {
        return;
    };
    assert!(needs.libraries.len() <= MOST_LIBRARIES);
    for name in needs.libraries.iter().chain(&needs.rpath) {
        assert!(!name.contains(&0) && name.len() <= input.len());
    }
});
