//! The inner loops of the int8 kernels: tiles of sums, rows of inputs times vectors of a weight panel.
//!
//! No closures, here and in the kernels: a closure that operates on vectors, passed to a function of the standard library,
//! is compiled without the backend's instructions.

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
        let within =
            |column: &Column| column.group <= last_group && column.lane < 16 && column.lane.is_multiple_of(V::LANES);
        columns.iter().all(within).then_some(Self { inputs, weights, columns, runs, last_row, vector: PhantomData })
    }

    /// Adds the products of one group to the sums of one row, whose inputs begin at `start`.
    ///
    /// # Safety
    /// `start` must not be behind `last_row`; `group` and `input` must be those of a group of the runs.
    #[inline(always)]
    unsafe fn add_group(&self, token: V::Token, [group, input]: [usize; 2], start: usize, sums: &mut [V; COLUMNS]) {
        // SAFETY: the caller vouches for the inputs; `new` has checked that the groups of the runs follow each column's first,
        // and the lanes.
        unsafe {
            let inputs = V::inputs(token, self.inputs.as_ptr().add(start + input));
            for (sum, column) in sums.iter_mut().zip(self.columns) {
                let weights = V::weights(token, self.weights.as_ptr().add(column.group + group), column.lane);
                *sum = sum.add_products(weights, inputs);
            }
        }
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
            for (start, sums) in starts.iter().zip(&mut sums) {
                // SAFETY: no row begins behind the last that has all inputs.
                unsafe { operands.add_group(token, [run * groups + group, input], *start, sums) };
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
    let mut group = 0;
    while group + CHAINS <= groups {
        for (chain, sums) in chains.iter_mut().enumerate() {
            // SAFETY: a group of the run, and there is at least one row.
            unsafe { operands.add_group(token, [group + chain, (group + chain) * 4], 0, sums) };
        }
        group += CHAINS;
    }
    for group in group..groups {
        // SAFETY: likewise.
        unsafe { operands.add_group(token, [group, group * 4], 0, &mut sums) };
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
        // One row of zeros for all groups.
        let zeros = Operands { inputs: &[0; 4], ..*operands };
        for group in 0..operands.runs.count * operands.runs.groups {
            // SAFETY: a group of the runs, whose inputs are the four at the beginning.
            unsafe { zeros.add_group(token, [group, 0], 0, &mut sums) };
        }
    }
    sums
}
