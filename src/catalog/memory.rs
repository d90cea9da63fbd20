//! The one place that turns the catalog's shared memory into references.
//!
//! Readers see memory as 64-bit atomic words and as runs of bytes that no longer change. Every
//! access is bounded; what is out of bounds or unaligned is `None`, never a fault.

use super::layout::{segment_length, segment_of, segment_start};
use crate::attributes::Attributes;
use core::sync::atomic::{AtomicU64, Ordering};

/// Memory that a reader can look into.
pub trait Memory {
    /// The atomic word at `offset`, loaded with acquire order.
    fn load(&self, offset: u64) -> Option<u64>;
    /// `length` published bytes at `offset`.
    fn bytes(&self, offset: u64, length: usize) -> Option<&[u8]>;
    /// What begins at `offset`, for several looks that may then cost less; it lies in one segment.
    #[inline]
    fn part(&self, offset: u64) -> Option<impl Part<'_>>
    where
        Self: Sized,
    {
        Some(From(self, offset))
    }
}

/// Memory that was found once and is looked into several times; places count from its start.
pub trait Part<'m>: Copy {
    /// The atomic word at `at`, loaded with acquire order.
    fn load(self, at: u64) -> Option<u64>;
    /// `length` published bytes at `at`.
    fn bytes(self, at: u64, length: usize) -> Option<&'m [u8]>;
}

/// A part that is looked for anew each time.
struct From<'m, M>(&'m M, u64);

impl<M> Clone for From<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for From<'_, M> {}

impl<'m, M: Memory> Part<'m> for From<'m, M> {
    #[inline]
    fn load(self, at: u64) -> Option<u64> {
        self.0.load(self.1.checked_add(at)?)
    }

    #[inline]
    fn bytes(self, at: u64, length: usize) -> Option<&'m [u8]> {
        self.0.bytes(self.1.checked_add(at)?, length)
    }
}

/// Memory that the one writer fills.
pub trait MemoryMut: Memory {
    /// Stores the atomic word at `offset` with release order.
    fn store(&self, offset: u64, value: u64);
    /// Fills bytes that are not published yet.
    fn fill(&mut self, offset: u64, bytes: &[u8]);
    /// How many bytes there are.
    fn capacity(&self) -> u64;
}

/// Types that may lie in shared memory: plain integers in `repr(C)`, no padding, any bits valid.
///
/// # Safety
/// The type must have no padding, no pointers and no invalid bit patterns.
pub unsafe trait Plain: Copy {}

// SAFETY: repr(C), integers only, its reserved fields fill what would be padding.
unsafe impl Plain for Attributes {}
// SAFETY: repr(C), integers only, its reserved fields fill what would be padding.
unsafe impl Plain for super::layout::RecordHead {}

/// A plain value as its bytes.
pub fn as_bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: Plain types have no padding, so every byte is initialised.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A plain value read from published bytes; `None` where they are too few or unaligned.
#[inline]
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<&T> {
    let pointer = bytes.as_ptr().cast::<T>();
    // SAFETY: length and alignment are checked, and any bits are a valid T.
    (bytes.len() >= size_of::<T>() && pointer.is_aligned()).then(|| unsafe { &*pointer })
}

/// A run of mapped memory.
#[derive(Clone, Copy)]
pub struct Mapping {
    base: *const u8,
    length: u64,
}

impl Mapping {
    /// Describes `length` bytes of mapped memory at `base`.
    ///
    /// # Safety
    /// The memory must stay mapped and readable as long as the value is used, be aligned to 8,
    /// and be written by nobody but the catalog's one writer.
    pub const unsafe fn new(base: *const u8, length: u64) -> Mapping {
        Mapping { base, length }
    }

    #[inline]
    fn place(&self, offset: u64, length: u64) -> Option<*const u8> {
        let end = offset.checked_add(length)?;
        // SAFETY: the offset lies inside the mapping.
        (end <= self.length).then(|| unsafe { self.base.add(offset as usize) })
    }

    /// The atomic word at `offset`.
    #[inline]
    pub fn load(&self, offset: u64) -> Option<u64> {
        let place = self.place(offset, 8)?.cast::<AtomicU64>();
        // SAFETY: in bounds by `place`, aligned by the check, mapped by `new`'s contract.
        place
            .is_aligned()
            .then(|| unsafe { (*place).load(Ordering::Acquire) })
    }

    /// Published bytes at `offset`, for as long as the mapping is promised to stay.
    #[inline]
    pub fn bytes<'m>(&self, offset: u64, length: usize) -> Option<&'m [u8]> {
        let place = self.place(offset, length as u64)?;
        // SAFETY: in bounds by `place`; published bytes are never written again.
        Some(unsafe { core::slice::from_raw_parts(place, length) })
    }

    /// All from `offset` on.
    #[inline]
    fn rest(&self, offset: u64) -> Option<Mapping> {
        Some(Mapping {
            base: self.place(offset, 0)?,
            length: self.length - offset,
        })
    }
}

impl<'m> Part<'m> for Mapping {
    #[inline]
    fn load(self, at: u64) -> Option<u64> {
        Mapping::load(&self, at)
    }

    #[inline]
    fn bytes(self, at: u64, length: usize) -> Option<&'m [u8]> {
        Mapping::bytes(&self, at, length)
    }
}

/// The writer's whole memory, in one piece.
pub struct Whole {
    base: *mut u8,
    length: u64,
}

// SAFETY: the memory is owned by this value alone as far as writing goes, and is not tied to a thread.
unsafe impl Send for Whole {}

impl Whole {
    /// Takes `length` bytes of zeroed, writable, mapped memory at `base`.
    ///
    /// # Safety
    /// The memory must be zeroed, aligned to 8, stay mapped as long as the value lives, and have
    /// no other writer.
    pub unsafe fn new(base: *mut u8, length: u64) -> Whole {
        Whole { base, length }
    }

    fn mapping(&self) -> Mapping {
        // SAFETY: `new`'s contract covers it.
        unsafe { Mapping::new(self.base, self.length) }
    }
}

impl Memory for Whole {
    fn load(&self, offset: u64) -> Option<u64> {
        self.mapping().load(offset)
    }

    fn bytes(&self, offset: u64, length: usize) -> Option<&[u8]> {
        self.mapping().bytes(offset, length)
    }

    fn part(&self, offset: u64) -> Option<impl Part<'_>> {
        self.mapping().rest(offset)
    }
}

impl MemoryMut for Whole {
    fn store(&self, offset: u64, value: u64) {
        let place = self
            .mapping()
            .place(offset, 8)
            .expect("the writer stays in bounds");
        // SAFETY: in bounds, aligned since all offsets are multiples of 8, and atomic.
        unsafe { (*place.cast::<AtomicU64>()).store(value, Ordering::Release) }
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) {
        self.mapping()
            .place(offset, bytes.len() as u64)
            .expect("the writer stays in bounds");
        // SAFETY: in bounds by the check above; unpublished bytes have no reader.
        let target =
            unsafe { core::slice::from_raw_parts_mut(self.base.add(offset as usize), bytes.len()) };
        target.copy_from_slice(bytes);
    }

    fn capacity(&self) -> u64 {
        self.length
    }
}

/// A reader's memory, mapped segment by segment as it comes into use.
pub trait Segments {
    /// The mapping of segment `index`; `None` where there is none.
    fn segment(&self, index: usize) -> Option<Mapping>;
}

/// Gives [`Memory`] to anything that maps segments.
pub struct Segmented<S>(pub S);

impl<S: Segments> Segmented<S> {
    #[inline]
    fn rest(&self, offset: u64) -> Option<Mapping> {
        let index = segment_of(offset);
        self.0.segment(index)?.rest(offset - segment_start(index))
    }
}

impl<S: Segments> Memory for Segmented<S> {
    #[inline(always)]
    fn load(&self, offset: u64) -> Option<u64> {
        self.rest(offset)?.load(0)
    }

    #[inline]
    fn bytes(&self, offset: u64, length: usize) -> Option<&[u8]> {
        self.rest(offset)?.bytes(0, length)
    }

    #[inline]
    fn part(&self, offset: u64) -> Option<impl Part<'_>> {
        self.rest(offset)
    }
}

/// Whether `length` bytes at `offset` lie in one segment.
pub fn fits_segment(offset: u64, length: u64) -> bool {
    let index = segment_of(offset);
    offset + length <= segment_start(index) + segment_length(index)
}
