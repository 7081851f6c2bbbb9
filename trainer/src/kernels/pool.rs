//! Max and average pooling over each channel, forward and backward, a vector of channels at a time.

use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;
use thumbnet::layer::Shape;

/// The windows of a pooling layer, without padding.
#[derive(Clone, Debug)]
pub struct Pool {
    arch: Arch,
    channels: usize,
    /// The values of one image.
    input_len: usize,
    /// Where the window of each output starts in the image.
    windows: Vec<usize>,
    /// Where, from a window's start, its values are, row after row.
    taps: Vec<usize>,
}

/// What is done with the windows of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loop {
    Max,
    Average,
}

impl Pool {
    /// Windows of `kernel`, height and width, over images of shape `input`, `stride` apart. A window as large as the
    /// image makes global pooling.
    ///
    /// # Panics
    /// If a number is 0 or the window is larger than the image.
    pub fn new(input: Shape, kernel: [usize; 2], stride: [usize; 2]) -> Self {
        let [height, width, channels] = [input.height, input.width, input.channels].map(usize::from);
        assert!(kernel.iter().chain(&stride).all(|&n| n > 0), "windows of {kernel:?}, {stride:?} apart");
        assert!(kernel[0] <= height && kernel[1] <= width, "a window of {kernel:?} in an image of {height} x {width}");
        let [rows, columns] = [0, 1].map(|axis| ([height, width][axis] - kernel[axis]) / stride[axis] + 1);
        let offset = |row: usize, column: usize| (row * width + column) * channels;
        let windows = (0..rows).flat_map(|y| (0..columns).map(move |x| offset(y * stride[0], x * stride[1])));
        let taps = (0..kernel[0]).flat_map(|y| (0..kernel[1]).map(move |x| offset(y, x)));
        let (windows, taps) = (windows.collect(), taps.collect());
        Pool { arch: Arch::new(), channels, input_len: height * width * channels, windows, taps }
    }

    /// The values of one output.
    fn output_len(&self) -> usize {
        self.windows.len() * self.channels
    }

    fn average_factor(&self) -> f32 {
        1.0 / self.taps.len() as f32
    }

    /// The largest value of each window; NaN only where the first value is.
    pub fn max(&self, input: &[f32], output: &mut [f32]) {
        self.arch.dispatch(Forward { pool: self, kind: Loop::Max, input, output });
    }

    /// The mean of each window.
    pub fn average(&self, input: &[f32], output: &mut [f32]) {
        self.arch.dispatch(Forward { pool: self, kind: Loop::Average, input, output });
    }

    /// Carries `output_gradient` to the largest value of each window, the first one if there are several.
    /// `input_gradient` is overwritten.
    pub fn max_gradient(&self, input: &[f32], output: &[f32], output_gradient: &[f32], input_gradient: &mut [f32]) {
        input_gradient.fill(0.0);
        let gradients = Gradients { input, output, output_gradient, input_gradient };
        self.arch.dispatch(Backward { pool: self, kind: Loop::Max, gradients });
    }

    /// Shares `output_gradient` among the values of each window. `input_gradient` is overwritten.
    pub fn average_gradient(&self, output_gradient: &[f32], input_gradient: &mut [f32]) {
        input_gradient.fill(0.0);
        let gradients = Gradients { input: &[], output: &[], output_gradient, input_gradient };
        self.arch.dispatch(Backward { pool: self, kind: Loop::Average, gradients });
    }
}

struct Forward<'a> {
    pool: &'a Pool,
    kind: Loop,
    input: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { pool, kind, input, output } = self;
        let factor = simd.splat_f32s(pool.average_factor());
        let (images, outputs) = (input.chunks_exact(pool.input_len), output.chunks_exact_mut(pool.output_len()));
        for (image, output) in images.zip(outputs) {
            for (&start, output) in pool.windows.iter().zip(output.chunks_exact_mut(pool.channels)) {
                for channels in vectors::<S>(pool.channels) {
                    let window = &image[start..];
                    let mut value = load(simd, &window[channels.clone()]);
                    // Plain loops: what the closures of an iterator do would not be compiled for the vectors.
                    for &tap in &pool.taps[1..] {
                        let next = load(simd, &window[tap..][channels.clone()]);
                        value = match kind {
                            Loop::Max => simd.select_f32s(simd.greater_than_f32s(next, value), next, value),
                            Loop::Average => simd.add_f32s(value, next),
                        };
                    }
                    if kind == Loop::Average {
                        value = simd.mul_f32s(value, factor);
                    }
                    store(simd, value, &mut output[channels]);
                }
            }
        }
    }
}

struct Backward<'a> {
    pool: &'a Pool,
    kind: Loop,
    gradients: Gradients<'a>,
}

struct Gradients<'a> {
    /// As the forward pass had it; empty where it is not asked for.
    input: &'a [f32],
    output: &'a [f32],
    output_gradient: &'a [f32],
    input_gradient: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward { pool, kind, gradients: Gradients { input, output, output_gradient, input_gradient } } = self;
        let (input_len, output_len) = (pool.input_len, pool.output_len());
        let factor = simd.splat_f32s(pool.average_factor());
        let images = input_gradient.chunks_exact_mut(input_len).zip(output_gradient.chunks_exact(output_len));
        for (index, (image_gradient, gradient)) in images.enumerate() {
            for (position, &start) in pool.windows.iter().enumerate() {
                for channels in vectors::<S>(pool.channels) {
                    let place = position * pool.channels + channels.start..position * pool.channels + channels.end;
                    let slope = load(simd, &gradient[place.clone()]);
                    match kind {
                        Loop::Average => {
                            let share = simd.mul_f32s(slope, factor);
                            for &tap in &pool.taps {
                                add(simd, share, &mut image_gradient[start + tap..][channels.clone()]);
                            }
                        }
                        Loop::Max => {
                            let image = &input[index * input_len..][start..];
                            let largest = load(simd, &output[index * output_len..][place]);
                            // What no value of the window has taken yet.
                            let (mut left, zero) = (slope, simd.splat_f32s(0.0));
                            for &tap in &pool.taps {
                                let takes = simd.equal_f32s(load(simd, &image[tap..][channels.clone()]), largest);
                                let taken = simd.select_f32s(takes, left, zero);
                                left = simd.select_f32s(takes, zero, left);
                                add(simd, taken, &mut image_gradient[start + tap..][channels.clone()]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The channels, a vector at a time.
#[inline(always)]
fn vectors<S: Simd>(channels: usize) -> impl Iterator<Item = Range<usize>> {
    (0..channels).step_by(S::F32_LANES).map(move |start| start..channels.min(start + S::F32_LANES))
}

#[inline(always)]
fn load<S: Simd>(simd: S, values: &[f32]) -> S::f32s {
    match S::as_simd_f32s(values).0.first() {
        Some(&vector) => vector,
        None => simd.partial_load_f32s(values),
    }
}

#[inline(always)]
fn store<S: Simd>(simd: S, vector: S::f32s, values: &mut [f32]) {
    match S::as_mut_simd_f32s(values).0.first_mut() {
        Some(whole) => *whole = vector,
        None => simd.partial_store_f32s(values, vector),
    }
}

#[inline(always)]
fn add<S: Simd>(simd: S, vector: S::f32s, values: &mut [f32]) {
    let sum = simd.add_f32s(load(simd, values), vector);
    store(simd, sum, values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::RandomState;

    #[test]
    fn windows_of_every_kind() {
        let mut rng = RandomState::new(5);
        for channels in [1, 3, 8, 10, 16, 20] {
            for (kernel, stride) in
                [([2, 2], [2, 2]), ([3, 2], [1, 2]), ([2, 3], [3, 4]), ([5, 7], [1, 1]), ([1, 1], [2, 1])]
            {
                check(Shape::new(5, 7, channels), kernel, stride, &mut rng);
            }
        }
    }

    fn check(shape: Shape, kernel: [usize; 2], stride: [usize; 2], rng: &mut RandomState) {
        const ROWS: usize = 3;
        let pool = Pool::new(shape, kernel, stride);
        let [input_len, output_len] = [pool.input_len, pool.output_len()].map(|len| len * ROWS);
        // Few different values, so that there are several largest ones.
        let input: Vec<f32> = (0..input_len).map(|_| (4.0 * rng.random_sample()).floor() as f32 - 2.0).collect();
        let gradient: Vec<f32> = (0..output_len).map(|_| rng.random_sample() as f32).collect();
        let [height, width, channels] = [shape.height, shape.width, shape.channels].map(usize::from);
        let rows = (height - kernel[0]) / stride[0] + 1;
        let columns = (width - kernel[1]) / stride[1] + 1;
        let (mut max, mut average) = (vec![0.0f32; output_len], vec![0.0f32; output_len]);
        let (mut max_gradient, mut average_gradient) = (vec![0.0f32; input_len], vec![0.0f32; input_len]);
        for place in 0..output_len {
            let (channel, position) = (place % channels, place / channels);
            let (x, y, image) = (position % columns, position / columns % rows, position / columns / rows);
            let taps: Vec<usize> = (0..kernel[0] * kernel[1])
                .map(|tap| (y * stride[0] + tap / kernel[1], x * stride[1] + tap % kernel[1]))
                .map(|(row, column)| ((image * height + row) * width + column) * channels + channel)
                .collect();
            max[place] = taps.iter().map(|&at| input[at]).fold(f32::NEG_INFINITY, f32::max);
            let winner = taps.iter().find(|&&at| input[at] == max[place]).expect("one of them");
            max_gradient[*winner] += gradient[place];
            average[place] = taps.iter().map(|&at| input[at]).sum::<f32>() / taps.len() as f32;
            taps.iter().for_each(|&at| average_gradient[at] += gradient[place] / taps.len() as f32);
        }
        let close = |found: &[f32], expected: &[f32], name: &str| {
            let same = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(same, "{name} of {shape:?}, windows of {kernel:?}, {stride:?} apart");
        };
        let (mut found, mut found_gradient) = (vec![f32::NAN; output_len], vec![f32::NAN; input_len]);
        pool.average(&input, &mut found);
        close(&found, &average, "average");
        pool.average_gradient(&gradient, &mut found_gradient);
        close(&found_gradient, &average_gradient, "average's gradient");
        pool.max(&input, &mut found);
        close(&found, &max, "maximum");
        pool.max_gradient(&input, &found, &gradient, &mut found_gradient);
        close(&found_gradient, &max_gradient, "maximum's gradient");
    }

    #[test]
    #[should_panic(expected = "a window of [6, 1] in an image of 5 x 7")]
    fn windows_larger_than_the_image_are_refused() {
        Pool::new(Shape::new(5, 7, 1), [6, 1], [1, 1]);
    }
}
