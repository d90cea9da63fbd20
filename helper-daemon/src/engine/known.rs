//! Putting what the origin said into the catalog.
#![forbid(unsafe_code)]

use super::Engine;
use crate::origin::snapshot::{Listed, Name};
use crate::origin::work::join;
use crate::origin::{OriginPath, Said};
use crate::view;
use copper_core::attributes::Attributes;
use copper_core::catalog::reader::Kind;
use copper_core::catalog::writer::{Child, Full, What};

impl Engine {
    /// Makes one path known.
    pub(super) fn publish(&mut self, path: &OriginPath, said: &Said) -> Result<u64, Full> {
        self.before_publishing(path, said);
        let what = match said {
            _ if self.written.has(path) => What::Pass,
            Said::Present(attributes, _) if self.written.has_file(attributes) => What::Pass,
            Said::Present(attributes, target) => What::Present(attributes, target),
            Said::Absent(errno) => What::Absent(*errno),
            Said::Refused(_) => What::Pass,
        };
        self.writer.publish(path, what)
    }

    /// Forgets what contradicts that which is about to become known: what lay below a directory
    /// that is none any more or another one, and the bytes of a file that is another version.
    fn before_publishing(&mut self, path: &OriginPath, said: &Said) {
        let now = match said {
            Said::Present(attributes, _) => Some(&**attributes),
            _ => None,
        };
        self.note_links(path, now);
        let Some(old) = self.writer.reader().find(path) else {
            return;
        };
        let was = *old.attributes();
        let same_directory = now.is_some_and(|now| {
            now.is_directory() && now.device == was.device && now.inode == was.inode
        });
        if was.is_directory() && !same_directory {
            self.forget_below(path);
        }
        if !now.is_some_and(|now| now.same_version(&was)) {
            self.drop_content(path);
        }
    }

    fn note_links(&mut self, path: &OriginPath, now: Option<&Attributes>) {
        if let Some(now) = now.filter(|now| now.is_regular() && now.links > 1) {
            let names = self.linked.entry((now.device, now.inode)).or_default();
            if !names.contains(path) {
                names.push(path.clone());
            }
        }
    }

    /// Which names of a listing must still be asked for: those not known with the same inode.
    pub(super) fn unknown_names(&self, directory: &[u8], listed: &Listed) -> Vec<usize> {
        let reader = self.writer.reader();
        let unknown = |name: &[u8], inode: u64| {
            let path = join(directory, name);
            !self.written.has(&path)
                && !reader.live(&path).is_some_and(|known| {
                    known.kind() == Kind::Present && known.attributes().inode == inode
                })
        };
        listed
            .names
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.is_dots() && unknown(&name.name, name.inode))
            .map(|(position, _)| position)
            .collect()
    }

    /// Makes a directory known whole.
    pub(super) fn publish_directory(
        &mut self,
        path: &OriginPath,
        attributes: &Attributes,
        names: &[Name],
        mut said: Vec<(usize, Said)>,
    ) -> Result<(), Full> {
        said.sort_unstable_by_key(|(position, _)| *position);
        for (position, said) in &said {
            let child: OriginPath = join(path, &names[*position].name).into();
            match said {
                Said::Absent(_) => {}
                said => {
                    self.publish(&child, said)?;
                }
            }
        }
        let vanished = |position: usize| {
            said.binary_search_by_key(&position, |(position, _)| *position)
                .is_ok_and(|at| matches!(said[at].1, Said::Absent(_)))
        };
        let root = &path[..] == b"/";
        let mut children = Vec::with_capacity(names.len());
        for (position, name) in names.iter().enumerate() {
            if vanished(position) || (root && !name.is_dots() && !view::shows(&name.name)) {
                continue;
            }
            let written = self.written.has(&join(path, &name.name));
            children.push(Child {
                name: &name.name,
                inode: name.inode,
                directory_type: name.directory_type,
                what: written.then_some(What::Pass),
            });
        }
        self.before_publishing(path, &Said::Present(Box::new(*attributes), Box::default()));
        self.writer.publish_directory(path, attributes, &children)?;
        self.complete.insert(path.clone());
        Ok(())
    }
}
