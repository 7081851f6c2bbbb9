//! Int8 for every processor: plain arithmetic on arrays of four.

use super::Int8Kernel;
use crate::kernels::backend::scalar::Token;
use crate::kernels::int8::tensor::Group;
use crate::kernels::int8::tensor::nearest;
use crate::kernels::int8::vector::Int8Vector;
use core::array::from_fn;

#[inline(always)]
pub(super) fn call<K: Int8Kernel>(kernel: K) {
    kernel.run::<I32x4, 2, 1, 1, 1, 4>(Token(()));
}

#[derive(Clone, Copy)]
pub(crate) struct I32x4([i32; 4]);

impl I32x4 {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(i32, i32) -> i32) -> Self {
        let ([a, b, c, d], [e, g, h, i]) = (self.0, other.0);
        Self([f(a, e), f(b, g), f(c, h), f(d, i)])
    }
}

impl Int8Vector for I32x4 {
    type Token = Token;
    type Weights = [[i8; 4]; 4];
    type Inputs = [i8; 4];
    type Windows = Self;
    type NonNegative = Self;
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(_: Token, value: i32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    fn load(_: Token, from: &[i32]) -> Self {
        Self(from_fn(|lane| from.get(lane).copied().unwrap_or(0)))
    }

    #[inline(always)]
    fn load_bytes(_: Token, from: &[u8]) -> Self {
        Self(from_fn(|lane| from.get(lane).copied().map_or(0, i32::from)))
    }

    #[inline(always)]
    fn load_nearest(_: Token, from: &[f32], factor: f32) -> Self {
        Self(from_fn(|lane| from.get(lane).map_or(0, |value| nearest(value * factor).clamp(-127, 127))))
    }

    #[inline(always)]
    unsafe fn weights(_: Token, from: *const Group, lane: usize) -> Self::Weights {
        // SAFETY: the caller vouches for sixteen lanes, of which four begin at `lane`; bytes have no alignment.
        unsafe { from.cast::<[i8; 4]>().add(lane).cast::<[[i8; 4]; 4]>().read() }
    }

    #[inline(always)]
    unsafe fn inputs(_: Token, from: *const i8) -> Self::Inputs {
        // SAFETY: the caller vouches for four readable bytes.
        unsafe { from.cast::<[i8; 4]>().read() }
    }

    #[inline(always)]
    fn add_products(self, weights: Self::Weights, inputs: Self::Inputs) -> Self {
        let mut sums = self.0;
        for (sum, weights) in sums.iter_mut().zip(weights) {
            for (weight, input) in weights.into_iter().zip(inputs) {
                *sum = sum.wrapping_add(i32::from(weight) * i32::from(input));
            }
        }
        Self(sums)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_add)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_sub)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, i32::wrapping_mul)
    }

    #[inline(always)]
    fn mul_low(self, factor: Self) -> Self {
        self.zip(factor, |a, b| i32::from(a as i16) * i32::from(b as i16))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, i32::max)
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, i32::min)
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    #[inline(always)]
    fn shift_right(self, places: Self) -> Self {
        self.zip(places, |a, places| a.wrapping_shr(places.cast_unsigned()))
    }

    #[inline(always)]
    fn shift_right_by<const PLACES: u32>(self) -> Self {
        Self(self.0.map(|lane| lane.wrapping_shr(PLACES)))
    }

    #[inline(always)]
    fn tanh(self, tanh: fn(i32) -> i32) -> Self {
        Self(self.0.map(tanh))
    }

    #[inline(always)]
    fn store_int8(self, to: &mut [i8]) {
        to.iter_mut().zip(self.0).for_each(|(to, lane)| *to = lane as i8);
    }

    #[inline(always)]
    fn store_scaled(self, scales: Self, to: &mut [f32]) {
        let values = self.0.into_iter().zip(scales.0);
        let values = values.map(|(lane, scale)| lane as f32 * f32::from_bits(scale.cast_unsigned()));
        to.iter_mut().zip(values).for_each(|(to, value)| *to = value);
    }
}
