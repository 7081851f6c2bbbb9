//! The loops of training: convolutions beside matrix products of their windows (im2col), and what surrounds them.
//!
//! Least times of many short calls, taken in turns, so that ratios hold on a machine that other programs share. Without
//! `--bench` (as `cargo test --benches` starts it) every loop runs once.

// The matrix products that convolutions are compared with.
#[path = "../src/gemm.rs"]
#[allow(dead_code, unused_imports, reason = "its tests have no harness here")]
mod gemm;

use gemm::Matrix;
use std::hint::black_box;
use std::time::{Duration, Instant};
use thumbnet::layer::{Activation, Conv2d, DepthwiseConv2d, Layer, Padding, Shape, WeightType};
use thumbnet_trainer::kernels::batch_norm::{Factors, Sums};
use thumbnet_trainer::kernels::channels;
use thumbnet_trainer::kernels::conv2d::{self, Geometry, Prepared, Wanted, Workspace};
use thumbnet_trainer::kernels::optimize::{self, Adam, Penalty};
use thumbnet_trainer::kernels::pool::Pool;

/// Images per call.
const ROWS: usize = 8;

/// Input, filters (0: depthwise), and the sides of kernel, stride and padding.
const CONVOLUTIONS: [([u16; 3], u16, u8, u8, i8); 17] = [
    ([28, 28, 1], 8, 3, 1, 0),
    ([28, 28, 1], 16, 3, 1, 0),
    ([28, 28, 1], 10, 5, 1, 2),
    ([28, 28, 1], 16, 3, 2, 1),
    ([13, 13, 8], 8, 3, 1, 0),
    ([13, 13, 8], 16, 3, 1, 0),
    ([13, 13, 16], 32, 3, 1, 0),
    ([14, 14, 10], 12, 3, 1, 1),
    ([28, 28, 16], 16, 3, 1, 1),
    ([28, 28, 16], 32, 3, 2, 1),
    ([14, 14, 32], 64, 3, 1, 1),
    ([14, 14, 32], 64, 1, 1, 0),
    ([7, 7, 64], 64, 3, 1, 1),
    ([14, 14, 10], 0, 3, 1, 1),
    ([14, 14, 32], 0, 3, 1, 1),
    ([14, 14, 32], 0, 3, 2, 1),
    ([14, 14, 32], 0, 5, 1, 2),
];

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// The least seconds of one call of each contestant.
fn least_times(budget: Duration, contestants: &mut [&mut dyn FnMut()]) -> Vec<f64> {
    let mut least = vec![f64::MAX; contestants.len()];
    let start = Instant::now();
    loop {
        for (least, contestant) in least.iter_mut().zip(contestants.iter_mut()) {
            let start = Instant::now();
            contestant();
            *least = least.min(start.elapsed().as_secs_f64());
        }
        if start.elapsed() >= budget {
            return least;
        }
    }
}

/// A convolution by way of its windows, `[positions, window]`: without padding that is negative.
struct Im2col {
    input: [usize; 3],
    output: [usize; 3],
    kernel: usize,
    stride: usize,
    padding: usize,
    windows: Vec<f32>,
}

impl Im2col {
    fn window_len(&self) -> usize {
        self.kernel * self.kernel * self.input[2]
    }

    fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Calls `visit` for every row of every window that meets the image: where it starts in the windows and in the image,
    /// and its length.
    fn for_each_run(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let [height, width, channels] = self.input;
        let mut window = 0;
        for y in 0..self.output[0] {
            for x in 0..self.output[1] {
                let (top, left) = (y * self.stride, x * self.stride);
                // The columns of the padded image that are its own.
                let (first, last) = (left.max(self.padding), (left + self.kernel).min(width + self.padding));
                for row in top..top + self.kernel {
                    if (self.padding..height + self.padding).contains(&row) && first < last {
                        let from = ((row - self.padding) * width + first - self.padding) * channels;
                        visit(window + (first - left) * channels, from, (last - first) * channels);
                    }
                    window += self.kernel * channels;
                }
            }
        }
    }

    fn spread(&mut self, image: &[f32]) {
        let mut windows = std::mem::take(&mut self.windows);
        self.for_each_run(|to, from, len| windows[to..to + len].copy_from_slice(&image[from..from + len]));
        self.windows = windows;
    }

    fn forward(&mut self, weights: &[f32], input: &[f32], output: &mut [f32]) {
        let (positions, window, filters) = (self.positions(), self.window_len(), self.output[2]);
        let images = input.chunks_exact(self.input.iter().product());
        for (image, output) in images.zip(output.chunks_exact_mut(positions * filters)) {
            self.spread(image);
            let windows = Matrix::new(&self.windows, positions, window);
            gemm::multiply(windows, Matrix::new(weights, window, filters), output, false);
        }
    }

    fn weight_gradient(&mut self, input: &[f32], gradient: &[f32], sums: &mut [f32]) {
        let (positions, window, filters) = (self.positions(), self.window_len(), self.output[2]);
        let images = input.chunks_exact(self.input.iter().product());
        for (image, gradient) in images.zip(gradient.chunks_exact(positions * filters)) {
            self.spread(image);
            let windows = Matrix::new(&self.windows, positions, window).transposed();
            gemm::multiply(windows, Matrix::new(gradient, positions, filters), sums, true);
        }
    }

    fn input_gradient(&mut self, weights: &[f32], gradient: &[f32], input_gradient: &mut [f32]) {
        let (positions, window, filters) = (self.positions(), self.window_len(), self.output[2]);
        let images = input_gradient.chunks_exact_mut(self.input.iter().product());
        for (image, gradient) in images.zip(gradient.chunks_exact(positions * filters)) {
            let transposed = Matrix::new(weights, window, filters).transposed();
            gemm::multiply(Matrix::new(gradient, positions, filters), transposed, &mut self.windows, false);
            image.fill(0.0);
            self.for_each_run(|from, to, len| {
                let run = &self.windows[from..from + len];
                image[to..to + len].iter_mut().zip(run).for_each(|(sum, &value)| *sum += value);
            });
        }
    }
}

fn convolution(
    [height, width, channels]: [u16; 3],
    filters: u16,
    kernel: u8,
    stride: u8,
    padding: i8,
    budget: Duration,
) {
    let input = Shape::new(height, width, channels);
    let sides = Padding { top: padding, bottom: padding, left: padding, right: padding };
    let (activation, weights) = (Activation::None, WeightType::F32);
    let ([kernels, strides], depthwise) = ([[kernel; 2], [stride; 2]], filters == 0);
    let layer = if depthwise {
        let descriptor = DepthwiseConv2d { kernel: kernels, stride: strides, padding: sides, activation, weights };
        Layer::DepthwiseConv2d(descriptor)
    } else {
        let (kernel, stride, padding) = (kernels, strides, sides);
        let descriptor = Conv2d { filters, kernel, stride, padding, pool: [1, 1], activation, weights };
        Layer::Conv2d(descriptor)
    };
    let (geometry, output) = (Geometry::new(input, &layer), layer.output(input).expect("a convolution that fits"));
    let sizes = |shape: Shape| [shape.height, shape.width, shape.channels].map(usize::from);
    let len = |shape: Shape| sizes(shape).iter().product::<usize>();
    let window = usize::from(kernel) * usize::from(kernel);
    let weights = numbers(window * usize::from(channels) * usize::from(filters.max(1)));

    let images = numbers(ROWS * len(input));
    let gradient = numbers(ROWS * len(output));
    let mut prepared = Prepared::new(&geometry, true);
    let mut workspace = [(); 3].map(|()| Workspace::new(&geometry));
    let [for_forward, for_input, for_weights] = &mut workspace;
    let (mut outputs, mut input_gradient) = (gradient.clone(), images.clone());
    let mut weight_gradient = weights.clone();
    prepared.prepare(&geometry, &weights);
    let mut ours = [
        &mut (|| conv2d::forward(&geometry, &prepared, for_forward, &[], black_box(&images), black_box(&mut outputs)))
            as &mut dyn FnMut(),
        &mut || {
            let wanted = Wanted { weights: None, input: Some(black_box(&mut input_gradient)) };
            conv2d::gradients(&geometry, &prepared, for_input, &images, black_box(&gradient), wanted);
        },
        &mut || {
            let wanted = Wanted { weights: Some(black_box(&mut weight_gradient)), input: None };
            conv2d::gradients(&geometry, &prepared, for_weights, black_box(&images), black_box(&gradient), wanted);
        },
    ];
    let mut im2col = [(); 3].map(|()| Im2col {
        input: sizes(input),
        output: sizes(output),
        kernel: kernel.into(),
        stride: stride.into(),
        padding: padding as usize,
        windows: vec![0.0; len(output) / usize::from(output.channels) * window * usize::from(channels)],
    });
    let [first, second, third] = &mut im2col;
    let (mut their_outputs, mut their_input_gradient) = (gradient.clone(), images.clone());
    let mut their_weight_gradient = weights.clone();
    let mut theirs = [
        &mut (|| first.forward(&weights, black_box(&images), black_box(&mut their_outputs))) as &mut dyn FnMut(),
        &mut || second.input_gradient(&weights, black_box(&gradient), black_box(&mut their_input_gradient)),
        &mut || third.weight_gradient(black_box(&images), black_box(&gradient), black_box(&mut their_weight_gradient)),
    ];
    let operations = 2.0 * ROWS as f64 * layer.macs(input) as f64;
    let kind = if depthwise { "depthwise".to_owned() } else { format!("to {filters}") };
    print!("{:28}", format!("{height}x{width}x{channels} {kind}, {kernel}x{kernel}/{stride}"));
    for (ours, theirs) in ours.iter_mut().zip(&mut theirs) {
        if depthwise {
            let times = least_times(budget, &mut [ours]);
            print!(" {:8.1}         ", operations / times[0] / 1e9);
        } else {
            let times = least_times(budget, &mut [ours, theirs]);
            print!(" {:8.1} {:8.1}", operations / times[0] / 1e9, operations / times[1] / 1e9);
        }
    }
    let mut prepare = || prepared.prepare(&geometry, black_box(&weights));
    println!(" {:9.1}", least_times(budget, &mut [&mut prepare])[0] * 1e6);
}

/// Loops whose time goes by the number of values.
fn elementwise(budget: Duration) {
    println!("\n{:44} ns per 1000 values", "loop");
    let report = |name: &str, values: usize, contestant: &mut dyn FnMut()| {
        println!("{name:44} {:9.1}", least_times(budget, &mut [contestant])[0] * 1e9 / values as f64 * 1e3);
    };
    for count in [8, 10, 16, 32] {
        let input = Shape::new(26, 26, count);
        let (count, images) = (usize::from(count), numbers(ROWS * 26 * 26 * usize::from(count)));
        let (pool, values) = (Pool::new(input, [2, 2], [2, 2]), images.len());
        let mut output = vec![0.0; values / 4];
        let (mut gradient, mut sums) = (images.clone(), vec![0.0; count]);
        report(&format!("max pool 2x2, {count} channels"), values, &mut || pool.max(black_box(&images), &mut output));
        let slopes = numbers(output.len());
        report(&format!("its gradient, {count} channels"), values, &mut || {
            pool.max_gradient(black_box(&images), &output, &slopes, &mut gradient);
        });
        report(&format!("average pool 2x2, {count} channels"), values, &mut || {
            pool.average(black_box(&images), &mut output)
        });
        report(&format!("ReLU and bias gradient, {count} channels"), values, &mut || {
            channels::relu_gradient(black_box(&images), &mut gradient, &mut sums);
        });
        let (mut statistics, mut factors) = (Sums::new(count), Factors::new(count));
        report(&format!("batch norm statistics, {count} channels"), values, &mut || {
            statistics.add_inputs(black_box(&images));
        });
        factors.normalize(|channel| statistics.moments(channel), &vec![1.0; count], &vec![0.0; count], 1e-3);
        report(&format!("batch norm, {count} channels"), values, &mut || {
            factors.apply(black_box(&images), &mut gradient)
        });
    }
    let (mut weights, mut gradient) = (numbers(20_000), numbers(20_000));
    let [mut first, mut second] = [(); 2].map(|()| vec![0.0; 20_000]);
    let step = Adam::new(1, 1e-3, [0.9, 0.999], 1e-7);
    report("Adam", 20_000, &mut || {
        optimize::adam(step, Penalty::none(0.1), &mut weights, &mut gradient, &mut first, &mut second);
    });
}

fn main() {
    let budget = Duration::from_millis(if std::env::args().any(|argument| argument == "--bench") { 150 } else { 0 });
    println!("GFLOP/s, {ROWS} images a call; im2col beside it; preparing the weights in µs\n");
    println!(
        "{:28} {:>17} {:>17} {:>17} {:>9}",
        "convolution", "forward", "input gradient", "weight gradient", "prepare"
    );
    for (input, filters, kernel, stride, padding) in CONVOLUTIONS {
        convolution(input, filters, kernel, stride, padding, budget);
    }
    elementwise(budget);
}
