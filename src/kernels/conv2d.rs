//! 2-D convolution, direct: no im2col buffer, and the pooling that follows happens in registers.
//!
//! Activations are `[H, W, C]`, so a window of `kh × kw` positions is `kh` runs of `kw · C` neighbouring values, and a
//! convolution is the dense layer's inner loop with several runs. A tile's rows are windows: neighbouring ones, or those
//! that are pooled together.

use super::backend::tile::{Element, Inputs, Operands, Tile, accumulate};
use super::backend::{Backend, Kernel};
use super::pack::{Columns, Panels, Weight};
use super::vector::Vector;
use crate::layer::{Conv2d, Shape};
use core::ops::Range;

/// `out = max(floor, pool(x ⋆ W + b))`, where `pool` is the largest sum of each `conv.pool` window.
///
/// `x` is `[H, W, C]` of shape `input`, `out` is `[H, W, filters]` of shape `output`. The activation follows the pooling,
/// which is the same as the other way round for every activation that never falls, and fewer evaluations. Does nothing
/// where lengths do not fit the shapes.
#[inline(never)]
pub(crate) fn conv2d<E: Element, W: Weight>(
    backend: Backend,
    x: Inputs<'_, E>,
    conv: &Conv2d,
    (input, output): (Shape, Shape),
    weights: Panels<'_, W>,
    floor: f32,
    out: &mut [f32],
) {
    let geometry = Geometry {
        height: i32::from(input.height),
        width: i32::from(input.width),
        channels: usize::from(input.channels),
        kernel: conv.kernel.map(i32::from),
        stride: conv.stride.map(i32::from),
        origin: [-i32::from(conv.padding.top), -i32::from(conv.padding.left)],
        pool: conv.pool.map(i32::from),
        output_width: i32::from(output.width),
    };
    if x.values.len() == geometry.elements() && weights.inputs() == geometry.window() {
        backend.dispatch(ConvKernel { x, geometry, weights, floor, out });
    }
}

/// `n`, or the nearer end of `0..=most`. (`clamp` would check its bounds, and could panic.)
#[inline(always)]
fn within(n: i32, most: i32) -> i32 {
    n.max(0).min(most)
}

/// Where the windows lie.
#[derive(Clone, Copy)]
struct Geometry {
    height: i32,
    width: i32,
    channels: usize,
    kernel: [i32; 2],
    stride: [i32; 2],
    /// Row and column of the first window; negative where it begins in the padding.
    origin: [i32; 2],
    pool: [i32; 2],
    /// Positions per row of the output, after pooling.
    output_width: i32,
}

/// Stands for a number of pooled windows that is known at run time only.
const ANY: usize = 0;

/// The row and column of a window's first value.
type Corner = [i32; 2];

impl Geometry {
    fn elements(&self) -> usize {
        self.height as usize * self.width as usize * self.channels
    }

    fn window(&self) -> usize {
        let [kh, kw] = self.kernel;
        kh as usize * kw as usize * self.channels
    }

    /// How many windows are pooled to one output.
    #[inline(always)]
    fn pooled(&self) -> i32 {
        let [ph, pw] = self.pool;
        ph * pw
    }

    /// The corner of window `index` (row by row) of the windows that are pooled to an output.
    #[inline(always)]
    fn corner(&self, [row, column]: Corner, index: i32) -> Corner {
        let ([ph, pw], [sh, sw], [top, left]) = (self.pool, self.stride, self.origin);
        let down = index.checked_div(pw).unwrap_or(0);
        let right = index - down * pw;
        [top + (row * ph + down) * sh, left + (column * pw + right) * sw]
    }

    /// The rows of a window that lie within the input.
    #[inline(always)]
    fn rows_inside(&self, row: i32) -> Range<i32> {
        let [kh, _] = self.kernel;
        within(-row, kh)..within(self.height - row, kh)
    }

    /// The columns of a window that lie within the input.
    #[inline(always)]
    fn columns_inside(&self, column: i32) -> Range<i32> {
        let [_, kw] = self.kernel;
        within(-column, kw)..within(self.width - column, kw)
    }

    /// The outputs of a row whose windows lie within the input from left to right and reach equally far beyond it above and
    /// below; and the rows of the windows that lie within it. Both are empty if there are none.
    #[inline(always)]
    fn inside(&self, row: i32) -> (Range<i32>, Range<i32>) {
        let ([ph, pw], [_, sw], [_, left], [_, kw]) = (self.pool, self.stride, self.origin, self.kernel);
        let [top, _] = self.corner([row, 0], 0);
        let [bottom, _] = self.corner([row, 0], (ph - 1) * pw);
        let rows = self.rows_inside(top);
        if rows.is_empty() || rows != self.rows_inside(bottom) {
            return (0..0, 0..0);
        }
        // An output's windows begin at `left + column * step` and end `reach` further right.
        let (step, reach) = (pw * sw, (pw - 1) * sw + kw);
        let steps_to = |distance: i32| distance.max(0).checked_div(step).unwrap_or(0);
        let first = steps_to(-left + step - 1).min(self.output_width);
        let behind = steps_to(self.width - reach - left + step).min(self.output_width).max(first);
        (first..behind, rows)
    }

    /// From the first input of an output to that of the next.
    #[inline(always)]
    fn step(&self) -> usize {
        let ([_, pw], [_, sw]) = (self.pool, self.stride);
        (pw * sw) as usize * self.channels
    }

    /// The index of a position's first channel.
    #[inline(always)]
    fn index(&self, row: i32, column: i32) -> usize {
        (row * self.width + column) as usize * self.channels
    }
}

struct ConvKernel<'a, E, W> {
    x: Inputs<'a, E>,
    geometry: Geometry,
    weights: Panels<'a, W>,
    floor: f32,
    out: &'a mut [f32],
}

impl<E: Element, W: Weight> Kernel for ConvKernel<'_, E, W> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) {
        let Self { x, geometry, weights, floor, out } = self;
        let sums = Sums { x, geometry, token, floor, filters: weights.outputs() };
        let mut first = 0;
        if COLUMNS > 1 {
            while let Some(columns) = weights.columns::<2>(V::LANES, first) {
                sums.map::<V, W, WINDOWS, 2>(&columns, out);
                first += 2 * V::LANES;
            }
        }
        while let Some(columns) = weights.columns::<1>(V::LANES, first) {
            sums.map::<V, W, WINDOWS, 1>(&columns, out);
            first += V::LANES;
        }
    }
}

struct Sums<'a, E, T> {
    x: Inputs<'a, E>,
    geometry: Geometry,
    token: T,
    floor: f32,
    filters: usize,
}

impl<E: Element, T: Copy> Sums<'_, E, T> {
    /// Some columns of the whole output.
    #[inline(always)]
    fn map<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        out: &mut [f32],
    ) {
        // Never 0, but the compiler does not know, and chunks of 0 would panic.
        let row_len = (self.geometry.output_width as usize * self.filters).max(1);
        for (row, out) in out.chunks_exact_mut(row_len).enumerate() {
            // With a number of pooled windows that the compiler knows, they stay in registers.
            match self.geometry.pooled() {
                1 => self.row::<V, W, WINDOWS, 1, COLUMNS>(columns, row as i32, out),
                4 if V::UNROLL => self.row::<V, W, WINDOWS, 4, COLUMNS>(columns, row as i32, out),
                _ => self.row::<V, W, WINDOWS, ANY, COLUMNS>(columns, row as i32, out),
            }
        }
    }

    /// A row of outputs, of each of which `POOLED` windows are pooled: tiles of as many outputs as fill `WINDOWS`, but
    /// single windows where they reach into the padding to the left or right, or unequally far above or below.
    #[inline(always)]
    fn row<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const POOLED: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        row: i32,
        out: &mut [f32],
    ) {
        let pooled = if POOLED == ANY { self.geometry.pooled() as usize } else { POOLED };
        let group = WINDOWS.checked_div(pooled).unwrap_or(0) as i32;
        let (inside, rows) = if group == 0 { (0..0, 0..0) } else { self.geometry.inside(row) };
        let (first, behind) = (inside.start, inside.end);
        for column in (0..first).chain(behind..self.geometry.output_width) {
            self.border::<V, W, COLUMNS>(columns, [row, column], out);
        }
        if inside.is_empty() {
            return;
        }
        // Where the windows of the first tile begin; those beyond the last output, or the last of the tile, repeat it.
        let start = |column: i32, window: usize| {
            let [top, left] = self.geometry.corner([row, column], window as i32);
            self.geometry.index(top + rows.start, left)
        };
        let starts: [usize; WINDOWS] = core::array::from_fn(|window| {
            let output = (window.checked_div(pooled).unwrap_or(0) as i32).min(group - 1);
            let index = (window - output as usize * pooled).min(pooled - 1);
            start((first + output).min(behind - 1), index)
        });
        let step = self.geometry.step();
        for column in (first..behind).step_by(group.max(1) as usize) {
            // The last tile begins early enough to be full, and computes some outputs again.
            let column = column.min(behind - group).max(first);
            let starts = starts.map(|start| start + (column - first) as usize * step);
            let tile = self.windows::<V, W, WINDOWS, COLUMNS>(columns, starts, &rows);
            let outputs = (behind - column).min(group) as usize;
            for (windows, out) in tile.chunks(pooled.max(1)).zip(self.outputs(out, column)).take(outputs) {
                let sums = self.pool::<V, COLUMNS>(windows);
                self.store(columns, &sums, out);
            }
        }
    }

    /// One output, of which windows may reach into the padding: one window after the other.
    #[inline(always)]
    fn border<V: Vector<Token = T>, W: Weight, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        [row, column]: Corner,
        out: &mut [f32],
    ) {
        let mut pooled = [V::splat(self.token, f32::NEG_INFINITY); COLUMNS];
        for window in 0..self.geometry.pooled() {
            let sums = self.clipped_window::<V, W, COLUMNS>(columns, self.geometry.corner([row, column], window));
            for (largest, sum) in pooled.iter_mut().zip(sums) {
                *largest = largest.pool(sum);
            }
        }
        if let Some(out) = self.outputs(out, column).next() {
            self.store(columns, &pooled, out);
        }
    }

    /// The outputs of a row, position by position, from `column` on.
    #[inline(always)]
    fn outputs<'o>(&self, row: &'o mut [f32], column: i32) -> impl Iterator<Item = &'o mut [f32]> {
        row.chunks_exact_mut(self.filters.max(1)).skip(column as usize)
    }

    /// The largest of the windows' sums.
    #[inline(always)]
    fn pool<V: Vector<Token = T>, const COLUMNS: usize>(&self, windows: &[[V; COLUMNS]]) -> [V; COLUMNS] {
        let mut windows = windows.iter();
        let mut pooled = windows.next().copied().unwrap_or([V::splat(self.token, f32::NEG_INFINITY); COLUMNS]);
        for sums in windows {
            for (largest, sum) in pooled.iter_mut().zip(sums) {
                *largest = largest.pool(*sum);
            }
        }
        pooled
    }

    #[inline(always)]
    fn store<V: Vector<Token = T>, W: Weight, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        sums: &[V; COLUMNS],
        out: &mut [f32],
    ) {
        let floor = V::splat(self.token, self.floor);
        let out = out.get_mut(columns.first..).unwrap_or_default();
        for (sum, out) in sums.iter().zip(out.chunks_mut(V::LANES)) {
            floor.max(*sum).store(out);
        }
    }

    /// The sums of the windows that begin at `starts`, of which the `rows` lie within the input.
    #[inline(always)]
    fn windows<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        starts: [usize; WINDOWS],
        rows: &Range<i32>,
    ) -> Tile<V, WINDOWS, COLUMNS> {
        let Geometry { kernel: [_, kw], channels, .. } = self.geometry;
        let mut tile = [self.bias(columns); WINDOWS];
        let len = kw as usize * channels;
        self.add(columns, starts, rows.start as usize * len, rows.len(), len, &mut tile);
        tile
    }

    /// The sums of one window, of which parts may lie in the padding, where the input counts as 0.
    #[inline(always)]
    fn clipped_window<V: Vector<Token = T>, W: Weight, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        [row, column]: Corner,
    ) -> [V; COLUMNS] {
        let Geometry { kernel: [_, kw], channels, .. } = self.geometry;
        let mut tile = [self.bias(columns)];
        let inside = self.geometry.columns_inside(column);
        for ky in self.geometry.rows_inside(row) {
            if !inside.is_empty() {
                let start = self.geometry.index(row + ky, column + inside.start);
                let first = (ky * kw + inside.start) as usize * channels;
                self.add(columns, [start], first, 1, inside.len() * channels, &mut tile);
            }
        }
        let [sums] = tile;
        sums
    }

    #[inline(always)]
    fn bias<V: Vector<Token = T>, W: Weight, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
    ) -> [V; COLUMNS] {
        core::array::from_fn(|c| V::load(self.token, columns.bias.get(c * V::LANES..).unwrap_or_default()))
    }

    /// Adds the products of `runs` runs of `len` neighbouring inputs, from `starts` on and a row of the input apart, with
    /// the weights from input `first` of the window on.
    #[inline(always)]
    fn add<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        starts: [usize; WINDOWS],
        first: usize,
        runs: usize,
        len: usize,
        tile: &mut Tile<V, WINDOWS, COLUMNS>,
    ) {
        let operands = Operands {
            inputs: self.x,
            rows: starts,
            weights: columns.weights.get(first * columns.width..).unwrap_or_default(),
            columns: columns.starts,
            stride: columns.width,
            runs,
            pitch: self.geometry.width as usize * self.geometry.channels,
            len,
        };
        accumulate(self.token, &operands, tile);
    }
}
