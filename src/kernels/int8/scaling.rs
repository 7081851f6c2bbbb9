//! What becomes of vectors of sums: [`Epilogue::store`] over the vectors of a backend.

use super::requantize::{Epilogue, FRACTION, Function, Lookup, TABLE_FRACTION, TABLE_UNIT, Target};
use super::tensor::Int8Tensor;
use super::vector::Int8Vector;

/// What scales the sums of neighbouring vectors: [`Epilogue::store`] for vectors.
#[derive(Clone, Copy)]
pub(crate) struct Scaling<V: Int8Vector, const COLUMNS: usize> {
    token: V::Token,
    epilogue: Epilogue,
    bias: [V; COLUMNS],
    parameters: [V; COLUMNS],
}

impl<V: Int8Vector, const COLUMNS: usize> Scaling<V, COLUMNS> {
    /// For the outputs from `first` on.
    #[inline(always)]
    pub(crate) fn new(token: V::Token, epilogue: Epilogue, tensor: &Int8Tensor<'_>, first: usize) -> Self {
        let zeros = [V::splat(token, 0); COLUMNS];
        let mut scaling = Self { token, epilogue, bias: zeros, parameters: zeros };
        for (column, (bias, parameters)) in scaling.bias.iter_mut().zip(&mut scaling.parameters).enumerate() {
            let first = first + column * V::LANES;
            *bias = V::load(token, tensor.bias().get(first..).unwrap_or_default());
            *parameters = V::load(token, bytemuck::cast_slice(tensor.parameters().get(first..).unwrap_or_default()));
        }
        scaling
    }

    /// Adds the biases, and writes what becomes of the sums to `out`, as many as fit.
    #[inline(always)]
    pub(crate) fn store(&self, mut sums: [V; COLUMNS], out: Target<'_>) {
        for (sums, bias) in sums.iter_mut().zip(self.bias) {
            *sums = sums.add(bias);
        }
        match (out, self.epilogue.lookup) {
            (Target::Int8(out), None) => V::store_steps(self.token, sums, self.parameters, self.epilogue.floor, out),
            (Target::Int8(out), Some(lookup)) => {
                for (column, (sums, parameters)) in sums.iter().zip(self.parameters).enumerate() {
                    let out = out.get_mut(column * V::LANES..).unwrap_or_default();
                    let values = self.look_up(*sums, parameters, lookup);
                    // (A product with 127 leaves the low half of 32,768, which is no signed number.)
                    let steps = values.mul(self.splat(127)).add(self.splat(1 << 14)).shift_right_by::<15>();
                    steps.store_int8(out);
                }
            }
            (Target::F32(out), lookup) => {
                for (column, (sums, parameters)) in sums.iter().zip(self.parameters).enumerate() {
                    let out = out.get_mut(column * V::LANES..).unwrap_or_default();
                    self.store_f32(*sums, parameters, lookup, out);
                }
            }
        }
    }

    #[inline(always)]
    fn store_f32(&self, sums: V, parameters: V, lookup: Option<&Lookup>, out: &mut [f32]) {
        match lookup {
            None => {
                let floor = if self.epilogue.floor == 0 { 0 } else { i32::MIN };
                sums.max(self.splat(floor)).store_scaled(parameters, out);
            }
            Some(lookup) => {
                let unit = self.splat(TABLE_UNIT.to_bits().cast_signed());
                self.look_up(sums, parameters, lookup).store_scaled(unit, out);
            }
        }
    }

    #[inline(always)]
    fn look_up(&self, sums: V, parameters: V, lookup: &Lookup) -> V {
        let steps = table_steps(self.token, sums, parameters);
        match lookup.name {
            Function::Tanh => steps.tanh(lookup.tanh),
            // As `sigmoid` has it.
            Function::Sigmoid => {
                let tanh = steps.shift_right_by::<1>().tanh(lookup.tanh);
                tanh.add(self.splat(32_769)).shift_right_by::<1>()
            }
        }
    }

    #[inline(always)]
    fn splat(&self, value: i32) -> V {
        V::splat(self.token, value)
    }
}

/// [`Parameter::product`].
#[inline(always)]
fn product<V: Int8Vector>(token: V::Token, sums: V, parameters: V) -> V {
    let multiplier = parameters.and(V::splat(token, 0x7fff));
    let cut = sums.shift_right(shift(token, parameters)).max(V::splat(token, -32_768)).min(V::splat(token, 32_767));
    cut.mul_low(multiplier)
}

/// The places that each sum is shifted by.
#[inline(always)]
pub(crate) fn shift<V: Int8Vector>(token: V::Token, parameters: V) -> V {
    parameters.shift_right_by::<16>().and(V::splat(token, 31))
}

/// [`Parameter::steps`], within the bounds of int8 outputs.
#[inline(always)]
pub(crate) fn steps<V: Int8Vector>(token: V::Token, sums: V, parameters: V, floor: i32) -> V {
    let steps = product(token, sums, parameters).add(V::splat(token, 1 << (FRACTION - 1))).shift_right_by::<FRACTION>();
    steps.max(V::splat(token, floor)).min(V::splat(token, 127))
}

/// [`Parameter::table_steps`].
#[inline(always)]
fn table_steps<V: Int8Vector>(token: V::Token, sums: V, parameters: V) -> V {
    let steps = product(token, sums, parameters).add(V::splat(token, 1 << (TABLE_FRACTION - 1)));
    let steps = steps.shift_right_by::<TABLE_FRACTION>();
    steps.max(V::splat(token, -32_767)).min(V::splat(token, 32_767))
}
