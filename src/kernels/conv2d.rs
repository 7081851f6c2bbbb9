//! 2-D convolution, direct: no im2col buffer, and the pooling that follows happens in registers.
//!
//! Activations are `[H, W, C]`, so a window of `kh × kw` positions is `kh` runs of `kw · C` neighbouring values, and a
//! convolution is the dense layer's inner loop with several runs. A tile's rows are windows: neighbouring ones, or those
//! that are pooled together.

use super::backend::tile::{Element, Inputs, Operands, Runs, Weights, accumulate_run, accumulate_windows};
use super::backend::{Backend, Kernel};
use super::compiled::Input;
use super::pack::{Columns, Panels, Weight};
use super::vector::Vector;
use crate::layer::{Conv2d, Shape};
use core::ops::Range;

/// `out = max(floor, pool(x ⋆ W + b))`, where `pool` is the largest sum of each `conv.pool` window.
///
/// `x` is `[H, W, C]` of shape `input`, `out` is `[H, W, filters]` of shape `output`. The activation follows the pooling,
/// which is the same as the other way round for every activation that never falls, and fewer evaluations. Does nothing
/// where lengths do not fit the shapes.
pub(crate) fn conv2d<E: Input, W: Weight>(
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
        output_height: i32::from(output.height),
        output_width: i32::from(output.width),
    };
    if x.values.len() == geometry.elements() && weights.inputs() == geometry.window() {
        E::conv2d(backend, ConvKernel { x, geometry, weights, floor, out });
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
    /// Rows and positions per row of the output, after pooling.
    output_height: i32,
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

    /// The outputs of a row whose windows lie within the input from left to right.
    #[inline(always)]
    fn inside(&self) -> Range<i32> {
        let ([_, pw], [_, sw], [_, left], [_, kw]) = (self.pool, self.stride, self.origin, self.kernel);
        // An output's windows begin at `left + column * step` and end `reach` further right.
        let (step, reach) = (pw * sw, (pw - 1) * sw + kw);
        let steps_to = |distance: i32| distance.max(0).checked_div(step).unwrap_or(0);
        let first = steps_to(-left + step - 1).min(self.output_width);
        let behind = steps_to(self.width - reach - left + step).min(self.output_width).max(first);
        first..behind
    }

    /// The rows of the windows of a row of outputs that lie within the input; empty where they are not the same for all
    /// that are pooled together.
    #[inline(always)]
    fn common_rows(&self, row: i32) -> Range<i32> {
        let [ph, pw] = self.pool;
        let [top, _] = self.corner([row, 0], 0);
        let [bottom, _] = self.corner([row, 0], (ph - 1) * pw);
        let rows = self.rows_inside(top);
        if rows == self.rows_inside(bottom) { rows } else { 0..0 }
    }

    /// From the first input of an output to that of the next in the row.
    #[inline(always)]
    fn column_distance(&self) -> usize {
        let ([_, pw], [_, sw]) = (self.pool, self.stride);
        (pw * sw) as usize * self.channels
    }

    /// From the first input of an output to that of the one below it.
    #[inline(always)]
    fn row_distance(&self) -> usize {
        let ([ph, _], [sh, _]) = (self.pool, self.stride);
        (ph * sh * self.width) as usize * self.channels
    }

    /// The index of a position's first channel. (A position in the padding has none; differences of indices are right.)
    #[inline(always)]
    fn index_of(&self, [row, column]: Corner) -> usize {
        ((row * self.width + column) as usize).wrapping_mul(self.channels)
    }
}

/// What a convolution computes.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct ConvKernel<'a, E, W> {
    x: Inputs<'a, E>,
    geometry: Geometry,
    weights: Panels<'a, W>,
    floor: f32,
    out: &'a mut [f32],
}

#[cfg(not(target_os = "none"))]
impl<'a, W> ConvKernel<'a, u8, W> {
    /// The same convolution with the values that the bytes stand for; as it is if the buffer is too small for them.
    #[allow(clippy::result_large_err, reason = "it is the kernel itself, unchanged")]
    pub(super) fn converted(self, buffer: &'a mut [f32]) -> Result<ConvKernel<'a, f32, W>, Self> {
        let Some(values) = buffer.get_mut(..self.x.values.len()) else { return Err(self) };
        self.x.convert(values);
        let Self { geometry, weights, floor, out, .. } = self;
        Ok(ConvKernel { x: Inputs::plain(values), geometry, weights, floor, out })
    }
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
            while let Some(columns) = weights.columns::<2>(V::LANES, first, weights.outputs()) {
                sums.map::<V, W, WINDOWS, 2>(&columns, out);
                first += 2 * V::LANES;
            }
        }
        while let Some(columns) = weights.columns::<1>(V::LANES, first, weights.outputs()) {
            sums.map::<V, W, WINDOWS, 1>(&columns, out);
            first += V::LANES;
        }
    }
}

/// How the walk through a band goes on.
struct Line {
    /// From the first input of an output to that of the next.
    to_next: usize,
    /// From behind the last output of a row to the first of the next.
    to_next_row: usize,
    /// The outputs of a row.
    outputs: usize,
    /// The values between a row's last output and the next row's first, where they are stored.
    gap: usize,
}

/// An output on the walk through a band.
#[derive(Clone, Copy)]
struct Output {
    /// The first input of its first window.
    start: usize,
    /// Where it is stored.
    position: usize,
    /// Its number in the row.
    column: usize,
}

impl Output {
    /// Goes on by `count` outputs, at most to the end of the row.
    #[inline(always)]
    fn advance(&mut self, line: &Line, count: usize, filters: usize) {
        self.start = self.start.wrapping_add(line.to_next.wrapping_mul(count));
        self.position += count * filters;
        self.column += count;
        if self.column == line.outputs {
            self.start = self.start.wrapping_add(line.to_next_row);
            self.position += line.gap;
            self.column = 0;
        }
    }
}

/// Rows of outputs that are computed alike.
struct Band {
    rows: Range<i32>,
    /// The outputs of each row whose windows lie within the input from left to right.
    columns: Range<i32>,
    /// The rows of each window that lie within the input.
    window_rows: Range<i32>,
}

struct Sums<'a, E, T> {
    x: Inputs<'a, E>,
    geometry: Geometry,
    token: T,
    floor: f32,
    filters: usize,
}

impl<E: Element, T: Copy> Sums<'_, E, T> {
    /// Some columns of the whole output, in bands of rows whose windows reach equally far beyond the input above and below.
    #[inline(always)]
    fn map<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        out: &mut [f32],
    ) {
        let Geometry { output_height, output_width, .. } = self.geometry;
        let pooled = self.geometry.pooled();
        let inside = if pooled as usize > WINDOWS { 0..0 } else { self.geometry.inside() };
        let mut top = 0;
        while top < output_height {
            let window_rows = self.geometry.common_rows(top);
            let inside = if window_rows.is_empty() { 0..0 } else { inside.clone() };
            let mut bottom = top + 1;
            while bottom < output_height && self.geometry.common_rows(bottom) == window_rows {
                bottom += 1;
            }
            for row in top..bottom {
                for column in (0..inside.start).chain(inside.end..output_width) {
                    self.border::<V, W, COLUMNS>(columns, [row, column], out);
                }
            }
            let band = Band { rows: top..bottom, columns: inside, window_rows };
            // With a number of pooled windows that the compiler knows, they stay in registers.
            match pooled {
                1 if V::UNROLL && E::UNROLL => self.band::<V, W, WINDOWS, 1, COLUMNS>(columns, &band, out),
                4 if V::UNROLL && E::UNROLL => self.band::<V, W, WINDOWS, 4, COLUMNS>(columns, &band, out),
                _ => self.band::<V, W, WINDOWS, ANY, COLUMNS>(columns, &band, out),
            }
            top = bottom;
        }
    }

    /// A band without its borders: tiles of as many outputs as fill `WINDOWS`, which may go on in the next row. `POOLED`
    /// windows are pooled to an output.
    #[inline(always)]
    fn band<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const POOLED: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        band: &Band,
        out: &mut [f32],
    ) {
        let pooled = if POOLED == ANY { self.geometry.pooled() as usize } else { POOLED };
        let group = WINDOWS.checked_div(pooled).unwrap_or(0);
        if group == 0 {
            return;
        }
        let Geometry { kernel: [_, kw], channels, output_width, .. } = self.geometry;
        let len = kw as usize * channels;
        let first = band.window_rows.start as usize * len;
        let Some(operands) = self.operands::<V, W, COLUMNS>(columns, first, band.window_rows.len(), len) else {
            return;
        };
        let [top, left] = self.geometry.corner([band.rows.start, band.columns.start], 0);
        let origin = self.geometry.index_of([top, left]);
        let to_next = self.geometry.column_distance();
        // From the first window of a tile to each of the others, if the tile lies within a row.
        let mut offsets = [0; WINDOWS];
        for (window, offset) in offsets.iter_mut().enumerate() {
            let index = window.checked_div(pooled).unwrap_or(0);
            let corner = self.geometry.corner([band.rows.start, band.columns.start], (window - index * pooled) as i32);
            *offset = self.geometry.index_of(corner).wrapping_sub(origin).wrapping_add(index.wrapping_mul(to_next));
        }
        let mut output = Output {
            start: self.geometry.index_of([top + band.window_rows.start, left]),
            position: (band.rows.start * output_width + band.columns.start) as usize * self.filters,
            column: 0,
        };
        let outputs_per_row = band.columns.len();
        let line = Line {
            to_next,
            to_next_row: self.geometry.row_distance().wrapping_sub(to_next.wrapping_mul(outputs_per_row)),
            outputs: outputs_per_row,
            gap: (output_width as usize - outputs_per_row) * self.filters,
        };
        let bias = [self.bias(columns); WINDOWS];
        let mut remaining = band.rows.len() * outputs_per_row;
        while remaining > 0 {
            let first = output;
            let mut starts = offsets;
            let mut positions = [output.position; WINDOWS];
            if output.column + group <= outputs_per_row {
                for start in &mut starts {
                    *start = start.wrapping_add(first.start);
                }
                for (index, position) in positions.iter_mut().enumerate() {
                    *position += index * self.filters;
                }
                output.advance(&line, group, self.filters);
            } else {
                for index in 0..group.min(WINDOWS) {
                    let shift = output.start.wrapping_sub(index.wrapping_mul(to_next));
                    for start in starts.get_mut(index * pooled..(index + 1) * pooled).unwrap_or_default() {
                        *start = start.wrapping_add(shift);
                    }
                    if let Some(position) = positions.get_mut(index) {
                        *position = output.position;
                    }
                    // A last tile that is not full repeats the last output.
                    if index + 1 < remaining {
                        output.advance(&line, 1, self.filters);
                    }
                }
            }
            // Windows beyond the last whole output of a tile repeat its first.
            for start in starts.get_mut(group * pooled..).unwrap_or_default() {
                *start = first.start;
            }
            let tile = accumulate_windows(self.token, &operands, starts, bias);
            for index in 0..group.min(WINDOWS) {
                let windows = tile.get(index * pooled..(index + 1) * pooled).unwrap_or_default();
                if let (Some(position), true) = (positions.get(index), index < remaining) {
                    self.store(columns, &self.pool::<V, COLUMNS>(windows), *position, out);
                }
            }
            remaining -= group.min(remaining);
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
        let position = (row * self.geometry.output_width + column) as usize * self.filters;
        self.store(columns, &pooled, position, out);
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

    /// Stores the sums of the output that begins at `position`.
    #[inline(always)]
    fn store<V: Vector<Token = T>, W: Weight, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        sums: &[V; COLUMNS],
        position: usize,
        out: &mut [f32],
    ) {
        let floor = V::splat(self.token, self.floor);
        let end = position + self.filters;
        for (c, sum) in sums.iter().enumerate() {
            // The last vector may reach beyond the filters.
            let begin = position + columns.first + c * V::LANES;
            floor.max(*sum).store(out.get_mut(begin..end.min(begin + V::LANES)).unwrap_or_default());
        }
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
                let start = self.geometry.index_of([row + ky, column + inside.start]);
                let first = (ky * kw + inside.start) as usize * channels;
                if let Some(operands) = self.operands(columns, first, 1, inside.len() * channels) {
                    tile = accumulate_run(self.token, &operands, [start], tile);
                }
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

    /// Runs of `len` neighbouring inputs that are a row of the input apart, and the weights from input `first` of the window
    /// on.
    #[inline(always)]
    fn operands<'a, V: Vector<Token = T>, W: Weight, const COLUMNS: usize>(
        &'a self,
        columns: &Columns<'a, W, COLUMNS>,
        first: usize,
        count: usize,
        len: usize,
    ) -> Option<Operands<'a, V, E, W, COLUMNS>> {
        let weights = Weights {
            values: columns.weights.get(first * columns.width..)?,
            columns: columns.starts,
            stride: columns.width,
        };
        let pitch = self.geometry.width as usize * self.geometry.channels;
        Operands::new(self.x, weights, Runs { count, pitch, len })
    }
}
