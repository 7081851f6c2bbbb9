//! Memory between two pages that nobody may touch: an access beyond either end stops the test with a segmentation fault.

use region::{Allocation, Protection};
use std::slice;

/// Some pages of memory, with a page on either side that can be neither read nor written.
///
/// What the pages held before is left there, so that what lies beside a piece of memory is never all zeros.
pub(crate) struct Guarded {
    /// The guards included.
    pages: Allocation,
    /// Bytes of a guard.
    guard: usize,
}

impl Guarded {
    /// Room for `bytes` bytes at least.
    pub(crate) fn new(bytes: usize) -> Self {
        let guard = region::page::size();
        let len = bytes.next_multiple_of(guard) + 2 * guard;
        let mut pages = region::alloc(len, Protection::READ_WRITE).expect("memory for a test");
        assert_eq!(pages.len(), len);
        let first = pages.as_mut_ptr::<u8>();
        for at in [0, len - guard] {
            let page = first.wrapping_add(at);
            // SAFETY: the page is this allocation's, and nothing has been put there.
            unsafe { region::protect(page, guard, Protection::NONE) }.expect("a page of our own");
            // The test proves nothing if the operating system does not do what it was asked for.
            assert_eq!(region::query(page).expect("a page of our own").protection(), Protection::NONE);
        }
        let mut guarded = Self { pages, guard };
        guarded.inside().fill(0xff);
        guarded
    }

    /// All that may be touched.
    fn inside(&mut self) -> &mut [u8] {
        let len = self.pages.len() - 2 * self.guard;
        // SAFETY: the allocation has a guard, then `len` readable and writable bytes, all of them initialised by the operating
        // system, then another guard; they are borrowed for as long as the result lives.
        unsafe { slice::from_raw_parts_mut(self.pages.as_mut_ptr::<u8>().add(self.guard), len) }
    }

    /// `len` bytes that begin right behind one guard, or end right before the other.
    pub(crate) fn take(&mut self, place: Place, len: usize) -> &mut [u8] {
        let inside = self.inside();
        let first = if place == Place::Start { 0 } else { inside.len() - len };
        &mut inside[first..first + len]
    }

    /// A copy of `values` there.
    pub(crate) fn hold<T: bytemuck::Pod>(&mut self, place: Place, values: &[T]) -> &mut [T] {
        let bytes = self.take(place, size_of_val(values));
        bytes.copy_from_slice(bytemuck::cast_slice(values));
        bytemuck::cast_slice_mut(bytes)
    }
}

/// Which guard a piece of memory touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The one before it.
    Start,
    /// The one behind it.
    End,
}

impl Place {
    pub(crate) const BOTH: [Self; 2] = [Self::Start, Self::End];
}
