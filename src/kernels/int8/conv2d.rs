//! 2-D convolution in integers, with the pooling that follows: the largest 32-bit sum is scaled, the others never are.

use super::dense::{PANELS, columns, folded_weights};
use super::folded;
use super::quantize::Source;
use super::requantize::{Epilogue, Scaling, Target};
use super::tensor::{FOLDED_PANEL, Group, Int8Tensor};
use super::vector::Int8Vector;
use crate::kernels::backend::Backend;
use crate::kernels::backend::int8::Int8Kernel;
use crate::kernels::backend::int8::tile::{Column, Operands, Runs, accumulate, excess};
use crate::kernels::windows::{Band, Corner, Geometry, Walk};
use crate::layer::{Conv2d, Shape};

/// Rows of the input that the windows of one row of outputs lie in.
fn band_rows(conv: &Conv2d) -> u32 {
    let ([ph, _], [sh, _], [kh, _]) =
        (conv.pool.map(u32::from), conv.stride.map(u32::from), conv.kernel.map(u32::from));
    ph.saturating_sub(1) * sh + kh
}

/// Four-byte words of workspace that [`conv2d_folded`] needs: for one window as it lies in the input and one in the form that
/// the products want; and, if the input is `quantized` on the way, for the rows that a row of outputs needs.
pub(crate) fn folded_workspace(conv: &Conv2d, input: Shape, quantized: bool) -> Option<u32> {
    let ([kh, kw], channels) = (conv.kernel.map(u32::from), u32::from(input.channels));
    let window = (kh * kw).checked_mul(channels)?.div_ceil(4);
    let band = if quantized { band_rows(conv).min(u32::from(input.height)) } else { 0 };
    let row = u32::from(input.width).checked_mul(channels)?;
    window.checked_mul(3)?.checked_add(band.checked_mul(row)?.div_ceil(4))
}

/// Four-byte words of workspace that [`conv2d_grouped`] needs: for one run of a window.
pub(crate) fn grouped_workspace(conv: &Conv2d, input: Shape) -> u32 {
    let [_, kw] = conv.kernel.map(u32::from);
    (kw * u32::from(input.channels)).div_ceil(4)
}

/// The rows of an image from `first` on.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [i8],
    first: i32,
}

impl Rows<'_> {
    /// Writes the values of row `ky` of the window at `corner` to `run`: zeros where it lies outside of the image.
    #[inline(always)]
    fn copy_run(&self, geometry: &Geometry, [row, column]: Corner, ky: i32, run: &mut [i8]) {
        let inside = geometry.columns_inside(column);
        let skipped = inside.start as usize * geometry.channels;
        let len = (inside.end - inside.start).max(0) as usize * geometry.channels;
        let within = row + ky >= 0 && row + ky < geometry.height;
        if !within || len < run.len() {
            run.fill(0);
        }
        if within {
            let start = geometry.index_of([row + ky - self.first, column + inside.start]);
            let from = self.values.get(start..).unwrap_or_default();
            let to = run.get_mut(skipped..skipped + len).unwrap_or_default();
            to.iter_mut().zip(from).for_each(|(to, value)| *to = *value);
        }
    }
}

/// A convolution with folded weights. `x` is `[H, W, C]`, `out` is `[H, W, filters]`.
#[inline(never)]
pub(crate) fn conv2d_folded(
    x: Source<'_>,
    geometry: Geometry,
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    workspace: &mut [u32],
    out: Target<'_>,
) {
    let groups = tensor.inputs().div_ceil(4);
    let Some((window, rest)) = workspace.split_at_mut_checked(groups) else { return };
    let Some((words, band)) = rest.split_at_mut_checked(groups * 2) else { return };
    let (words, _) = words.as_chunks_mut::<2>();
    let Some(window) = bytemuck::cast_slice_mut(window).get_mut(..tensor.inputs()) else { return };
    let band: &mut [i8] = bytemuck::cast_slice_mut(band);
    if x.len() != geometry.elements() || tensor.inputs() != geometry.window() {
        return;
    }
    let mut folded = Folded { geometry, tensor, epilogue, window, words, out };
    for row in 0..geometry.output_height {
        if let Some(values) = x.ready() {
            folded.row(Rows { values, first: 0 }, row);
        } else {
            let [top, _] = geometry.corner([row, 0], 0);
            let first = top.max(0).min(geometry.height);
            x.read(geometry.index_of([first, 0]), band);
            folded.row(Rows { values: band, first }, row);
        }
    }
}

struct Folded<'a> {
    geometry: Geometry,
    tensor: &'a Int8Tensor<'a>,
    epilogue: &'a Epilogue,
    window: &'a mut [i8],
    words: &'a mut [folded::Inputs],
    out: Target<'a>,
}

impl Folded<'_> {
    /// A row of outputs.
    fn row(&mut self, x: Rows<'_>, row: i32) {
        let panels = folded_weights(self.tensor);
        let at_a_time = self.words.len() * PANELS;
        for column in 0..self.geometry.output_width {
            let position = (row * self.geometry.output_width + column) as usize * self.tensor.outputs();
            for (index, weights) in panels.chunks(at_a_time.max(1)).enumerate() {
                let mut largest = [[i32::MIN; FOLDED_PANEL]; PANELS];
                for window in 0..self.geometry.pooled() {
                    self.widen_window(x, self.geometry.corner([row, column], window));
                    let mut sums = [[0; FOLDED_PANEL]; PANELS];
                    folded::add_products(self.words, weights, &mut sums);
                    pool(largest.as_flattened_mut(), sums.as_flattened());
                }
                let first = index * PANELS * FOLDED_PANEL;
                let width = (PANELS * FOLDED_PANEL).min(self.tensor.outputs() - first.min(self.tensor.outputs()));
                let out = self.out.part(position + first, width);
                self.epilogue.store(self.tensor, first, largest.as_flattened(), out);
            }
        }
    }

    fn widen_window(&mut self, x: Rows<'_>, corner: Corner) {
        let [_, kw] = self.geometry.kernel;
        let run = kw as usize * self.geometry.channels;
        for (ky, run) in self.window.chunks_exact_mut(run.max(1)).enumerate() {
            x.copy_run(&self.geometry, corner, ky as i32, run);
        }
        folded::widen_all(self.window, self.words);
    }
}

#[inline(always)]
fn pool(largest: &mut [i32], sums: &[i32]) {
    largest.iter_mut().zip(sums).for_each(|(largest, sum)| *largest = (*largest).max(*sum));
}

/// A convolution with grouped weights, likewise: direct, and the pooling happens in registers.
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
    let [_, kw] = geometry.kernel;
    let buffer = bytemuck::cast_slice_mut(workspace);
    let run = (kw as usize * geometry.channels).next_multiple_of(4);
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
                for column in (0..band.columns.start).chain(band.columns.end..self.geometry.output_width) {
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
        let [_, kw] = self.geometry.kernel;
        (kw as usize * self.geometry.channels).div_ceil(4)
    }

    #[inline(always)]
    fn weights(&self) -> &'a [Group] {
        bytemuck::cast_slice(self.tensor.weights())
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
        let pitch = self.geometry.width as usize * self.geometry.channels;
        let runs = Runs { count: band.window_rows.len(), pitch, groups };
        let weights = columns.from_run(band.window_rows.start as usize * groups);
        let operands = Operands::<V, COLUMNS>::new(self.x, self.weights(), weights, runs);
        let mut start = [[V::splat(columns.token, 0); COLUMNS]; WINDOWS];
        if let Some(operands) = &operands {
            start = [columns.minus(excess(columns.token, operands)); WINDOWS];
        }
        let mut walk = Walk::<WINDOWS>::new(&self.geometry, band, pooled, self.tensor.outputs());
        while let Some(place) = walk.next() {
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
                        let row = position.checked_div(self.geometry.output_width).unwrap_or(0);
                        self.border(columns, [row, position - row * self.geometry.output_width]);
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
        let position = (row * self.geometry.output_width + column) as usize * self.tensor.outputs();
        columns.store(largest, position, &mut self.out);
    }

    /// The sums of one window, of which parts may lie in the padding, where the input counts as 0.
    #[inline(always)]
    fn copied_window<V: Int8Vector, const COLUMNS: usize>(
        &mut self,
        columns: &Columns<V, COLUMNS>,
        corner: Corner,
    ) -> [V; COLUMNS] {
        let ([_, kw], groups) = (self.geometry.kernel, self.groups());
        let rows = Rows { values: self.x, first: 0 };
        let mut sums = [V::splat(columns.token, 0); COLUMNS];
        for ky in self.geometry.rows_inside(corner[0]) {
            self.buffer.fill(0);
            let run = self.buffer.get_mut(..kw as usize * self.geometry.channels).unwrap_or_default();
            rows.copy_run(&self.geometry, corner, ky, run);
            let weights = columns.from_run(ky as usize * groups);
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
    scaling: [Scaling<V>; COLUMNS],
}

impl<V: Int8Vector, const COLUMNS: usize> Columns<V, COLUMNS> {
    #[inline(always)]
    fn new(token: V::Token, kernel: &ConvKernel<'_>, first: usize) -> Self {
        let [kh, _] = kernel.geometry.kernel;
        let mut scaling = [Scaling::new(token, *kernel.epilogue, kernel.tensor, first); COLUMNS];
        for (column, scaling) in scaling.iter_mut().enumerate().skip(1) {
            *scaling = Scaling::new(token, *kernel.epilogue, kernel.tensor, first + column * V::LANES);
        }
        Self {
            token,
            first,
            outputs: kernel.tensor.outputs(),
            weights: columns::<V, COLUMNS>(kh as usize * kernel.groups(), first),
            scaling,
        }
    }

    /// Where the weights lie from that group on.
    #[inline(always)]
    fn from_run(&self, group: usize) -> [Column; COLUMNS] {
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
        for (column, (sums, scaling)) in sums.into_iter().zip(&self.scaling).enumerate() {
            let first = self.first + column * V::LANES;
            let width = V::LANES.min(self.outputs.saturating_sub(first));
            scaling.store(sums, out.part(position + first, width));
        }
    }
}
