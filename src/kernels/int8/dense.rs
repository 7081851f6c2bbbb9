//! The fully connected layer, in integers.

use super::quantize::Source;
use super::requantize::{Epilogue, Target};
use super::tensor::Int8Tensor;
use crate::kernels::backend::folded::{self, Panels};

/// Groups of four inputs of which [`dense_folded`] adds up the products at a time: so many that the sums are not picked up and
/// put down too often, and so few that they need little memory.
const GROUPS: usize = 64;
const _: () = assert!(GROUPS <= folded::GROUPS_AT_A_TIME);

/// Four-byte words of workspace that [`dense_folded`] needs: for the sums, for some inputs, and for these in the form that the
/// products want.
pub(crate) const fn folded_workspace(inputs: u32, outputs: u32) -> u32 {
    let groups = inputs.div_ceil(4);
    let at_a_time = if groups < GROUPS as u32 { groups } else { GROUPS as u32 };
    outputs.div_ceil(4) * 4 + at_a_time * (1 + folded::WORDS_OF_A_GROUP as u32)
}

/// A dense layer of one row with folded weights. `None` if the workspace is too small.
#[inline(never)]
pub(crate) fn dense_folded(
    x: Source<'_>,
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    workspace: &mut [u32],
    out: Target<'_>,
) -> Option<()> {
    let groups = tensor.inputs().div_ceil(4);
    let (sums, workspace) = workspace.split_at_mut_checked(tensor.outputs().div_ceil(4) * 4)?;
    let (sums, _) = bytemuck::cast_slice_mut::<_, i32>(sums).as_chunks_mut();
    folded::clear(sums);
    let mut first = 0;
    while first < groups {
        let count = GROUPS.min(groups - first);
        let (part, words) = workspace.split_at_mut_checked(count)?;
        let part = bytemuck::cast_slice_mut::<_, i8>(part);
        // What is beyond the last input: weights may be there, and in front of them whatever lies behind the inputs.
        part.iter_mut().rev().take(3).for_each(|value| *value = 0);
        let there = part.len().min(tensor.inputs() - first * 4);
        x.read(first * 4, part.get_mut(..there)?);
        let panels = Panels { weights: tensor.folded_weights().get(first..)?, stride: groups };
        folded::add_row(part, panels, words, sums)?;
        first += count;
    }
    epilogue.store(tensor, 0, sums.as_flattened(), out);
    Some(())
}
