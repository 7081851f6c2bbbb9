//! Batch normalisation (Ioffe and Szegedy 2015, arXiv 1502.03167) of each channel over all rows and positions.
//!
//! `y = (x - mean) / sqrt(variance + epsilon) * gamma + beta`. Statistics are sums, so that those of several parts of a
//! batch can be added up before anything is normalised.

use super::channels::{self, PerChannel};

/// Sums over a batch, or a part of it, for each channel: of values and their squares in the forward pass; of gradients
/// and their products with the inputs in the backward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// How many values each channel has.
    pub count: usize,
    /// `x`, or the output's gradient.
    pub values: Vec<f64>,
    /// `x * x`, or the output's gradient times `x`.
    pub products: Vec<f64>,
}

impl Sums {
    /// Sums of nothing.
    pub fn new(channels: usize) -> Self {
        Sums { count: 0, values: vec![0.0; channels], products: vec![0.0; channels] }
    }

    /// Starts again.
    pub fn clear(&mut self) {
        self.count = 0;
        self.values.fill(0.0);
        self.products.fill(0.0);
    }

    /// Adds the inputs of a forward pass, `[rows, H, W, channels]`.
    pub fn add_inputs(&mut self, input: &[f32]) {
        self.add_products(input, input);
    }

    /// Adds the gradients for the outputs of `input`, both `[rows, H, W, channels]`.
    pub fn add_gradients(&mut self, output_gradient: &[f32], input: &[f32]) {
        self.add_products(output_gradient, input);
    }

    fn add_products(&mut self, a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len(), "two values of each place");
        self.count += a.len() / self.values.len();
        channels::add_products(a, b, &mut self.values, &mut self.products);
    }

    /// Adds the sums of another part of the batch.
    pub fn add(&mut self, other: &Sums) {
        self.count += other.count;
        self.values.iter_mut().zip(&other.values).for_each(|(sum, &value)| *sum += value);
        self.products.iter_mut().zip(&other.products).for_each(|(sum, &value)| *sum += value);
    }

    /// Mean and variance (with the divisor `count`) of a channel, from the sums of a forward pass.
    pub fn moments(&self, channel: usize) -> (f64, f64) {
        let count = self.count as f64;
        let mean = self.values[channel] / count;
        (mean, (self.products[channel] / count - mean * mean).max(0.0))
    }
}

/// What normalises a channel of this mean and variance: its factor, and what is added then.
pub fn scale_and_shift((mean, variance): (f64, f64), gamma: f32, beta: f32, epsilon: f64) -> (f32, f32) {
    let scale = f64::from(gamma) / (variance + epsilon).sqrt();
    (scale as f32, (f64::from(beta) - mean * scale) as f32)
}

/// What a batch is normalised with, or its gradients carried back with.
#[derive(Clone, Debug)]
pub struct Factors {
    scale: PerChannel,
    input_scale: PerChannel,
    shift: PerChannel,
}

impl Factors {
    /// Room for the factors of a layer.
    pub fn new(channels: usize) -> Self {
        Factors {
            scale: PerChannel::new(channels),
            input_scale: PerChannel::new(channels),
            shift: PerChannel::new(channels),
        }
    }

    /// Takes over what normalises: mean and variance of each channel, of the batch or, outside training, as averaged.
    pub fn normalize(&mut self, moments: impl Fn(usize) -> (f64, f64), gamma: &[f32], beta: &[f32], epsilon: f64) {
        let factors = |channel: usize| scale_and_shift(moments(channel), gamma[channel], beta[channel], epsilon);
        self.scale.set(|channel| factors(channel).0);
        self.shift.set(|channel| factors(channel).1);
    }

    /// `output = input` normalised, both `[rows, H, W, channels]`.
    pub fn apply(&self, input: &[f32], output: &mut [f32]) {
        channels::scale(input, &self.scale, &self.shift, output);
    }

    /// Takes over what carries gradients back through the normalisation with the statistics `inputs`, from the sums of
    /// `gradients` of the whole batch; adds the gradients of `gamma` and `beta`.
    pub fn differentiate(
        &mut self,
        inputs: &Sums,
        gradients: &Sums,
        gamma: &[f32],
        epsilon: f64,
        [gamma_gradient, beta_gradient]: [&mut [f32]; 2],
    ) {
        let slopes = |channel: usize| {
            let (mean, variance) = inputs.moments(channel);
            let inverse = 1.0 / (variance + epsilon).sqrt();
            let by_beta = gradients.values[channel];
            let by_gamma = (gradients.products[channel] - mean * by_beta) * inverse;
            (mean, inverse, by_gamma, by_beta)
        };
        // dx = gamma * inverse * (dy - mean of dy - normalised x * mean of dy * normalised x)
        let count = gradients.count as f64;
        let scale = |channel: usize| f64::from(gamma[channel]) * slopes(channel).1;
        let input_scale = |channel: usize| {
            let (_, inverse, by_gamma, _) = slopes(channel);
            -scale(channel) * inverse * by_gamma / count
        };
        self.scale.set(|channel| scale(channel) as f32);
        self.input_scale.set(|channel| input_scale(channel) as f32);
        self.shift.set(|channel| {
            let (mean, _, _, by_beta) = slopes(channel);
            (-scale(channel) * by_beta / count - input_scale(channel) * mean) as f32
        });
        for (channel, (gamma, beta)) in gamma_gradient.iter_mut().zip(beta_gradient).enumerate() {
            let (_, _, by_gamma, by_beta) = slopes(channel);
            *gamma += by_gamma as f32;
            *beta += by_beta as f32;
        }
    }

    /// The gradient for `input` from the one for its output, all `[rows, H, W, channels]`.
    pub fn carry_back(&self, output_gradient: &[f32], input: &[f32], input_gradient: &mut [f32]) {
        let (gradients, inputs) = ((output_gradient, &self.scale), (input, &self.input_scale));
        channels::combine(gradients, inputs, &self.shift, input_gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RandomState;

    const CHANNELS: usize = 5;
    const EPSILON: f64 = 1e-3;

    fn numbers(count: usize, rng: &mut RandomState) -> Vec<f32> {
        (0..count).map(|_| 2.0 * rng.random_sample() as f32 + 0.5).collect()
    }

    /// The layer in double precision.
    fn normalized(input: &[f64], gamma: &[f32], beta: &[f32]) -> Vec<f64> {
        let count = (input.len() / CHANNELS) as f64;
        let mut output = vec![0.0; input.len()];
        for channel in 0..CHANNELS {
            let of_channel = || input.iter().skip(channel).step_by(CHANNELS);
            let mean = of_channel().sum::<f64>() / count;
            let variance = of_channel().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
            for (y, x) in output.iter_mut().skip(channel).step_by(CHANNELS).zip(of_channel()) {
                *y = (x - mean) / (variance + EPSILON).sqrt() * f64::from(gamma[channel]) + f64::from(beta[channel]);
            }
        }
        output
    }

    #[test]
    fn outputs_and_gradients_match_the_definition() {
        let mut rng = RandomState::new(3);
        let input = numbers(21 * CHANNELS, &mut rng);
        let gradient = numbers(input.len(), &mut rng);
        let (gamma, beta) = (numbers(CHANNELS, &mut rng), numbers(CHANNELS, &mut rng));
        let exact: Vec<f64> = input.iter().map(|&x| f64::from(x)).collect();

        // In two parts, as two threads would.
        let (mut sums, mut part) = (Sums::new(CHANNELS), Sums::new(CHANNELS));
        sums.add_inputs(&input[..8 * CHANNELS]);
        part.add_inputs(&input[8 * CHANNELS..]);
        sums.add(&part);
        let mut factors = Factors::new(CHANNELS);
        factors.normalize(|channel| sums.moments(channel), &gamma, &beta, EPSILON);
        let mut output = vec![0.0; input.len()];
        factors.apply(&input, &mut output);
        let expected = normalized(&exact, &gamma, &beta);
        assert!(output.iter().zip(&expected).all(|(&y, e)| (f64::from(y) - e).abs() < 1e-5));

        let mut gradients = Sums::new(CHANNELS);
        gradients.add_gradients(&gradient, &input);
        let (mut by_gamma, mut by_beta) = ([1.0; CHANNELS], [1.0; CHANNELS]);
        factors.differentiate(&sums, &gradients, &gamma, EPSILON, [&mut by_gamma, &mut by_beta]);
        let mut input_gradient = vec![0.0; input.len()];
        factors.carry_back(&gradient, &input, &mut input_gradient);

        let loss = |input: &[f64], gamma: &[f32], beta: &[f32]| -> f64 {
            normalized(input, gamma, beta).iter().zip(&gradient).map(|(y, &g)| y * f64::from(g)).sum()
        };
        let check = |found: f32, above: f64, below: f64, step: f64, name: &str| {
            let slope = (above - below) / (2.0 * step);
            assert!((f64::from(found) - slope).abs() < 1e-4 * (1.0 + slope.abs()), "{name}: {found}, expected {slope}");
        };
        for index in 0..input.len() {
            let moved = |by: f64| {
                let mut input = exact.clone();
                input[index] += by;
                loss(&input, &gamma, &beta)
            };
            check(input_gradient[index], moved(1e-5), moved(-1e-5), 1e-5, "input");
        }
        for channel in 0..CHANNELS {
            let moved = |values: &[f32], by: f32| {
                let mut values = values.to_vec();
                values[channel] += by;
                values
            };
            // The loss is linear in both.
            let by = |gamma: &[f32], beta: &[f32]| loss(&exact, gamma, beta);
            check(
                by_gamma[channel] - 1.0,
                by(&moved(&gamma, 1.0), &beta),
                by(&moved(&gamma, -1.0), &beta),
                1.0,
                "gamma",
            );
            check(by_beta[channel] - 1.0, by(&gamma, &moved(&beta, 1.0)), by(&gamma, &moved(&beta, -1.0)), 1.0, "beta");
        }
    }

    #[test]
    fn a_constant_channel_has_no_variance() {
        let mut sums = Sums::new(1);
        sums.add_inputs(&[0.1; 1000]);
        let (mean, variance) = sums.moments(0);
        assert!((mean - f64::from(0.1f32)).abs() < 1e-12 && (0.0..1e-12).contains(&variance));
    }
}
