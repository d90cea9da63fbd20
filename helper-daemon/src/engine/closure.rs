//! A library with all that the dynamic loader will search on its behalf.
//!
//! The loader runs in the store's mirror: it sees the library under its mirror path, expands
//! `$ORIGIN` to the mirror's directory, and opens the names it needs below it. So each of them must
//! be there before the loader starts: a file that the origin reaches through links gets one more
//! name in the mirror, so that it is loaded once under whatever name.
//!
//! Where one of the needed files cannot be stored, the library is loaded from the origin.
#![forbid(unsafe_code)]

use super::resolve::Walked;
use super::resolve::wait_for;
use super::{Engine, Step, Task};
use crate::elf::{self, Needs};
use crate::origin::OriginPath;
use crate::origin::work::{collapse, join};
use copper_core::catalog::writer::Full;
use copper_core::path::{PATH_MAX, split_last};
use copper_core::request::Outcome;
use copper_core::tree::Kind;
use std::collections::HashSet;
use std::sync::Arc;

/// More libraries than this are not followed.
const MOST_LIBRARIES: usize = 1024;
const VARIANTS: &[u8] = b"glibc-hwcaps";

/// The directories that one element of a search path may stand for; only the loader knows which.
type Element = Vec<Vec<u8>>;

/// A library as the loader finds it.
#[derive(Clone, Debug)]
struct Library {
    /// Its path on the origin, as the loader would spell it there.
    native: Vec<u8>,
    /// The search paths of those that need it (`DT_RPATH`, which is inherited).
    inherited: Vec<Element>,
}

/// What a part of the work came to: a value, or the reason to end here for now.
type Part<T> = Result<T, Halt>;

enum Halt {
    Step(Step),
    Full,
}

impl From<Full> for Halt {
    fn from(Full: Full) -> Halt {
        Halt::Full
    }
}

impl Engine {
    pub(super) fn closure(&mut self, path: &OriginPath, task: &mut Task) -> Result<Step, Full> {
        match self.close(path, task) {
            Ok(()) => {
                self.note_closure(path);
                Ok(Step::Done(Outcome::Known))
            }
            Err(Halt::Step(step)) => Ok(step),
            Err(Halt::Full) => Err(Full),
        }
    }

    /// Lets programs find in the catalog that they need not ask for this closure again. The path with
    /// links in it has a closure of its own: the loader sees another `$ORIGIN`.
    fn note_closure(&mut self, path: &OriginPath) {
        if let Walked::Found(found) = self.walk(path, true)
            && found.path == *path
        {
            self.writer.set_closure(found.offset);
        }
    }

    fn close(&mut self, path: &OriginPath, task: &mut Task) -> Part<()> {
        let mut seen = HashSet::new();
        let mut open = vec![Library {
            native: path.to_vec(),
            inherited: Vec::new(),
        }];
        while let Some(mut library) = open.pop() {
            if seen.len() > MOST_LIBRARIES {
                return Err(Halt::Step(Step::Done(Outcome::PassThrough)));
            }
            let mirrored = mirror_name(&library.native)?;
            if !seen.insert(mirrored.clone()) {
                continue;
            }
            if self.is_same_place(&library.native, &mirrored) {
                library.native = mirrored.to_vec();
            }
            let Some(needs) = self.store_library(&library.native, &mirrored, task)? else {
                continue;
            };
            self.store_needs(&library, &needs, &mut open)?;
        }
        Ok(())
    }

    /// Whether a spelling with `..` in it leads through no links, so that it means the same without.
    /// Spellings would grow with each `$ORIGIN/..` on the way, and the work on them with their number.
    fn is_same_place(&mut self, spelling: &[u8], collapsed: &[u8]) -> bool {
        let mut directory = |path: &[u8]| match self.walk(split_last(path).0, true) {
            Walked::Found(found) => Some(found.path),
            _ => None,
        };
        spelling != collapsed
            && directory(spelling)
                .is_some_and(|place| directory(collapsed).is_some_and(|other| other == place))
    }

    /// Puts one library into the store under the name that the loader will open; returns what it
    /// needs, or `None` where it is no ELF file.
    fn store_library(
        &mut self,
        native: &[u8],
        mirrored: &OriginPath,
        task: &mut Task,
    ) -> Part<Option<Arc<Needs>>> {
        let found = match self.walk(native, true) {
            Walked::Found(found) => found,
            Walked::Unknown(at, at_end) => return Err(Halt::Step(self.learn(at, at_end))),
            Walked::Absent(_) => return Ok(None),
            Walked::Outside => return Err(pass_through()),
            Walked::PassThrough(at) => {
                return Err(self
                    .look_for_writer(&at)
                    .map_or_else(pass_through, Halt::Step));
            }
        };
        match self.content_of(&found, task)? {
            Step::Done(Outcome::Known) => {}
            step => return Err(Halt::Step(step)),
        }
        let Some(inode) = self.store.inode_of(&found.path) else {
            return Ok(None);
        };
        if let Err(error) = self.store.mirror_file(mirrored, inode) {
            tracing::warn!(%error, path = %mirrored.escape_ascii(), "no name for the loader");
            return Err(pass_through());
        }
        if let Some(needs) = self.needs.get(&inode) {
            return Ok(needs.clone());
        }
        let needs = self.store.open(inode).ok();
        let needs = needs.and_then(|file| elf::needs(&file)).map(Arc::new);
        if self.needs.len() > MOST_LIBRARIES {
            self.needs.clear();
        }
        self.needs.insert(inode, needs.clone());
        Ok(needs)
    }

    /// Finds the files that a library needs, in the order in which the loader searches.
    fn store_needs(
        &mut self,
        library: &Library,
        needs: &Needs,
        open: &mut Vec<Library>,
    ) -> Part<()> {
        let (origin, _) = split_last(&library.native);
        let expand = |elements: &[Vec<u8>]| -> Vec<Element> {
            let expanded = elements.iter().map(|one| elf::expand(one, origin));
            expanded.collect()
        };
        let mut inherited = Vec::new();
        if needs.runpath.is_none() {
            inherited = expand(&needs.rpath);
        }
        inherited.extend_from_slice(&library.inherited);
        let path = match &needs.runpath {
            Some(runpath) => expand(runpath),
            None => inherited.clone(),
        };
        for name in &needs.libraries {
            for direct in elf::expand(name, origin) {
                self.need(direct, needs, &inherited, open)?;
            }
            if !name.contains(&b'/') {
                self.search(name, &path, needs, &inherited, open)?;
            }
        }
        Ok(())
    }

    fn search(
        &mut self,
        name: &[u8],
        path: &[Element],
        needs: &Needs,
        inherited: &[Element],
        open: &mut Vec<Library>,
    ) -> Part<()> {
        for element in path {
            let mut found = 0;
            for directory in element {
                let is_there = self.search_in(directory, name, needs, inherited, open)?;
                found += usize::from(is_there);
            }
            // The loader goes on where it takes the element for a directory that has none.
            if found > 0 && found == element.len() {
                break;
            }
        }
        Ok(())
    }

    /// Queues the library `name` of a directory; says whether the loader would take it.
    fn search_in(
        &mut self,
        directory: &[u8],
        name: &[u8],
        needs: &Needs,
        inherited: &[Element],
        open: &mut Vec<Library>,
    ) -> Part<bool> {
        if !self.mirror_search_directory(directory)? {
            let gone = mirror_name(&join(directory, name))?;
            self.store.remove_from_mirror(&gone);
            return Ok(false);
        }
        for variant in self.variants(directory)? {
            self.need(join(&variant, name), needs, inherited, open)?;
        }
        self.need(join(directory, name), needs, inherited, open)
    }

    /// Queues the library at `native` if it is there and the loader would take it.
    fn need(
        &mut self,
        native: Vec<u8>,
        needs: &Needs,
        inherited: &[Element],
        open: &mut Vec<Library>,
    ) -> Part<bool> {
        let found = match self.walk(&native, true) {
            Walked::Found(found) => found,
            Walked::Absent(_) => {
                self.store.remove_from_mirror(&mirror_name(&native)?);
                return Ok(false);
            }
            Walked::Unknown(at, at_end) => return Err(Halt::Step(self.learn(at, at_end))),
            Walked::Outside | Walked::PassThrough(_) => return Err(pass_through()),
        };
        let stored = self.store.inode_of(&found.path);
        let known = stored.and_then(|inode| self.needs.get(&inode)?.clone());
        let fits = known.is_none_or(|known| known.architecture == needs.architecture);
        open.push(Library {
            native,
            inherited: inherited.to_vec(),
        });
        Ok(fits)
    }

    /// Makes a directory of the search path, and all that its spelling passes through, in the
    /// mirror; `false` where the origin has no such directory.
    fn mirror_search_directory(&mut self, directory: &[u8]) -> Part<bool> {
        match self.walk(directory, true) {
            Walked::Found(found) if found.attributes.is_directory() => {}
            Walked::Found(_) | Walked::Absent(_) => return Ok(false),
            Walked::Unknown(at, at_end) => return Err(Halt::Step(self.learn(at, at_end))),
            Walked::Outside | Walked::PassThrough(_) => return Err(pass_through()),
        }
        let ends =
            (1..=directory.len()).filter(|&end| end == directory.len() || directory[end] == b'/');
        for end in ends {
            let passed = mirror_name(&directory[..end])?;
            if self.store.make_directory(&passed).is_err() {
                return Err(pass_through());
            }
        }
        Ok(true)
    }

    /// The subdirectories of `directory` that hold variants for certain processors.
    fn variants(&mut self, directory: &[u8]) -> Part<Vec<Vec<u8>>> {
        let above = join(directory, VARIANTS);
        let found = match self.walk(&above, true) {
            Walked::Found(found) if found.attributes.is_directory() => found,
            Walked::Found(_) | Walked::Absent(_) => return Ok(Vec::new()),
            Walked::Unknown(at, at_end) => return Err(Halt::Step(self.learn(at, at_end))),
            Walked::Outside | Walked::PassThrough(_) => return Err(pass_through()),
        };
        let reader = self.writer.reader();
        let listing = reader
            .record(found.offset)
            .and_then(|record| reader.listing(&record));
        let Some(listing) = listing else {
            if self.full || self.by_name.contains(&found.path) {
                return Err(pass_through());
            }
            return Err(Halt::Step(wait_for(Kind::Directory, &found.path)));
        };
        let names: Vec<Vec<u8>> = listing
            .iter()
            .filter(|entry| !entry.name.starts_with(b"."))
            .map(|entry| join(&above, entry.name))
            .collect();
        let mut variants = Vec::new();
        for name in names {
            if self.mirror_search_directory(&name)? {
                variants.push(name);
            }
        }
        Ok(variants)
    }
}

fn pass_through() -> Halt {
    Halt::Step(Step::Done(Outcome::PassThrough))
}

/// Where a spelling leads in the mirror, which has no links: `..` is what it seems.
fn mirror_name(spelling: &[u8]) -> Part<OriginPath> {
    let name = collapse(spelling);
    if name.len() > PATH_MAX {
        return Err(pass_through());
    }
    Ok(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_lead_where_the_mirror_has_real_directories() {
        let lead = |spelling: &[u8]| mirror_name(spelling).map(|name| name.to_vec()).ok();
        assert_eq!(
            lead(b"/e/numpy/core/../../numpy.libs/x.so"),
            Some(b"/e/numpy.libs/x.so".to_vec())
        );
        assert_eq!(lead(b"/e/./x/"), Some(b"/e/x".to_vec()));
        assert_eq!(lead(b"/e/../.."), Some(b"/".to_vec()));
    }
}
