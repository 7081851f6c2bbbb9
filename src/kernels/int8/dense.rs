//! The fully connected layer, in integers.

use super::grouped;
use super::quantize::Source;
use super::requantize::{Epilogue, Target};
use super::tensor::{GROUPED_PANEL, Int8Tensor};
use crate::kernels::backend::Backend;
use crate::kernels::backend::folded::{self, GROUPS_AT_A_TIME, Then};

/// Four-byte words of workspace that [`dense_folded`] needs: for the sums, and for some inputs in the form that the products
/// want.
pub(crate) const fn folded_workspace(inputs: u32, outputs: u32) -> u32 {
    let groups = inputs.div_ceil(4);
    let at_a_time = if groups < GROUPS_AT_A_TIME as u32 { groups } else { GROUPS_AT_A_TIME as u32 };
    outputs.div_ceil(4) * 4 + at_a_time * 2
}

/// A dense layer of one row with folded weights.
#[inline(never)]
pub(crate) fn dense_folded(
    x: Source<'_>,
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    workspace: &mut [u32],
    out: Target<'_>,
) -> Option<()> {
    let groups = tensor.inputs().div_ceil(4);
    let (sums, words) = workspace.split_at_mut_checked(tensor.outputs().div_ceil(4) * 4)?;
    let (sums, _) = bytemuck::cast_slice_mut::<_, i32>(sums).as_chunks_mut();
    let (words, _) = words.as_chunks_mut::<2>();
    sums.as_flattened_mut().fill(0);
    let mut first = 0;
    while first < groups {
        let words = words.get_mut(..GROUPS_AT_A_TIME.min(groups - first))?;
        widen(x, first * 4, words)?;
        let windows = folded::Windows { x: words, groups: words.len(), step: 0, count: 1 };
        let panels = folded::Panels { weights: tensor.folded_weights().get(first..)?, stride: groups };
        folded::products(windows, panels, Then::Add, sums)?;
        first += words.len();
    }
    epilogue.store(tensor, 0, sums.as_flattened(), out);
    Some(())
}

/// Brings the inputs from `first` on into form: as many groups as there are `words` for.
fn widen(x: Source<'_>, mut first: usize, words: &mut [folded::Inputs]) -> Option<()> {
    /// Inputs that are quantised at a time, on the stack.
    const AT_A_TIME: usize = 32;
    for words in words.chunks_mut(AT_A_TIME / 4) {
        let mut values = [0; AT_A_TIME];
        x.read(first, &mut values);
        folded::widen(folded::Runs { x: &values, count: 1, pitch: 0 }, words.len(), words)?;
        first += AT_A_TIME;
    }
    Some(())
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
