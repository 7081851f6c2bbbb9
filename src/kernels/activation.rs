//! The exponential, the hyperbolic tangent, the logistic function and softmax, as vector code without libm.
//!
//! The polynomial is that of the Cephes library's `expf` (Stephen L. Moshier, public domain).

use super::backend::{Backend, Kernel};
use super::vector::{SHIFT, Vector};

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
#[inline(never)]
pub fn softmax(backend: Backend, values: &mut [f32]) {
    backend.dispatch_elementwise(Softmax(values));
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
        if V::LANES > 1 {
            self.1.apply(token, V::load(token, rest)).store(rest);
        }
    }
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) {
        if V::LANES == 1 {
            return one_by_one::<V>(token, self.0);
        }
        // Where there is NaN, it makes the sum NaN, whatever the largest value is then.
        let least = V::splat(token, f32::NEG_INFINITY);
        if self.0.len() <= V::LANES {
            // Without a way through memory.
            let values = V::load(token, self.0);
            let largest = V::splat(token, largest_lane(only::<V>(token, self.0, values, least)));
            let exp = exp_of_difference(token, self.0, values, largest);
            let made = lanes(exp.div(V::splat(token, sum_of_lanes(exp))));
            // (Storing some of a vector's lanes would hold up the next row's load.)
            return self.0.iter_mut().zip(made).for_each(|(to, made)| *to = made);
        }
        let mut largest = least;
        for chunk in self.0.chunks(V::LANES) {
            largest = only(token, chunk, V::load(token, chunk), least).max(largest);
        }
        let largest = V::splat(token, largest_lane(largest));
        let mut sum = V::splat(token, 0.0);
        for chunk in self.0.chunks_mut(V::LANES) {
            let exp = exp_of_difference(token, chunk, V::load(token, chunk), largest);
            sum = sum.add(exp);
            exp.store(chunk);
        }
        let sum = V::splat(token, sum_of_lanes(sum));
        for chunk in self.0.chunks_mut(V::LANES) {
            V::load(token, chunk).div(sum).store(chunk);
        }
    }
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

/// `exp(values - largest)`, and 0 in lanes without a value in `chunk`.
#[inline(always)]
fn exp_of_difference<V: Vector>(token: V::Token, chunk: &[f32], values: V, largest: V) -> V {
    // Any small number for the other lanes; very large ones take long.
    let zero = V::splat(token, 0.0);
    only(token, chunk, Exp.apply(token, only(token, chunk, values.sub(largest), zero)), zero)
}

/// The widest vector.
const LANES: usize = 16;

/// `values`, and `other` in lanes without a value in `chunk`.
#[inline(always)]
fn only<V: Vector>(token: V::Token, chunk: &[f32], values: V, other: V) -> V {
    const ONES: &[f32] = &[1.0; LANES];
    if chunk.len() >= V::LANES {
        return values;
    }
    let there = V::load(token, ONES.get(..chunk.len()).unwrap_or_default());
    there.if_greater(V::splat(token, 0.0), values, other)
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

struct AtMost(f32);

impl Function for AtMost {
    #[inline(always)]
    fn apply<V: Vector>(&self, token: V::Token, x: V) -> V {
        V::splat(token, self.0).min(x)
    }
}

struct Leaky(f32);

impl Function for Leaky {
    /// The larger of the two: above 0 that is `x`, below 0 the product.
    #[inline(always)]
    fn apply<V: Vector>(&self, token: V::Token, x: V) -> V {
        x.mul(V::splat(token, self.0)).max(x)
    }
}
