//! Batch normalisation: every channel is brought to mean 0 and variance 1 over the images at hand, then scaled and shifted
//! as learned. Source: Ioffe and Szegedy, "Batch Normalization" (2015).
//!
//! The images at hand are those of one micro batch (Hoffer et al., "Train longer, generalize better" (2017), call that ghost
//! batch normalisation): micro batches need not wait for each other.

use super::{Backward, Forward, Layer, Parameters, Pass, activation};
use crate::kernels::batch_norm::{Factors, Sums, scale_and_shift};
use thumbnet::layer as core;

/// Added to variances, so that a channel that never changes divides by no zero.
pub const EPSILON: f64 = 1e-5;

/// A batch normalisation and the activation that follows it. In an exported model it is folded into the layer before.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    activation: core::Activation,
    /// Of the last forward pass for training, and of the backward pass.
    inputs: Sums,
    gradients: Sums,
    factors: Factors,
}

impl BatchNorm {
    /// A layer for `channels` channels.
    pub fn new(channels: usize, activation: core::Activation) -> Self {
        let (sums, factors) = (Sums::new(channels), Factors::new(channels));
        BatchNorm { activation, inputs: sums.clone(), gradients: sums, factors }
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
        let moments = (f64::from(mean[channel]), f64::from(variance[channel]));
        scale_and_shift(moments, parameters.weights[channel], parameters.bias[channel], EPSILON)
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
        let (gamma, beta) = (&parameters.weights, &parameters.bias);
        let (mean, variance) = parameters.running.split_at(parameters.outputs);
        match (pass, gradients) {
            (Pass::Train(_), Some(gradients)) => {
                self.inputs.clear();
                self.inputs.add_inputs(input);
                let (means, variances) = gradients.statistics.split_at_mut(parameters.outputs);
                for (channel, (mean, variance)) in means.iter_mut().zip(variances).enumerate() {
                    let moments = self.inputs.moments(channel);
                    (*mean, *variance) = (moments.0 as f32, moments.1 as f32);
                }
                self.factors.normalize(|channel| self.inputs.moments(channel), gamma, beta, EPSILON);
            }
            _ => {
                let moments = |channel: usize| (f64::from(mean[channel]), f64::from(variance[channel]));
                self.factors.normalize(moments, gamma, beta, EPSILON);
            }
        }
        self.factors.apply(input, output);
        activation::apply(self.activation, output);
    }

    fn backward(&mut self, work: Backward<'_>) {
        let Backward { parameters, gradients, input, output, output_gradient, input_gradient, .. } = work;
        let parameters = parameters.expect("a batch normalisation has parameters");
        activation::backward(self.activation, output, 1.0, output_gradient);
        let Some(gradients) = gradients else { return };
        self.gradients.clear();
        self.gradients.add_gradients(output_gradient, input);
        let sums = [&mut gradients.weights[..], &mut gradients.bias[..]];
        self.factors.differentiate(&self.inputs, &self.gradients, &parameters.weights, EPSILON, sums);
        gradients.touch_all();
        if let Some(input_gradient) = input_gradient {
            self.factors.carry_back(output_gradient, input, input_gradient);
        }
    }
}
