//! Bits that tell which values of a row are not zero, and lists of numbers made of them.

use super::non_zero::{AT_A_TIME, FindNonZero};

/// One bit for each of the values, from the first on: whether that value is not zero. There must be 16 to 64.
#[inline(always)]
pub(crate) fn non_zero_values<T: FindNonZero>(token: T, values: &[f32]) -> u64 {
    let mut bits = 0;
    let mut first = 0;
    while let Some(sixteen) = values.get(first..).and_then(|values| values.first_chunk::<AT_A_TIME>()) {
        // SAFETY: these are sixteen values of four bytes.
        bits |= u64::from(unsafe { token.non_zero([sixteen.as_ptr().cast()]) }) << first;
        // The last sixteen may be among those before.
        let left = values.len() - first - AT_A_TIME;
        if left == 0 {
            break;
        }
        first += left.min(AT_A_TIME);
    }
    bits
}

/// A list of up to `MAX` numbers.
pub(crate) struct List<const MAX: usize> {
    numbers: [u16; MAX],
    len: usize,
}

impl<const MAX: usize> List<MAX> {
    #[inline(always)]
    pub(crate) const fn new() -> Self {
        Self { numbers: [0; MAX], len: 0 }
    }

    #[inline(always)]
    pub(crate) fn numbers(&self) -> &[u16] {
        self.numbers.get(..self.len).unwrap_or_default()
    }

    /// Adds `first` plus the number of each bit that is set, from the lowest on, unless there may be more than there is room
    /// for.
    #[inline(always)]
    pub(crate) fn push<T: FindNonZero>(&mut self, token: T, bits: u64, first: u16) {
        for piece in 0..(u64::BITS - bits.leading_zeros()).div_ceil(AT_A_TIME as u32) as u16 {
            let (bits, first) = ((bits >> (piece * AT_A_TIME as u16)) as u16, first + piece * AT_A_TIME as u16);
            let room = self.numbers.get_mut(self.len..).and_then(|room| room.first_chunk_mut::<AT_A_TIME>());
            if let Some(room) = room {
                // SAFETY: there is room for sixteen values.
                unsafe { token.write_numbers(bits, first, room.as_mut_ptr()) };
                self.len += bits.count_ones() as usize;
            }
        }
    }
}
