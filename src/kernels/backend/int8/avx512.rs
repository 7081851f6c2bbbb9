//! Int8 with AVX-512 VNNI.
//!
//! Its dot products are of unsigned numbers times signed ones, so one side is shifted by 128 and the sums have an excess.

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod run;

use super::Int8Kernel;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
use super::tile::{Run, add_run};
use crate::kernels::backend::avx512::{self, mask};
use crate::kernels::backend::non_zero::FindNonZero;
use crate::kernels::backend::x86;
use crate::kernels::int8::requantize::{FRACTION, LOOKUP_STEPS, TANH};
use crate::kernels::int8::scaling::shift;
use crate::kernels::int8::tensor::Group;
use crate::kernels::int8::vector::{BLOCK, Int8Vector};
#[cfg(target_arch = "x86")]
use core::arch::x86::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

/// Proof that the processor has VNNI, and what the other token proves.
#[derive(Clone, Copy)]
pub(crate) struct Token(avx512::Token);

impl Token {
    pub(super) fn detect(token: avx512::Token) -> Option<Self> {
        x86::has(x86::AVX512_VNNI).then_some(Self(token))
    }
}

// SAFETY: the numbers are written as by the token inside.
unsafe impl FindNonZero for Token {
    const IS_FAST: bool = true;

    #[inline(always)]
    unsafe fn non_zero<const ROWS: usize>(self, rows: [*const u32; ROWS]) -> u16 {
        // SAFETY: the caller vouches for the same.
        unsafe { self.0.non_zero(rows) }
    }

    #[inline(always)]
    unsafe fn write_numbers(self, bits: u16, first: u16, to: *mut u16) {
        // SAFETY: the caller vouches for the same.
        unsafe { self.0.write_numbers(bits, first, to) }
    }
}

#[inline(always)]
pub(super) fn call<K: Int8Kernel>(token: Token, kernel: K) {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,popcnt")]
    fn with_features<K: Int8Kernel>(token: Token, kernel: K) {
        // Twenty-four sums, three weights and an input: twenty-eight of the thirty-two registers.
        kernel.run::<I32x16<WEIGHTS>, 8, 3, 1, 8, 8>(token);
    }
    // SAFETY: the token proves that the processor has the features.
    unsafe { with_features(token, kernel) }
}

/// Sixteen lanes; having one proves what a [`Token`] proves. `SHIFTED` says what is shifted by 128: the [`WEIGHTS`], the
/// [`INPUTS`], or [`NOTHING`].
#[derive(Clone, Copy)]
pub(crate) struct I32x16<const SHIFTED: u8>(__m512i);

/// For inputs of which none is less than 0.
const NOTHING: u8 = 0;
const WEIGHTS: u8 = 1;
const INPUTS: u8 = 2;

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

/// The bytes of four vectors, each of whose quarters lies in a quarter of `bytes`: vector after vector, as packing the vectors
/// twice should have left them.
///
/// # Safety
/// The processor must have AVX-512.
#[inline(always)]
unsafe fn in_order(bytes: __m512i) -> __m512i {
    // SAFETY: the caller vouches for AVX-512.
    unsafe {
        let order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
        _mm512_permutexvar_epi32(order, bytes)
    }
}

/// Writes as many bytes as fit.
///
/// # Safety
/// The processor must have AVX-512 BW and VL.
#[inline(always)]
unsafe fn store_bytes<const COLUMNS: usize>(bytes: __m512i, to: &mut [i8]) {
    // SAFETY: the caller vouches for the instructions; bytes beyond the slice are masked and not accessed.
    unsafe {
        if to.len() < 16 * COLUMNS {
            let mask = (1u64 << to.len()) - 1;
            return _mm512_mask_storeu_epi8(to.as_mut_ptr(), mask, bytes);
        }
        match COLUMNS {
            1 => _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_castsi512_si128(bytes)),
            2 => _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_castsi512_si256(bytes)),
            3 => {
                _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_castsi512_si256(bytes));
                _mm_storeu_si128(to.as_mut_ptr().add(32).cast(), _mm512_extracti32x4_epi32::<2>(bytes));
            }
            _ => _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes),
        }
    }
}

/// The integers nearest to sixteen values times `factor`, halves away from 0; the smallest of all integers for NaN and for what
/// is out of range.
///
/// # Safety
/// The processor must have AVX-512, and `from` must be valid for reads of sixteen values.
#[inline(always)]
unsafe fn nearest(from: *const f32, factor: f32) -> __m512i {
    // SAFETY: the caller vouches for both.
    unsafe {
        let steps = _mm512_mul_ps(_mm512_loadu_ps(from), _mm512_set1_ps(factor));
        // The sign of the steps, and all other bits of the half.
        let [steps_bits, half, sign] = [
            _mm512_castps_si512(steps),
            _mm512_set1_epi32(0.5f32.to_bits().cast_signed()),
            _mm512_set1_epi32(i32::MIN),
        ];
        let half = _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xe4>(steps_bits, half, sign));
        _mm512_cvttps_epi32(_mm512_add_ps(steps, half))
    }
}

impl<const SHIFTED: u8> I32x16<SHIFTED> {
    /// [`Parameter::steps`](crate::kernels::int8::requantize::Parameter::steps) of two vectors, as sixteen-bit words, the
    /// quarters of the vectors by turns.
    #[inline(always)]
    fn pair_of_steps(token: Token, [a, b]: [Self; 2], [of_a, of_b]: [Self; 2]) -> __m512i {
        let (a, b) = (a.shift_right(shift(token, of_a)), b.shift_right(shift(token, of_b)));
        let mask = Self::splat(token, 0x7fff);
        // SAFETY: a vector proves that the processor has AVX-512 BW.
        unsafe {
            let cut = _mm512_packs_epi32(a.0, b.0);
            let multipliers = _mm512_packs_epi32(of_a.and(mask).0, of_b.and(mask).0);
            // The upper half of a product is all that the rounding looks at: this one divides by another 2^5.
            _mm512_mulhrs_epi16(_mm512_mulhi_epi16(cut, multipliers), _mm512_set1_epi16(1 << 10))
        }
    }
}

impl<const SHIFTED: u8> Int8Vector for I32x16<SHIFTED> {
    type Token = Token;
    type Weights = __m512i;
    type Inputs = __m512i;
    type Windows = I32x16<INPUTS>;
    type NonNegative = I32x16<NOTHING>;
    const LANES: usize = 16;
    const EXCESS_OF_WEIGHTS: bool = SHIFTED == INPUTS;

    #[inline(always)]
    fn splat(_: Token, value: i32) -> Self {
        // SAFETY: the token proves that the processor has AVX-512.
        Self(unsafe { _mm512_set1_epi32(value) })
    }

    #[inline(always)]
    fn load(_: Token, from: &[i32]) -> Self {
        if let Some(full) = from.first_chunk::<16>() {
            // SAFETY: the token proves that the processor has AVX-512; the chunk has sixteen values.
            return Self(unsafe { _mm512_loadu_epi32(full.as_ptr()) });
        }
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
    fn quantize_block(token: Token, from: &[f32; BLOCK], factor: f32, to: &mut [i8; BLOCK]) {
        const { assert!(BLOCK == 64) };
        // SAFETY: the token proves that the processor has AVX-512 BW; the blocks are four vectors and one.
        let bounded = unsafe {
            let [a, b, c, d] = [0, 16, 32, 48].map(|first| from.as_ptr().add(first));
            let [a, b, c, d] = [nearest(a, factor), nearest(b, factor), nearest(c, factor), nearest(d, factor)];
            let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
            _mm512_storeu_si512(to.as_mut_ptr().cast(), in_order(bytes));
            _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(-128)) == 0
        };
        if !bounded {
            // Rare, so it may cost more: a value that is too small, NaN, or too large for 32 bits.
            for (from, to) in from.chunks(Self::LANES).zip(to.chunks_mut(Self::LANES)) {
                Self::load_nearest(token, from, factor).store_int8(to);
            }
        }
    }

    #[inline(always)]
    unsafe fn weights(token: Token, from: *const Group, _: usize) -> Self::Weights {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for a group, which is a vector.
        let weights = unsafe { _mm512_loadu_si512(from.cast()) };
        if SHIFTED == WEIGHTS { shifted(token, weights) } else { weights }
    }

    #[inline(always)]
    unsafe fn inputs(token: Token, from: *const i8) -> Self::Inputs {
        // SAFETY: the token proves that the processor has AVX-512; the caller vouches for four readable bytes.
        let inputs = unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) };
        if SHIFTED == INPUTS { shifted(token, inputs) } else { inputs }
    }

    #[inline(always)]
    fn add_products(self, weights: Self::Weights, inputs: Self::Inputs) -> Self {
        let (unsigned, signed) = if SHIFTED == WEIGHTS { (weights, inputs) } else { (inputs, weights) };
        // SAFETY: a vector proves that the processor has AVX-512 VNNI.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, unsigned, signed) })
    }

    #[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
    #[inline(always)]
    unsafe fn add_run<const ROWS: usize, const COLUMNS: usize>(
        token: Token,
        run: Run<'_, ROWS, COLUMNS>,
        mut sums: [[Self; COLUMNS]; ROWS],
    ) -> [[Self; COLUMNS]; ROWS] {
        // SAFETY: the token proves that the processor has AVX-512 BW and VNNI; the caller vouches for the run.
        unsafe {
            // (Of a convolution, whose runs are short, the compiler makes the better loops.)
            let done = SHIFTED != INPUTS
                && (run::add_to_three(&run, &mut sums)
                    || run::add_to_two(&run, &mut sums)
                    || run::add_to_one(&run, &mut sums));
            if done { sums } else { add_run(token, run, sums) }
        }
    }

    #[inline(always)]
    fn are_non_negative(_: Token, x: &[i8]) -> bool {
        // SAFETY: the token proves that the processor has AVX-512 BW; bytes beyond the chunk are masked and not accessed.
        unsafe {
            let (chunks, rest) = x.as_chunks::<64>();
            let mask = (1u64 << rest.len()) - 1;
            let mut bits = _mm512_maskz_loadu_epi8(mask, rest.as_ptr());
            for chunk in chunks {
                bits = _mm512_or_si512(bits, _mm512_loadu_epi8(chunk.as_ptr()));
            }
            _mm512_movepi8_mask(bits) == 0
        }
    }

    #[inline(always)]
    fn excess_of_inputs(token: Token, x: &[i8]) -> Self {
        if SHIFTED != WEIGHTS {
            return Self::splat(token, 0);
        }
        // SAFETY: the token proves that the processor has AVX-512 VNNI; bytes beyond the chunk are masked and not accessed.
        unsafe {
            let (mut sums, ones) = (_mm512_setzero_si512(), _mm512_set1_epi8(1));
            // A few inputs have just been stored, sixteen at a time: a longer load would have to wait for that.
            let few = if x.len() <= 256 { x.len() } else { x.len() % 64 };
            let (many, few) = x.split_at_checked(x.len() - few).unwrap_or_default();
            for chunk in many.as_chunks::<64>().0 {
                sums = _mm512_dpbusd_epi32(sums, ones, _mm512_loadu_epi8(chunk.as_ptr()));
            }
            let (chunks, rest) = few.as_chunks::<16>();
            for chunk in chunks {
                let inputs = _mm_loadu_epi8(chunk.as_ptr());
                sums = _mm512_dpbusd_epi32(sums, ones, _mm512_zextsi128_si512(inputs));
            }
            if !rest.is_empty() {
                let inputs = _mm_maskz_loadu_epi8(mask(rest.len()), rest.as_ptr());
                sums = _mm512_dpbusd_epi32(sums, ones, _mm512_zextsi128_si512(inputs));
            }
            // Each quarter of the register with each other, then each lane: faster than by way of a scalar.
            sums = _mm512_add_epi32(sums, _mm512_shuffle_i64x2::<0b01_00_11_10>(sums, sums));
            sums = _mm512_add_epi32(sums, _mm512_shuffle_i64x2::<0b10_11_00_01>(sums, sums));
            sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32::<0b01_00_11_10>(sums));
            sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32::<0b10_11_00_01>(sums));
            Self(_mm512_slli_epi32::<7>(sums))
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
    fn store_steps<const COLUMNS: usize>(
        token: Token,
        sums: [Self; COLUMNS],
        parameters: [Self; COLUMNS],
        floor: i32,
        to: &mut [i8],
    ) {
        const { assert!(COLUMNS > 0 && COLUMNS <= 4 && FRACTION == 21) };
        // Vectors that there are not repeat others.
        let [a, b, c, d] = const { [0, 1 % COLUMNS, 2 % COLUMNS, 3 % COLUMNS] };
        // SAFETY: a vector proves that the processor has AVX-512 BW and VL.
        unsafe {
            let low = Self::pair_of_steps(token, [sums[a], sums[b]], [parameters[a], parameters[b]]);
            let high = if COLUMNS <= 2 {
                low
            } else {
                Self::pair_of_steps(token, [sums[c], sums[d]], [parameters[c], parameters[d]])
            };
            let bytes = _mm512_max_epi8(_mm512_packs_epi16(low, high), _mm512_set1_epi8(floor as i8));
            store_bytes::<COLUMNS>(in_order(bytes), to);
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
