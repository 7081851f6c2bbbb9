//! The gradients of a convolution where most of its output's gradient is zero: of each window of a max pooling only the largest
//! value has one.
//!
//! The sums are those of the dense loops, in the same order and so with the same bits; products with zero are left out. What
//! belongs to a filter or a position lies together here: of each value that is not zero, whole vectors of the window are made.

use super::geometry::{Geometry, Plan, Window, sizes};
use super::{Wanted, images, transpose};
use crate::kernels::sparse::SparseMatrix;
use crate::kernels::tile::{self, for_each_row, for_rows};
use pulp::{Simd, WithSimd};

/// Whether these loops are faster for such a convolution, if one in `one_in` values of its output's gradient is not zero, or
/// fewer: the values that lie together in its window must fill vectors.
pub(super) fn serves(window: &Window, one_in: usize) -> bool {
    let [_, _, channels] = sizes(window.input);
    !window.depthwise && (usize::from(window.kernel[1]) * channels).is_multiple_of(tile::WIDE) && one_in >= 4
}

/// The buffers of one thread; empty unless the gradient is sparse.
#[derive(Clone, Debug, Default)]
pub(super) struct Workspace {
    /// What is not zero of the gradient of one image's output, `[positions, filters]`.
    gradient: SparseMatrix,
    /// The gradient of the weights, `[filters, window]`: of one image, and of all.
    of_image: Vec<f32>,
    of_all: Vec<f32>,
    /// The gradient for one image with the zeros around it; empty without any.
    frame: Vec<f32>,
}

impl Workspace {
    pub(super) fn new(geometry: &Geometry) -> Self {
        if !geometry.sparse {
            return Workspace::default();
        }
        let weights = vec![0.0; geometry.weights_len()];
        let frame = geometry.input_frame.buffer();
        Workspace { gradient: SparseMatrix::default(), of_image: weights.clone(), of_all: weights, frame }
    }
}

/// As [`super::gradients`].
pub(super) fn gradients(
    geometry: &Geometry,
    prepared: &super::Prepared,
    workspace: &mut super::Workspace,
    input: &[f32],
    output_gradient: &[f32],
    Wanted { mut weights, input: mut input_gradient }: Wanted<'_>,
) {
    let super::Workspace { input_frame, sparse: Workspace { gradient, of_image, of_all, frame }, .. } = workspace;
    let (plan, image_len) = (&geometry.forward, geometry.image_len());
    if let Some(weights) = &weights {
        transpose(weights, plan.channels, of_all);
    }
    let gradients = images(output_gradient, geometry.output_len());
    for (index, (image, output_gradient)) in images(input, image_len).zip(gradients).enumerate() {
        gradient.assign(output_gradient, plan.channels);
        if weights.is_some() {
            let frame = geometry.input_frame.place(image, input_frame);
            of_image.fill(0.0);
            geometry.arch.dispatch(AddWindows { plan, gradient, frame, sums: of_image });
            of_all.iter_mut().zip(&*of_image).for_each(|(sum, &value)| *sum += value);
        }
        if let Some(input_gradient) = &mut input_gradient {
            let image = &mut input_gradient[index * image_len..][..image_len];
            let by_filter = &prepared.by_filter;
            let is_bare = frame.is_empty();
            let sums = if is_bare { &mut *image } else { &mut frame[..] };
            sums.fill(0.0);
            geometry.arch.dispatch(AddWeights { plan, gradient, by_filter, frame: sums });
            if !is_bare {
                geometry.input_frame.take(frame, image);
            }
        }
    }
    if let Some(weights) = &mut weights {
        transpose(of_all, plan.steps.len(), weights);
    }
}

/// What is not zero of the gradient at one position: the filters, and a value for each.
type Nonzero<'a> = (&'a [u32], &'a [f32]);

/// Adds, for every value of the gradient, its multiple of the window to the sums of its filter.
struct AddWindows<'a> {
    plan: &'a Plan,
    gradient: &'a SparseMatrix,
    frame: &'a [f32],
    /// `[filters, window]`.
    sums: &'a mut [f32],
}

/// Adds, for every value of the gradient, its multiple of its filter's weights to the window.
struct AddWeights<'a> {
    plan: &'a Plan,
    gradient: &'a SparseMatrix,
    /// `[filters, window]`.
    by_filter: &'a [f32],
    frame: &'a mut [f32],
}

/// Calls `$add` for each position with a gradient and each tile of the window's vectors.
macro_rules! for_each_tile {
    ($simd:ident, $work:ident, $add:ident) => {
        let Plan { bases, destinations, steps, channels, .. } = $work.plan;
        for (&base, &destination) in bases.iter().zip(destinations) {
            let nonzero = $work.gradient.row(destination as usize / channels);
            if nonzero.0.is_empty() {
                continue;
            }
            for (first, last) in tile::tiles(steps.len() / S::F32_LANES, tile::tallest::<S, 1>()) {
                for_rows!(last - first, 1, $add::<S, _>($simd, &mut $work, base as usize, first, nonzero));
            }
        }
    };
}

impl WithSimd for AddWindows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for_each_tile!(simd, self, add_window);
    }
}

impl WithSimd for AddWeights<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        for_each_tile!(simd, self, add_weights);
    }
}

#[inline(always)]
fn add_window<S: Simd, const R: usize>(
    simd: S,
    work: &mut AddWindows<'_>,
    base: usize,
    first: usize,
    (filters, values): Nonzero<'_>,
) {
    let steps = &work.plan.steps;
    let sums = S::as_mut_simd_f32s(work.sums).0;
    let mut window = [simd.splat_f32s(0.0); R];
    for_each_row!(R, row, {
        let start = base + steps[(first + row) * S::F32_LANES] as usize;
        window[row] = S::as_simd_f32s(&work.frame[start..start + S::F32_LANES]).0[0];
    });
    for (&filter, &value) in filters.iter().zip(values) {
        let start = filter as usize * (steps.len() / S::F32_LANES) + first;
        let sums: &mut [S::f32s; R] = sums[start..].first_chunk_mut().expect("a tile of a filter's sums");
        let value = simd.splat_f32s(value);
        for_each_row!(R, row, {
            sums[row] = simd.mul_add_e_f32s(window[row], value, sums[row]);
        });
    }
}

#[inline(always)]
fn add_weights<S: Simd, const R: usize>(
    simd: S,
    work: &mut AddWeights<'_>,
    base: usize,
    first: usize,
    (filters, values): Nonzero<'_>,
) {
    let steps = &work.plan.steps;
    let weights = S::as_simd_f32s(work.by_filter).0;
    let mut sums = [simd.splat_f32s(0.0); R];
    for_each_row!(R, row, {
        let start = base + steps[(first + row) * S::F32_LANES] as usize;
        sums[row] = S::as_simd_f32s(&work.frame[start..start + S::F32_LANES]).0[0];
    });
    for (&filter, &value) in filters.iter().zip(values) {
        let start = filter as usize * (steps.len() / S::F32_LANES) + first;
        let weights: &[S::f32s; R] = weights[start..].first_chunk().expect("a tile of a filter's weights");
        let value = simd.splat_f32s(value);
        for_each_row!(R, row, {
            sums[row] = simd.mul_add_e_f32s(weights[row], value, sums[row]);
        });
    }
    for_each_row!(R, row, {
        let start = base + steps[(first + row) * S::F32_LANES] as usize;
        S::as_mut_simd_f32s(&mut work.frame[start..start + S::F32_LANES]).0[0] = sums[row];
    });
}
