//! Where the windows of a convolution lie, and the order in which they are computed.

use crate::layer::{Conv2d, DepthwiseConv2d, Shape};
use core::ops::Range;

/// `n`, or the nearer end of `0..=most`. (`clamp` would check its bounds, and could panic.)
#[inline(always)]
pub(super) fn within(n: i32, most: i32) -> i32 {
    n.max(0).min(most)
}

/// What decides where the windows lie.
//
// Small, since it lies on the stack of a microcontroller while its largest kernel runs.
#[derive(Clone, Copy)]
pub(crate) struct Geometry {
    kernel: [u8; 2],
    stride: [u8; 2],
    pool: [u8; 2],
    origin: [i16; 2],
    input: Shape,
    output: Shape,
}

/// The row and column of a window's first value.
pub(super) type Corner = [i32; 2];

impl Geometry {
    pub(crate) fn new(conv: &Conv2d, input: Shape, output: Shape) -> Self {
        let Conv2d { kernel, stride, pool, padding, .. } = *conv;
        Self { kernel, stride, pool, origin: [-i16::from(padding.top), -i16::from(padding.left)], input, output }
    }

    /// That of a depthwise convolution: as of one without pooling.
    pub(crate) fn depthwise(conv: &DepthwiseConv2d, input: Shape, output: Shape) -> Self {
        let DepthwiseConv2d { kernel, stride, padding, activation, weights } = *conv;
        let conv = Conv2d { filters: input.channels, kernel, stride, padding, pool: [1, 1], activation, weights };
        Self::new(&conv, input, output)
    }

    #[inline(always)]
    pub(super) fn height(&self) -> i32 {
        self.input.height.into()
    }

    #[inline(always)]
    pub(super) fn width(&self) -> i32 {
        self.input.width.into()
    }

    #[inline(always)]
    pub(super) fn channels(&self) -> usize {
        self.input.channels.into()
    }

    #[inline(always)]
    pub(super) fn kernel(&self) -> [i32; 2] {
        let [height, width] = self.kernel;
        [height.into(), width.into()]
    }

    #[inline(always)]
    pub(super) fn stride(&self) -> [i32; 2] {
        let [down, right] = self.stride;
        [down.into(), right.into()]
    }

    /// Row and column of the first window; negative where it begins in the padding.
    #[inline(always)]
    pub(super) fn origin(&self) -> [i32; 2] {
        let [row, column] = self.origin;
        [row.into(), column.into()]
    }

    #[inline(always)]
    pub(super) fn pool(&self) -> [i32; 2] {
        let [height, width] = self.pool;
        [height.into(), width.into()]
    }

    /// Rows of the output, after pooling.
    #[inline(always)]
    pub(super) fn output_height(&self) -> i32 {
        self.output.height.into()
    }

    /// Positions per row of the output.
    #[inline(always)]
    pub(super) fn output_width(&self) -> i32 {
        self.output.width.into()
    }

    /// How many outputs there are, of each filter.
    #[cfg(not(target_os = "none"))]
    pub(super) fn outputs(&self) -> usize {
        self.output_height() as usize * self.output_width() as usize
    }

    pub(super) fn elements(&self) -> usize {
        self.height() as usize * self.width() as usize * self.channels()
    }

    pub(super) fn window(&self) -> usize {
        let [kh, kw] = self.kernel();
        kh as usize * kw as usize * self.channels()
    }

    /// How many windows are pooled to one output.
    #[inline(always)]
    pub(super) fn pooled(&self) -> i32 {
        let [ph, pw] = self.pool();
        ph * pw
    }

    /// The corner of window `index` (row by row) of the windows that are pooled to an output.
    #[inline(always)]
    pub(super) fn corner(&self, [row, column]: Corner, index: i32) -> Corner {
        let ([ph, pw], [sh, sw], [top, left]) = (self.pool(), self.stride(), self.origin());
        let down = index.checked_div(pw).unwrap_or(0);
        let right = index - down * pw;
        [top + (row * ph + down) * sh, left + (column * pw + right) * sw]
    }

    /// The rows of a window that lie within the input.
    #[inline(always)]
    pub(super) fn rows_inside(&self, row: i32) -> Range<i32> {
        let [kh, _] = self.kernel();
        within(-row, kh)..within(self.height() - row, kh)
    }

    /// The columns of a window that lie within the input.
    #[inline(always)]
    pub(super) fn columns_inside(&self, column: i32) -> Range<i32> {
        let [_, kw] = self.kernel();
        within(-column, kw)..within(self.width() - column, kw)
    }

    /// The output in bands, from the top.
    #[inline(always)]
    pub(super) fn band(&self, top: i32) -> Option<Band> {
        if top >= self.output_height() {
            return None;
        }
        let window_rows = self.common_rows(top);
        let mut bottom = top + 1;
        while bottom < self.output_height() && self.common_rows(bottom) == window_rows {
            bottom += 1;
        }
        let columns = if window_rows.is_empty() { 0..0 } else { self.inside() };
        Some(Band { rows: top..bottom, columns, window_rows })
    }

    /// The outputs of a row whose windows lie within the input from left to right.
    #[inline(always)]
    fn inside(&self) -> Range<i32> {
        let ([_, pw], [_, sw], [_, left], [_, kw]) = (self.pool(), self.stride(), self.origin(), self.kernel());
        // An output's windows begin at `left + column * step` and end `reach` further right.
        let (step, reach) = (pw * sw, (pw - 1) * sw + kw);
        let steps_to = |distance: i32| distance.max(0).checked_div(step).unwrap_or(0);
        let first = steps_to(-left + step - 1).min(self.output_width());
        let behind = steps_to(self.width() - reach - left + step).min(self.output_width()).max(first);
        first..behind
    }

    /// The rows of the windows of a row of outputs that lie within the input; empty where they are not the same for all
    /// that are pooled together.
    #[inline(always)]
    fn common_rows(&self, row: i32) -> Range<i32> {
        let [ph, pw] = self.pool();
        let [top, _] = self.corner([row, 0], 0);
        let [bottom, _] = self.corner([row, 0], (ph - 1) * pw);
        let rows = self.rows_inside(top);
        if rows == self.rows_inside(bottom) { rows } else { 0..0 }
    }

    /// From the first input of an output to that of the next in the row.
    #[inline(always)]
    fn column_distance(&self) -> usize {
        let ([_, pw], [_, sw]) = (self.pool(), self.stride());
        (pw * sw) as usize * self.channels()
    }

    /// From the first input of an output to that of the one below it.
    #[inline(always)]
    fn row_distance(&self) -> usize {
        let ([ph, _], [sh, _]) = (self.pool(), self.stride());
        (ph * sh * self.width()) as usize * self.channels()
    }

    /// The index of a position's first channel. (A position in the padding has none; differences of indices are right.)
    #[inline(always)]
    pub(super) fn index_of(&self, [row, column]: Corner) -> usize {
        ((row * self.width() + column) as usize).wrapping_mul(self.channels())
    }
}

/// Rows of outputs whose windows reach equally far beyond the input above and below.
pub(super) struct Band {
    pub(super) rows: Range<i32>,
    /// The outputs of each row whose windows lie within the input from left to right; none where the windows that are pooled
    /// together do not reach equally far.
    pub(super) columns: Range<i32>,
    /// The rows of each window that lie within the input.
    pub(super) window_rows: Range<i32>,
}

/// A walk through a band without its borders, as many outputs at a time as fill a tile of `WINDOWS`; a tile may go on in the
/// next row.
pub(super) struct Walk<const WINDOWS: usize> {
    /// How many windows are pooled to an output, and how many outputs fill a tile.
    pooled: usize,
    group: usize,
    /// From the first window of a tile to each of the others, if the tile lies within a row.
    offsets: [usize; WINDOWS],
    /// From the first input of an output to that of the next, and from behind the last of a row to the first of the next.
    to_next: usize,
    to_next_row: usize,
    /// The values that an output has where it is stored, and those between a row's last output and the next row's first.
    filters: usize,
    gap: usize,
    outputs_per_row: usize,
    /// The next output: the first input of its first window, where it is stored, and its number in the row.
    start: usize,
    position: usize,
    column: usize,
    remaining: usize,
}

/// Where a tile of a walk lies.
pub(super) struct Place<const WINDOWS: usize> {
    /// The first input of each window. Windows that are too many repeat others.
    pub(super) starts: [usize; WINDOWS],
    /// Where each output is stored.
    pub(super) positions: [usize; WINDOWS],
    /// The number of outputs.
    pub(super) outputs: usize,
}

impl<const WINDOWS: usize> Place<WINDOWS> {
    /// The first windows, which must be all that are not too many.
    #[inline(always)]
    pub(super) fn beginning<const FIRST: usize>(&self) -> Place<FIRST> {
        let mut place = Place { starts: [0; FIRST], positions: [0; FIRST], outputs: self.outputs };
        place.starts.iter_mut().zip(self.starts).for_each(|(to, start)| *to = start);
        place.positions.iter_mut().zip(self.positions).for_each(|(to, position)| *to = position);
        place
    }
}

impl<const WINDOWS: usize> Walk<WINDOWS> {
    /// `pooled` windows are pooled to an output of `filters` values.
    #[inline(always)]
    pub(super) fn new(geometry: &Geometry, band: &Band, pooled: usize, filters: usize) -> Self {
        let first = [band.rows.start, band.columns.start];
        let [top, left] = geometry.corner(first, 0);
        let to_next = geometry.column_distance();
        let mut offsets = [0; WINDOWS];
        for (window, offset) in offsets.iter_mut().enumerate() {
            let output = window.checked_div(pooled).unwrap_or(0);
            let corner = geometry.index_of(geometry.corner(first, (window - output * pooled) as i32));
            let from_first = corner.wrapping_sub(geometry.index_of([top, left]));
            *offset = from_first.wrapping_add(output.wrapping_mul(to_next));
        }
        let outputs_per_row = band.columns.len();
        Self {
            pooled,
            group: WINDOWS.checked_div(pooled).unwrap_or(0),
            offsets,
            to_next,
            to_next_row: geometry.row_distance().wrapping_sub(to_next.wrapping_mul(outputs_per_row)),
            filters,
            gap: (geometry.output_width() as usize).wrapping_sub(outputs_per_row).wrapping_mul(filters),
            outputs_per_row,
            start: geometry.index_of([top + band.window_rows.start, left]),
            position: (band.rows.start * geometry.output_width() + band.columns.start) as usize * filters,
            column: 0,
            remaining: band.rows.len() * outputs_per_row,
        }
    }

    #[inline(always)]
    fn place_in_row(&mut self, place: &mut Place<WINDOWS>) {
        for start in &mut place.starts {
            *start = start.wrapping_add(self.start);
        }
        for (index, position) in place.positions.iter_mut().enumerate() {
            *position += index * self.filters;
        }
        self.advance(self.group);
    }

    #[inline(always)]
    fn place_across_rows(&mut self, place: &mut Place<WINDOWS>) {
        for index in 0..self.group.min(WINDOWS) {
            let shift = self.start.wrapping_sub(index.wrapping_mul(self.to_next));
            for start in place.starts.get_mut(index * self.pooled..(index + 1) * self.pooled).unwrap_or_default() {
                *start = start.wrapping_add(shift);
            }
            if let Some(position) = place.positions.get_mut(index) {
                *position = self.position;
            }
            // A last tile that is not full repeats the last output.
            if index + 1 < self.remaining {
                self.advance(1);
            }
        }
    }

    /// Goes on by `count` outputs, at most to the end of the row.
    #[inline(always)]
    fn advance(&mut self, count: usize) {
        self.start = self.start.wrapping_add(self.to_next.wrapping_mul(count));
        self.position += count * self.filters;
        self.column += count;
        if self.column == self.outputs_per_row {
            self.start = self.start.wrapping_add(self.to_next_row);
            self.position += self.gap;
            self.column = 0;
        }
    }
}

impl<const WINDOWS: usize> Iterator for Walk<WINDOWS> {
    type Item = Place<WINDOWS>;

    /// The next tile.
    #[inline(always)]
    fn next(&mut self) -> Option<Place<WINDOWS>> {
        if self.remaining == 0 || self.group == 0 {
            return None;
        }
        let mut place = Place {
            starts: self.offsets,
            positions: [self.position; WINDOWS],
            outputs: self.group.min(self.remaining),
        };
        let first = self.start;
        if self.column + self.group <= self.outputs_per_row {
            self.place_in_row(&mut place);
        } else {
            self.place_across_rows(&mut place);
        }
        // Windows beyond the last whole output of a tile repeat its first.
        for start in place.starts.get_mut(self.group * self.pooled..).unwrap_or_default() {
            *start = first;
        }
        self.remaining -= place.outputs;
        Some(place)
    }
}
