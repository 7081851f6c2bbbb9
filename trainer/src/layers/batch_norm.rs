//! Batch normalisation: every channel is brought to mean 0 and variance 1 over the images at hand, then scaled and shifted
//! as learned. Source: Ioffe and Szegedy, "Batch Normalization" (2015).
//!
//! The images at hand are those of one micro batch (Hoffer et al., "Train longer, generalize better" (2017), call that ghost
//! batch normalisation): micro batches need not wait for each other.

use super::{Backward, Forward, Layer, Parameters, Pass, activation};
use crate::elementwise;
use thumbnet::layer as core;

/// Added to variances, so that a channel that never changes divides by no zero.
pub const EPSILON: f32 = 1e-5;

/// A batch normalisation and the activation that follows it. In an exported model it is folded into the layer before.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    activation: core::Activation,
    /// `1 / sqrt(variance + EPSILON)` of every channel in the last forward pass for training.
    inverse_deviations: Vec<f32>,
    /// The factor and the summand that the last forward pass applied to every channel.
    factors: Vec<f32>,
    summands: Vec<f32>,
}

impl BatchNorm {
    /// A layer for `channels` channels.
    pub fn new(channels: usize, activation: core::Activation) -> Self {
        let zeros = vec![0.0; channels];
        BatchNorm { activation, inverse_deviations: zeros.clone(), factors: zeros.clone(), summands: zeros }
    }

    /// What it starts from: scale 1, shift 0, running mean 0 and variance 1.
    pub fn parameters(channels: usize) -> Parameters {
        let mut parameters = Parameters::of(vec![1.0; channels], vec![0.0; channels], channels);
        parameters.running = vec![0.0; 2 * channels];
        parameters.running[channels..].fill(1.0);
        parameters
    }

    /// The factor and the summand of channel `channel` once training is over.
    pub fn fold(parameters: &Parameters, channel: usize) -> (f32, f32) {
        let (mean, variance) = parameters.running.split_at(parameters.outputs);
        let factor = parameters.weights[channel] / (variance[channel] + EPSILON).sqrt();
        (factor, parameters.bias[channel] - mean[channel] * factor)
    }
}

impl Layer for BatchNorm {
    fn descriptor(&self) -> Option<core::Layer> {
        None
    }

    fn folds_into_the_layer_before(&self) -> Option<core::Activation> {
        Some(self.activation)
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        let Forward { parameters, gradients, input, output, pass, .. } = work;
        let parameters = parameters.expect("a batch normalisation has parameters");
        let channels = parameters.outputs;
        match (pass, gradients) {
            (Pass::Train(_), Some(gradients)) => {
                let (mean, variance) = gradients.statistics.split_at_mut(channels);
                elementwise::mean_and_variance(input, mean, variance);
                for channel in 0..channels {
                    self.inverse_deviations[channel] = 1.0 / (variance[channel] + EPSILON).sqrt();
                    self.factors[channel] = parameters.weights[channel] * self.inverse_deviations[channel];
                    self.summands[channel] = parameters.bias[channel] - mean[channel] * self.factors[channel];
                }
            }
            _ => {
                for channel in 0..channels {
                    (self.factors[channel], self.summands[channel]) = Self::fold(parameters, channel);
                }
            }
        }
        elementwise::scale_and_shift(input, &self.factors, &self.summands, output);
        activation::apply(self.activation, output);
    }

    /// With `x` the input brought to mean 0 and variance 1 over `n` values and `g` the gradient for what the activation
    /// gets: the scale's gradient is `sum(g x)`, the shift's `sum(g)`, the input's
    /// `factor (g - sum(g) / n - x sum(g x) / n)`.
    fn backward(&mut self, work: Backward<'_>) {
        let Backward { gradients, input, output, output_gradient, input_gradient, .. } = work;
        activation::backward(self.activation, output, 1.0, output_gradient);
        let Some(gradients) = gradients else { return };
        let channels = self.factors.len();
        let mean = &gradients.statistics[..channels];
        let (mut slopes, mut shifts) = (vec![0.0; channels], vec![0.0; channels]);
        elementwise::add_rows(output_gradient, &mut shifts);
        elementwise::add_products_with_centred(output_gradient, input, mean, &mut slopes);
        for (slope, inverse_deviation) in slopes.iter_mut().zip(&self.inverse_deviations) {
            *slope *= inverse_deviation;
        }
        if let Some(input_gradient) = input_gradient {
            // The same, as a weighted sum of the gradient, the input and 1 for every channel.
            let count = (input.len() / channels) as f32;
            let mut of_input = vec![0.0; channels];
            let mut of_one = vec![0.0; channels];
            for channel in 0..channels {
                let slope = self.factors[channel] * slopes[channel] * self.inverse_deviations[channel] / count;
                of_input[channel] = -slope;
                of_one[channel] = slope * mean[channel] - self.factors[channel] * shifts[channel] / count;
            }
            elementwise::weighted_sum(output_gradient, &self.factors, input, &of_input, &of_one, input_gradient);
        }
        elementwise::add_scaled(&mut gradients.weights, 1.0, &slopes);
        elementwise::add_scaled(&mut gradients.bias, 1.0, &shifts);
        gradients.touch_all();
    }
}
