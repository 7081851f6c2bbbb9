//! Where a convolution's values lie: tables of offsets, made once for a layer.
//!
//! The gradient for the input is itself a convolution, of the output's gradient with the kernel turned round; at strides
//! above 1 it is one convolution for each phase of the stride, with the taps of the kernel that meet this phase.

use super::sparse;
use crate::kernels::tile;
use pulp::Arch;
use thumbnet::layer::{Conv2d, DepthwiseConv2d, Layer, Padding, Shape};

/// Where a convolution's values lie: made once for a layer, shared by all threads.
#[derive(Clone, Debug)]
pub struct Geometry {
    pub(super) arch: Arch,
    pub(super) window: Window,
    pub(super) input_frame: Frame,
    pub(super) gradient_frame: Frame,
    /// The convolution itself.
    pub(super) forward: Plan,
    /// The convolutions that make the gradient for the input, wherever there is one.
    pub(super) phases: Vec<Plan>,
    /// Whether most of the output's gradient is zero, and the loops for that are faster.
    pub(super) sparse: bool,
}

/// Zeros around an image, or around its upper left part; or none.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Values from one row of the image to the next.
    image_pitch: usize,
    /// What is taken of the image: rows, and values per row.
    rows: usize,
    row_len: usize,
    /// Values from one row of the frame to the next, and in the whole frame.
    pitch: usize,
    len: usize,
    /// Where in the frame the image starts.
    start: usize,
}

/// One convolution of a frame with a matrix of weights.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// For every position, where its window starts in the frame.
    pub(super) bases: Vec<u32>,
    /// For every position, where its output channels start in the output.
    pub(super) destinations: Vec<u32>,
    /// For every place of the window, its distance from the window's start.
    pub(super) steps: Vec<u32>,
    /// One more than the largest step.
    pub(super) reach: usize,
    /// For every place of the window, where its weights start in the layer's weights.
    pub(super) weights: Vec<u32>,
    /// The distance between the weights of two output channels.
    pub(super) weight_stride: usize,
    /// Output channels.
    pub(super) channels: usize,
}

/// What one axis contributes to the plan of a phase.
struct Axis {
    /// Kernel taps that meet this phase, in the order in which the frame is read.
    taps: Vec<usize>,
    /// Input coordinates of this phase, and where their windows start in the frame.
    places: Vec<(usize, usize)>,
}

impl Frame {
    /// A frame around the upper left `height` rows and `width` columns of an `image` with zeros before and after either
    /// axis, and, for depthwise loops, behind a last position whose channels do not fill their panels.
    fn new(
        image: Shape,
        [height, width]: [usize; 2],
        [top, bottom]: [usize; 2],
        [left, right]: [usize; 2],
        depthwise: bool,
    ) -> Self {
        let [_, image_width, channels] = sizes(image);
        let pitch = (left + width + right) * channels;
        let behind = if depthwise { tile::padded(channels) - channels } else { 0 };
        let len = (top + height + bottom) * pitch + behind;
        assert!(u32::try_from(len).is_ok(), "a frame of {len} values");
        let (image_pitch, row_len) = (image_width * channels, width * channels);
        Frame { image_pitch, rows: height, row_len, pitch, len, start: top * pitch + left * channels }
    }

    /// Whether the frame lies in the image as it is.
    fn is_bare(&self) -> bool {
        let Frame { image_pitch, rows, row_len, pitch, len, .. } = *self;
        pitch == row_len && pitch == image_pitch && len == rows * pitch
    }

    /// The buffer for a framed image; its margins stay zero.
    pub(super) fn buffer(&self) -> Vec<f32> {
        vec![0.0; if self.is_bare() { 0 } else { self.len }]
    }

    /// The reverse of [`Self::place`]: takes the image out of a frame.
    pub(super) fn take(&self, buffer: &[f32], image: &mut [f32]) {
        let rows = buffer[self.start..].chunks(self.pitch).zip(image.chunks_exact_mut(self.image_pitch));
        rows.take(self.rows).for_each(|(framed, row)| row[..self.row_len].copy_from_slice(&framed[..self.row_len]));
    }

    /// `image` in its frame: in `buffer`, or, without margins, where it is.
    pub(super) fn place<'a>(&self, image: &'a [f32], buffer: &'a mut [f32]) -> &'a [f32] {
        if self.is_bare() {
            return image;
        }
        let rows = buffer[self.start..].chunks_mut(self.pitch).zip(image.chunks_exact(self.image_pitch));
        rows.take(self.rows).for_each(|(framed, row)| framed[..self.row_len].copy_from_slice(&row[..self.row_len]));
        buffer
    }
}

/// What the two kinds of convolution have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) input: Shape,
    pub(super) output: Shape,
    /// The rows and columns of the output that somebody reads.
    pub(super) read: [usize; 2],
    pub(super) kernel: [u8; 2],
    pub(super) stride: [u8; 2],
    pub(super) padding: Padding,
    pub(super) depthwise: bool,
}

impl Geometry {
    /// The geometry of a convolution (without fused pooling), depthwise or not, for images of shape `input`. The weights of
    /// one that is depthwise are `[kernel height, kernel width, channels]`.
    ///
    /// # Panics
    /// If the layer is no convolution, does not fit the input, or pools.
    pub fn new(input: Shape, layer: &Layer) -> Self {
        let (kernel, stride, padding, depthwise) = match *layer {
            Layer::Conv2d(Conv2d { kernel, stride, padding, pool, .. }) => {
                assert_eq!(pool, [1, 1], "pooling is a layer of its own in training");
                (kernel, stride, padding, false)
            }
            Layer::DepthwiseConv2d(DepthwiseConv2d { kernel, stride, padding, .. }) => (kernel, stride, padding, true),
            layer => panic!("{} is no convolution", layer.name()),
        };
        let output = layer.output(input).expect("a convolution that fits");
        let [height, width, _] = sizes(output);
        Window { input, output, read: [height, width], kernel, stride, padding, depthwise }.geometry()
    }

    /// The same where nobody reads the output but a pooling with windows of `kernel`, height and width, `stride` apart: what fills
    /// no window is left as it is, and its gradient taken to be zero. If the pooling passes on the largest value of each
    /// window, the others have no gradient either, and are left out where that is faster; the results are the same.
    pub fn pooled(self, kernel: [usize; 2], stride: [usize; 2], only_largest: bool) -> Self {
        let [height, width, _] = sizes(self.window.output);
        let read = [0, 1].map(|axis| {
            let size = [height, width][axis];
            // Windows that do not fit are refused where the pooling is made.
            size.checked_sub(kernel[axis]).map_or(size, |rest| size - rest % stride[axis].max(1))
        });
        let apart = kernel.iter().zip(&stride).all(|(kernel, stride)| kernel <= stride);
        let sparse = only_largest && apart && sparse::serves(&self.window, kernel.iter().product());
        Geometry { sparse, ..Window { read, ..self.window }.geometry() }
    }

    pub(super) fn image_len(&self) -> usize {
        sizes(self.window.input).iter().product()
    }

    pub(super) fn output_len(&self) -> usize {
        sizes(self.window.output).iter().product()
    }

    /// The number of weights, `[kernel height, kernel width, channels, filters]`.
    pub(super) fn weights_len(&self) -> usize {
        self.forward.steps.len() * self.forward.channels
    }
}

impl Window {
    fn geometry(self) -> Geometry {
        let input_frame = self.input_frame();
        let forward = self.forward(&input_frame);
        let (gradient_frame, phases) = self.backward();
        Geometry { arch: Arch::new(), window: self, input_frame, gradient_frame, forward, phases, sparse: false }
    }

    /// The frame of the input. What is cropped stays in it, and no window goes there.
    fn input_frame(&self) -> Frame {
        let margin = |padding: i8| padding.max(0) as usize;
        let Padding { top, bottom, left, right } = self.padding;
        let [height, width, _] = sizes(self.input);
        let margins = [[top, bottom], [left, right]].map(|sides| sides.map(margin));
        Frame::new(self.input, [height, width], margins[0], margins[1], self.depthwise)
    }

    /// Where the weights of a tap start: `[taps, channels, filters]`, or `[taps, channels]` of a depthwise convolution.
    fn weights(&self, ky: usize, kx: usize) -> usize {
        let [_, _, channels] = sizes(self.input);
        let [_, _, filters] = sizes(self.output);
        (ky * usize::from(self.kernel[1]) + kx) * channels * if self.depthwise { 1 } else { filters }
    }

    /// The convolution itself.
    fn forward(&self, frame: &Frame) -> Plan {
        let [_, _, channels] = sizes(self.input);
        let [_, output_width, filters] = sizes(self.output);
        let [rows, columns] = self.read;
        let [kernel_height, kernel_width] = self.kernel.map(usize::from);
        let [down, across] = self.stride.map(usize::from);
        let crop = |padding: i8| padding.min(0).unsigned_abs() as usize;
        let mut plan = Plan::new(filters, 1);
        for y in 0..rows {
            for x in 0..columns {
                let (row, column) = (y * down + crop(self.padding.top), x * across + crop(self.padding.left));
                plan.add_position(row * frame.pitch + column * channels, (y * output_width + x) * filters);
            }
        }
        for ky in 0..kernel_height {
            for kx in 0..kernel_width {
                let (step, weights) = (ky * frame.pitch + kx * channels, self.weights(ky, kx));
                for channel in 0..if self.depthwise { 1 } else { channels } {
                    plan.add_step(step + channel, weights + channel * filters);
                }
            }
        }
        plan
    }

    /// The convolutions that make the gradient for the input, and the frame of the output's gradient that they read.
    fn backward(&self) -> (Frame, Vec<Plan>) {
        let [height, width, channels] = sizes(self.input);
        let [_, _, filters] = sizes(self.output);
        let [kernel_height, kernel_width] = self.kernel.map(usize::from);
        let [down, across] = self.stride.map(usize::from);
        let (vertical, rows) = phases(height, self.read[0], kernel_height, down, self.padding.top);
        let (horizontal, columns) = phases(width, self.read[1], kernel_width, across, self.padding.left);
        let frame = Frame::new(self.output, self.read, vertical, horizontal, self.depthwise);
        let phase = |row: &Axis, column: &Axis| {
            let mut plan = Plan::new(channels, if self.depthwise { 1 } else { filters });
            for &(y, from_row) in &row.places {
                for &(x, from_column) in &column.places {
                    plan.add_position(from_row * frame.pitch + from_column * filters, (y * width + x) * channels);
                }
            }
            for (below, &ky) in row.taps.iter().enumerate() {
                for (right, &kx) in column.taps.iter().enumerate() {
                    let (step, weights) = (below * frame.pitch + right * filters, self.weights(ky, kx));
                    for filter in 0..if self.depthwise { 1 } else { filters } {
                        plan.add_step(step + filter, weights + filter);
                    }
                }
            }
            plan
        };
        let phases = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        let plans = phases.map(|(row, column)| phase(row, column)).collect();
        (frame, plans)
    }
}

pub(super) fn sizes(shape: Shape) -> [usize; 3] {
    [shape.height, shape.width, shape.channels].map(usize::from)
}

/// The phases of one axis of the input's gradient, and the zeros that its frame needs before and after the gradient.
///
/// Output `o` reads input `i` at tap `k` where `i + before = o * stride + k`. The inputs whose `i + before` leaves the same
/// rest when divided by the stride meet the same taps, at outputs that are next to each other. Inputs that no output reads
/// belong to no phase.
fn phases(input: usize, output: usize, kernel: usize, stride: usize, before: i8) -> ([usize; 2], Vec<Axis>) {
    let (before, step) = (i64::from(before), stride as i64);
    let last_output = |i: usize| (i as i64 + before).div_euclid(step);
    let most_taps = kernel.div_ceil(stride) as i64;
    let zeros_before = (most_taps - 1 - last_output(0).max(0)).max(0);
    let zeros_after = (last_output(input - 1) - (output as i64 - 1)).clamp(0, most_taps - 1);
    let axes = (0..stride).map(|phase| {
        // The last tap meets the first output.
        let taps: Vec<usize> = (phase..kernel).step_by(stride).collect::<Vec<_>>().into_iter().rev().collect();
        let first = zeros_before + 1 - taps.len().max(1) as i64;
        let is_read = |i: usize| {
            let first_output = last_output(i) + 1 - taps.len() as i64;
            first_output.max(0) <= last_output(i).min(output as i64 - 1)
        };
        let places = (0..input)
            .filter(|&i| (i as i64 + before).rem_euclid(step) == phase as i64 && is_read(i))
            .map(|i| (i, (last_output(i) + first) as usize))
            .collect();
        Axis { taps, places }
    });
    ([zeros_before as usize, zeros_after as usize], axes.collect())
}

impl Plan {
    fn new(channels: usize, weight_stride: usize) -> Self {
        Plan {
            bases: Vec::new(),
            destinations: Vec::new(),
            steps: Vec::new(),
            reach: 0,
            weights: Vec::new(),
            weight_stride,
            channels,
        }
    }

    fn add_position(&mut self, base: usize, destination: usize) {
        self.bases.push(base as u32);
        self.destinations.push(destination as u32);
    }

    fn add_step(&mut self, step: usize, weights: usize) {
        self.steps.push(step as u32);
        self.reach = self.reach.max(step + 1);
        self.weights.push(weights as u32);
    }

    /// How many values of an image it makes.
    pub(super) fn written(&self) -> usize {
        self.destinations.len() * self.channels
    }

    /// The length of the weights in panels.
    pub(super) fn packed_len(&self) -> usize {
        self.steps.len() * tile::padded(self.channels)
    }

    /// Packs the layer's `weights` into panels: for each panel, the lanes of every step. Lanes that fill up a panel stay
    /// as they are, zero.
    pub(super) fn pack(&self, weights: &[f32], mut packed: &mut [f32]) {
        for (start, lanes) in tile::panels(self.channels) {
            let (panel, rest) = packed.split_at_mut(self.steps.len() * lanes);
            packed = rest;
            let count = lanes.min(self.channels - start);
            for (row, &first) in panel.chunks_exact_mut(lanes).zip(&self.weights) {
                let from = &weights[first as usize + start * self.weight_stride..];
                if self.weight_stride == 1 {
                    row[..count].copy_from_slice(&from[..count]);
                } else {
                    let weights = from.iter().step_by(self.weight_stride);
                    row[..count].iter_mut().zip(weights).for_each(|(lane, &weight)| *lane = weight);
                }
            }
        }
    }
}
