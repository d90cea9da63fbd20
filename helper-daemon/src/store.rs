//! The store: cached files as ordinary files on a tmpfs, under their inodes' numbers, and in a
//! mirror of the origin's tree where the dynamic loader is to find them.
//!
//! A file appears whole or not at all. Under the budget, what was stored or asked for longest ago
//! goes first; a file with several names goes with all of them, since only that frees memory.
#![forbid(unsafe_code)]

pub(crate) mod place;

pub(crate) use place::{Place, choose, clean_up};

use crate::origin::OriginPath;
use crate::origin::copy::Copy;
use anyhow::{Context, Result};
use copper_core::attributes::Attributes;
use copper_core::path::split_last;
use copper_core::store::{FILES, MIRROR, PARTIAL};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The store and what lies in it.
pub(crate) struct Store {
    place: Place,
    mirror: Vec<u8>,
    device: u64,
    budget: u64,
    /// Memory of the files that lie in the store, and of those being written.
    used: u64,
    reserved: u64,
    bytes: u64,
    partials: u64,
    files: HashMap<u64, Stored>,
    by_path: HashMap<OriginPath, u64>,
    by_mirror: HashMap<OriginPath, u64>,
    by_origin: HashMap<(u64, u64), u64>,
    by_age: BTreeMap<u64, u64>,
    clock: u64,
    directories: HashMap<Box<[u8]>, u64>,
}

struct Stored {
    /// The paths that the catalog knows it by.
    names: Vec<OriginPath>,
    /// Its names in the mirror.
    mirrored: Vec<OriginPath>,
    attributes: Attributes,
    allocated: u64,
    age: u64,
}

/// What is in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Files.
    pub(crate) files: u64,
    /// Their sizes, in bytes.
    pub(crate) bytes: u64,
    /// Memory they take, in bytes.
    pub(crate) memory: u64,
    /// What they may take, in bytes.
    pub(crate) budget: u64,
}

/// There is no room, even after evicting all that can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// Memory that tmpfs takes for `size` bytes, without holes.
fn footprint(size: u64) -> u64 {
    const PAGE: u64 = 4096;
    size.div_ceil(PAGE) * PAGE
}

impl Store {
    /// Makes the store in an empty private directory.
    pub(crate) fn create(place: Place) -> Result<Store> {
        let mirror = place.root.join(MIRROR);
        let [files, partial] = [FILES, PARTIAL].map(|name| place.root.join(name));
        for directory in [&mirror, &files, &partial] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let found = fs::metadata(&mirror).context("cannot use the store")?;
        let mut directories = HashMap::new();
        directories.insert(b"/".as_slice().into(), found.ino());
        Ok(Store {
            budget: place.budget,
            place,
            mirror: mirror.into_os_string().into_encoded_bytes(),
            device: found.dev(),
            used: 0,
            reserved: 0,
            bytes: 0,
            partials: 0,
            files: HashMap::new(),
            by_path: HashMap::new(),
            by_mirror: HashMap::new(),
            by_origin: HashMap::new(),
            by_age: BTreeMap::new(),
            clock: 0,
            directories,
        })
    }

    /// The store's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.place.root
    }

    /// The mirror's directory, as bytes.
    pub(crate) fn mirror(&self) -> &[u8] {
        &self.mirror
    }

    /// Device number of the store's file system.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    /// What is in the store.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            files: self.files.len() as u64,
            bytes: self.bytes,
            memory: self.used,
            budget: self.budget,
        }
    }

    fn place_of(&self, path: &[u8]) -> PathBuf {
        let mut bytes = self.mirror.clone();
        if path != b"/" {
            bytes.extend_from_slice(path);
        }
        PathBuf::from(OsStr::from_bytes(&bytes))
    }

    /// A new name for a file that is being written.
    pub(crate) fn next_partial(&mut self) -> PathBuf {
        self.partials += 1;
        self.place
            .root
            .join(PARTIAL)
            .join(self.partials.to_string())
    }

    /// Sets room aside for a file of `size` bytes.
    ///
    /// # Errors
    /// [`NoRoom`] where something must be evicted first.
    pub(crate) fn reserve(&mut self, size: u64) -> Result<(), NoRoom> {
        let wanted = footprint(size);
        if self.used + self.reserved + wanted > self.budget {
            return Err(NoRoom);
        }
        self.reserved += wanted;
        Ok(())
    }

    /// Room that is neither in use nor set aside, in bytes.
    pub(crate) fn room(&self) -> u64 {
        self.budget.saturating_sub(self.used + self.reserved)
    }

    /// Whether a file of `size` bytes would fit if all else were evicted.
    pub(crate) fn could_hold(&self, size: u64) -> bool {
        footprint(size) <= self.budget.saturating_sub(self.reserved)
    }

    /// Whether the files take more than they may.
    pub(crate) fn is_over_budget(&self) -> bool {
        self.used + self.reserved > self.budget
    }

    /// Gives room set aside for `size` bytes back.
    pub(crate) fn release(&mut self, size: u64) {
        self.reserved = self.reserved.saturating_sub(footprint(size));
    }

    /// A name of the file that was stored or asked for longest ago.
    pub(crate) fn oldest(&self) -> Option<OriginPath> {
        let inode = *self.by_age.first_key_value()?.1;
        self.files.get(&inode)?.names.first().cloned()
    }

    /// All names of the file named `path`.
    pub(crate) fn names_of(&self, path: &[u8]) -> &[OriginPath] {
        self.by_path
            .get(path)
            .and_then(|inode| self.files.get(inode))
            .map_or(&[], |file| &file.names)
    }

    fn file_of(&self, inode: u64) -> PathBuf {
        self.place.root.join(FILES).join(inode.to_string())
    }

    /// Gives a finished copy its place among the files.
    pub(crate) fn keep(&mut self, path: &OriginPath, copy: &Copy) -> io::Result<()> {
        self.remove(path);
        fs::rename(&copy.file, self.file_of(copy.inode))?;
        self.clock += 1;
        self.by_age.insert(self.clock, copy.inode);
        self.by_path.insert(path.clone(), copy.inode);
        let origin = (copy.attributes.device, copy.attributes.inode);
        self.by_origin.insert(origin, copy.inode);
        self.used += copy.allocated;
        self.bytes += copy.attributes.size;
        let stored = Stored {
            names: vec![path.clone()],
            mirrored: Vec::new(),
            attributes: copy.attributes,
            allocated: copy.allocated,
            age: self.clock,
        };
        self.files.insert(copy.inode, stored);
        Ok(())
    }

    /// The stored file with this very version of these attributes, under whatever name.
    pub(crate) fn same_file(&self, attributes: &Attributes) -> Option<u64> {
        let inode = *self.by_origin.get(&(attributes.device, attributes.inode))?;
        let stored = self.files.get(&inode)?;
        stored.attributes.same_version(attributes).then_some(inode)
    }

    /// Lets the stored file `inode` be known by one more path.
    pub(crate) fn add_name(&mut self, path: &OriginPath, inode: u64) {
        if self.by_path.get(path) == Some(&inode) {
            return;
        }
        self.remove(path);
        if let Some(file) = self.files.get_mut(&inode) {
            file.names.push(path.clone());
            self.by_path.insert(path.clone(), inode);
        }
        self.touch(path);
    }

    /// Gives the stored file `inode` a name in the mirror.
    pub(crate) fn mirror_file(&mut self, path: &OriginPath, inode: u64) -> io::Result<()> {
        match self.by_mirror.get(path).copied() {
            Some(mirrored) if mirrored == inode => return Ok(()),
            Some(_) => self.remove_from_mirror(path),
            None => {}
        }
        self.make_parents(path)?;
        let place = self.place_of(path);
        if let Err(error) = fs::hard_link(self.file_of(inode), &place) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            self.make_way(&place)?;
            fs::hard_link(self.file_of(inode), &place)?;
        }
        self.directories.remove(&path[..]);
        if let Some(file) = self.files.get_mut(&inode) {
            file.mirrored.push(path.clone());
            self.by_mirror.insert(path.clone(), inode);
        }
        Ok(())
    }

    /// Takes a name out of the mirror.
    pub(crate) fn remove_from_mirror(&mut self, path: &[u8]) {
        let Some(inode) = self.by_mirror.remove(path) else {
            return;
        };
        if let Some(file) = self.files.get_mut(&inode) {
            file.mirrored.retain(|name| **name != *path);
        }
        let _ = fs::remove_file(self.place_of(path));
    }

    /// Notes that a file was asked for.
    pub(crate) fn touch(&mut self, path: &[u8]) {
        let Some((inode, file)) = self
            .by_path
            .get(path)
            .and_then(|inode| Some((*inode, self.files.get_mut(inode)?)))
        else {
            return;
        };
        self.by_age.remove(&file.age);
        self.clock += 1;
        file.age = self.clock;
        self.by_age.insert(self.clock, inode);
    }

    /// The inode of the stored file named `path`.
    pub(crate) fn inode_of(&self, path: &[u8]) -> Option<u64> {
        self.by_path.get(path).copied()
    }

    /// The stored file named `path`: its inode, and its attributes on the origin.
    pub(crate) fn stored(&self, path: &[u8]) -> Option<(u64, &Attributes)> {
        let inode = self.inode_of(path)?;
        Some((inode, &self.files.get(&inode)?.attributes))
    }

    /// The stored file `inode`, open for reading.
    pub(crate) fn open(&self, inode: u64) -> io::Result<fs::File> {
        fs::File::open(self.file_of(inode))
    }

    /// Removes the file named `path` with all its names.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        if let Some(&inode) = self.by_path.get(path) {
            self.remove_file(inode);
        }
    }

    fn remove_file(&mut self, inode: u64) {
        let Some(file) = self.files.remove(&inode) else {
            return;
        };
        for name in &file.names {
            self.by_path.remove(name);
        }
        for name in &file.mirrored {
            self.by_mirror.remove(name);
            let _ = fs::remove_file(self.place_of(name));
        }
        let _ = fs::remove_file(self.file_of(inode));
        self.by_age.remove(&file.age);
        let origin = (file.attributes.device, file.attributes.inode);
        if self.by_origin.get(&origin) == Some(&inode) {
            self.by_origin.remove(&origin);
        }
        self.used = self.used.saturating_sub(file.allocated);
        self.bytes = self.bytes.saturating_sub(file.attributes.size);
    }

    fn make_parents(&mut self, path: &[u8]) -> io::Result<()> {
        let (parent, _) = split_last(path);
        self.make_directory(parent).map(|_| ())
    }

    /// Makes the mirror of a directory; returns its inode.
    pub(crate) fn make_directory(&mut self, path: &[u8]) -> io::Result<u64> {
        if let Some(&inode) = self.directories.get(path) {
            return Ok(inode);
        }
        let (parent, _) = split_last(path);
        self.make_directory(parent)?;
        self.remove_from_mirror(path);
        let place = self.place_of(path);
        match fs::DirBuilder::new().mode(0o700).create(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let inode = fs::symlink_metadata(&place)?.ino();
        self.directories.insert(path.into(), inode);
        Ok(inode)
    }

    /// Moves a directory of the mirror whose name is now a file's out of the way.
    fn make_way(&mut self, place: &Path) -> io::Result<()> {
        let aside = self.next_partial();
        fs::rename(place, &aside)?;
        self.directories.retain(|_, _| false);
        let found = fs::metadata(OsStr::from_bytes(&self.mirror))?;
        self.directories.insert(b"/".as_slice().into(), found.ino());
        let moved: Vec<OriginPath> = self
            .by_mirror
            .keys()
            .filter(|name| self.place_of(name).starts_with(place))
            .cloned()
            .collect();
        for name in moved {
            self.remove_from_mirror(&name);
        }
        fs::remove_dir_all(&aside)
    }
}
