//! Layers with grouped weights on a microcontroller, which has folded ones where speed matters: plain loops, in little flash.

use super::conv2d::Rows;
use super::quantize::Source;
use super::requantize::{Epilogue, Target};
use super::tensor::{GROUPED_PANEL, Group, Int8Tensor};
use crate::kernels::backend::Backend;
use crate::kernels::backend::folded::clear_words;
use crate::kernels::windows::Geometry;

/// Writes the activations to `out`, as many as there are and fit.
pub(crate) fn quantize(_: Backend, source: Source<'_>, out: &mut [i8]) {
    source.read(0, out);
}

/// A dense layer of some rows. `x` is `[rows, inputs]`, `out` is `[rows, outputs]`.
#[inline(never)]
pub(crate) fn dense_grouped(_: Backend, x: &[i8], tensor: &Int8Tensor<'_>, epilogue: &Epilogue, mut out: Target<'_>) {
    let (inputs, outputs) = (tensor.inputs(), tensor.outputs());
    for (row, x) in x.chunks_exact(inputs.max(1)).enumerate() {
        for (index, weights) in tensor.grouped_weights().chunks(inputs.div_ceil(4).max(1)).enumerate() {
            let mut sums = [0; GROUPED_PANEL];
            add_products(x, weights, &mut sums);
            let first = index * GROUPED_PANEL;
            let width = GROUPED_PANEL.min(outputs.saturating_sub(first));
            epilogue.store(tensor, first, &sums, out.part(row * outputs + first, width));
        }
    }
}

/// A convolution. `x` is `[H, W, C]`, `out` is `[H, W, filters]`.
#[inline(never)]
pub(crate) fn conv2d_grouped(
    _: Backend,
    x: &[i8],
    geometry: Geometry,
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    workspace: &mut [u32],
    mut out: Target<'_>,
) {
    let [kh, kw] = geometry.kernel();
    let (rows, run) = (Rows { values: x, first: 0 }, kw as usize * geometry.channels());
    let Some(workspace) = workspace.get_mut(..run.div_ceil(4)) else { return };
    let panel = (kh as usize * run.div_ceil(4)).max(1);
    for position in 0..geometry.output_height() * geometry.output_width() {
        let row = position.checked_div(geometry.output_width()).unwrap_or(0);
        let column = position - row * geometry.output_width();
        for (index, weights) in tensor.grouped_weights().chunks(panel).enumerate() {
            let mut largest = [i32::MIN; GROUPED_PANEL];
            for window in 0..geometry.pooled() {
                let corner = geometry.corner([row, column], window);
                let mut sums = [0; GROUPED_PANEL];
                for (ky, weights) in weights.chunks(run.div_ceil(4).max(1)).enumerate() {
                    clear_words(workspace);
                    let Some(buffer) = bytemuck::cast_slice_mut::<_, i8>(workspace).get_mut(..run) else { return };
                    rows.copy_run(&geometry, corner, ky as i32, buffer);
                    add_products(buffer, weights, &mut sums);
                }
                largest.iter_mut().zip(sums).for_each(|(largest, sum)| *largest = sum.max(*largest));
            }
            let first = index * GROUPED_PANEL;
            let width = GROUPED_PANEL.min(tensor.outputs().saturating_sub(first));
            let out = out.part(position as usize * tensor.outputs() + first, width);
            epilogue.store(tensor, first, &largest, out);
        }
    }
}

/// Adds the products of a run of inputs to the `sums` of a panel; `weights` holds a group for each four inputs, of which the
/// last may be fewer.
#[inline(never)]
fn add_products(x: &[i8], weights: &[Group], sums: &mut [i32; GROUPED_PANEL]) {
    for (x, group) in x.chunks(4).zip(weights) {
        for (sum, weights) in sums.iter_mut().zip(group) {
            for (x, weight) in x.iter().zip(weights) {
                *sum = sum.wrapping_add(i32::from(*x) * i32::from(*weight));
            }
        }
    }
}
