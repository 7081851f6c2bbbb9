//! 2-D max pooling over each channel.

use super::{Backward, Forward, Layer};
use multiversion::multiversion;
use thumbnet::layer::{self, Shape};

/// A max-pool layer in training.
#[derive(Clone, Debug)]
pub struct MaxPool2d {
    descriptor: layer::MaxPool2d,
    input: Shape,
    output: Shape,
    /// For every output of the batch, which place of its window had the largest value; the first one if there are several.
    winners: Vec<u16>,
}

/// Where the windows of a pooling lie: sizes in values, not in pixels.
#[derive(Clone, Copy, Debug)]
struct Windows {
    channels: usize,
    /// From one row of the image to the next.
    pitch: usize,
    /// Rows and columns of a window.
    kernel: [usize; 2],
    /// From one window to the next one below, and to the right.
    strides: [usize; 2],
    /// Windows in a row.
    columns: usize,
}

impl Windows {
    /// Where window number `index` starts.
    fn start(&self, index: usize) -> usize {
        index / self.columns * self.strides[0] + index % self.columns * self.strides[1]
    }

    /// For every place of a window, how far it is from the window's start.
    fn places(self) -> impl Iterator<Item = usize> {
        (0..self.kernel[0]).flat_map(move |row| (0..self.kernel[1]).map(move |column| self.place(row, column)))
    }

    fn place(&self, row: usize, column: usize) -> usize {
        row * self.pitch + column * self.channels
    }
}

impl MaxPool2d {
    /// A layer as `descriptor` says, from `input` to `output`.
    pub fn new(descriptor: layer::MaxPool2d, input: Shape, output: Shape) -> Self {
        MaxPool2d { descriptor, input, output, winners: Vec::new() }
    }

    fn lengths(&self) -> [usize; 2] {
        [self.input, self.output].map(|s| usize::from(s.height) * usize::from(s.width) * usize::from(s.channels))
    }

    fn windows(&self) -> Windows {
        let channels = usize::from(self.input.channels);
        let pitch = usize::from(self.input.width) * channels;
        let [down, across] = self.descriptor.stride.map(usize::from);
        let kernel = self.descriptor.kernel.map(usize::from);
        Windows {
            channels,
            pitch,
            kernel,
            strides: [down * pitch, across * channels],
            columns: usize::from(self.output.width),
        }
    }
}

impl Layer for MaxPool2d {
    fn descriptor(&self) -> Option<layer::Layer> {
        Some(layer::Layer::MaxPool2d(self.descriptor))
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        let Forward { input, output, .. } = work;
        let ([input_len, output_len], windows) = (self.lengths(), self.windows());
        self.winners.resize(output.len(), 0);
        let outputs = output.chunks_exact_mut(output_len).zip(self.winners.chunks_exact_mut(output_len));
        for (image, (output, winners)) in input.chunks_exact(input_len).zip(outputs) {
            pool(windows, image, output, winners);
        }
    }

    fn backward(&mut self, work: Backward<'_>) {
        let Backward { output_gradient, input_gradient, .. } = work;
        let Some(input_gradient) = input_gradient else { return };
        let ([input_len, output_len], windows) = (self.lengths(), self.windows());
        input_gradient.fill(0.0);
        let outputs = output_gradient.chunks_exact(output_len).zip(self.winners.chunks_exact(output_len));
        for (image_gradient, (gradient, winners)) in input_gradient.chunks_exact_mut(input_len).zip(outputs) {
            unpool(windows, gradient, winners, image_gradient);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn pool(windows: Windows, image: &[f32], output: &mut [f32], winners: &mut [u16]) {
    let channels = windows.channels;
    let outputs = output.chunks_exact_mut(channels).zip(winners.chunks_exact_mut(channels));
    for (index, (largest, winners)) in outputs.enumerate() {
        let window = &image[windows.start(index)..];
        largest.copy_from_slice(&window[..channels]);
        winners.fill(0);
        for (number, place) in windows.places().enumerate().skip(1) {
            let values = &window[place..place + channels];
            for ((largest, winner), &value) in largest.iter_mut().zip(winners.iter_mut()).zip(values) {
                *winner = if value > *largest { number as u16 } else { *winner };
                *largest = if value > *largest { value } else { *largest };
            }
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw", "x86_64+avx2"))]
fn unpool(windows: Windows, gradient: &[f32], winners: &[u16], image_gradient: &mut [f32]) {
    let channels = windows.channels;
    let outputs = gradient.chunks_exact(channels).zip(winners.chunks_exact(channels));
    for (index, (gradient, winners)) in outputs.enumerate() {
        let window = &mut image_gradient[windows.start(index)..];
        for (number, place) in windows.places().enumerate() {
            let slopes = &mut window[place..place + channels];
            for ((slope, &above), &winner) in slopes.iter_mut().zip(gradient).zip(winners) {
                *slope += if winner == number as u16 { above } else { 0.0 };
            }
        }
    }
}
