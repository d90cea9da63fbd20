//! Which paths are covered, and the normal form of a path, without allocation.
//!
//! Paths are bytes: they need not be UTF-8. Nothing here follows symbolic links; that is
//! [`crate::catalog::resolve`]'s work.
#![forbid(unsafe_code)]

/// The longest path the kernel takes, without its NUL.
pub const PATH_MAX: usize = 4095;
/// The longest name of one component.
pub const NAME_MAX: usize = 255;

/// Trees that differ from node to node: never covered through the view, and left out of it.
pub const NODE_LOCAL: [&[u8]; 5] = [b"/proc", b"/sys", b"/dev", b"/run", b"/tmp"];

/// Trees that are made by the kernel: never covered, even where a user names them.
const NEVER_COVERED: [&[u8]; 4] = [b"/proc", b"/sys", b"/dev", b"/run"];

/// What a look at an absolute path's text tells, before anything is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// No empty, `.` or `..` component and no trailing slash: the text is its own normal form.
    pub normal: bool,
}

/// Looks at an absolute path's text.
///
/// A `/.` that begins a hidden name is told from the component `.` only where one occurs.
#[inline(always)]
pub fn shape(path: &[u8]) -> Shape {
    let Some((last, _)) = path.split_last() else {
        return Shape { normal: false };
    };
    if path.len() == 1 || path[0] != b'/' || *last == b'/' {
        return Shape {
            normal: path == b"/",
        };
    }
    Shape {
        normal: !is_suspicious(&path[..path.len() - 1], &path[1..]) || components_are_normal(path),
    }
}

/// Whether there is a slash in `before` where in `after`, as long, there is a slash or a dot. Without an
/// early exit, so that it looks at `WIDTH` bytes at a time; the last ones may count twice.
#[inline(always)]
fn is_suspicious(before: &[u8], after: &[u8]) -> bool {
    let (Some(before_end), Some(after_end)) =
        (before.last_chunk::<WIDTH>(), after.last_chunk::<WIDTH>())
    else {
        return core::iter::zip(before, after)
            .any(|(&before, &after)| follows_slash(before, after) != 0);
    };
    let pairs = core::iter::zip(before.as_chunks().0, after.as_chunks().0);
    let found = pairs.fold([0; WIDTH], found_in);
    found_in(found, (before_end, after_end)) != [0; WIDTH]
}

#[inline(always)]
fn found_in(mut found: [u8; WIDTH], (before, after): (&[u8; WIDTH], &[u8; WIDTH])) -> [u8; WIDTH] {
    for at in 0..WIDTH {
        found[at] |= follows_slash(before[at], after[at]);
    }
    found
}

/// Not 0 where `after` is a slash or a dot and follows a slash.
#[inline(always)]
fn follows_slash(before: u8, after: u8) -> u8 {
    u8::from(before == b'/') & (u8::from(after == b'/') | u8::from(after == b'.'))
}

#[cold]
fn components_are_normal(path: &[u8]) -> bool {
    path[1..]
        .split(|&byte| byte == b'/')
        .all(|name| !matches!(name, b"" | b"." | b".."))
}

/// Writes `path` into `out` without empty and `.` components and without a trailing slash;
/// `..` stays, since what it means depends on links. Returns the length and whether there was a
/// `..` and whether the path demands a directory at its end (a trailing `/`, `/.` or `/..`), or
/// `None` where it does not fit.
pub fn tidy(path: &[u8], out: &mut [u8]) -> Option<Tidied> {
    let mut length = 0;
    let mut parents = false;
    let (mut wants_directory, mut enters_directory) = (false, false);
    for name in path.split(|&byte| byte == b'/') {
        wants_directory = matches!(name, b"" | b"." | b"..");
        // A slash behind the `.` changes nothing: it is still the last component.
        if name.is_empty() {
            continue;
        }
        enters_directory = name == b".";
        if enters_directory {
            continue;
        }
        parents |= name == b"..";
        let end = length + 1 + name.len();
        let target = out.get_mut(length..end)?;
        target[0] = b'/';
        target[1..].copy_from_slice(name);
        length = end;
    }
    if length == 0 {
        *out.first_mut()? = b'/';
        length = 1;
    }
    Some(Tidied {
        length,
        parents,
        wants_directory,
        enters_directory,
    })
}

/// What [`tidy`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tidied {
    /// Bytes written.
    pub length: usize,
    /// A `..` remains.
    pub parents: bool,
    /// The path ends so that only a directory will do.
    pub wants_directory: bool,
    /// The last component is `.`, so the directory must be one that may be searched.
    pub enters_directory: bool,
}

impl Tidied {
    /// What has to stand behind the path again for the kernel to take it as it was given.
    pub fn ending(self) -> &'static [u8] {
        match self {
            Tidied {
                enters_directory: true,
                ..
            } => b"/.",
            Tidied {
                wants_directory: true,
                ..
            } => b"/",
            _ => b"",
        }
    }
}

/// The directory that holds `path`, and the last component. `/` has itself and an empty name.
#[inline(always)]
pub fn split_last(path: &[u8]) -> (&[u8], &[u8]) {
    match last_slash(path) {
        None => (b"", path),
        Some(0) => (b"/", &path[1..]),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
    }
}

/// Where the last slash is; looked for eight bytes at a time, from the end.
#[inline(always)]
fn last_slash(path: &[u8]) -> Option<usize> {
    let (head, words) = path.as_rchunks::<8>();
    for (number, word) in words.iter().enumerate().rev() {
        let slashes = slashes_in(u64::from_le_bytes(*word));
        if slashes != 0 {
            let last = 7 - slashes.leading_zeros() as usize / 8;
            return Some(head.len() + number * 8 + last);
        }
    }
    head.iter().rposition(|&byte| byte == b'/')
}

/// 0x80 in every byte of `word` that is a slash, exactly.
#[inline]
fn slashes_in(word: u64) -> u64 {
    const CLEAR: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let difference = word ^ 0x2f2f_2f2f_2f2f_2f2f;
    !(((difference & CLEAR) + CLEAR) | difference | CLEAR)
}

/// Whether two texts are the same. Without a call of libc's, which takes longer than comparing
/// texts of these lengths.
#[inline]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && starts_with(one, other)
}

/// Whether `text`, which is no shorter, begins with `start`; `WIDTH` bytes at a time.
#[inline]
fn starts_with(text: &[u8], start: &[u8]) -> bool {
    let text = &text[..start.len()];
    let (Some(text_end), Some(start_end)) =
        (text.last_chunk::<WIDTH>(), start.last_chunk::<WIDTH>())
    else {
        return starts_with_short(text, start);
    };
    let pairs = core::iter::zip(text.as_chunks::<WIDTH>().0, start.as_chunks::<WIDTH>().0);
    for (text, start) in pairs {
        if text != start {
            return false;
        }
    }
    text_end == start_end
}

/// The same for less than `WIDTH` bytes, `text` being as long as `start`.
#[inline]
fn starts_with_short(text: &[u8], start: &[u8]) -> bool {
    const HALF: usize = WIDTH / 2;
    match (text.first_chunk::<HALF>(), start.first_chunk::<HALF>()) {
        (Some(head), Some(start_head)) => {
            head == start_head && text.last_chunk::<HALF>() == start.last_chunk::<HALF>()
        }
        _ => core::iter::zip(text, start).all(|(text, start)| text == start),
    }
}

/// Bytes that are looked at together, in comparing and in hashing.
const WIDTH: usize = 16;

/// Whether `path` is `prefix` or lies below it; both in normal form.
#[inline(always)]
pub fn is_within(path: &[u8], prefix: &[u8]) -> bool {
    if prefix == b"/" {
        return path.first() == Some(&b'/');
    }
    match path.get(prefix.len()) {
        None => same(path, prefix),
        Some(after) => *after == b'/' && starts_with(path, prefix),
    }
}

/// The part of `path` below `prefix`, as an absolute path (`/` for the prefix itself), or `None`
/// where it lies elsewhere.
#[inline]
pub fn below<'p>(path: &'p [u8], prefix: &[u8]) -> Option<&'p [u8]> {
    if prefix.is_empty() || !is_within(path, prefix) {
        return None;
    }
    let rest = &path[prefix.len()..];
    Some(if rest.is_empty() { b"/" } else { rest })
}

/// The first eight bytes of a path, as one word; what is beyond its end counts as a slash.
#[inline]
pub fn first_word(path: &[u8]) -> u64 {
    match path.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let mut word = [b'/'; 8];
            word[..path.len()].copy_from_slice(path);
            u64::from_le_bytes(word)
        }
    }
}

/// A quick look that rules out most paths: the first component of a prefix, as far as it lies in
/// the first eight bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sieve {
    word: u64,
    mask: u64,
}

impl Sieve {
    /// For an absolute prefix in normal form.
    pub fn new(prefix: &[u8]) -> Sieve {
        let first = prefix.iter().skip(1).position(|&byte| byte == b'/');
        // With the slash that ends the component, which `first_word` puts behind a short path too.
        let length = first.map_or(prefix.len() + 1, |length| length + 2).min(8);
        let mask = u64::MAX >> (64 - 8 * length.max(1) as u32);
        Sieve {
            word: first_word(prefix) & mask,
            mask,
        }
    }

    /// Whether a path with this [`first_word`] may lie below the prefix.
    #[inline]
    pub fn passes(&self, word: u64) -> bool {
        (word ^ self.word) & self.mask == 0
    }
}

/// Whether the view leaves `path` out because it differs from node to node.
pub fn is_node_local(path: &[u8]) -> bool {
    NODE_LOCAL.iter().any(|prefix| is_within(path, prefix))
}

/// Whether `prefix` may be named as covered: absolute, in normal form, neither `/` nor a tree
/// that the kernel makes.
pub fn may_be_covered(prefix: &[u8]) -> bool {
    prefix.len() > 1
        && prefix.len() <= PATH_MAX
        && shape(prefix).normal
        && !NEVER_COVERED.iter().any(|never| is_within(prefix, never))
}

/// A hash of a path's bytes: fast, well mixed, the same in every process of a job.
///
/// Not keyed: the catalog compares the whole path as well, and its one writer bounds the length
/// of a probe, so that chosen collisions cost time on the chooser's own node only.
#[inline(always)]
pub fn hash(path: &[u8]) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd6e8_feb8_6659_fd93;
    let mix = |state: u64, (low, high): (u64, u64)| fold(state ^ low, high ^ B);
    let blocks = path.as_chunks().0.iter();
    let state = blocks.fold(A, |state, block| mix(state, halves(block)));
    // The last bytes may count twice: cheaper than one by one.
    let last = match (path.last_chunk(), path.first_chunk(), path.last_chunk()) {
        (Some(last), ..) => halves(last),
        (None, Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => {
            let push = |word, &byte| word << 8 | u64::from(byte);
            (path.iter().fold(0, push), 0)
        }
    };
    fold(mix(state, last) ^ path.len() as u64, A)
}

#[inline]
fn halves(bytes: &[u8; WIDTH]) -> (u64, u64) {
    let both = u128::from_le_bytes(*bytes);
    (both as u64, (both >> 64) as u64)
}

/// The halves of the product, one upon the other.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide as u64) ^ (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::ToOwned;
    use std::vec::Vec;

    fn tidied(path: &[u8]) -> (Vec<u8>, bool, bool) {
        let mut out = [0; 64];
        let tidied = tidy(path, &mut out).expect("fits");
        (
            out[..tidied.length].to_vec(),
            tidied.parents,
            tidied.wants_directory,
        )
    }

    #[test]
    fn shape_tells_normal_paths() {
        for path in [
            "/",
            "/a",
            "/a/b.c",
            "/a/.hidden",
            "/a/..b",
            "/long/er/than/eight/..c/.d",
        ] {
            assert!(shape(path.as_bytes()).normal, "{path}");
        }
        for path in [
            "",
            "a",
            "/a/",
            "//a",
            "/a//b",
            "/a/./b",
            "/a/..",
            "/abcdefg/./x",
            "/abcdef//x",
        ] {
            assert!(!shape(path.as_bytes()).normal, "{path}");
        }
    }

    #[test]
    fn tidy_keeps_parents_and_tells_directories() {
        assert_eq!(tidied(b"//a/./b/"), (b"/a/b".to_vec(), false, true));
        assert_eq!(tidied(b"/a/../b"), (b"/a/../b".to_vec(), true, false));
        assert_eq!(tidied(b"/./"), (b"/".to_vec(), false, true));
        assert!(tidy(b"/abc", &mut [0; 3]).is_none());
    }

    #[test]
    fn a_path_enters_a_directory_by_its_last_component() {
        for (path, enters) in [
            ("/a/.", true),
            ("/a/./", true),
            ("/a/.//", true),
            ("/a/", false),
            ("/a/./b", false),
            ("/a/./..", false),
        ] {
            let tidied = tidy(path.as_bytes(), &mut [0; 64]).expect("fits");
            assert_eq!(tidied.enters_directory, enters, "{path}");
        }
    }

    #[test]
    fn the_last_slash_is_found_wherever_it_is() {
        for length in 0..40 {
            for slash in 0..length {
                let mut path = std::vec![b'\xaf'; length];
                path[slash] = b'/';
                path[0] = b'/';
                let (parent, name) = split_last(&path);
                assert_eq!(name, &path[slash + 1..]);
                assert_eq!(parent, if slash == 0 { b"/" } else { &path[..slash] });
            }
        }
        assert_eq!(split_last(b"name"), (&b""[..], &b"name"[..]));
        assert_eq!(split_last(b"/"), (&b"/"[..], &b""[..]));
    }

    #[test]
    fn prefixes_end_at_components() {
        assert!(is_within(b"/a/b", b"/a"));
        assert!(is_within(b"/a", b"/a"));
        assert!(!is_within(b"/ab", b"/a"));
        assert_eq!(below(b"/v/x/y", b"/v"), Some(&b"/x/y"[..]));
        assert_eq!(below(b"/v", b"/v"), Some(&b"/"[..]));
        assert_eq!(below(b"/vx", b"/v"), None);
    }

    #[test]
    fn sieves_let_through_what_lies_below() {
        for prefix in [
            "/a",
            "/opt/env",
            "/lus/flare/x",
            "/averylongname/x",
            "/1234567",
        ] {
            let sieve = Sieve::new(prefix.as_bytes());
            for path in [prefix.to_owned(), std::format!("{prefix}/y/z")] {
                assert!(
                    sieve.passes(first_word(path.as_bytes())),
                    "{path} below {prefix}"
                );
            }
        }
        let sieve = Sieve::new(b"/opt/env");
        for path in ["/op", "/optional/env", "/usr/lib", "/", "/etc/passwd"] {
            assert!(!sieve.passes(first_word(path.as_bytes())), "{path}");
        }
    }

    #[test]
    fn kernel_trees_are_never_covered() {
        assert!(may_be_covered(b"/lus/env"));
        assert!(may_be_covered(b"/tmp/inputs"));
        for prefix in ["/", "/proc", "/dev/shm/x", "relative", "/a/../b", "/a/"] {
            assert!(!may_be_covered(prefix.as_bytes()), "{prefix}");
        }
    }

    #[test]
    fn hashes_differ_in_every_byte_and_length() {
        let base = b"/lus/env/lib/python3.11/site-packages".to_vec();
        let mut seen = std::collections::HashSet::new();
        assert!(seen.insert(hash(&base)));
        for at in 0..base.len() {
            let mut other = base.clone();
            other[at] ^= 1;
            assert!(seen.insert(hash(&other)));
            assert!(seen.insert(hash(&base[..at])));
        }
    }

    #[test]
    fn hashes_of_similar_names_spread() {
        let names = (0..1 << 14).map(|number| std::format!("/lus/env/lib/module-{number}.py"));
        let mut low = std::vec![0u8; 1 << 14];
        let mut high = low.clone();
        for hash in names.map(|name| hash(name.as_bytes())) {
            low[hash as usize % (1 << 14)] += 1;
            high[(hash >> 50) as usize] += 1;
        }
        // As many names as places: with a random function the fullest place holds about seven.
        assert!(low.iter().chain(&high).all(|&count| count < 12));
    }

    #[test]
    fn texts_are_compared_to_their_last_byte() {
        for length in 0..70 {
            let text = std::vec![b'a'; length];
            assert!(same(&text, &text));
            assert!(!same(&text, &std::vec![b'a'; length + 1]));
            for at in 0..length {
                let mut other = text.clone();
                other[at] = b'b';
                assert!(!same(&text, &other), "{at} of {length}");
            }
        }
    }

    #[test]
    fn shape_sees_every_place() {
        for length in 2..70 {
            for at in 1..length {
                let mut path = std::vec![b'a'; length];
                path[0] = b'/';
                assert!(shape(&path).normal);
                path[at] = b'/';
                assert_eq!(shape(&path).normal, at != 1 && at != length - 1);
                if at + 2 < length {
                    path[at + 1] = b'.';
                    path[at + 2] = b'/';
                    assert!(!shape(&path).normal, "./ at {at} of {length}");
                }
            }
        }
    }
}
