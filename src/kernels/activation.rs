//! The exponential, the hyperbolic tangent, the logistic function and softmax, as vector code without libm.
//!
//! The polynomial is that of the Cephes library's `expf` (Stephen L. Moshier, public domain).

use super::backend::{Backend, Kernel};
use super::vector::{SHIFT, Vector};
#[cfg(not(target_os = "none"))]
use crate::layer::Activation;

/// Replaces each value by its exponential, with an error of at most 2 units in the last place.
#[inline(never)]
pub fn exp(backend: Backend, values: &mut [f32]) {
    backend.dispatch_elementwise(Map(values, Exp));
}

/// Replaces each value by its hyperbolic tangent, with an error of at most 4 units in the last place.
#[inline(never)]
pub fn tanh(backend: Backend, values: &mut [f32]) {
    backend.dispatch_elementwise(Map(values, Tanh));
}

/// Replaces each value `x` by `1 / (1 + exp(-x))`, with an error of at most 4 units in the last place.
#[inline(never)]
pub fn sigmoid(backend: Backend, values: &mut [f32]) {
    backend.dispatch_elementwise(Map(values, Sigmoid));
}

/// Replaces each value that is above 6 by 6: what ReLU6 does besides [`dense`](super::dense)'s floor. NaN stays NaN.
#[inline(never)]
pub fn relu6(backend: Backend, values: &mut [f32]) {
    backend.dispatch_elementwise(Map(values, AtMost(6.0)));
}

/// Replaces each value below 0 by its product with `slope`, which must be less than 1. NaN stays NaN.
#[inline(never)]
pub fn leaky_relu(backend: Backend, values: &mut [f32], slope: f32) {
    backend.dispatch_elementwise(Map(values, Leaky(slope)));
}

/// Replaces the values by `exp(x_i) / Σ exp(x_j)`.
///
/// The largest value is subtracted first, so that nothing overflows. If a value is NaN or positive infinity, or all are
/// negative infinity, all results are NaN.
pub fn softmax(backend: Backend, values: &mut [f32]) {
    let row = values.len();
    softmax_rows(backend, values, row);
}

/// [`softmax`] of every `row` values.
#[inline(never)]
pub(crate) fn softmax_rows(backend: Backend, values: &mut [f32], row: usize) {
    backend.dispatch_elementwise(Softmax { values, row });
}

/// A function of one value.
trait Function {
    fn apply<V: Vector>(&self, token: V::Token, x: V) -> V;
}

/// Applies a function to every value.
struct Map<'a, F>(&'a mut [f32], F);

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) {
        let mut chunks = self.0.chunks_exact_mut(V::LANES);
        for chunk in &mut chunks {
            self.1.apply(token, V::load(token, chunk)).store(chunk);
        }
        let rest = chunks.into_remainder();
        if V::LANES > 1 && !rest.is_empty() {
            self.1.apply(token, V::load(token, rest)).store(rest);
        }
    }
}

/// Applies to each row what an activation is besides a bound from below.
#[cfg(not(target_os = "none"))]
#[inline(always)]
pub(super) fn activate<'a, V: Vector>(
    token: V::Token,
    activation: Activation,
    rows: impl Iterator<Item = &'a mut [f32]>,
) {
    #[inline(always)]
    fn map<'a, V: Vector>(token: V::Token, function: impl Function + Copy, rows: impl Iterator<Item = &'a mut [f32]>) {
        for row in rows {
            Map(row, function).run::<V, 1, 1, 1, 1>(token);
        }
    }
    match activation {
        Activation::None | Activation::Relu => {}
        Activation::Tanh => map::<V>(token, Tanh, rows),
        Activation::Sigmoid => map::<V>(token, Sigmoid, rows),
        Activation::Relu6 => map::<V>(token, AtMost(6.0), rows),
        Activation::LeakyRelu(slope) => map::<V>(token, Leaky(slope.value()), rows),
    }
}

struct Softmax<'a> {
    values: &'a mut [f32],
    row: usize,
}

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) {
        let rows = self.values.chunks_exact_mut(self.row.max(1));
        if V::LANES == 1 {
            rows.for_each(|row| one_by_one::<V>(token, row));
        } else if self.row <= V::LANES {
            let there = Lanes::first(token, self.row);
            for row in rows {
                in_registers::<V>(token, there, row);
            }
        } else {
            for row in rows {
                vector_by_vector::<V>(token, row);
            }
        }
    }
}

/// Softmax of the values that are `there`, no more than a vector has lanes, without a way through memory.
#[inline(always)]
fn in_registers<V: Vector>(token: V::Token, there: Lanes<V>, row: &mut [f32]) {
    let values = V::load(token, row);
    let largest = V::splat(token, largest_lane(there.or(values, least(token))));
    let exp = exp_of_difference(token, there, values, largest);
    store_apart(&lanes(exp.div(V::splat(token, sum_of_lanes(exp)))), row);
}

/// Writes as many values as fit, without the instruction that stores some of a vector's lanes: that would hold up the next
/// row's load. (A loop would become a call of `memcpy`.)
#[inline(always)]
fn store_apart(mut values: &[f32], mut to: &mut [f32]) {
    #[inline(always)]
    fn store<'v, 't, const N: usize>(values: &'v [f32], to: &'t mut [f32]) -> (&'v [f32], &'t mut [f32]) {
        if to.len() < N {
            return (values, to);
        }
        match (values.split_first_chunk::<N>(), to.split_first_chunk_mut::<N>()) {
            (Some((from, values)), Some((start, to))) => {
                *start = *from;
                (values, to)
            }
            _ => (&[], &mut []),
        }
    }
    (values, to) = store::<16>(values, to);
    (values, to) = store::<8>(values, to);
    (values, to) = store::<4>(values, to);
    (values, to) = store::<2>(values, to);
    store::<1>(values, to);
}

/// Softmax of any number of values.
#[inline(always)]
fn vector_by_vector<V: Vector>(token: V::Token, row: &mut [f32]) {
    // Where there is NaN, it makes the sum NaN, whatever the largest value is then.
    let mut largest = least(token);
    for chunk in row.chunks(V::LANES) {
        largest = Lanes::first(token, chunk.len()).or(V::load(token, chunk), least(token)).max(largest);
    }
    let largest = V::splat(token, largest_lane(largest));
    let mut sum = V::splat(token, 0.0);
    for chunk in row.chunks_mut(V::LANES) {
        let there = Lanes::first(token, chunk.len());
        let exp = exp_of_difference(token, there, V::load(token, chunk), largest);
        sum = sum.add(exp);
        exp.store(chunk);
    }
    let sum = V::splat(token, sum_of_lanes(sum));
    for chunk in row.chunks_mut(V::LANES) {
        V::load(token, chunk).div(sum).store(chunk);
    }
}

/// Less than any number.
#[inline(always)]
fn least<V: Vector>(token: V::Token) -> V {
    V::splat(token, f32::NEG_INFINITY)
}

/// Softmax without vectors, which takes a microcontroller less code.
#[inline(always)]
fn one_by_one<V: Vector>(token: V::Token, values: &mut [f32]) {
    let larger = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, larger);
    values.iter_mut().for_each(|value| *value -= largest);
    Map(&mut *values, Exp).run::<V, 1, 1, 1, 1>(token);
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

/// `exp(values - largest)`, and 0 in lanes that are not `there`.
#[inline(always)]
fn exp_of_difference<V: Vector>(token: V::Token, there: Lanes<V>, values: V, largest: V) -> V {
    // Any small number for the other lanes; very large ones take long.
    let zero = V::splat(token, 0.0);
    there.or(Exp.apply(token, there.or(values.sub(largest), zero)), zero)
}

/// The widest vector.
const LANES: usize = 16;

/// Some of a vector's lanes: 1 in these, 0 in the others.
#[derive(Clone, Copy)]
struct Lanes<V: Vector> {
    ones: V,
    zero: V,
}

impl<V: Vector> Lanes<V> {
    /// The first `len`; all if there are fewer.
    #[inline(always)]
    fn first(token: V::Token, len: usize) -> Self {
        const ONES: &[f32] = &[1.0; LANES];
        let ones = V::load(token, ONES.get(..len).unwrap_or(ONES));
        Self { ones, zero: V::splat(token, 0.0) }
    }

    /// `values` in these lanes, `others` in the others.
    #[inline(always)]
    fn or(self, values: V, others: V) -> V {
        self.ones.if_greater(self.zero, values, others)
    }
}

/// The lanes of a vector, then zeros.
#[inline(always)]
fn lanes<V: Vector>(vector: V) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    vector.store(&mut lanes);
    lanes
}

#[inline(always)]
fn largest_lane<V: Vector>(vector: V) -> f32 {
    let (mut lanes, mut len) = (lanes(vector), V::LANES);
    while len > 1 {
        len /= 2;
        for lane in 0..len {
            lanes[lane] = if lanes[lane] > lanes[lane + len] { lanes[lane] } else { lanes[lane + len] };
        }
    }
    lanes[0]
}

#[inline(always)]
fn sum_of_lanes<V: Vector>(vector: V) -> f32 {
    let (mut lanes, mut len) = (lanes(vector), V::LANES);
    while len > 1 {
        len /= 2;
        for lane in 0..len {
            lanes[lane] += lanes[lane + len];
        }
    }
    lanes[0]
}

/// Evaluates a polynomial, highest coefficient first.
#[inline(always)]
fn polynomial<V: Vector, const N: usize>(token: V::Token, x: V, coefficients: [f32; N]) -> V {
    let mut coefficients = coefficients.iter();
    let mut sum = V::splat(token, coefficients.next().copied().unwrap_or_default());
    for coefficient in coefficients {
        sum = sum.mul_add(x, V::splat(token, *coefficient));
    }
    sum
}

/// ln 2 in two parts: products of the first with a small integer are exact.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// `(exp(r) - 1 - r) / r^2` for `r` up to `ln(2) / 2`.
const EXP_TAIL: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5];

struct Exp;

impl Function for Exp {
    /// `exp(x) = 2^n exp(r)`, where `n` is the integer next to `x / ln 2` and `r` is what remains, at most `ln(2) / 2`.
    #[inline(always)]
    fn apply<V: Vector>(&self, token: V::Token, x: V) -> V {
        /// Beyond these the result is 0 or infinity.
        const LOWEST: f32 = -104.0;
        const HIGHEST: f32 = 89.0;
        let constant = |value| V::splat(token, value);
        // NaN passes both bounds.
        let x = constant(HIGHEST).min(constant(LOWEST).max(x));
        let integer = |x: V| x.add(constant(SHIFT)).sub(constant(SHIFT));
        let n = integer(x.mul(constant(core::f32::consts::LOG2_E)));
        let r = n.mul_add(constant(-LN_2_HIGH), x);
        let r = n.mul_add(constant(-LN_2_LOW), r);
        let exp_r = polynomial(token, r, EXP_TAIL).mul_add(r.mul(r), r).add(constant(1.0));
        // 2^n in two factors, since it may lie outside of the normal range where the product does not, or is rounded.
        let half = integer(n.mul(constant(0.5)));
        let power = |n: V| n.add(constant(SHIFT)).exp2_of_shifted();
        exp_r.mul(power(half)).mul(power(n.sub(half)))
    }
}

#[derive(Clone, Copy)]
struct Tanh;

impl Function for Tanh {
    /// `tanh(x) = e / (e + 2)`, where `e = exp(2x) - 1 = 2^n (exp(2r) - 1) + (2^n - 1)`: nothing cancels near 0, and where
    /// `e` is large its error does not matter.
    #[inline(always)]
    fn apply<V: Vector>(&self, token: V::Token, x: V) -> V {
        /// Beyond it the result is 1.
        const HIGHEST: f32 = 20.0;
        let constant = |value| V::splat(token, value);
        // NaN passes both bounds.
        let x = constant(HIGHEST).min(constant(-HIGHEST).max(x));
        let shifted = x.mul_add(constant(2.0 * core::f32::consts::LOG2_E), constant(SHIFT));
        let n = shifted.sub(constant(SHIFT));
        let r = n.mul_add(constant(-0.5 * LN_2_HIGH), x);
        let r = n.mul_add(constant(-0.5 * LN_2_LOW), r);
        let r = r.add(r);
        let exp_r_minus_1 = polynomial(token, r, EXP_TAIL).mul_add(r.mul(r), r);
        let power = shifted.exp2_of_shifted();
        let e = power.mul_add(exp_r_minus_1, power.sub(constant(1.0)));
        e.div(e.add(constant(2.0)))
    }
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl Function for Sigmoid {
    /// With the exponential of a negative number only, so that neither end overflows or loses digits.
    #[inline(always)]
    fn apply<V: Vector>(&self, token: V::Token, x: V) -> V {
        let constant = |value| V::splat(token, value);
        let exp = Exp.apply(token, constant(0.0).sub(x.abs()));
        let numerator = constant(0.0).if_greater(x, exp, constant(1.0));
        numerator.div(exp.add(constant(1.0)))
    }
}

#[derive(Clone, Copy)]
struct AtMost(f32);

impl Function for AtMost {
    #[inline(always)]
    fn apply<V: Vector>(&self, token: V::Token, x: V) -> V {
        V::splat(token, self.0).min(x)
    }
}

#[derive(Clone, Copy)]
struct Leaky(f32);

impl Function for Leaky {
    /// The larger of the two: above 0 that is `x`, below 0 the product.
    #[inline(always)]
    fn apply<V: Vector>(&self, token: V::Token, x: V) -> V {
        x.mul(V::splat(token, self.0)).max(x)
    }
}
