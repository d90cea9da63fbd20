//! Any bytes as a catalog: a reader answers "unknown", and never crashes, hangs or looks outside.
//!
//! The first byte chooses: arbitrary bytes as they are, or a sound catalog with words of it
//! overwritten, which gets further. Each mapping ends where the input does, on memory of its own,
//! so that a sanitizer sees a look beyond it.
#![no_main]

use copper_core::attributes::Attributes;
use copper_core::catalog::layout::header;
use copper_core::catalog::memory::{Mapping, Segmented, Segments, Whole};
use copper_core::catalog::reader::Reader;
use copper_core::catalog::resolve::{Ending, Resolution, Scope, Walk, look_up};
use copper_core::catalog::writer::{Child, Identity, What, Writer};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

struct Input(Vec<u64>);

impl Segments for &Input {
    fn segment(&self, index: usize) -> Option<Mapping> {
        // SAFETY: the words outlive the reader, are aligned, and nobody writes them.
        (index == 0).then(|| unsafe {
            Mapping::new(self.0.as_ptr().cast(), (self.0.len() * 8) as u64)
        })
    }
}

struct Covered;

impl Scope for Covered {
    fn covers(&self, path: &[u8]) -> bool {
        path.starts_with(b"/lus")
    }
    fn leads_inside(&self, path: &[u8]) -> bool {
        self.covers(path) || path == b"/"
    }
    fn above_root(&self) -> Option<&[u8]> {
        Some(b"/tmp")
    }
}

/// A small sound catalog.
fn sound() -> &'static [u64] {
    static SOUND: OnceLock<Vec<u64>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let mut words = vec![0u64; 12 << 10];
        let length = (words.len() * 8) as u64;
        // SAFETY: zeroed, aligned, alive until the end, and written by this writer alone.
        let memory = unsafe { Whole::new(words.as_mut_ptr().cast(), length) };
        let mut writer = Writer::create(memory, &identity()).expect("room");
        fill(&mut writer);
        drop(writer);
        words
    })
}

fn identity() -> Identity<'static> {
    Identity {
        pid: 1,
        uid: 1,
        user_namespace: 0,
        process_namespace: 0,
        store_device: 1,
        mirror: b"/dev/shm/copper/tree",
        view: b"/tmp/me/copper",
        runtime: b"/tmp/copper-1",
        covered: &[],
    }
}

fn fill(writer: &mut Writer<Whole>) {
    let file = Attributes { mode: 0o100_644, inode: 9, ..Attributes::default() };
    let link = Attributes { mode: 0o120_777, inode: 8, ..Attributes::default() };
    let directory = Attributes { mode: 0o040_755, inode: 7, ..Attributes::default() };
    let child = |name, what| Child { name, inode: 1, directory_type: 0, what: Some(what) };
    let children = [
        child(b"file", What::Present(&file, b"")),
        child(b"link", What::Present(&link, b"../lus/file")),
        child(b"loop", What::Present(&link, b"loop/x")),
        child(b"gone", What::Absent(2)),
    ];
    writer.publish(b"/", What::Present(&directory, b"")).expect("room");
    let offset = writer.publish_directory(b"/lus", &directory, &children).expect("room");
    writer.set_stored(offset, 77).expect("room");
}

fn memory_of(data: &[u8]) -> Input {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    match data.split_first() {
        Some((choice, rest)) if choice % 2 == 0 => {
            let mut words = sound().to_vec();
            for patch in rest.chunks_exact(10) {
                let at = usize::from(u16::from_ne_bytes([patch[0], patch[1]])) % words.len();
                words[at] = word(&patch[2..]);
            }
            Input(words)
        }
        Some((_, rest)) => Input(rest.chunks(8).map(word).collect()),
        None => Input(Vec::new()),
    }
}

fuzz_target!(|data: &[u8]| {
    let input = memory_of(data);
    let reader = Reader::new(Segmented(&input));
    let _ = (reader.is_ours(), reader.strings().count());
    let _ = reader.word(header::GENERATION);
    for path in [&b"/lus/file"[..], b"/lus/link", b"/lus/loop", b"/lus/gone/x", b"/", b"/lus/../x"] {
        for follow in [false, true] {
            let ending = Ending { follow, directory: false };
            let _ = look_up(&reader, &Covered, path, ending).is_some();
            let mut walk = Walk::new();
            if let Resolution::Found(found) = walk.run(&reader, &Covered, path, ending) {
                let _ = (found.path(), found.link(), found.path_terminated(), found.kind());
                let _ = (reader.content(&found), reader.has_closure(&found));
                if let Some(listing) = reader.listing(&found) {
                    let _ = listing.iter().map(|entry| entry.name.len()).sum::<usize>();
                }
            }
        }
    }
    let _ = reader.by_store_inode(77).map(|found| found.attributes().inode);
});
