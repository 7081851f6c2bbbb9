//! The inner loops of the int8 kernels: tiles of sums, rows of inputs times vectors of a weight panel.

use crate::kernels::int8::tensor::Group;
use crate::kernels::int8::vector::Int8Vector;
use core::marker::PhantomData;

/// Which inputs belong to a sum, seen from the first of them: `count` runs of `groups` groups of four; the runs begin `pitch`
/// apart. Their weights follow each other without a gap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs {
    pub(crate) count: usize,
    pub(crate) pitch: usize,
    pub(crate) groups: usize,
}

/// Where the weights of a vector of outputs lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// The first group.
    pub(crate) group: usize,
    /// The first lane within each group.
    pub(crate) lane: usize,
}

/// Where tiles of vectors `V` find their operands: within the slices, which is checked when this is made.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a, V, const COLUMNS: usize> {
    inputs: &'a [i8],
    weights: &'a [Group],
    columns: [Column; COLUMNS],
    runs: Runs,
    /// The last input that a row may begin with.
    last_row: usize,
    vector: PhantomData<V>,
}

impl<'a, V: Int8Vector, const COLUMNS: usize> Operands<'a, V, COLUMNS> {
    /// `None` if there is nothing to add up, or if there are not enough inputs or weights.
    #[inline(always)]
    pub(crate) fn new(inputs: &'a [i8], weights: &'a [Group], columns: [Column; COLUMNS], runs: Runs) -> Option<Self> {
        let run = runs.groups.checked_mul(4).filter(|len| *len > 0)?;
        let extent = runs.count.checked_sub(1)?.checked_mul(runs.pitch)?.checked_add(run)?;
        let last_row = inputs.len().checked_sub(extent)?;
        let last_group = weights.len().checked_sub(runs.count.checked_mul(runs.groups)?)?;
        let within = |column: &Column| column.group <= last_group && column.lane < 16 && column.lane % V::LANES == 0;
        columns.iter().all(within).then_some(Self { inputs, weights, columns, runs, last_row, vector: PhantomData })
    }

    /// The weights of some vectors for a group of inputs.
    ///
    /// # Safety
    /// `group` must be one of those of the runs.
    #[inline(always)]
    unsafe fn weights(&self, token: V::Token, group: usize) -> [V::Weights; COLUMNS] {
        self.columns.map(|column| {
            // SAFETY: `new` has checked that the groups of the runs follow each column's first, and the lanes.
            unsafe { V::weights(token, self.weights.as_ptr().add(column.group + group), column.lane) }
        })
    }
}

/// Adds to each row of `sums` the products of the inputs from `starts` on; `None` if a row has not enough inputs.
#[inline(always)]
pub(crate) fn accumulate<V: Int8Vector, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, COLUMNS>,
    starts: [usize; ROWS],
    mut sums: [[V; COLUMNS]; ROWS],
) -> Option<[[V; COLUMNS]; ROWS]> {
    if starts.iter().any(|start| *start > operands.last_row) {
        return None;
    }
    let Runs { count, pitch, groups } = operands.runs;
    for run in 0..count {
        for group in 0..groups {
            let input = run * pitch + group * 4;
            // SAFETY: no row begins behind the last that has all inputs, and `new` has checked the weights.
            unsafe {
                let weights = operands.weights(token, run * groups + group);
                for (start, sums) in starts.iter().zip(&mut sums) {
                    let inputs = V::inputs(token, operands.inputs.as_ptr().add(start + input));
                    for (sum, weights) in sums.iter_mut().zip(weights) {
                        *sum = sum.add_products(weights, inputs);
                    }
                }
            }
        }
    }
    Some(sums)
}

/// Adds to `sums` the products of the inputs of the first row, all runs as one. A sum has to wait for the one before it, so
/// `CHAINS` of them take turns.
#[inline(always)]
pub(crate) fn accumulate_row<V: Int8Vector, const CHAINS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, COLUMNS>,
    mut sums: [V; COLUMNS],
) -> [V; COLUMNS] {
    if operands.runs.count != 1 {
        return sums;
    }
    let groups = operands.runs.groups;
    let mut chains = [[V::splat(token, 0); COLUMNS]; CHAINS];
    let add = |group: usize, sums: &mut [V; COLUMNS]| {
        // SAFETY: only called with the groups of the run, which `new` has checked.
        unsafe {
            let weights = operands.weights(token, group);
            let inputs = V::inputs(token, operands.inputs.as_ptr().add(group * 4));
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = sum.add_products(weights, inputs);
            }
        }
    };
    let mut group = 0;
    while group + CHAINS <= groups {
        for (chain, sums) in chains.iter_mut().enumerate() {
            add(group + chain, sums);
        }
        group += CHAINS;
    }
    for group in group..groups {
        add(group, &mut sums);
    }
    for chain in chains {
        for (sum, more) in sums.iter_mut().zip(chain) {
            *sum = sum.add(more);
        }
    }
    sums
}

/// What the sums of the columns are if all inputs are 0: their excess.
#[inline(always)]
pub(crate) fn excess<V: Int8Vector, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, COLUMNS>,
) -> [V; COLUMNS] {
    let mut sums = [V::splat(token, 0); COLUMNS];
    if V::EXCESS_OF_WEIGHTS {
        for group in 0..operands.runs.count * operands.runs.groups {
            // SAFETY: the array has four bytes, and the group is one of those that `new` has checked.
            unsafe {
                let inputs = V::inputs(token, [0i8; 4].as_ptr());
                for (sum, weights) in sums.iter_mut().zip(operands.weights(token, group)) {
                    *sum = sum.add_products(weights, inputs);
                }
            }
        }
    }
    sums
}
