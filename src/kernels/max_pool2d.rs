//! 2-D max pooling as a layer of its own; behind a convolution it is fused into that.

use super::backend::tile::{Element, Inputs};
use crate::layer::{MaxPool2d, Shape};

/// The largest value of each window, per channel; NaN where the window holds one.
///
/// `x` is `[H, W, C]` of shape `input`, `out` is `[H, W, C]` of shape `output`. Does nothing where lengths do not fit.
#[inline(never)]
pub(crate) fn max_pool2d<E: Element>(x: Inputs<'_, E>, pool: &MaxPool2d, shapes: (Shape, Shape), out: &mut [f32]) {
    out.fill(f32::NEG_INFINITY);
    pool_windows(x.values, (pool.kernel, pool.stride), shapes, out, |largest, value| {
        let value = value.value(x.scale, x.offset);
        if largest > value || largest.is_nan() { largest } else { value }
    });
}

/// [`max_pool2d`] of int8 activations.
#[inline(never)]
pub(crate) fn max_pool2d_int8(x: &[i8], pool: &MaxPool2d, shapes: (Shape, Shape), out: &mut [i8]) {
    out.fill(i8::MIN);
    pool_windows(x, (pool.kernel, pool.stride), shapes, out, i8::max);
}

/// Combines each output, channel by channel, with the values of its window: row by row, and each row from left to right.
///
/// The loops run over the neighbouring channels innermost, which the compiler vectorises by itself.
#[inline(always)]
pub(super) fn pool_windows<E: Copy, T: Copy>(
    x: &[E],
    (kernel, stride): ([u8; 2], [u8; 2]),
    (input, output): (Shape, Shape),
    out: &mut [T],
    combine: impl Fn(T, E) -> T,
) {
    let channels = usize::from(input.channels);
    let in_width = usize::from(input.width) * channels;
    let ([kh, kw], [sh, sw]) = (kernel.map(usize::from), stride.map(usize::from));
    if channels == 0 || output.width == 0 {
        return;
    }
    for (row, out) in out.chunks_exact_mut(usize::from(output.width) * channels).enumerate() {
        for (column, out) in out.chunks_exact_mut(channels).enumerate() {
            for ky in 0..kh {
                let start = (row * sh + ky) * in_width + column * sw * channels;
                let run = x.get(start..start + kw * channels).unwrap_or_default();
                for position in run.chunks_exact(channels) {
                    out.iter_mut().zip(position).for_each(|(to, value)| *to = combine(*to, *value));
                }
            }
        }
    }
}
