//! From f32 values, or bytes, to int8 activations.

use super::tensor::nearest;
use crate::layer::Quantize;

/// What an int8 layer reads: int8 activations, or the model's input, which is quantised on the way.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Int8(&'a [i8]),
    Bytes(&'a [u8], &'a Quantize),
    F32(&'a [f32], &'a Quantize),
    /// Int8 activations in the memory of the outputs, from that value on.
    Within(usize),
}

impl<'a> Source<'a> {
    /// The values from `first` on, at most `len`.
    pub(crate) fn part(&self, first: usize, len: usize) -> Self {
        fn part<T>(values: &[T], first: usize, len: usize) -> &[T] {
            let values = values.get(first..).unwrap_or_default();
            values.get(..len).unwrap_or(values)
        }
        match *self {
            Self::Int8(values) => Self::Int8(part(values, first, len)),
            Self::Bytes(values, quantize) => Self::Bytes(part(values, first, len), quantize),
            Self::F32(values, quantize) => Self::F32(part(values, first, len), quantize),
            Self::Within(start) => Self::Within(start + first),
        }
    }

    /// The activations, if they are there already.
    pub(crate) fn ready(&self) -> Option<&'a [i8]> {
        match self {
            Self::Int8(values) => Some(values),
            Self::Bytes(..) | Self::F32(..) | Self::Within(_) => None,
        }
    }

    /// Writes the activations from `first` on to `out`, as many as there are and fit.
    #[inline(never)]
    pub(crate) fn read(&self, first: usize, out: &mut [i8]) {
        fn copy<T: Copy>(from: &[T], first: usize, out: &mut [i8], quantize: impl Fn(T) -> i8) {
            let from = from.get(first..).unwrap_or_default();
            out.iter_mut().zip(from).for_each(|(to, value)| *to = quantize(*value));
        }
        match self {
            Self::Int8(values) => copy(values, first, out, at_least_smallest),
            Self::Bytes(values, quantize) => copy(values, first, out, |byte| quantize_byte(quantize, byte)),
            Self::F32(values, quantize) => copy(values, first, out, |value| quantize_value(quantize, value)),
            // Those are read where they are.
            Self::Within(_) => {}
        }
    }
}

/// An activation as it is: there are none below -127. (Plain copies would link a general `memcpy`, which is large.)
#[inline(always)]
pub(crate) fn at_least_smallest(value: i8) -> i8 {
    value.max(-127)
}

#[inline(always)]
fn quantize_byte(quantize: &Quantize, byte: u8) -> i8 {
    let steps = i32::from(byte) * quantize.byte_multiplier as i32 + quantize.byte_offset;
    ((steps + (1 << 15)) >> 16).clamp(-127, 127) as i8
}

/// NaN becomes 0.
#[inline(always)]
fn quantize_value(quantize: &Quantize, value: f32) -> i8 {
    nearest(value * quantize.inverse_scale).clamp(-127, 127) as i8
}
