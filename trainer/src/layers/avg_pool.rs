//! 2-D average pooling over each channel.

use super::{Backward, Forward, Layer};
use crate::kernels::pool::Pool;
use thumbnet::layer::{self as core, Shape};

/// An average-pool layer in training; with a window as large as its input, global average pooling.
#[derive(Clone, Debug)]
pub struct AvgPool2d {
    descriptor: core::AvgPool2d,
    pool: Pool,
}

impl AvgPool2d {
    /// A layer as `descriptor` says, for inputs of shape `input`, which must have room for a window.
    pub fn new(descriptor: core::AvgPool2d, input: Shape) -> Self {
        let [kernel, stride] = [descriptor.kernel, descriptor.stride].map(|sizes| sizes.map(usize::from));
        AvgPool2d { descriptor, pool: Pool::new(input, kernel, stride) }
    }
}

impl Layer for AvgPool2d {
    fn descriptor(&self) -> Option<core::Layer> {
        Some(core::Layer::AvgPool2d(self.descriptor))
    }

    fn rounds_again(&self) -> bool {
        true
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        self.pool.average(work.input, work.output);
    }

    fn backward(&mut self, work: Backward<'_>) {
        if let Some(input_gradient) = work.input_gradient {
            self.pool.average_gradient(work.output_gradient, input_gradient);
        }
    }
}
