//! 2-D convolution, direct: no im2col buffer, and the pooling that follows happens in registers.
//!
//! Activations are `[H, W, C]`, so a window of `kh × kw` positions is `kh` runs of `kw · C` neighbouring values, and a
//! convolution is the dense layer's inner loop with several runs. A tile's rows are windows: neighbouring ones, or those
//! that are pooled together.

#[cfg(not(target_os = "none"))]
mod foreground;
#[cfg(not(target_os = "none"))]
pub(crate) mod then_dense;

use super::backend::non_zero::FindNonZero;
use super::backend::tile::{Element, Inputs, Operands, Runs, Weights, accumulate_run, accumulate_windows};
use super::backend::{Backend, Kernel};
use super::compiled::Input;
use super::pack::{Columns, Panels, Weight};
use super::vector::Vector;
use super::windows::{Band, Corner, Geometry, Place, Walk};
use crate::layer::{Activation, Conv2d, Shape};
use core::ops::Range;

/// `out = max(floor, pool(x ⋆ W + b))`, where `pool` is the largest sum of each `conv.pool` window.
///
/// `x` is `[H, W, C]` of shape `input`, `out` is `[H, W, filters]` of shape `output`. The activation follows the pooling,
/// which is the same as the other way round for every activation that never falls, and fewer evaluations. Does nothing
/// where lengths do not fit the shapes. Says whether it has applied the rest of the activation as well.
pub(crate) fn conv2d<E: Input, W: Weight>(
    backend: Backend,
    x: Inputs<'_, E>,
    conv: &Conv2d,
    (input, output): (Shape, Shape),
    weights: Panels<'_, W>,
    floor: f32,
    out: &mut [f32],
) -> bool {
    let geometry = Geometry::new(conv, input, output);
    if x.values.len() != geometry.elements() || weights.inputs() != geometry.window() {
        return false;
    }
    let kernel = ConvKernel { x, geometry, weights, floor, activation: conv.activation, out };
    match W::conv2d_without_vectors(kernel) {
        Some(kernel) => E::conv2d(backend, kernel),
        None => false,
    }
}

/// Half of the windows of the largest tile.
const HALF: usize = 4;
/// Stands for a number of pooled windows that is known at run time only.
const ANY: usize = 0;

/// What a convolution computes.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct ConvKernel<'a, E, W> {
    pub(super) x: Inputs<'a, E>,
    pub(super) geometry: Geometry,
    pub(super) weights: Panels<'a, W>,
    pub(super) floor: f32,
    /// What follows, which the kernel may apply itself.
    #[cfg_attr(target_os = "none", expect(dead_code, reason = "only hosts' kernels do"))]
    pub(super) activation: Activation,
    pub(super) out: &'a mut [f32],
}

#[cfg(not(target_os = "none"))]
impl<'a, W> ConvKernel<'a, u8, W> {
    /// The same convolution with the values that the bytes stand for; as it is if the buffer is too small for them.
    #[allow(clippy::result_large_err, reason = "it is the kernel itself, unchanged")]
    pub(super) fn converted(self, buffer: &'a mut [f32]) -> Result<ConvKernel<'a, f32, W>, Self> {
        let Some(values) = buffer.get_mut(..self.x.values.len()) else { return Err(self) };
        self.x.convert(values);
        let Self { geometry, weights, floor, activation, out, .. } = self;
        Ok(ConvKernel { x: Inputs::plain(values), geometry, weights, floor, activation, out })
    }
}

impl<E: Element, W: Weight> Kernel for ConvKernel<'_, E, W> {
    type Output = bool;

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) -> bool {
        let Self { x, geometry, weights, floor, out, .. } = self;
        let sums = Sums { x, geometry, token, floor, filters: weights.outputs() };
        #[cfg(not(target_os = "none"))]
        if sums.without_background::<V, W, WINDOWS, COLUMNS>(weights, self.activation, out) {
            return true;
        }
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
        false
    }
}

struct Sums<'a, E, T> {
    x: Inputs<'a, E>,
    geometry: Geometry,
    token: T,
    floor: f32,
    filters: usize,
}

impl<E: Element, T: FindNonZero> Sums<'_, E, T> {
    /// Some columns of the whole output, in bands of rows whose windows reach equally far beyond the input above and below.
    #[inline(always)]
    fn map<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        out: &mut [f32],
    ) {
        let mut top = 0;
        while let Some(mut band) = self.geometry.band(top) {
            let pooled = self.geometry.pooled();
            if pooled as usize > WINDOWS {
                band.columns = 0..0;
            }
            for row in band.rows.clone() {
                for column in (0..band.columns.start).chain(band.columns.end..self.geometry.output_width()) {
                    self.border::<V, W, COLUMNS>(columns, [row, column], out);
                }
            }
            // With a number of pooled windows that the compiler knows, they stay in registers.
            match pooled {
                1 if V::UNROLL && E::UNROLL => self.band::<V, W, WINDOWS, 1, COLUMNS>(columns, &band, out),
                4 if V::UNROLL && E::UNROLL => self.band::<V, W, WINDOWS, 4, COLUMNS>(columns, &band, out),
                _ => self.band::<V, W, WINDOWS, ANY, COLUMNS>(columns, &band, out),
            }
            top = band.rows.end;
        }
    }

    /// A band without its borders. `POOLED` windows are pooled to an output.
    #[inline(always)]
    fn band<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const POOLED: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        band: &Band,
        out: &mut [f32],
    ) {
        let pooled = if POOLED == ANY { self.geometry.pooled() as usize } else { POOLED };
        let walk = Walk::<WINDOWS>::new(&self.geometry, band, pooled, self.filters);
        self.tiles::<V, W, WINDOWS, COLUMNS>(columns, band.window_rows.clone(), pooled, walk, out);
    }

    /// Some tiles. The windows' rows `window_rows` lie within the input, and `pooled` windows are pooled to an output.
    #[inline(always)]
    fn tiles<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        window_rows: Range<i32>,
        pooled: usize,
        places: impl Iterator<Item = Place<WINDOWS>>,
        out: &mut [f32],
    ) {
        let ([_, kw], channels) = (self.geometry.kernel(), self.geometry.channels());
        let len = kw as usize * channels;
        let first = window_rows.start as usize * len;
        let Some(operands) = self.operands::<V, W, COLUMNS>(columns, first, window_rows.len(), len) else { return };
        let bias = self.bias(columns);
        let mut last = None;
        for place in places {
            if WINDOWS == 2 * HALF && place.outputs * pooled <= HALF {
                last = Some(place.beginning());
                break;
            }
            self.tile::<V, W, WINDOWS, COLUMNS>(columns, &operands, bias, pooled, &place, out);
        }
        if let Some(place) = last {
            self.tile::<V, W, HALF, COLUMNS>(columns, &operands, bias, pooled, &place, out);
        }
    }

    #[inline(always)]
    fn tile<V: Vector<Token = T>, W: Weight, const WINDOWS: usize, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        operands: &Operands<'_, V, E, W, COLUMNS>,
        bias: [V; COLUMNS],
        pooled: usize,
        place: &Place<WINDOWS>,
        out: &mut [f32],
    ) {
        let tile = accumulate_windows(self.token, operands, place.starts, [bias; WINDOWS]);
        for index in 0..WINDOWS {
            let windows = tile.get(index * pooled..(index + 1) * pooled).unwrap_or_default();
            if let (Some(position), true) = (place.positions.get(index), index < place.outputs) {
                self.store(columns, &self.pool::<V, COLUMNS>(windows), *position, out);
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
        let position = (row * self.geometry.output_width() + column) as usize * self.filters;
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
        // The last vector may reach beyond the filters.
        let width = (self.filters - columns.first).min(COLUMNS * V::LANES);
        let Some(out) = out.get_mut(position + columns.first..) else { return };
        match out.get_mut(..COLUMNS * V::LANES) {
            Some(full) if width == COLUMNS * V::LANES => {
                for (sum, to) in sums.iter().zip(full.chunks_exact_mut(V::LANES)) {
                    floor.max(*sum).store(to);
                }
            }
            _ => {
                let part = out.get_mut(..width).unwrap_or_default();
                for (c, sum) in sums.iter().enumerate() {
                    floor.max(*sum).store(part.get_mut(c * V::LANES..).unwrap_or_default());
                }
            }
        }
    }

    /// The sums of one window, of which parts may lie in the padding, where the input counts as 0.
    #[inline(always)]
    fn clipped_window<V: Vector<Token = T>, W: Weight, const COLUMNS: usize>(
        &self,
        columns: &Columns<'_, W, COLUMNS>,
        [row, column]: Corner,
    ) -> [V; COLUMNS] {
        let ([_, kw], channels) = (self.geometry.kernel(), self.geometry.channels());
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
        let pitch = self.geometry.width() as usize * self.geometry.channels();
        Operands::new(self.x, weights, Runs { count, pitch, len })
    }
}
