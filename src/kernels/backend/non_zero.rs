//! Which inputs are not zero. Products with zeros add nothing, and images are full of them, as is what a ReLU leaves: where a
//! quarter or more of the inputs are zero in all rows of a tile, only the others' weights are read.
//!
//! (So a zero is skipped even where it meets a weight that is infinite or NaN.)

use core::mem::MaybeUninit;

/// The words that a backend looks at in one go.
pub(super) const AT_A_TIME: usize = 16;
/// The most words that a list is made of.
pub(crate) const MAX_WORDS: usize = 1024;
/// With fewer words than that it is not worth it.
pub(crate) const MIN_WORDS: usize = 64;

/// How a backend finds the words of four bytes, an f32 or four int8 values, that are not zero.
///
/// # Safety
/// [`write_numbers`](Self::write_numbers) must write as many values as bits are set, each of them `first` plus the number of a bit:
/// memory is accessed where they say.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub unsafe trait FindNonZero: Copy {
    /// Whether a search takes little beside the products that it may save.
    const IS_FAST: bool = false;

    /// One bit for each of sixteen words: whether that word is not zero in at least one of the rows.
    ///
    /// # Safety
    /// Each pointer must be valid for reads of sixteen words; it need not be aligned.
    #[inline(always)]
    unsafe fn non_zero<const ROWS: usize>(self, rows: [*const u32; ROWS]) -> u16 {
        // SAFETY: the caller vouches for the words.
        unsafe { non_zero_words(rows, AT_A_TIME) }
    }

    /// Writes `first` plus the number of each bit that is set, from the lowest on; what is behind them may be overwritten.
    ///
    /// # Safety
    /// `to` must be valid for writes of sixteen values.
    #[inline(always)]
    unsafe fn write_numbers(self, mut bits: u16, first: u16, mut to: *mut u16) {
        while bits != 0 {
            // SAFETY: there are no more bits than values.
            unsafe {
                to.write(first + bits.trailing_zeros() as u16);
                to = to.add(1);
            }
            bits &= bits - 1;
        }
    }
}

/// [`FindNonZero::non_zero`] of the first words, at most sixteen, one by one.
///
/// # Safety
/// Each pointer must be valid for reads of so many words.
#[inline(always)]
unsafe fn non_zero_words<const ROWS: usize>(rows: [*const u32; ROWS], words: usize) -> u16 {
    let mut bits = 0;
    for word in 0..words {
        let mut any = 0;
        for row in rows {
            // SAFETY: the caller vouches for the words.
            any |= unsafe { row.add(word).read_unaligned() };
        }
        bits |= u16::from(any != 0) << word;
    }
    bits
}

/// Numbers of words, in ascending order.
#[derive(Clone, Copy)]
pub(crate) struct Numbers<'a> {
    numbers: &'a [u16],
    /// More than the largest.
    bound: usize,
}

impl<'a> Numbers<'a> {
    #[inline(always)]
    pub(crate) const fn numbers(&self) -> &'a [u16] {
        self.numbers
    }

    /// Whether all of them are less than `words`.
    #[inline(always)]
    pub(crate) const fn are_below(&self, words: usize) -> bool {
        self.bound <= words
    }
}

/// Room for the numbers of the words that are not zero.
pub(crate) struct NonZero([MaybeUninit<u16>; MAX_WORDS]);

impl NonZero {
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self([MaybeUninit::uninit(); MAX_WORDS])
    }

    /// The numbers of those of the first `words` words that are not zero in at least one of the rows;
    /// `None` if it is as well to take all of them.
    ///
    /// # Safety
    /// Each pointer must be valid for reads of `words` words; it need not be aligned.
    #[inline(always)]
    pub(crate) unsafe fn find<T: FindNonZero, const ROWS: usize>(
        &mut self,
        token: T,
        rows: [*const u32; ROWS],
        words: usize,
    ) -> Option<Numbers<'_>> {
        if !T::IS_FAST || !(MIN_WORDS..=MAX_WORDS).contains(&words) {
            return None;
        }
        // (Opaque: the compiler would otherwise prepare the search ahead of all tiles, even where there is none.)
        let words = core::hint::black_box(words);
        // SAFETY: the caller vouches for the words; sixteen of them begin at each place that is looked at.
        let non_zero = |first: usize| unsafe { token.non_zero(offset(rows, first)) };
        // A few samples of one row tell where it is of no use.
        let (row, mut samples) = (*rows.first()?, 0_u64);
        for sample in 0..SAMPLES {
            let first = (2 * sample + 1) * words / (2 * SAMPLES) - AT_A_TIME / 2;
            // SAFETY: the caller vouches for the words; sixteen of them begin there.
            samples = samples << AT_A_TIME | u64::from(unsafe { token.non_zero([row.add(first)]) });
        }
        if samples.count_ones() as usize > SAMPLES * AT_A_TIME / 4 * 3 {
            return None;
        }
        let mut bits = [0; MAX_WORDS / AT_A_TIME];
        let whole = words / AT_A_TIME;
        let mut count = 0;
        for (index, bits) in bits.iter_mut().enumerate().take(whole) {
            *bits = non_zero(index * AT_A_TIME);
            count += bits.count_ones() as usize;
        }
        let rest = words % AT_A_TIME;
        if let (Some(bits), true) = (bits.get_mut(whole), rest > 0) {
            // SAFETY: the caller vouches for the words, of which there are so many from there on.
            *bits = unsafe { non_zero_words(offset(rows, whole * AT_A_TIME), rest) };
            count += bits.count_ones() as usize;
        }
        if count > words / 4 * 3 {
            return None;
        }
        let mut written = 0;
        for (index, bits) in bits.iter().enumerate().take(words.div_ceil(AT_A_TIME)) {
            // SAFETY: no more values have been written than words were looked at, so sixteen fit behind them.
            unsafe {
                let to = self.0.as_mut_ptr().cast::<u16>().add(written);
                token.write_numbers(*bits, (index * AT_A_TIME) as u16, to);
            }
            written += bits.count_ones() as usize;
        }
        // SAFETY: so many values were written.
        let numbers = unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), written) };
        Some(Numbers { numbers, bound: words })
    }
}

/// How many times sixteen words are looked at first.
const SAMPLES: usize = 4;

/// The pointers, so many words further on.
///
/// # Safety
/// There must be so many words behind each of them.
#[inline(always)]
unsafe fn offset<const ROWS: usize>(mut rows: [*const u32; ROWS], words: usize) -> [*const u32; ROWS] {
    for row in &mut rows {
        // SAFETY: the caller vouches for the words.
        *row = unsafe { row.add(words) };
    }
    rows
}
