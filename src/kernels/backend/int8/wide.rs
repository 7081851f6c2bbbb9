//! Int8 with the portable vectors of the `wide` crate, as dot products of 16-bit numbers.

use super::Int8Kernel;
use crate::kernels::backend::wide::Token;
use crate::kernels::int8::tensor::Group;
use crate::kernels::int8::vector::Int8Vector;
use core::array::from_fn;
use wide::{f32x4, i16x8, i32x4, u32x4};

#[inline(always)]
pub(super) fn call<K: Int8Kernel>(kernel: K) {
    kernel.run::<I32x4, 4, 2, 4, 1, 4>(Token(()));
}

#[derive(Clone, Copy)]
pub(crate) struct I32x4(i32x4);

/// The first and third, and the second and fourth, of each four bytes.
#[inline(always)]
fn even_and_odd(bytes: i16x8) -> [i16x8; 2] {
    [(bytes << 8u32) >> 8u32, bytes >> 8u32]
}

/// The first four numbers, then zeros.
#[inline(always)]
fn lanes<T: Copy + Default>(from: &[T]) -> [T; 4] {
    from.first_chunk().copied().unwrap_or_else(|| from_fn(|lane| from.get(lane).copied().unwrap_or_default()))
}

impl Int8Vector for I32x4 {
    type Token = Token;
    type Weights = [i16x8; 2];
    type Inputs = [i16x8; 2];
    type Windows = Self;
    type NonNegative = Self;
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(_: Token, value: i32) -> Self {
        Self(i32x4::splat(value))
    }

    #[inline(always)]
    fn load(_: Token, from: &[i32]) -> Self {
        Self(i32x4::new(lanes(from)))
    }

    #[inline(always)]
    fn load_bytes(_: Token, from: &[u8]) -> Self {
        Self(i32x4::new(lanes(from).map(i32::from)))
    }

    #[inline(always)]
    fn load_nearest(_: Token, from: &[f32], factor: f32) -> Self {
        let steps = f32x4::new(lanes(from)) * f32x4::splat(factor);
        let half = steps.simd_lt(f32x4::splat(0.0)).select(f32x4::splat(-0.5), f32x4::splat(0.5));
        // NaN becomes 0, what is too large the largest integer.
        Self((steps + half).trunc_int().max(i32x4::splat(-127)).min(i32x4::splat(127)))
    }

    #[inline(always)]
    unsafe fn weights(_: Token, from: *const Group, lane: usize) -> Self::Weights {
        // SAFETY: the caller vouches for sixteen lanes of four bytes, of which four begin at `lane`; bytes have no alignment.
        let bytes = unsafe { from.cast::<[i8; 4]>().add(lane).cast::<[i8; 16]>().read() };
        even_and_odd(bytemuck::cast(bytes))
    }

    #[inline(always)]
    unsafe fn inputs(_: Token, from: *const i8) -> Self::Inputs {
        // SAFETY: the caller vouches for four readable bytes.
        let bytes = unsafe { from.cast::<[i8; 4]>().read() };
        even_and_odd(bytemuck::cast(i32x4::splat(i32::from_ne_bytes(bytes.map(i8::cast_unsigned)))))
    }

    #[inline(always)]
    fn add_products(self, [even, odd]: Self::Weights, [x_even, x_odd]: Self::Inputs) -> Self {
        Self(self.0 + even.dot(x_even) + odd.dot(x_odd))
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
    fn mul_low(self, factor: Self) -> Self {
        Self(bytemuck::cast::<i32x4, i16x8>(self.0).dot(bytemuck::cast(factor.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[inline(always)]
    fn shift_right(self, places: Self) -> Self {
        Self(self.0 >> bytemuck::cast::<i32x4, u32x4>(places.0))
    }

    #[inline(always)]
    fn shift_right_by<const PLACES: u32>(self) -> Self {
        Self(self.0 >> PLACES)
    }

    #[inline(always)]
    fn tanh(self, tanh: fn(i32) -> i32) -> Self {
        Self(i32x4::new(self.0.to_array().map(tanh)))
    }

    #[inline(always)]
    fn store_int8(self, to: &mut [i8]) {
        to.iter_mut().zip(self.0.to_array()).for_each(|(to, lane)| *to = lane as i8);
    }

    #[inline(always)]
    fn store_scaled(self, scales: Self, to: &mut [f32]) {
        let values = self.0.round_float() * bytemuck::cast::<i32x4, f32x4>(scales.0);
        to.iter_mut().zip(values.to_array()).for_each(|(to, value)| *to = value);
    }
}
