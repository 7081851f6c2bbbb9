//! The sums of a 2-D convolution and their gradients, straight from the images.
//!
//! All three are the sums of [`super::tile`] over tables of offsets, which [`Geometry`] makes once: any kernel, stride
//! and padding gives the same loops. Where there is padding, an image is first copied into a frame of zeros.
//!
//! The gradient for the input is itself a convolution, of the output's gradient with the kernel turned round; at strides
//! above 1 it is one convolution for each phase of the stride, with the taps of the kernel that meet this phase.

use super::tile::{self, Isa, accumulate, for_rows, for_target};
use multiversion::multiversion;
use thumbnet::layer::{Conv2d, Shape};

/// Where a convolution's values lie: made once for a layer, shared by all threads.
#[derive(Clone, Debug)]
pub struct Geometry {
    input: Shape,
    filters: usize,
    positions: usize,
    input_frame: Frame,
    gradient_frame: Frame,
    /// The convolution itself.
    forward: Plan,
    /// The convolutions that make the gradient for the input.
    phases: Vec<Plan>,
}

/// Zeros around an image, or none.
#[derive(Clone, Debug)]
struct Frame {
    /// The image within the frame: rows, and values per row.
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
    /// A frame around an image of `[height, width, channels]` with zeros before and after either axis.
    fn new([height, width, channels]: [usize; 3], [top, bottom]: [usize; 2], [left, right]: [usize; 2]) -> Self {
        let pitch = (left + width + right) * channels;
        let len = (top + height + bottom) * pitch;
        assert!(u32::try_from(len).is_ok(), "a frame of {len} values");
        Frame { rows: height, row_len: width * channels, pitch, len, start: top * pitch + left * channels }
    }

    /// Whether there is nothing around the image.
    fn is_bare(&self) -> bool {
        self.len == self.rows * self.row_len
    }

    /// The buffer for a framed image; its margins stay zero.
    fn buffer(&self) -> Vec<f32> {
        vec![0.0; if self.is_bare() { 0 } else { self.len }]
    }

    /// `image` in its frame: in `buffer`, or, without margins, where it is.
    fn place<'a>(&self, image: &'a [f32], buffer: &'a mut [f32]) -> &'a [f32] {
        if self.is_bare() {
            return image;
        }
        let rows = buffer[self.start..].chunks_mut(self.pitch).zip(image.chunks_exact(self.row_len));
        rows.for_each(|(framed, row)| framed[..self.row_len].copy_from_slice(row));
        buffer
    }
}

impl Geometry {
    /// The geometry of `descriptor` (without fused pooling) for images of shape `input`.
    ///
    /// # Panics
    /// If the descriptor does not fit the input, or pools.
    pub fn new(input: Shape, descriptor: &Conv2d) -> Self {
        assert_eq!(descriptor.pool, [1, 1], "pooling is a layer of its own in training");
        let output = thumbnet::layer::Layer::Conv2d(*descriptor).output(input).expect("a convolution that fits");
        let [height, width, channels] = sizes(input);
        let [output_height, output_width, filters] = sizes(output);
        let [kernel_height, kernel_width] = descriptor.kernel.map(usize::from);
        let [down, across] = descriptor.stride.map(usize::from);
        let padding = descriptor.padding;
        let margin = |padding: i8| padding.max(0) as usize;
        let crop = |padding: i8| padding.min(0).unsigned_abs() as usize;
        let input_frame = Frame::new(
            [height, width, channels],
            [margin(padding.top), margin(padding.bottom)],
            [margin(padding.left), margin(padding.right)],
        );
        let weight_index = |ky: usize, kx: usize| (ky * kernel_width + kx) * channels * filters;

        let mut forward = Plan::new(filters, 1);
        for y in 0..output_height {
            for x in 0..output_width {
                let corner =
                    (y * down + crop(padding.top)) * input_frame.pitch + (x * across + crop(padding.left)) * channels;
                forward.add_position(corner, (y * output_width + x) * filters);
            }
        }
        for ky in 0..kernel_height {
            for kx in 0..kernel_width {
                for channel in 0..channels {
                    let step = ky * input_frame.pitch + kx * channels + channel;
                    forward.add_step(step, weight_index(ky, kx) + channel * filters);
                }
            }
        }

        let (vertical, rows) = phases(height, output_height, kernel_height, down, padding.top);
        let (horizontal, columns) = phases(width, output_width, kernel_width, across, padding.left);
        let gradient_frame = Frame::new([output_height, output_width, filters], vertical, horizontal);
        let mut phases = Vec::new();
        for row in &rows {
            for column in &columns {
                let mut plan = Plan::new(channels, filters);
                for &(y, from_row) in &row.places {
                    for &(x, from_column) in &column.places {
                        let base = from_row * gradient_frame.pitch + from_column * filters;
                        plan.add_position(base, (y * width + x) * channels);
                    }
                }
                for (below, &ky) in row.taps.iter().enumerate() {
                    for (right, &kx) in column.taps.iter().enumerate() {
                        for filter in 0..filters {
                            let step = below * gradient_frame.pitch + right * filters + filter;
                            plan.add_step(step, weight_index(ky, kx) + filter);
                        }
                    }
                }
                phases.push(plan);
            }
        }
        let positions = output_height * output_width;
        Geometry { input, filters, positions, input_frame, gradient_frame, forward, phases }
    }

    fn image_len(&self) -> usize {
        sizes(self.input).iter().product()
    }

    fn output_len(&self) -> usize {
        self.positions * self.filters
    }

    /// The number of weights, `[kernel height, kernel width, channels, filters]`.
    fn weights_len(&self) -> usize {
        self.forward.steps.len() * self.filters
    }
}

fn sizes(shape: Shape) -> [usize; 3] {
    [shape.height, shape.width, shape.channels].map(usize::from)
}

/// The phases of one axis of the input's gradient, and the zeros that its frame needs before and after the gradient.
///
/// Output `o` reads input `i` at tap `k` where `i + before = o * stride + k`. The inputs whose `i + before` leaves the same
/// rest when divided by the stride meet the same taps, at outputs that are next to each other.
fn phases(input: usize, output: usize, kernel: usize, stride: usize, before: i8) -> ([usize; 2], Vec<Axis>) {
    let (before, step) = (i64::from(before), stride as i64);
    let last_output = |i: usize| (i as i64 + before).div_euclid(step);
    let most_taps = kernel.div_ceil(stride) as i64;
    let zeros_before = (most_taps - 1 - last_output(0)).max(0);
    let zeros_after = (last_output(input - 1) - (output as i64 - 1)).max(0);
    let axes = (0..stride).map(|phase| {
        // The last tap meets the first output.
        let taps: Vec<usize> = (phase..kernel).step_by(stride).collect::<Vec<_>>().into_iter().rev().collect();
        let first = zeros_before + 1 - taps.len().max(1) as i64;
        let places = (0..input)
            .filter(|&i| (i as i64 + before).rem_euclid(step) == phase as i64)
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

    /// The length of the weights in panels.
    fn packed_len(&self) -> usize {
        self.steps.len() * tile::padded(self.channels)
    }

    /// Packs the layer's `weights` into panels: for each panel, the lanes of every step. Lanes that fill up a panel stay
    /// as they are, zero.
    fn pack(&self, weights: &[f32], mut packed: &mut [f32]) {
        for (start, sixteen) in tile::panels(self.channels) {
            let lanes = if sixteen { 16 } else { 8 };
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
}

impl Prepared {
    /// Room for the weights of a layer. The first layer of a network needs no `input_gradient`, which spares half the work.
    pub fn new(geometry: &Geometry, input_gradient: bool) -> Self {
        let phases = if input_gradient { geometry.phases.as_slice() } else { &[] };
        Prepared {
            forward: vec![0.0; geometry.forward.packed_len()],
            phases: phases.iter().map(|plan| vec![0.0; plan.packed_len()]).collect(),
        }
    }

    /// Takes over `weights`, `[kernel height, kernel width, channels, filters]`.
    pub fn prepare(&mut self, geometry: &Geometry, weights: &[f32]) {
        assert_eq!(weights.len(), geometry.weights_len(), "the weights of a convolution");
        geometry.forward.pack(weights, &mut self.forward);
        for (plan, packed) in geometry.phases.iter().zip(&mut self.phases) {
            plan.pack(weights, packed);
        }
    }
}

/// The buffers of one thread.
#[derive(Clone, Debug)]
pub struct Workspace {
    input_frame: Vec<f32>,
    gradient_frame: Vec<f32>,
    /// One image's output gradient with its channels filled up to whole panels; empty where they are whole.
    padded_gradient: Vec<f32>,
}

impl Workspace {
    /// Buffers for a layer of this geometry.
    pub fn new(geometry: &Geometry) -> Self {
        let padded = tile::padded(geometry.filters);
        let padded_gradient = if padded == geometry.filters { 0 } else { geometry.positions * padded };
        Workspace {
            input_frame: geometry.input_frame.buffer(),
            gradient_frame: geometry.gradient_frame.buffer(),
            padded_gradient: vec![0.0; padded_gradient],
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
        convolve(&geometry.forward, &prepared.forward, bias, frame, output);
    }
}

/// The loss's gradient for the input, `[rows, H, W, C]`, from the one for the output, `[rows, H', W', filters]`.
/// `input_gradient` is overwritten.
///
/// # Panics
/// If `prepared` was made without it.
pub fn input_gradient(
    geometry: &Geometry,
    prepared: &Prepared,
    workspace: &mut Workspace,
    output_gradient: &[f32],
    input_gradient: &mut [f32],
) {
    assert_eq!(prepared.phases.len(), geometry.phases.len(), "weights prepared for the input's gradient");
    let gradients = images(output_gradient, geometry.output_len());
    for (gradient, output) in gradients.zip(input_gradient.chunks_exact_mut(geometry.image_len())) {
        let frame = geometry.gradient_frame.place(gradient, &mut workspace.gradient_frame);
        for (plan, packed) in geometry.phases.iter().zip(&prepared.phases) {
            convolve(plan, packed, &[], frame, output);
        }
    }
}

/// Adds the loss's gradient for the weights, `[kernel height, kernel width, channels, filters]`, to `weight_gradient`.
pub fn weight_gradient(
    geometry: &Geometry,
    workspace: &mut Workspace,
    input: &[f32],
    output_gradient: &[f32],
    weight_gradient: &mut [f32],
) {
    assert_eq!(weight_gradient.len(), geometry.weights_len(), "the gradient of the weights of a convolution");
    let gradients = images(output_gradient, geometry.output_len());
    for (image, gradient) in images(input, geometry.image_len()).zip(gradients) {
        let frame = geometry.input_frame.place(image, &mut workspace.input_frame);
        let gradient = whole_panels(gradient, geometry.filters, &mut workspace.padded_gradient);
        correlate(&geometry.forward, frame, gradient, weight_gradient);
    }
}

/// The images of a batch.
fn images(values: &[f32], len: usize) -> impl Iterator<Item = &[f32]> {
    let images = values.chunks_exact(len);
    assert!(images.remainder().is_empty(), "{} values in images of {len}", values.len());
    images
}

/// `gradient` with its channels filled up to whole panels: in `buffer`, or, if they are whole, where it is.
fn whole_panels<'a>(gradient: &'a [f32], channels: usize, buffer: &'a mut [f32]) -> &'a [f32] {
    if buffer.is_empty() {
        return gradient;
    }
    let rows = buffer.chunks_exact_mut(tile::padded(channels)).zip(gradient.chunks_exact(channels));
    rows.for_each(|(padded, row)| padded.iter_mut().zip(row).for_each(|(to, &from)| *to = from));
    buffer
}

/// Every output channel at every position of `plan`.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn convolve(plan: &Plan, packed: &[f32], bias: &[f32], frame: &[f32], output: &mut [f32]) {
    for_target!(convolve_panels(plan, packed, bias, frame, output));
}

#[inline(always)]
fn convolve_panels<I: Isa>(plan: &Plan, mut packed: &[f32], bias: &[f32], frame: &[f32], output: &mut [f32]) {
    for (start, sixteen) in tile::panels(plan.channels) {
        let (panel, rest) = packed.split_at(plan.steps.len() * if sixteen { 16 } else { 8 });
        packed = rest;
        if sixteen {
            convolve_panel::<I, 16>(plan, panel, start, bias, frame, output);
        } else {
            convolve_panel::<I, 8>(plan, panel, start, bias, frame, output);
        }
    }
}

/// The lanes from channel `start` on at every position.
#[inline(always)]
fn convolve_panel<I: Isa, const N: usize>(
    plan: &Plan,
    panel: &[f32],
    start: usize,
    bias: &[f32],
    frame: &[f32],
    output: &mut [f32],
) {
    let (panel, _) = panel.as_chunks::<N>();
    let lanes = N.min(plan.channels - start);
    let mut initial = [0.0; N];
    if !bias.is_empty() {
        initial[..lanes].copy_from_slice(&bias[start..start + lanes]);
    }
    let tallest = if N == 16 { I::ROWS_OF_16 } else { I::ROWS_OF_8 };
    for (first, last) in tile::tiles(plan.bases.len(), tallest) {
        let destinations = &plan.destinations[first..last];
        for_rows!(
            last - first,
            if N == 16 { I::ROWS_OF_16 } else { I::ROWS_OF_8 },
            convolve_tile::<I, _, N>(plan, first, panel, &initial, frame, destinations, start..start + lanes, output)
        );
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a tile's loop, cut out to be compiled for every height")]
fn convolve_tile<I: Isa, const R: usize, const N: usize>(
    plan: &Plan,
    first: usize,
    panel: &[[f32; N]],
    initial: &[f32; N],
    frame: &[f32],
    destinations: &[u32],
    lanes: std::ops::Range<usize>,
    output: &mut [f32],
) {
    let bases: &[u32; R] = plan.bases[first..].first_chunk().expect("a tile of positions");
    let bases = bases.map(|base| base as usize);
    let sums = accumulate::<I, R, N>(frame, bases, plan.reach, &plan.steps, panel.iter(), [*initial; R]);
    for (sums, &destination) in sums.iter().zip(destinations) {
        tile::copy_lanes(sums, &mut output[destination as usize..][lanes.clone()]);
    }
}

/// Adds, for every place of the window, the products of its values with the output's gradient at all positions.
#[multiversion(targets("x86_64+avx512f+avx512vl+fma", "x86_64+avx2+fma"))]
fn correlate(plan: &Plan, frame: &[f32], gradient: &[f32], sums: &mut [f32]) {
    for_target!(correlate_panels(plan, frame, gradient, sums));
}

#[inline(always)]
fn correlate_panels<I: Isa>(plan: &Plan, frame: &[f32], gradient: &[f32], sums: &mut [f32]) {
    for (start, sixteen) in tile::panels(plan.channels) {
        if sixteen {
            correlate_panel::<I, 16>(plan, start, frame, gradient, sums);
        } else {
            correlate_panel::<I, 8>(plan, start, frame, gradient, sums);
        }
    }
}

#[inline(always)]
fn correlate_panel<I: Isa, const N: usize>(
    plan: &Plan,
    start: usize,
    frame: &[f32],
    gradient: &[f32],
    sums: &mut [f32],
) {
    let tallest = if N == 16 { I::ROWS_OF_16 } else { I::ROWS_OF_8 };
    for (first, last) in tile::tiles(plan.steps.len(), tallest) {
        for_rows!(
            last - first,
            if N == 16 { I::ROWS_OF_16 } else { I::ROWS_OF_8 },
            correlate_tile::<I, _, N>(plan, first, start, frame, gradient, sums)
        );
    }
}

#[inline(always)]
fn correlate_tile<I: Isa, const R: usize, const N: usize>(
    plan: &Plan,
    first: usize,
    start: usize,
    frame: &[f32],
    gradient: &[f32],
    sums: &mut [f32],
) {
    let steps: &[u32; R] = plan.steps[first..].first_chunk().expect("a tile of the window");
    let steps = steps.map(|step| step as usize);
    // Every place of the window can be moved to every position: so far do the positions reach.
    let reach = plan.bases.last().map_or(0, |&base| base as usize + 1);
    let vectors = gradient.chunks_exact(tile::padded(plan.channels)).map(|row| {
        let vector: &[f32; N] = row[start..].first_chunk().expect("a whole panel");
        vector
    });
    let tile = accumulate::<I, R, N>(frame, steps, reach, &plan.bases, vectors, [[0.0; N]; R]);
    let lanes = N.min(plan.channels - start);
    for (row, tile) in sums[first * plan.channels..].chunks_exact_mut(plan.channels).zip(&tile) {
        tile::add_lanes(tile, &mut row[start..start + lanes]);
    }
}

#[cfg(test)]
mod tests;
