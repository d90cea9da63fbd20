//! Memory that libfabric may read and write: anonymous or a mapped file.
//!
//! The fabric (a network card, a provider, a peer's read) touches such memory behind the
//! compiler's back, so no reference into it is ever handed out: bytes are copied in and out, or
//! written to a file by the kernel. A value may move between threads but not be shared by them.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;

use memmap2::{Advice, MmapOptions, MmapRaw};

/// A mapping, at least one byte long.
pub struct Memory {
    map: MmapRaw,
    writable: bool,
    _not_shared: PhantomData<Cell<u8>>,
}

/// How a file is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// For reading, by peers above all.
    ReadOnly,
    /// For writing; pages appear as they are first touched.
    ReadWrite,
    /// For writing, with all pages made at once (`MAP_POPULATE`).
    Populated,
}

impl Memory {
    /// `length` zero bytes.
    ///
    /// # Errors
    ///
    /// There is no memory, or `length` is 0.
    pub fn anonymous(length: usize) -> io::Result<Self> {
        nonzero(length)?;
        let map = MmapOptions::new().len(length).map_anon()?;
        Ok(Self {
            map: map.into(),
            writable: true,
            _not_shared: PhantomData,
        })
    }

    /// `length` bytes of a file from `offset` on, shared with the file.
    ///
    /// The file must be as long as that and stay so: touching a page beyond its end kills the
    /// process (SIGBUS), so map only files that nobody else cuts short.
    ///
    /// # Errors
    ///
    /// The file is too short or cannot be mapped, or `length` is 0.
    pub fn map(file: &File, offset: u64, length: usize, mapping: Mapping) -> io::Result<Self> {
        nonzero(length)?;
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > file.metadata().map_or(0, |meta| meta.len())) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("{length} bytes at {offset} go beyond the end of the file"),
            ));
        }
        let mut options = MmapOptions::new();
        options.offset(offset).len(length);
        if mapping == Mapping::Populated {
            options.populate();
        }
        let writable = mapping != Mapping::ReadOnly;
        let map = if writable {
            options.map_raw(file)?
        } else {
            options.map_raw_read_only(file)?
        };
        Ok(Self {
            map,
            writable,
            _not_shared: PhantomData,
        })
    }

    /// Size in bytes.
    #[allow(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether it can be written to.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Asks for huge pages.
    ///
    /// # Errors
    ///
    /// The kernel does not offer them for this mapping.
    pub fn advise_huge_pages(&self) -> io::Result<()> {
        self.map.advise(Advice::HugePage)
    }

    /// Makes the pages that hold `length` bytes from `offset` on, writable, as if each had been
    /// written to (Linux 5.14 and newer).
    ///
    /// # Errors
    ///
    /// The kernel is older, there is no memory, or the mapping is read-only.
    ///
    /// # Panics
    ///
    /// The range does not lie within the memory.
    pub fn populate_for_writing(&self, offset: usize, length: usize) -> io::Result<()> {
        self.check(offset, length);
        self.map.advise_range(Advice::PopulateWrite, offset, length)
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    fn check(&self, offset: usize, length: usize) {
        assert!(
            offset
                .checked_add(length)
                .is_some_and(|end| end <= self.len()),
            "{length} bytes at {offset} do not lie within {} bytes",
            self.len()
        );
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// The range does not lie within the memory.
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        self.check(offset, bytes.len());
        // SAFETY: the range was checked, `bytes` is ours alone, and no reference into the
        // mapping exists; what a peer writes meanwhile is bytes of either state.
        unsafe {
            self.pointer()
                .add(offset)
                .copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len());
        }
    }

    /// Copies bytes in, from `offset` on.
    ///
    /// # Panics
    ///
    /// The range does not lie within the memory, or that is read-only.
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        assert!(self.writable, "the memory is mapped read-only");
        self.check(offset, bytes.len());
        // SAFETY: the range was checked, the mapping is writable, and no reference into it
        // exists.
        unsafe {
            self.pointer()
                .add(offset)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
    }

    /// Writes `length` bytes from `offset` on into `file` at `position`, all or an error.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    ///
    /// # Panics
    ///
    /// The range does not lie within the memory.
    pub fn write_to(
        &self,
        offset: usize,
        length: usize,
        file: &File,
        position: u64,
    ) -> io::Result<()> {
        self.check(offset, length);
        let mut done = 0;
        while done < length {
            let at = i64::try_from(position + done as u64).map_err(io::Error::other)?;
            // SAFETY: the range was checked; the kernel only reads it.
            let written = unsafe {
                libc::pwrite(
                    file.as_raw_fd(),
                    self.pointer().add(offset + done).cast(),
                    length - done,
                    at,
                )
            };
            match written {
                n if n > 0 => done += n as usize,
                0 => return Err(io::ErrorKind::WriteZero.into()),
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// The bytes from `offset` on, for the length of a borrow in which nothing writes them.
    ///
    /// # Safety
    ///
    /// The range lies within the memory, and neither the fabric nor another process writes it
    /// while the slice lives.
    pub(crate) unsafe fn slice(&self, offset: usize, length: usize) -> &[u8] {
        // SAFETY: as the contract says.
        unsafe { std::slice::from_raw_parts(self.pointer().add(offset), length) }
    }
}

fn nonzero(length: usize) -> io::Result<()> {
    if length == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "cannot map zero bytes",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn bytes_go_in_and_out_of_a_mapped_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(10_000).unwrap();
        let memory = Memory::map(&file, 100, 9_900, Mapping::ReadWrite).unwrap();
        memory.copy_in(9_895, b"tail!");
        memory.copy_in(0, b"head");
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(&bytes[100..104], b"head");
        assert_eq!(&bytes[9_995..], b"tail!");
        let mut out = [0; 4];
        memory.copy_out(0, &mut out);
        assert_eq!(&out, b"head");
    }

    #[test]
    fn a_range_is_written_to_another_file() {
        let memory = Memory::anonymous(1 << 20).unwrap();
        memory.copy_in(4_000, b"payload");
        let mut file = tempfile::tempfile().unwrap();
        memory.write_to(4_000, 7, &file, 3).unwrap();
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"\0\0\0payload");
    }

    #[test]
    fn a_mapping_beyond_the_end_is_refused() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"four").unwrap();
        let error = Memory::map(&file, 2, 3, Mapping::ReadOnly).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(Memory::map(&file, u64::MAX, 2, Mapping::ReadOnly).is_err());
        assert!(Memory::anonymous(0).is_err());
    }

    #[test]
    #[should_panic(expected = "do not lie within")]
    fn copying_beyond_the_end_panics() {
        Memory::anonymous(4096).unwrap().copy_in(4094, b"abc");
    }

    #[test]
    #[should_panic(expected = "read-only")]
    fn writing_a_read_only_mapping_panics() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        Memory::map(&file, 0, 4096, Mapping::ReadOnly)
            .unwrap()
            .copy_in(0, b"x");
    }
}
