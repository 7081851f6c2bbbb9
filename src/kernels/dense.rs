//! The fully connected layer: rows of inputs times packed weights.

use super::backend::Backend;
use super::backend::Kernel;
use super::backend::tile::{Inputs, Tile, accumulate};
use super::pack::{Panel, Panels};
use super::vector::Vector;

/// `out = max(floor, x · W + b)` for rows of f32 inputs.
///
/// `x` is `[rows, inputs]` and `out` is `[rows, outputs]`, both row-major; `floor` is 0 for a ReLU and negative infinity
/// for no activation. Does nothing if the lengths of `x` and `out` are not those of the same number of rows.
pub fn dense(backend: Backend, x: &[f32], weights: Panels<'_>, floor: f32, out: &mut [f32]) {
    dense_part(backend, x, weights, Part { first: 0, begin: true, floor }, out);
}

/// The same for one row of bytes `b`, each of which stands for `b * scale + offset`.
///
/// The bytes are converted a few at a time, so that no buffer for the whole input is needed.
pub fn dense_bytes(
    backend: Backend,
    x: &[u8],
    (scale, offset): (f32, f32),
    weights: Panels<'_>,
    floor: f32,
    out: &mut [f32],
) {
    /// Long enough that picking up and putting down the sums costs little beside the products.
    const PART: usize = 128;
    let mut buffer = [0.0; PART];
    for (index, bytes) in x.chunks(PART).enumerate() {
        buffer.iter_mut().zip(bytes).for_each(|(value, byte)| *value = f32::from(*byte) * scale + offset);
        let first = index * PART;
        let last = first + bytes.len() == x.len();
        let part = Part { first, begin: index == 0, floor: if last { floor } else { f32::NEG_INFINITY } };
        dense_part(backend, buffer.get(..bytes.len()).unwrap_or_default(), weights, part, out);
    }
}

/// Which part of the sums a call adds up.
#[derive(Clone, Copy)]
struct Part {
    /// The first input of the part.
    first: usize,
    /// Whether the sums begin with the biases, or go on with what `out` holds.
    begin: bool,
    /// The least value that is stored.
    floor: f32,
}

#[inline(never)]
fn dense_part(backend: Backend, x: &[f32], weights: Panels<'_>, part: Part, out: &mut [f32]) {
    backend.dispatch(DenseKernel { x, weights, part, out });
}

struct DenseKernel<'a> {
    x: &'a [f32],
    weights: Panels<'a>,
    part: Part,
    out: &'a mut [f32],
}

impl Kernel for DenseKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize>(self, token: V::Token) {
        let outputs = self.weights.outputs();
        // A part of the inputs is always of one row.
        let whole = self.part.begin && self.part.first == 0;
        let inputs = if whole { self.weights.inputs().min(self.x.len()) } else { self.x.len() };
        for panel in self.weights.iter() {
            let Some(weights) = panel.weights.get(self.part.first * panel.width..) else { return };
            let block = Block { panel: Panel { weights, ..panel }, inputs, outputs, part: self.part };
            let mut x = self.x;
            let mut out = &mut *self.out;
            while out.len() >= outputs * ROWS && x.len() >= inputs * ROWS {
                block.rows::<V, ROWS, COLUMNS>(token, x, out);
                x = x.get(inputs * ROWS..).unwrap_or_default();
                out = out.get_mut(outputs * ROWS..).unwrap_or_default();
            }
            while out.len() >= outputs && x.len() >= inputs {
                block.rows::<V, 1, 4>(token, x, out);
                x = x.get(inputs..).unwrap_or_default();
                out = out.get_mut(outputs..).unwrap_or_default();
            }
        }
    }
}

/// One panel of weights, and how the rows around it lie.
struct Block<'a> {
    panel: Panel<'a>,
    inputs: usize,
    outputs: usize,
    part: Part,
}

impl Block<'_> {
    /// `ROWS` rows times the whole panel.
    #[inline(always)]
    fn rows<V: Vector, const ROWS: usize, const COLUMNS: usize>(&self, token: V::Token, x: &[f32], out: &mut [f32]) {
        let mut lane = 0;
        while lane + COLUMNS * V::LANES <= self.panel.width {
            self.tile::<V, ROWS, COLUMNS>(token, x, lane, out);
            lane += COLUMNS * V::LANES;
        }
        while lane < self.panel.width {
            self.tile::<V, ROWS, 1>(token, x, lane, out);
            lane += V::LANES;
        }
    }

    /// `ROWS` rows times `COLUMNS` vectors of the panel, from output `lane` on.
    #[inline(always)]
    fn tile<V: Vector, const ROWS: usize, const COLUMNS: usize>(
        &self,
        token: V::Token,
        x: &[f32],
        lane: usize,
        out: &mut [f32],
    ) {
        let column = |c: usize| lane + c * V::LANES;
        let mut tile: Tile<V, ROWS, COLUMNS> = [[V::splat(token, 0.0); COLUMNS]; ROWS];
        for (r, sums) in tile.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                let from =
                    if self.part.begin { self.panel.bias.get(column(c)..) } else { self.stored(out, r, column(c)) };
                *sum = V::load(token, from.unwrap_or_default());
            }
        }
        let starts = core::array::from_fn(|r| r * self.inputs);
        let weights = self.panel.weights.get(lane..).unwrap_or_default();
        accumulate(token, Inputs::plain(x), starts, self.inputs, weights, self.panel.width, &mut tile);
        let floor = V::splat(token, self.part.floor);
        for (r, sums) in tile.iter().enumerate() {
            for (c, sum) in sums.iter().enumerate() {
                let first = r * self.outputs + self.panel.first;
                let to = out.get_mut(first + column(c)..first + self.panel.width).unwrap_or_default();
                floor.max(*sum).store(to);
            }
        }
    }

    fn stored<'o>(&self, out: &'o [f32], row: usize, column: usize) -> Option<&'o [f32]> {
        let first = row * self.outputs + self.panel.first;
        out.get(first + column..first + self.panel.width)
    }
}
