//! The order in which the catalog publishes and retires, under the loom model checker: every
//! interleaving of the writer with a reader, with the memory orders as they are written.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p copper-core --lib model`.

use super::layout;
use super::memory::{Memory, MemoryMut};
use super::reader::{Kind, Reader};
use super::resolve::{Ending, Resolution, Scope, look_up};
use super::writer::{Child, Identity, What, Writer};
use crate::attributes::Attributes;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::vec;
use std::vec::Vec;

const WORDS: usize = 1024;
const FOLLOW: Ending = Ending {
    follow: true,
    directory: false,
};

struct Everywhere;

impl Scope for Everywhere {
    fn covers(&self, _: &[u8]) -> bool {
        true
    }
    fn leads_inside(&self, _: &[u8]) -> bool {
        true
    }
    fn above_root(&self) -> Option<&[u8]> {
        None
    }
}

/// Memory whose words loom watches: the atomic ones as atomics, the others as cells that must not
/// be written while they are read.
struct Watched {
    atomics: Vec<AtomicU64>,
    cells: Vec<UnsafeCell<()>>,
    plain: core::cell::UnsafeCell<Vec<u64>>,
}

// SAFETY: loom runs one thread at a time, and its cells fail the test where two would meet.
unsafe impl Sync for Watched {}
// SAFETY: as above.
unsafe impl Send for Watched {}

#[derive(Clone)]
struct Shared(Arc<Watched>);

impl Shared {
    fn new() -> Shared {
        Shared(Arc::new(Watched {
            atomics: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            cells: (0..WORDS).map(|_| UnsafeCell::new(())).collect(),
            plain: core::cell::UnsafeCell::new(vec![0; WORDS]),
        }))
    }

    fn place(&self, offset: u64, length: usize) -> Option<*mut u8> {
        // SAFETY: only the address is taken; the vector never grows.
        let base = unsafe { (*self.0.plain.get()).as_mut_ptr() }.cast::<u8>();
        // SAFETY: within the vector, by the condition.
        (offset as usize + length <= WORDS * 8).then(|| unsafe { base.add(offset as usize) })
    }

    fn touched(offset: u64, length: usize) -> core::ops::Range<usize> {
        offset as usize / 8..(offset as usize + length).div_ceil(8)
    }
}

impl Memory for Shared {
    fn load(&self, offset: u64) -> Option<u64> {
        let word = self.0.atomics.get(offset as usize / 8)?;
        match word.load(Ordering::Acquire) {
            // Heads of strings, listings and inode entries are plain, and read as words.
            0 => self
                .bytes(offset, 8)
                .map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))),
            value => Some(value),
        }
    }

    fn bytes(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let place = self.place(offset, length)?;
        Self::touched(offset, length).for_each(|word| self.0.cells[word].with(|_| ()));
        // SAFETY: within the vector; loom has just checked that nobody writes there.
        Some(unsafe { core::slice::from_raw_parts(place, length) })
    }
}

impl MemoryMut for Shared {
    fn store(&self, offset: u64, value: u64) {
        self.0.atomics[offset as usize / 8].store(value, Ordering::Release);
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) {
        let place = self.place(offset, bytes.len()).expect("in bounds");
        Self::touched(offset, bytes.len()).for_each(|word| self.0.cells[word].with_mut(|_| ()));
        // SAFETY: within the vector; loom has just checked that nobody reads there.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    }

    fn capacity(&self) -> u64 {
        (WORDS * 8) as u64
    }
}

fn directory() -> Attributes {
    Attributes {
        mode: 0o040_755,
        inode: 1,
        ..Attributes::default()
    }
}

fn file(inode: u64) -> Attributes {
    Attributes {
        mode: 0o100_644,
        inode,
        ..Attributes::default()
    }
}

fn begin() -> (Writer<Shared>, Reader<Shared>) {
    let memory = Shared::new();
    let identity = Identity {
        pid: 1,
        uid: 1,
        user_namespace: 0,
        process_namespace: 0,
        store_device: 1,
        mirror: b"/m",
        view: b"/v",
        runtime: b"/r",
        covered: &[],
    };
    let writer = Writer::create(memory.clone(), &identity).expect("room");
    (writer, Reader::new(memory))
}

fn child<'a>(name: &'a [u8], attributes: &'a Attributes) -> Child<'a> {
    let what = Some(What::Present(attributes, b""));
    Child {
        name,
        inode: attributes.inode,
        directory_type: 8,
        what,
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

#[test]
fn a_name_of_a_directory_is_never_absent_while_it_is_published() {
    model(|| {
        let (mut writer, reader) = begin();
        let reading = thread::spawn(
            move || match look_up(&reader, &Everywhere, b"/d/f", FOLLOW) {
                None => {}
                Some(Resolution::Found(found)) => {
                    assert_eq!((found.attributes().inode, found.path()), (7, &b"/d/f"[..]));
                }
                Some(_) => panic!("a name that exists was called absent"),
            },
        );
        let attributes = file(7);
        writer
            .publish_directory(b"/d", &directory(), &[child(b"f", &attributes)])
            .expect("room");
        reading.join().expect("no panic");
    });
}

/// The directory is in the index before it grows, its name only in the index behind that.
#[test]
fn a_name_is_never_absent_while_the_index_grows() {
    model(|| {
        let (mut writer, reader) = begin();
        for (path, attributes) in [(&b"/a"[..], file(1)), (b"/d", directory())] {
            writer
                .publish(path, What::Present(&attributes, b""))
                .expect("room");
        }
        let before = writer.reader().word(layout::header::PATH_INDEX);
        let reading = thread::spawn(
            move || match look_up(&reader, &Everywhere, b"/d/f", FOLLOW) {
                None => {}
                Some(Resolution::Found(found)) => assert_eq!(found.attributes().inode, 7),
                Some(_) => panic!("a name that exists was called absent"),
            },
        );
        let attributes = file(7);
        writer
            .publish_directory(b"/d", &directory(), &[child(b"f", &attributes)])
            .expect("room");
        let after = writer.reader().word(layout::header::PATH_INDEX);
        assert_ne!(before, after, "it grew");
        reading.join().expect("no panic");
    });
}

#[test]
fn a_replaced_record_is_the_old_or_the_new_or_unknown() {
    model(|| {
        let (mut writer, reader) = begin();
        writer
            .publish(b"/f", What::Present(&file(1), b""))
            .expect("room");
        let reading = thread::spawn(move || {
            if let Some(found) = reader.live(b"/f") {
                assert_eq!(found.kind(), Kind::Present);
                assert!(matches!(found.attributes().inode, 1 | 2));
                assert_eq!(found.path(), b"/f");
            }
        });
        writer
            .publish(b"/f", What::Present(&file(2), b""))
            .expect("room");
        reading.join().expect("no panic");
    });
}

#[test]
fn known_paths_stay_known_while_the_index_grows() {
    model(|| {
        let (mut writer, reader) = begin();
        writer
            .publish(b"/a", What::Present(&file(1), b""))
            .expect("room");
        writer
            .publish(b"/b", What::Present(&file(2), b""))
            .expect("room");
        let reading = thread::spawn(move || {
            let found = reader.live(b"/a").expect("known before and after");
            assert_eq!(found.attributes().inode, 1);
        });
        let before = writer.reader().word(layout::header::PATH_INDEX);
        writer
            .publish(b"/c", What::Present(&file(3), b""))
            .expect("room");
        assert_ne!(
            before,
            writer.reader().word(layout::header::PATH_INDEX),
            "it grew"
        );
        reading.join().expect("no panic");
    });
}

#[test]
fn a_retired_directory_calls_nothing_absent() {
    model(|| {
        let (mut writer, reader) = begin();
        writer
            .publish_directory(b"/d", &directory(), &[])
            .expect("room");
        let created = Arc::new(AtomicU64::new(0));
        let seen = created.clone();
        let reading = thread::spawn(move || {
            let known = seen.load(Ordering::Acquire) == 1;
            let answer = look_up(&reader, &Everywhere, b"/d/new", FOLLOW);
            assert!(!(known && matches!(answer, Some(Resolution::Absent { .. }))));
        });
        // The file is created on the origin, the helper is told, and only then the creator goes on.
        writer.retire(b"/d/new");
        created.store(1, Ordering::Release);
        reading.join().expect("no panic");
    });
}
