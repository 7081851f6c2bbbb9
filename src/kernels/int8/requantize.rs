//! From 32-bit sums to the next layer's int8 activations, or to the f32 outputs of the last layer.
//!
//! Products of 16-bit numbers are all it needs, so a Cortex-M0, which has no longer ones, computes the same.

use super::tensor::Int8Tensor;
use crate::layer::Slope;
use bytemuck::{Pod, Zeroable};

/// What scales the sums of one output, in the four bytes that the tensor has for it.
///
/// For int8 outputs `multiplier + (shift << 16)`: a sum stands for `sum * multiplier / 2^(21 + shift)` steps. Behind a ReLU6 the
/// top byte says by how many steps 6 is less than 127. For f32 outputs the bits of the value of one step of the sum.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(transparent)]
pub(crate) struct Parameter(u32);

/// The fraction of a product of a sum, cut to sixteen bits, and a multiplier.
pub(crate) const FRACTION: u32 = 21;
/// The fraction of what the activations' table is read with.
pub(super) const TABLE_FRACTION: u32 = FRACTION - 8;

impl Parameter {
    /// For sums of which one step has the value `sum`; `output` is the value of a step of int8 outputs, `None` for f32.
    /// `None` if that is out of range.
    pub(crate) fn new(sum: f64, output: Option<f32>) -> Option<Self> {
        let Some(output) = output else {
            let scale = sum as f32;
            return (scale.is_finite() && scale > 0.0).then_some(Self(scale.to_bits()));
        };
        let mut scale = sum / f64::from(output) * f64::from(1u32 << FRACTION);
        let mut shift = 0;
        if !(scale > 0.0 && scale < 32_767.5) {
            return None;
        }
        while scale < 16_383.5 && shift < 31 {
            scale *= 2.0;
            shift += 1;
        }
        Some(Self((scale + 0.5) as u32 | shift << 16))
    }

    /// With outputs of at most `ceiling` steps.
    pub(crate) const fn bounded(self, ceiling: u8) -> Self {
        Self(self.0 | (127 - ceiling as u32) << 24)
    }

    /// Whether outputs may be bounded to less than 127 steps. (It is always so for f32 outputs, but where steps are so small that no
    /// sum comes near to a bound.)
    pub(crate) const fn is_bounded(self) -> bool {
        self.0 >> 24 != 0
    }

    /// What scales sums below 0 that are multiplied by `slope`.
    fn times(self, slope: Slope) -> Self {
        let (multiplier, shift) = slope.parts();
        let multiplier = ((self.0 & 0x7fff) * u32::from(multiplier) + (1 << 7)) >> 8;
        let shift = ((self.0 >> 16 & 31) + u32::from(shift)).min(31);
        Self(multiplier | shift << 16)
    }

    /// The largest ratio of a step of the sums to a step of the outputs.
    pub(crate) const LARGEST_RATIO: f64 = 32_767.0 / (1u32 << FRACTION) as f64;

    pub(crate) const fn to_le_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// `sum` in steps of int8 outputs, times 2^21.
    #[inline(always)]
    fn product(self, sum: i32) -> i32 {
        let (multiplier, shift) = (self.0 & 0x7fff, self.0 >> 16 & 31);
        let cut = (sum >> shift).clamp(-32_768, 32_767);
        cut * multiplier as i32
    }

    /// `sum` in steps of int8 outputs.
    #[inline(always)]
    pub(crate) fn steps(self, sum: i32) -> i32 {
        (self.product(sum) + (1 << (FRACTION - 1))) >> FRACTION
    }

    /// `sum` in steps of the table, of which 4096 are 1.
    #[inline(always)]
    fn table_steps(self, sum: i32) -> i32 {
        let steps = (self.product(sum) + (1 << (TABLE_FRACTION - 1))) >> TABLE_FRACTION;
        steps.clamp(-32_767, 32_767)
    }

    /// The value of `sum`.
    #[inline(always)]
    fn value(self, sum: i32) -> f32 {
        sum as f32 * f32::from_bits(self.0)
    }

    /// The stored word.
    pub(crate) const fn word(self) -> u32 {
        self.0
    }
}

/// The value of one step of the int8 outputs that tanh and sigmoid would have if they were not: their table's 256 steps.
pub(crate) const TABLE_STEP: f32 = 1.0 / 16.0;

/// An activation that is more than a floor, as functions so that a program without it need not be linked with it.
pub(crate) struct Curve {
    /// The int8 output of a sum; the last argument is [`Epilogue::argument`].
    int8: fn(Parameter, i32, i32) -> i32,
    /// Its f32 output.
    f32: fn(Parameter, i32, i32) -> f32,
    /// Its name, and what it is made of, for vectors.
    #[cfg(not(target_os = "none"))]
    pub(super) name: Function,
    #[cfg(not(target_os = "none"))]
    pub(super) tanh: fn(i32) -> i32,
}

/// What a [`Curve`] can be.
#[cfg(not(target_os = "none"))]
#[derive(Clone, Copy)]
pub(super) enum Function {
    Tanh,
    Sigmoid,
    Relu6,
    LeakyRelu,
}

impl Curve {
    pub(crate) const TANH: &Self = &Self {
        int8: |scale, sum, _| table_int8(tanh(scale.table_steps(sum))),
        f32: |scale, sum, _| tanh(scale.table_steps(sum)) as f32 * TABLE_UNIT,
        #[cfg(not(target_os = "none"))]
        name: Function::Tanh,
        #[cfg(not(target_os = "none"))]
        tanh,
    };
    pub(crate) const SIGMOID: &Self = &Self {
        int8: |scale, sum, _| table_int8(sigmoid(scale.table_steps(sum))),
        f32: |scale, sum, _| sigmoid(scale.table_steps(sum)) as f32 * TABLE_UNIT,
        #[cfg(not(target_os = "none"))]
        name: Function::Sigmoid,
        #[cfg(not(target_os = "none"))]
        tanh,
    };
    /// A ReLU6 of f32 outputs, or with a step so large that 127 of them are more than 6; otherwise a floor is all it needs.
    pub(crate) const RELU6: &Self = &Self {
        int8: |scale, sum, _| scale.steps(sum).max(0).min(127 - (scale.0 >> 24 & 127) as i32),
        f32: |scale, sum, _| if sum < 0 { 0.0 } else { at_most_6(scale.value(sum)) },
        #[cfg(not(target_os = "none"))]
        name: Function::Relu6,
        #[cfg(not(target_os = "none"))]
        tanh: |steps| steps,
    };
    pub(crate) const LEAKY_RELU: &Self = &Self {
        int8: |scale, sum, slope| {
            let scale = if sum < 0 { scale.times(slope_of(slope)) } else { scale };
            scale.steps(sum).clamp(-127, 127)
        },
        f32: |scale, sum, slope| leaky(scale.value(sum), slope_of(slope).value()),
        #[cfg(not(target_os = "none"))]
        name: Function::LeakyRelu,
        #[cfg(not(target_os = "none"))]
        tanh: |steps| steps,
    };
}

/// (Not `f32::min`, which is a function of its own where the processor has no such instruction.)
pub(super) fn at_most_6(value: f32) -> f32 {
    if value > 6.0 { 6.0 } else { value }
}

pub(super) fn leaky(value: f32, slope: f32) -> f32 {
    if value < 0.0 { value * slope } else { value }
}

/// What is looked up, in steps of 1/127.
fn table_int8(value: i32) -> i32 {
    (value * 127 + (1 << 14)) >> 15
}

/// What becomes of a sum: the activation.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue {
    /// The function, if it is more than a floor.
    pub(crate) curve: Option<&'static Curve>,
    /// What it takes besides a sum. The floor: the least output in steps, 0 for a ReLU. A leaky ReLU: the bits of its slope. (One
    /// number for both, since it is passed on where every byte of code counts.)
    pub(crate) argument: i32,
}

/// The slope that is the argument of a leaky ReLU.
pub(super) const fn slope_of(argument: i32) -> Slope {
    Slope::from_bits(argument as u16)
}

/// Where outputs go.
pub(crate) enum Target<'a> {
    Int8(&'a mut [i8]),
    F32(&'a mut [f32]),
}

impl Target<'_> {
    /// The values from `first` on, at most `len`.
    #[inline(always)]
    pub(crate) fn part(&mut self, first: usize, len: usize) -> Target<'_> {
        fn part<T>(values: &mut [T], first: usize, len: usize) -> &mut [T] {
            let values = values.get_mut(first..).unwrap_or_default();
            let len = len.min(values.len());
            values.get_mut(..len).unwrap_or_default()
        }
        match self {
            Self::Int8(values) => Target::Int8(part(values, first, len)),
            Self::F32(values) => Target::F32(part(values, first, len)),
        }
    }
}

impl Epilogue {
    /// Adds the biases to the `sums` of the outputs from `first` on, and writes what becomes of them to `out`, as many as
    /// fit.
    pub(crate) fn store(&self, tensor: &Int8Tensor<'_>, first: usize, sums: &[i32], out: Target<'_>) {
        let bias = tensor.bias().get(first..).unwrap_or_default();
        let parameters = tensor.parameters().get(first..).unwrap_or_default();
        let sums = sums.iter().zip(bias).map(|(sum, bias)| sum.wrapping_add(*bias)).zip(parameters);
        let argument = self.argument;
        match (out, self.curve) {
            (Target::Int8(out), None) => out.iter_mut().zip(sums).for_each(|(to, (sum, scale))| {
                *to = scale.steps(sum).max(argument).min(127) as i8;
            }),
            (Target::Int8(out), Some(curve)) => out.iter_mut().zip(sums).for_each(|(to, (sum, scale))| {
                *to = (curve.int8)(*scale, sum, argument) as i8;
            }),
            (Target::F32(out), None) => out.iter_mut().zip(sums).for_each(|(to, (sum, scale))| {
                *to = if argument == 0 && sum < 0 { 0.0 } else { scale.value(sum) };
            }),
            (Target::F32(out), Some(curve)) => out.iter_mut().zip(sums).for_each(|(to, (sum, scale))| {
                *to = (curve.f32)(*scale, sum, argument);
            }),
        }
    }
}

/// The value of one step of what is looked up.
pub(super) const TABLE_UNIT: f32 = 1.0 / 32_768.0;

/// The intervals that tanh's table divides 0 to 4 into.
pub(crate) const LOOKUP_STEPS: usize = 64;

/// tanh(i / 16) * 2^15 for i in 0..=64, rounded; the last is followed by itself.
pub(crate) const TANH: [u16; LOOKUP_STEPS + 2] = tanh_table();
static TANH_TABLE: [u16; LOOKUP_STEPS + 2] = TANH;

const fn tanh_table() -> [u16; LOOKUP_STEPS + 2] {
    let mut table = [0; LOOKUP_STEPS + 2];
    let mut index = 0;
    while index < LOOKUP_STEPS + 2 {
        // exp(2x) as the 64th power of exp(2x / 64), for which three terms of the series do... in f64, at compile time.
        let x = (if index < LOOKUP_STEPS { index } else { LOOKUP_STEPS }) as f64 / 16.0;
        let mut exp = exp_series(x / 32.0);
        let mut squarings = 0;
        while squarings < 6 {
            exp *= exp;
            squarings += 1;
        }
        table[index] = ((exp - 1.0) / (exp + 1.0) * 32_768.0 + 0.5) as u16;
        index += 1;
    }
    table
}

/// exp(x) for x between 0 and 1/8, to the last bits of an f64.
const fn exp_series(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    let mut n = 1;
    while n < 14 {
        term *= x / n as f64;
        sum += term;
        n += 1;
    }
    sum
}

/// tanh, from steps of 2^-12 to steps of 2^-15; linear between the table's entries, and constant from 4 on.
pub(crate) fn tanh(steps: i32) -> i32 {
    let size = steps.unsigned_abs().min(4 << 12);
    let (index, rest) = ((size >> 8) as usize, (size & 255) as i32);
    let entry = |index| TANH_TABLE.get(index).copied().map_or(0, i32::from);
    let from = entry(index);
    let value = from + (((entry(index + 1) - from) * rest + 128) >> 8);
    if steps < 0 { -value } else { value }
}

/// The logistic function, likewise: `(1 + tanh(x / 2)) / 2`.
pub(crate) fn sigmoid(steps: i32) -> i32 {
    (32_768 + tanh(steps >> 1) + 1) >> 1
}
