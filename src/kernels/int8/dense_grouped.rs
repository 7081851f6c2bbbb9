//! The fully connected layer with grouped int8 weights, over the vectors of a backend.

use super::requantize::{Epilogue, Target};
use super::scaling::Scaling;
use super::tensor::{GROUPED_PANEL, Group, Int8Tensor};
use super::vector::Int8Vector;
use crate::kernels::backend::Backend;
use crate::kernels::backend::int8::Int8Kernel;
use crate::kernels::backend::int8::tile::{
    Column, Operands, Runs, accumulate, accumulate_listed, accumulate_row, non_zero_groups,
};
use crate::kernels::backend::non_zero::{NonZero, Numbers};

/// A dense layer of some rows with grouped weights.
#[inline(never)]
pub(crate) fn dense_grouped(backend: Backend, x: &[i8], tensor: &Int8Tensor<'_>, epilogue: &Epilogue, out: Target<'_>) {
    if x.len() == tensor.inputs() {
        backend.dispatch_int8(RowKernel { x, tensor, epilogue, out });
    } else {
        backend.dispatch_int8(RowsKernel { x, tensor, epilogue, out });
    }
}

/// The fewest outputs for which groups of inputs that are 0 are looked for: fewer take no longer than the search.
const MIN_OUTPUTS: usize = 32;

/// The vectors from output `first` on, of which a sum has so many groups of weights.
#[inline(always)]
pub(super) fn columns<V: Int8Vector, const COLUMNS: usize>(groups: usize, first: usize) -> [Column; COLUMNS] {
    core::array::from_fn(|column| {
        let output = first + column * V::LANES;
        Column { group: output / GROUPED_PANEL * groups, lane: output % GROUPED_PANEL }
    })
}

/// The sums of a row, with the inputs beyond the last whole group of four apart.
struct Row<'a> {
    x: &'a [i8],
    /// Zeros behind them.
    rest: [i8; 4],
    weights: &'a [Group],
}

impl<'a> Row<'a> {
    #[inline(always)]
    fn new(x: &'a [i8], weights: &'a [Group]) -> Self {
        // (A loop would become a call of `memcpy`, before which all vectors are saved.)
        let rest = match *x.as_chunks::<4>().1 {
            [a] => [a, 0, 0, 0],
            [a, b] => [a, b, 0, 0],
            [a, b, c] => [a, b, c, 0],
            _ => [0; 4],
        };
        Self { x, rest, weights }
    }

    /// The sums from output `first` on, in `CHAINS` that take turns; of the whole groups those with these numbers are enough.
    #[inline(always)]
    fn sums<V: Int8Vector, const COLUMNS: usize, const CHAINS: usize>(
        &self,
        token: V::Token,
        numbers: Option<Numbers<'_>>,
        start: V,
        first: usize,
    ) -> [V; COLUMNS] {
        let (groups, whole) = (self.x.len().div_ceil(4), self.x.len() / 4);
        let columns = columns::<V, COLUMNS>(groups, first);
        let mut sums = [start; COLUMNS];
        let run = |groups| Runs { count: 1, pitch: 0, groups };
        if let Some(operands) = Operands::<V, COLUMNS>::new(self.x, self.weights, columns, run(whole)) {
            sums = accumulate_row::<V, CHAINS, COLUMNS>(token, &operands, numbers, sums);
        }
        if whole < groups {
            let columns = columns.map(|column| Column { group: column.group + whole, ..column });
            if let Some(operands) = Operands::<V, COLUMNS>::new(&self.rest, self.weights, columns, run(1)) {
                sums = accumulate_row::<V, 1, COLUMNS>(token, &operands, None, sums);
            }
        }
        sums
    }
}

/// A dense layer of one row: each weight is read once, so they come in the order in which they lie.
struct RowKernel<'a> {
    x: &'a [i8],
    tensor: &'a Int8Tensor<'a>,
    epilogue: &'a Epilogue,
    out: Target<'a>,
}

impl Int8Kernel for RowKernel<'_> {
    #[inline(always)]
    fn run<
        V: Int8Vector,
        const ROWS: usize,
        const COLUMNS: usize,
        const SINGLE: usize,
        const CHAINS: usize,
        const WINDOWS: usize,
    >(
        self,
        token: V::Token,
    ) {
        if V::are_non_negative(token, self.x) {
            self.outputs::<V::NonNegative, SINGLE, CHAINS>(token);
        } else {
            self.outputs::<V, SINGLE, CHAINS>(token);
        }
    }
}

impl RowKernel<'_> {
    #[inline(always)]
    fn outputs<V: Int8Vector, const SINGLE: usize, const CHAINS: usize>(mut self, token: V::Token) {
        let row = Row::new(self.x, self.tensor.grouped_weights());
        let start = V::splat(token, 0).sub(V::excess_of_inputs(token, self.x));
        let mut room = NonZero::new();
        let numbers = if self.tensor.outputs() >= MIN_OUTPUTS {
            non_zero_groups(token, self.x, [0], self.x.len() / 4, &mut room)
        } else {
            None
        };
        let mut first = 0;
        while first < self.tensor.outputs() {
            let sums = row.sums::<V, SINGLE, CHAINS>(token, numbers, start, first);
            let scaling = Scaling::<V, SINGLE>::new(token, *self.epilogue, self.tensor, first);
            scaling.store(sums, self.out.part(first, SINGLE * V::LANES));
            first += SINGLE * V::LANES;
        }
    }
}

/// A dense layer of some rows: tiles of `ROWS` rows, so that each weight that is read serves all of them.
struct RowsKernel<'a> {
    x: &'a [i8],
    tensor: &'a Int8Tensor<'a>,
    epilogue: &'a Epilogue,
    out: Target<'a>,
}

impl Int8Kernel for RowsKernel<'_> {
    #[inline(always)]
    fn run<
        V: Int8Vector,
        const ROWS: usize,
        const COLUMNS: usize,
        const SINGLE: usize,
        const CHAINS: usize,
        const WINDOWS: usize,
    >(
        mut self,
        token: V::Token,
    ) {
        let (inputs, outputs) = (self.tensor.inputs(), self.tensor.outputs());
        let rows = self.x.len().checked_div(inputs).unwrap_or(0);
        let mut row = 0;
        while row + ROWS <= rows {
            self.tile::<V, ROWS, COLUMNS>(token, row);
            row += ROWS;
        }
        if row < rows && rows >= ROWS {
            // The last tile computes some rows once more, which is faster than one row after the other.
            self.tile::<V, ROWS, COLUMNS>(token, rows - ROWS);
            return;
        }
        for row in row..rows {
            let x = self.x.get(row * inputs..(row + 1) * inputs).unwrap_or_default();
            let out = self.out.part(row * outputs, outputs);
            let kernel = RowKernel { x, tensor: self.tensor, epilogue: self.epilogue, out };
            kernel.run::<V, ROWS, COLUMNS, SINGLE, CHAINS, WINDOWS>(token);
        }
    }
}

impl RowsKernel<'_> {
    /// All outputs of the rows from `first_row` on.
    #[inline(always)]
    fn tile<V: Int8Vector, const ROWS: usize, const COLUMNS: usize>(&mut self, token: V::Token, first_row: usize) {
        let inputs = self.tensor.inputs();
        let x = self.x.get(first_row * inputs..(first_row + ROWS) * inputs).unwrap_or_default();
        if V::are_non_negative(token, x) {
            self.rows::<V::NonNegative, ROWS, COLUMNS>(token, first_row);
        } else {
            self.rows::<V, ROWS, COLUMNS>(token, first_row);
        }
    }

    #[inline(always)]
    fn rows<V: Int8Vector, const ROWS: usize, const COLUMNS: usize>(&mut self, token: V::Token, first_row: usize) {
        let (inputs, outputs) = (self.tensor.inputs(), self.tensor.outputs());
        let zero = V::splat(token, 0);
        let row = |row: usize| {
            let start = (first_row + row) * inputs;
            self.x.get(start..start + inputs).unwrap_or_default()
        };
        let mut room = NonZero::new();
        let numbers = if outputs >= MIN_OUTPUTS {
            let starts = core::array::from_fn::<_, ROWS, _>(|row| (first_row + row) * inputs);
            non_zero_groups(token, self.x, starts, inputs / 4, &mut room)
        } else {
            None
        };
        let mut tile = RowsTile::<V, ROWS> { token, first_row, numbers, rest: [[0; 4]; ROWS], starts: [zero; ROWS] };
        for (index, (rest, start)) in tile.rest.iter_mut().zip(&mut tile.starts).enumerate() {
            *rest = Row::new(row(index), &[]).rest;
            *start = zero.sub(V::excess_of_inputs(token, row(index)));
        }
        let mut first = 0;
        while first + COLUMNS * V::LANES <= outputs.next_multiple_of(GROUPED_PANEL) {
            tile.store::<COLUMNS>(self, first);
            first += COLUMNS * V::LANES;
        }
        if COLUMNS > 2 && first + V::LANES < outputs {
            tile.store::<2>(self, first);
            first += 2 * V::LANES;
        }
        while first < outputs {
            tile.store::<1>(self, first);
            first += V::LANES;
        }
    }
}

/// Some rows, whatever the outputs.
struct RowsTile<'a, V: Int8Vector, const ROWS: usize> {
    token: V::Token,
    first_row: usize,
    /// Of the whole groups of inputs, those with these numbers are enough.
    numbers: Option<Numbers<'a>>,
    /// The inputs of each row beyond the last whole group of four.
    rest: [[i8; 4]; ROWS],
    /// What the sums of each row begin with.
    starts: [V; ROWS],
}

impl<V: Int8Vector, const ROWS: usize> RowsTile<'_, V, ROWS> {
    /// Computes and stores the outputs of `COLUMNS` vectors.
    #[inline(always)]
    fn store<const COLUMNS: usize>(&self, layer: &mut RowsKernel<'_>, first: usize) {
        let (inputs, outputs) = (layer.tensor.inputs(), layer.tensor.outputs());
        let weights = layer.tensor.grouped_weights();
        let (groups, whole) = (inputs.div_ceil(4), inputs / 4);
        let columns = columns::<V, COLUMNS>(groups, first);
        let run = |groups| Runs { count: 1, pitch: 0, groups };
        let mut sums = [[V::splat(self.token, 0); COLUMNS]; ROWS];
        for (sums, start) in sums.iter_mut().zip(self.starts) {
            *sums = [start; COLUMNS];
        }
        if let Some(operands) = Operands::<V, COLUMNS>::new(layer.x, weights, columns, run(whole)) {
            let rows = core::array::from_fn(|row| (self.first_row + row) * inputs);
            let more = match self.numbers {
                Some(numbers) => accumulate_listed(self.token, &operands, rows, numbers, sums),
                None => accumulate(self.token, &operands, rows, sums),
            };
            if let Some(more) = more {
                sums = more;
            }
        }
        if whole < groups {
            let columns = columns.map(|column| Column { group: column.group + whole, ..column });
            let rest = self.rest.as_flattened();
            if let Some(operands) = Operands::<V, COLUMNS>::new(rest, weights, columns, run(1))
                && let Some(more) = accumulate(self.token, &operands, core::array::from_fn(|row| row * 4), sums)
            {
                sums = more;
            }
        }
        let width = (COLUMNS * V::LANES).min(outputs.saturating_sub(first));
        let scaling = Scaling::<V, COLUMNS>::new(self.token, *layer.epilogue, layer.tensor, first);
        let out = layer.out.part(self.first_row * outputs + first, usize::MAX);
        scaling.store_rows(&sums, out, [outputs, width]);
    }
}
