//! What becomes of a vector of sums: [`Epilogue::store`] over the vectors of a backend.

use super::requantize::{Epilogue, FRACTION, Function, Lookup, TABLE_FRACTION, TABLE_UNIT, Target};
use super::tensor::Int8Tensor;
use super::vector::Int8Vector;

/// What scales a vector of sums: [`Epilogue::store`] for vectors.
#[derive(Clone, Copy)]
pub(crate) struct Scaling<V: Int8Vector> {
    token: V::Token,
    epilogue: Epilogue,
    bias: V,
    parameters: V,
}

impl<V: Int8Vector> Scaling<V> {
    /// For the outputs from `first` on.
    #[inline(always)]
    pub(crate) fn new(token: V::Token, epilogue: Epilogue, tensor: &Int8Tensor<'_>, first: usize) -> Self {
        let bias = tensor.bias().get(first..).unwrap_or_default();
        let parameters = tensor.parameters().get(first..).unwrap_or_default();
        let parameters = V::load(token, bytemuck::cast_slice(parameters));
        Self { token, epilogue, bias: V::load(token, bias), parameters }
    }

    /// Adds the biases, and writes what becomes of the sums to `out`, as many as fit.
    #[inline(always)]
    pub(crate) fn store(&self, sums: V, out: Target<'_>) {
        let sums = sums.add(self.bias);
        match out {
            Target::Int8(out) => self.int8(sums).store_int8(out),
            Target::F32(out) => self.store_f32(sums, out),
        }
    }

    #[inline(always)]
    fn int8(&self, sums: V) -> V {
        let Epilogue { floor, lookup } = self.epilogue;
        match lookup {
            None => {
                let steps = self.product(sums).add(self.splat(1 << (FRACTION - 1))).shift_right_by::<FRACTION>();
                steps.max(self.splat(floor)).min(self.splat(127))
            }
            Some(lookup) => {
                let values = self.look_up(sums, lookup);
                // (A product with 127 leaves the low half of 32,768, which is no signed number.)
                values.mul(self.splat(127)).add(self.splat(1 << 14)).shift_right_by::<15>()
            }
        }
    }

    #[inline(always)]
    fn store_f32(&self, sums: V, out: &mut [f32]) {
        match self.epilogue.lookup {
            None => {
                let floor = if self.epilogue.floor == 0 { 0 } else { i32::MIN };
                sums.max(self.splat(floor)).store_scaled(self.parameters, out);
            }
            Some(lookup) => {
                let unit = self.splat(TABLE_UNIT.to_bits().cast_signed());
                self.look_up(sums, lookup).store_scaled(unit, out);
            }
        }
    }

    #[inline(always)]
    fn look_up(&self, sums: V, lookup: &Lookup) -> V {
        let steps = self.table_steps(sums);
        match lookup.name {
            Function::Tanh => steps.tanh(lookup.tanh),
            // As `sigmoid` has it.
            Function::Sigmoid => {
                let tanh = steps.shift_right_by::<1>().tanh(lookup.tanh);
                tanh.add(self.splat(32_769)).shift_right_by::<1>()
            }
        }
    }

    /// [`Parameter::product`].
    #[inline(always)]
    fn product(&self, sums: V) -> V {
        let multiplier = self.parameters.and(self.splat(0x7fff));
        let shift = self.parameters.shift_right_by::<16>().and(self.splat(31));
        sums.shift_right(shift).max(self.splat(-32_768)).min(self.splat(32_767)).mul_low(multiplier)
    }

    /// [`Parameter::table_steps`].
    #[inline(always)]
    fn table_steps(&self, sums: V) -> V {
        let steps = self.product(sums).add(self.splat(1 << (TABLE_FRACTION - 1)));
        steps.shift_right_by::<TABLE_FRACTION>().max(self.splat(-32_767)).min(self.splat(32_767))
    }

    #[inline(always)]
    fn splat(&self, value: i32) -> V {
        V::splat(self.token, value)
    }
}
