//! What becomes of a vector of sums: [`Epilogue::store`] over the vectors of a backend.

use super::requantize::{
    Curve, Epilogue, FRACTION, Function, TABLE_FRACTION, TABLE_UNIT, Target, at_most_6, leaky, slope_of,
};
use super::tensor::Int8Tensor;
use super::vector::Int8Vector;
use crate::layer::Slope;

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
        let Epilogue { curve, argument } = self.epilogue;
        let Some(curve) = curve else {
            return self.steps(self.product(sums, self.scale())).max(self.splat(argument)).min(self.splat(127));
        };
        match curve.name {
            Function::Tanh | Function::Sigmoid => {
                // (A product with 127 leaves the low half of 32,768, which is no signed number.)
                self.look_up(sums, curve).mul(self.splat(127)).add(self.splat(1 << 14)).shift_right_by::<15>()
            }
            Function::Relu6 => {
                let shortfall = self.parameters.shift_right_by::<24>().and(self.splat(127));
                let steps = self.steps(self.product(sums, self.scale()));
                steps.max(self.splat(0)).min(self.splat(127).sub(shortfall))
            }
            Function::LeakyRelu => {
                // One of the two products is 0.
                let above = self.product(sums.max(self.splat(0)), self.scale());
                let below = self.product(sums.min(self.splat(0)), self.scale_times(slope_of(argument)));
                self.steps(above.add(below)).max(self.splat(-127)).min(self.splat(127))
            }
        }
    }

    #[inline(always)]
    fn store_f32(&self, sums: V, out: &mut [f32]) {
        let Epilogue { curve, argument } = self.epilogue;
        let Some(curve) = curve else {
            let floor = if argument == 0 { 0 } else { i32::MIN };
            return sums.max(self.splat(floor)).store_scaled(self.parameters, out);
        };
        match curve.name {
            Function::Tanh | Function::Sigmoid => {
                let unit = self.splat(TABLE_UNIT.to_bits().cast_signed());
                self.look_up(sums, curve).store_scaled(unit, out);
            }
            Function::Relu6 => {
                sums.max(self.splat(0)).store_scaled(self.parameters, out);
                out.iter_mut().for_each(|value| *value = at_most_6(*value));
            }
            Function::LeakyRelu => {
                sums.store_scaled(self.parameters, out);
                let slope = slope_of(argument).value();
                out.iter_mut().for_each(|value| *value = leaky(*value, slope));
            }
        }
    }

    #[inline(always)]
    fn look_up(&self, sums: V, curve: &Curve) -> V {
        let steps = self.table_steps(sums);
        match curve.name {
            // As `sigmoid` has it.
            Function::Sigmoid => {
                let tanh = steps.shift_right_by::<1>().tanh(curve.tanh);
                tanh.add(self.splat(32_769)).shift_right_by::<1>()
            }
            _ => steps.tanh(curve.tanh),
        }
    }

    /// The multipliers and shifts.
    #[inline(always)]
    fn scale(&self) -> [V; 2] {
        let multiplier = self.parameters.and(self.splat(0x7fff));
        [multiplier, self.parameters.shift_right_by::<16>().and(self.splat(31))]
    }

    /// [`Parameter::times`].
    #[inline(always)]
    fn scale_times(&self, slope: Slope) -> [V; 2] {
        let (by, places) = slope.parts();
        let [multiplier, shift] = self.scale();
        let multiplier = multiplier.mul_low(self.splat(by.into())).add(self.splat(1 << 7)).shift_right_by::<8>();
        [multiplier, shift.add(self.splat(places.into())).min(self.splat(31))]
    }

    /// [`Parameter::product`].
    #[inline(always)]
    fn product(&self, sums: V, [multiplier, shift]: [V; 2]) -> V {
        sums.shift_right(shift).max(self.splat(-32_768)).min(self.splat(32_767)).mul_low(multiplier)
    }

    /// What [`Parameter::steps`] makes of a product.
    #[inline(always)]
    fn steps(&self, product: V) -> V {
        product.add(self.splat(1 << (FRACTION - 1))).shift_right_by::<FRACTION>()
    }

    /// [`Parameter::table_steps`].
    #[inline(always)]
    fn table_steps(&self, sums: V) -> V {
        let steps = self.product(sums, self.scale()).add(self.splat(1 << (TABLE_FRACTION - 1)));
        steps.shift_right_by::<TABLE_FRACTION>().max(self.splat(-32_767)).min(self.splat(32_767))
    }

    #[inline(always)]
    fn splat(&self, value: i32) -> V {
        V::splat(self.token, value)
    }
}
