//! x86 with AVX-512, chosen at run time.

use super::non_zero::FindNonZero;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
use super::tile::TileRow;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
use super::x86_tile;
use super::{Kernel, avx2, x86};
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
use crate::kernels::pack::sealed::Load;
use crate::kernels::vector::Vector;
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;
use half::f16;

pub(super) const NAME: &str = "avx512";

/// Proof that the processor has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(());

impl Token {
    pub(super) fn detect() -> Option<Self> {
        x86::has(x86::AVX512).then_some(Self(()))
    }

    /// AVX-512 is only used where there is AVX2 as well.
    pub(super) fn avx2(self) -> avx2::Token {
        avx2::Token::from_avx512(self)
    }
}

// SAFETY: the lanes whose bits are set are moved to the front, each with `first` plus its number.
unsafe impl FindNonZero for Token {
    const IS_FAST: bool = true;

    #[inline(always)]
    unsafe fn non_zero<const ROWS: usize>(self, rows: [*const u32; ROWS]) -> u16 {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for sixteen words.
        unsafe {
            let mut any = _mm512_setzero_si512();
            for row in rows {
                any = _mm512_or_si512(any, _mm512_loadu_epi32(row.cast()));
            }
            _mm512_test_epi32_mask(any, any)
        }
    }

    #[inline(always)]
    unsafe fn write_numbers(self, bits: u16, first: u16, to: *mut u16) {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for room for sixteen values.
        unsafe {
            let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            let numbers = _mm512_add_epi32(lanes, _mm512_set1_epi32(first.into()));
            let numbers = _mm512_cvtepi32_epi16(_mm512_maskz_compress_epi32(bits, numbers));
            _mm256_storeu_si256(to.cast(), numbers);
        }
    }
}

#[inline(always)]
pub(super) fn call<K: Kernel>(token: Token, kernel: K) -> K::Output {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,popcnt")]
    fn with_features<K: Kernel>(token: Token, kernel: K) -> K::Output {
        // With a single column a multiply-add broadcasts its input from memory by itself. That it loads for every product does no
        // harm: this takes half as many instructions as two columns, which keeps more of them in flight.
        kernel.run::<F32x16, 8, 1, 8, 8>(token)
    }
    // SAFETY: the token proves that the processor has the features.
    unsafe { with_features(token, kernel) }
}

/// Sixteen lanes; having one proves what a [`Token`] proves.
#[derive(Clone, Copy)]
pub(crate) struct F32x16(__m512);

/// The mask of the first `n` lanes, all of them from 16 on.
#[inline(always)]
pub(super) fn mask(n: usize) -> __mmask16 {
    // The shift is at most 16 places.
    ((1u32 << n.min(16)) - 1) as __mmask16
}

/// How many bytes lie from each pointer to the next, if it is the same number everywhere.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
pub(super) fn distance<T, const N: usize>(pointers: &[*const T; N]) -> Option<usize> {
    let addresses = pointers.map(|pointer| pointer.addr());
    let [first, second, ..] = *addresses.as_slice() else { return None };
    let distance = second.checked_sub(first)?;
    addresses.iter().zip(addresses.iter().skip(1)).all(|(a, b)| a.wrapping_add(distance) == *b).then_some(distance)
}

impl Vector for F32x16 {
    type Token = Token;
    const LANES: usize = 16;
    const CHAINS: usize = 8;
    const PERMUTES: bool = true;
    const UNROLL: bool = true;
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    const WHOLE_TILES: (usize, usize) = (8, 4);

    #[inline(always)]
    fn splat(_: Token, value: f32) -> Self {
        // SAFETY: the token proves that the processor has AVX-512.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(_: Token, from: &[f32]) -> Self {
        // SAFETY: the token proves that the processor has AVX-512; lanes beyond the slice are masked and not accessed.
        Self(unsafe { _mm512_maskz_loadu_ps(mask(from.len()), from.as_ptr()) })
    }

    #[inline(always)]
    unsafe fn load_from(_: Token, from: *const f32) -> Self {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for sixteen readable values.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_f16_from(_: Token, from: *const f16) -> Self {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for sixteen readable values.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        if let Some(full) = to.first_chunk_mut::<16>() {
            // SAFETY: a vector proves that the processor has AVX-512; the chunk has sixteen values.
            return unsafe { _mm512_storeu_ps(full.as_mut_ptr(), self.0) };
        }
        // SAFETY: a vector proves that the processor has AVX-512; lanes beyond the slice are masked and not accessed.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask(to.len()), self.0) }
    }

    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    #[inline(always)]
    unsafe fn compute_tile_row<W: Load, const ROWS: usize>(_: Token, tiles: &mut TileRow) {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for the tiles.
        unsafe {
            match ROWS {
                8 => x86_tile::eight_by_one::<W>(tiles),
                4 => x86_tile::four_by_one::<W>(tiles),
                _ => {}
            }
        };
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512. The instruction picks its second operand where one is
        // NaN.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512. The instruction picks its second operand where one is
        // NaN.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0), no.0, yes.0) })
    }

    #[inline(always)]
    fn if_nan(self, yes: Self, no: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0), no.0, yes.0) })
    }

    #[inline(always)]
    fn exp2_of_shifted(self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        unsafe {
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
            Self(_mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f80_0000))))
        }
    }

    #[inline(always)]
    fn permute(self, lanes: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512. The instruction looks at the low bits only.
        Self(unsafe { _mm512_permutexvar_ps(_mm512_castps_si512(lanes.0), self.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: a vector proves that the processor has AVX-512.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }
}
