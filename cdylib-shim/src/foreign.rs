//! What is read of bytes that others wrote: the first line of a script, and the values of
//! environment variables. Plain functions of their input, which are fuzzed (`tests/fuzz`).
#![forbid(unsafe_code)]

use copper_core::path;

/// The interpreter that a script names in its first line, of which `head` is what the kernel reads.
pub(crate) fn interpreter(head: &[u8]) -> Option<&[u8]> {
    let line = head.strip_prefix(b"#!")?;
    let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    let name = line.get(start..)?;
    let length = name
        .iter()
        .position(|byte| matches!(byte, b' ' | b'\t' | b'\n' | 0))
        .unwrap_or(name.len());
    name.get(..length).filter(|name| !name.is_empty())
}

/// The one argument for the interpreter that a script's first line, `line`, may name behind it.
pub(crate) fn interpreter_argument(line: &[u8]) -> Option<&[u8]> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let rest = line.strip_prefix(b"#!")?;
    let name = rest.iter().position(|byte| !is_blank(byte))?;
    let behind = name + rest.get(name..)?.iter().position(is_blank)?;
    let start = behind
        + rest
            .get(behind..)?
            .iter()
            .position(|byte| !is_blank(byte))?;
    let end = rest.iter().rposition(|byte| !is_blank(byte))?;
    rest.get(start..=end)
        .filter(|argument| !argument.contains(&0))
}

/// The value of the variable `name`, where the environment's `entry` sets it.
pub(crate) fn value_of<'e>(entry: &'e [u8], name: &str) -> Option<&'e [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// Whether a value of `LD_PRELOAD` names a library, in whatever directory.
pub(crate) fn preloads(value: &[u8], library: &[u8]) -> bool {
    value
        .split(|byte| matches!(byte, b':' | b' '))
        .any(|named| path::split_last(named).1 == library)
}

/// Gives the absolute paths of a colon-separated list to `each`, in normal form and side by side in
/// `room`; passes over what is no such path, or finds no room.
pub(crate) fn absolute_paths<'r>(list: &[u8], room: &'r mut [u8], each: &mut dyn FnMut(&'r [u8])) {
    let mut room = room;
    for given in list.split(|&byte| byte == b':') {
        if given.first() != Some(&b'/') {
            continue;
        }
        let Some(tidied) = path::tidy(given, room) else {
            continue;
        };
        let (text, rest) = room.split_at_mut(tidied.length);
        room = rest;
        each(text);
    }
}
