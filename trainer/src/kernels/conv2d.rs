//! The sums of a 2-D convolution, depthwise or not, and their gradients, straight from the images.
//!
//! All three are the sums of [`super::tile`] over tables of offsets, which [`Geometry`] makes once: any kernel, stride
//! and padding gives the same loops. Where there is padding, an image is first copied into a frame of zeros.
//!
//! Outputs that nobody reads, at the edge that a pooling leaves over, are not computed, and neither is what only they
//! contribute to. And where a pooling leaves most of the output's gradient zero, [`sparse`] adds up only what is not.

mod geometry;
mod sparse;

pub use geometry::Geometry;

use super::tile::{self, PanelLoops, for_rows};
use geometry::Plan;
use pulp::Simd;
use std::ops::Range;

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
