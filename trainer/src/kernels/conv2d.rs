//! The sums of a 2-D convolution, depthwise or not, and their gradients, straight from the images.
//!
//! All three are the sums of [`super::tile`] over tables of offsets, which [`Geometry`] makes once: any kernel, stride
//! and padding gives the same loops. Where there is padding, an image is first copied into a frame of zeros.
//!
//! The gradient for the input is itself a convolution, of the output's gradient with the kernel turned round; at strides
//! above 1 it is one convolution for each phase of the stride, with the taps of the kernel that meet this phase.
//!
//! Outputs that nobody reads, at the edge that a pooling leaves over, are not computed, and neither is what only they
//! contribute to. And where a pooling leaves most of the output's gradient zero, [`sparse`] adds up only what is not.

mod sparse;

use super::sparse::SparseMatrix;
use super::tile::{self, PanelLoops, for_rows};
use pulp::{Arch, Simd};
use std::ops::Range;
use thumbnet::layer::{Conv2d, DepthwiseConv2d, Layer, Padding, Shape};

/// Where a convolution's values lie: made once for a layer, shared by all threads.
#[derive(Clone, Debug)]
pub struct Geometry {
    arch: Arch,
    window: Window,
    input_frame: Frame,
    gradient_frame: Frame,
    /// The convolution itself.
    forward: Plan,
    /// The convolutions that make the gradient for the input, wherever there is one.
    phases: Vec<Plan>,
    /// Whether most of the output's gradient is zero, and the loops for that are faster.
    sparse: bool,
}

/// Zeros around an image, or around its upper left part; or none.
#[derive(Clone, Debug)]
struct Frame {
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
struct Plan {
    /// For every position, where its window starts in the frame.
    bases: Vec<u32>,
    /// For every position, where its output channels start in the output.
    destinations: Vec<u32>,
    /// For every place of the window, its distance from the window's start.
    steps: Vec<u32>,
    /// One more than the largest step.
    reach: usize,
    /// For every place of the window, where its weights start in the layer's weights.
    weights: Vec<u32>,
    /// The distance between the weights of two output channels.
    weight_stride: usize,
    /// Output channels.
    channels: usize,
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
    fn buffer(&self) -> Vec<f32> {
        vec![0.0; if self.is_bare() { 0 } else { self.len }]
    }

    /// The reverse of [`Self::place`]: takes the image out of a frame.
    fn take(&self, buffer: &[f32], image: &mut [f32]) {
        let rows = buffer[self.start..].chunks(self.pitch).zip(image.chunks_exact_mut(self.image_pitch));
        rows.take(self.rows).for_each(|(framed, row)| row[..self.row_len].copy_from_slice(&framed[..self.row_len]));
    }

    /// `image` in its frame: in `buffer`, or, without margins, where it is.
    fn place<'a>(&self, image: &'a [f32], buffer: &'a mut [f32]) -> &'a [f32] {
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
struct Window {
    input: Shape,
    output: Shape,
    /// The rows and columns of the output that somebody reads.
    read: [usize; 2],
    kernel: [u8; 2],
    stride: [u8; 2],
    padding: Padding,
    depthwise: bool,
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

    fn image_len(&self) -> usize {
        sizes(self.window.input).iter().product()
    }

    fn output_len(&self) -> usize {
        sizes(self.window.output).iter().product()
    }

    /// The number of weights, `[kernel height, kernel width, channels, filters]`.
    fn weights_len(&self) -> usize {
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

fn sizes(shape: Shape) -> [usize; 3] {
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
    fn written(&self) -> usize {
        self.destinations.len() * self.channels
    }

    /// The length of the weights in panels.
    fn packed_len(&self) -> usize {
        self.steps.len() * tile::padded(self.channels)
    }

    /// Packs the layer's `weights` into panels: for each panel, the lanes of every step. Lanes that fill up a panel stay
    /// as they are, zero.
    fn pack(&self, weights: &[f32], mut packed: &mut [f32]) {
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

/// A layer's weights in the order in which the loops read them: written once per update, shared by all threads.
#[derive(Clone, Debug)]
pub struct Prepared {
    forward: Vec<f32>,
    /// For every phase of the input's gradient; empty where nothing asks for it.
    phases: Vec<Vec<f32>>,
    /// The weights of each filter, one after the other, for a sparse gradient.
    by_filter: Vec<f32>,
}

impl Prepared {
    /// Room for the weights of a layer. The first layer of a network needs no `input_gradient`, which spares half the work.
    pub fn new(geometry: &Geometry, input_gradient: bool) -> Self {
        let phases = if input_gradient && !geometry.sparse { geometry.phases.as_slice() } else { &[] };
        Prepared {
            forward: vec![0.0; geometry.forward.packed_len()],
            phases: phases.iter().map(|plan| vec![0.0; plan.packed_len()]).collect(),
            by_filter: vec![0.0; if input_gradient && geometry.sparse { geometry.weights_len() } else { 0 }],
        }
    }

    /// Takes over `weights`, `[kernel height, kernel width, channels, filters]`.
    pub fn prepare(&mut self, geometry: &Geometry, weights: &[f32]) {
        assert_eq!(weights.len(), geometry.weights_len(), "the weights of a convolution");
        geometry.forward.pack(weights, &mut self.forward);
        for (plan, packed) in geometry.phases.iter().zip(&mut self.phases) {
            plan.pack(weights, packed);
        }
        if !self.by_filter.is_empty() {
            transpose(weights, geometry.forward.channels, &mut self.by_filter);
        }
    }
}

/// Turns `[rows, columns]` into `[columns, rows]`.
fn transpose(matrix: &[f32], columns: usize, transposed: &mut [f32]) {
    let rows = matrix.len() / columns;
    for (column, values) in transposed.chunks_exact_mut(rows).enumerate() {
        values.iter_mut().zip(matrix[column..].iter().step_by(columns)).for_each(|(to, &from)| *to = from);
    }
}

/// The buffers of one thread.
#[derive(Clone, Debug)]
pub struct Workspace {
    input_frame: Vec<f32>,
    gradient_frame: Vec<f32>,
    /// One image's output gradient at the positions that are read, with its channels filled up to whole panels; empty where
    /// these are all and they are whole.
    padded_gradient: Vec<f32>,
    sparse: sparse::Workspace,
}

impl Workspace {
    /// Buffers for a layer of this geometry.
    pub fn new(geometry: &Geometry) -> Self {
        let Plan { destinations, channels, .. } = &geometry.forward;
        let padded = destinations.len() * tile::padded(*channels);
        let is_whole = padded == destinations.len() * channels && padded == geometry.output_len();
        Workspace {
            input_frame: geometry.input_frame.buffer(),
            gradient_frame: geometry.gradient_frame.buffer(),
            padded_gradient: vec![0.0; if is_whole { 0 } else { padded }],
            sparse: sparse::Workspace::new(geometry),
        }
    }
}

/// `output = input * weights + bias`: `input` is `[rows, H, W, C]`, `output` `[rows, H', W', filters]`, `bias` one for each
/// filter or empty.
pub fn forward(
    geometry: &Geometry,
    prepared: &Prepared,
    workspace: &mut Workspace,
    bias: &[f32],
    input: &[f32],
    output: &mut [f32],
) {
    for (image, output) in images(input, geometry.image_len()).zip(output.chunks_exact_mut(geometry.output_len())) {
        let frame = geometry.input_frame.place(image, &mut workspace.input_frame);
        convolve(geometry, &geometry.forward, &prepared.forward, bias, frame, output);
    }
}

/// The gradients that [`gradients`] is asked for.
#[derive(Debug, Default)]
pub struct Wanted<'a> {
    /// The loss's gradient for the weights, `[kernel height, kernel width, channels, filters]`: is added to what is there.
    pub weights: Option<&'a mut [f32]>,
    /// The one for the input, `[rows, H, W, C]`: takes the place of what is there.
    pub input: Option<&'a mut [f32]>,
}

/// The loss's gradients for the weights and the input, from the input and the gradient for the output, `[rows, H', W', filters]`.
///
/// # Panics
/// If the input's is wanted, but `prepared` was made without it.
pub fn gradients(
    geometry: &Geometry,
    prepared: &Prepared,
    workspace: &mut Workspace,
    input: &[f32],
    output_gradient: &[f32],
    wanted: Wanted<'_>,
) {
    if let Some(weights) = &wanted.weights {
        assert_eq!(weights.len(), geometry.weights_len(), "the gradient of the weights of a convolution");
    }
    if wanted.input.is_some() {
        let is_prepared = !prepared.phases.is_empty() || !prepared.by_filter.is_empty();
        assert!(is_prepared, "weights prepared for the input's gradient");
    }
    if geometry.sparse {
        return sparse::gradients(geometry, prepared, workspace, input, output_gradient, wanted);
    }
    if let Some(weights) = wanted.weights {
        weight_gradient(geometry, workspace, input, output_gradient, weights);
    }
    if let Some(input_gradient) = wanted.input {
        self::input_gradient(geometry, prepared, workspace, output_gradient, input_gradient);
    }
}

fn input_gradient(
    geometry: &Geometry,
    prepared: &Prepared,
    workspace: &mut Workspace,
    output_gradient: &[f32],
    input_gradient: &mut [f32],
) {
    if geometry.phases.iter().map(Plan::written).sum::<usize>() < geometry.image_len() {
        input_gradient.fill(0.0);
    }
    let gradients = images(output_gradient, geometry.output_len());
    for (gradient, output) in gradients.zip(input_gradient.chunks_exact_mut(geometry.image_len())) {
        let frame = geometry.gradient_frame.place(gradient, &mut workspace.gradient_frame);
        for (plan, packed) in geometry.phases.iter().zip(&prepared.phases) {
            convolve(geometry, plan, packed, &[], frame, output);
        }
    }
}

fn weight_gradient(
    geometry: &Geometry,
    workspace: &mut Workspace,
    input: &[f32],
    output_gradient: &[f32],
    weight_gradient: &mut [f32],
) {
    let gradients = images(output_gradient, geometry.output_len());
    for (image, gradient) in images(input, geometry.image_len()).zip(gradients) {
        let frame = geometry.input_frame.place(image, &mut workspace.input_frame);
        let gradient = whole_panels(gradient, &geometry.forward, &mut workspace.padded_gradient);
        correlate(geometry, &geometry.forward, frame, gradient, weight_gradient);
    }
}

/// The images of a batch.
fn images(values: &[f32], len: usize) -> impl Iterator<Item = &[f32]> {
    let images = values.chunks_exact(len);
    assert!(images.remainder().is_empty(), "{} values in images of {len}", values.len());
    images
}

/// `gradient` at the positions of `plan` with its channels filled up to whole panels: in `buffer`, or, if it is that
/// already, where it is.
fn whole_panels<'a>(gradient: &'a [f32], plan: &Plan, buffer: &'a mut [f32]) -> &'a [f32] {
    if buffer.is_empty() {
        return gradient;
    }
    for (row, &from) in buffer.chunks_exact_mut(tile::padded(plan.channels)).zip(&plan.destinations) {
        row[..plan.channels].copy_from_slice(&gradient[from as usize..][..plan.channels]);
    }
    buffer
}

/// Every output channel at every position of `plan`.
fn convolve(geometry: &Geometry, plan: &Plan, mut packed: &[f32], bias: &[f32], frame: &[f32], output: &mut [f32]) {
    for (start, lanes) in tile::panels(plan.channels) {
        let (weights, rest) = packed.split_at(plan.steps.len() * lanes);
        packed = rest;
        let channels = start..plan.channels.min(start + lanes);
        let mut initial = [0.0; tile::WIDE];
        if !bias.is_empty() {
            initial[..channels.len()].copy_from_slice(&bias[channels.clone()]);
        }
        if geometry.window.depthwise {
            let frame = &frame[start..];
            tile::dispatch(geometry.arch, lanes, Convolve::<true> { plan, weights, channels, initial, frame, output });
        } else {
            tile::dispatch(geometry.arch, lanes, Convolve::<false> { plan, weights, channels, initial, frame, output });
        }
    }
}

/// One panel of output channels at every position.
struct Convolve<'a, const DEPTHWISE: bool> {
    plan: &'a Plan,
    /// `[steps, lanes]`.
    weights: &'a [f32],
    channels: Range<usize>,
    /// What the sums start from.
    initial: [f32; tile::WIDE],
    frame: &'a [f32],
    output: &'a mut [f32],
}

impl<const DEPTHWISE: bool> PanelLoops for Convolve<'_, DEPTHWISE> {
    #[inline(always)]
    fn run<S: Simd, const M: usize>(mut self, simd: S) {
        for (first, last) in tile::tiles(self.plan.bases.len(), tile::tallest::<S, M>()) {
            for_rows!(last - first, M, convolve_tile::<S, _, M, DEPTHWISE>(simd, &mut self, first));
        }
    }
}

#[inline(always)]
fn convolve_tile<S: Simd, const R: usize, const M: usize, const DEPTHWISE: bool>(
    simd: S,
    panel: &mut Convolve<'_, DEPTHWISE>,
    first: usize,
) {
    let Plan { bases, destinations, steps, reach, .. } = panel.plan;
    let bases: &[u32; R] = bases[first..].first_chunk().expect("a tile of positions");
    let destinations: &[u32; R] = destinations[first..].first_chunk().expect("one for each base");
    let (weights, _) = S::as_simd_f32s(panel.weights).0.as_chunks::<M>();
    let initial = S::as_simd_f32s(&panel.initial).0.first_chunk().expect("a whole panel");
    let sums =
        tile::accumulate::<S, R, M, DEPTHWISE>(simd, panel.frame, bases, *reach, steps, weights.iter(), *initial);
    for (sums, &destination) in sums.iter().zip(destinations) {
        tile::store(simd, sums, &mut panel.output[destination as usize..][panel.channels.clone()]);
    }
}

/// Adds, for every place of the window, the products of its values with the output's gradient at all positions.
fn correlate(geometry: &Geometry, plan: &Plan, frame: &[f32], gradient: &[f32], sums: &mut [f32]) {
    for (start, lanes) in tile::panels(plan.channels) {
        let channels = start..plan.channels.min(start + lanes);
        if geometry.window.depthwise {
            let frame = &frame[start..];
            tile::dispatch(geometry.arch, lanes, Correlate::<true> { plan, channels, frame, gradient, sums });
        } else {
            tile::dispatch(geometry.arch, lanes, Correlate::<false> { plan, channels, frame, gradient, sums });
        }
    }
}

/// One panel of output channels for every place of the window.
struct Correlate<'a, const DEPTHWISE: bool> {
    plan: &'a Plan,
    channels: Range<usize>,
    frame: &'a [f32],
    /// `[positions, channels]`, the channels filled up to whole panels.
    gradient: &'a [f32],
    /// `[steps, channels]`.
    sums: &'a mut [f32],
}

impl<const DEPTHWISE: bool> PanelLoops for Correlate<'_, DEPTHWISE> {
    #[inline(always)]
    fn run<S: Simd, const M: usize>(mut self, simd: S) {
        for (first, last) in tile::tiles(self.plan.steps.len(), tile::tallest::<S, M>()) {
            for_rows!(last - first, M, correlate_tile::<S, _, M, DEPTHWISE>(simd, &mut self, first));
        }
    }
}

#[inline(always)]
fn correlate_tile<S: Simd, const R: usize, const M: usize, const DEPTHWISE: bool>(
    simd: S,
    panel: &mut Correlate<'_, DEPTHWISE>,
    first: usize,
) {
    let Plan { bases, steps, channels, .. } = panel.plan;
    let steps: &[u32; R] = steps[first..].first_chunk().expect("a tile of the window");
    // Every place of the window can be moved to every position: so far do the positions reach.
    let reach = bases.last().map_or(0, |&base| base as usize + 1);
    let start = panel.channels.start;
    let lanes = panel.gradient.chunks_exact(tile::padded(*channels)).map(|row| {
        let lanes: &[S::f32s; M] = S::as_simd_f32s(&row[start..]).0.first_chunk().expect("a whole panel");
        lanes
    });
    let zero = [simd.splat_f32s(0.0); M];
    let tile = tile::accumulate::<S, R, M, DEPTHWISE>(simd, panel.frame, steps, reach, bases, lanes, zero);
    for (row, tile) in panel.sums[first * channels..].chunks_exact_mut(*channels).zip(&tile) {
        tile::add(simd, tile, &mut row[panel.channels.clone()]);
    }
}

#[cfg(test)]
mod tests;
