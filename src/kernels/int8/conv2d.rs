//! 2-D convolution in integers, with the pooling that follows: the largest 32-bit sum is scaled, the others never are.

use super::dense::{PANELS, folded_weights};
use super::folded;
use super::grouped::{self, Group};
use super::quantize::Source;
use super::requantize::{Epilogue, Target};
use super::tensor::{FOLDED_PANEL, GROUPED_PANEL, Int8Tensor};
use crate::kernels::backend::Backend;
use crate::kernels::windows::{Corner, Geometry};
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

/// A convolution with grouped weights, likewise.
#[inline(never)]
pub(crate) fn conv2d_grouped(
    _backend: Backend,
    x: &[i8],
    geometry: Geometry,
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    workspace: &mut [u32],
    mut out: Target<'_>,
) {
    let [kh, kw] = geometry.kernel;
    let (rows, run) = (Rows { values: x, first: 0 }, kw as usize * geometry.channels);
    let Some(buffer) = bytemuck::cast_slice_mut::<_, i8>(workspace).get_mut(..run) else { return };
    if x.len() != geometry.elements() || tensor.inputs() != geometry.window() {
        return;
    }
    let groups = bytemuck::cast_slice::<_, Group>(tensor.weights());
    let panel = (kh as usize * run.div_ceil(4)).max(1);
    for position in 0..geometry.output_height * geometry.output_width {
        let row = position.checked_div(geometry.output_width).unwrap_or(0);
        let column = position - row * geometry.output_width;
        for (index, weights) in groups.chunks(panel).enumerate() {
            let mut largest = [i32::MIN; GROUPED_PANEL];
            for window in 0..geometry.pooled() {
                let corner = geometry.corner([row, column], window);
                let mut sums = [0; GROUPED_PANEL];
                for (ky, weights) in weights.chunks(run.div_ceil(4).max(1)).enumerate() {
                    rows.copy_run(&geometry, corner, ky as i32, buffer);
                    grouped::add_products(buffer, weights, &mut sums);
                }
                pool(&mut largest, &sums);
            }
            let first = index * GROUPED_PANEL;
            let width = GROUPED_PANEL.min(tensor.outputs().saturating_sub(first));
            let out = out.part(position as usize * tensor.outputs() + first, width);
            epilogue.store(tensor, first, &largest, out);
        }
    }
}
