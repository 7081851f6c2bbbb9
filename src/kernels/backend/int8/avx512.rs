//! Int8 with AVX-512 VNNI.
//!
//! Its dot products are of unsigned numbers times signed ones, so one side is shifted by 128 and the sums have an excess.

use super::Int8Kernel;
use crate::kernels::backend::avx512::{self, mask};
use crate::kernels::backend::x86;
use crate::kernels::int8::requantize::{LOOKUP_STEPS, TANH};
use crate::kernels::int8::tensor::Group;
use crate::kernels::int8::vector::Int8Vector;
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// Proof that the processor has VNNI, and what the other token proves.
#[derive(Clone, Copy)]
pub(crate) struct Token(());

impl Token {
    pub(super) fn detect(_: avx512::Token) -> Option<Self> {
        x86::has(x86::AVX512_VNNI).then_some(Self(()))
    }
}

#[inline(always)]
pub(super) fn call<K: Int8Kernel>(token: Token, kernel: K) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")]
    fn with_features<K: Int8Kernel>(token: Token, kernel: K) {
        // Twenty-four sums, three weights and an input: twenty-eight of the thirty-two registers.
        kernel.run::<I32x16<true>, 8, 3, 1, 8, 8>(token);
    }
    // SAFETY: the token proves that the processor has the features.
    unsafe { with_features(token, kernel) }
}

/// Sixteen lanes; having one proves what a [`Token`] proves. Either the weights are shifted by 128, or the inputs are.
#[derive(Clone, Copy)]
pub(crate) struct I32x16<const SHIFTED_WEIGHTS: bool>(__m512i);

/// tanh's table, and what each next entry has more.
static TABLES: [[i16; LOOKUP_STEPS]; 2] = tables();

const fn tables() -> [[i16; LOOKUP_STEPS]; 2] {
    let mut tables = [[0; LOOKUP_STEPS]; 2];
    let mut index = 0;
    while index < LOOKUP_STEPS {
        tables[0][index] = TANH[index].cast_signed();
        tables[1][index] = (TANH[index + 1] - TANH[index]).cast_signed();
        index += 1;
    }
    tables
}

/// The bytes with 128 added.
#[inline(always)]
fn shifted(_: Token, bytes: __m512i) -> __m512i {
    // SAFETY: the token proves that the processor has AVX-512.
    unsafe { _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)) }
}

impl<const SHIFTED_WEIGHTS: bool> Int8Vector for I32x16<SHIFTED_WEIGHTS> {
    type Token = Token;
    type Weights = __m512i;
    type Inputs = __m512i;
    type Windows = I32x16<false>;
    const LANES: usize = 16;
    const EXCESS_OF_WEIGHTS: bool = !SHIFTED_WEIGHTS;

    #[inline(always)]
    fn splat(_: Token, value: i32) -> Self {
        // SAFETY: the token proves that the processor has AVX-512.
        Self(unsafe { _mm512_set1_epi32(value) })
    }

    #[inline(always)]
    fn load(_: Token, from: &[i32]) -> Self {
        // SAFETY: the token proves that the processor has AVX-512; lanes beyond the slice are masked and not accessed.
        Self(unsafe { _mm512_maskz_loadu_epi32(mask(from.len()), from.as_ptr()) })
    }

    #[inline(always)]
    fn load_bytes(_: Token, from: &[u8]) -> Self {
        // SAFETY: the token proves that the processor has AVX-512 BW and VL; lanes beyond the slice are masked and not
        // accessed.
        Self(unsafe { _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask(from.len()), from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn load_nearest(_: Token, from: &[f32], factor: f32) -> Self {
        // SAFETY: the token proves that the processor has AVX-512; lanes beyond the slice are masked and not accessed.
        unsafe {
            let values = _mm512_maskz_loadu_ps(mask(from.len()), from.as_ptr());
            let steps = _mm512_mul_ps(values, _mm512_set1_ps(factor));
            let numbers = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(steps, steps);
            let bounded = _mm512_max_ps(_mm512_min_ps(steps, _mm512_set1_ps(127.0)), _mm512_set1_ps(-127.0));
            let sign = _mm512_and_ps(steps, _mm512_set1_ps(-0.0));
            let half = _mm512_or_ps(sign, _mm512_set1_ps(0.5));
            Self(_mm512_maskz_cvttps_epi32(numbers, _mm512_add_ps(bounded, half)))
        }
    }

    #[inline(always)]
    unsafe fn weights(token: Token, from: *const Group, _: usize) -> Self::Weights {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for a group, which is a vector.
        let weights = unsafe { _mm512_loadu_si512(from.cast()) };
        if SHIFTED_WEIGHTS { shifted(token, weights) } else { weights }
    }

    #[inline(always)]
    unsafe fn inputs(token: Token, from: *const i8) -> Self::Inputs {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for four readable bytes.
        let inputs = unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) };
        if SHIFTED_WEIGHTS { inputs } else { shifted(token, inputs) }
    }

    #[inline(always)]
    fn add_products(self, weights: Self::Weights, inputs: Self::Inputs) -> Self {
        let (unsigned, signed) = if SHIFTED_WEIGHTS { (weights, inputs) } else { (inputs, weights) };
        // SAFETY: a vector proves that the processor has AVX-512 VNNI.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, unsigned, signed) })
    }

    #[inline(always)]
    fn excess_of_inputs(_: Token, x: &[i8]) -> i32 {
        if !SHIFTED_WEIGHTS {
            return 0;
        }
        // SAFETY: the token proves that the processor has AVX-512 VNNI; bytes beyond the chunk are masked and not accessed.
        unsafe {
            let mut sums = _mm512_setzero_si512();
            let (full, rest) = x.as_chunks::<64>();
            for chunk in full {
                sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), _mm512_loadu_epi8(chunk.as_ptr()));
            }
            // There are less than 64.
            let rest = _mm512_maskz_loadu_epi8((1u64 << rest.len()) - 1, rest.as_ptr());
            sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), rest);
            _mm512_reduce_add_epi32(sums).wrapping_mul(128)
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_add_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_sub_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_mullo_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_low(self, factor: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512 BW.
        Self(unsafe { _mm512_madd_epi16(self.0, factor.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_max_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_min_epi32(self.0, other.0) })
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_and_si512(self.0, other.0) })
    }

    #[inline(always)]
    fn shift_right(self, places: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_srav_epi32(self.0, places.0) })
    }

    #[inline(always)]
    fn shift_right_by<const PLACES: u32>(self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_srai_epi32::<PLACES>(self.0) })
    }

    #[inline(always)]
    fn tanh(self, _: fn(i32) -> i32) -> Self {
        const { assert!(LOOKUP_STEPS == 64) };
        let [entries, differences] = &TABLES;
        // SAFETY: a vector proves that the processor has AVX-512 BW; each table is two vectors long.
        unsafe {
            let size = _mm512_min_epi32(_mm512_abs_epi32(self.0), _mm512_set1_epi32((LOOKUP_STEPS as i32) << 8));
            // The last index again for what is behind it: a rest of 256 is the next entry itself.
            let index = _mm512_min_epi32(_mm512_srli_epi32::<8>(size), _mm512_set1_epi32(LOOKUP_STEPS as i32 - 1));
            let rest = _mm512_sub_epi32(size, _mm512_slli_epi32::<8>(index));
            // The upper half of each lane looks up the first entry: that of tanh is 0, and the rest has none.
            let [low, high] = [entries.as_ptr(), entries.as_ptr().add(32)];
            let entry = _mm512_permutex2var_epi16(_mm512_loadu_epi16(low), index, _mm512_loadu_epi16(high));
            let [low, high] = [differences.as_ptr(), differences.as_ptr().add(32)];
            let difference = _mm512_permutex2var_epi16(_mm512_loadu_epi16(low), index, _mm512_loadu_epi16(high));
            let more = _mm512_add_epi32(_mm512_madd_epi16(difference, rest), _mm512_set1_epi32(128));
            let value = _mm512_add_epi32(entry, _mm512_srli_epi32::<8>(more));
            let negative = _mm512_movepi32_mask(self.0);
            Self(_mm512_mask_sub_epi32(value, negative, _mm512_setzero_si512(), value))
        }
    }

    #[inline(always)]
    fn store_int8(self, to: &mut [i8]) {
        // SAFETY: a vector proves that the processor has AVX-512 BW and VL; lanes beyond the slice are masked and not
        // accessed.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(self.0);
            match to.first_chunk_mut::<16>() {
                Some(full) => _mm_storeu_si128(full.as_mut_ptr().cast(), bytes),
                None => _mm_mask_storeu_epi8(to.as_mut_ptr(), mask(to.len()), bytes),
            }
        }
    }

    #[inline(always)]
    fn store_scaled(self, scales: Self, to: &mut [f32]) {
        // SAFETY: a vector proves that the processor has AVX-512; lanes beyond the slice are masked and not accessed.
        unsafe {
            let values = _mm512_mul_ps(_mm512_cvtepi32_ps(self.0), _mm512_castsi512_ps(scales.0));
            _mm512_mask_storeu_ps(to.as_mut_ptr(), mask(to.len()), values);
        }
    }
}
