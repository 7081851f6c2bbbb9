//! The inner loop for panels that are narrower than a vector, or not a multiple of it: ten classes, say.
//!
//! A vector for each input would leave lanes empty, and straddle cache lines. But the weights of a panel lie next to each
//! other without gaps, so whole vectors of them serve several inputs: with ten outputs and sixteen lanes, five vectors are
//! the weights of eight inputs. The inputs are brought to the lanes of their weights by permutations, and the sums of
//! each output come together at the end.

use crate::kernels::pack::{PANEL, sealed::Load};
use crate::kernels::vector::{SHIFT, Vector};

/// The most vectors of weights that repeat the same pattern of lanes.
const MAX_VECTORS: usize = 5;
/// The most lanes of a vector.
const MAX_LANES: usize = 16;
/// The sums of one row: as many as the vectors of a pattern have lanes.
type Sums = [f32; MAX_VECTORS * MAX_LANES + PANEL];

static LANE_NUMBERS: [f32; MAX_LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// Adds to the `sums` of each row the products of its first inputs with their weights, and says how many inputs that were:
/// none if the width does not suit the backend. The rows of `x` must be equally long.
///
/// `weights` are those of a panel of `width` outputs, from the first input on.
#[inline(always)]
pub(crate) fn accumulate_narrow<V: Vector, W: Load, const ROWS: usize>(
    token: V::Token,
    x: [&[f32]; ROWS],
    weights: &[W],
    width: usize,
    sums: &mut [[f32; PANEL]; ROWS],
) -> usize {
    if !V::PERMUTES || width == 0 || width > PANEL {
        return 0;
    }
    let pattern = Pattern::new::<V>(width);
    // Few rows take turns with several sets of sums, since a sum has to wait for the one before it.
    match (width / pattern.common, ROWS) {
        (1, 1) => pattern.stream::<V, W, ROWS, 1, 8>(token, x, weights, sums),
        (3, 1) => pattern.stream::<V, W, ROWS, 3, 2>(token, x, weights, sums),
        (1, _) => pattern.stream::<V, W, ROWS, 1, 2>(token, x, weights, sums),
        (3, _) => pattern.stream::<V, W, ROWS, 3, 1>(token, x, weights, sums),
        (5, _) => pattern.stream::<V, W, ROWS, 5, 1>(token, x, weights, sums),
        _ => 0,
    }
}

/// Some groups of inputs that lie apart.
#[cfg(not(target_os = "none"))]
#[derive(Clone, Copy)]
pub(crate) struct Groups<'a> {
    /// The inputs, group behind group; a vector's length must follow that nobody looks at.
    pub(crate) values: &'a [f32],
    /// Which of all groups these are.
    pub(crate) numbers: &'a [u16],
    /// What is subtracted from each group's inputs; likewise.
    pub(crate) less: &'a [f32],
    /// How many inputs a group has.
    pub(crate) len: usize,
}

/// Adds to `sums` the products of all groups with their weights, for a panel of `width` outputs; `false` if width, length or backend
/// do not suit, or if there are not enough inputs or weights.
#[cfg(not(target_os = "none"))]
#[inline(always)]
pub(crate) fn accumulate_groups<V: Vector, W: Load>(
    token: V::Token,
    groups: &Groups<'_>,
    weights: &[W],
    width: usize,
    sums: &mut [f32; PANEL],
) -> bool {
    if !V::PERMUTES || width == 0 || width > PANEL {
        return false;
    }
    let pattern = Pattern::new::<V>(width);
    match (width.checked_div(pattern.common).unwrap_or(0), V::LANES == PANEL) {
        (1, _) => pattern.stream_groups::<V, W, 1, 8>(token, groups, weights, sums),
        (3, _) => pattern.stream_groups::<V, W, 3, 2>(token, groups, weights, sums),
        // (With half as many registers there is room for one set only.)
        (5, true) => pattern.stream_groups::<V, W, 5, 2>(token, groups, weights, sums),
        (5, false) => pattern.stream_groups::<V, W, 5, 1>(token, groups, weights, sums),
        _ => false,
    }
}

/// The order of weights in a panel, in vectors of them.
struct Pattern {
    /// The panel's outputs.
    width: usize,
    /// The greatest common divisor of the width and of a vector's lanes.
    common: usize,
    /// After so many inputs, a vector begins with the first output again.
    inputs: usize,
}

impl Pattern {
    #[inline(always)]
    fn new<V: Vector>(width: usize) -> Self {
        let common = 1 << width.trailing_zeros().min(V::LANES.trailing_zeros());
        Self { width, common, inputs: V::LANES / common }
    }

    /// [`accumulate_narrow`] for a pattern of `VECTORS` vectors, with `SETS` sets of sums that take turns.
    #[inline(always)]
    fn stream<V: Vector, W: Load, const ROWS: usize, const VECTORS: usize, const SETS: usize>(
        &self,
        token: V::Token,
        x: [&[f32]; ROWS],
        weights: &[W],
        sums: &mut [[f32; PANEL]; ROWS],
    ) -> usize {
        // A step reads as many inputs, and a vector of them from the last set's first on.
        let (inputs, len) = (SETS * self.inputs, VECTORS * V::LANES);
        let read = (SETS - 1) * self.inputs + V::LANES;
        let mut steps = weights.len() / (SETS * len);
        for x in x {
            let enough_inputs = (x.len() + inputs).checked_sub(read).and_then(|n| n.checked_div(inputs)).unwrap_or(0);
            steps = if enough_inputs < steps { enough_inputs } else { steps };
        }
        let lanes = self.lanes::<V, VECTORS>(token);
        let zero = V::splat(token, 0.0);
        let mut tiles = [[[zero; ROWS]; VECTORS]; SETS];
        for step in 0..steps {
            for (set, tile) in tiles.iter_mut().enumerate() {
                let period = step * SETS + set;
                // SAFETY: `steps` is so small that each row has `(steps - 1) * inputs + read` inputs, and that there are
                // `steps * SETS * len` weights.
                unsafe {
                    let mut vectors = [zero; ROWS];
                    for (vector, x) in vectors.iter_mut().zip(x) {
                        *vector = V::load_from(token, x.as_ptr().add(period * self.inputs));
                    }
                    let weights = weights.as_ptr().add(period * len);
                    for (v, (sums, lanes)) in tile.iter_mut().zip(lanes).enumerate() {
                        let weights: V = W::load(token, weights.add(v * V::LANES));
                        for (sum, x) in sums.iter_mut().zip(vectors) {
                            *sum = x.permute(lanes).mul_add(weights, *sum);
                        }
                    }
                }
            }
        }
        self.collect::<V, ROWS, VECTORS>(token, &tiles, sums);
        steps * inputs
    }

    /// [`accumulate_groups`] for a pattern of `VECTORS` vectors, with `SETS` sets of sums that take turns.
    #[cfg(not(target_os = "none"))]
    #[inline(always)]
    fn stream_groups<V: Vector, W: Load, const VECTORS: usize, const SETS: usize>(
        &self,
        token: V::Token,
        groups: &Groups<'_>,
        weights: &[W],
        sums: &mut [f32; PANEL],
    ) -> bool {
        let Groups { values, numbers, less, len } = *groups;
        let steps = len.checked_div(SETS * self.inputs).unwrap_or(0);
        let Some(group_weights) = len.checked_mul(self.width) else { return false };
        let all_groups = weights.len().checked_div(group_weights).unwrap_or(0);
        let enough = |slice: &[f32], groups: usize| match groups.checked_mul(len) {
            Some(needed) => slice.len().checked_sub(V::LANES).is_some_and(|there| needed <= there),
            None => false,
        };
        if steps * SETS * self.inputs != len || !enough(values, numbers.len()) || !enough(less, 1) {
            return false;
        }
        let lanes = self.lanes::<V, VECTORS>(token);
        let zero = V::splat(token, 0.0);
        let mut tiles = [[[zero]; VECTORS]; SETS];
        for (index, number) in numbers.iter().enumerate() {
            let number = usize::from(*number);
            if number >= all_groups {
                return false;
            }
            for step in 0..steps {
                for (set, tile) in tiles.iter_mut().enumerate() {
                    let input = (step * SETS + set) * self.inputs;
                    // SAFETY: `input` is less than `len`: so many values and a vector of them are there for each number and in `less`.
                    // Each of all groups has `group_weights`, which are so many whole patterns.
                    unsafe {
                        let less = V::load_from(token, less.as_ptr().add(input));
                        let x = V::load_from(token, values.as_ptr().add(index * len + input)).sub(less);
                        let weights = weights.as_ptr().add(number * group_weights + input * self.width);
                        for (v, ([sum], lanes)) in tile.iter_mut().zip(lanes).enumerate() {
                            *sum = x.permute(lanes).mul_add(W::load(token, weights.add(v * V::LANES)), *sum);
                        }
                    }
                }
            }
        }
        let mut rows = [*sums];
        self.collect::<V, 1, VECTORS>(token, &tiles, &mut rows);
        [*sums] = rows;
        true
    }

    /// Adds the lanes of all sets to the sums that they belong to.
    #[inline(always)]
    fn collect<V: Vector, const ROWS: usize, const VECTORS: usize>(
        &self,
        token: V::Token,
        tiles: &[[[V; ROWS]; VECTORS]],
        sums: &mut [[f32; PANEL]; ROWS],
    ) {
        let mut buffers: [Sums; ROWS] = [[0.0; MAX_VECTORS * MAX_LANES + PANEL]; ROWS];
        for tile in tiles {
            for (v, row_sums) in tile.iter().enumerate() {
                for (sum, buffer) in row_sums.iter().zip(&mut buffers) {
                    let to = buffer.get_mut(v * V::LANES..(v + 1) * V::LANES).unwrap_or_default();
                    V::load(token, to).add(*sum).store(to);
                }
            }
        }
        for (sums, buffer) in sums.iter_mut().zip(&buffers) {
            for (lane, sums) in sums.chunks_exact_mut(V::LANES).enumerate() {
                let mut sum = V::load(token, sums);
                // The sums of each of the pattern's inputs follow each other.
                for input in 0..self.inputs {
                    let more = buffer.get(input * self.width + lane * V::LANES..).unwrap_or_default();
                    sum = sum.add(V::load(token, more));
                }
                sum.store(sums);
            }
        }
    }

    /// For each lane of the pattern's vectors the number of its input, in the low bits of the mantissa.
    #[inline(always)]
    fn lanes<V: Vector, const VECTORS: usize>(&self, token: V::Token) -> [V; VECTORS] {
        let mut lanes = [V::splat(token, 0.0); VECTORS];
        for (v, lane) in lanes.iter_mut().enumerate() {
            let number = V::load(token, &LANE_NUMBERS).add(V::splat(token, (v * V::LANES) as f32 + 0.5));
            // Rounded to the nearest integer, this is the number divided by the width, rounded down.
            let input = number.div(V::splat(token, self.width as f32)).sub(V::splat(token, 0.5));
            *lane = input.add(V::splat(token, SHIFT));
        }
        lanes
    }
}
