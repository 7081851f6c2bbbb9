//! Integer kernels: int8 weights and activations, 32-bit sums, fixed-point scales.
//!
//! The arithmetic is exact up to one well-defined rounding per output, so an int8 model gives the same outputs, bit for bit,
//! on every backend and every processor. `docs/format.md` specifies it; in short, with `q = x / scale` in -127..=127:
//!
//! - a sum is `bias + Σ q * w`, in 32 bits;
//! - the largest sum of a pool goes on;
//! - [`requantize`] scales it to the next layer's integers, or the last layer's to f32.

pub(crate) mod conv2d;
pub(crate) mod dense;
pub(crate) mod depthwise_conv2d;
pub(crate) mod quantize;
pub(crate) mod requantize;
pub(crate) mod tensor;

// Grouped weights: over the vectors of a backend, or in little flash.
#[cfg(not(target_os = "none"))]
mod conv2d_grouped;
#[cfg(not(target_os = "none"))]
mod dense_grouped;
#[cfg(target_os = "none")]
mod plain;
#[cfg(not(target_os = "none"))]
mod quantize_vectors;
#[cfg(not(target_os = "none"))]
pub(crate) mod scaling;
#[cfg(not(target_os = "none"))]
#[allow(unsafe_code)] // declares unsafe methods; only the backends implement and call them
pub(crate) mod vector;

#[cfg(target_os = "none")]
pub(crate) use plain::{conv2d_grouped, dense_grouped, quantize};
#[cfg(not(target_os = "none"))]
pub(crate) use {conv2d_grouped::conv2d_grouped, dense_grouped::dense_grouped, quantize_vectors::quantize};
