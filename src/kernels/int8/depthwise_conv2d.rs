//! 2-D convolution of each channel by itself, in integers.

use super::requantize::{Epilogue, Target};
use super::tensor::Int8Tensor;
use crate::kernels::windows::Geometry;

/// A depthwise convolution. `x` and `out` are `[H, W, C]`.
#[inline(never)]
pub(crate) fn depthwise_conv2d(
    x: &[i8],
    geometry: Geometry,
    tensor: &Int8Tensor<'_>,
    epilogue: &Epilogue,
    mut out: Target<'_>,
) {
    /// Channels whose sums are kept at a time.
    const CHANNELS: usize = 16;
    let [_, kw] = geometry.kernel();
    let channels = geometry.channels();
    if x.len() != geometry.elements() || tensor.outputs() != channels {
        return;
    }
    for position in 0..geometry.output_height() * geometry.output_width() {
        let row = position.checked_div(geometry.output_width()).unwrap_or(0);
        let [top, left] = geometry.corner([row, position - row * geometry.output_width()], 0);
        let mut first = 0;
        while first < channels {
            let width = CHANNELS.min(channels - first);
            let mut sums = [0i32; CHANNELS];
            for ky in geometry.rows_inside(top) {
                for kx in geometry.columns_inside(left) {
                    let values = x.get(geometry.index_of([top + ky, left + kx]) + first..).unwrap_or_default();
                    let weights = (ky * kw + kx) as usize * channels + first;
                    let weights = tensor.weights().get(weights..).unwrap_or_default();
                    for (sum, (x, weight)) in sums.iter_mut().take(width).zip(values.iter().zip(weights)) {
                        *sum = sum.wrapping_add(i32::from(*x) * i32::from(*weight));
                    }
                }
            }
            epilogue.store(tensor, first, &sums, out.part(position as usize * channels + first, width));
            first += CHANNELS;
        }
    }
}
