//! The catalog written and read in ordinary memory.

use super::layout::{segment_length, segment_of, segment_start};
use super::memory::{Memory, Whole};
use super::reader::{Content, Kind, Reader};
use super::resolve::{EISDIR, Ending, Resolution, Scope, Walk, look_up};
use super::writer::{Child, Identity, What, Writer};
use crate::attributes::Attributes;
use crate::path::PATH_MAX;
use std::format;
use std::vec;
use std::vec::Vec;

struct Everything;

impl Scope for Everything {
    fn covers(&self, _: &[u8]) -> bool {
        true
    }
    fn leads_inside(&self, path: &[u8]) -> bool {
        !crate::path::is_node_local(path)
    }
    fn above_root(&self) -> Option<&[u8]> {
        Some(b"/tmp/me")
    }
}

const FOLLOW: Ending = Ending {
    follow: true,
    directory: false,
};
const NO_FOLLOW: Ending = Ending {
    follow: false,
    directory: false,
};

fn memory(length: usize) -> Whole {
    let words = vec![0u64; length / 8].leak();
    // SAFETY: leaked, zeroed, aligned to 8, used by one writer alone.
    unsafe { Whole::new(words.as_mut_ptr().cast(), length as u64) }
}

fn identity<'a>(covered: &'a [Vec<u8>]) -> Identity<'a> {
    Identity {
        pid: 7,
        uid: 1000,
        user_namespace: 0,
        process_namespace: 0,
        store_device: 42,
        mirror: b"/dev/shm/copper-1000/tree",
        view: b"/tmp/me/copper",
        runtime: b"/tmp/copper-1000",
        covered,
    }
}

fn writer(length: usize) -> Writer<Whole> {
    Writer::create(memory(length), &identity(&[b"/lus/env".to_vec()])).expect("room")
}

fn directory(inode: u64) -> Attributes {
    Attributes {
        mode: 0o040_755,
        inode,
        ..Attributes::default()
    }
}

fn file(inode: u64, size: u64) -> Attributes {
    Attributes {
        mode: 0o100_644,
        inode,
        size,
        ..Attributes::default()
    }
}

fn link(inode: u64) -> Attributes {
    Attributes {
        mode: 0o120_777,
        inode,
        ..Attributes::default()
    }
}

fn named<'a>(name: &'a [u8], attributes: &'a Attributes, target: &'a [u8]) -> Child<'a> {
    let what = Some(What::Present(attributes, target));
    Child {
        name,
        inode: attributes.inode,
        directory_type: attributes.directory_type(),
        what,
    }
}

/// `/lus/env` with a file, a directory, and links of every kind.
fn small_tree() -> Writer<Whole> {
    let mut writer = writer(1 << 20);
    let (dir, sub, data) = (directory(2), directory(3), file(10, 5));
    for path in [&b"/"[..], b"/lus"] {
        writer
            .publish(path, What::Present(&directory(1), b""))
            .expect("room");
    }
    let link = link(20);
    let children = [
        named(b"data", &data, b""),
        named(b"sub", &sub, b""),
        named(b"relative", &link, b"sub/../data"),
        named(b"absolute", &link, b"/lus/env/sub"),
        named(b"loop", &link, b"loop"),
        named(b"away", &link, b"/tmp/scratch/x"),
        named(b"slashed", &link, b"data/"),
    ];
    writer
        .publish_directory(b"/lus/env", &dir, &children)
        .expect("room");
    let inner = [named(b"inner", &data, b"")];
    writer
        .publish_directory(b"/lus/env/sub", &sub, &inner)
        .expect("room");
    writer
}

fn walk(reader: &Reader<Whole>, path: &str, ending: Ending) -> (std::string::String, Vec<u8>) {
    let mut walk = Walk::new();
    let what = match walk.run(reader, &Everything, path.as_bytes(), ending) {
        Resolution::Found(found) => {
            format!(
                "found {}",
                std::string::String::from_utf8_lossy(found.path())
            )
        }
        Resolution::Absent { errno, creatable } => format!("absent {errno} {creatable}"),
        Resolution::Unknown => "unknown".into(),
        Resolution::Outside => "outside".into(),
        Resolution::PassThrough => "pass".into(),
    };
    (what, walk.canonical().to_vec())
}

#[test]
fn identity_is_readable() {
    let writer = writer(1 << 20);
    assert!(writer.reader().is_ours());
    let strings: Vec<&[u8]> = writer.reader().strings().collect();
    assert_eq!(strings[0], b"/dev/shm/copper-1000/tree");
    assert_eq!(strings[3], b"/lus/env");
    assert_eq!(strings.len(), 4);
}

#[test]
fn a_complete_directory_answers_for_missing_names() {
    let mut writer = small_tree();
    let absent = look_up(writer.reader(), &Everything, b"/lus/env/nothing", FOLLOW);
    assert!(matches!(
        absent,
        Some(Resolution::Absent {
            errno: 2,
            creatable: true
        })
    ));
    assert!(look_up(writer.reader(), &Everything, b"/lus/other", FOLLOW).is_none());
    writer.retire(b"/lus/env/nothing");
    assert!(look_up(writer.reader(), &Everything, b"/lus/env/nothing", FOLLOW).is_none());
}

#[test]
fn a_directory_in_which_names_were_missing_is_not_taken_for_another_or_an_older_one() {
    let mut writer = small_tree();
    writer
        .publish_directory(b"/lus/two", &directory(4), &[])
        .expect("room");
    let is_absent = |writer: &Writer<Whole>, path: &[u8]| {
        let found = look_up(writer.reader(), &Everything, path, FOLLOW);
        matches!(found, Some(Resolution::Absent { .. }))
    };
    let (env, two): (&[u8], &[u8]) = (b"/lus/env/nothing", b"/lus/two/nothing");
    for _ in 0..2 {
        assert!(is_absent(&writer, env) && is_absent(&writer, two));
        let known = look_up(writer.reader(), &Everything, b"/lus/env/data", FOLLOW);
        assert!(matches!(known, Some(Resolution::Found(_))));
    }
    writer.retire(b"/lus/two");
    assert!(is_absent(&writer, env) && !is_absent(&writer, two));
    let (dir, data) = (directory(5), file(11, 1));
    writer
        .publish_directory(b"/lus/two", &dir, &[named(b"nothing", &data, b"")])
        .expect("room");
    let known = look_up(writer.reader(), &Everything, two, FOLLOW);
    assert!(matches!(known, Some(Resolution::Found(_))));
    assert!(is_absent(&writer, b"/lus/two/other"));
    writer
        .publish(b"/lus/two", What::Present(&file(6, 0), b""))
        .expect("room");
    assert!(!is_absent(&writer, b"/lus/two/other"));
}

#[test]
fn a_path_in_no_normal_form_is_neither_found_nor_absent_at_once() {
    let writer = small_tree();
    for path in [
        "/lus/env/",
        "/lus/env/.",
        "/lus/env/..",
        "/lus/env//data",
        "/lus/env/./data",
        "/lus/env/sub/../data",
        "/lus/env/sub/../nothing",
        "//lus/env/nothing",
    ] {
        let found = look_up(writer.reader(), &Everything, path.as_bytes(), FOLLOW);
        assert!(found.is_none(), "{path}");
    }
}

#[test]
fn a_walk_that_creates_stops_at_a_slash_behind_a_link() {
    let writer = small_tree();
    for path in ["/lus/env/slashed", "/lus/env/sub/../slashed"] {
        let mut walk = Walk::creating();
        let end = walk.run(writer.reader(), &Everything, path.as_bytes(), FOLLOW);
        assert!(
            matches!(
                end,
                Resolution::Absent {
                    errno: EISDIR,
                    creatable: false
                }
            ),
            "{path}"
        );
    }
}

#[test]
fn what_a_path_ended_in_follows_it_outside() {
    let writer = small_tree();
    let mut walk = Walk::new();
    let end = walk.run(writer.reader(), &Everything, b"/lus/env/away", FOLLOW);
    assert!(matches!(end, Resolution::Outside));
    for (ending, expected) in [
        (&b""[..], c"/tmp/scratch/x"),
        (b"/", c"/tmp/scratch/x/"),
        (b"/.", c"/tmp/scratch/x/."),
    ] {
        assert_eq!(walk.canonical_terminated(ending), Some(expected));
    }
    assert_eq!(walk.canonical_terminated(&[b'/'; PATH_MAX]), None);
}

#[test]
fn walks_go_as_the_kernel_would() {
    let writer = small_tree();
    for (path, follow, expected) in [
        ("/lus/env/data", FOLLOW, "found /lus/env/data"),
        ("//lus/./env//sub/", FOLLOW, "found /lus/env/sub"),
        ("/lus/env/relative", FOLLOW, "found /lus/env/data"),
        ("/lus/env/relative", NO_FOLLOW, "found /lus/env/relative"),
        ("/lus/env/relative/", NO_FOLLOW, "absent 20 false"),
        (
            "/lus/env/absolute/inner",
            FOLLOW,
            "found /lus/env/sub/inner",
        ),
        ("/lus/env/absolute/../data", FOLLOW, "found /lus/env/data"),
        ("/lus/env/absolute/", NO_FOLLOW, "found /lus/env/sub"),
        ("/lus/env/loop", FOLLOW, "absent 40 false"),
        ("/lus/env/data/x", FOLLOW, "absent 20 false"),
        ("/lus/env/slashed", FOLLOW, "absent 20 false"),
        ("/lus/env/missing", FOLLOW, "absent 2 true"),
        ("/lus/env/missing/x", FOLLOW, "absent 2 false"),
        ("/lus/env/sub/..", FOLLOW, "found /lus/env"),
        ("/lus/env/away", NO_FOLLOW, "found /lus/env/away"),
    ] {
        assert_eq!(walk(writer.reader(), path, follow).0, expected, "{path}");
    }
}

#[test]
fn walks_that_lead_outside_say_where() {
    let writer = small_tree();
    let (what, place) = walk(writer.reader(), "/lus/env/away", FOLLOW);
    assert_eq!(
        (what.as_str(), &place[..]),
        ("outside", &b"/tmp/scratch/x"[..])
    );
    let (what, place) = walk(writer.reader(), "/lus/../../x/", FOLLOW);
    assert_eq!((what.as_str(), &place[..]), ("outside", &b"/tmp/me/x/"[..]));
    let (what, place) = walk(writer.reader(), "/other/x", FOLLOW);
    assert_eq!((what.as_str(), &place[..]), ("unknown", &b"/other"[..]));
}

#[test]
fn listings_keep_the_origins_order() {
    let writer = small_tree();
    let found = writer.reader().live(b"/lus/env").expect("known");
    let listing = writer.reader().listing(&found).expect("complete");
    let names: Vec<&[u8]> = listing.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), 7);
    assert_eq!((names[0], names[6]), (&b"data"[..], &b"slashed"[..]));
}

#[test]
fn store_inodes_lead_back_to_attributes() {
    let mut writer = small_tree();
    let offset = writer
        .reader()
        .live(b"/lus/env/data")
        .expect("known")
        .offset();
    writer.set_stored(offset, 777).expect("room");
    let found = writer.reader().by_store_inode(777).expect("indexed");
    assert_eq!(found.attributes().inode, 10);
    assert_eq!(writer.reader().content(&found), Content::Stored(777));
    writer.set_evicted(offset);
    let found = writer
        .reader()
        .by_store_inode(777)
        .expect("an open descriptor still asks");
    assert_eq!(writer.reader().content(&found), Content::Unknown);
    assert!(writer.reader().by_store_inode(778).is_none());
}

#[test]
fn newer_records_take_the_place_of_older_ones() {
    let mut writer = small_tree();
    let grown = file(10, 6);
    writer
        .publish(b"/lus/env/data", What::Present(&grown, b""))
        .expect("room");
    let found = writer.reader().live(b"/lus/env/data").expect("known");
    assert_eq!(found.attributes().size, 6);
    writer.publish(b"/lus/env/data", What::Pass).expect("room");
    assert_eq!(
        writer
            .reader()
            .live(b"/lus/env/data")
            .expect("known")
            .kind(),
        Kind::Pass
    );
    let before = writer.in_use();
    writer.publish(b"/lus/env/data", What::Pass).expect("room");
    assert_eq!(
        writer.in_use(),
        before,
        "saying the same again takes no room"
    );
}

/// A user who may not search directories that only their owner may.
struct Stranger;

impl Scope for Stranger {
    fn covers(&self, _: &[u8]) -> bool {
        true
    }
    fn leads_inside(&self, _: &[u8]) -> bool {
        true
    }
    fn may_search(&self, directory: &Attributes) -> bool {
        directory.mode & 0o001 != 0
    }
    fn above_root(&self) -> Option<&[u8]> {
        None
    }
}

#[test]
fn a_directory_that_may_not_be_searched_calls_nothing_absent() {
    let mut writer = small_tree();
    let closed = Attributes {
        mode: 0o040_700,
        ..directory(9)
    };
    writer
        .publish_directory(b"/lus/env/sub", &closed, &[])
        .expect("room");
    let reader = writer.reader();
    assert!(look_up(reader, &Stranger, b"/lus/env/sub/x", FOLLOW).is_none());
    for path in ["/lus/env/sub/x", "/lus/env/sub/.", "/lus/env/sub/../data"] {
        let passed = Walk::new().run(reader, &Stranger, path.as_bytes(), FOLLOW);
        assert!(matches!(passed, Resolution::PassThrough), "{path}");
    }
    let itself = Walk::new().run(reader, &Stranger, b"/lus/env/sub/", FOLLOW);
    assert!(matches!(itself, Resolution::Found(_)));
}

#[test]
fn a_subtree_is_forgotten_whole() {
    let mut writer = small_tree();
    assert_eq!(writer.retire_below(b"/lus/env/sub").len(), 2);
    assert!(writer.reader().live(b"/lus/env/sub/inner").is_none());
    assert!(writer.reader().live(b"/lus/env/data").is_some());
    assert_eq!(
        walk(writer.reader(), "/lus/env/sub/inner", FOLLOW).0,
        "unknown"
    );
}

#[test]
fn a_retired_name_of_a_complete_directory_is_unknown_and_not_absent() {
    let mut writer = small_tree();
    writer.retire(b"/lus/env/sub/inner");
    assert!(look_up(writer.reader(), &Everything, b"/lus/env/sub", FOLLOW).is_none());
    for path in ["/lus/env/sub", "/lus/env/sub/inner"] {
        assert_eq!(walk(writer.reader(), path, FOLLOW).0, "unknown", "{path}");
    }
    assert_eq!(
        walk(writer.reader(), "/lus/env/missing", FOLLOW).0,
        "absent 2 true"
    );
}

#[test]
fn an_absence_that_lapsed_is_unknown_and_learning_it_again_takes_no_room() {
    let mut writer = small_tree();
    let (sub, data) = (directory(3), file(10, 5));
    let inner = [named(b"inner", &data, b"")];
    let says = |writer: &Writer<Whole>, path| walk(writer.reader(), path, FOLLOW).0;
    let by_name = What::Absent(2);
    writer.publish(b"/lus/none", by_name).expect("room");
    let room = writer.in_use();
    for _ in 0..3 {
        assert_eq!(says(&writer, "/lus/env/sub/none"), "absent 2 true");
        assert!(writer.lapse_listing(b"/lus/env/sub"));
        assert!(!writer.lapse_listing(b"/lus/env/sub"), "it has lapsed");
        assert_eq!(says(&writer, "/lus/env/sub/none"), "unknown");
        assert_eq!(
            says(&writer, "/lus/env/sub/inner"),
            "found /lus/env/sub/inner"
        );
        writer
            .publish_directory(b"/lus/env/sub", &sub, &inner)
            .expect("room");

        assert_eq!(says(&writer, "/lus/none"), "absent 2 true");
        writer.lapse_absence(b"/lus/none");
        assert_eq!(says(&writer, "/lus/none"), "unknown");
        writer.publish(b"/lus/none", by_name).expect("room");
        writer.lapse_absence(b"/lus/env/sub/inner");
        assert!(writer.reader().live(b"/lus/env/sub/inner").is_some());
    }
    assert_eq!(writer.in_use(), room);
    // Another listing is another one.
    writer.lapse_listing(b"/lus/env/sub");
    let more = [inner[0], named(b"none", &data, b"")];
    writer
        .publish_directory(b"/lus/env/sub", &sub, &more)
        .expect("room");
    assert_eq!(
        says(&writer, "/lus/env/sub/none"),
        "found /lus/env/sub/none"
    );
    let found = writer.reader().live(b"/lus/env/sub").expect("known");
    let listing = writer.reader().listing(&found).expect("whole");
    assert_eq!(listing.iter().count(), 2);
}

#[test]
fn the_index_grows_over_many_segments_and_a_full_catalog_stays_valid() {
    let mut writer = writer(24 << 20);
    let mut known = 0u64;
    let full = loop {
        let path = format!("/lus/env/directory/file-{known}");
        match writer.publish(path.as_bytes(), What::Present(&file(known, 1), b"")) {
            Ok(_) => known += 1,
            Err(full) => break full,
        }
        assert!(known < 1_000_000, "it must fill up");
    };
    assert_eq!(format!("{full}"), "the catalog is full");
    assert!(known > 40_000, "only {known} fitted");
    for number in 0..known {
        let path = format!("/lus/env/directory/file-{number}");
        let found = writer.reader().live(path.as_bytes()).expect("still known");
        assert_eq!(found.attributes().inode, number);
    }
}

/// Closures are noted for one file, and something happens to others.
#[test]
fn a_closure_is_known_until_something_is_lost() {
    fn offset(writer: &Writer<Whole>, path: &[u8]) -> u64 {
        writer.reader().live(path).unwrap().offset()
    }
    let losses: [fn(&mut Writer<Whole>); 8] = [
        |writer| writer.retire(b"/lus/env/sub/inner"),
        |writer| drop(writer.retire_below(b"/lus/env/sub")),
        |writer| assert!(writer.lapse_listing(b"/lus/env/sub")),
        |writer| writer.lapse_absence(b"/lus/missing"),
        |writer| writer.set_evicted(offset(writer, b"/lus/env/sub/inner")),
        |writer| writer.set_pass(offset(writer, b"/lus/env/sub/inner")),
        |writer| {
            let newer = file(11, 7);
            let what = What::Present(&newer, b"");
            writer.publish(b"/lus/env/sub/inner", what).unwrap();
        },
        |writer| {
            let what = What::Present(&directory(4), b"");
            writer.publish(b"/lus/missing", what).unwrap();
        },
    ];
    for (number, lose) in losses.iter().enumerate() {
        let mut writer = small_tree();
        writer.publish(b"/lus/missing", What::Absent(2)).unwrap();
        let data = offset(&writer, b"/lus/env/data");
        let has_closure = |writer: &Writer<Whole>| {
            let reader = writer.reader();
            reader.has_closure(&reader.record(data).unwrap())
        };
        assert!(!has_closure(&writer), "nobody has looked");
        for _ in 0..2 {
            writer.set_closure(data);
            assert!(has_closure(&writer));
        }
        let known = file(30, 1);
        let what = What::Present(&known, b"");
        writer.publish(b"/lus/new", what).unwrap();
        writer.publish(b"/lus/missing", What::Absent(2)).unwrap();
        writer.set_stored(data, 500).unwrap();
        assert!(has_closure(&writer), "nothing was lost");
        lose(&mut writer);
        assert!(!has_closure(&writer), "loss {number}");
        writer.set_closure(data);
        assert!(has_closure(&writer), "loss {number}");
    }
}

#[test]
fn segments_meet_without_gaps() {
    for index in 0..11 {
        assert_eq!(
            segment_start(index) + segment_length(index),
            segment_start(index + 1)
        );
        assert_eq!(segment_of(segment_start(index)), index);
        assert_eq!(segment_of(segment_start(index + 1) - 1), index);
    }
}

#[test]
fn rubbish_is_unknown() {
    let mut writer = small_tree();
    let memory = writer.reader().memory();
    let bytes = memory.bytes(0, 1 << 19).expect("in bounds").to_vec();
    let mut seed = 1u64;
    for _ in 0..100 {
        let mut broken = bytes.clone();
        for _ in 0..20 {
            seed = seed
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let at = (seed >> 33) as usize % broken.len();
            broken[at] = (seed >> 25) as u8;
        }
        let words: Vec<u64> = broken
            .as_chunks::<8>()
            .0
            .iter()
            .map(|word| u64::from_ne_bytes(*word))
            .collect();
        let words = words.leak();
        // SAFETY: the words live on, and nobody writes them.
        let memory = unsafe { Whole::new(words.as_mut_ptr().cast(), (words.len() * 8) as u64) };
        let reader = Reader::new(memory);
        for path in ["/lus/env/data", "/lus/env/absolute/inner", "/x"] {
            walk(&reader, path, FOLLOW);
        }
    }
    writer.stop();
}
