//! Any bytes as the environment: what is taken for a covered prefix is an absolute path in normal form,
//! and a library is only found preloaded where it is named.
#![no_main]

#[allow(dead_code)]
#[path = "../../../cdylib-shim/src/foreign.rs"]
mod foreign;

use copper_core::location::{RUNTIME_MAX, runtime_directory};
use copper_core::path;
use libfuzzer_sys::fuzz_target;

const LIBRARY: &[u8] = b"libcopper.so";

fn is_in_normal_form(given: &[u8]) -> bool {
    let mut room = vec![0; given.len() + 1];
    path::tidy(given, &mut room).is_some_and(|tidied| room[..tidied.length] == *given)
}

fuzz_target!(|input: &[u8]| {
    let (&size, text) = input.split_first().unwrap_or((&0, b""));
    let mut room = vec![0; usize::from(size) * 16];
    let length = room.len();
    let mut used = 0;
    foreign::absolute_paths(text, &mut room, &mut |prefix| {
        assert!(is_in_normal_form(prefix) && !prefix.contains(&b':'));
        used += prefix.len();
    });
    assert!(used <= length);

    let named = text.windows(LIBRARY.len()).any(|part| part == LIBRARY);
    assert!(named || !foreign::preloads(text, LIBRARY));
    if let Some(value) = foreign::value_of(text, "LD_PRELOAD") {
        assert_eq!([b"LD_PRELOAD=", value].concat(), text);
    }

    let mut directory = [0; RUNTIME_MAX];
    let length = runtime_directory(u32::from(size), Some(text), &mut directory);
    assert!(!directory[1..length].ends_with(b"/") && !directory[5..length].contains(&b'/'));
});
