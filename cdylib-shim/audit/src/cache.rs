//! The system's list of its libraries (`/etc/ld.so.cache`), as `ldconfig` writes it.
#![forbid(unsafe_code)]

use core::ffi::CStr;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Lists that begin with this one have the older form, with the newer behind it.
const HEADER: usize = 48;
const ENTRY: usize = 24;

/// What an entry says of libraries for this machine and this libc.
#[cfg(target_arch = "x86_64")]
const KIND: u32 = 0x0303;
#[cfg(target_arch = "aarch64")]
const KIND: u32 = 0x0a03;

/// The path of the library `name`, where the list has it once, for all processors of this kind;
/// `None` where it has not, or more than one of which the loader would choose.
pub(crate) fn only_path<'l>(list: &'l [u8], name: &[u8]) -> Option<&'l CStr> {
    list.strip_prefix(MAGIC)?;
    let count = word(list, MAGIC.len())? as usize;
    let entries = list.get(HEADER..)?.chunks_exact(ENTRY).take(count);
    let mut only = None;
    for entry in entries {
        let named = text(list, word(entry, 4)?)?;
        if named.to_bytes() != name || word(entry, 0)? != KIND {
            continue;
        }
        // One of several, or for certain processors.
        if only.is_some() || word(entry, 16)? != 0 || word(entry, 20)? != 0 {
            return None;
        }
        only = Some(text(list, word(entry, 8)?)?);
    }
    only.filter(|path| path.to_bytes().starts_with(b"/"))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn text(list: &[u8], at: u32) -> Option<&CStr> {
    CStr::from_bytes_until_nul(list.get(at as usize..)?).ok()
}
