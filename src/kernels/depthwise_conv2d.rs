//! 2-D convolution of each channel with a filter of its own: vectors over the channels, which lie next to each other.

use super::backend::taps::{Lanes, Taps, Window, load_weights};
use super::backend::tile::Inputs;
use super::backend::{Backend, Kernel};
use super::compiled::Input;
use super::pack::{Columns, Panels, Weight};
use super::vector::Vector;
use super::windows::within;
use crate::layer::{DepthwiseConv2d, Shape};
use core::ops::Range;

/// `out = max(floor, x ⋆ W + b)`, channel by channel.
///
/// `x` is `[H, W, C]` of shape `input`, `out` is `[H, W, C]` of shape `output`, and the weights are a matrix of as many
/// inputs as the window has positions, and an output for each channel. Does nothing where lengths do not fit the shapes.
pub(crate) fn depthwise_conv2d<E: Input, W: Weight>(
    backend: Backend,
    x: Inputs<'_, E>,
    conv: &DepthwiseConv2d,
    (input, output): (Shape, Shape),
    weights: Panels<'_, W>,
    floor: f32,
    out: &mut [f32],
) {
    let ([kh, kw], [sh, sw], padding) = (conv.kernel.map(i32::from), conv.stride.map(i32::from), conv.padding);
    let vertical = Side { len: input.height.into(), kernel: kh, stride: sh, padding: padding.top.into() };
    let horizontal = Side { len: input.width.into(), kernel: kw, stride: sw, padding: padding.left.into() };
    let channels = usize::from(input.channels);
    let fits = x.values.len() == usize::from(input.height) * usize::from(input.width) * channels
        && (weights.inputs(), weights.outputs()) == ((kh * kw) as usize, channels);
    if fits {
        let image = Image { x, vertical, horizontal, channels, output_width: output.width.into(), floor };
        E::depthwise_conv2d(backend, DepthwiseKernel { image, weights, out });
    }
}

/// Where the windows lie along one side of the input.
#[derive(Clone, Copy)]
struct Side {
    len: i32,
    kernel: i32,
    stride: i32,
    /// Before the input.
    padding: i32,
}

impl Side {
    /// Where a window begins; negative in the padding.
    #[inline(always)]
    fn start(&self, window: i32) -> i32 {
        window * self.stride - self.padding
    }

    /// The taps of a window that lie within the input.
    #[inline(always)]
    fn taps(&self, window: i32) -> Range<i32> {
        let start = self.start(window);
        within(-start, self.kernel)..within(self.len - start, self.kernel)
    }

    /// Whether all of a window lies within the input.
    #[inline(always)]
    fn holds(&self, window: i32) -> bool {
        self.taps(window) == (0..self.kernel)
    }
}

/// What all channels have in common.
struct Image<'a, E> {
    x: Inputs<'a, E>,
    vertical: Side,
    horizontal: Side,
    channels: usize,
    output_width: i32,
    floor: f32,
}

/// What a depthwise convolution computes.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct DepthwiseKernel<'a, E, W> {
    image: Image<'a, E>,
    weights: Panels<'a, W>,
    out: &'a mut [f32],
}

impl<E: Lanes, W: Weight> Kernel for DepthwiseKernel<'_, E, W> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) {
        let Self { image, weights, out } = self;
        // Row by row, so that the rows of the input that all vectors of channels pass over stay in the cache.
        let row_len = image.output_width as usize * image.channels;
        for (row, out) in out.chunks_mut(row_len.max(1)).enumerate() {
            let mut first = 0;
            while let Some(columns) = weights.columns::<1>(V::LANES, first, weights.outputs()) {
                image.row::<V, W, WINDOWS>(token, row as i32, &columns, out);
                first += V::LANES;
            }
        }
    }
}

impl<E: Lanes> Image<'_, E> {
    /// A vector of channels of a row of the output.
    #[inline(always)]
    fn row<V: Vector, W: Weight, const WINDOWS: usize>(
        &self,
        token: V::Token,
        row: i32,
        columns: &Columns<'_, W, 1>,
        out: &mut [f32],
    ) {
        let bias = V::load(token, columns.bias);
        let taps = if E::TILES { self.taps::<V, W, WINDOWS>(row, columns) } else { None };
        let mut column = 0;
        while column < self.output_width {
            let last = column + WINDOWS as i32 - 1;
            let inside = last < self.output_width && self.horizontal.holds(column) && self.horizontal.holds(last);
            let start =
                self.index(self.vertical.start(row) + self.vertical.taps(row).start, self.horizontal.start(column));
            let tile = taps.as_ref().filter(|_| inside);
            match tile.and_then(|taps| taps.sums(token, start + columns.first, bias)) {
                Some(sums) => {
                    for sum in sums {
                        self.store(token, sum, column, columns.first, out);
                        column += 1;
                    }
                }
                None => {
                    let sum = self.clipped_window(token, [row, column], columns, bias);
                    self.store(token, sum, column, columns.first, out);
                    column += 1;
                }
            }
        }
    }

    /// The operands of the windows of a row that lie within the input from left to right; `None` if there are none.
    #[inline(always)]
    fn taps<'a, V: Vector, W: Weight, const WINDOWS: usize>(
        &'a self,
        row: i32,
        columns: &Columns<'a, W, 1>,
    ) -> Option<Taps<'a, V, E, W, WINDOWS>> {
        let rows = self.vertical.taps(row);
        let window = Window {
            taps: [rows.len(), self.horizontal.kernel as usize],
            pitch: [self.horizontal.len as usize * self.channels, self.channels],
            step: self.horizontal.stride as usize * self.channels,
        };
        let weights = columns.weights.get(self.weights_of(columns, rows.start, 0)..)?;
        Taps::new(self.x, (weights, columns.width), window)
    }

    /// A window of which parts may lie in the padding, where the input counts as 0, or whose last vector may reach beyond
    /// the input.
    #[inline(always)]
    fn clipped_window<V: Vector, W: Weight>(
        &self,
        token: V::Token,
        [row, column]: [i32; 2],
        columns: &Columns<'_, W, 1>,
        bias: V,
    ) -> V {
        let (scaling, mut sum) = ((self.x.scale, self.x.offset), bias);
        for ky in self.vertical.taps(row) {
            for kx in self.horizontal.taps(column) {
                let input =
                    self.index(self.vertical.start(row) + ky, self.horizontal.start(column) + kx) + columns.first;
                let inputs = self.x.values.get(input..).unwrap_or_default();
                let weights = columns.weights.get(self.weights_of(columns, ky, kx)..).unwrap_or_default();
                if let Some(weights) = load_weights::<V, W>(token, weights) {
                    sum = E::load::<V>(token, inputs, scaling).mul_add(weights, sum);
                }
            }
        }
        sum
    }

    /// Stores the sums of some channels; the last vector may reach beyond them.
    #[inline(always)]
    fn store<V: Vector>(&self, token: V::Token, sum: V, column: i32, first: usize, out: &mut [f32]) {
        let position = column as usize * self.channels;
        let (begin, end) = (position + first, position + self.channels);
        let to = out.get_mut(begin..end.min(begin + V::LANES)).unwrap_or_default();
        V::splat(token, self.floor).max(sum).store(to);
    }

    /// The index of a position's first channel. (A position in the padding has none, and is not asked for.)
    #[inline(always)]
    fn index(&self, row: i32, column: i32) -> usize {
        ((row * self.horizontal.len + column) as usize).wrapping_mul(self.channels)
    }

    /// The index of a tap's weights.
    #[inline(always)]
    fn weights_of<W>(&self, columns: &Columns<'_, W, 1>, ky: i32, kx: i32) -> usize {
        let [start] = columns.starts;
        start + (ky * self.horizontal.kernel + kx) as usize * columns.width
    }
}
