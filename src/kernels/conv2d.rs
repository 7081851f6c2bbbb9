//! 2-D convolution, direct: no im2col buffer, and the pooling that follows happens in registers.
//!
//! Activations are `[H, W, C]`, so a window of `kh × kw` positions is `kh` runs of `kw · C` neighbouring values, and a
//! convolution is the dense layer's inner loop, once per run.

use super::backend::tile::{Element, Inputs, Operands, Tile, accumulate};
use super::backend::{Backend, Kernel};
use super::pack::{Columns, Panels};
use super::vector::Vector;
use crate::layer::{Conv2d, Shape};

/// `out = max(floor, pool(x ⋆ W + b))`, where `pool` is the largest sum of each `conv.pool` window.
///
/// `x` is `[H, W, C]` of shape `input`, `out` is `[H, W, filters]` of shape `output`. The activation follows the pooling,
/// which is the same as the other way round for every activation that never falls, and fewer evaluations. Does nothing
/// where lengths do not fit the shapes.
#[inline(never)]
pub(crate) fn conv2d<E: Element>(
    backend: Backend,
    x: Inputs<'_, E>,
    conv: &Conv2d,
    (input, output): (Shape, Shape),
    weights: Panels<'_>,
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
    };
    let fits = x.values.len() == geometry.elements() && weights.inputs() == geometry.window();
    if fits {
        backend.dispatch(ConvKernel { x, geometry, pool: conv.pool.map(i32::from), output, weights, floor, out });
    }
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
}

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

    #[inline(always)]
    fn corner(&self, row: i32, column: i32) -> Corner {
        [self.origin[0] + row * self.stride[0], self.origin[1] + column * self.stride[1]]
    }

    /// Whether the whole window lies within the input.
    #[inline(always)]
    fn inside(&self, [row, column]: Corner) -> bool {
        let [kh, kw] = self.kernel;
        row >= 0 && column >= 0 && row + kh <= self.height && column + kw <= self.width
    }

    /// The index of a position's first channel.
    #[inline(always)]
    fn index(&self, row: i32, column: i32) -> usize {
        (row * self.width + column) as usize * self.channels
    }
}

struct ConvKernel<'a, E> {
    x: Inputs<'a, E>,
    geometry: Geometry,
    pool: [i32; 2],
    output: Shape,
    weights: Panels<'a>,
    floor: f32,
    out: &'a mut [f32],
}

impl<E: Element> Kernel for ConvKernel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize>(self, token: V::Token) {
        let Self { x, geometry, pool, output, weights, floor, out } = self;
        // Neither is ever 0, but the compiler does not know, and `chunks` of 0 would panic.
        let filters = weights.outputs().max(1);
        let row_len = (usize::from(output.width) * filters).max(1);
        let sums = Sums { x, geometry, token };
        let mut first = 0;
        while let Some(columns) = weights.columns::<1>(V::LANES, first) {
            for (row, out) in out.chunks_exact_mut(row_len).enumerate() {
                for (column, out) in out.chunks_exact_mut(filters).enumerate() {
                    let out = out.get_mut(first..filters.min(first + V::LANES)).unwrap_or_default();
                    let windows = PoolWindows { geometry, pool, row: row as i32, column: column as i32 };
                    sums.position::<V, ROWS>(&columns, &windows, floor, out);
                }
            }
            first += V::LANES;
        }
    }
}

/// The windows whose largest sum makes one output position.
struct PoolWindows {
    geometry: Geometry,
    pool: [i32; 2],
    row: i32,
    column: i32,
}

impl PoolWindows {
    /// The corner of window `index`, counted row by row; `None` behind the last.
    #[inline(always)]
    fn corner(&self, index: i32) -> Option<Corner> {
        let [ph, pw] = self.pool;
        let row = index.checked_div(pw)?;
        let column = index - row * pw;
        (row < ph).then(|| self.geometry.corner(self.row * ph + row, self.column * pw + column))
    }
}

struct Sums<'a, E, T> {
    x: Inputs<'a, E>,
    geometry: Geometry,
    token: T,
}

impl<E: Element, T: Copy> Sums<'_, E, T> {
    /// One vector of outputs of one position.
    #[inline(always)]
    fn position<V: Vector<Token = T>, const ROWS: usize>(
        &self,
        columns: &Columns<'_, 1>,
        windows: &PoolWindows,
        floor: f32,
        out: &mut [f32],
    ) {
        let mut largest = V::splat(self.token, f32::NEG_INFINITY);
        let mut index = 0;
        while let Some(corner) = windows.corner(index) {
            let group: [Option<Corner>; ROWS] = core::array::from_fn(|r| windows.corner(index + r as i32));
            if let Some(corners) = self.all_inside(group) {
                for [sum] in self.windows::<V, ROWS>(columns, corners) {
                    largest = largest.pool(sum);
                }
                index += ROWS as i32;
            } else {
                largest = largest.pool(self.clipped_window::<V>(columns, corner));
                index += 1;
            }
        }
        V::splat(self.token, floor).max(largest).store(out);
    }

    #[inline(always)]
    fn all_inside<const ROWS: usize>(&self, group: [Option<Corner>; ROWS]) -> Option<[Corner; ROWS]> {
        let mut corners = [[0; 2]; ROWS];
        for (to, corner) in corners.iter_mut().zip(group) {
            *to = corner.filter(|corner| self.geometry.inside(*corner))?;
        }
        Some(corners)
    }

    /// The sums of `ROWS` windows that lie within the input.
    #[inline(always)]
    fn windows<V: Vector<Token = T>, const ROWS: usize>(
        &self,
        columns: &Columns<'_, 1>,
        corners: [Corner; ROWS],
    ) -> Tile<V, ROWS, 1> {
        let Geometry { kernel: [kh, kw], channels, .. } = self.geometry;
        let mut tile = [[self.bias(columns)]; ROWS];
        let run = kw as usize * channels;
        for ky in 0..kh {
            let starts = corners.map(|[row, column]| self.geometry.index(row + ky, column));
            self.run(columns, ky as usize * run, run, starts, &mut tile);
        }
        tile
    }

    /// The sum of one window, of which parts may lie in the padding, where the input counts as 0.
    #[inline(always)]
    fn clipped_window<V: Vector<Token = T>>(&self, columns: &Columns<'_, 1>, [row, column]: Corner) -> V {
        let Geometry { kernel: [kh, kw], channels, height, width, .. } = self.geometry;
        let mut tile = [[self.bias(columns)]];
        let (left, right) = (column.max(0), (column + kw).min(width));
        for ky in (0..kh).filter(|ky| (0..height).contains(&(row + ky)) && left < right) {
            let first = (ky * kw + (left - column)) as usize * channels;
            let run = (right - left) as usize * channels;
            self.run(columns, first, run, [self.geometry.index(row + ky, left)], &mut tile);
        }
        let [[sum]] = tile;
        sum
    }

    #[inline(always)]
    fn bias<V: Vector<Token = T>>(&self, columns: &Columns<'_, 1>) -> V {
        let [start] = columns.starts;
        V::load(self.token, columns.data.get(start..).unwrap_or_default())
    }

    /// Adds the products of `len` neighbouring inputs of each window with the weights from input `first` of the window on.
    #[inline(always)]
    fn run<V: Vector<Token = T>, const ROWS: usize>(
        &self,
        columns: &Columns<'_, 1>,
        first: usize,
        len: usize,
        rows: [usize; ROWS],
        tile: &mut Tile<V, ROWS, 1>,
    ) {
        let weights = columns.data.get((1 + first) * columns.width..).unwrap_or_default();
        let stride = columns.width;
        accumulate(self.token, &Operands { inputs: self.x, rows, weights, columns: columns.starts, stride, len }, tile);
    }
}
