//! The backend that every processor can run: plain arithmetic on arrays of four.

use super::Kernel;
use crate::kernels::backend::non_zero::FindNonZero;
use crate::kernels::vector::Vector;
use core::array::from_fn;
use half::f16;

pub(super) const NAME: &str = "scalar";

/// Any processor will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token(pub(super) ());

// SAFETY: the numbers are written by the trait's own function.
unsafe impl FindNonZero for Token {}

#[inline(always)]
pub(super) fn call<K: Kernel>(kernel: K) -> K::Output {
    // Sixteen sums, as four rows of one vector or one row of a whole panel: half of the registers of a Cortex-M4F.
    kernel.run::<F32x4, 4, 1, 4, 4>(Token(()))
}

/// Runs a kernel one value at a time, for the least code.
#[cfg(target_os = "none")]
#[inline(always)]
pub(super) fn call_single<K: Kernel>(kernel: K) -> K::Output {
    kernel.run::<Single, 1, 1, 1, 1>(Token(()))
}

/// The conversion of the FPU, which every Cortex-M with an FPU has.
#[cfg(cortex_m_fpu)]
#[inline(always)]
fn f32_from_f16(half: f16) -> f32 {
    let bits: u32;
    // SAFETY: the instructions touch one register of the FPU, which is declared as overwritten, and no memory.
    unsafe {
        core::arch::asm!(
            "vmov s0, {bits}",
            "vcvtb.f32.f16 s0, s0",
            "vmov {bits}, s0",
            bits = inlateout(reg) u32::from(half.to_bits()) => bits,
            out("s0") _,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    f32::from_bits(bits)
}

#[cfg(not(cortex_m_fpu))]
#[inline(always)]
fn f32_from_f16(half: f16) -> f32 {
    half.to_f32()
}

#[derive(Clone, Copy)]
pub(crate) struct F32x4([f32; 4]);

impl F32x4 {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let ([a, b, c, d], [e, g, h, i]) = (self.0, other.0);
        Self([f(a, e), f(b, g), f(c, h), f(d, i)])
    }
}

impl Vector for F32x4 {
    type Token = Token;
    const LANES: usize = 4;
    const CHAINS: usize = 1;
    const UNROLL: bool = cfg!(not(target_os = "none"));

    #[inline(always)]
    fn splat(_: Token, value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    fn load(_: Token, from: &[f32]) -> Self {
        Self(from_fn(|lane| from.get(lane).copied().unwrap_or(0.0)))
    }

    #[inline(always)]
    unsafe fn load_from(_: Token, from: *const f32) -> Self {
        // SAFETY: the caller vouches for four readable values, aligned as f32, which is an array's alignment too. (An
        // unaligned read would do, but an M4's FPU has none, and an M0 would read byte by byte.)
        Self(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn load_f16_from(_: Token, from: *const f16) -> Self {
        // SAFETY: the caller vouches for four readable values, aligned as f16, which is an array's alignment too.
        let halves = unsafe { from.cast::<[f16; 4]>().read() };
        Self(halves.map(f32_from_f16))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        if let Some(full) = to.first_chunk_mut() {
            *full = self.0;
        } else {
            to.iter_mut().zip(self.0).for_each(|(to, lane)| *to = lane);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        self.mul(factor).add(addend)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        let ([i, j, k, l], [m, n, o, p]) = (yes.0, no.0);
        let pick = |x: f32, y: f32, yes: f32, no: f32| if x > y { yes } else { no };
        Self([pick(a, e, i, m), pick(b, f, j, n), pick(c, g, k, o), pick(d, h, l, p)])
    }

    #[inline(always)]
    fn if_nan(self, yes: Self, no: Self) -> Self {
        let ([a, b, c, d], [e, f, g, h], [i, j, k, l]) = (self.0, yes.0, no.0);
        let pick = |x: f32, yes: f32, no: f32| if x.is_nan() { yes } else { no };
        Self([pick(a, e, i), pick(b, f, j), pick(c, g, k), pick(d, h, l)])
    }

    #[inline(always)]
    fn exp2_of_shifted(self) -> Self {
        Self(self.0.map(exp2_of_shifted))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f32::abs))
    }
}

/// A single value.
#[cfg(target_os = "none")]
#[derive(Clone, Copy)]
pub(crate) struct Single(f32);

#[cfg(target_os = "none")]
impl Vector for Single {
    type Token = Token;
    const LANES: usize = 1;
    const CHAINS: usize = 1;
    const UNROLL: bool = false;

    #[inline(always)]
    fn splat(_: Token, value: f32) -> Self {
        Self(value)
    }

    #[inline(always)]
    fn load(_: Token, from: &[f32]) -> Self {
        Self(from.first().copied().unwrap_or(0.0))
    }

    #[inline(always)]
    unsafe fn load_from(_: Token, from: *const f32) -> Self {
        // SAFETY: the caller vouches for a readable value.
        Self(unsafe { from.read() })
    }

    #[inline(always)]
    unsafe fn load_f16_from(_: Token, from: *const f16) -> Self {
        // SAFETY: likewise.
        Self(f32_from_f16(unsafe { from.read() }))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to.iter_mut().take(1).for_each(|to| *to = self.0);
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
        self.mul(factor).add(addend)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.if_greater(other, self, other)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        other.if_greater(self, self, other)
    }

    #[inline(always)]
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self {
        if self.0 > other.0 { yes } else { no }
    }

    #[inline(always)]
    fn if_nan(self, yes: Self, no: Self) -> Self {
        if self.0.is_nan() { yes } else { no }
    }

    #[inline(always)]
    fn exp2_of_shifted(self) -> Self {
        Self(exp2_of_shifted(self.0))
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs())
    }
}

/// See [`Vector::exp2_of_shifted`].
#[inline(always)]
fn exp2_of_shifted(x: f32) -> f32 {
    f32::from_bits((x.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}
