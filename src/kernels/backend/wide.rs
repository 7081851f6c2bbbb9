//! The portable vector backend, on the `wide` crate: SSE2, NEON or simd128, whichever the target is compiled for.

use super::Kernel;
use super::non_zero::FindNonZero;
use crate::kernels::vector::Vector;
use half::f16;
use wide::{f32x4, i32x4, u32x4};

pub(super) const NAME: &str = "wide";

/// `wide` uses what the target is compiled for, so any processor that runs this code at all will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token(pub(super) ());

// SAFETY: the numbers are written by the trait's own function.
unsafe impl FindNonZero for Token {
    const IS_FAST: bool = true;

    #[inline(always)]
    unsafe fn non_zero<const ROWS: usize>(self, rows: [*const u32; ROWS]) -> u16 {
        let mut bits = 0;
        for quarter in 0..4 {
            let mut any = u32x4::ZERO;
            for row in rows {
                // SAFETY: the caller vouches for sixteen words.
                any |= u32x4::new(unsafe { row.add(4 * quarter).cast::<[u32; 4]>().read_unaligned() });
            }
            let zero: i32x4 = bytemuck::cast(any);
            bits |= (!zero.simd_eq(i32x4::ZERO).to_bitmask() as u16 & 15) << (4 * quarter);
        }
        bits
    }
}

#[inline(always)]
pub(super) fn call<K: Kernel>(kernel: K) -> K::Output {
    // Eight sums and two weights fit SSE2's sixteen registers and hide an addition's latency.
    kernel.run::<F32x4, 4, 2, 8, 4>(Token(()))
}

/// The conversion of every 64-bit Arm processor.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn f32s_from_f16s(halves: [f16; 4]) -> [f32; 4] {
    use core::arch::aarch64::float32x4_t;
    let halves: u64 = bytemuck::cast(halves);
    let floats: float32x4_t;
    // SAFETY: the instructions touch the two registers that are declared, and no memory.
    unsafe {
        core::arch::asm!(
            "fmov {floats:d}, {halves}",
            "fcvtl {floats:v}.4s, {floats:v}.4h",
            halves = in(reg) halves,
            floats = out(vreg) floats,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    // SAFETY: both are four floats.
    unsafe { core::mem::transmute::<float32x4_t, [f32; 4]>(floats) }
}

/// With integer vectors: one number after the other would take as long as dozens of multiply-adds.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
fn f32s_from_f16s(halves: [f16; 4]) -> [f32; 4] {
    /// The difference of the exponents' biases, as a factor: it makes normal numbers of subnormal ones too.
    const REBIAS: f32 = f32::from_bits((127 + 127 - 15) << 23); // 2^112
    /// The largest finite number, moved to where an f32 has its exponent; and the exponent of infinities and NaN in an f32.
    const FINITE: i32 = 0x7bff << 13;
    const SPECIAL: i32 = 0xff << 23;
    let [a, b, c, d] = halves.map(|half| i32::from(half.to_bits()));
    let bits = i32x4::new([a, b, c, d]);
    let magnitude = (bits & i32x4::splat(0x7fff)) << 13u32;
    let scaled: i32x4 = bytemuck::cast(bytemuck::cast::<i32x4, f32x4>(magnitude) * f32x4::splat(REBIAS));
    let is_special = magnitude.simd_gt(i32x4::splat(FINITE));
    let magnitude = scaled | (is_special & (magnitude | i32x4::splat(SPECIAL)));
    bytemuck::cast(magnitude | ((bits & i32x4::splat(0x8000)) << 16u32))
}

#[derive(Clone, Copy)]
pub(crate) struct F32x4(f32x4);

impl Vector for F32x4 {
    type Token = Token;
    const LANES: usize = 4;
    const CHAINS: usize = 8;
    const UNROLL: bool = true;

    #[inline(always)]
    fn splat(_: Token, value: f32) -> Self {
        Self(f32x4::splat(value))
    }

    #[inline(always)]
    fn load(_: Token, from: &[f32]) -> Self {
        if let Some(full) = from.first_chunk::<4>() {
            return Self(f32x4::new(*full));
        }
        let mut lanes = [0.0; 4];
        lanes.iter_mut().zip(from).for_each(|(lane, from)| *lane = *from);
        Self(f32x4::new(lanes))
    }

    #[inline(always)]
    unsafe fn load_from(_: Token, from: *const f32) -> Self {
        // SAFETY: the caller vouches for four readable values, aligned as f32, which is an array's alignment too.
        Self(f32x4::new(unsafe { from.cast::<[f32; 4]>().read() }))
    }

    #[inline(always)]
    unsafe fn load_f16_from(_: Token, from: *const f16) -> Self {
        // SAFETY: the caller vouches for four readable values, aligned as f16, which is an array's alignment too.
        let halves = unsafe { from.cast::<[f16; 4]>().read() };
        Self(f32x4::new(f32s_from_f16s(halves)))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        let lanes = self.0.to_array();
        if let Some(full) = to.first_chunk_mut() {
            *full = lanes;
        } else {
            to.iter_mut().zip(lanes).for_each(|(to, lane)| *to = lane);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(self.0 / other.0)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(self.0.mul_add(factor.0, addend.0))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // `wide` has a maximum of its own for each target, with another treatment of NaN on each.
        self.if_greater(other, self, other)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        other.if_greater(self, self, other)
    }

    #[inline(always)]
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self {
        Self(self.0.simd_gt(other.0).bitselect(yes.0, no.0))
    }

    #[inline(always)]
    fn if_nan(self, yes: Self, no: Self) -> Self {
        Self(self.0.is_nan().bitselect(yes.0, no.0))
    }

    #[inline(always)]
    fn exp2_of_shifted(self) -> Self {
        let bits: i32x4 = bytemuck::cast(self.0);
        let one: i32x4 = bytemuck::cast(f32x4::splat(1.0));
        Self(bytemuck::cast((bits << 23u32) + one))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs())
    }
}
