//! What the tree is asked for, and what is known about it.
//!
//! The tree names an object by its kind and its canonical absolute origin path (bytes, not text),
//! and knows of it only whether it exists, in which version, and how long its *body* is. The body
//! itself (encoded attributes, a listing, a file's bytes, a list of libraries) belongs to the
//! driver, which encodes it, stores it and moves it.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use serde::{Deserialize, Serialize};

use super::topology::{Topology, TreeIndex};

/// The longest path, in bytes, without a terminating NUL (`PATH_MAX` less one).
pub const MAX_PATH: usize = 4_095;

/// What is asked about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The attributes of one name, its last symlink not followed, and a symlink's target.
    Entry,
    /// A directory's own attributes and its whole listing, each name with its attributes.
    Directory,
    /// A file's bytes.
    Content,
    /// The libraries that must be stored together with an ELF file: its DT_NEEDED closure.
    Closure,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Entry, Self::Directory, Self::Content, Self::Closure];
}

/// Why a path cannot name an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not begin with a slash.
    NotAbsolute,
    /// It is longer than [`MAX_PATH`].
    TooLong,
    /// It holds a NUL byte.
    Nul,
    /// It holds an empty, `.` or `..` component, or a trailing slash.
    NotCanonical,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path is not absolute; give one that begins with '/'",
            Self::TooLong => "the path is longer than 4,095 bytes",
            Self::Nul => "the path holds a NUL byte",
            Self::NotCanonical => {
                "the path is not in canonical form; remove '.', '..', doubled and trailing slashes"
            }
        })
    }
}

impl core::error::Error for PathError {}

/// Checks that `path` is absolute, bounded and canonical, as every path in the tree is.
///
/// # Errors
/// What is wrong with it.
pub fn check_path(path: &[u8]) -> Result<(), PathError> {
    match path {
        [b'/', ..] => {}
        _ => return Err(PathError::NotAbsolute),
    }
    if path.len() > MAX_PATH {
        return Err(PathError::TooLong);
    }
    if path.contains(&0) {
        return Err(PathError::Nul);
    }
    if path == b"/" {
        return Ok(());
    }
    let canonical = path[1..]
        .split(|&byte| byte == b'/')
        .all(|name| !matches!(name, b"" | b"." | b".."));
    if canonical {
        Ok(())
    } else {
        Err(PathError::NotCanonical)
    }
}

/// The directory that holds `path`; none for the root directory.
pub fn parent_directory(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    match (slash, path.len()) {
        (0, 1) => None,
        (0, _) => Some(&path[..1]),
        _ => Some(&path[..slash]),
    }
}

struct Named {
    hash: u64,
    kind: Kind,
    path: Box<[u8]>,
}

/// A kind and a path; cheap to copy, compared by content.
#[derive(Clone)]
pub struct Object(Arc<Named>);

impl Object {
    /// Names what `kind` says of `path`.
    ///
    /// # Errors
    /// A path that is not absolute and canonical, or too long.
    pub fn new(kind: Kind, path: &[u8]) -> Result<Self, PathError> {
        check_path(path)?;
        Ok(Self(Arc::new(Named {
            hash: stable_hash(kind, path),
            kind,
            path: path.into(),
        })))
    }

    /// What is asked.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Of which path.
    pub fn path(&self) -> &[u8] {
        &self.0.path
    }

    /// A hash that is the same on every node.
    pub fn hash(&self) -> u64 {
        self.0.hash
    }

    /// The tree whose root asks the origin for this object.
    pub fn tree(&self, topology: &Topology) -> TreeIndex {
        // The multiply-shift maps the hash's upper half evenly on 0..T.
        let trees = u64::from(topology.trees());
        (((self.0.hash >> 32) * trees) >> 32) as TreeIndex
    }

    /// The tree that carries chunk `chunk` of this object's body. A file's chunks are spread over
    /// all trees; any other body exists only where it was encoded, so its own tree carries it all.
    pub fn chunk_tree(&self, topology: &Topology, chunk: u32) -> TreeIndex {
        let home = self.tree(topology);
        match self.0.kind {
            Kind::Content => {
                ((u32::from(home) + chunk % u32::from(topology.trees()))
                    % u32::from(topology.trees())) as TreeIndex
            }
            _ => home,
        }
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash
                && self.0.kind == other.0.kind
                && self.0.path == other.0.path)
    }
}

impl Eq for Object {}

impl core::hash::Hash for Object {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.0.kind, self.0.path.escape_ascii())
    }
}

/// FNV-1a with a final mix: nodes must agree on it, so it may not depend on a random state.
fn stable_hash(kind: Kind, path: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for &byte in [kind as u8].iter().chain(path) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

/// The finalizer of SplitMix64: spreads a change in any bit over all bits.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What tells two states of a file apart. The driver fills it from `lstat` or `fstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The inode's number.
    pub inode: u64,
    /// The file's size in bytes.
    pub size: u64,
    /// Last change of the data: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// Last change of the inode: seconds and nanoseconds since 1970.
    pub changed: (i64, u32),
}

impl Version {
    /// A digest for comparison; never 0, which stands for no version.
    pub fn stamp(&self) -> u64 {
        let fields = [
            self.inode,
            self.size,
            self.modified.0 as u64,
            u64::from(self.modified.1),
            self.changed.0 as u64,
            u64::from(self.changed.1),
        ];
        fields
            .into_iter()
            .fold(0x9e37_79b9_7f4a_7c15, |hash, field| mix(hash ^ field))
            .max(1)
    }
}

/// What the origin said of an object: true until it is invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It exists; its body is `length` bytes long.
    Present {
        /// Which state of it this is.
        version: Version,
        /// Bytes of body. For [`Kind::Content`] this is the file's size.
        length: u64,
    },
    /// The origin's definite refusal: `ENOENT`, `ENOTDIR`, `EACCES`, `ELOOP`, ...
    Absent {
        /// The errno a plain call would have seen.
        errno: i32,
    },
    /// A directory above the size limit (ask name by name), or a file that no store may hold.
    TooLarge,
}

/// An object together with what is known of it. Immutable, shared by reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was asked.
    pub object: Object,
    /// What the origin said.
    pub outcome: Outcome,
}

impl Record {
    /// Bytes of body: 0 unless present.
    pub fn length(&self) -> u64 {
        match self.outcome {
            Outcome::Present { length, .. } => length,
            _ => 0,
        }
    }

    /// The version's digest: 0 unless present.
    pub fn stamp(&self) -> u64 {
        match self.outcome {
            Outcome::Present { version, .. } => version.stamp(),
            _ => 0,
        }
    }

    /// Whether the object exists.
    pub fn is_present(&self) -> bool {
        matches!(self.outcome, Outcome::Present { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_absolute_paths_name_objects() {
        for good in [&b"/"[..], b"/a", b"/a/b", b"/a/..b", b"/\xff\n/...", b"/ "] {
            assert_eq!(check_path(good), Ok(()), "{}", good.escape_ascii());
        }
        for (bad, why) in [
            (&b""[..], PathError::NotAbsolute),
            (b"a", PathError::NotAbsolute),
            (b"/a/", PathError::NotCanonical),
            (b"//a", PathError::NotCanonical),
            (b"/a/./b", PathError::NotCanonical),
            (b"/..", PathError::NotCanonical),
            (b"/a\0", PathError::Nul),
        ] {
            assert_eq!(check_path(bad), Err(why), "{}", bad.escape_ascii());
        }
        let mut long = alloc::vec![b'a'; MAX_PATH + 1];
        long[0] = b'/';
        assert_eq!(check_path(&long), Err(PathError::TooLong));
        assert_eq!(check_path(&long[..MAX_PATH]), Ok(()));
    }

    #[test]
    fn parents_of_paths() {
        assert_eq!(parent_directory(b"/"), None);
        assert_eq!(parent_directory(b"/a"), Some(&b"/"[..]));
        assert_eq!(parent_directory(b"/a/b"), Some(&b"/a"[..]));
    }

    #[test]
    fn objects_spread_evenly_over_the_trees() {
        let topology = Topology::new(64, 8, 8).unwrap();
        let mut counts = [0_u32; 8];
        for i in 0..8_000 {
            let object =
                Object::new(Kind::Content, alloc::format!("/lib/m{i}.py").as_bytes()).unwrap();
            counts[object.tree(&topology) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&count| (850..1_150).contains(&count)),
            "{counts:?}"
        );
    }

    #[test]
    fn any_changed_field_changes_the_stamp() {
        let base = Version {
            inode: 7,
            size: 1,
            modified: (2, 3),
            changed: (4, 5),
        };
        let others = [
            Version { inode: 8, ..base },
            Version { size: 2, ..base },
            Version {
                modified: (2, 4),
                ..base
            },
            Version {
                changed: (5, 5),
                ..base
            },
        ];
        for other in others {
            assert_ne!(base.stamp(), other.stamp());
        }
    }
}
