//! The 2-D convolution (cross-correlation, as everywhere in this field): `activation(x * W + b)`.
//!
//! Each image is spread out into its windows (`[positions, window]`), which makes the three sums of a convolution three
//! matrix products. One image's windows fit into the cache, so they are made again for the backward pass.

use super::{Backward, Layer, Parameters, Pass, activation};
use crate::gemm::{self, Matrix};
use std::ops::Range;
use thumbnet::layer as core;

/// A convolution layer in training.
#[derive(Clone, Debug)]
pub struct Conv2d {
    descriptor: core::Conv2d,
    parameters: Parameters,
    input: core::Shape,
    output: core::Shape,
    /// Where tanh's slope is taken, see [`activation::backward`].
    pub tanh_scale: f32,
    /// `[positions, window]` of the image at hand.
    windows: Vec<f32>,
    /// The gradient of `windows`; only where a layer below needs it.
    window_gradient: Vec<f32>,
}

impl Conv2d {
    /// A layer as `descriptor` says (without fused pooling), from `input` to `output`.
    pub fn new(descriptor: core::Conv2d, input: core::Shape, output: core::Shape, parameters: Parameters) -> Self {
        assert_eq!(descriptor.pool, [1, 1], "pooling is a layer of its own in training");
        let mut layer = Conv2d {
            descriptor,
            parameters,
            input,
            output,
            tanh_scale: 1.0,
            windows: Vec::new(),
            window_gradient: Vec::new(),
        };
        layer.windows = vec![0.0; layer.positions() * layer.window_len()];
        layer
    }

    fn filters(&self) -> usize {
        usize::from(self.descriptor.filters)
    }

    fn positions(&self) -> usize {
        usize::from(self.output.height) * usize::from(self.output.width)
    }

    fn window_len(&self) -> usize {
        self.descriptor.kernel.iter().map(|&n| usize::from(n)).product::<usize>() * usize::from(self.input.channels)
    }

    fn image_len(&self) -> usize {
        usize::from(self.input.height) * usize::from(self.input.width) * usize::from(self.input.channels)
    }

    /// Calls `visit(window, image)` for every contiguous run of values that a window shares with the image: a range in
    /// `windows` and one of the same length in the image. What the padding adds lies in no run.
    fn for_each_run(&self, mut visit: impl FnMut(Range<usize>, Range<usize>)) {
        let [kernel_height, kernel_width] = self.descriptor.kernel.map(i32::from);
        let [down, across] = self.descriptor.stride.map(i32::from);
        let (height, width) = (i32::from(self.input.height), i32::from(self.input.width));
        let channels = usize::from(self.input.channels);
        let mut start = 0;
        for top in (0..i32::from(self.output.height)).map(|y| y * down - i32::from(self.descriptor.padding.top)) {
            for left in (0..i32::from(self.output.width)).map(|x| x * across - i32::from(self.descriptor.padding.left))
            {
                let columns = left.max(0)..(left + kernel_width).min(width);
                for y in (top..top + kernel_height).filter(|y| (0..height).contains(y) && !columns.is_empty()) {
                    let length = columns.len() * channels;
                    let in_window = ((y - top) * kernel_width + columns.start - left) as usize * channels;
                    let in_image = (y * width + columns.start) as usize * channels;
                    visit(start + in_window..start + in_window + length, in_image..in_image + length);
                }
                start += self.window_len();
            }
        }
    }

    /// Fills `windows` from one image. Places in the padding were zeroed at the start and are never written.
    fn spread(&mut self, image: &[f32]) {
        let mut windows = std::mem::take(&mut self.windows);
        self.for_each_run(|window, run| {
            // Runs are a few values long: a loop is faster than the call that a slice copy becomes.
            windows[window].iter_mut().zip(&image[run]).for_each(|(value, &pixel)| *value = pixel);
        });
        self.windows = windows;
    }

    /// The reverse of [`Self::spread`] for gradients: every run is added to where it came from.
    fn gather(&self, image_gradient: &mut [f32]) {
        image_gradient.fill(0.0);
        self.for_each_run(|window, run| {
            image_gradient[run].iter_mut().zip(&self.window_gradient[window]).for_each(|(sum, &value)| *sum += value);
        });
    }
}

impl Layer for Conv2d {
    fn descriptor(&self) -> Option<core::Layer> {
        Some(core::Layer::Conv2d(self.descriptor))
    }

    fn forward(&mut self, _rows: usize, input: &[f32], output: &mut [f32], _pass: &mut Pass<'_>) {
        let (positions, window_len, filters) = (self.positions(), self.window_len(), self.filters());
        for (image, sums) in input.chunks_exact(self.image_len()).zip(output.chunks_exact_mut(positions * filters)) {
            self.spread(image);
            let kernels = Matrix::new(&self.parameters.weights, window_len, filters);
            gemm::multiply(Matrix::new(&self.windows, positions, window_len), kernels, sums, false);
        }
        self.parameters.add_bias(output);
        activation::apply(self.descriptor.activation, output);
    }

    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { input, output, output_gradient, mut input_gradient, .. } = pass;
        activation::backward(self.descriptor.activation, output, self.tanh_scale, output_gradient);
        self.parameters.add_bias_gradient(output_gradient);
        self.parameters.touch_all();
        let (positions, window_len, filters) = (self.positions(), self.window_len(), self.filters());
        let image_len = self.image_len();
        let images = input.chunks_exact(image_len).zip(output_gradient.chunks_exact(positions * filters));
        for (index, (image, gradient)) in images.enumerate() {
            self.spread(image);
            let gradient = Matrix::new(gradient, positions, filters);
            let windows = Matrix::new(&self.windows, positions, window_len).transposed();
            gemm::multiply(windows, gradient, &mut self.parameters.weight_gradient, true);
            if let Some(input_gradient) = &mut input_gradient {
                let kernels = Matrix::new(&self.parameters.weights, window_len, filters).transposed();
                self.window_gradient.resize(positions * window_len, 0.0);
                gemm::multiply(gradient, kernels, &mut self.window_gradient, false);
                self.gather(&mut input_gradient[index * image_len..][..image_len]);
            }
        }
    }

    fn parameters(&self) -> Option<&Parameters> {
        Some(&self.parameters)
    }

    fn parameters_mut(&mut self) -> Option<&mut Parameters> {
        Some(&mut self.parameters)
    }
}
