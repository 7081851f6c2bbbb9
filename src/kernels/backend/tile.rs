//! The one inner loop: a tile of sums, rows of inputs times vectors of a weight panel.

use crate::kernels::pack::sealed::Load;
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

/// Adds to each sum of `tile` the products of its row's inputs with its column's weights.
///
/// Vectors may be wider than the panel that they lie in: the lanes beyond it add up what follows in memory, and nobody
/// looks at them. Operands that do not fit their slices leave the tile as it is; the kernels' length checks make that
/// unreachable.
#[inline(always)]
pub(crate) fn accumulate<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, E, W, ROWS, COLUMNS>,
    tile: &mut Tile<V, ROWS, COLUMNS>,
) {
    if !operands.fit(V::LANES) {
        return;
    }
    // The commonest windows, with their sizes known to the compiler, which then unrolls the loops.
    // SAFETY: the operands fit, and the sizes are theirs.
    unsafe {
        match (operands.runs, operands.len) {
            (3, 3) if V::UNROLL => runs(token, operands, 3, 3, tile),
            (5, 5) if V::UNROLL => runs(token, operands, 5, 5, tile),
            (count, len) => runs(token, operands, count, len, tile),
        }
    }
}

/// [`accumulate`] for operands that fit.
///
/// # Safety
/// `operands` must fit, and `count` and `len` must be its `runs` and `len`.
#[inline(always)]
unsafe fn runs<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, E, W, ROWS, COLUMNS>,
    count: usize,
    len: usize,
    tile: &mut Tile<V, ROWS, COLUMNS>,
) {
    // A sum has to wait for the one before it: a small tile gets a second and more sets of sums to take turns with.
    let sets = (V::CHAINS / (ROWS * COLUMNS)).clamp(1, MAX_SETS);
    let zero = V::splat(token, 0.0);
    let mut others: [Tile<V, ROWS, COLUMNS>; MAX_SETS - 1] = [[[zero; COLUMNS]; ROWS]; MAX_SETS - 1];
    for run in 0..count {
        let mut k = 0;
        while sets > 1 && k + sets <= len {
            // SAFETY: `run < runs`, `k` and the `sets - 1` after it are less than `len`, and the operands fit.
            unsafe {
                step(token, operands, run, k, tile);
                for (other, set) in others.iter_mut().zip(1..sets) {
                    step(token, operands, run, k + set, other);
                }
            }
            k += sets;
        }
        while k < len {
            // SAFETY: `run < runs`, `k < len`, and the operands fit.
            unsafe { step(token, operands, run, k, tile) };
            k += 1;
        }
    }
    for other in others.iter().take(sets - 1) {
        for (sum, more) in tile.iter_mut().flatten().zip(other.iter().flatten()) {
            *sum = sum.add(*more);
        }
    }
}

/// The most sets of sums.
const MAX_SETS: usize = 4;

/// Adds the products of input `k` of a run.
///
/// # Safety
/// `run < operands.runs`, `k < operands.len`, and the operands must fit.
#[inline(always)]
unsafe fn step<V: Vector, E: Element, W: Load, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, E, W, ROWS, COLUMNS>,
    run: usize,
    k: usize,
    tile: &mut Tile<V, ROWS, COLUMNS>,
) {
    let Inputs { values, scale, offset } = operands.inputs;
    let (values, input) = (values.as_ptr(), run * operands.pitch + k);
    let (weights, weight) = (operands.weights.as_ptr(), (run * operands.len + k) * operands.stride);
    let mut vectors = [V::splat(token, 0.0); COLUMNS];
    for (vector, column) in vectors.iter_mut().zip(operands.columns) {
        // SAFETY: the weights of a column fit (the caller's promise).
        *vector = unsafe { W::load(token, weights.add(column).add(weight)) };
    }
    for (sums, row) in tile.iter_mut().zip(operands.rows) {
        // SAFETY: the inputs of a row fit (the caller's promise).
        let input = unsafe { *values.add(row).add(input) };
        let input = V::splat(token, input.value(scale, offset));
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            *sum = input.mul_add(vector, *sum);
        }
    }
}
