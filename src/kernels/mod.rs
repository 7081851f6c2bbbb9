//! The arithmetic: it knows slices and shapes, and nothing of models.
//!
//! Each kernel is written once, over the [`vector::Vector`] trait, and instantiated for each [`Backend`]. The functions
//! check the lengths of what they are given and cannot panic.

mod activation;
pub(crate) mod avg_pool2d;
#[allow(unsafe_code)] // intrinsics and the inner loop
pub(crate) mod backend;
pub(crate) mod compiled;
pub(crate) mod conv2d;
pub(crate) mod dense;
pub(crate) mod depthwise_conv2d;
pub(crate) mod int8;
mod matmul;
pub(crate) mod max_pool2d;
pub mod pack;
#[allow(unsafe_code)] // declares an unsafe method; only the backends implement and call it
pub(crate) mod vector;
pub(crate) mod windows;

pub(crate) use activation::softmax_rows;
pub use activation::{exp, leaky_relu, relu6, sigmoid, softmax, tanh};
pub use backend::Backend;
pub use dense::{dense, dense_bytes};
pub use int8::tensor::Int8Tensor;
pub use matmul::{MatmulError, matmul, matmul_packing_bytes};
pub use pack::{Panels, Weight};

/// What the kernels of this build were made for, in words, e.g. `"Cortex-M4F/M7 (assembly for the FPU)"`; on other
/// processors the name of the architecture.
#[must_use]
pub const fn built_for() -> &'static str {
    env!("THUMBNET_BUILT_FOR")
}
