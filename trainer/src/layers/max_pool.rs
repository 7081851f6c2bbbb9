//! 2-D max pooling over each channel.

use super::{Backward, Forward, Layer};
use crate::kernels::pool::Pool;
use thumbnet::layer::{self as core, Shape};

/// A max-pool layer in training.
#[derive(Clone, Debug)]
pub struct MaxPool2d {
    descriptor: core::MaxPool2d,
    pool: Pool,
}

impl MaxPool2d {
    /// A layer as `descriptor` says, for inputs of shape `input`, which must have room for a window.
    pub fn new(descriptor: core::MaxPool2d, input: Shape) -> Self {
        let [kernel, stride] = [descriptor.kernel, descriptor.stride].map(|sizes| sizes.map(usize::from));
        MaxPool2d { descriptor, pool: Pool::new(input, kernel, stride) }
    }
}

impl Layer for MaxPool2d {
    fn descriptor(&self) -> Option<core::Layer> {
        Some(core::Layer::MaxPool2d(self.descriptor))
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        self.pool.max(work.input, work.output);
    }

    fn backward(&mut self, work: Backward<'_>) {
        if let Some(input_gradient) = work.input_gradient {
            self.pool.max_gradient(work.input, work.output, work.output_gradient, input_gradient);
        }
    }
}
