//! x86 with AVX2 and FMA, chosen at run time.

use super::non_zero::FindNonZero;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
use super::tile::TileRow;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
use super::x86_tile;
use super::{Kernel, avx512, x86};
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
use crate::kernels::pack::sealed::Load;
use crate::kernels::vector::Vector;
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;
use half::f16;

pub(super) const NAME: &str = "avx2";

/// Proof that the processor has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(());

impl Token {
    pub(super) fn detect() -> Option<Self> {
        x86::has(x86::AVX2).then_some(Self(()))
    }

    /// [`AVX512`](x86::AVX512) is all of [`AVX2`](x86::AVX2) too.
    pub(super) const fn from_avx512(_: avx512::Token) -> Self {
        Self(())
    }
}

// SAFETY: the numbers are written by the trait's own function.
unsafe impl FindNonZero for Token {
    const IS_FAST: bool = true;

    #[inline(always)]
    unsafe fn non_zero<const ROWS: usize>(self, rows: [*const u32; ROWS]) -> u16 {
        let mut zero = 0;
        for half in 0..2 {
            // SAFETY: the token proves that the processor has AVX2; the caller vouches for sixteen words.
            unsafe {
                let mut any = _mm256_setzero_si256();
                for row in rows {
                    any = _mm256_or_si256(any, _mm256_loadu_si256(row.add(8 * half).cast()));
                }
                let lanes = _mm256_cmpeq_epi32(any, _mm256_setzero_si256());
                zero |= (_mm256_movemask_ps(_mm256_castsi256_ps(lanes)) as u16) << (8 * half);
            }
        }
        !zero
    }
}

#[inline(always)]
pub(super) fn call<K: Kernel>(token: Token, kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    fn with_features<K: Kernel>(token: Token, kernel: K) -> K::Output {
        // Ten sums, two weights and two inputs: fourteen of the sixteen registers. With six rows, which the assembly has, there would be
        // none left for anything that does not change from tile to tile, and the compiler may then keep a sum in memory.
        kernel.run::<F32x8, 5, 2, 8, 4>(token)
    }
    // SAFETY: the token proves that the processor has the features.
    unsafe { with_features(token, kernel) }
}

/// Eight lanes; having one proves what a [`Token`] proves.
#[derive(Clone, Copy)]
pub(crate) struct F32x8(__m256);

/// Masks of the first `n` lanes, as a window into this: `MASKS[8 - n..]`.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `n` lanes, all of them from 8 on.
#[inline(always)]
pub(super) fn mask(n: usize) -> __m256i {
    let start = 8 - n.min(8);
    // SAFETY: eight values follow `start`, which is at most 8; a caller has a vector or a token, so AVX is there.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(start).cast()) }
}

impl Vector for F32x8 {
    type Token = Token;
    const LANES: usize = 8;
    const CHAINS: usize = 8;
    const PERMUTES: bool = true;
    const UNROLL: bool = true;
    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    const WHOLE_TILES: (usize, usize) = (6, 4);

    #[inline(always)]
    fn splat(_: Token, value: f32) -> Self {
        // SAFETY: the token proves that the processor has AVX.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    fn load(_: Token, from: &[f32]) -> Self {
        // SAFETY: the token proves that the processor has AVX; lanes beyond the slice are masked and not accessed.
        Self(unsafe { _mm256_maskload_ps(from.as_ptr(), mask(from.len())) })
    }

    #[inline(always)]
    unsafe fn load_from(_: Token, from: *const f32) -> Self {
        // SAFETY: the token proves that the processor has AVX; the caller vouches for eight readable values.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_f16_from(_: Token, from: *const f16) -> Self {
        // SAFETY: the token proves that the processor has F16C; the caller vouches for eight readable values.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }

    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    #[inline(always)]
    unsafe fn compute_tile_row<W: Load, const ROWS: usize>(_: Token, tiles: &mut TileRow) {
        // SAFETY: the token proves that the processor has AVX2, FMA and F16C; the caller vouches for the tiles.
        unsafe {
            match ROWS {
                6 => x86_tile::six_by_two::<W>(tiles),
                4 => x86_tile::four_by_two::<W>(tiles),
                _ => {}
            }
        };
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        if let Some(full) = to.first_chunk_mut::<8>() {
            // SAFETY: a vector proves that the processor has AVX; the chunk has eight values. (A masked store would do, but
            // is many times slower on AMD's processors.)
            return unsafe { _mm256_storeu_ps(full.as_mut_ptr(), self.0) };
        }
        // SAFETY: a vector proves that the processor has AVX; lanes beyond the slice are masked and not accessed.
        unsafe { _mm256_maskstore_ps(to.as_mut_ptr(), mask(to.len()), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: a vector proves that the processor has FMA.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX. The instruction picks its second operand where one is NaN.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX. The instruction picks its second operand where one is
        // NaN.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0)) })
    }

    #[inline(always)]
    fn if_nan(self, yes: Self, no: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX.
        Self(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0)) })
    }

    #[inline(always)]
    fn exp2_of_shifted(self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2.
        unsafe {
            let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
            Self(_mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f80_0000))))
        }
    }

    #[inline(always)]
    fn permute(self, lanes: Self) -> Self {
        // SAFETY: a vector proves that the processor has AVX2. The instruction looks at the low bits only.
        Self(unsafe { _mm256_permutevar8x32_ps(self.0, _mm256_castps_si256(lanes.0)) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: a vector proves that the processor has AVX.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
}
