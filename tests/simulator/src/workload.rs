//! What the ranks of a job do: recorded file calls of a real import, and generated larger ones.

use copper_core::tree::{Kind, Object, parent_directory};
use std::collections::HashMap;

/// The recorded import of numpy, scipy.sparse and pandas.
const IMPORT: &str = include_str!("../workloads/import.workload");

/// Bytes of one name with its attributes in a directory's listing.
const ENTRY_BYTES: u64 = 160;

/// Bytes of the list of libraries that an ELF file needs.
const CLOSURE_BYTES: u64 = 300;

/// Where the recorded paths lie on the origin.
const PREFIX: &str = "/lus/project";

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A file of so many bytes.
    File(u64),
    /// A directory of so many names.
    Directory(u64),
    /// A symlink.
    Link,
    /// Not there.
    Absent,
}

/// What a program asks of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Its attributes, or a link's target.
    Attributes,
    /// All its bytes.
    Read,
    /// A library, with what it needs.
    Map,
    /// Its listing.
    List,
}

/// One file call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The program's own work before it, in nanoseconds.
    pub think: u64,
    /// What it asks.
    pub operation: Operation,
    /// Of which path.
    pub path: usize,
}

/// The file calls of one rank.
#[derive(Clone, Debug)]
pub struct Workload {
    /// For tables.
    pub name: &'static str,
    /// All paths, and what they are.
    pub paths: Vec<(String, Node)>,
    /// In the order of the program.
    pub calls: Vec<Call>,
}

/// Something a node needs that it did not have, in the order of first need.
#[derive(Clone, Debug)]
pub struct Need {
    /// The program's own work since the need before, in nanoseconds.
    pub think: u64,
    /// What is needed.
    pub object: Object,
    /// Bytes of its body.
    pub length: u64,
    /// Metadata operations that it costs the origin, one after the other.
    pub operations: u64,
}

impl Workload {
    /// The recorded import.
    pub fn import() -> Self {
        parse(IMPORT).expect("the recorded workload is well formed")
    }

    /// An import of torch's size, from published counts: 728 files of 36 MB together, 27 of them
    /// libraries, and four libraries of 100 MB to 1 GB; the think time per call is the recorded
    /// import's.
    pub fn torch() -> Self {
        const FILES: u64 = 728;
        const LIBRARIES: u64 = 27;
        const BYTES: u64 = 36_000_000;
        const LARGE: [u64; 4] = [100_000_000, 250_000_000, 500_000_000, 1_000_000_000];
        let recorded = Self::import();
        let total: u64 = recorded.calls.iter().map(|call| call.think).sum();
        let think = total / recorded.calls.len() as u64;
        let mut paths = Vec::new();
        let mut calls = Vec::new();
        let mut add = |path: String, node| {
            paths.push((path, node));
            paths.len() - 1
        };
        // Half of the small bytes are in the small libraries, the rest even over the modules.
        let small = BYTES / 2 / (FILES - LIBRARIES);
        let library = BYTES / 2 / LIBRARIES;
        for directory in 0..70 {
            add(
                format!("{PREFIX}/torch/d{directory}"),
                Node::Directory(FILES / 70 + 2),
            );
        }
        for i in 0..FILES {
            let is_library = i % (FILES / LIBRARIES) == 0 && i / (FILES / LIBRARIES) < LIBRARIES;
            let (suffix, size) = if is_library {
                ("so", library)
            } else {
                ("pyc", small)
            };
            let file = add(
                format!("{PREFIX}/torch/d{}/f{i}.{suffix}", i % 70),
                Node::File(size),
            );
            let absent = add(format!("{PREFIX}/torch/d{}/a{i}", i % 70), Node::Absent);
            // An import asks for several names that are not there before it opens a file.
            for path in [absent, absent, file] {
                calls.push(Call {
                    think,
                    operation: Operation::Attributes,
                    path,
                });
            }
            let operation = if is_library {
                Operation::Map
            } else {
                Operation::Read
            };
            calls.push(Call {
                think,
                operation,
                path: file,
            });
        }
        for (i, size) in LARGE.into_iter().enumerate() {
            let path = add(
                format!("{PREFIX}/torch/d0/libtorch{i}.so"),
                Node::File(size),
            );
            calls.push(Call {
                think,
                operation: Operation::Map,
                path,
            });
        }
        Self {
            name: "torch-sized import",
            paths,
            calls,
        }
    }

    /// What a node needs, in order, each thing once: what the shim asks its helper for.
    pub fn needs(&self) -> Vec<Need> {
        let index: HashMap<&str, Node> = self
            .paths
            .iter()
            .map(|(path, node)| (path.as_str(), *node))
            .collect();
        let mut seen = HashMap::new();
        let mut needs: Vec<Need> = Vec::new();
        let mut think = 0;
        for call in &self.calls {
            think += call.think;
            let (path, node) = &self.paths[call.path];
            let mut wanted = vec![(
                Kind::Directory,
                listing_for(path, *node, call.operation, &index),
            )];
            match call.operation {
                Operation::Map => {
                    wanted.extend([(Kind::Closure, path.clone()), (Kind::Content, path.clone())])
                }
                Operation::Read => wanted.push((Kind::Content, path.clone())),
                Operation::Attributes | Operation::List => {}
            }
            for (kind, path) in wanted {
                let object =
                    Object::new(kind, path.as_bytes()).expect("recorded paths are canonical");
                if seen.insert(object.clone(), ()).is_none() {
                    let node = index
                        .get(path.as_str())
                        .copied()
                        .unwrap_or(Node::Directory(8));
                    let (length, operations) = cost(kind, node);
                    needs.push(Need {
                        think,
                        object,
                        length,
                        operations,
                    });
                    think = 0;
                }
            }
        }
        needs
    }

    /// The program's own work after its last need, in nanoseconds.
    pub fn tail(&self) -> u64 {
        let total: u64 = self.calls.iter().map(|call| call.think).sum();
        total - self.needs().iter().map(|need| need.think).sum::<u64>()
    }
}

/// The directory whose listing answers a call: the one that holds the path, or of those above it the
/// first that exists.
fn listing_for(
    path: &str,
    node: Node,
    operation: Operation,
    index: &HashMap<&str, Node>,
) -> String {
    if operation == Operation::List
        || (operation == Operation::Attributes && matches!(node, Node::Directory(_)))
    {
        return path.to_owned();
    }
    let mut path = path;
    loop {
        let parent = parent_directory(path.as_bytes()).unwrap_or(b"/");
        path = std::str::from_utf8(parent).unwrap_or("/");
        if path == "/" || !matches!(index.get(path), Some(Node::Absent)) {
            return path.to_owned();
        }
    }
}

/// Bytes of body, and metadata operations at the origin, of what `kind` says of a node. A listing's
/// attributes are fetched 32 at a time; a file is opened and its attributes taken before and after.
fn cost(kind: Kind, node: Node) -> (u64, u64) {
    match (kind, node) {
        (Kind::Directory, Node::Directory(names)) => {
            (names * ENTRY_BYTES + ENTRY_BYTES, 2 + names.div_ceil(32))
        }
        (Kind::Content, Node::File(size)) => (size, 2),
        (Kind::Closure, _) => (CLOSURE_BYTES, 2),
        _ => (0, 1),
    }
}

fn parse(text: &'static str) -> Option<Workload> {
    let mut paths = Vec::new();
    let mut calls = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.splitn(3, ' ');
        let (tag, number, rest) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let node = match tag {
            "f" => Node::File(number),
            "d" => Node::Directory(number),
            "l" => Node::Link,
            "n" => Node::Absent,
            _ => {
                let (operation, path) = rest.split_once(' ')?;
                let operation = match operation {
                    "r" => Operation::Read,
                    "m" => Operation::Map,
                    "o" => Operation::List,
                    _ => Operation::Attributes,
                };
                calls.push(Call {
                    think: number * 1_000,
                    operation,
                    path: path.parse().ok()?,
                });
                continue;
            }
        };
        paths.push((format!("{PREFIX}/{rest}"), node));
    }
    Some(Workload {
        name: "import of numpy, scipy.sparse, pandas",
        paths,
        calls,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_import_is_a_real_one() {
        let workload = Workload::import();
        let needs = workload.needs();
        let files = needs
            .iter()
            .filter(|need| need.object.kind() == Kind::Content);
        let bytes: u64 = files.clone().map(|need| need.length).sum();
        assert!(files.count() > 500 && bytes > 20_000_000, "{bytes} bytes");
        assert!(
            workload.calls.len() > 4 * needs.len(),
            "most calls need nothing new"
        );
        assert!(workload.tail() < SECOND_HALF);
        assert!(
            !workload
                .paths
                .iter()
                .any(|(path, _)| path.contains("/root") || path.contains("/home"))
        );
    }

    const SECOND_HALF: u64 = 500_000_000;

    #[test]
    fn the_generated_import_has_the_published_counts() {
        let workload = Workload::torch();
        let files: Vec<u64> = workload
            .paths
            .iter()
            .filter_map(|(_, node)| {
                if let Node::File(size) = node {
                    Some(*size)
                } else {
                    None
                }
            })
            .collect();
        let small: Vec<u64> = files
            .iter()
            .copied()
            .filter(|&size| size < 50_000_000)
            .collect();
        assert_eq!((files.len(), small.len()), (732, 728));
        let bytes: u64 = small.iter().sum();
        assert!((35_000_000..=36_000_000).contains(&bytes), "{bytes}");
        let libraries = workload
            .calls
            .iter()
            .filter(|call| call.operation == Operation::Map)
            .count();
        assert_eq!(libraries, 27 + 4);
    }
}
