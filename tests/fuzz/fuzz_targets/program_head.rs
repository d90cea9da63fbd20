//! Any bytes as the beginning of a program: the interpreter that is read from it is the one that the
//! kernel would start, as a plain reading of its rules says.
#![no_main]

#[allow(dead_code)]
#[path = "../../../cdylib-shim/src/foreign.rs"]
mod foreign;

use libfuzzer_sys::fuzz_target;

/// The first word of the first line, as text.
fn by_words(head: &[u8]) -> Option<Vec<u8>> {
    if head.len() < 2 || &head[..2] != b"#!" {
        return None;
    }
    let mut rest = head[2..].to_vec();
    while matches!(rest.first(), Some(b' ' | b'\t')) {
        rest.remove(0);
    }
    let word: Vec<u8> = rest
        .into_iter()
        .take_while(|byte| !b" \t\n\0".contains(byte))
        .collect();
    (!word.is_empty()).then_some(word)
}

fuzz_target!(|input: &[u8]| {
    let head = &input[..input.len().min(256)];
    assert_eq!(
        foreign::interpreter(head).map(<[u8]>::to_vec),
        by_words(head)
    );
});
