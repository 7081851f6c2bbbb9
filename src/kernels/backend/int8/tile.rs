//! The inner loops of the int8 kernels: tiles of sums, rows of inputs times vectors of a weight panel.
//!
//! No closures, here and in the kernels: a closure that operates on vectors, passed to a function of the standard library,
//! is compiled without the backend's instructions.

use crate::kernels::backend::non_zero::{FindNonZero, NonZero, Numbers};
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

/// One run of the inputs of some rows, and its weights for some vectors of outputs.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a, const ROWS: usize, const COLUMNS: usize> {
    /// Where the inputs of each row begin.
    pub(crate) inputs: [*const i8; ROWS],
    /// The first group of each column.
    pub(crate) weights: [*const Group; COLUMNS],
    /// The first lane of each column within a group.
    pub(crate) lanes: [usize; COLUMNS],
    pub(crate) groups: Groups<'a>,
}

/// Which groups of a run are added up.
#[derive(Clone, Copy)]
pub(crate) enum Groups<'a> {
    /// So many: all of them.
    All(usize),
    /// Those with these numbers.
    Listed(&'a [u16]),
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

    /// The run that begins `group` groups behind the columns' first and `input` inputs behind the rows' starts.
    ///
    /// # Safety
    /// No start may be behind `last_row`, and the run must be one of the operands'.
    #[inline(always)]
    unsafe fn run<'g, const ROWS: usize>(
        &self,
        starts: [usize; ROWS],
        group: usize,
        input: usize,
        groups: Groups<'g>,
    ) -> Run<'g, ROWS, COLUMNS> {
        let mut run = Run {
            inputs: [self.inputs.as_ptr(); ROWS],
            weights: [self.weights.as_ptr(); COLUMNS],
            lanes: self.columns.map(|column| column.lane),
            groups,
        };
        for (inputs, start) in run.inputs.iter_mut().zip(starts) {
            // SAFETY: the caller vouches for the inputs.
            *inputs = unsafe { inputs.add(start + input) };
        }
        for (weights, column) in run.weights.iter_mut().zip(self.columns) {
            // SAFETY: `new` has checked that the groups of the runs follow each column's first.
            *weights = unsafe { weights.add(column.group + group) };
        }
        run
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
        // SAFETY: no row begins behind the last that has all inputs, and `new` has checked the columns' groups and lanes; with
        // nothing to add up there were no operands.
        sums = unsafe { V::add_run(token, operands.run(starts, run * groups, run * pitch, Groups::All(groups)), sums) };
    }
    Some(sums)
}

/// [`accumulate`] of the groups with these numbers only; `None` also if there are other ones among them, or more than one run.
#[inline(always)]
pub(crate) fn accumulate_listed<V: Int8Vector, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, COLUMNS>,
    starts: [usize; ROWS],
    numbers: Numbers<'_>,
    sums: [[V; COLUMNS]; ROWS],
) -> Option<[[V; COLUMNS]; ROWS]> {
    let Runs { count, groups, .. } = operands.runs;
    if count != 1 || !numbers.are_below(groups) || starts.iter().any(|start| *start > operands.last_row) {
        return None;
    }
    // SAFETY: no row begins behind the last that has all inputs, the groups are some of the run, and `new` has checked the
    // columns.
    Some(unsafe { V::add_run(token, operands.run(starts, 0, 0, Groups::Listed(numbers.numbers())), sums) })
}

/// The numbers of the groups of inputs, of the first `groups` of the rows that begin at `starts`, that are not all zero in all
/// rows; `None` if it is as well to take all of them.
#[inline(always)]
pub(crate) fn non_zero_groups<'r, T: FindNonZero, const ROWS: usize>(
    token: T,
    inputs: &[i8],
    starts: [usize; ROWS],
    groups: usize,
    room: &'r mut NonZero,
) -> Option<Numbers<'r>> {
    let last = inputs.len().checked_sub(4 * groups)?;
    if starts.iter().any(|start| *start > last) {
        return None;
    }
    let mut rows = [inputs.as_ptr().cast::<u32>(); ROWS];
    for (row, start) in rows.iter_mut().zip(starts) {
        // SAFETY: all groups follow the start within the inputs.
        *row = unsafe { inputs.as_ptr().add(start).cast() };
    }
    // SAFETY: likewise.
    unsafe { room.find(token, rows, groups) }
}

/// [`Int8Vector::add_run`] for any vector and any shape of a tile.
///
/// # Safety
/// As there.
#[inline(always)]
pub(crate) unsafe fn add_run<V: Int8Vector, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    run: Run<'_, ROWS, COLUMNS>,
    mut sums: [[V; COLUMNS]; ROWS],
) -> [[V; COLUMNS]; ROWS] {
    match run.groups {
        Groups::All(groups) => {
            for group in 0..groups {
                // SAFETY: the caller vouches for each group.
                unsafe { add_group(token, &run, group, &mut sums) };
            }
        }
        Groups::Listed(numbers) => {
            for number in numbers {
                // SAFETY: likewise.
                unsafe { add_group(token, &run, usize::from(*number), &mut sums) };
            }
        }
    }
    sums
}

/// Adds to each row of `sums` the products of one group of a run.
///
/// # Safety
/// The group must be one of the run's.
#[inline(always)]
unsafe fn add_group<V: Int8Vector, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    run: &Run<'_, ROWS, COLUMNS>,
    group: usize,
    sums: &mut [[V; COLUMNS]; ROWS],
) {
    for (from, sums) in run.inputs.iter().zip(sums) {
        // SAFETY: the caller vouches for the group's inputs and weights.
        unsafe {
            let inputs = V::inputs(token, from.add(group * 4));
            for (sum, (from, lane)) in sums.iter_mut().zip(run.weights.iter().zip(run.lanes)) {
                *sum = sum.add_products(V::weights(token, from.add(group), lane), inputs);
            }
        }
    }
}

/// Adds to `sums` the products of the inputs of the first row, those of the groups with the `numbers` if there are some. A sum has
/// to wait for the one before it, so `CHAINS` of them take turns.
#[inline(always)]
pub(crate) fn accumulate_row<V: Int8Vector, const CHAINS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, V, COLUMNS>,
    numbers: Option<Numbers<'_>>,
    sums: [V; COLUMNS],
) -> [V; COLUMNS] {
    let Runs { count, groups, .. } = operands.runs;
    if count != 1 {
        return sums;
    }
    // SAFETY: there is at least one row, and a single run.
    let run = unsafe { operands.run([0], 0, 0, Groups::All(groups)) };
    let mut chains = [[[V::splat(token, 0); COLUMNS]; 1]; CHAINS];
    let mut sums = [sums];
    if let Some(numbers) = numbers.filter(|numbers| numbers.are_below(groups)) {
        let (whole, rest) = numbers.numbers().as_chunks::<CHAINS>();
        for numbers in whole {
            for (number, sums) in numbers.iter().zip(&mut chains) {
                // SAFETY: some of the groups of the run.
                unsafe { add_group(token, &run, usize::from(*number), sums) };
            }
        }
        for number in rest {
            // SAFETY: likewise.
            unsafe { add_group(token, &run, usize::from(*number), &mut sums) };
        }
    } else {
        let mut group = 0;
        while group + CHAINS <= groups {
            for (chain, sums) in chains.iter_mut().enumerate() {
                // SAFETY: a group of the run.
                unsafe { add_group(token, &run, group + chain, sums) };
            }
            group += CHAINS;
        }
        for group in group..groups {
            // SAFETY: likewise.
            unsafe { add_group(token, &run, group, &mut sums) };
        }
    }
    let [mut sums] = sums;
    for [chain] in &chains {
        for (sum, more) in sums.iter_mut().zip(chain) {
            *sum = sum.add(*more);
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
    static ZEROS: [i8; 4] = [0; 4];
    let mut sums = [[V::splat(token, 0); COLUMNS]];
    if V::EXCESS_OF_WEIGHTS {
        let Runs { count, groups, .. } = operands.runs;
        for group in 0..count * groups {
            // SAFETY: a group of the runs, whose inputs are four zeros.
            unsafe {
                let mut run = operands.run([0], group, 0, Groups::All(1));
                run.inputs = [ZEROS.as_ptr()];
                add_group(token, &run, 0, &mut sums);
            }
        }
    }
    let [sums] = sums;
    sums
}
