//! Int8 with AVX2.

use super::Int8Kernel;
use crate::kernels::backend::avx2::{Token, mask};
use crate::kernels::int8::requantize::{LOOKUP_STEPS, TANH};
use crate::kernels::int8::tensor::Group;
use crate::kernels::int8::vector::Int8Vector;
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

#[inline(always)]
pub(super) fn call<K: Int8Kernel>(token: Token, kernel: K) {
    #[target_feature(enable = "avx2,fma,popcnt")]
    fn with_features<K: Int8Kernel>(token: Token, kernel: K) {
        // Eight sums, two weights, inputs and their sizes, products and ones: fourteen of the sixteen registers.
        kernel.run::<I32x8, 4, 2, 2, 2, 4>(token);
    }
    // SAFETY: the token proves that the processor has the features.
    unsafe { with_features(token, kernel) }
}

/// Eight lanes; having one proves what a [`Token`] proves.
#[derive(Clone, Copy)]
pub(crate) struct I32x8(__m256i);

/// tanh's table: an entry in the lower half of each word, and what the next one has more in the upper half.
static TABLE: [u32; LOOKUP_STEPS] = table();

const fn table() -> [u32; LOOKUP_STEPS] {
    let mut table = [0; LOOKUP_STEPS];
    let mut index = 0;
    while index < LOOKUP_STEPS {
        table[index] = TANH[index] as u32 | ((TANH[index + 1] - TANH[index]) as u32) << 16;
        index += 1;
    }
    table
}

/// The entries of [`TABLE`] that the lanes of `index` are the numbers of, which must be less than its length. (A gather is
/// slower, on some processors by far.)
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn entries(index: __m256i) -> __m256i {
    const { assert!(LOOKUP_STEPS == 64) };
    // SAFETY: the caller vouches for AVX2; the eight vectors are within the table.
    unsafe {
        // The instruction looks at the three lowest bits of the index. (Not a loop: the vectors stay in registers.)
        let a = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(TABLE.as_ptr().cast()), index);
        let b = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(TABLE.as_ptr().add(8).cast()), index);
        let c = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(TABLE.as_ptr().add(16).cast()), index);
        let d = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(TABLE.as_ptr().add(24).cast()), index);
        let e = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(TABLE.as_ptr().add(32).cast()), index);
        let f = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(TABLE.as_ptr().add(40).cast()), index);
        let g = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(TABLE.as_ptr().add(48).cast()), index);
        let h = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(TABLE.as_ptr().add(56).cast()), index);
        // One of each two, by the next bit.
        let mut bit = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
        let [a, b, c, d] = [pick(bit, a, b), pick(bit, c, d), pick(bit, e, f), pick(bit, g, h)];
        bit = _mm256_castsi256_ps(_mm256_slli_epi32::<27>(index));
        let [a, b] = [pick(bit, a, b), pick(bit, c, d)];
        bit = _mm256_castsi256_ps(_mm256_slli_epi32::<26>(index));
        pick(bit, a, b)
    }
}

/// Per lane `b` where the highest bit is set, else `a`.
///
/// # Safety
/// The processor must have AVX.
#[inline(always)]
unsafe fn pick(bit: __m256, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller vouches for AVX.
    unsafe { _mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), bit)) }
}

impl Int8Vector for I32x8 {
    type Token = Token;
    type Weights = __m256i;
    /// Their sizes, and the inputs themselves. (The sizes of the weights would take a register for each vector.)
    type Inputs = [__m256i; 2];
    type Windows = Self;
    type NonNegative = Self;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(_: Token, value: i32) -> Self {
        // SAFETY: the token proves that the processor has AVX.
        Self(unsafe { _mm256_set1_epi32(value) })
    }

    #[inline(always)]
    fn load(_: Token, from: &[i32]) -> Self {
        // SAFETY: the token proves that the processor has AVX2; lanes beyond the slice are masked and not accessed.
        Self(unsafe { _mm256_maskload_epi32(from.as_ptr(), mask(from.len())) })
    }

    #[inline(always)]
    fn load_bytes(_: Token, from: &[u8]) -> Self {
        let mut bytes = [0; 8];
        if let Some(full) = from.first_chunk::<8>() {
            bytes = *full;
        } else {
            bytes.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
        }
        // SAFETY: the token proves that the processor has AVX2; the array has eight bytes.
        Self(unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_nearest(_: Token, from: &[f32], factor: f32) -> Self {
        // SAFETY: the token proves that the processor has AVX2; lanes beyond the slice are masked and not accessed.
        unsafe {
            let values = match from.first_chunk::<8>() {
                Some(full) => _mm256_loadu_ps(full.as_ptr()),
                None => _mm256_maskload_ps(from.as_ptr(), mask(from.len())),
            };
            let steps = _mm256_mul_ps(values, _mm256_set1_ps(factor));
            let numbers = _mm256_cmp_ps::<_CMP_ORD_Q>(steps, steps);
            let bounded = _mm256_max_ps(_mm256_min_ps(steps, _mm256_set1_ps(127.0)), _mm256_set1_ps(-127.0));
            let sign = _mm256_and_ps(steps, _mm256_set1_ps(-0.0));
            let half = _mm256_or_ps(sign, _mm256_set1_ps(0.5));
            let nearest = _mm256_cvttps_epi32(_mm256_add_ps(bounded, half));
            Self(_mm256_and_si256(nearest, _mm256_castps_si256(numbers)))
        }
    }

    #[inline(always)]
    unsafe fn weights(_: Token, from: *const Group, lane: usize) -> Self::Weights {
        // SAFETY: the token proves that the processor has AVX2; the caller vouches for sixteen lanes of four bytes, of which
        // eight begin at `lane`.
        unsafe { _mm256_loadu_si256(from.cast::<[i8; 4]>().add(lane).cast()) }
    }

    #[inline(always)]
    unsafe fn inputs(_: Token, from: *const i8) -> Self::Inputs {
        // SAFETY: the token proves that the processor has AVX2; the caller vouches for four readable bytes.
        unsafe {
            let inputs = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            [_mm256_abs_epi8(inputs), inputs]
        }
    }

    #[inline(always)]
    fn add_products(self, weights: Self::Weights, [sizes, inputs]: Self::Inputs) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        unsafe {
            // No input is -128, so two products are at most 2 * 127 * 128, which 16 bits can hold.
            let pairs = _mm256_maddubs_epi16(sizes, _mm256_sign_epi8(weights, inputs));
            Self(_mm256_add_epi32(self.0, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))))
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_sub_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_mullo_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_low(self, factor: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_madd_epi16(self.0, factor.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_max_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_min_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_and_si256(self.0, other.0) })
    }

    #[inline(always)]
    fn shift_right(self, places: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_srav_epi32(self.0, places.0) })
    }

    #[inline(always)]
    fn shift_right_by<const PLACES: u32>(self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        Self(unsafe { _mm256_sra_epi32(self.0, _mm_cvtsi32_si128(PLACES as i32)) })
    }

    #[inline(always)]
    fn tanh(self, _: fn(i32) -> i32) -> Self {
        // SAFETY: a vector proves that the processor has AVX2; the indices are bounded to the table.
        unsafe {
            let size = _mm256_min_epi32(_mm256_abs_epi32(self.0), _mm256_set1_epi32((LOOKUP_STEPS as i32) << 8));
            // The last index again for what is behind it: a rest of 256 is the next entry itself.
            let index = _mm256_min_epi32(_mm256_srli_epi32::<8>(size), _mm256_set1_epi32(LOOKUP_STEPS as i32 - 1));
            let rest = _mm256_sub_epi32(size, _mm256_slli_epi32::<8>(index));
            let entry = entries(index);
            let more = _mm256_madd_epi16(_mm256_srli_epi32::<16>(entry), rest);
            let more = _mm256_srli_epi32::<8>(_mm256_add_epi32(more, _mm256_set1_epi32(128)));
            let entry = _mm256_and_si256(entry, _mm256_set1_epi32(0xffff));
            // (The sign of 0 is 0, and so is its tanh.)
            Self(_mm256_sign_epi32(_mm256_add_epi32(entry, more), self.0))
        }
    }

    #[inline(always)]
    fn store_int8(self, to: &mut [i8]) {
        // SAFETY: a vector proves that the processor has AVX2.
        let bytes = unsafe {
            let words = _mm_packs_epi32(_mm256_castsi256_si128(self.0), _mm256_extracti128_si256::<1>(self.0));
            let bytes = _mm_packs_epi16(words, words);
            let mut lanes = [0i8; 8];
            _mm_storel_epi64(lanes.as_mut_ptr().cast(), bytes);
            lanes
        };
        if let Some(full) = to.first_chunk_mut() {
            *full = bytes;
        } else {
            to.iter_mut().zip(bytes).for_each(|(to, lane)| *to = lane);
        }
    }

    #[inline(always)]
    fn store_scaled(self, scales: Self, to: &mut [f32]) {
        // SAFETY: a vector proves that the processor has AVX2; lanes beyond the slice are masked and not accessed.
        unsafe {
            let values = _mm256_mul_ps(_mm256_cvtepi32_ps(self.0), _mm256_castsi256_ps(scales.0));
            match to.first_chunk_mut::<8>() {
                Some(full) => _mm256_storeu_ps(full.as_mut_ptr(), values),
                None => _mm256_maskstore_ps(to.as_mut_ptr(), mask(to.len()), values),
            }
        }
    }
}
