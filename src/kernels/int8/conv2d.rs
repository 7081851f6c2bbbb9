//! 2-D convolution in integers, with the pooling that follows: the largest 32-bit sum is scaled, the others never are.

use super::dense::columns;
use super::quantize::{Source, at_least_smallest};
use super::requantize::{Epilogue, Scaling, Target};
use super::tensor::{Group, Int8Tensor};
use super::vector::Int8Vector;
use crate::kernels::backend::Backend;
use crate::kernels::backend::folded::{self, GROUPS_AT_A_TIME, Panels, Then, Windows};
use crate::kernels::backend::int8::Int8Kernel;
use crate::kernels::backend::int8::tile::{Column, Operands, Runs, accumulate, excess};
use crate::kernels::windows::{Band, Corner, Geometry, Walk};
use crate::layer::{Conv2d, Shape};

/// How [`conv2d_folded`] divides its workspace, in words of four bytes.
struct Workspace {
    /// The largest sums so far; and behind them those of a window, if that is computed in parts.
    sums: u32,
    /// The windows that are pooled and lie above one another, in the form that the products want.
    words: u32,
    /// One run of a window, where parts of it lie outside of the input.
    run: u32,
    /// If the input is quantised on the way: the rows that a row of outputs needs, and a word to read beyond them.
    band: u32,
}

/// The groups of a run of a window.
fn groups_of_run(conv: &Conv2d, input: Shape) -> u32 {
    let [_, kw] = conv.kernel.map(u32::from);
    (kw * u32::from(input.channels)).div_ceil(4)
}

impl Workspace {
    fn new(conv: &Conv2d, input: Shape, quantized: bool) -> Option<Self> {
        let ([ph, _], [sh, _], [kh, _]) =
            (conv.pool.map(u32::from), conv.stride.map(u32::from), conv.kernel.map(u32::from));
        let rows = ph.checked_sub(1)? * sh + kh;
        let run = groups_of_run(conv, input);
        let row = u32::from(input.width).checked_mul(input.channels.into())?;
        let sums = u32::from(conv.filters).div_ceil(4) * 4;
        let in_parts = kh.checked_mul(run)? > GROUPS_AT_A_TIME as u32;
        let band = rows.min(input.height.into()).checked_mul(row)?.div_ceil(4) + 1;
        Some(Self {
            sums: if in_parts { sums * 2 } else { sums },
            words: rows.checked_mul(run)?.checked_mul(2)?,
            run,
            band: if quantized { band } else { 0 },
        })
    }
}

/// Four-byte words of workspace that [`conv2d_folded`] needs, if the input is `quantized` on the way or not.
pub(crate) fn folded_workspace(conv: &Conv2d, input: Shape, quantized: bool) -> Option<u32> {
    let Workspace { sums, words, run, band } = Workspace::new(conv, input, quantized)?;
    sums.checked_add(words)?.checked_add(run)?.checked_add(band)
}

/// Four-byte words of workspace that [`conv2d_grouped`] needs: for one run of a window.
pub(crate) fn grouped_workspace(conv: &Conv2d, input: Shape) -> u32 {
    groups_of_run(conv, input)
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
            // (As of `folded::clear`.)
            let zero = core::hint::black_box(0);
            run.iter_mut().for_each(|value| *value = zero);
        }
        if within {
            let start = geometry.index_of([row + ky - self.first, column + inside.start]);
            let from = self.values.get(start..).unwrap_or_default();
            let to = run.get_mut(skipped..skipped + len).unwrap_or_default();
            to.iter_mut().zip(from).for_each(|(to, value)| *to = at_least_smallest(*value));
        }
    }
}

/// A convolution with folded weights. `x` is `[H, W, C]`, `out` is `[H, W, filters]`. `None` if the workspace is too small.
#[inline(never)]
pub(crate) fn conv2d_folded(
    x: Source<'_>,
    conv: &Conv2d,
    (input, output): (Shape, Shape),
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    workspace: &mut [u32],
    mut out: Target<'_>,
) -> Option<()> {
    let parts = Workspace::new(conv, input, x.ready().is_none())?;
    let (sums, workspace) = workspace.split_at_mut_checked(parts.sums as usize)?;
    let (words, workspace) = workspace.split_at_mut_checked(parts.words as usize)?;
    let (run, workspace) = workspace.split_at_mut_checked(parts.run as usize)?;
    let band: &mut [i8] = bytemuck::cast_slice_mut(workspace.get_mut(..parts.band as usize)?);
    let mut folded = Folded {
        geometry: Geometry::new(conv, input, output),
        weights: tensor.folded_weights(),
        groups_of_run: parts.run as usize,
        sums: bytemuck::cast_slice_mut(sums).as_chunks_mut().0,
        words: words.as_chunks_mut().0,
        run: bytemuck::cast_slice_mut(run),
    };
    let filters = tensor.outputs();
    let mut first_output = 0;
    for row in 0..folded.geometry.output_height {
        let [top, _] = folded.geometry.corner([row, 0], 0);
        let rows = if let Some(values) = x.ready() {
            Rows { values, first: 0 }
        } else {
            let first = top.max(0).min(folded.geometry.height);
            x.read(folded.geometry.index_of([first, 0]), band);
            Rows { values: band, first }
        };
        for column in 0..folded.geometry.output_width {
            folded.position(rows, [row, column])?;
            epilogue.store(tensor, 0, folded.sums.as_flattened(), out.part(first_output, filters));
            first_output += filters;
        }
    }
    Some(())
}

struct Folded<'a> {
    geometry: Geometry,
    weights: &'a [folded::Weights],
    groups_of_run: usize,
    sums: &'a mut [[i32; folded::PANEL]],
    words: &'a mut [folded::Inputs],
    run: &'a mut [i8],
}

impl Folded<'_> {
    /// The sums of one output position.
    #[inline(always)]
    fn position(&mut self, x: Rows<'_>, [row, column]: Corner) -> Option<()> {
        self.sums.as_flattened_mut().fill(i32::MIN);
        let [kh, _] = self.geometry.kernel;
        let ([sh, _], [ph, pw]) = (self.geometry.stride, self.geometry.pool);
        let (groups, step) = (kh as usize * self.groups_of_run, sh as usize * self.groups_of_run);
        for right in 0..pw {
            self.widen(x, self.geometry.corner([row, column], right))?;
            let windows = Windows { x: self.words, groups, step, count: ph as usize };
            if groups <= GROUPS_AT_A_TIME {
                let panels = Panels { weights: self.weights, stride: groups };
                folded::products(windows, panels, Then::Pool, self.sums)?;
            } else {
                pool_in_parts(windows, self.weights, self.sums)?;
            }
        }
        Some(())
    }

    /// Brings the pooled windows that lie above one another into form, run by run.
    #[inline(always)]
    fn widen(&mut self, x: Rows<'_>, [top, left]: Corner) -> Option<()> {
        let geometry = &self.geometry;
        let ([kh, kw], [sh, _], [ph, _]) = (geometry.kernel, geometry.stride, geometry.pool);
        let rows = (ph - 1) * sh + kh;
        let pitch = geometry.width as usize * geometry.channels;
        let inside = top >= 0 && left >= 0 && top + rows <= geometry.height && left + kw <= geometry.width;
        if inside {
            let values = x.values.get(geometry.index_of([top - x.first, left])..)?;
            let runs = folded::Runs { x: values, count: rows as usize, pitch };
            if folded::widen(runs, self.groups_of_run, self.words).is_some() {
                return Some(());
            }
        }
        for (ky, words) in self.words.chunks_mut(self.groups_of_run.max(1)).enumerate() {
            let run = self.run.get_mut(..kw as usize * geometry.channels)?;
            x.copy_run(geometry, [top, left], ky as i32, run);
            folded::widen(folded::Runs { x: self.run, count: 1, pitch: 0 }, self.groups_of_run, words)?;
        }
        Some(())
    }
}

/// Pools windows of more groups than can be added up at a time. The second half of `sums` is room for those of a window.
#[inline(never)]
fn pool_in_parts(windows: Windows<'_>, weights: &[folded::Weights], sums: &mut [[i32; folded::PANEL]]) -> Option<()> {
    let (largest, sums) = sums.split_at_mut(sums.len() / 2);
    for window in 0..windows.count {
        folded::clear(sums);
        let x = windows.x.get(window * windows.step..)?.get(..windows.groups)?;
        for (part, x) in x.chunks(GROUPS_AT_A_TIME).enumerate() {
            let panels = Panels { weights: weights.get(part * GROUPS_AT_A_TIME..)?, stride: windows.groups };
            let part = Windows { x, groups: x.len(), step: 0, count: 1 };
            folded::products(part, panels, Then::Add, sums)?;
        }
        pool(largest.as_flattened_mut(), sums.as_flattened());
    }
    Some(())
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
        let weights = columns.behind(band.window_rows.start as usize * groups);
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
        for (column, (sums, scaling)) in sums.into_iter().zip(&self.scaling).enumerate() {
            let first = self.first + column * V::LANES;
            let width = V::LANES.min(self.outputs.saturating_sub(first));
            scaling.store(sums, out.part(position + first, width));
        }
    }
}
