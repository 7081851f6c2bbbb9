//! The one inner loop: a tile of sums, rows of inputs times vectors of a weight panel.

use crate::kernels::pack::{PANEL, sealed::Load};
use crate::kernels::vector::Vector;
use half::f16;

impl Load for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(token: V::Token, from: *const Self) -> V {
        // SAFETY: the caller's promise is the same.
        unsafe { V::load_from(token, from) }
    }
}

impl Load for f16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(token: V::Token, from: *const Self) -> V {
        // SAFETY: the caller's promise is the same.
        unsafe { V::load_f16_from(token, from) }
    }
}

/// What the inner loop can read inputs from.
pub(crate) trait Element: Copy {
    /// The value, given the input specification's scale and offset.
    fn value(self, scale: f32, offset: f32) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn value(self, _: f32, _: f32) -> f32 {
        self
    }
}

impl Element for u8 {
    #[inline(always)]
    fn value(self, scale: f32, offset: f32) -> f32 {
        f32::from(self) * scale + offset
    }
}

/// Inputs with the scale and offset that bytes have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inputs<'a, E> {
    pub(crate) values: &'a [E],
    pub(crate) scale: f32,
    pub(crate) offset: f32,
}

impl<'a> Inputs<'a, f32> {
    pub(crate) fn plain(values: &'a [f32]) -> Self {
        Self { values, scale: 1.0, offset: 0.0 }
    }
}

/// Sums of `ROWS` rows times `COLUMNS` vectors, in registers.
pub(crate) type Tile<V, const ROWS: usize, const COLUMNS: usize> = [[V; COLUMNS]; ROWS];

/// Where a tile finds its operands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands<'a, E, W, const ROWS: usize, const COLUMNS: usize> {
    pub(crate) inputs: Inputs<'a, E>,
    /// The first input of each row.
    pub(crate) rows: [usize; ROWS],
    pub(crate) weights: &'a [W],
    /// The first weight of each vector.
    pub(crate) columns: [usize; COLUMNS],
    /// From the weights of one input to those of the next.
    pub(crate) stride: usize,
    /// How many runs of inputs that lie next to each other, and how far apart the runs begin. Their weights follow each
    /// other without a gap.
    pub(crate) runs: usize,
    pub(crate) pitch: usize,
    /// How many inputs, and rows of weights, a run has.
    pub(crate) len: usize,
}

impl<E, W, const ROWS: usize, const COLUMNS: usize> Operands<'_, E, W, ROWS, COLUMNS> {
    /// Whether every access lies within the slices, where a column is `lanes` wide.
    #[inline(always)]
    fn fit(&self, lanes: usize) -> bool {
        let inputs = extent(self.runs, self.pitch, self.len);
        let weights = self.runs.checked_mul(self.len).and_then(|rows| extent(rows, self.stride, lanes));
        let (Some(inputs), Some(weights)) = (inputs, weights) else { return false };
        let last_row = self.rows.iter().fold(0, |last, row| last.max(*row));
        let last_column = self.columns.iter().fold(0, |last, column| last.max(*column));
        let within = |start: usize, extent: usize, slice: usize| start <= slice && extent <= slice - start;
        within(last_row, inputs, self.inputs.values.len()) && within(last_column, weights, self.weights.len())
    }
}

/// From the first to behind the last of `count` runs of `len` values that begin `pitch` apart; `None` if there are none.
#[inline(always)]
fn extent(count: usize, pitch: usize, len: usize) -> Option<usize> {
    count.checked_sub(1)?.checked_mul(pitch)?.checked_add(len)
}

/// The sums of `tile`, each with the products of its row's inputs and its column's weights added.
///
/// Vectors may be wider than the panel that they lie in: the lanes beyond it add up what follows in memory, and nobody
/// looks at them. Operands that do not fit their slices leave the tile as it is; the kernels' length checks make that
/// unreachable.
#[inline(always)]
pub(crate) fn accumulate<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, E, W, ROWS, COLUMNS>,
    tile: Tile<V, ROWS, COLUMNS>,
) -> Tile<V, ROWS, COLUMNS> {
    if !operands.fit(V::LANES) {
        return tile;
    }
    // The commonest sizes, known to the compiler, which then unrolls the loops and folds the distances.
    // SAFETY: the operands fit, and the sizes are theirs.
    unsafe {
        match (operands.runs, operands.len, operands.stride) {
            (3, 3, PANEL) if V::UNROLL => runs(token, operands, 3, 3, PANEL, tile),
            (5, 5, PANEL) if V::UNROLL => runs(token, operands, 5, 5, PANEL, tile),
            (1, len, PANEL) if V::UNROLL => runs(token, operands, 1, len, PANEL, tile),
            (count, len, PANEL) if V::UNROLL => runs(token, operands, count, len, PANEL, tile),
            (count, len, stride) => runs(token, operands, count, len, stride, tile),
        }
    }
}

/// [`accumulate`] for operands that fit.
///
/// The tile is a value, not a reference: a reference would have it written to memory for every input.
///
/// # Safety
/// `operands` must fit, and `count`, `len` and `stride` must be its `runs`, `len` and `stride`.
#[inline(always)]
unsafe fn runs<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, E, W, ROWS, COLUMNS>,
    count: usize,
    len: usize,
    stride: usize,
    tile: Tile<V, ROWS, COLUMNS>,
) -> Tile<V, ROWS, COLUMNS> {
    let Inputs { values, scale, offset } = operands.inputs;
    // One pointer for each row and column, so that the loop only adds the same numbers to all of them.
    let mut rows = [values.as_ptr(); ROWS];
    for (pointer, row) in rows.iter_mut().zip(operands.rows) {
        // SAFETY: the row begins within the inputs, since the operands fit.
        *pointer = unsafe { pointer.add(row) };
    }
    let mut columns = [operands.weights.as_ptr(); COLUMNS];
    for (pointer, column) in columns.iter_mut().zip(operands.columns) {
        // SAFETY: the column begins within the weights, since the operands fit.
        *pointer = unsafe { pointer.add(column) };
    }
    // A sum has to wait for the one before it: a small tile gets a second and more sets of sums to take turns with.
    let sets = (V::CHAINS / (ROWS * COLUMNS)).clamp(1, MAX_SETS);
    let zero = V::splat(token, 0.0);
    let mut tiles = [[[zero; COLUMNS]; ROWS]; MAX_SETS];
    let [first, ..] = &mut tiles;
    *first = tile;
    for run in 0..count {
        let (input, weight) = (run * operands.pitch, run * len * stride);
        let mut k = 0;
        while k + sets <= len {
            for (set, tile) in tiles.iter_mut().enumerate().take(sets) {
                let at = (input + k + set, weight + (k + set) * stride);
                // SAFETY: `run < count`, `k + set < len`, and the operands fit.
                unsafe { step(token, &rows, &columns, at, (scale, offset), tile) };
            }
            k += sets;
        }
        let [tile, ..] = &mut tiles;
        while sets > 1 && k < len {
            // SAFETY: `run < count`, `k < len`, and the operands fit.
            unsafe { step(token, &rows, &columns, (input + k, weight + k * stride), (scale, offset), tile) };
            k += 1;
        }
    }
    let [mut tile, others @ ..] = tiles;
    for other in others.iter().take(sets - 1) {
        for (sums, more) in tile.iter_mut().zip(other) {
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum = sum.add(*more);
            }
        }
    }
    tile
}

/// The most sets of sums.
const MAX_SETS: usize = 4;

/// Adds the products of one input of each row, `input` behind its first, with the weights `weight` behind each column's
/// first.
///
/// # Safety
/// There must be a value that far behind each of `rows`, and `V::LANES` weights that far behind each of `columns`.
#[inline(always)]
unsafe fn step<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    rows: &[*const E; ROWS],
    columns: &[*const W; COLUMNS],
    (input, weight): (usize, usize),
    (scale, offset): (f32, f32),
    tile: &mut Tile<V, ROWS, COLUMNS>,
) {
    let mut vectors = [V::splat(token, 0.0); COLUMNS];
    for (vector, column) in vectors.iter_mut().zip(columns) {
        // SAFETY: the caller's promise.
        *vector = unsafe { W::load(token, column.add(weight)) };
    }
    for (sums, row) in tile.iter_mut().zip(rows) {
        // SAFETY: the caller's promise.
        let input = unsafe { *row.add(input) };
        let input = V::splat(token, input.value(scale, offset));
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            *sum = input.mul_add(vector, *sum);
        }
    }
}
