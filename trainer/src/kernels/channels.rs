//! Loops over activations, `[..., channels]`, with something of each channel's own.
//!
//! A loop over ten channels is too short for vectors. These loops run over as many positions at a time as make a length
//! that is: what belongs to the channels is repeated that often.

use multiversion::multiversion;

/// Rows of at least so many values are long enough by themselves.
const LONG: usize = 64;
/// The longest period of fewer channels: 63 of them, 16 times.
const LONGEST: usize = 1008;

/// The values that make a loop long enough: whole positions and, of few channels, whole vectors.
fn period(channels: usize) -> usize {
    if channels >= LONG {
        return channels;
    }
    let mut period = channels;
    while !period.is_multiple_of(16) {
        period += channels;
    }
    period * LONG.div_ceil(period)
}

/// Calls `add` with sums to be added to, one for each value of a period; adds up those of each channel.
fn with_period<T: Copy + Default + std::ops::AddAssign>(sums: &mut [T], add: impl FnOnce(&mut [T])) {
    let period = period(sums.len());
    if period == sums.len() {
        return add(sums);
    }
    let mut buffer = [T::default(); LONGEST];
    let buffer = &mut buffer[..period];
    add(buffer);
    for row in buffer.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += value);
    }
}

/// One value for each channel, repeated over a period.
#[derive(Clone, Debug)]
pub struct PerChannel {
    channels: usize,
    values: Vec<f32>,
}

impl PerChannel {
    /// Zeros for `channels` channels.
    pub fn new(channels: usize) -> Self {
        PerChannel { channels, values: vec![0.0; period(channels)] }
    }

    /// Sets each channel's value.
    pub fn set(&mut self, value: impl Fn(usize) -> f32) {
        let (first, rest) = self.values.split_at_mut(self.channels);
        first.iter_mut().enumerate().for_each(|(channel, slot)| *slot = value(channel));
        rest.chunks_exact_mut(self.channels).for_each(|row| row.copy_from_slice(first));
    }
}

/// Adds the rows of `values` to `sums`, one for each channel: the gradient of biases.
pub fn add_rows(values: &[f32], sums: &mut [f32]) {
    with_period(sums, |sums| add_periods(values, sums));
}

/// Clears `gradient` where ReLU's `output` is not positive, and adds its rows to `sums`: ReLU's gradient and that of the
/// biases before it, in one pass.
pub fn relu_gradient(output: &[f32], gradient: &mut [f32], sums: &mut [f32]) {
    with_period(sums, |sums| add_relu_periods(output, gradient, sums));
}

/// Adds the rows of `a` to `sums` and those of `a * b` to `products`, one for each channel.
pub fn add_products(a: &[f32], b: &[f32], sums: &mut [f64], products: &mut [f64]) {
    with_period(sums, |sums| with_period(products, |products| add_product_periods(a, b, sums, products)));
}

/// `output = input * scale + shift`.
pub fn scale(input: &[f32], scale: &PerChannel, shift: &PerChannel, output: &mut [f32]) {
    scale_periods(input, &scale.values, &shift.values, output);
}

/// `output = a * a_scale + b * b_scale + shift`.
pub fn combine(
    (a, a_scale): (&[f32], &PerChannel),
    (b, b_scale): (&[f32], &PerChannel),
    shift: &PerChannel,
    output: &mut [f32],
) {
    combine_periods((a, &a_scale.values), (b, &b_scale.values), &shift.values, output);
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add_periods(values: &[f32], sums: &mut [f32]) {
    for row in values.chunks(sums.len()) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add_relu_periods(output: &[f32], gradient: &mut [f32], sums: &mut [f32]) {
    let period = sums.len();
    for (output, gradient) in output.chunks(period).zip(gradient.chunks_mut(period)) {
        for ((sum, slope), &y) in sums.iter_mut().zip(gradient).zip(output) {
            let kept = if y > 0.0 { *slope } else { 0.0 };
            *slope = kept;
            *sum += kept;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add_product_periods(a: &[f32], b: &[f32], sums: &mut [f64], products: &mut [f64]) {
    let period = sums.len();
    for (a, b) in a.chunks(period).zip(b.chunks(period)) {
        for (((sum, product), &a), &b) in sums.iter_mut().zip(products.iter_mut()).zip(a).zip(b) {
            let a = f64::from(a);
            *sum += a;
            *product += a * f64::from(b);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn scale_periods(input: &[f32], scale: &[f32], shift: &[f32], output: &mut [f32]) {
    let period = scale.len();
    for (input, output) in input.chunks(period).zip(output.chunks_mut(period)) {
        for (((y, &x), &scale), &shift) in output.iter_mut().zip(input).zip(scale).zip(shift) {
            *y = x * scale + shift;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn combine_periods((a, a_scale): (&[f32], &[f32]), (b, b_scale): (&[f32], &[f32]), shift: &[f32], output: &mut [f32]) {
    let period = shift.len();
    for ((a, b), output) in a.chunks(period).zip(b.chunks(period)).zip(output.chunks_mut(period)) {
        let (a, b) = (a.iter().zip(a_scale), b.iter().zip(b_scale));
        for (((value, (&a, &a_scale)), (&b, &b_scale)), &shift) in output.iter_mut().zip(a).zip(b).zip(shift) {
            *value = a * a_scale + b * b_scale + shift;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn sums_of_every_number_of_channels() {
        for channels in (1..70).chain([1000, 1500]) {
            for rows in [1, 2, 7, 40] {
                let (values, outputs) = (numbers(rows * channels, 0.7), numbers(rows * channels, 1.3));
                let expected = |of: &dyn Fn(usize) -> f64, channel: usize| -> f64 {
                    1.0 + (channel..values.len()).step_by(channels).map(of).sum::<f64>()
                };
                let check = |found: &[f32], of: &dyn Fn(usize) -> f64| {
                    for (channel, &found) in found.iter().enumerate() {
                        assert!(
                            (f64::from(found) - expected(of, channel)).abs() < 1e-4,
                            "{channels} channels, {rows} rows"
                        );
                    }
                };
                let mut sums = vec![1.0; channels];
                add_rows(&values, &mut sums);
                check(&sums, &|i| f64::from(values[i]));

                let (mut gradient, mut sums) = (values.clone(), vec![1.0; channels]);
                relu_gradient(&outputs, &mut gradient, &mut sums);
                let kept = |i: usize| if outputs[i] > 0.0 { values[i] } else { 0.0 };
                assert!(gradient.iter().enumerate().all(|(i, &g)| g == kept(i)));
                check(&sums, &|i| f64::from(kept(i)));

                let (mut sums, mut products) = (vec![1.0; channels], vec![1.0; channels]);
                add_products(&values, &outputs, &mut sums, &mut products);
                for channel in 0..channels {
                    assert!((sums[channel] - expected(&|i| f64::from(values[i]), channel)).abs() < 1e-9);
                    let product = expected(&|i| f64::from(values[i]) * f64::from(outputs[i]), channel);
                    assert!((products[channel] - product).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn each_channel_has_its_own_factors() {
        for channels in [1, 3, 10, 16, 63, 64, 100] {
            let (a, b) = (numbers(11 * channels, 0.7), numbers(11 * channels, 0.3));
            let factors = [2.0, 3.0, 5.0].map(|factor| {
                let mut values = PerChannel::new(channels);
                values.set(|channel| factor * (channel + 1) as f32);
                values
            });
            let (mut scaled, mut combined) = (vec![0.0; a.len()], vec![0.0; a.len()]);
            scale(&a, &factors[0], &factors[1], &mut scaled);
            combine((&a, &factors[0]), (&b, &factors[1]), &factors[2], &mut combined);
            for i in 0..a.len() {
                let channel = (i % channels + 1) as f32;
                assert_eq!(scaled[i], a[i] * (2.0 * channel) + 3.0 * channel);
                assert_eq!(combined[i], a[i] * (2.0 * channel) + b[i] * (3.0 * channel) + 5.0 * channel);
            }
        }
    }
}
