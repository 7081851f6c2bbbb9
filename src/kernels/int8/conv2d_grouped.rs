//! 2-D convolution with grouped int8 weights: direct, over the vectors of a backend; the pooling happens in registers.

use super::conv2d::Rows;
use super::dense_grouped::columns;
use super::requantize::{Epilogue, Target};
use super::scaling::Scaling;
use super::tensor::{Group, Int8Tensor};
use super::vector::Int8Vector;
use crate::kernels::backend::Backend;
use crate::kernels::backend::int8::Int8Kernel;
use crate::kernels::backend::int8::tile::{Column, Operands, Runs, accumulate, excess};
use crate::kernels::windows::{Band, Corner, Geometry, Walk};

/// A convolution with grouped weights. `x` is `[H, W, C]`, `out` is `[H, W, filters]`.
#[inline(never)]
pub(crate) fn conv2d_grouped(
    backend: Backend,
    x: &[i8],
    geometry: Geometry,
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    workspace: &mut [u32],
    out: Target<'_>,
) {
    let [_, kw] = geometry.kernel();
    let buffer = bytemuck::cast_slice_mut(workspace);
    let run = (kw as usize * geometry.channels()).next_multiple_of(4);
    let Some(buffer) = buffer.get_mut(..run) else { return };
    if x.len() == geometry.elements() && tensor.inputs() == geometry.window() {
        backend.dispatch_int8(ConvKernel { x, geometry, tensor, epilogue, buffer, out });
    }
}

/// Stands for a number of pooled windows that is known at run time only.
const ANY: usize = 0;

struct ConvKernel<'a> {
    x: &'a [i8],
    geometry: Geometry,
    tensor: &'a Int8Tensor<'a>,
    epilogue: &'a Epilogue,
    /// Room for a run, filled up to whole groups.
    buffer: &'a mut [i8],
    out: Target<'a>,
}

impl Int8Kernel for ConvKernel<'_> {
    #[inline(always)]
    fn run<
        V: Int8Vector,
        const ROWS: usize,
        const COLUMNS: usize,
        const SINGLE: usize,
        const CHAINS: usize,
        const WINDOWS: usize,
    >(
        mut self,
        token: V::Token,
    ) {
        let lanes = <V::Windows as Int8Vector>::LANES;
        let mut first = 0;
        if COLUMNS > 1 {
            while first + lanes < self.tensor.outputs() {
                self.map::<V::Windows, WINDOWS, 2>(token, first);
                first += 2 * lanes;
            }
        }
        while first < self.tensor.outputs() {
            self.map::<V::Windows, WINDOWS, 1>(token, first);
            first += lanes;
        }
    }
}

impl<'a> ConvKernel<'a> {
    /// Some columns of the whole output, in bands of rows whose windows reach equally far beyond the input above and below.
    #[inline(always)]
    fn map<V: Int8Vector, const WINDOWS: usize, const COLUMNS: usize>(&mut self, token: V::Token, first: usize) {
        let pooled = self.geometry.pooled();
        let columns = Columns::<V, COLUMNS>::new(token, self, first);
        let mut top = 0;
        while let Some(mut band) = self.geometry.band(top) {
            if pooled as usize > WINDOWS {
                band.columns = 0..0;
            }
            for row in band.rows.clone() {
                for column in (0..band.columns.start).chain(band.columns.end..self.geometry.output_width()) {
                    self.border(&columns, [row, column]);
                }
            }
            // With a number of pooled windows that the compiler knows, they stay in registers.
            match pooled {
                1 => self.band::<V, WINDOWS, 1, COLUMNS>(&columns, &band),
                4 => self.band::<V, WINDOWS, 4, COLUMNS>(&columns, &band),
                _ => self.band::<V, WINDOWS, ANY, COLUMNS>(&columns, &band),
            }
            top = band.rows.end;
        }
    }

    /// The groups of four inputs that a run of a window is filled up to.
    #[inline(always)]
    fn groups(&self) -> usize {
        let [_, kw] = self.geometry.kernel();
        (kw as usize * self.geometry.channels()).div_ceil(4)
    }

    #[inline(always)]
    fn weights(&self) -> &'a [Group] {
        self.tensor.grouped_weights()
    }

    /// A band without its borders. `POOLED` windows are pooled to an output.
    #[inline(always)]
    fn band<V: Int8Vector, const WINDOWS: usize, const POOLED: usize, const COLUMNS: usize>(
        &mut self,
        columns: &Columns<V, COLUMNS>,
        band: &Band,
    ) {
        let pooled = if POOLED == ANY { self.geometry.pooled() as usize } else { POOLED };
        let groups = self.groups();
        let pitch = self.geometry.width() as usize * self.geometry.channels();
        let runs = Runs { count: band.window_rows.len(), pitch, groups };
        let weights = columns.behind(band.window_rows.start as usize * groups);
        let operands = Operands::<V, COLUMNS>::new(self.x, self.weights(), weights, runs);
        let mut start = [[V::splat(columns.token, 0); COLUMNS]; WINDOWS];
        if let Some(operands) = &operands {
            start = [columns.minus(excess(columns.token, operands)); WINDOWS];
        }
        let walk = Walk::<WINDOWS>::new(&self.geometry, band, pooled, self.tensor.outputs());
        for place in walk {
            // The last group of a run may reach beyond its end, and that of the very last run beyond the end of the input.
            let tile = match &operands {
                Some(operands) => accumulate(columns.token, operands, place.starts, start),
                None => None,
            };
            for index in 0..WINDOWS {
                let (Some(position), true) = (place.positions.get(index), index < place.outputs) else { continue };
                match &tile {
                    Some(tile) => {
                        let windows = tile.get(index * pooled..(index + 1) * pooled).unwrap_or_default();
                        columns.store(columns.pool(windows), *position, &mut self.out);
                    }
                    None => {
                        let position = (position / self.tensor.outputs().max(1)) as i32;
                        let row = position.checked_div(self.geometry.output_width()).unwrap_or(0);
                        self.border(columns, [row, position - row * self.geometry.output_width()]);
                    }
                }
            }
        }
    }

    /// One output, of which windows may reach into the padding: one window after the other, and each run is copied.
    #[inline(always)]
    fn border<V: Int8Vector, const COLUMNS: usize>(&mut self, columns: &Columns<V, COLUMNS>, [row, column]: Corner) {
        let mut largest = [V::splat(columns.token, i32::MIN); COLUMNS];
        for window in 0..self.geometry.pooled() {
            let sums = self.copied_window(columns, self.geometry.corner([row, column], window));
            largest = columns.pool(&[largest, sums]);
        }
        let position = (row * self.geometry.output_width() + column) as usize * self.tensor.outputs();
        columns.store(largest, position, &mut self.out);
    }

    /// The sums of one window, of which parts may lie in the padding, where the input counts as 0.
    #[inline(always)]
    fn copied_window<V: Int8Vector, const COLUMNS: usize>(
        &mut self,
        columns: &Columns<V, COLUMNS>,
        corner: Corner,
    ) -> [V; COLUMNS] {
        let ([_, kw], groups) = (self.geometry.kernel(), self.groups());
        let rows = Rows { values: self.x, first: 0 };
        let mut sums = [V::splat(columns.token, 0); COLUMNS];
        for ky in self.geometry.rows_inside(corner[0]) {
            self.buffer.fill(0);
            let run = self.buffer.get_mut(..kw as usize * self.geometry.channels()).unwrap_or_default();
            rows.copy_run(&self.geometry, corner, ky, run);
            let weights = columns.behind(ky as usize * groups);
            let runs = Runs { count: 1, pitch: 0, groups };
            let Some(operands) = Operands::<V, COLUMNS>::new(self.buffer, self.weights(), weights, runs) else { break };
            if V::EXCESS_OF_WEIGHTS {
                for (sum, excess) in sums.iter_mut().zip(excess(columns.token, &operands)) {
                    *sum = sum.sub(excess);
                }
            }
            if let Some([more]) = accumulate(columns.token, &operands, [0], [sums]) {
                sums = more;
            }
        }
        sums
    }
}

/// Some vectors of outputs.
struct Columns<V: Int8Vector, const COLUMNS: usize> {
    token: V::Token,
    first: usize,
    outputs: usize,
    weights: [Column; COLUMNS],
    scaling: Scaling<V, COLUMNS>,
}

impl<V: Int8Vector, const COLUMNS: usize> Columns<V, COLUMNS> {
    #[inline(always)]
    fn new(token: V::Token, kernel: &ConvKernel<'_>, first: usize) -> Self {
        let [kh, _] = kernel.geometry.kernel();
        Self {
            token,
            first,
            outputs: kernel.tensor.outputs(),
            weights: columns::<V, COLUMNS>(kh as usize * kernel.groups(), first),
            scaling: Scaling::new(token, *kernel.epilogue, kernel.tensor, first),
        }
    }

    /// Where the weights lie from that group on.
    #[inline(always)]
    fn behind(&self, group: usize) -> [Column; COLUMNS] {
        self.weights.map(|column| Column { group: column.group + group, ..column })
    }

    /// 0 - `sums`
    #[inline(always)]
    fn minus(&self, mut sums: [V; COLUMNS]) -> [V; COLUMNS] {
        for sum in &mut sums {
            *sum = V::splat(self.token, 0).sub(*sum);
        }
        sums
    }

    /// The largest sums of some windows.
    #[inline(always)]
    fn pool(&self, windows: &[[V; COLUMNS]]) -> [V; COLUMNS] {
        let mut windows = windows.iter();
        let Some(mut pooled) = windows.next().copied() else { return [V::splat(self.token, i32::MIN); COLUMNS] };
        for sums in windows {
            for (largest, sum) in pooled.iter_mut().zip(sums) {
                *largest = largest.max(*sum);
            }
        }
        pooled
    }

    /// Stores the sums of the output that begins at `position`.
    #[inline(always)]
    fn store(&self, sums: [V; COLUMNS], position: usize, out: &mut Target<'_>) {
        let width = (COLUMNS * V::LANES).min(self.outputs.saturating_sub(self.first));
        self.scaling.store(sums, out.part(position + self.first, width));
    }
}
