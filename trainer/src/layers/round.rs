//! Rounds activations as an int8 model does, so that training can adapt to it.

use super::{Backward, Forward, Layer};
use crate::elementwise;

/// A layer that makes its input a multiple of a step. It is not part of an exported model, whose layers round by themselves.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    step: f32,
}

impl Round {
    /// Rounds to multiples of `step`, at most 127 of them on either side of zero.
    pub fn new(step: f32) -> Self {
        Round { step }
    }
}

impl Layer for Round {
    fn descriptor(&self) -> Option<thumbnet::layer::Layer> {
        None
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        elementwise::round_to_steps(work.input, self.step, work.output);
    }

    /// The straight-through estimator: rounding has the slope 1, clipping the slope 0. Source: Bengio, Léonard and
    /// Courville, "Estimating or Propagating Gradients Through Stochastic Neurons" (2013).
    fn backward(&mut self, work: Backward<'_>) {
        let Backward { input, output_gradient, input_gradient, .. } = work;
        if let Some(input_gradient) = input_gradient {
            elementwise::unclipped(input, self.step, output_gradient, input_gradient);
        }
    }
}
