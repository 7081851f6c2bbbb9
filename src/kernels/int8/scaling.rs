//! What becomes of vectors of sums: [`Epilogue::store`] over the vectors of a backend.

use super::requantize::{
    Curve, Epilogue, FRACTION, Function, TABLE_FRACTION, TABLE_UNIT, Target, at_most_6, leaky, slope_of,
};
use super::tensor::Int8Tensor;
use super::vector::Int8Vector;
use crate::layer::Slope;

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

    /// [`store`](Self::store) for rows whose outputs begin `pitch` apart in `out`, each `width` of them.
    #[inline(always)]
    pub(crate) fn store_rows(&self, rows: &[[V; COLUMNS]], mut out: Target<'_>, [pitch, width]: [usize; 2]) {
        if let (Target::Int8(out), None) = (&mut out, self.epilogue.curve) {
            // What there is most of, in a loop of its own: among the other cases the compiler would keep sums in memory.
            let mut out: &mut [i8] = out;
            for sums in rows {
                let len = width.min(out.len());
                let (row, _) = out.split_at_mut(len);
                V::store_steps(self.token, self.biased(sums), self.parameters, self.epilogue.argument, row);
                let next = pitch.min(out.len());
                out = out.split_at_mut(next).1;
            }
            return;
        }
        for (row, sums) in rows.iter().enumerate() {
            self.store(*sums, out.part(row * pitch, width));
        }
    }

    #[inline(always)]
    fn biased(&self, sums: &[V; COLUMNS]) -> [V; COLUMNS] {
        let mut sums = *sums;
        for (sums, bias) in sums.iter_mut().zip(self.bias) {
            *sums = sums.add(bias);
        }
        sums
    }

    /// Adds the biases, and writes what becomes of the sums to `out`, as many as fit.
    #[inline(always)]
    pub(crate) fn store(&self, sums: [V; COLUMNS], out: Target<'_>) {
        let sums = self.biased(&sums);
        let Epilogue { curve, argument } = self.epilogue;
        match (out, curve) {
            (Target::Int8(out), None) => V::store_steps(self.token, sums, self.parameters, argument, out),
            (Target::Int8(out), Some(curve)) => {
                for (column, (sums, parameters)) in sums.iter().zip(self.parameters).enumerate() {
                    let out = out.get_mut(column * V::LANES..).unwrap_or_default();
                    self.curved(*sums, parameters, curve).store_int8(out);
                }
            }
            (Target::F32(out), curve) => {
                for (column, (sums, parameters)) in sums.iter().zip(self.parameters).enumerate() {
                    let out = out.get_mut(column * V::LANES..).unwrap_or_default();
                    self.store_f32(*sums, parameters, curve, out);
                }
            }
        }
    }

    #[inline(always)]
    fn curved(&self, sums: V, parameters: V, curve: &Curve) -> V {
        match curve.name {
            Function::Tanh | Function::Sigmoid => {
                // (A product with 127 leaves the low half of 32,768, which is no signed number.)
                let values = self.look_up(sums, parameters, curve);
                values.mul(self.splat(127)).add(self.splat(1 << 14)).shift_right_by::<15>()
            }
            Function::Relu6 => {
                let shortfall = parameters.shift_right_by::<24>().and(self.splat(127));
                steps(self.token, sums, parameters, 0).min(self.splat(127).sub(shortfall))
            }
            Function::LeakyRelu => {
                // One of the two products is 0.
                let above = product(sums.max(self.splat(0)), self.token, scale(self.token, parameters));
                let scale = self.scale_times(parameters, slope_of(self.epilogue.argument));
                let below = product(sums.min(self.splat(0)), self.token, scale);
                steps_of(self.token, above.add(below)).max(self.splat(-127)).min(self.splat(127))
            }
        }
    }

    #[inline(always)]
    fn store_f32(&self, sums: V, parameters: V, curve: Option<&Curve>, out: &mut [f32]) {
        let argument = self.epilogue.argument;
        let Some(curve) = curve else {
            let floor = if argument == 0 { 0 } else { i32::MIN };
            return sums.max(self.splat(floor)).store_scaled(parameters, out);
        };
        match curve.name {
            Function::Tanh | Function::Sigmoid => {
                let unit = self.splat(TABLE_UNIT.to_bits().cast_signed());
                self.look_up(sums, parameters, curve).store_scaled(unit, out);
            }
            Function::Relu6 => {
                sums.max(self.splat(0)).store_scaled(parameters, out);
                out.iter_mut().take(V::LANES).for_each(|value| *value = at_most_6(*value));
            }
            Function::LeakyRelu => {
                sums.store_scaled(parameters, out);
                let slope = slope_of(argument).value();
                out.iter_mut().take(V::LANES).for_each(|value| *value = leaky(*value, slope));
            }
        }
    }

    #[inline(always)]
    fn look_up(&self, sums: V, parameters: V, curve: &Curve) -> V {
        let steps = table_steps(self.token, sums, parameters);
        match curve.name {
            // As `sigmoid` has it.
            Function::Sigmoid => {
                let tanh = steps.shift_right_by::<1>().tanh(curve.tanh);
                tanh.add(self.splat(32_769)).shift_right_by::<1>()
            }
            _ => steps.tanh(curve.tanh),
        }
    }

    /// [`Parameter::times`].
    #[inline(always)]
    fn scale_times(&self, parameters: V, slope: Slope) -> [V; 2] {
        let (by, places) = slope.parts();
        let [multiplier, shift] = scale(self.token, parameters);
        let multiplier = multiplier.mul_low(self.splat(by.into())).add(self.splat(1 << 7)).shift_right_by::<8>();
        [multiplier, shift.add(self.splat(places.into())).min(self.splat(31))]
    }

    #[inline(always)]
    fn splat(&self, value: i32) -> V {
        V::splat(self.token, value)
    }
}

/// The multipliers and shifts.
#[inline(always)]
fn scale<V: Int8Vector>(token: V::Token, parameters: V) -> [V; 2] {
    [parameters.and(V::splat(token, 0x7fff)), shift(token, parameters)]
}

/// [`Parameter::product`].
#[inline(always)]
fn product<V: Int8Vector>(sums: V, token: V::Token, [multiplier, shift]: [V; 2]) -> V {
    sums.shift_right(shift).max(V::splat(token, -32_768)).min(V::splat(token, 32_767)).mul_low(multiplier)
}

/// The places that each sum is shifted by.
#[inline(always)]
pub(crate) fn shift<V: Int8Vector>(token: V::Token, parameters: V) -> V {
    parameters.shift_right_by::<16>().and(V::splat(token, 31))
}

/// What [`Parameter::steps`] makes of a product.
#[inline(always)]
fn steps_of<V: Int8Vector>(token: V::Token, product: V) -> V {
    product.add(V::splat(token, 1 << (FRACTION - 1))).shift_right_by::<FRACTION>()
}

/// [`Parameter::steps`], within the bounds of int8 outputs.
#[inline(always)]
pub(crate) fn steps<V: Int8Vector>(token: V::Token, sums: V, parameters: V, floor: i32) -> V {
    let steps = steps_of(token, product(sums, token, scale(token, parameters)));
    steps.max(V::splat(token, floor)).min(V::splat(token, 127))
}

/// [`Parameter::table_steps`].
#[inline(always)]
fn table_steps<V: Int8Vector>(token: V::Token, sums: V, parameters: V) -> V {
    let product = product(sums, token, scale(token, parameters)).add(V::splat(token, 1 << (TABLE_FRACTION - 1)));
    product.shift_right_by::<TABLE_FRACTION>().max(V::splat(token, -32_767)).min(V::splat(token, 32_767))
}
