//! Loops over plain arrays, compiled for AVX-512, for AVX2 and for the baseline, and chosen when the program runs.
//! They are separate functions because that is what the compiler turns into vector code.

use multiversion::multiversion;

/// `output = pixels / 255`, each quotient correctly rounded (multiplying by 1/255 would differ for half of all bytes).
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn pixels_to_unit(pixels: &[u8], output: &mut [f32]) {
    for (value, &pixel) in output.iter_mut().zip(pixels) {
        *value = f32::from(pixel) / 255.0;
    }
}

/// `output += factor * input`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn add_scaled(output: &mut [f32], factor: f32, input: &[f32]) {
    for (sum, &value) in output.iter_mut().zip(input) {
        *sum += factor * value;
    }
}

/// `output = a * b`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn multiply(a: &[f32], b: &[f32], output: &mut [f32]) {
    for ((product, &a), &b) in output.iter_mut().zip(a).zip(b) {
        *product = a * b;
    }
}

/// One step of gradient descent: `weights -= rate * gradient`, and the gradient is cleared for the next batch.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn descend(weights: &mut [f32], gradient: &mut [f32], rate: f32) {
    for (weight, slope) in weights.iter_mut().zip(gradient) {
        *weight -= rate * *slope;
        *slope = 0.0;
    }
}

/// `sums += values`, which are cleared.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn take(sums: &mut [f32], values: &mut [f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += *value;
        *value = 0.0;
    }
}

/// Adds the rows of `values` (`[N, sums.len()]`) to `sums`, one after the other as numpy does; for many rows of few values
/// [`crate::kernels::channels::add_rows`] is faster.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn add_rows(values: &[f32], sums: &mut [f32]) {
    for row in values.chunks_exact(sums.len()) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

/// Adds `bias` to every row of `values` (`[N, bias.len()]`).
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn add_bias(values: &mut [f32], bias: &[f32]) {
    for row in values.chunks_exact_mut(bias.len()) {
        for (value, &bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

/// `max(0, x)` in place; NaN stays NaN, so that a diverged training shows.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn relu(values: &mut [f32]) {
    for value in values {
        *value = if *value < 0.0 { 0.0 } else { *value };
    }
}

/// Clears the gradient where ReLU's `output` is not positive.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn relu_slope(output: &[f32], gradient: &mut [f32]) {
    for (slope, &y) in gradient.iter_mut().zip(output) {
        *slope = if y > 0.0 { *slope } else { 0.0 };
    }
}

/// The hyperbolic tangent in place: the rational approximation of degree 13/6 that Eigen uses (Eigen,
/// `MathFunctionsImpl.h`, `generic_fast_tanh_float`), within 5e-7 of the exact value.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn tanh(values: &mut [f32]) {
    const ODD: [f32; 7] =
        [4.893_525e-3, 6.372_619e-4, 1.485_722_4e-5, 5.122_297e-8, -8.604_672e-11, 2.000_188e-13, -2.760_768_5e-16];
    const EVEN: [f32; 4] = [4.893_525e-3, 2.268_434_6e-3, 1.185_347e-4, 1.198_258_4e-6];
    for value in values {
        let x = value.clamp(-7.905_311, 7.905_311);
        let square = x * x;
        let odd = ODD.iter().rev().fold(0.0, |sum, c| sum * square + c);
        let even = EVEN.iter().rev().fold(0.0, |sum, c| sum * square + c);
        *value = x * odd / even;
    }
}

/// Multiplies the gradient by tanh's slope, `1 - (scale * output)^2`. `scale` is 1 but for one notebook quirk.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn tanh_slope(output: &[f32], scale: f32, gradient: &mut [f32]) {
    for (slope, &y) in gradient.iter_mut().zip(output) {
        let y = scale * y;
        *slope *= 1.0 - y * y;
    }
}

/// Multiplies the gradient by the logistic function's slope, `output * (1 - output)`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn sigmoid_slope(output: &[f32], gradient: &mut [f32]) {
    for (slope, &y) in gradient.iter_mut().zip(output) {
        *slope *= y * (1.0 - y);
    }
}

/// The largest int8 weight or activation, in steps.
pub(crate) const LARGEST_INT8: f32 = 127.0;

#[inline(always)]
fn nearest_step(value: f32, step: f32) -> f32 {
    (value / step + 0.5).floor().clamp(-LARGEST_INT8, LARGEST_INT8) * step
}

/// Rounds to a multiple of `step`, at most 127 of them on either side of zero: the int8 activations of the core.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn round_to_steps(input: &[f32], step: f32, output: &mut [f32]) {
    for (rounded, &value) in output.iter_mut().zip(input) {
        *rounded = nearest_step(value, step);
    }
}

/// As [`round_to_steps`], in place.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn round_to_steps_in_place(values: &mut [f32], step: f32) {
    for value in values {
        *value = nearest_step(*value, step);
    }
}

/// Takes over the gradient where [`round_to_steps`] did not clip its input, as if it had not rounded either.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn unclipped(input: &[f32], step: f32, output_gradient: &[f32], input_gradient: &mut [f32]) {
    let largest = LARGEST_INT8 * step;
    for ((slope, &above), &value) in input_gradient.iter_mut().zip(output_gradient).zip(input) {
        *slope = if value.abs() <= largest { above } else { 0.0 };
    }
}

/// Rounds `weights` (`[inputs, steps.len()]`) to int8 as the core does when it writes a model: the largest of each output is
/// 127 steps, and halves are rounded away from zero. `steps` is where the value of each output's step goes.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub(crate) fn round_weights(weights: &[f32], steps: &mut [f32], rounded: &mut [f32]) {
    steps.fill(0.0);
    for row in weights.chunks_exact(steps.len()) {
        for (largest, &weight) in steps.iter_mut().zip(row) {
            *largest = if weight.abs() > *largest { weight.abs() } else { *largest };
        }
    }
    // Without any weight but zeros any step will do.
    steps.iter_mut().for_each(|step| *step = if *step > 0.0 { *step / LARGEST_INT8 } else { 1.0 });
    for (row, rounded) in weights.chunks_exact(steps.len()).zip(rounded.chunks_exact_mut(steps.len())) {
        for ((rounded, &weight), &step) in rounded.iter_mut().zip(row).zip(steps.iter()) {
            let count = weight / step;
            *rounded = (count + 0.5f32.copysign(count)).trunc() * step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_steps_and_gradients_pass_where_nothing_is_clipped() {
        let values = [0.0, 0.24, 0.26, -0.26, 63.4, 63.6, -70.0, f32::NAN];
        let mut rounded = [0.0; 8];
        round_to_steps(&values, 0.5, &mut rounded);
        assert_eq!(rounded[..7], [0.0, 0.0, 0.5, -0.5, 63.5, 63.5, -63.5]);
        assert!(rounded[7].is_nan());
        let mut gradient = [0.0; 8];
        unclipped(&values, 0.5, &[2.0; 8], &mut gradient);
        assert_eq!(gradient, [2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn weights_are_rounded_for_each_output() {
        // Steps of 1, of 2 and, for an output without weights, any.
        let weights = [127.0, 254.0, 0.0, -1.5, 2.9, 0.0, 1.4, -3.0, 0.0];
        let (mut steps, mut rounded) = ([0.0; 3], [9.0; 9]);
        round_weights(&weights, &mut steps, &mut rounded);
        assert_eq!(steps[..2], [1.0, 2.0]);
        assert_eq!(rounded, [127.0, 254.0, 0.0, -2.0, 2.0, 0.0, 1.0, -4.0, 0.0]);
    }

    #[test]
    fn tanh_is_close_everywhere() {
        let inputs: Vec<f32> = (-12_000..=12_000).map(|i| i as f32 * 1e-3).collect();
        let mut outputs = inputs.clone();
        tanh(&mut outputs);
        for (x, y) in inputs.iter().zip(&outputs) {
            assert!((f64::from(*y) - f64::from(*x).tanh()).abs() < 5e-7, "tanh({x}) = {y}");
        }
        let mut special = [f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::NAN];
        tanh(&mut special);
        assert!((special[0] - 1.0).abs() < 5e-7 && (special[1] + 1.0).abs() < 5e-7);
        assert!(special[2] == 0.0 && special[3] == 0.0 && special[4].is_nan());
    }

    #[test]
    fn every_pixel_is_its_correctly_rounded_quotient() {
        let pixels: Vec<u8> = (0..=255).collect();
        let mut values = vec![0.0; 256];
        pixels_to_unit(&pixels, &mut values);
        for (pixel, value) in pixels.iter().zip(values) {
            assert_eq!(value, (f64::from(*pixel) / 255.0) as f32);
        }
    }
}
