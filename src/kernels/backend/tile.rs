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

/// Adds to each row `r` of `tile` the products of the `len` inputs from `starts[r]` on with `len` rows of weights.
///
/// Row `k` of the weights is `weights[k * stride..]`, of which the first `COLUMNS` vectors are read, beyond the row's own
/// `stride` values if the vectors are wider than the panel.
///
/// Slices that are too short for this leave the tile as it is; the kernels' length checks make that unreachable.
#[inline(always)]
pub(crate) fn accumulate<V: Vector, E: Element, const ROWS: usize, const COLUMNS: usize>(
    token: V::Token,
    inputs: Inputs<'_, E>,
    starts: [usize; ROWS],
    len: usize,
    weights: &[f32],
    stride: usize,
    tile: &mut Tile<V, ROWS, COLUMNS>,
) {
    let inputs_fit = starts.iter().all(|start| start.checked_add(len).is_some_and(|end| end <= inputs.values.len()));
    let weights_end = len.saturating_sub(1).checked_mul(stride).and_then(|row| row.checked_add(COLUMNS * V::LANES));
    let weights_fit = weights_end.is_some_and(|end| end <= weights.len());
    if len == 0 || !inputs_fit || !weights_fit {
        return;
    }
    let rows = starts.map(|start| inputs.values.as_ptr().wrapping_add(start));
    let mut row_of_weights = weights.as_ptr();
    for k in 0..len {
        // SAFETY: row `k < len` begins at `k * stride`, at most `(len - 1) * stride`, and `COLUMNS * LANES` values follow
        // it within `weights` (`weights_fit`).
        let column = |c: usize| unsafe { V::load_from(token, row_of_weights.add(c * V::LANES)) };
        let columns: [V; COLUMNS] = core::array::from_fn(column);
        for (row, sums) in rows.iter().zip(tile.iter_mut()) {
            // SAFETY: `k < len`, and `len` inputs follow each start (`inputs_fit`).
            let input = unsafe { *row.add(k) }.value(inputs.scale, inputs.offset);
            let input = V::splat(token, input);
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = input.mul_add(column, *sum);
            }
        }
        row_of_weights = row_of_weights.wrapping_add(stride);
    }
}
