//! The fully connected layer, in integers.

use super::folded;
use super::grouped;
use super::quantize::Source;
use super::requantize::{Epilogue, Target};
use super::tensor::{FOLDED_PANEL, GROUPED_PANEL, Int8Tensor};
use crate::kernels::backend::Backend;

/// Four-byte words of workspace that [`dense`] needs for a layer of folded weights with so many inputs.
pub(crate) const fn folded_workspace(inputs: u32) -> u32 {
    inputs.div_ceil(4) * 2
}

/// A dense layer of one row with folded weights.
#[inline(never)]
pub(crate) fn dense_folded(
    x: Source<'_>,
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    workspace: &mut [u32],
    mut out: Target<'_>,
) {
    /// Inputs that are quantised at a time: a multiple of four, and little of the stack.
    const AT_A_TIME: usize = 32;
    let (inputs, outputs) = (tensor.inputs(), tensor.outputs());
    let (words, _) = workspace.as_chunks_mut::<2>();
    let Some(words) = words.get_mut(..inputs.div_ceil(4)) else { return };
    if x.len() != inputs || out.len() != outputs {
        return;
    }
    for (index, words) in words.chunks_mut(AT_A_TIME / 4).enumerate() {
        let mut values = [0; AT_A_TIME];
        x.read(index * AT_A_TIME, &mut values);
        folded::widen_all(&values, words);
    }
    let weights = folded_weights(tensor);
    for (index, weights) in weights.chunks((words.len() * PANELS).max(1)).enumerate() {
        let mut sums = [[0; FOLDED_PANEL]; PANELS];
        folded::add_products(words, weights, &mut sums);
        let first = index * PANELS * FOLDED_PANEL;
        epilogue.store(tensor, first, sums.as_flattened(), out.part(first, PANELS * FOLDED_PANEL));
    }
}

/// Panels of folded weights that are computed at a time: their sums are all that lies on the stack.
pub(super) const PANELS: usize = 4;

/// The groups of all panels.
pub(super) fn folded_weights<'a>(tensor: &Int8Tensor<'a>) -> &'a [folded::Weights] {
    // A tensor begins at a multiple of 64 bytes.
    bytemuck::try_cast_slice(tensor.weights()).unwrap_or_default()
}

/// A dense layer of some rows with grouped weights.
#[inline(never)]
pub(crate) fn dense_grouped(
    _backend: Backend,
    x: &[i8],
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    mut out: Target<'_>,
) {
    let (inputs, outputs) = (tensor.inputs(), tensor.outputs());
    let groups = bytemuck::cast_slice::<_, grouped::Group>(tensor.weights());
    for (row, x) in x.chunks_exact(inputs.max(1)).enumerate() {
        for (index, weights) in groups.chunks(inputs.div_ceil(4).max(1)).enumerate() {
            let mut sums = [0; GROUPED_PANEL];
            grouped::add_products(x, weights, &mut sums);
            let first = index * GROUPED_PANEL;
            let width = GROUPED_PANEL.min(outputs.saturating_sub(first));
            epilogue.store(tensor, first, &sums, out.part(row * outputs + first, width));
        }
    }
}
