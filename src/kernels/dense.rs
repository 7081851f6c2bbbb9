//! The fully connected layer: rows of inputs times packed weights.

use super::backend::narrow::accumulate_narrow;
use super::backend::tile::{Inputs, Operands, Runs, Tile, Weights, accumulate_run};
use super::backend::{Backend, Kernel};
use super::pack::{Columns, PANEL, Panels, Weight};
use super::vector::Vector;
use core::ops::Range;

/// `out = max(floor, x · W + b)` for rows of f32 inputs.
///
/// `x` is `[rows, inputs]` and `out` is `[rows, outputs]`, both row-major; `floor` is 0 for a ReLU and negative infinity
/// for no activation. Does nothing if the lengths of `x` and `out` are not those of the same number of rows.
pub fn dense<W: Weight>(backend: Backend, x: &[f32], weights: Panels<'_, W>, floor: f32, out: &mut [f32]) {
    let rows = x.len().checked_div(weights.inputs()).unwrap_or(0);
    dense_rows(backend, rows, x, weights, floor, out);
}

/// [`dense`] for rows of bytes `b`, each of which stands for `b * scale + offset`.
///
/// The bytes are converted a few at a time, so that no buffer for the whole input is needed.
pub fn dense_bytes<W: Weight>(
    backend: Backend,
    x: &[u8],
    scaling: (f32, f32),
    weights: Panels<'_, W>,
    floor: f32,
    out: &mut [f32],
) {
    let rows = x.len().checked_div(weights.inputs()).unwrap_or(0);
    dense_bytes_rows(backend, rows, x, scaling, weights, floor, out);
}

/// [`dense`] for a number of rows that the caller knows; where that is the constant 1, no code for more is linked.
#[inline(always)]
pub(crate) fn dense_rows<W: Weight>(
    backend: Backend,
    rows: usize,
    x: &[f32],
    weights: Panels<'_, W>,
    floor: f32,
    out: &mut [f32],
) {
    if x.len() == rows * weights.inputs() && out.len() == rows * weights.outputs() {
        if rows == 1 && W::dense_without_vectors(Inputs::plain(x), weights, floor, out) {
            return;
        }
        let part = Part { x, row_stride: weights.inputs(), first: 0, len: weights.inputs(), begin: true, floor };
        dense_part(backend, rows, part, weights, out);
    }
}

/// [`dense_bytes`], likewise.
#[inline(always)]
pub(crate) fn dense_bytes_rows<W: Weight>(
    backend: Backend,
    rows: usize,
    x: &[u8],
    (scale, offset): (f32, f32),
    weights: Panels<'_, W>,
    floor: f32,
    out: &mut [f32],
) {
    /// Inputs at a time: so many that picking up and putting down the sums costs little beside the products.
    const LEN: usize = 128;
    /// Rows at a time: a few tiles, but on the small stack of a microcontroller, which has one image at a time, a single one.
    const ROWS: usize = if cfg!(target_os = "none") { 1 } else { 24 };
    let (inputs, outputs) = (weights.inputs(), weights.outputs());
    if x.len() != rows * inputs || out.len() != rows * outputs || inputs == 0 || outputs == 0 {
        return;
    }
    if rows == 1 && W::dense_without_vectors(Inputs { values: x, scale, offset }, weights, floor, out) {
        return;
    }
    let mut buffer = [0.0; LEN * ROWS];
    // (Slices by hand: where iterators over chunks are zipped, the compiler loses sight of lengths that are not 0.)
    let (mut x, mut out) = (x, out);
    while !x.is_empty() {
        let rows = if ROWS == 1 || rows == 1 { 1 } else { ROWS.min(x.len() / inputs) };
        let (Some((these, others)), Some((made, rest))) =
            (x.split_at_checked(rows * inputs), out.split_at_mut_checked(rows * outputs))
        else {
            return;
        };
        (x, out) = (others, rest);
        // A single row has the whole buffer.
        let row_stride = if rows == 1 { LEN * ROWS } else { LEN };
        let mut first = 0;
        while first < inputs {
            let len = row_stride.min(inputs - first);
            for row in 0..rows {
                let bytes = these.get(row * inputs + first..).and_then(|bytes| bytes.get(..len)).unwrap_or_default();
                let values = buffer.get_mut(row * row_stride..).unwrap_or_default();
                Inputs { values: bytes, scale, offset }.convert(values);
            }
            let floor = if first + len == inputs { floor } else { f32::NEG_INFINITY };
            let part = Part { x: &buffer, row_stride, first, len, begin: first == 0, floor };
            dense_part(backend, rows, part, weights, &mut *made);
            first += len;
        }
    }
}

/// A part of the products of every sum.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// The part's inputs; those of the next row begin `row_stride` further on.
    x: &'a [f32],
    row_stride: usize,
    /// The rows of weights that belong to them.
    first: usize,
    len: usize,
    /// Whether the sums begin with the biases, or go on with what `out` holds.
    begin: bool,
    /// The least value that is stored.
    floor: f32,
}

#[inline(always)]
fn dense_part<W: Weight>(backend: Backend, rows: usize, part: Part<'_>, weights: Panels<'_, W>, out: &mut [f32]) {
    let sums = Sums { part, weights, rows, out };
    if rows == 1 { W::dense(backend, sums) } else { W::dense_batch(backend, sums) }
}

/// What a dense kernel computes.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct Sums<'a, W> {
    part: Part<'a>,
    weights: Panels<'a, W>,
    rows: usize,
    out: &'a mut [f32],
}

/// The kernel for a single row.
pub(super) struct RowKernel<'a, W>(pub(super) Sums<'a, W>);

impl<W: Weight> Kernel for RowKernel<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        mut self,
        token: V::Token,
    ) {
        let outputs = self.0.weights.outputs();
        let full = outputs / PANEL * PANEL;
        self.0.columns::<V, 1, SINGLE>(token, 0..full);
        let added = self.0.begin_narrow_panel::<V, 1>(token, full);
        if added > 0 {
            let Part { x, first, len, .. } = self.0.part;
            let x = x.get(added..).unwrap_or_default();
            self.0.part = Part { x, first: first + added, len: len - added, begin: false, ..self.0.part };
        }
        self.0.columns::<V, 1, SINGLE>(token, full..outputs);
    }
}

/// The kernel for any number of rows.
pub(super) struct RowsKernel<'a, W>(pub(super) Sums<'a, W>);

impl<W: Weight> Kernel for RowsKernel<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) {
        let Sums { part: whole, weights, rows, out } = self.0;
        let block = (WEIGHTS_AT_A_TIME / (COLUMNS * V::LANES)).max(1);
        for (index, out) in out.chunks_mut((ROWS_AT_A_TIME * weights.outputs()).max(1)).enumerate() {
            let row = index * ROWS_AT_A_TIME;
            let x = whole.x.get(row * whole.row_stride..).unwrap_or_default();
            let rows = ROWS_AT_A_TIME.min(rows - row);
            // The outputs that are computed from the first input on, and those of a narrow panel, of which a part has been.
            let (mut full, mut begun) = (weights.outputs(), 0);
            // (Vectors of eight would leave few lanes empty, and have half as many registers for the sums.)
            if V::PERMUTES && V::LANES == PANEL && whole.len >= MIN_NARROW_INPUTS {
                let panels = weights.outputs() / PANEL * PANEL;
                let part = Part { x, ..whole };
                begun =
                    Sums { part, weights, rows, out: &mut *out }.begin_narrow_panel::<V, NARROW_ROWS>(token, panels);
                full = if begun > 0 { panels } else { full };
            }
            for (outputs, begun) in [(0..full, 0), (full..weights.outputs(), begun)] {
                for first in (begun..whole.len).step_by(block) {
                    let len = block.min(whole.len - first);
                    let last = first + len == whole.len;
                    let part = Part {
                        x: x.get(first..).unwrap_or_default(),
                        row_stride: whole.row_stride,
                        first: whole.first + first,
                        len,
                        begin: whole.begin && first == 0,
                        floor: if last { whole.floor } else { f32::NEG_INFINITY },
                    };
                    Sums { part, weights, rows, out: &mut *out }.columns::<V, ROWS, COLUMNS>(token, outputs.clone());
                }
            }
        }
    }
}

/// Rows whose inputs and sums stay in the second-level cache while the weights pass by, a part after the other; a multiple
/// of the rows of most tiles.
const ROWS_AT_A_TIME: usize = 96;
/// The weights of such a part, for a tile's columns: they stay in the second-level cache while row after row passes by.
const WEIGHTS_AT_A_TIME: usize = 32_768;

/// Rows of a narrow panel at a time.
const NARROW_ROWS: usize = 4;
/// The fewest inputs of a batch for which a narrow panel is worth a loop of its own.
const MIN_NARROW_INPUTS: usize = 512;

impl<W: Weight> Sums<'_, W> {
    /// Computes a part of the sums of the panel that begins with output `full`, `ROWS` rows at a time: of how many inputs. None
    /// if it is not narrow enough to be worth it; at least one input is left over.
    #[inline(always)]
    fn begin_narrow_panel<V: Vector, const ROWS: usize>(&mut self, token: V::Token, full: usize) -> usize {
        let (mut row, mut added) = (0, 0);
        while row < self.rows {
            added = self.narrow::<V, ROWS>(token, full, row);
            if added == 0 {
                return 0;
            }
            row += ROWS;
        }
        added
    }

    /// Computes a part of the sums of rows `row..row + ROWS` of that panel, or of as many as there are: of how many inputs,
    /// which depends on nothing but sizes.
    #[inline(always)]
    fn narrow<V: Vector, const ROWS: usize>(&mut self, token: V::Token, full: usize, row: usize) -> usize {
        let Part { x, row_stride, first, len, begin, .. } = self.part;
        let outputs = self.weights.outputs();
        let width = outputs - full;
        let Some(panel) = self.weights.columns::<1>(PANEL, full, outputs) else { return 0 };
        let [start] = panel.starts;
        let Some(weights) = panel.weights.get(start + first * width..) else { return 0 };
        let mut rows: [&[f32]; ROWS] = [&[]; ROWS];
        for (r, values) in rows.iter_mut().enumerate() {
            // One input at least is left over, with which the sums are completed. Rows that are too many repeat the last.
            let x = x.get((row + r).min(self.rows - 1) * row_stride..).and_then(|x| x.get(..len.saturating_sub(1)));
            *values = x.unwrap_or_default();
        }
        let mut sums = [[0.0; PANEL]; ROWS];
        let added = accumulate_narrow::<V, W, ROWS>(token, rows, weights, width, &mut sums);
        if added == 0 {
            return 0;
        }
        for (r, sums) in sums.iter().enumerate().take(self.rows - row) {
            let out = self.out.get_mut((row + r) * outputs + full..).unwrap_or_default();
            for (index, (out, sum)) in out.iter_mut().take(width).zip(sums).enumerate() {
                let from = if begin { panel.bias.get(index).copied().unwrap_or_default() } else { *out };
                *out = from + sum;
            }
        }
        added
    }

    /// Some columns, as many vectors of them at a time as there are left, up to `COLUMNS`.
    #[inline(always)]
    fn columns<V: Vector, const ROWS: usize, const COLUMNS: usize>(&mut self, token: V::Token, outputs: Range<usize>) {
        let mut first = outputs.start;
        if outputs.is_empty() {
            return;
        }
        while let Some(columns) = self.weights.columns::<COLUMNS>(V::LANES, first, outputs.end) {
            self.rows::<V, ROWS, COLUMNS>(token, columns);
            first += COLUMNS * V::LANES;
        }
        if COLUMNS > 4 {
            while let Some(columns) = self.weights.columns::<4>(V::LANES, first, outputs.end) {
                self.rows::<V, ROWS, 4>(token, columns);
                first += 4 * V::LANES;
            }
        }
        if COLUMNS > 2 && V::UNROLL {
            while let Some(columns) = self.weights.columns::<2>(V::LANES, first, outputs.end) {
                self.rows::<V, ROWS, 2>(token, columns);
                first += 2 * V::LANES;
            }
        }
        while let Some(columns) = self.weights.columns::<1>(V::LANES, first, outputs.end) {
            self.rows::<V, ROWS, 1>(token, columns);
            first += V::LANES;
        }
    }

    /// All rows of some columns.
    #[inline(always)]
    fn rows<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        token: V::Token,
        columns: Columns<'_, W, COLUMNS>,
    ) {
        let Part { x, first, len, .. } = self.part;
        let weights = Weights {
            values: columns.weights.get(first * columns.width..).unwrap_or_default(),
            columns: columns.starts,
            stride: columns.width,
        };
        let Some(operands) = Operands::new(Inputs::plain(x), weights, Runs { count: 1, pitch: 0, len }) else { return };
        let mut bias = [V::splat(token, 0.0); COLUMNS];
        for (c, bias) in bias.iter_mut().enumerate() {
            *bias = V::load(token, columns.bias.get(c * V::LANES..).unwrap_or_default());
        }
        let group = Group { operands, bias, first: columns.first };
        let mut row = 0;
        while row + ROWS <= self.rows {
            self.tile::<V, ROWS, COLUMNS>(token, &group, row);
            row += ROWS;
        }
        if ROWS > 4 && row + 4 <= self.rows {
            self.tile::<V, 4, COLUMNS>(token, &group, row);
            row += 4;
        }
        if ROWS > 2 && V::UNROLL && row + 2 <= self.rows {
            self.tile::<V, 2, COLUMNS>(token, &group, row);
            row += 2;
        }
        while ROWS > 1 && row < self.rows {
            self.tile::<V, 1, COLUMNS>(token, &group, row);
            row += 1;
        }
    }

    /// Rows `row..row + ROWS` of some columns.
    #[inline(always)]
    fn tile<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        token: V::Token,
        group: &Group<'_, V, W, COLUMNS>,
        row: usize,
    ) {
        let Part { row_stride, begin, floor, .. } = self.part;
        // (Plain loops: `array::from_fn` is not always inlined into code with other target features.)
        let mut rows = [row * row_stride; ROWS];
        for (r, start) in rows.iter_mut().enumerate() {
            *start += r * row_stride;
        }
        let tile = if begin { [group.bias; ROWS] } else { self.load::<V, ROWS, COLUMNS>(token, group, row) };
        let tile = accumulate_run(token, &group.operands, rows, tile);
        self.store::<V, ROWS, COLUMNS>(&tile, V::splat(token, floor), group.first, row);
    }

    /// The sums so far.
    #[inline(always)]
    fn load<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &self,
        token: V::Token,
        group: &Group<'_, V, W, COLUMNS>,
        row: usize,
    ) -> Tile<V, ROWS, COLUMNS> {
        let mut tile = [group.bias; ROWS];
        for (r, sums) in tile.iter_mut().enumerate() {
            let from = (row + r) * self.weights.outputs() + group.first;
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(token, self.out.get(from + c * V::LANES..).unwrap_or_default());
            }
        }
        tile
    }

    /// Stores the sums of a tile. The loops are simple enough to be unrolled, both of them, which keeps the tile in registers.
    #[inline(always)]
    fn store<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        tile: &Tile<V, ROWS, COLUMNS>,
        floor: V,
        first: usize,
        row: usize,
    ) {
        let outputs = self.weights.outputs();
        // The last vector of all may reach beyond the row.
        let width = (outputs - first).min(COLUMNS * V::LANES);
        let rows = tile.iter().enumerate().map(|(r, sums)| (sums, (row + r) * outputs + first));
        // Vectors as wide as a panel are full where there are several: a narrower panel is apart.
        if width == COLUMNS * V::LANES || (COLUMNS > 1 && V::LANES == PANEL) {
            for (sums, to) in rows {
                let to = self.out.get_mut(to..to + COLUMNS * V::LANES).unwrap_or_default();
                for (sum, to) in sums.iter().zip(to.chunks_exact_mut(V::LANES)) {
                    floor.max(*sum).store(to);
                }
            }
        } else {
            for (sums, to) in rows {
                let to = self.out.get_mut(to..to + width).unwrap_or_default();
                for (c, sum) in sums.iter().enumerate() {
                    floor.max(*sum).store(to.get_mut(c * V::LANES..).unwrap_or_default());
                }
            }
        }
    }
}

/// Some vectors of outputs, for all rows.
struct Group<'a, V, W, const COLUMNS: usize> {
    operands: Operands<'a, V, f32, W, COLUMNS>,
    bias: [V; COLUMNS],
    /// The index of the first output.
    first: usize,
}
