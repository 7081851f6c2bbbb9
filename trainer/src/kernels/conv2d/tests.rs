//! Against plain sums in double precision, over many geometries.

use super::geometry::{Window, sizes};
use super::*;
use crate::random::RandomState;
use pulp::Arch;
use thumbnet::layer::{Activation, Conv2d, DepthwiseConv2d, Layer, Padding, Shape, WeightType};

/// A convolution whose sums are written out.
struct Case {
    geometry: Geometry,
    weights: Vec<f32>,
    bias: Vec<f32>,
    images: Vec<f32>,
    /// The gradient for the output.
    gradient: Vec<f32>,
}

const ROWS: usize = 3;

fn numbers(count: usize, rng: &mut RandomState) -> Vec<f32> {
    (0..count).map(|_| rng.random_sample() as f32 - 0.5).collect()
}

impl Case {
    fn new(input: [u16; 3], filters: u16, kernel: [u8; 2], stride: [u8; 2], padding: [i8; 4]) -> Self {
        let [height, width, channels] = input;
        let [top, bottom, left, right] = padding;
        let descriptor = Conv2d {
            filters,
            kernel,
            stride,
            padding: Padding { top, bottom, left, right },
            pool: [1, 1],
            activation: Activation::None,
            weights: WeightType::F32,
        };
        let weights = usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(channels) * usize::from(filters);
        Self::with(Shape::new(height, width, channels), Layer::Conv2d(descriptor), weights)
    }

    fn depthwise([height, width, channels]: [u16; 3], kernel: [u8; 2], stride: [u8; 2], padding: [i8; 4]) -> Self {
        let [top, bottom, left, right] = padding;
        let descriptor = DepthwiseConv2d {
            kernel,
            stride,
            padding: Padding { top, bottom, left, right },
            activation: Activation::None,
            weights: WeightType::F32,
        };
        let weights = usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(channels);
        Self::with(Shape::new(height, width, channels), Layer::DepthwiseConv2d(descriptor), weights)
    }

    fn with(input: Shape, layer: Layer, weights: usize) -> Self {
        let geometry = Geometry::new(input, &layer);
        let output = geometry.window.output;
        let mut rng = RandomState::new(7);
        Case {
            geometry,
            weights: numbers(weights, &mut rng),
            bias: numbers(usize::from(output.channels), &mut rng),
            images: numbers(ROWS * sizes(input).iter().product::<usize>(), &mut rng),
            gradient: numbers(ROWS * sizes(output).iter().product::<usize>(), &mut rng),
        }
    }

    /// The same in front of a pooling.
    fn pooled(mut self, kernel: [usize; 2], stride: [usize; 2], only_largest: bool) -> Self {
        self.geometry = self.geometry.pooled(kernel, stride, only_largest);
        let [_, width, filters] = sizes(self.geometry.window.output);
        for index in 0..self.gradient.len() {
            // The "largest" is here or there in its window, or has no gradient because of a ReLU.
            let (position, filter) = (index / filters, index % filters);
            let place = (position / width % kernel[0], position % width % kernel[1]);
            let largest = (filter % kernel[0], filter / kernel[0] % (kernel[1] + 1));
            if !self.is_read(index) || (only_largest && place != largest) {
                self.gradient[index] = 0.0;
            }
        }
        self
    }

    /// Whether somebody reads the output value `index`.
    fn is_read(&self, index: usize) -> bool {
        let [height, width, channels] = sizes(self.geometry.window.output);
        let (position, read) = (index / channels, self.geometry.window.read);
        position / width % height < read[0] && position % width < read[1]
    }

    /// Calls `visit(image value, weight, output value)` with the indices of every product of the convolution.
    fn for_each_product(&self, mut visit: impl FnMut(usize, usize, usize)) {
        let Window { input, output, kernel, stride, padding, depthwise, .. } = self.geometry.window;
        let [height, width, channels] = sizes(input);
        let [output_height, output_width, filters] = sizes(output);
        let [kernel_height, kernel_width] = kernel.map(usize::from);
        let [down, across] = stride.map(usize::from);
        let source = |place: usize, tap: usize, before: i8, size: usize| {
            let coordinate = (place + tap) as i64 - i64::from(before);
            usize::try_from(coordinate).ok().filter(|&at| at < size)
        };
        for (row, y, x) in product3(ROWS, output_height, output_width) {
            for (ky, kx, channel) in product3(kernel_height, kernel_width, channels) {
                let from_row = source(y * down, ky, padding.top, height);
                let from_column = source(x * across, kx, padding.left, width);
                let (Some(from_row), Some(from_column)) = (from_row, from_column) else { continue };
                let image = ((row * height + from_row) * width + from_column) * channels + channel;
                let weight = (ky * kernel_width + kx) * channels + channel;
                let position = (row * output_height + y) * output_width + x;
                if depthwise {
                    visit(image, weight, position * channels + channel);
                    continue;
                }
                for filter in 0..filters {
                    visit(image, weight * filters + filter, position * filters + filter);
                }
            }
        }
    }

    /// The gradients for the inputs and the weights.
    fn gradients(&self, geometry: &Geometry, workspace: &mut Workspace) -> [Vec<f32>; 2] {
        let mut prepared = Prepared::new(geometry, true);
        // Nothing of an earlier call may be left.
        prepared.prepare(geometry, &vec![f32::NAN; self.weights.len()]);
        prepared.prepare(geometry, &self.weights);
        let (mut inputs, mut weights) = (vec![f32::NAN; self.images.len()], vec![0.0; self.weights.len()]);
        let wanted = Wanted { weights: Some(&mut weights), input: Some(&mut inputs) };
        gradients(geometry, &prepared, workspace, &self.images, &self.gradient, wanted);
        [inputs, weights]
    }

    fn check(&self) {
        let (name, geometry) = (format!("{:?}", self.geometry.window), &self.geometry);
        let mut prepared = Prepared::new(geometry, true);
        let mut workspace = Workspace::new(geometry);
        // Nothing of an earlier call may be left.
        prepared.prepare(geometry, &vec![f32::NAN; self.weights.len()]);
        prepared.prepare(geometry, &self.weights);

        let mut outputs: Vec<f64> = self.bias.iter().cycle().take(self.gradient.len()).map(|&b| f64::from(b)).collect();
        let mut input_gradients = vec![0.0; self.images.len()];
        let mut weight_gradients = vec![0.0; self.weights.len()];
        self.for_each_product(|image, weight, output| {
            let product = |a: &[f32], at_a: usize, b: &[f32], at_b: usize| f64::from(a[at_a]) * f64::from(b[at_b]);
            outputs[output] += product(&self.images, image, &self.weights, weight);
            input_gradients[image] += product(&self.gradient, output, &self.weights, weight);
            weight_gradients[weight] += product(&self.images, image, &self.gradient, output);
        });

        // What nobody reads is left as it was.
        let unread: Vec<usize> = (0..outputs.len()).filter(|&index| !self.is_read(index)).collect();
        unread.iter().for_each(|&index| outputs[index] = 7.0);

        // With every instruction set; twice, as margins and padding in the workspace must survive a call.
        for arch in instruction_sets().into_iter().flat_map(|arch| [arch; 2]) {
            let geometry = &Geometry { arch, ..self.geometry.clone() };
            let mut found = vec![f32::NAN; self.gradient.len()];
            unread.iter().for_each(|&index| found[index] = 7.0);
            forward(geometry, &prepared, &mut workspace, &self.bias, &self.images, &mut found);
            assert_close(&found, &outputs, &format!("output of {name}"));
            let [inputs, weights] = self.gradients(geometry, &mut workspace);
            assert_close(&inputs, &input_gradients, &format!("input gradient of {name}"));
            assert_close(&weights, &weight_gradients, &format!("weight gradient of {name}"));
        }
    }
}

/// All that this processor has.
fn instruction_sets() -> Vec<Arch> {
    let mut sets = vec![Arch::new(), Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    sets.extend(pulp::x86::V3::try_new().map(Arch::V3));
    sets
}

fn product3(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

fn assert_close(found: &[f32], expected: &[f64], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error < 2e-5 * (1.0 + expected.abs()), "{name}: value {index} is {found}, expected {expected}");
    }
}

#[test]
fn channels_and_filters_of_every_kind() {
    for channels in [1, 2, 3, 8, 10, 16, 17, 24] {
        for filters in [1, 3, 8, 10, 12, 16, 20, 24, 32, 33] {
            Case::new([6, 5, channels], filters, [3, 3], [1, 1], [0; 4]).check();
        }
    }
}

#[test]
fn kernels_strides_and_padding() {
    for kernel in [[1, 1], [2, 3], [3, 3], [5, 5], [1, 4], [4, 1]] {
        for stride in [[1, 1], [2, 2], [1, 2], [3, 2], [5, 4]] {
            for padding in [[0; 4], [1; 4], [2, 1, 0, 3], [-1, 0, 1, -2], [-2, -1, -1, 0], [4, 4, 5, 5]] {
                Case::new([9, 10, 3], 4, kernel, stride, padding).check();
            }
        }
    }
}

#[test]
fn depthwise_convolutions() {
    for channels in [1, 3, 8, 10, 16, 24, 33] {
        for (kernel, stride) in
            [([3, 3], [1, 1]), ([1, 5], [1, 2]), ([5, 2], [3, 1]), ([2, 2], [2, 2]), ([1, 1], [2, 3])]
        {
            for padding in [[0; 4], [1; 4], [2, 1, 0, 3], [-1, 0, 1, -2]] {
                Case::depthwise([7, 8, channels], kernel, stride, padding).check();
            }
        }
    }
    Case::depthwise([1, 1, 5], [3, 3], [1, 1], [1; 4]).check();
}

#[test]
fn outputs_that_nobody_reads() {
    for (stride, pool) in [([1, 1], [2, 2]), ([1, 1], [5, 3]), ([2, 2], [2, 4]), ([4, 3], [1, 3]), ([1, 2], [4, 2])] {
        for padding in [[0; 4], [1; 4], [2, 1, 0, 3], [-1, 0, 1, -2]] {
            for filters in [10, 16] {
                Case::new([11, 12, 3], filters, [3, 3], stride, padding).pooled(pool, pool, false).check();
            }
            Case::depthwise([11, 12, 10], [3, 3], stride, padding).pooled(pool, [pool[0], 1], false).check();
        }
    }
}

/// The loops for gradients that are mostly zero give the same bits as those that multiply the zeros.
#[test]
fn sparse_gradients() {
    for (channels, kernel) in [(16, [3, 3]), (8, [2, 4]), (32, [1, 1]), (1, [16, 16]), (48, [4, 3]), (16, [1, 2])] {
        for (stride, pool) in [([1, 1], [2, 2]), ([2, 1], [4, 2]), ([1, 3], [1, 4])] {
            for padding in [[0; 4], [1; 4], [2, 1, 0, 3], [-1, 0, 1, -2]] {
                for filters in [5, 32] {
                    let case = Case::new([21, 23, channels], filters, kernel, stride, padding).pooled(pool, pool, true);
                    assert!(case.geometry.sparse);
                    case.check();
                    let dense = Geometry { sparse: false, ..case.geometry.clone() };
                    let [found, expected] = [&case.geometry, &dense].map(|geometry| {
                        let gradients = case.gradients(geometry, &mut Workspace::new(geometry));
                        gradients.map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                    });
                    assert!(found == expected, "{:?}", case.geometry.window);
                }
            }
        }
    }
    let overlapping = Case::new([9, 9, 16], 8, [3, 3], [1, 1], [0; 4]).pooled([2, 2], [1, 1], true);
    assert!(!overlapping.geometry.sparse);
}

#[test]
fn windows_as_large_as_the_image_and_images_of_one_row() {
    Case::new([5, 4, 2], 9, [5, 4], [1, 1], [0; 4]).check();
    Case::new([1, 1, 5], 3, [3, 3], [1, 1], [1; 4]).check();
    Case::new([1, 40, 3], 10, [1, 7], [1, 2], [0, 0, 3, 3]).check();
    Case::new([13, 1, 6], 10, [3, 1], [2, 1], [1, 1, 0, 0]).check();
    Case::new([30, 30, 1], 5, [3, 3], [1, 1], [-10, -11, 2, -12]).check();
}

/// The gradients against the definition: how much `sum(gradient * output)` changes with a weight or an input.
#[test]
fn gradients_are_the_slopes_of_the_output() {
    slopes(&Case::new([7, 6, 3], 10, [3, 2], [2, 1], [1, 0, -1, 1]));
    slopes(&Case::depthwise([7, 6, 10], [3, 2], [2, 1], [1, 0, -1, 1]));
}

fn slopes(case: &Case) {
    let geometry = &case.geometry;
    let mut workspace = Workspace::new(geometry);
    let mut loss = |weights: &[f32], images: &[f32]| {
        let mut prepared = Prepared::new(geometry, false);
        prepared.prepare(geometry, weights);
        let mut output = vec![0.0; case.gradient.len()];
        forward(geometry, &prepared, &mut workspace, &[], images, &mut output);
        output.iter().zip(&case.gradient).map(|(&y, &g)| f64::from(y) * f64::from(g)).sum::<f64>()
    };
    // The output is linear in either: the step may be large.
    let slope = |values: &[f32], index: usize, loss: &mut dyn FnMut(&[f32]) -> f64| {
        let mut moved = values.to_vec();
        moved[index] = values[index] + 0.5;
        let above = loss(&moved);
        moved[index] = values[index] - 0.5;
        above - loss(&moved)
    };
    let by_weight: Vec<f64> =
        (0..case.weights.len()).map(|i| slope(&case.weights, i, &mut |weights| loss(weights, &case.images))).collect();
    let by_input: Vec<f64> =
        (0..case.images.len()).map(|i| slope(&case.images, i, &mut |images| loss(&case.weights, images))).collect();
    let [inputs, weights] = case.gradients(geometry, &mut workspace);
    assert_close(&weights, &by_weight, "weight gradient");
    assert_close(&inputs, &by_input, "input gradient");
}

#[test]
#[should_panic(expected = "prepared for the input's gradient")]
fn an_input_gradient_must_be_prepared() {
    let case = Case::new([4, 4, 1], 2, [3, 3], [1, 1], [0; 4]);
    let prepared = Prepared::new(&case.geometry, false);
    let mut found = vec![0.0; case.images.len()];
    let wanted = Wanted { weights: None, input: Some(&mut found) };
    let mut workspace = Workspace::new(&case.geometry);
    gradients(&case.geometry, &prepared, &mut workspace, &case.images, &case.gradient, wanted);
}
