//! 2-D average pooling.

use super::backend::tile::{Element, Inputs};
use super::max_pool2d::pool_windows;
use crate::layer::{AvgPool2d, Shape};

/// The mean of each window, per channel.
///
/// `x` is `[H, W, C]` of shape `input`, `out` is `[H, W, C]` of shape `output`. Does nothing where lengths do not fit.
#[inline(never)]
pub(crate) fn avg_pool2d<E: Element>(x: Inputs<'_, E>, pool: &AvgPool2d, shapes: (Shape, Shape), out: &mut [f32]) {
    out.fill(0.0);
    pool_windows(x.values, (pool.kernel, pool.stride), shapes, out, |sum, value| sum + value.value(x.scale, x.offset));
    let reciprocal = 1.0 / size(pool) as f32;
    out.iter_mut().for_each(|sum| *sum *= reciprocal);
}

/// The fraction of the reciprocal of a window's size. A sum is at most 127 times that size, so with 24 bits, the rounding and
/// the reciprocal's own rounding still fit into 31 bits.
const FRACTION: u32 = 24;

/// [`avg_pool2d`] of int8 activations: `(sum * reciprocal + 2^23) >> 24`.
#[inline(never)]
pub(crate) fn avg_pool2d_int8(x: &[i8], pool: &AvgPool2d, (input, output): (Shape, Shape), out: &mut [i8]) {
    /// Channels whose sums are kept at a time.
    const CHANNELS: usize = 16;
    let channels = usize::from(input.channels);
    let pitch = usize::from(input.width) * channels;
    let ([kh, kw], [sh, sw]) = (pool.kernel.map(usize::from), pool.stride.map(usize::from));
    let size = size(pool);
    let reciprocal = ((1 << FRACTION) + size / 2).checked_div(size).unwrap_or(0).cast_signed();
    for (row, out) in out.chunks_mut((usize::from(output.width) * channels).max(1)).enumerate() {
        for (column, out) in out.chunks_mut(channels.max(1)).enumerate() {
            for (block, out) in out.chunks_mut(CHANNELS).enumerate() {
                let first = row * sh * pitch + column * sw * channels + block * CHANNELS;
                let mut sums = [0i32; CHANNELS];
                for ky in 0..kh {
                    for kx in 0..kw {
                        let values = x.get(first + ky * pitch + kx * channels..).unwrap_or_default();
                        add(&mut sums, values, out.len());
                    }
                }
                for (to, sum) in out.iter_mut().zip(sums) {
                    *to = (sum.wrapping_mul(reciprocal).wrapping_add(1 << (FRACTION - 1)) >> FRACTION) as i8;
                }
            }
        }
    }
}

/// Adds the first `len` values to the sums; all of them at once if that is as many as there are sums.
#[inline(always)]
fn add<const N: usize>(sums: &mut [i32; N], values: &[i8], len: usize) {
    match values.first_chunk::<N>() {
        Some(values) if len == N => {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += i32::from(*value));
        }
        _ => sums.iter_mut().zip(values).take(len).for_each(|(sum, value)| *sum += i32::from(*value)),
    }
}

/// The number of values in a window.
fn size(pool: &AvgPool2d) -> u32 {
    let [kh, kw] = pool.kernel.map(u32::from);
    kh * kw
}
