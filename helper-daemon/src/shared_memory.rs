//! The helper's pieces of shared memory: the catalog, which only it can write, and the alarm page
//! with the counters behind it, which every process of the job can.
//!
//! All are sealed memory files: no process can shrink them under another that has them mapped.

use anyhow::{Context, Result, bail};
use copper_core::catalog::layout::{Alarm, SEGMENTS, segment_start};
use copper_core::catalog::memory::Whole;
use copper_core::counters::layout as counters;
use copper_core::counters::memory::Memory as Counters;
use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A sealed memory file, mapped by the helper.
struct Sealed {
    file: File,
    map: MmapMut,
}

impl Sealed {
    fn create(name: &str, length: u64, seals: SealFlags) -> Result<Sealed> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create(name, flags),
            made => made,
        };
        let file = File::from(file.context("cannot make shared memory (memfd_create)")?);
        ftruncate(&file, length).context("cannot size the shared memory; raise ulimit -f")?;
        fchmod(&file, Mode::RUSR | Mode::WUSR).context("cannot protect the shared memory")?;
        // SAFETY: the file is anonymous, has just been made, and is sealed against shrinking
        // below; what other processes write to the alarm page is read through atomics only.
        let map = unsafe {
            MmapOptions::new()
                .len(usize::try_from(length)?)
                .no_reserve_swap()
                .map_mut(&file)
        }
        .context("cannot map the shared memory; raise ulimit -v")?;
        let always = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        match fcntl_add_seals(&file, always | seals) {
            Err(Errno::INVAL) => fcntl_add_seals(&file, always),
            sealed => sealed,
        }
        .context("cannot seal the shared memory")?;
        Ok(Sealed { file, map })
    }
}

/// The memory of the catalog; must outlive the writer made from it.
pub(crate) struct CatalogMemory {
    sealed: Sealed,
}

impl CatalogMemory {
    /// Makes the memory as large as the layout allows, sparse, or as large as can be mapped.
    pub(crate) fn create() -> Result<CatalogMemory> {
        for segments in (3..=SEGMENTS).rev() {
            match Sealed::create(
                "copper-catalog",
                segment_start(segments),
                SealFlags::FUTURE_WRITE,
            ) {
                Ok(sealed) => return Ok(CatalogMemory { sealed }),
                Err(error) if segments == 3 => return Err(error),
                Err(error) => tracing::debug!(segments, %error, "a smaller catalog is tried"),
            }
        }
        bail!("the catalog has no segments")
    }

    /// The memory, for the catalog's one writer.
    ///
    /// # Safety
    /// Must be called once, and the result must not be used after `self` is dropped.
    pub(crate) unsafe fn whole(&mut self) -> Whole {
        let (base, length) = (self.sealed.map.as_mut_ptr(), self.sealed.map.len());
        // SAFETY: fresh memory files are zeroed, mappings are aligned to pages, the caller
        // promises that there is one writer that does not outlive the mapping, and the seal
        // keeps other processes from writing.
        unsafe { Whole::new(base, length as u64) }
    }

    /// The descriptor that processes of the job reopen.
    pub(crate) fn descriptor(&self) -> i32 {
        self.sealed.file.as_raw_fd()
    }

    /// The memory file's inode, as the maps of processes show it.
    pub(crate) fn inode(&self) -> Result<u64> {
        let found = self.sealed.file.metadata();
        Ok(found.context("cannot look at the shared memory")?.ino())
    }
}

/// The alarm page, and the counters behind it: one file, so that programs start sooner.
pub(crate) struct CommonMemory {
    sealed: Sealed,
    counters: Counters,
}

impl CommonMemory {
    /// Makes the memory, sparse and zeroed but for the counters' header.
    pub(crate) fn create() -> Result<CommonMemory> {
        let length = Alarm::LENGTH as u64 + counters::LENGTH;
        let sealed = Sealed::create("copper-common", length, SealFlags::empty())?;
        // SAFETY: behind the page there is as much as the layout says, zeroed, mapped as long as the
        // value lives, which the users of `counters` promise to be shorter than; accessed through
        // atomics alone.
        let counters = unsafe { Counters::create(sealed.map.as_ptr().add(Alarm::LENGTH)) };
        Ok(CommonMemory { sealed, counters })
    }

    /// The counters, to be read.
    ///
    /// # Safety
    /// The result must not be used after `self` is dropped.
    pub(crate) unsafe fn counters(&self) -> Counters {
        self.counters
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8) && offset + 8 <= Alarm::LENGTH);
        // SAFETY: inside the page, aligned to 8, mapped as long as `self` lives, and only ever
        // accessed as an atomic word.
        unsafe { &*self.sealed.map.as_ptr().add(offset).cast::<AtomicU64>() }
    }

    /// How many changes could not be told.
    pub(crate) fn raised(&self) -> u64 {
        self.word(Alarm::RAISED).load(Ordering::Acquire)
    }

    /// Tells all processes that the helper answers (again).
    pub(crate) fn clear_silent(&self) {
        let silent = self.word(Alarm::SILENT);
        if silent.load(Ordering::Relaxed) != 0 {
            silent.store(0, Ordering::Release);
        }
    }

    /// The descriptor that processes of the job reopen.
    pub(crate) fn descriptor(&self) -> i32 {
        self.sealed.file.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn reopen(descriptor: i32) -> File {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{descriptor}"))
            .expect("our own")
    }

    #[test]
    fn nobody_can_truncate_or_overwrite_the_catalog() {
        let memory = CatalogMemory::create().expect("memory");
        let mut other = reopen(memory.descriptor());
        assert!(other.set_len(0).is_err());
        assert!(other.set_len(1 << 40).is_err());
        assert!(other.write_all(b"x").is_err());
        // SAFETY: the map, should it wrongly succeed, is dropped at once.
        assert!(unsafe { MmapMut::map_mut(&other) }.is_err());
    }

    #[test]
    fn everybody_can_raise_the_alarm_and_nobody_can_truncate_it() {
        let page = CommonMemory::create().expect("memory");
        let mut other = reopen(page.descriptor());
        assert!(other.set_len(0).is_err());
        other.write_all(&3u64.to_ne_bytes()).expect("writable");
        assert_eq!(page.raised(), 3);
    }
}
