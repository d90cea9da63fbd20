//! What the dynamic loader will look for on behalf of an ELF file: the names it needs and the
//! directories it searches, as written in the file.
#![forbid(unsafe_code)]

use object::Endianness;
use object::elf::{
    DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, FileHeader32, FileHeader64, PT_DYNAMIC,
    PT_LOAD,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{FileKind, ReadCache, StringTable};
use std::fs::File;

/// What a file needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Word length and machine: the loader passes over libraries of others.
    pub(crate) architecture: (u8, u16),
    /// `DT_NEEDED`, in order.
    pub(crate) libraries: Vec<Vec<u8>>,
    /// The elements of `DT_RPATH`.
    pub(crate) rpath: Vec<Vec<u8>>,
    /// The elements of `DT_RUNPATH`, which rules out the other if it is there.
    pub(crate) runpath: Option<Vec<Vec<u8>>>,
}

/// Files with more entries than this are not followed.
const MOST_ENTRIES: usize = 4096;
const MOST_DYNAMIC_BYTES: u64 = 256 << 10;

/// Reads what an ELF file needs; `None` where it is none, or not a sound one.
pub(crate) fn needs(file: &File) -> Option<Needs> {
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache).ok()? {
        FileKind::Elf64 => read::<FileHeader64<Endianness>>(&cache, 64),
        FileKind::Elf32 => read::<FileHeader32<Endianness>>(&cache, 32),
        _ => None,
    }
}

fn read<Elf: FileHeader<Endian = Endianness>>(data: &ReadCache<&File>, bits: u8) -> Option<Needs> {
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let mut needs = Needs {
        architecture: (bits, header.e_machine(endian).0),
        ..Needs::default()
    };
    let Some(dynamic) = segments.iter().find(|one| one.p_type(endian) == PT_DYNAMIC) else {
        return Some(needs);
    };
    if dynamic.p_filesz(endian).into() > MOST_DYNAMIC_BYTES {
        return None;
    }
    let entries = dynamic.dynamic(endian, data).ok()??;
    let entries: Vec<_> = entries
        .iter()
        .take(MOST_ENTRIES)
        .map(|entry| (entry.tag(endian), entry.val(endian)))
        .collect();
    let value = |wanted| {
        let found = entries.iter().find(|(tag, _)| *tag == wanted)?;
        Some(found.1)
    };
    let (address, length) = (value(DT_STRTAB)?, value(DT_STRSZ)?);
    let offset = segments.iter().find_map(|one| {
        let start: u64 = one.p_vaddr(endian).into();
        let within = address.checked_sub(start)?;
        let loaded = one.p_type(endian) == PT_LOAD && within < one.p_filesz(endian).into();
        loaded.then(|| one.p_offset(endian).into().checked_add(within))?
    })?;
    let strings = StringTable::new(data, offset, offset.checked_add(length)?);
    let text = |at: u64| {
        let text: &[u8] = strings.get(u32::try_from(at).ok()?).ok()?;
        Some(text.to_vec())
    };
    for (tag, at) in &entries {
        match *tag {
            DT_NEEDED => needs.libraries.push(text(*at)?),
            DT_RPATH => needs.rpath = elements(&text(*at)?),
            DT_RUNPATH => needs.runpath = Some(elements(&text(*at)?)),
            _ => {}
        }
    }
    Some(needs)
}

fn elements(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b':')
        .map(<[u8]>::to_vec)
        .collect()
}

/// The directories that `$LIB` may stand for: it depends on how the loader was built.
const LIB: [&[u8]; 3] = [b"lib64", b"lib", b"lib/x86_64-linux-gnu"];
/// What `$PLATFORM` may stand for on this machine.
const PLATFORM: [&[u8]; 3] = [std::env::consts::ARCH.as_bytes(), b"haswell", b"xeon_phi"];

/// All that a search path's element, or a needed name, may stand for where `$ORIGIN` is the
/// directory `origin`; nothing where it does not begin with `$ORIGIN`.
pub(crate) fn expand(element: &[u8], origin: &[u8]) -> Vec<Vec<u8>> {
    let rest = [&b"$ORIGIN"[..], b"${ORIGIN}"]
        .iter()
        .find_map(|token| element.strip_prefix(*token))
        .filter(|rest| matches!(rest.first(), None | Some(b'/')));
    let Some(rest) = rest else {
        return Vec::new();
    };
    let mut expanded = vec![[origin, rest].concat()];
    for (tokens, values) in [
        ([&b"$LIB"[..], b"${LIB}"], &LIB),
        ([&b"$PLATFORM"[..], b"${PLATFORM}"], &PLATFORM),
    ] {
        for token in tokens {
            expanded = expanded
                .iter()
                .flat_map(|text| substitute(text, token, values))
                .collect();
        }
    }
    expanded
}

fn substitute(text: &[u8], token: &[u8], values: &[&[u8]]) -> Vec<Vec<u8>> {
    let found = text
        .windows(token.len())
        .position(|window| window == token)
        .map(|at| (&text[..at], &text[at + token.len()..]));
    match found {
        None => vec![text.to_vec()],
        Some((before, after)) => values
            .iter()
            .map(|value| [before, value, after].concat())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn text(expanded: Vec<Vec<u8>>) -> Vec<String> {
        let text = |bytes| String::from_utf8(bytes).expect("plain");
        expanded.into_iter().map(text).collect()
    }

    #[test]
    fn origin_stands_for_the_directory_and_nothing_else_is_followed() {
        assert_eq!(
            text(expand(b"$ORIGIN/../x.libs", b"/e/x")),
            ["/e/x/../x.libs"]
        );
        assert_eq!(text(expand(b"${ORIGIN}", b"/e/x")), ["/e/x"]);
        assert!(expand(b"/usr/lib", b"/e").is_empty());
        assert!(expand(b"$ORIGINAL/x", b"/e").is_empty());
        assert_eq!(
            text(expand(b"$ORIGIN/$LIB", b"/e")),
            ["/e/lib64", "/e/lib", "/e/lib/x86_64-linux-gnu"]
        );
    }

    #[test]
    fn this_program_needs_the_c_library() {
        let file = File::open("/proc/self/exe").expect("ourselves");
        let needs = needs(&file).expect("an ELF file");
        assert!(needs.libraries.contains(&b"libc.so.6".to_vec()));
    }

    #[test]
    fn what_is_no_sound_elf_file_needs_nothing() {
        let path = std::env::temp_dir().join(format!("copper-elf-{}", std::process::id()));
        let whole = std::fs::read("/proc/self/exe").expect("ourselves");
        for length in [0, 4, 63, 64, 200, 1000, 4096] {
            let mut file = File::create(&path).expect("temporary file");
            file.write_all(&whole[..length]).expect("room");
            let _ = needs(&File::open(&path).expect("just made"));
        }
        std::fs::write(&path, b"#!/bin/sh\n").expect("room");
        assert_eq!(needs(&File::open(&path).expect("just made")), None);
        std::fs::remove_file(&path).expect("ours");
    }
}
