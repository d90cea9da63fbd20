//! Any bytes as the beginning of a program: the interpreter that is read from it is the one that the
//! kernel would start, and its argument the kernel's, as a plain reading of its rules says.
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

/// What stands behind the first word of a line, without the blanks around it.
fn behind_words(line: &[u8]) -> Option<Vec<u8>> {
    let blank = |byte: &u8| b" \t".contains(byte);
    let text = line.strip_prefix(b"#!")?;
    let words: Vec<&[u8]> = text.split(blank).filter(|word| !word.is_empty()).collect();
    let (first, last) = (words.get(1)?, words.last()?);
    let (start, end) = (first.as_ptr() as usize, last.as_ptr_range().end as usize);
    let base = text.as_ptr() as usize;
    let behind = text[start - base..end - base].to_vec();
    (!behind.contains(&0)).then_some(behind)
}

fuzz_target!(|input: &[u8]| {
    let head = &input[..input.len().min(256)];
    if let Some(line) = head.split(|&byte| byte == b'\n').next() {
        assert_eq!(
            foreign::interpreter_argument(line).map(<[u8]>::to_vec),
            behind_words(line)
        );
    }
    assert_eq!(
        foreign::interpreter(head).map(<[u8]>::to_vec),
        by_words(head)
    );
});
