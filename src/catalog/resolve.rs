//! The walk along a path, link by link, in the kernel's order, answered from the catalog alone.
//!
//! A path of the origin in normal form is looked up whole first: records stand under paths free
//! of links, so a hit needs no walk, and a miss in a directory known whole is an absence, but for
//! a name that was retired, of which nothing is known. All else is walked from `/`. The walk ends with an answer, with the first path that is not known
//! (the helper learns it and the caller walks again), or outside of what is covered.
#![forbid(unsafe_code)]

use super::layout::header;
use super::memory::Memory;
use super::reader::{Kind, Reader, Record};
use crate::attributes::Attributes;
use crate::path::{self, NAME_MAX, PATH_MAX};

/// `ENOENT`.
pub const ENOENT: i32 = 2;
/// `EISDIR`.
pub const EISDIR: i32 = 21;
/// `ENOTDIR`.
pub const ENOTDIR: i32 = 20;
/// `ENAMETOOLONG`.
pub const ENAMETOOLONG: i32 = 36;
/// `ELOOP`.
pub const ELOOP: i32 = 40;

/// As many links as the kernel follows in one walk.
const LINKS_MAX: u32 = 40;

/// Which canonical paths may be answered for.
pub trait Scope {
    /// Whether the canonical path `path` is covered.
    fn covers(&self, path: &[u8]) -> bool;
    /// Whether `path` is covered or leads to something covered; a walk that reaches any other
    /// path is outside.
    fn leads_inside(&self, path: &[u8]) -> bool;
    /// Whether the user may search the directory with these attributes for sure; where not, only
    /// the origin can say what is in it.
    fn may_search(&self, _directory: &Attributes) -> bool {
        true
    }
    /// Where `..` leads from `/`: for a walk below the view the directory that holds the view,
    /// else nowhere.
    fn above_root(&self) -> Option<&[u8]>;
}

/// How a walk ended.
#[derive(Clone, Copy)]
pub enum Resolution<'m> {
    /// The path exists; the record's own path is the canonical one.
    Found(Record<'m>),
    /// It does not.
    Absent {
        /// What the kernel would say.
        errno: i32,
        /// Whether only the last component is missing, so that it could be created.
        creatable: bool,
    },
    /// The walk stands at [`Walk::canonical`], of which nothing is known.
    Unknown,
    /// The walk led to [`Walk::canonical`], which is not covered: call the kernel with that path.
    Outside,
    /// Only the origin can answer: call the kernel with the path as it was given.
    PassThrough,
}

/// How the end of a path is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// A link at the end is followed.
    pub follow: bool,
    /// Only a directory will do (there was a trailing slash); implies `follow`.
    pub directory: bool,
}

/// Looks `path`, an absolute path in any form, up without a walk; `None` where a walk is needed.
///
/// The catalog holds normal forms only, so what is found in it by its text is one.
#[inline(always)]
pub fn look_up<'m, M: Memory>(
    reader: &'m Reader<M>,
    scope: &impl Scope,
    path: &[u8],
    ending: Ending,
) -> Option<Resolution<'m>> {
    let generation = reader.word(header::GENERATION);
    let index = reader.paths()?;
    if let Some(found) = reader.find_by(&index, path) {
        return found.is_live().then(|| conclude(found, ending)).flatten();
    }
    let (parent, name) = path::split_last(path);
    if matches!(name, b"" | b"." | b"..") || name.len() > NAME_MAX {
        return None;
    }
    let directory = reader
        .directory_by(&index, parent)
        .filter(Record::is_directory)?;
    if !directory.was_complete() || !scope.may_search(directory.attributes()) {
        return None;
    }
    if reader.word(header::GENERATION) != generation
        && let Some(found) = reader.live(path)
    {
        return conclude(found, ending);
    }
    Some(Resolution::Absent {
        errno: ENOENT,
        creatable: true,
    })
}

fn conclude<'m>(found: Record<'m>, ending: Ending) -> Option<Resolution<'m>> {
    match found.kind() {
        Kind::Pass => Some(Resolution::PassThrough),
        Kind::Absent(errno) => Some(Resolution::Absent {
            errno,
            creatable: errno == ENOENT,
        }),
        Kind::Present if found.attributes().is_link() && (ending.follow || ending.directory) => {
            None
        }
        Kind::Present if ending.directory && !found.is_directory() => Some(Resolution::Absent {
            errno: ENOTDIR,
            creatable: false,
        }),
        Kind::Present => Some(Resolution::Found(found)),
    }
}

/// The room a walk needs: the canonical path so far, and what is still to be walked.
pub struct Walk {
    canonical: [u8; PATH_MAX + 1],
    canonical_length: usize,
    /// What is still to be walked stands at the end of this room, since link targets are put
    /// in front of it.
    pending: [u8; 2 * PATH_MAX],
    pending_start: usize,
    links: u32,
    creates: bool,
}

enum Step<'m> {
    Continue,
    End(Resolution<'m>),
}

impl Walk {
    /// Room for a walk.
    pub const fn new() -> Walk {
        Walk {
            canonical: [0; PATH_MAX + 1],
            canonical_length: 0,
            pending: [0; 2 * PATH_MAX],
            pending_start: 2 * PATH_MAX,
            links: 0,
            creates: false,
        }
    }

    /// Room for the walk of an `open` that may create the file: where a link's target ends in a
    /// slash, the kernel says that it is a directory and looks no further.
    pub const fn creating() -> Walk {
        Walk {
            creates: true,
            ..Walk::new()
        }
    }

    /// The path that the walk reached, free of links: what is not known after
    /// [`Resolution::Unknown`], where to call the kernel after [`Resolution::Outside`].
    pub fn canonical(&self) -> &[u8] {
        if self.canonical_length == 0 {
            b"/"
        } else {
            &self.canonical[..self.canonical_length]
        }
    }

    /// The same for the kernel: with `ending` behind it, which the path had before it was tidied,
    /// and a closing NUL. `None` where that does not fit.
    pub fn canonical_terminated(&mut self, ending: &[u8]) -> Option<&core::ffi::CStr> {
        if self.canonical_length == 0 {
            return Some(c"/");
        }
        let end = self.canonical_length + ending.len();
        let room = self.canonical.get_mut(self.canonical_length..=end)?;
        room[..ending.len()].copy_from_slice(ending);
        room[ending.len()] = 0;
        core::ffi::CStr::from_bytes_until_nul(&self.canonical).ok()
    }

    /// Whether the walk stands at the last component of the path.
    pub fn at_end(&self) -> bool {
        self.rest().iter().all(|&byte| byte == b'/')
    }

    /// Walks `path`, an absolute path of the origin in any form.
    pub fn run<'m, M: Memory>(
        &mut self,
        reader: &'m Reader<M>,
        scope: &impl Scope,
        path: &[u8],
        ending: Ending,
    ) -> Resolution<'m> {
        self.canonical_length = 0;
        self.pending_start = self.pending.len();
        self.links = 0;
        if !self.put_in_front(path) {
            return Resolution::PassThrough;
        }
        let mut ending = ending;
        loop {
            match self.step(reader, scope, &mut ending) {
                Step::Continue => {}
                Step::End(resolution) => return resolution,
            }
        }
    }

    fn rest(&self) -> &[u8] {
        &self.pending[self.pending_start..]
    }

    fn put_in_front(&mut self, text: &[u8]) -> bool {
        let Some(start) = self.pending_start.checked_sub(text.len()) else {
            return false;
        };
        self.pending[start..self.pending_start].copy_from_slice(text);
        self.pending_start = start;
        true
    }

    fn step<'m, M: Memory>(
        &mut self,
        reader: &'m Reader<M>,
        scope: &impl Scope,
        ending: &mut Ending,
    ) -> Step<'m> {
        let skipped = self.rest().iter().take_while(|&&byte| byte == b'/').count();
        self.pending_start += skipped;
        let length = self.rest().iter().take_while(|&&byte| byte != b'/').count();
        if length == 0 {
            return Step::End(self.at_directory(reader, scope));
        }
        let start = self.pending_start;
        self.pending_start += length;
        match &self.pending[start..start + length] {
            b"." | b".." if self.is_barred(reader, scope) => Step::End(Resolution::PassThrough),
            b"." => Step::Continue,
            b".." => self.parent(scope),
            _ => self.descend(reader, scope, start, length, ending),
        }
    }

    /// Whether the user may not search the directory where the walk stands, as far as is known.
    fn is_barred<M: Memory>(&self, reader: &Reader<M>, scope: &impl Scope) -> bool {
        reader
            .live(self.canonical())
            .is_some_and(|directory| !scope.may_search(directory.attributes()))
    }

    /// The path ended in `.`, `..`, a slash or nothing: the canonical directory itself is meant.
    fn at_directory<'m, M: Memory>(
        &self,
        reader: &'m Reader<M>,
        scope: &impl Scope,
    ) -> Resolution<'m> {
        if !scope.covers(self.canonical()) {
            return Resolution::Outside;
        }
        match reader.live(self.canonical()) {
            None => Resolution::Unknown,
            Some(found) => conclude(
                found,
                Ending {
                    follow: false,
                    directory: true,
                },
            )
            .unwrap_or(Resolution::PassThrough),
        }
    }

    fn parent<'m>(&mut self, scope: &impl Scope) -> Step<'m> {
        if self.canonical_length == 0 {
            return match scope.above_root() {
                None => Step::Continue,
                Some(above) => Step::End(self.outside(above)),
            };
        }
        self.pop();
        Step::Continue
    }

    fn pop(&mut self) {
        let kept = &self.canonical[..self.canonical_length];
        self.canonical_length = kept.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    }

    fn outside<'m>(&mut self, start: &[u8]) -> Resolution<'m> {
        self.canonical_length = start.len().min(PATH_MAX);
        self.canonical[..self.canonical_length].copy_from_slice(&start[..self.canonical_length]);
        self.append_rest()
    }

    /// Ends outside, with what was not walked behind the canonical path.
    fn append_rest<'m>(&mut self) -> Resolution<'m> {
        let start = self.pending_start;
        let rest = self.pending.len() - start;
        let end = self.canonical_length + rest;
        if end > PATH_MAX {
            return Resolution::PassThrough;
        }
        self.canonical[self.canonical_length..end].copy_from_slice(&self.pending[start..]);
        self.canonical_length = end;
        Resolution::Outside
    }

    fn descend<'m, M: Memory>(
        &mut self,
        reader: &'m Reader<M>,
        scope: &impl Scope,
        start: usize,
        length: usize,
        ending: &mut Ending,
    ) -> Step<'m> {
        let parent_length = self.canonical_length;
        let end = parent_length + 1 + length;
        if end > PATH_MAX {
            return Step::End(Resolution::PassThrough);
        }
        if length > NAME_MAX {
            return Step::End(Resolution::Absent {
                errno: ENAMETOOLONG,
                creatable: false,
            });
        }
        self.canonical[parent_length] = b'/';
        self.canonical[parent_length + 1..end]
            .copy_from_slice(&self.pending[start..start + length]);
        self.canonical_length = end;
        if !scope.leads_inside(self.canonical()) {
            return Step::End(self.append_rest());
        }
        let last = self.at_end();
        let slash = last && !self.rest().is_empty();
        ending.directory |= slash;
        if slash && self.creates {
            return Step::End(self.refuse_creation(reader, scope, parent_length));
        }
        match look_up_child(reader, scope, self.canonical(), parent_length) {
            Child::Unknown => Step::End(Resolution::Unknown),
            Child::Barred => Step::End(Resolution::PassThrough),
            Child::Absent(errno) => Step::End(Resolution::Absent {
                errno,
                creatable: last && errno == ENOENT,
            }),
            Child::Known(found) => self.enter(found, scope, last, *ending),
        }
    }

    fn refuse_creation<'m, M: Memory>(
        &self,
        reader: &'m Reader<M>,
        scope: &impl Scope,
        parent: usize,
    ) -> Resolution<'m> {
        let parent = if parent == 0 {
            b"/"
        } else {
            &self.canonical[..parent]
        };
        match reader.live(parent) {
            None => Resolution::Unknown,
            Some(directory) if !scope.may_search(directory.attributes()) => Resolution::PassThrough,
            Some(_) => Resolution::Absent {
                errno: EISDIR,
                creatable: false,
            },
        }
    }

    fn enter<'m>(
        &mut self,
        found: Record<'m>,
        scope: &impl Scope,
        last: bool,
        ending: Ending,
    ) -> Step<'m> {
        if found.kind() == Kind::Pass {
            return Step::End(Resolution::PassThrough);
        }
        if found.attributes().is_link() && !(last && !ending.follow && !ending.directory) {
            return self.follow(found.link());
        }
        if !last {
            let goes_on = found.is_directory();
            return if goes_on {
                Step::Continue
            } else {
                Step::End(Resolution::Absent {
                    errno: ENOTDIR,
                    creatable: false,
                })
            };
        }
        if !scope.covers(found.path()) {
            return Step::End(Resolution::Outside);
        }
        let unless_link = Ending {
            follow: false,
            ..ending
        };
        Step::End(conclude(found, unless_link).unwrap_or(Resolution::PassThrough))
    }

    fn follow<'m>(&mut self, target: &[u8]) -> Step<'m> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Step::End(Resolution::Absent {
                errno: ELOOP,
                creatable: false,
            });
        }
        if target.is_empty() || !self.put_in_front(target) {
            return Step::End(Resolution::PassThrough);
        }
        if target[0] == b'/' {
            self.canonical_length = 0;
        } else {
            self.pop();
        }
        Step::Continue
    }
}

impl Default for Walk {
    fn default() -> Walk {
        Walk::new()
    }
}

enum Child<'m> {
    Known(Record<'m>),
    Absent(i32),
    /// The directory may not be searched.
    Barred,
    Unknown,
}

fn look_up_child<'m, M: Memory>(
    reader: &'m Reader<M>,
    scope: &impl Scope,
    path: &[u8],
    parent: usize,
) -> Child<'m> {
    let generation = reader.word(header::GENERATION);
    if let Some(child) = known_child(reader, path) {
        return child;
    }
    let parent = if parent == 0 { b"/" } else { &path[..parent] };
    match reader.live(parent) {
        Some(directory) if !scope.may_search(directory.attributes()) => Child::Barred,
        Some(directory) if directory.was_complete() => {
            let changed = reader.word(header::GENERATION) != generation;
            changed
                .then(|| known_child(reader, path))
                .flatten()
                .unwrap_or(Child::Absent(ENOENT))
        }
        _ => Child::Unknown,
    }
}

fn known_child<'m, M: Memory>(reader: &'m Reader<M>, path: &[u8]) -> Option<Child<'m>> {
    let found = reader.find(path)?;
    Some(match found.kind() {
        _ if !found.is_live() => Child::Unknown,
        Kind::Absent(errno) => Child::Absent(errno),
        _ => Child::Known(found),
    })
}
