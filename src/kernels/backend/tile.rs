//! The one inner loop: a tile of sums, rows of inputs times vectors of a weight panel.

use crate::kernels::vector::Vector;

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
pub(crate) struct Operands<'a, E, const ROWS: usize, const COLUMNS: usize> {
    pub(crate) inputs: Inputs<'a, E>,
    /// The first input of each row.
    pub(crate) rows: [usize; ROWS],
    pub(crate) weights: &'a [f32],
    /// The first weight of each vector.
    pub(crate) columns: [usize; COLUMNS],
    /// From the weights of one input to those of the next.
    pub(crate) stride: usize,
    /// How many inputs, and rows of weights.
    pub(crate) len: usize,
}

impl<E, const ROWS: usize, const COLUMNS: usize> Operands<'_, E, ROWS, COLUMNS> {
    /// Whether every access to `len` inputs, and to `len` times `lanes` weights of each column, lies within the slices.
    #[inline(always)]
    fn fit(&self, lanes: usize) -> bool {
        let within = |start: usize, len: usize, slice: usize| start <= slice && len <= slice - start;
        let last_row = self.len.saturating_sub(1).checked_mul(self.stride).and_then(|row| row.checked_add(lanes));
        let Some(extent) = last_row else { return false };
        let inputs_fit = self.rows.iter().all(|row| within(*row, self.len, self.inputs.values.len()));
        inputs_fit && self.columns.iter().all(|column| within(*column, extent, self.weights.len()))
    }
}

/// Adds to each sum of `tile` the products of its row's inputs with its column's weights.
///
/// Vectors may be wider than the panel that they lie in: the lanes beyond it add up what follows in memory, and nobody
/// looks at them. Operands that do not fit their slices leave the tile as it is; the kernels' length checks make that
/// unreachable.
#[inline(always)]
pub(crate) fn accumulate<V: Vector, E: Element, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, E, ROWS, COLUMNS>,
    tile: &mut Tile<V, ROWS, COLUMNS>,
) {
    if operands.len == 0 || !operands.fit(V::LANES) {
        return;
    }
    let mut k = 0;
    // A sum has to wait for the one before it: a small tile gets a second and more sets of sums to take turns with.
    let sets = (V::CHAINS / (ROWS * COLUMNS)).clamp(1, MAX_SETS);
    if sets > 1 {
        let zero = V::splat(token, 0.0);
        let mut others: [Tile<V, ROWS, COLUMNS>; MAX_SETS - 1] = [[[zero; COLUMNS]; ROWS]; MAX_SETS - 1];
        while k + sets <= operands.len {
            // SAFETY: `k` and the `sets - 1` after it are less than `len`, and the operands fit.
            unsafe {
                step(token, operands, k, tile);
                for (other, set) in others.iter_mut().zip(1..sets) {
                    step(token, operands, k + set, other);
                }
            }
            k += sets;
        }
        for other in others.iter().take(sets - 1) {
            for (sums, more) in tile.iter_mut().flatten().zip(other.iter().flatten()) {
                *sums = sums.add(*more);
            }
        }
    }
    while k < operands.len {
        // SAFETY: `k < len`, and the operands fit.
        unsafe { step(token, operands, k, tile) };
        k += 1;
    }
}

/// The most sets of sums.
const MAX_SETS: usize = 4;

/// Adds the products of input `k`.
///
/// # Safety
/// `k < operands.len`, and the operands must fit.
#[inline(always)]
unsafe fn step<V: Vector, E: Element, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    operands: &Operands<'_, E, ROWS, COLUMNS>,
    k: usize,
    tile: &mut Tile<V, ROWS, COLUMNS>,
) {
    let Inputs { values, scale, offset } = operands.inputs;
    let weights = operands.weights.as_ptr();
    let mut vectors = [V::splat(token, 0.0); COLUMNS];
    for (vector, column) in vectors.iter_mut().zip(operands.columns) {
        // SAFETY: `k < len`, and the weights of a column fit (the caller's promise).
        *vector = unsafe { V::load_from(token, weights.add(column).add(k * operands.stride)) };
    }
    for (sums, row) in tile.iter_mut().zip(operands.rows) {
        // SAFETY: `k < len`, and the inputs of a row fit (the caller's promise).
        let input = unsafe { *values.as_ptr().add(row).add(k) };
        let input = V::splat(token, input.value(scale, offset));
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            *sum = input.mul_add(vector, *sum);
        }
    }
}
