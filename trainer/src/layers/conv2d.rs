//! The 2-D convolution (cross-correlation, as everywhere in this field): `activation(x * W + b)`.
//!
//! Each image is spread out into its windows (`[positions, window]`), which makes the three sums of a convolution three
//! matrix products. One image's windows fit into the cache, so they are made again for the backward pass.

use super::{Backward, Forward, Layer, activation};
use crate::gemm::{self, Matrix};
use thumbnet::layer as core;

/// A convolution layer in training.
#[derive(Clone, Debug)]
pub struct Conv2d {
    descriptor: core::Conv2d,
    input: core::Shape,
    output: core::Shape,
    /// Where tanh's slope is taken, see [`activation::backward`].
    pub tanh_scale: f32,
    /// The image at hand with its padding, or less what is cropped.
    framed: Vec<f32>,
    /// `[positions, window]` of the image at hand.
    windows: Vec<f32>,
    /// The gradient of `framed`; only where a layer below needs it.
    framed_gradient: Vec<f32>,
    /// The gradient of `windows`; only where a layer below needs it.
    window_gradient: Vec<f32>,
}

impl Conv2d {
    /// A layer as `descriptor` says (without fused pooling), from `input` to `output`.
    pub fn new(descriptor: core::Conv2d, input: core::Shape, output: core::Shape) -> Self {
        assert_eq!(descriptor.pool, [1, 1], "pooling is a layer of its own in training");
        let mut layer = Conv2d {
            descriptor,
            input,
            output,
            tanh_scale: 1.0,
            framed: Vec::new(),
            windows: Vec::new(),
            framed_gradient: Vec::new(),
            window_gradient: Vec::new(),
        };
        layer.framed = vec![0.0; layer.frame().iter().product::<usize>() * usize::from(input.channels)];
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

    /// Height and width of the image with its padding, or less what is cropped.
    fn frame(&self) -> [usize; 2] {
        let padding = self.descriptor.padding;
        let side = |size: u16, before: i8, after: i8| (i32::from(size) + i32::from(before) + i32::from(after)) as usize;
        [side(self.input.height, padding.top, padding.bottom), side(self.input.width, padding.left, padding.right)]
    }

    /// Calls `visit(frame, image, length)` for every row that the frame shares with the image: where the shared part
    /// starts in either and how many values it has.
    fn for_each_row(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let channels = usize::from(self.input.channels);
        let [frame_height, frame_width] = self.frame();
        let shared = |size: u16, frame: usize, before: i8| {
            let (outside, cropped) = (before.max(0) as usize, before.min(0).unsigned_abs() as usize);
            (outside, cropped, (usize::from(size) - cropped).min(frame - outside))
        };
        let (top, cropped_top, rows) = shared(self.input.height, frame_height, self.descriptor.padding.top);
        let (left, cropped_left, columns) = shared(self.input.width, frame_width, self.descriptor.padding.left);
        for row in 0..rows {
            let in_frame = (top + row) * frame_width + left;
            let in_image = (cropped_top + row) * usize::from(self.input.width) + cropped_left;
            visit(in_frame * channels, in_image * channels, columns * channels);
        }
    }

    /// Calls `visit(window, frame)` for every row of every window: where it starts in `windows` and in the frame. Each
    /// is as long as the kernel is wide.
    fn for_each_run(&self, mut visit: impl FnMut(usize, usize)) {
        let channels = usize::from(self.input.channels);
        let row_len = self.frame()[1] * channels;
        let kernel_height = usize::from(self.descriptor.kernel[0]);
        let [down, across] = self.descriptor.stride.map(usize::from);
        let mut window = 0;
        for y in 0..usize::from(self.output.height) {
            for x in 0..usize::from(self.output.width) {
                for row in 0..kernel_height {
                    visit(window, (y * down + row) * row_len + x * across * channels);
                    window += self.run_len();
                }
            }
        }
    }

    /// The length of one row of a window.
    fn run_len(&self) -> usize {
        usize::from(self.descriptor.kernel[1]) * usize::from(self.input.channels)
    }

    /// Fills `windows` from one image. The padding of `framed` was zeroed at the start and is never written.
    fn spread(&mut self, image: &[f32]) {
        let (mut framed, mut windows) = (std::mem::take(&mut self.framed), std::mem::take(&mut self.windows));
        self.for_each_row(|frame, start, length| {
            framed[frame..frame + length].copy_from_slice(&image[start..start + length]);
        });
        match self.run_len() {
            // A length known in advance spares a call per run; these are the kernels that look at the image itself.
            3 => self.for_each_run(|window, frame| copy::<3>(&mut windows[window..], &framed[frame..])),
            5 => self.for_each_run(|window, frame| copy::<5>(&mut windows[window..], &framed[frame..])),
            length => self.for_each_run(|window, frame| {
                windows[window..window + length].copy_from_slice(&framed[frame..frame + length]);
            }),
        }
        (self.framed, self.windows) = (framed, windows);
    }

    /// The reverse of [`Self::spread`] for gradients: every run is added to where it came from.
    fn gather(&mut self, image_gradient: &mut [f32]) {
        let mut framed = std::mem::take(&mut self.framed_gradient);
        framed.clear();
        framed.resize(self.framed.len(), 0.0);
        let length = self.run_len();
        self.for_each_run(|window, frame| {
            let run = &self.window_gradient[window..window + length];
            framed[frame..frame + length].iter_mut().zip(run).for_each(|(sum, &value)| *sum += value);
        });
        image_gradient.fill(0.0);
        self.for_each_row(|frame, start, length| {
            image_gradient[start..start + length].copy_from_slice(&framed[frame..frame + length]);
        });
        self.framed_gradient = framed;
    }
}

/// Copies the first `N` values.
fn copy<const N: usize>(to: &mut [f32], from: &[f32]) {
    to[..N].copy_from_slice(&from[..N]);
}

impl Layer for Conv2d {
    fn descriptor(&self) -> Option<core::Layer> {
        Some(core::Layer::Conv2d(self.descriptor))
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        let Forward { parameters, input, output, .. } = work;
        let parameters = parameters.expect("a convolution has parameters");
        let (positions, window_len, filters) = (self.positions(), self.window_len(), self.filters());
        for (image, sums) in input.chunks_exact(self.image_len()).zip(output.chunks_exact_mut(positions * filters)) {
            self.spread(image);
            let kernels = Matrix::new(&parameters.weights, window_len, filters);
            gemm::multiply(Matrix::new(&self.windows, positions, window_len), kernels, sums, false);
        }
        parameters.add_bias(output);
        activation::apply(self.descriptor.activation, output);
    }

    fn backward(&mut self, work: Backward<'_>) {
        let Backward { parameters, mut gradients, input, output, output_gradient, mut input_gradient, .. } = work;
        let parameters = parameters.expect("a convolution has parameters");
        activation::backward(self.descriptor.activation, output, self.tanh_scale, output_gradient);
        if let Some(gradients) = gradients.as_deref_mut() {
            gradients.add_bias(output_gradient);
            gradients.touch_all();
        }
        let (positions, window_len, filters) = (self.positions(), self.window_len(), self.filters());
        let image_len = self.image_len();
        let images = input.chunks_exact(image_len).zip(output_gradient.chunks_exact(positions * filters));
        for (index, (image, gradient)) in images.enumerate() {
            let gradient = Matrix::new(gradient, positions, filters);
            if let Some(gradients) = gradients.as_deref_mut() {
                self.spread(image);
                let windows = Matrix::new(&self.windows, positions, window_len).transposed();
                gemm::multiply(windows, gradient, &mut gradients.weights, true);
            }
            if let Some(input_gradient) = &mut input_gradient {
                let kernels = Matrix::new(&parameters.weights, window_len, filters).transposed();
                self.window_gradient.resize(positions * window_len, 0.0);
                gemm::multiply(gradient, kernels, &mut self.window_gradient, false);
                self.gather(&mut input_gradient[index * image_len..][..image_len]);
            }
        }
    }
    fn set_activation(&mut self, activation: core::Activation) {
        self.descriptor.activation = activation;
    }
}
