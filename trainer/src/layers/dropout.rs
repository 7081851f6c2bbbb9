//! Dropout: in training every value is set to zero with some probability, and the others are scaled up to keep the
//! expected sum.

use super::{Backward, Forward, Layer, Pass};
use crate::elementwise;
use crate::random::RandomState;

/// A dropout layer. It is not part of an exported model.
#[derive(Clone, Debug)]
pub struct Dropout {
    rate: f64,
    /// The factor of the kept gradients. The mathematics wants the forward pass's, `1 / (1 - rate)`.
    pub backward_scale: f32,
    /// 1 or 0 for every value of the batch.
    mask: Vec<f32>,
    /// The mask times one of the two factors.
    scaled_mask: Vec<f32>,
}

impl Dropout {
    /// Drops each value with probability `rate`, which is at least 0 and less than 1.
    pub fn new(rate: f64) -> Self {
        let mut layer = Dropout { rate, backward_scale: 0.0, mask: Vec::new(), scaled_mask: Vec::new() };
        layer.backward_scale = layer.forward_scale();
        layer
    }

    fn forward_scale(&self) -> f32 {
        (1.0 / (1.0 - self.rate)) as f32
    }

    fn draw_mask(&mut self, rng: &mut RandomState) {
        for kept in &mut self.mask {
            // Half is drawn the way the notebooks draw it: one word per value instead of two.
            let keep = if self.rate == 0.5 { rng.randint2() == 1 } else { rng.random_sample() >= self.rate };
            *kept = f32::from(u8::from(keep));
        }
    }

    fn scale_mask(&mut self, factor: f32) {
        self.scaled_mask.resize(self.mask.len(), 0.0);
        self.scaled_mask.iter_mut().zip(&self.mask).for_each(|(scaled, &kept)| *scaled = kept * factor);
    }
}

impl Layer for Dropout {
    fn descriptor(&self) -> Option<thumbnet::layer::Layer> {
        None
    }

    fn only_in_training(&self) -> bool {
        true
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        let Forward { input, output, pass, .. } = work;
        let Pass::Train(rng) = pass else { return output.copy_from_slice(input) };
        self.mask.resize(input.len(), 0.0);
        self.draw_mask(rng);
        self.scale_mask(self.forward_scale());
        elementwise::multiply(input, &self.scaled_mask, output);
    }

    fn backward(&mut self, work: Backward<'_>) {
        let Backward { output_gradient, input_gradient, .. } = work;
        if let Some(input_gradient) = input_gradient {
            self.scale_mask(self.backward_scale);
            elementwise::multiply(output_gradient, &self.scaled_mask, input_gradient);
        }
    }
}
