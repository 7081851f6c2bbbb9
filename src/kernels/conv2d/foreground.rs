//! Which outputs of an image's convolution see anything but zeros. All others, the background, are the same: nothing is
//! multiplied for them.
//!
//! (So a zero is skipped even where it meets a weight that is infinite or NaN.)

use super::{Activation, Sums};
use crate::kernels::activation::activate;
use crate::kernels::backend::bits::{List, non_zero_values};
use crate::kernels::backend::non_zero::FindNonZero;
use crate::kernels::backend::tile::Element;
use crate::kernels::pack::{Columns, PANEL, Panels, Weight};
use crate::kernels::vector::Vector;
use crate::kernels::windows::{Geometry, Place};
use core::ops::Range;

impl<E: Element, T: FindNonZero> Sums<'_, E, T> {
    /// The whole convolution with its activation, if much of the input is background and it is worth it to leave that out.
    #[inline(always)]
    pub(super) fn without_background<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        weights: Panels<'_, W>,
        activation: Activation,
        out: &mut [f32],
    ) -> bool {
        if !V::UNROLL || WINDOWS < MOST_POOLED {
            return false;
        }
        let image = E::plain(self.x.values);
        let Some(foreground) = image.and_then(|image| Foreground::find(self.token, image, &self.geometry)) else {
            return false;
        };
        let more_than_a_bound = !matches!(activation, Activation::None | Activation::Relu);
        for rows in foreground.parts() {
            let part = foreground.part(self.token, rows.clone());
            let background = foreground.background(self.token, rows);
            let mut first = 0;
            if COLUMNS > 1 {
                while let Some(columns) = weights.columns::<2>(V::LANES, first, self.filters) {
                    self.part::<V, W, WINDOWS, 2>(&columns, &part, part.foreground.numbers(), out);
                    first += 2 * V::LANES;
                }
            }
            while let Some(columns) = weights.columns::<1>(V::LANES, first, self.filters) {
                self.part::<V, W, WINDOWS, 1>(&columns, &part, part.foreground.numbers(), out);
                first += V::LANES;
            }
            for position in part.foreground.numbers().iter().take_while(|_| more_than_a_bound) {
                let values = out.get_mut(usize::from(*position) * self.filters..);
                let values = values.and_then(|values| values.get_mut(..self.filters));
                activate::<V>(self.token, activation, values.into_iter());
            }
            first = 0;
            while let Some(columns) = weights.columns::<1>(V::LANES, first, self.filters) {
                self.fill::<V, W>(&columns, background.numbers(), activation, out);
                first += V::LANES;
            }
        }
        true
    }

    /// Some columns of the foreground of some rows, each output at its position.
    #[inline(always)]
    pub(super) fn part<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        part: &Part,
        positions: &[u16],
        out: &mut [f32],
    ) {
        let [window_rows, _] = self.geometry.kernel();
        // With a number of pooled windows that the compiler knows, they stay in registers.
        if self.geometry.pooled() == 1 {
            let tiles = part.tiles::<WINDOWS>(&self.geometry, 1, positions, self.filters);
            self.tiles::<V, W, WINDOWS, COLUMNS>(columns, 0..window_rows, 1, tiles, out);
        } else {
            let tiles = part.tiles::<WINDOWS>(&self.geometry, MOST_POOLED, positions, self.filters);
            self.tiles::<V, W, WINDOWS, COLUMNS>(columns, 0..window_rows, MOST_POOLED, tiles, out);
        }
    }

    /// Some columns of outputs that see nothing but zeros.
    #[inline(always)]
    fn fill<V: Vector<Token = T>, W: Weight>(
        &self,
        columns: &Columns<'_, W, 1>,
        positions: &[u16],
        activation: Activation,
        out: &mut [f32],
    ) {
        let floor = V::splat(self.token, self.floor);
        let mut sums = self.bias(columns);
        for sum in &mut sums {
            let mut lanes = [0.0; PANEL];
            floor.max(*sum).store(&mut lanes);
            activate::<V>(self.token, activation, core::iter::once(lanes.get_mut(..V::LANES).unwrap_or_default()));
            *sum = V::load(self.token, &lanes);
        }
        for position in positions {
            self.store(columns, &sums, usize::from(*position) * self.filters, out);
        }
    }
}

/// The windows that are pooled to an output: these many, or a single one.
pub(super) const MOST_POOLED: usize = 4;
/// The largest image, in rows and columns: a bit for each.
const MAX_SIDE: usize = 64;
/// The most outputs of a [`Part`]: so few that they stay in the first-level cache until the activation has been applied.
pub(super) const PART: usize = 512;
/// What may be written behind a list's last number.
const SLACK: usize = 16;

impl Geometry {
    /// Rows and columns of the input from an output to the one below it, and to the next in the row.
    #[inline(always)]
    fn distances(&self) -> [i32; 2] {
        let ([ph, pw], [sh, sw]) = (self.pool(), self.stride());
        [ph * sh, pw * sw]
    }

    /// Rows and columns of the input that an output depends on.
    #[inline(always)]
    fn reach(&self) -> [i32; 2] {
        let ([ph, pw], [sh, sw], [kh, kw]) = (self.pool(), self.stride(), self.kernel());
        [(ph - 1) * sh + kh, (pw - 1) * sw + kw]
    }
}

/// The foreground of an image of one channel.
pub(super) struct Foreground<'a> {
    geometry: &'a Geometry,
    /// A bit for each output of each row, at the input column where its window begins: whether the window holds anything but
    /// zeros.
    rows: [u64; MAX_SIDE],
}

impl<'a> Foreground<'a> {
    /// `None` if it is as well to compute all outputs: because few or none are background, because some windows reach beyond
    /// the image, or because the image has several channels, or because this is made for other sizes.
    #[inline(always)]
    pub(super) fn find<T: FindNonZero>(token: T, image: &[f32], geometry: &'a Geometry) -> Option<Self> {
        let (width, height) = (geometry.width() as usize, geometry.height() as usize);
        let sizes = 16..=MAX_SIDE;
        if !T::IS_FAST || geometry.channels() != 1 || !sizes.contains(&width) || !sizes.contains(&height) {
            return None;
        }
        let band = geometry.band(0)?;
        let (outputs_high, outputs_wide) = (geometry.output_height(), geometry.output_width());
        let ([down, right], [high, wide]) = (geometry.distances(), geometry.reach());
        let [window_rows, _] = geometry.kernel();
        let within = band.rows == (0..outputs_high)
            && band.columns == (0..outputs_wide)
            && band.window_rows == (0..window_rows)
            && geometry.origin() == [0, 0];
        let pooled = geometry.pooled() as usize;
        if !within || band.columns.is_empty() || right > 2 || (pooled != 1 && pooled != MOST_POOLED) {
            return None;
        }
        let mut seen = [0; MAX_SIDE];
        for (seen, row) in seen.iter_mut().zip(image.chunks_exact(width)) {
            *seen = non_zero_values(token, row);
        }
        let all = beginnings(geometry);
        let (mut rows, mut found) = ([0; MAX_SIDE], 0);
        for (row, bits) in rows.iter_mut().enumerate().take(outputs_high as usize) {
            let seen = seen.get(row * down as usize..).unwrap_or_default().iter().take(high as usize);
            let seen = seen.fold(0, |all, seen| all | seen);
            // (No window is wider than the image.)
            *bits = (0..wide as u32).fold(0, |any, column| any | seen.wrapping_shr(column)) & all;
            found += bits.count_ones();
        }
        let outputs = (outputs_high * outputs_wide) as u32;
        (found <= outputs / 8 * 7).then_some(Self { geometry, rows })
    }

    /// The outputs in parts, from the top: the rows of each.
    #[inline(always)]
    pub(super) fn parts(&self) -> impl Iterator<Item = Range<usize>> {
        let rows = self.geometry.output_height() as usize;
        let at_a_time = PART.checked_div(self.geometry.output_width() as usize).unwrap_or(1);
        (0..rows).step_by(at_a_time).map(move |first| first..rows.min(first + at_a_time))
    }

    /// The foreground of some rows.
    #[inline(always)]
    pub(super) fn part<T: FindNonZero>(&self, token: T, rows: Range<usize>) -> Part {
        let mut part = Part { starts: List::new(), foreground: List::new() };
        let outputs = self.geometry.output_width() as usize;
        let [down, right] = self.geometry.distances();
        for (row, bits) in self.rows.iter().enumerate().take(rows.end).skip(rows.start) {
            part.starts.push(token, *bits, (row * (down * self.geometry.width()) as usize) as u16);
            part.foreground.push(token, packed(*bits, right), (row * outputs) as u16);
        }
        part
    }

    /// The background of some rows: where the outputs are stored, counted in outputs.
    #[inline(always)]
    fn background<T: FindNonZero>(&self, token: T, rows: Range<usize>) -> List<{ PART + SLACK }> {
        let mut background = List::new();
        let (outputs, all) = (self.geometry.output_width() as usize, beginnings(self.geometry));
        let [_, right] = self.geometry.distances();
        for (row, bits) in self.rows.iter().enumerate().take(rows.end).skip(rows.start) {
            background.push(token, packed(all & !bits, right), (row * outputs) as u16);
        }
        background
    }
}

/// A bit for each input column where an output's window begins.
#[inline(always)]
fn beginnings(geometry: &Geometry) -> u64 {
    let [_, right] = geometry.distances();
    let last = (geometry.output_width() - 1) * right;
    let every = u64::MAX.checked_shr((63 - last) as u32).unwrap_or(0);
    let other = 0x5555_5555_5555_5555;
    if right == 1 { every } else { every & other }
}

/// Every bit, or every other, next to each other.
#[inline(always)]
fn packed(mut bits: u64, distance: i32) -> u64 {
    if distance == 2 {
        bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
        bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
        bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
        bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
        bits = (bits | bits >> 16) & 0x0000_0000_ffff_ffff;
    }
    bits
}

/// The foreground of some rows.
pub(super) struct Part {
    /// Of each output that is foreground the first input of its window.
    starts: List<{ PART + SLACK }>,
    /// Where these are stored, counted in outputs.
    pub(super) foreground: List<{ PART + SLACK }>,
}

impl Part {
    /// The foreground as tiles of `WINDOWS` windows, of which `pooled` are pooled to an output that belongs at its position.
    #[inline(always)]
    fn tiles<'a, const WINDOWS: usize>(
        &'a self,
        geometry: &Geometry,
        pooled: usize,
        positions: &'a [u16],
        filters: usize,
    ) -> Tiles<'a, WINDOWS> {
        let mut offsets = [0; WINDOWS];
        for (window, offset) in offsets.iter_mut().enumerate().take(pooled) {
            *offset = geometry.index_of(geometry.corner([0, 0], window as i32));
        }
        let group = WINDOWS.checked_div(pooled).unwrap_or(0);
        Tiles { starts: self.starts.numbers(), positions, pooled, group, offsets, filters }
    }
}

/// See [`Part::tiles`].
struct Tiles<'a, const WINDOWS: usize> {
    starts: &'a [u16],
    positions: &'a [u16],
    /// How many windows are pooled to an output, and how many outputs fill a tile.
    pooled: usize,
    group: usize,
    /// From the first input of an output's first window to that of its others.
    offsets: [usize; WINDOWS],
    filters: usize,
}

impl<const WINDOWS: usize> Iterator for Tiles<'_, WINDOWS> {
    type Item = Place<WINDOWS>;

    #[inline(always)]
    fn next(&mut self) -> Option<Place<WINDOWS>> {
        let first = *self.starts.first()?;
        let mut place = Place { starts: [0; WINDOWS], positions: [0; WINDOWS], outputs: self.group };
        if self.positions.len() < self.group {
            place.outputs = self.positions.len();
        }
        for index in 0..self.group {
            // Outputs that a tile has too many repeat its first.
            let start = usize::from(self.starts.get(index).copied().unwrap_or(first));
            for window in 0..self.pooled {
                if let (Some(to), Some(offset)) =
                    (place.starts.get_mut(index * self.pooled + window), self.offsets.get(window))
                {
                    *to = start + offset;
                }
            }
            if let (Some(to), Some(position)) = (place.positions.get_mut(index), self.positions.get(index)) {
                *to = usize::from(*position) * self.filters;
            }
        }
        self.starts = self.starts.get(self.group..).unwrap_or_default();
        self.positions = self.positions.get(self.group..).unwrap_or_default();
        Some(place)
    }
}
