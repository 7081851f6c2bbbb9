//! Memory whose alignment is part of its type: model blobs and scratch memory.
//!
//! Weights are read in place, as vectors of up to 64 bytes, so a blob has to start on a 64-byte boundary; so has the
//! scratch memory that a model runs in. [`Aligned`] says so in the type, for statics and for buffers in RAM;
//! `AlignedBuf` (feature `alloc`) is the same on the heap, for files.
//!
//! This is one of the two places in the crate with `unsafe` (the other is the kernels' backends): the checked cast
//! from plain bytes to aligned bytes.

use core::fmt;
use core::ops::{Deref, DerefMut};

/// The alignment of a model blob and of scratch memory, in bytes: one cache line, one AVX-512 register.
pub const ALIGNMENT: usize = 64;

/// A value on a 64-byte boundary.
///
/// `Aligned<[u8; N]>` coerces to `Aligned<[u8]>`, which is what [`Model::run`](crate::Model::run) takes as scratch
/// memory.
///
/// ```
/// use thumbnet::Aligned;
/// static BLOB: Aligned<[u8; 3]> = Aligned(*b"abc");
/// assert_eq!(BLOB.0.as_ptr() as usize % thumbnet::ALIGNMENT, 0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Aligned<T: ?Sized>(
    /// The value.
    pub T,
);

/// The memory that a model computes in: `BYTES` is what [`Model::scratch_bytes`](crate::Model::scratch_bytes) says.
///
/// ```
/// let mut scratch = thumbnet::Scratch::<768>::zeroed();
/// let memory: &mut thumbnet::Aligned<[u8]> = &mut scratch;
/// assert_eq!(memory.len(), 768);
/// ```
pub type Scratch<const BYTES: usize> = Aligned<[u8; BYTES]>;

impl<const N: usize> Aligned<[u8; N]> {
    /// `N` zero bytes.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self([0; N])
    }
}

impl<T: ?Sized> Deref for Aligned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A slice that was to be used as scratch memory does not start on a 64-byte boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misaligned {
    /// How far behind a boundary it starts, in bytes.
    pub off_by: usize,
}

impl fmt::Display for Misaligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory starts {} bytes behind a {ALIGNMENT}-byte boundary", self.off_by)
    }
}

impl core::error::Error for Misaligned {}

impl Aligned<[u8]> {
    /// Borrows a part of a larger buffer as scratch memory. Its length is cut to a multiple of 64 bytes.
    ///
    /// # Errors
    /// [`Misaligned`] if `bytes` does not start on a 64-byte boundary.
    ///
    /// ```
    /// use thumbnet::{Aligned, Scratch};
    /// let mut arena = Scratch::<256>::zeroed();
    /// let scratch = Aligned::from_mut(&mut arena[64..]).unwrap();
    /// assert_eq!(scratch.len(), 192);
    /// assert_eq!(Aligned::from_mut(&mut arena[1..]).unwrap_err().off_by, 1);
    /// ```
    pub fn from_mut(bytes: &mut [u8]) -> Result<&mut Self, Misaligned> {
        let off_by = misalignment(bytes);
        if off_by != 0 {
            return Err(Misaligned { off_by });
        }
        let len = bytes.len() / ALIGNMENT * ALIGNMENT;
        let cut = core::ptr::slice_from_raw_parts_mut(bytes.as_mut_ptr(), len);
        // SAFETY: the pointer is 64-byte aligned (checked above), `len` is at most the slice's length and a multiple of
        // 64, so the value has no padding behind it; `repr(C)` puts the bytes first, and the borrow carries over.
        Ok(unsafe { &mut *(cut as *mut Self) })
    }
}

/// How many bytes behind a 64-byte boundary `bytes` starts.
pub(crate) fn misalignment(bytes: &[u8]) -> usize {
    bytes.as_ptr().addr() % ALIGNMENT
}

#[cfg(feature = "alloc")]
pub use heap::AlignedBuf;

#[cfg(feature = "alloc")]
mod heap {
    use super::{ALIGNMENT, Aligned};
    use alloc::vec::Vec;
    use core::ops::{Deref, DerefMut};

    /// Aligned bytes on the heap (feature `alloc`): a model file, or scratch memory for a model of unknown size.
    ///
    /// ```
    /// let scratch = thumbnet::AlignedBuf::zeroed(100);
    /// assert_eq!(scratch.len(), 100);
    /// ```
    #[derive(Clone, Debug)]
    pub struct AlignedBuf {
        blocks: Vec<Aligned<[u8; ALIGNMENT]>>,
        len: usize,
    }

    impl AlignedBuf {
        /// `len` zero bytes.
        #[must_use]
        pub fn zeroed(len: usize) -> Self {
            let blocks = alloc::vec![Aligned::zeroed(); len.div_ceil(ALIGNMENT)];
            Self { blocks, len }
        }

        /// A copy of `bytes`.
        #[must_use]
        pub fn from_bytes(bytes: &[u8]) -> Self {
            let mut buf = Self::zeroed(bytes.len());
            buf.copy_from_slice(bytes);
            buf
        }
    }

    impl Deref for AlignedBuf {
        type Target = Aligned<[u8]>;
        fn deref(&self) -> &Aligned<[u8]> {
            let bytes = core::ptr::slice_from_raw_parts(self.blocks.as_ptr().cast::<u8>(), self.len);
            // SAFETY: the blocks are 64-byte aligned, contiguous and initialised, and hold at least `len` bytes rounded
            // up to 64, which is the size of an `Aligned<[u8]>` of that length.
            unsafe { &*(bytes as *const Aligned<[u8]>) }
        }
    }

    impl DerefMut for AlignedBuf {
        fn deref_mut(&mut self) -> &mut Aligned<[u8]> {
            let bytes = core::ptr::slice_from_raw_parts_mut(self.blocks.as_mut_ptr().cast::<u8>(), self.len);
            // SAFETY: as in `deref`; the blocks are borrowed mutably for as long as the result lives.
            unsafe { &mut *(bytes as *mut Aligned<[u8]>) }
        }
    }
}
