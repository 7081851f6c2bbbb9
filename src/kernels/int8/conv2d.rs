//! 2-D convolution in integers, with the pooling that follows: the largest 32-bit sum is scaled, the others never are.

use super::quantize::{Source, at_least_smallest};
use super::requantize::{Epilogue, Target};
use super::tensor::Int8Tensor;
use crate::kernels::backend::folded::{self, GROUPS_AT_A_TIME, Products, Runs, Then, clear_words};
use crate::kernels::windows::{Corner, Geometry};
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

/// Four-byte words of workspace that the kernel for grouped weights needs: for one run of a window.
pub(crate) fn grouped_workspace(conv: &Conv2d, input: Shape) -> u32 {
    groups_of_run(conv, input)
}

/// The rows of an image from `first` on.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [i8],
    pub(super) first: i32,
}

impl Rows<'_> {
    /// Writes the values of row `ky` of the window at `corner` to `run`, which is left as it is where that lies outside of the
    /// image.
    #[inline(always)]
    pub(super) fn copy_run(&self, geometry: &Geometry, [row, column]: Corner, ky: i32, run: &mut [i8]) {
        let inside = geometry.columns_inside(column);
        let skipped = inside.start as usize * geometry.channels();
        let len = (inside.end - inside.start).max(0) as usize * geometry.channels();
        if row + ky >= 0 && row + ky < geometry.height() {
            let start = geometry.index_of([row + ky - self.first, column + inside.start]);
            let from = self.values.get(start..).unwrap_or_default();
            let to = run.get_mut(skipped..skipped + len).unwrap_or_default();
            to.iter_mut().zip(from).for_each(|(to, value)| *to = at_least_smallest(*value));
        }
    }
}

/// Four-byte words before the input that [`conv2d_folded`] needs to write its outputs over it: so many that no output reaches
/// what is still to be read, in this image or the next.
pub(crate) fn folded_lead(conv: &Conv2d, input: Shape, output: Shape) -> u32 {
    let geometry = Geometry::new(conv, input, output);
    let ([top, left], [sh, sw], [ph, pw]) = (geometry.origin(), geometry.stride(), geometry.pool());
    let (channels, filters) = (i32::from(input.channels), i32::from(output.channels));
    let rows = furthest(
        geometry.output_height(),
        (geometry.output_width() * filters, geometry.width() * channels),
        (top, ph * sh),
    );
    let columns = furthest(geometry.output_width(), (filters, channels), (left, pw * sw));
    let more = geometry.output_height() * geometry.output_width() * filters - geometry.elements() as i32;
    (rows + columns).max(more).max(0).cast_unsigned().div_ceil(4)
}

/// How far the outputs get ahead of the inputs: the largest of `i * made - read * n`, where `n` is `first + i * step`, or 0.
fn furthest(count: i32, (made, read): (i32, i32), (first, step): (i32, i32)) -> i32 {
    (0..count).fold(0, |most, index| most.max(index * made - read * (first + index * step).max(0)))
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
    let quantized = matches!(x, Source::Bytes(..) | Source::F32(..));
    let parts = Workspace::new(conv, input, quantized)?;
    let (sums, workspace) = workspace.split_at_mut_checked(parts.sums as usize)?;
    let (words, workspace) = workspace.split_at_mut_checked(parts.words as usize)?;
    let (run, workspace) = workspace.split_at_mut_checked(parts.run as usize)?;
    let band: &mut [i8] = bytemuck::cast_slice_mut(workspace.get_mut(..parts.band as usize)?);
    let geometry = Geometry::new(conv, input, output);
    let ([kh, _], [sh, _], [ph, _]) = (geometry.kernel(), geometry.stride(), geometry.pool());
    let (groups, step) = (kh as usize * run.len(), sh as usize * run.len());
    let pitch = geometry.width() as usize * geometry.channels();
    let sums: &mut [[i32; folded::PANEL]] = bytemuck::cast_slice_mut(sums).as_chunks_mut().0;
    let weights = tensor.folded_weights();
    let runs = Runs::new(((ph - 1) * sh + kh) as usize, pitch, run.len())?;
    let products = Products::new(weights, (sums.len(), groups), (ph as usize, step), groups);
    let words = words.as_chunks_mut().0;
    let mut folded = Folded { geometry: &geometry, weights, runs, products, sums, words, run };
    let filters = tensor.outputs();
    let mut first_output = 0;
    for row in 0..geometry.output_height() {
        let [top, mut left] = geometry.corner([row, 0], 0);
        let first = if quantized { top.max(0).min(geometry.height()) } else { 0 };
        if quantized {
            x.read(geometry.index_of([first, 0]), band);
        }
        for _ in 0..geometry.output_width() {
            let values = match (x, &out) {
                (Source::Int8(values), _) => values,
                (Source::Within(start), Target::Int8(values)) => values.get(start..)?,
                _ => band,
            };
            left = folded.position(Rows { values, first }, [top, left])?;
            epilogue.store(tensor, 0, folded.sums.as_flattened(), out.part(first_output, filters));
            first_output += filters;
        }
    }
    Some(())
}

struct Folded<'a> {
    geometry: &'a Geometry,
    weights: &'a [folded::Weights],
    /// The rows of the windows that are pooled and lie above one another.
    runs: Runs,
    /// `None` if windows are computed in parts.
    products: Option<Products<'a>>,
    sums: &'a mut [[i32; folded::PANEL]],
    /// Those rows in form, and room for one that is not.
    words: &'a mut [folded::Inputs],
    run: &'a mut [u32],
}

impl Folded<'_> {
    /// The sums of one output position, whose first window begins at a corner. Returns where the next position's is from the
    /// left.
    #[inline(always)]
    fn position(&mut self, x: Rows<'_>, [top, mut left]: Corner) -> Option<i32> {
        self.sums.as_flattened_mut().fill(i32::MIN);
        let ([_, sw], [_, pw]) = (self.geometry.stride(), self.geometry.pool());
        for _ in 0..pw {
            self.widen(x, [top, left])?;
            match &self.products {
                Some(products) => products.run(self.words, Then::Pool, self.sums)?,
                None => self.pool_in_parts()?,
            }
            left += sw;
        }
        Some(left)
    }

    /// Brings the pooled windows that lie above one another into form.
    #[inline(always)]
    fn widen(&mut self, x: Rows<'_>, [top, left]: Corner) -> Option<()> {
        let geometry = self.geometry;
        let [_, kw] = geometry.kernel();
        let inside = top >= 0
            && left >= 0
            && top + self.runs.count() as i32 <= geometry.height()
            && left + kw <= geometry.width();
        if inside {
            let values = x.values.get(geometry.index_of([top - x.first, left])..)?;
            if self.runs.widen(values, self.words).is_some() {
                return Some(());
            }
        }
        self.widen_by_runs(x, [top, left])
    }

    /// Does so run by run, with zeros for what lies outside of the input.
    #[inline(never)]
    fn widen_by_runs(&mut self, x: Rows<'_>, corner: Corner) -> Option<()> {
        let geometry = self.geometry;
        let [_, kw] = geometry.kernel();
        let one = self.runs.one();
        for (ky, words) in self.words.chunks_mut(self.run.len().max(1)).enumerate() {
            clear_words(self.run);
            let run: &mut [i8] = bytemuck::cast_slice_mut(self.run);
            x.copy_run(geometry, corner, ky as i32, run.get_mut(..kw as usize * geometry.channels())?);
            one.widen(run, words)?;
        }
        Some(())
    }

    /// Pools windows of more groups than can be added up at a time. The second half of the sums is room for those of a window.
    #[inline(never)]
    fn pool_in_parts(&mut self) -> Option<()> {
        let ([kh, _], [sh, _], [ph, _]) = (self.geometry.kernel(), self.geometry.stride(), self.geometry.pool());
        let (groups, step) = (kh as usize * self.run.len(), sh as usize * self.run.len());
        let (largest, sums) = self.sums.split_at_mut(self.sums.len() / 2);
        for window in 0..ph as usize {
            folded::clear(sums);
            let x = self.words.get(window * step..)?.get(..groups)?;
            for (part, x) in x.chunks(GROUPS_AT_A_TIME).enumerate() {
                let weights = self.weights.get(part * GROUPS_AT_A_TIME..)?;
                Products::new(weights, (sums.len(), groups), (1, 0), x.len())?.run(x, Then::Add, sums)?;
            }
            pool(largest.as_flattened_mut(), sums.as_flattened());
        }
        Some(())
    }
}

#[inline(always)]
fn pool(largest: &mut [i32], sums: &[i32]) {
    largest.iter_mut().zip(sums).for_each(|(largest, sum)| *largest = (*largest).max(*sum));
}
