//! The bodies of objects as they travel between helpers.
//!
//! An entry's body is its attributes and a link's target; a directory's its own attributes and
//! each name with what the origin said of it; a file's body is its bytes, and its attributes go
//! before them (or beside a grant). Nothing is believed that is not well formed and within bounds.
#![forbid(unsafe_code)]

use super::mounts::{Mount, Mounts};
use crate::origin::Said;
use crate::origin::snapshot::Name;
use copper_core::attributes::Attributes;
use copper_core::path::PATH_MAX;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Longest name of a directory's entry, in bytes.
const MOST_NAME: usize = 255;

/// A file's attributes, with what is needed to make sense of its numbers elsewhere.
#[derive(Serialize, Deserialize)]
struct Head {
    mount: Option<Mount>,
    attributes: Attributes,
}

#[derive(Serialize, Deserialize)]
struct EntryBody<'a> {
    head: Head,
    target: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct DirectoryBody<'a> {
    /// The mounts that its names lie on, by the number that the sender gave them.
    mounts: Vec<Mount>,
    attributes: Attributes,
    #[serde(borrow)]
    names: Vec<NameBody<'a>>,
}

#[derive(Serialize, Deserialize)]
struct NameBody<'a> {
    name: &'a [u8],
    inode: u64,
    directory_type: u8,
    #[serde(borrow)]
    said: Option<SaidBody<'a>>,
}

#[derive(Serialize, Deserialize)]
enum SaidBody<'a> {
    Present(Attributes, &'a [u8]),
    Absent(u16),
    Refused(i32),
}

#[derive(Serialize, Deserialize)]
struct GrantBody<'a> {
    head: Option<Head>,
    descriptor: &'a [u8],
}

/// A directory with all that is known of its names, by position.
#[derive(Debug, PartialEq)]
pub(super) struct Directory {
    pub(super) attributes: Attributes,
    pub(super) names: Vec<Name>,
    pub(super) said: Vec<(usize, Said)>,
}

fn encode(body: &impl Serialize) -> Vec<u8> {
    // Growing a vector is the only thing this serializer does, and it cannot fail.
    postcard::to_allocvec(body).unwrap_or_default()
}

/// Reads all of `bytes`; `None` where they are not exactly one `T`.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((body, [])) => Some(body),
        _ => None,
    }
}

impl Mounts {
    fn head(&mut self, attributes: &Attributes) -> Head {
        Head {
            mount: self.of(attributes),
            attributes: *attributes,
        }
    }

    fn read_head(&mut self, head: Head) -> Attributes {
        let mut attributes = head.attributes;
        if let Some(mount) = &head.mount {
            self.translate(mount, &mut attributes);
        }
        attributes
    }

    /// An entry's body.
    pub(super) fn encode_entry(&mut self, attributes: &Attributes, target: &[u8]) -> Vec<u8> {
        let head = self.head(attributes);
        encode(&EntryBody { head, target })
    }

    /// Reads an entry's body.
    pub(super) fn decode_entry(&mut self, bytes: &[u8]) -> Option<Said> {
        let body: EntryBody<'_> = decode(bytes)?;
        let target = checked_target(body.target)?;
        let attributes = self.read_head(body.head);
        Some(Said::Present(Box::new(attributes), target.into()))
    }

    /// What goes before a file's bytes.
    pub(super) fn encode_head(&mut self, attributes: &Attributes) -> Vec<u8> {
        let head = self.head(attributes);
        encode(&head)
    }

    /// Reads what goes before a file's bytes.
    pub(super) fn decode_head(&mut self, bytes: &[u8]) -> Option<Attributes> {
        let head = decode(bytes)?;
        Some(self.read_head(head))
    }

    /// What is attached to a grant: a file's attributes, and how its bytes are to be fetched.
    pub(super) fn encode_grant(
        &mut self,
        attributes: Option<&Attributes>,
        descriptor: &[u8],
    ) -> Vec<u8> {
        let head = attributes.map(|attributes| self.head(attributes));
        encode(&GrantBody { head, descriptor })
    }

    /// Reads what is attached to a grant.
    pub(super) fn decode_grant(&mut self, bytes: &[u8]) -> Option<(Option<Attributes>, Vec<u8>)> {
        let body: GrantBody<'_> = decode(bytes)?;
        let attributes = body.head.map(|head| self.read_head(head));
        Some((attributes, body.descriptor.to_vec()))
    }

    /// A directory's body.
    pub(super) fn encode_directory(
        &mut self,
        attributes: &Attributes,
        names: &[Name],
        said: &[Option<Said>],
    ) -> Vec<u8> {
        let mut mounts: Vec<Mount> = Vec::new();
        let mut note = |attributes: &Attributes| {
            if let Some(mount) = self.of(attributes)
                && !mounts.contains(&mount)
            {
                mounts.push(mount);
            }
        };
        note(attributes);
        let names = names
            .iter()
            .zip(said)
            .map(|(name, said)| NameBody {
                name: &name.name,
                inode: name.inode,
                directory_type: name.directory_type,
                said: said.as_ref().map(|said| match said {
                    Said::Present(attributes, target) => {
                        note(attributes);
                        SaidBody::Present(**attributes, target)
                    }
                    Said::Absent(errno) => SaidBody::Absent(*errno),
                    Said::Refused(error) => SaidBody::Refused(error.raw_os_error()),
                }),
            })
            .collect();
        encode(&DirectoryBody {
            attributes: *attributes,
            names,
            mounts,
        })
    }

    /// Reads a directory's body.
    pub(super) fn decode_directory(&mut self, bytes: &[u8]) -> Option<Directory> {
        let body: DirectoryBody<'_> = decode(bytes)?;
        let mut translated = |mut attributes: Attributes| {
            let at = attributes.mount;
            if let Some(mount) = body.mounts.iter().find(|mount| mount.is(at)) {
                self.translate(mount, &mut attributes);
            }
            attributes
        };
        let attributes = translated(body.attributes);
        let mut names = Vec::with_capacity(body.names.len());
        let mut said = Vec::with_capacity(body.names.len());
        for (position, name) in body.names.into_iter().enumerate() {
            names.push(Name {
                name: checked_name(name.name)?.into(),
                inode: name.inode,
                directory_type: name.directory_type,
            });
            let answer = match name.said {
                None => continue,
                Some(SaidBody::Present(attributes, target)) => {
                    let target = checked_target(target)?.into();
                    Said::Present(Box::new(translated(attributes)), target)
                }
                Some(SaidBody::Absent(errno)) => Said::Absent(errno),
                Some(SaidBody::Refused(errno)) => Said::Refused(checked_error(errno)?),
            };
            said.push((position, answer));
        }
        Some(Directory {
            attributes,
            names,
            said,
        })
    }
}

fn checked_name(name: &[u8]) -> Option<&[u8]> {
    let bounded = !name.is_empty() && name.len() <= MOST_NAME;
    (bounded && !name.contains(&b'/') && !name.contains(&0)).then_some(name)
}

fn checked_target(target: &[u8]) -> Option<&[u8]> {
    (target.len() <= PATH_MAX && !target.contains(&0)).then_some(target)
}

/// An error number as system calls give it.
pub(super) fn checked_error(errno: i32) -> Option<Errno> {
    (1..4096)
        .contains(&errno)
        .then(|| Errno::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(inode: u64) -> Attributes {
        Attributes {
            inode,
            mode: 0o100_644,
            size: 12,
            ..Attributes::default()
        }
    }

    fn name(name: &[u8]) -> Name {
        Name {
            name: name.into(),
            inode: 5,
            directory_type: 8,
        }
    }

    #[test]
    fn bodies_are_read_as_written_and_not_when_cut() {
        let mut mounts = Mounts::default();
        let said = Said::Present(Box::new(attributes(7)), b"to/there"[..].into());
        let entry = mounts.encode_entry(&attributes(7), b"to/there");
        assert_eq!(mounts.decode_entry(&entry), Some(said.clone()));
        let names = [name(b"."), name(b"link"), name(b"gone"), name(b"shut")];
        let answers = [
            None,
            Some(said.clone()),
            Some(Said::Absent(2)),
            Some(Said::Refused(Errno::ACCESS)),
        ];
        let directory = mounts.encode_directory(&attributes(1), &names, &answers);
        let read = mounts.decode_directory(&directory).unwrap();
        assert_eq!(read.attributes, attributes(1));
        assert_eq!(read.names, names);
        let expected = answers.into_iter().enumerate();
        let expected: Vec<_> = expected
            .filter_map(|(at, said)| Some((at, said?)))
            .collect();
        assert_eq!(read.said, expected);
        for cut in 0..directory.len() {
            assert!(mounts.decode_directory(&directory[..cut]).is_none());
        }
        for cut in 0..entry.len() {
            assert!(mounts.decode_entry(&entry[..cut]).is_none());
        }
        let grant = mounts.encode_grant(Some(&attributes(3)), b"descriptor");
        let (head, descriptor) = mounts.decode_grant(&grant).unwrap();
        assert_eq!(
            (head, &descriptor[..]),
            (Some(attributes(3)), &b"descriptor"[..])
        );
    }

    #[test]
    fn names_and_targets_out_of_bounds_are_refused() {
        let mut mounts = Mounts::default();
        for bad in [&b""[..], b"a/b", b"a\0b", &[b'x'; 256]] {
            let body = mounts.encode_directory(&attributes(1), &[name(bad)], &[None]);
            assert!(mounts.decode_directory(&body).is_none(), "{bad:?}");
        }
        let long = mounts.encode_entry(&attributes(1), &vec![b'x'; PATH_MAX + 1]);
        assert!(mounts.decode_entry(&long).is_none());
        let refused = [Some(Said::Refused(Errno::from_raw_os_error(4095)))];
        let body = mounts.encode_directory(&attributes(1), &[name(b"a")], &refused);
        assert!(mounts.decode_directory(&body).is_some());
    }
}
