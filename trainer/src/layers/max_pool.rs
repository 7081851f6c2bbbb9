//! 2-D max pooling over each channel.

use super::{Backward, Forward, Layer};
use thumbnet::layer as core;

/// A max-pool layer in training.
#[derive(Clone, Debug)]
pub struct MaxPool2d {
    descriptor: core::MaxPool2d,
    input: core::Shape,
    output: core::Shape,
    /// For every output of the batch, where in its image the largest value was; the first one if there are several.
    winners: Vec<u32>,
}

impl MaxPool2d {
    /// A layer as `descriptor` says, from `input` to `output`.
    pub fn new(descriptor: core::MaxPool2d, input: core::Shape, output: core::Shape) -> Self {
        MaxPool2d { descriptor, input, output, winners: Vec::new() }
    }

    fn lengths(&self) -> [usize; 2] {
        [self.input, self.output].map(|s| usize::from(s.height) * usize::from(s.width) * usize::from(s.channels))
    }

    /// The position of the largest value in the window of output `(y, x, channel)`.
    fn winner(&self, image: &[f32], y: usize, x: usize, channel: usize) -> usize {
        let [kernel_height, kernel_width] = self.descriptor.kernel.map(usize::from);
        let [down, across] = self.descriptor.stride.map(usize::from);
        let (width, channels) = (usize::from(self.input.width), usize::from(self.input.channels));
        let mut winner = ((y * down) * width + x * across) * channels + channel;
        for row in y * down..y * down + kernel_height {
            for column in x * across..x * across + kernel_width {
                let position = (row * width + column) * channels + channel;
                if image[position] > image[winner] {
                    winner = position;
                }
            }
        }
        winner
    }
}

impl Layer for MaxPool2d {
    fn descriptor(&self) -> Option<core::Layer> {
        Some(core::Layer::MaxPool2d(self.descriptor))
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        let Forward { input, output, .. } = work;
        let [input_len, output_len] = self.lengths();
        let (width, channels) = (usize::from(self.output.width), usize::from(self.output.channels));
        let mut winners = std::mem::take(&mut self.winners);
        winners.resize(output.len(), 0);
        for (index, image) in input.chunks_exact(input_len).enumerate() {
            for place in 0..output_len {
                let (position, channel) = (place / channels, place % channels);
                let winner = self.winner(image, position / width, position % width, channel);
                output[index * output_len + place] = image[winner];
                winners[index * output_len + place] = winner as u32;
            }
        }
        self.winners = winners;
    }

    fn backward(&mut self, work: Backward<'_>) {
        let Backward { output_gradient, input_gradient, .. } = work;
        let Some(input_gradient) = input_gradient else { return };
        let [input_len, output_len] = self.lengths();
        input_gradient.fill(0.0);
        let winners = self.winners.chunks_exact(output_len).zip(output_gradient.chunks_exact(output_len));
        for (image_gradient, (winners, gradient)) in input_gradient.chunks_exact_mut(input_len).zip(winners) {
            for (&winner, &slope) in winners.iter().zip(gradient) {
                image_gradient[winner as usize] += slope;
            }
        }
    }
}
