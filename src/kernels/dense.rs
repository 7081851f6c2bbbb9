//! The fully connected layer: rows of inputs times packed weights.

use super::backend::narrow::accumulate_narrow;
use super::backend::non_zero::{MIN_WORDS, NonZero, Numbers};
use super::backend::tile::{
    Inputs, Operands, Product, Runs, Tile, Weights, accumulate_listed, accumulate_run, compute_whole_tiles,
    non_zero_inputs, rows_in_whole_tiles,
};
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
    if weights.fit(rows, x.len(), out.len()) {
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
    if !weights.fit(rows, x.len(), out.len()) || inputs == 0 || outputs == 0 {
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
    let mut sums = Sums { part, weights, rows, out, begun: 0, first: 0 };
    let outputs = weights.outputs();
    let panels = outputs / PANEL * PANEL;
    if rows == 1 {
        return W::dense(W::row_backend(backend), sums);
    }
    if panels < outputs {
        sums.begun = W::dense_narrow(backend, sums.reborrow());
    }
    let whole = if panels > 0 { W::dense_whole_tiles(backend, sums.reborrow()) } else { 0 };
    if whole == rows && panels == outputs {
        return;
    }
    let (beside, below) = sums.split_at(whole);
    for (mut sums, first) in [(beside, panels), (below, 0)] {
        if sums.rows > 0 && first < outputs {
            sums.first = first;
            W::dense_batch(backend, sums);
        }
    }
}

/// What a dense kernel computes.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct Sums<'a, W> {
    part: Part<'a>,
    weights: Panels<'a, W>,
    rows: usize,
    out: &'a mut [f32],
    /// How many inputs have been added already to the outputs behind the last whole panel.
    begun: usize,
    /// The first output to compute.
    first: usize,
}

impl<W: Weight> Sums<'_, W> {
    #[inline(always)]
    fn reborrow(&mut self) -> Sums<'_, W> {
        Sums { out: &mut *self.out, ..*self }
    }

    /// Those of the first `rows` rows, and the others.
    #[inline(always)]
    fn split_at(self, rows: usize) -> (Self, Self) {
        let rows = rows.min(self.rows);
        let (above, below) = self.out.split_at_mut_checked(rows * self.weights.outputs()).unwrap_or_default();
        let part = Part { x: self.part.x.get(rows * self.part.row_stride..).unwrap_or_default(), ..self.part };
        (Sums { rows, out: above, ..self }, Sums { part, rows: self.rows - rows, out: below, ..self })
    }
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
        let panels = outputs / PANEL * PANEL;
        self.0.columns::<V, 1, SINGLE>(token, 0, 0..panels);
        if V::PERMUTES {
            let added = self.0.narrow::<V, 1>(token, 0);
            let Part { x, first, len, begin, .. } = self.0.part;
            let x = x.get(added..).unwrap_or_default();
            self.0.part = Part { x, first: first + added, len: len - added, begin: begin && added == 0, ..self.0.part };
        }
        self.0.columns::<V, 1, SINGLE>(token, 0, panels..outputs);
    }
}

/// Begins the sums of the panel that is narrower than [`PANEL`], for any number of rows: of how many inputs. None if it is not worth
/// it; at least one input is left over.
pub(super) struct NarrowKernel<'a, W>(pub(super) Sums<'a, W>);

impl<W: Weight> Kernel for NarrowKernel<'_, W> {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        mut self,
        token: V::Token,
    ) -> usize {
        // (Vectors of eight would leave few lanes empty, and have half as many registers for the sums.)
        if !V::PERMUTES || V::LANES < PANEL || self.0.part.len < MIN_NARROW_INPUTS {
            return 0;
        }
        let (mut row, mut added) = (0, 0);
        while row < self.0.rows {
            added = self.0.narrow::<V, NARROW_ROWS>(token, row);
            if added == 0 {
                return 0;
            }
            row += NARROW_ROWS;
        }
        added
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
        self.0.blocks::<V, ROWS, COLUMNS, false>(token);
    }
}

/// Computes as many rows as possible, of all panels that are whole, in tiles for which the backend has a loop of its own: how
/// many.
pub(super) struct WholeTilesKernel<'a, W>(pub(super) Sums<'a, W>);

impl<W: Weight> Kernel for WholeTilesKernel<'_, W> {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) -> usize {
        if V::WHOLE_TILES == (0, 0) {
            return 0;
        }
        let rows = self.0.rows_for_whole_tiles(V::WHOLE_TILES);
        let (sums, _) = self.0.split_at(rows);
        sums.blocks::<V, ROWS, COLUMNS, true>(token);
        rows
    }
}

/// Rows whose inputs and sums stay in the second-level cache while the weights pass by, a part after the other; a multiple
/// of the rows of most tiles.
const ROWS_AT_A_TIME: usize = 96;
/// Inputs of such a part: those of a tile's rows stay in the first-level cache while the weights of all outputs pass by.
const INPUTS_AT_A_TIME: usize = 512;
/// Outputs for which the rows pass by: their weights, of a part of the inputs, stay in the second-level cache.
const OUTPUTS_AT_A_TIME: usize = 128;

/// Products of vectors that take about as long as a call of another kernel.
const WORTH_A_CALL: usize = 512;

/// Rows of a narrow panel at a time.
const NARROW_ROWS: usize = 4;
/// The fewest inputs of a batch for which a narrow panel is worth a loop of its own.
const MIN_NARROW_INPUTS: usize = 512;

impl<W: Weight> Sums<'_, W> {
    /// How many rows are left to tiles of these heights.
    #[inline(always)]
    fn rows_for_whole_tiles(&self, heights: (usize, usize)) -> usize {
        let Sums { part, mut rows, .. } = *self;
        let (_, low) = heights;
        let twice = rows_in_whole_tiles(rows, heights) - rows;
        if twice == 0 {
            return rows;
        }
        // Where nothing is added to sums that are there already, some rows may be computed twice.
        let products = self.weights.outputs() / PANEL * part.len * twice;
        if part.begin && part.len <= INPUTS_AT_A_TIME && rows >= low && products <= WORTH_A_CALL {
            return rows;
        }
        while rows_in_whole_tiles(rows, heights) > rows {
            rows -= 1;
        }
        rows
    }

    /// All sums, of so many rows and from so many inputs at a time that they stay in the caches; `WHOLE`: of the whole panels
    /// only, in the backend's own tiles.
    #[inline(always)]
    fn blocks<V: Vector, const ROWS: usize, const COLUMNS: usize, const WHOLE: bool>(self, token: V::Token) {
        let (outputs, first) = (self.weights.outputs(), self.first);
        // Most often all outputs begin with the first input.
        let panels = if WHOLE || self.begun > 0 { outputs / PANEL * PANEL } else { outputs };
        // Weights of a single part stay in the caches by themselves.
        let single = self.part.len <= INPUTS_AT_A_TIME && outputs <= OUTPUTS_AT_A_TIME;
        let mut rest = self;
        while rest.rows > 0 {
            // (Too few rows to fill a tile go with those before.)
            let all = single || rest.rows < ROWS_AT_A_TIME + ROWS;
            let rows = if all { rest.rows } else { ROWS_AT_A_TIME };
            let (mut sums, others) = rest.split_at(rows);
            if WHOLE {
                sums.parts::<V, ROWS, COLUMNS, WHOLE>(token, first..panels, 0);
            } else {
                for (outputs, begun) in [(first..panels, 0), (panels.max(first)..outputs, sums.begun)] {
                    sums.parts::<V, ROWS, COLUMNS, WHOLE>(token, outputs, begun);
                }
            }
            rest = others;
        }
    }

    /// Some outputs, a part of the inputs at a time, from input `begun` on. `WHOLE` as of `blocks`.
    #[inline(always)]
    fn parts<V: Vector, const ROWS: usize, const COLUMNS: usize, const WHOLE: bool>(
        &mut self,
        token: V::Token,
        outputs: Range<usize>,
        begun: usize,
    ) {
        let whole = self.part;
        // (A single panel's weights are soon read again, however many they are.)
        let at_a_time = if outputs.len() > PANEL { INPUTS_AT_A_TIME } else { 4 * INPUTS_AT_A_TIME };
        for first in (begun..whole.len).step_by(at_a_time) {
            let len = at_a_time.min(whole.len - first);
            self.part = Part {
                x: whole.x.get(first..).unwrap_or_default(),
                first: whole.first + first,
                len,
                begin: whole.begin && first == 0,
                floor: if first + len == whole.len { whole.floor } else { f32::NEG_INFINITY },
                ..whole
            };
            for first in outputs.clone().step_by(OUTPUTS_AT_A_TIME) {
                let end = outputs.end.min(first + OUTPUTS_AT_A_TIME);
                if WHOLE {
                    self.whole_tiles::<V>(token, first..end);
                } else {
                    self.tiles::<V, ROWS, COLUMNS>(token, first..end);
                }
            }
        }
        self.part = whole;
    }

    /// Computes a part of the sums of rows `row..row + ROWS` of the panel that is not whole, or of as many as there are: of how many
    /// inputs, which depends on nothing but sizes.
    #[inline(always)]
    fn narrow<V: Vector, const ROWS: usize>(&mut self, token: V::Token, row: usize) -> usize {
        let Part { x, row_stride, first, len, begin, .. } = self.part;
        let outputs = self.weights.outputs();
        let full = outputs / PANEL * PANEL;
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
            let first = (row + r) * outputs + full;
            let out = self.out.get_mut(first..first + width).unwrap_or_default();
            for (c, out) in out.chunks_mut(V::LANES).enumerate() {
                let lanes = c * V::LANES;
                let from = if begin { panel.bias.get(lanes..).unwrap_or_default() } else { &*out };
                let sum = V::load(token, sums.get(lanes..).unwrap_or_default());
                V::load(token, from).add(sum).store(out);
            }
        }
        added
    }

    /// All rows of some outputs, of which all panels are whole, in the backend's own tiles.
    #[inline(always)]
    fn whole_tiles<V: Vector>(&mut self, token: V::Token, outputs: Range<usize>) {
        let Part { x, row_stride, first, len, begin, floor } = self.part;
        let Some(columns) = self.weights.columns::<1>(PANEL, outputs.start, outputs.end) else { return };
        let [start] = columns.starts;
        let product = Product {
            inputs: x,
            row_pitch: row_stride,
            rows: self.rows,
            len,
            weights: columns.weights.get(start + first * PANEL..).unwrap_or_default(),
            panel_pitch: self.weights.inputs() * PANEL,
            panels: outputs.len() / PANEL,
            bias: begin.then_some(columns.bias),
            floor,
            out: self.out.get_mut(outputs.start..).unwrap_or_default(),
            out_pitch: self.weights.outputs(),
            search: outputs.len() > FEW_VECTORS * V::LANES && len >= MIN_WORDS,
        };
        compute_whole_tiles::<V, W>(token, product);
    }

    /// All rows of some outputs, as many at a time as there are left, up to `ROWS`.
    #[inline(always)]
    fn tiles<V: Vector, const ROWS: usize, const COLUMNS: usize>(&mut self, token: V::Token, outputs: Range<usize>) {
        let mut row = 0;
        while row + ROWS <= self.rows {
            self.columns::<V, ROWS, COLUMNS>(token, row, outputs.clone());
            row += ROWS;
        }
        if ROWS > 4 && row + 4 <= self.rows {
            self.columns::<V, 4, COLUMNS>(token, row, outputs.clone());
            row += 4;
        }
        if ROWS > 2 && V::UNROLL && row + 2 <= self.rows {
            self.columns::<V, 2, COLUMNS>(token, row, outputs.clone());
            row += 2;
        }
        while ROWS > 1 && row < self.rows {
            self.columns::<V, 1, COLUMNS>(token, row, outputs.clone());
            row += 1;
        }
    }

    /// Some outputs of rows `row..row + ROWS`, as many vectors at a time as there are left, up to `COLUMNS`.
    #[inline(always)]
    fn columns<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        token: V::Token,
        row: usize,
        outputs: Range<usize>,
    ) {
        let Part { x, row_stride, len, .. } = self.part;
        // (Plain loops: `array::from_fn` is not always inlined into code with other target features.)
        let mut starts = [row * row_stride; ROWS];
        for (r, start) in starts.iter_mut().enumerate() {
            *start += r * row_stride;
        }
        let mut room = NonZero::new();
        // Few sums take no longer than a search would.
        let few = if ROWS > 1 { FEW_VECTORS } else { FEW_VECTORS_OF_ONE };
        let numbers = match outputs.len() > few * V::LANES {
            true => non_zero_inputs(token, x, starts, len, &mut room),
            false => None,
        };
        let rows = Rows { row, starts, numbers };
        let (mut first, end) = (outputs.start, outputs.end);
        while let Some(columns) = self.weights.columns::<COLUMNS>(V::LANES, first, end) {
            self.tile::<V, ROWS, COLUMNS>(token, &rows, &columns);
            first += COLUMNS * V::LANES;
        }
        if COLUMNS > 4 {
            while let Some(columns) = self.weights.columns::<4>(V::LANES, first, end) {
                self.tile::<V, ROWS, 4>(token, &rows, &columns);
                first += 4 * V::LANES;
            }
        }
        if COLUMNS > 2 && V::UNROLL {
            while let Some(columns) = self.weights.columns::<2>(V::LANES, first, end) {
                self.tile::<V, ROWS, 2>(token, &rows, &columns);
                first += 2 * V::LANES;
            }
        }
        while let Some(columns) = self.weights.columns::<1>(V::LANES, first, end) {
            self.tile::<V, ROWS, 1>(token, &rows, &columns);
            first += V::LANES;
        }
    }

    /// Some columns of some rows.
    #[inline(always)]
    fn tile<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &mut self,
        token: V::Token,
        rows: &Rows<'_, ROWS>,
        columns: &Columns<'_, W, COLUMNS>,
    ) {
        let Part { x, first, len, floor, .. } = self.part;
        let Rows { row, starts, numbers } = *rows;
        let weights = Weights {
            values: columns.weights.get(first * columns.width..).unwrap_or_default(),
            columns: columns.starts,
            stride: columns.width,
        };
        let Some(operands) = Operands::new(Inputs::plain(x), weights, Runs { count: 1, pitch: 0, len }) else { return };
        let tile = self.load::<V, ROWS, COLUMNS>(token, columns, row);
        let tile = match numbers {
            Some(numbers) => accumulate_listed(token, &operands, starts, numbers, tile),
            None => accumulate_run(token, &operands, starts, tile),
        };
        self.store::<V, ROWS, COLUMNS>(&tile, V::splat(token, floor), columns.first, row);
    }

    /// What the sums begin with: the biases, or the sums so far.
    #[inline(always)]
    fn load<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &self,
        token: V::Token,
        columns: &Columns<'_, W, COLUMNS>,
        row: usize,
    ) -> Tile<V, ROWS, COLUMNS> {
        let mut bias = [V::splat(token, 0.0); COLUMNS];
        for (c, bias) in bias.iter_mut().enumerate() {
            *bias = V::load(token, columns.bias.get(c * V::LANES..).unwrap_or_default());
        }
        let mut tile = [bias; ROWS];
        if self.part.begin {
            return tile;
        }
        for (r, sums) in tile.iter_mut().enumerate() {
            let from = (row + r) * self.weights.outputs() + columns.first;
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

/// The rows of a tile.
struct Rows<'a, const ROWS: usize> {
    /// The number of the first.
    row: usize,
    /// The first input of each.
    starts: [usize; ROWS],
    /// The inputs that are not zero in all of them, if it is worth it to keep to those.
    numbers: Option<Numbers<'a>>,
}

/// With so many vectors of outputs, or fewer, inputs of 0 are not looked for; and with so many of a single row.
const FEW_VECTORS: usize = 1;
const FEW_VECTORS_OF_ONE: usize = 3;
