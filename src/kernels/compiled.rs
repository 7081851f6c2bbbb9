//! The kernels that read weights, once for each type of weights and of inputs.
//!
//! Generic code is compiled in the crate that uses it, and in every such crate again. The functions here are not generic:
//! they are compiled with the library, which saves its users minutes, and linked only where they are called.

use super::backend::Backend;
use super::backend::taps::Lanes;
#[cfg(cortex_m_fpu)]
use super::backend::tile::{Element, Inputs};
use super::conv2d::ConvKernel;
#[cfg(not(target_os = "none"))]
use super::conv2d::then_dense::ThenDenseKernel;
use super::dense::{NarrowKernel, RowKernel, RowsKernel, Sums, WholeTilesKernel};
use super::depthwise_conv2d::DepthwiseKernel;
#[cfg(cortex_m_fpu)]
use super::pack::Panels;
use super::pack::Weight;
use super::pack::sealed::Compiled;
use half::f16;

macro_rules! compiled {
    ($module:ident, $weight:ty, $($without_vectors:tt)*) => {
        // A module for the symbols' names: they tell which types of weights a program has kernels for.
        mod $module {
            use super::*;

            #[inline(never)]
            pub(super) fn dense(backend: Backend, sums: Sums<'_, $weight>) {
                backend.dispatch(RowKernel(sums));
            }

            #[inline(never)]
            pub(super) fn dense_batch(backend: Backend, sums: Sums<'_, $weight>) {
                backend.dispatch(RowsKernel(sums));
            }

            #[inline(never)]
            pub(super) fn dense_whole_tiles(backend: Backend, sums: Sums<'_, $weight>) -> usize {
                backend.dispatch(WholeTilesKernel(sums))
            }

            #[inline(never)]
            pub(super) fn dense_narrow(backend: Backend, sums: Sums<'_, $weight>) -> usize {
                backend.dispatch(NarrowKernel(sums))
            }

            #[inline(never)]
            pub(super) fn conv2d(backend: Backend, kernel: ConvKernel<'_, f32, $weight>) -> bool {
                backend.dispatch(kernel)
            }

            #[inline(never)]
            pub(super) fn conv2d_bytes(backend: Backend, kernel: ConvKernel<'_, u8, $weight>) -> bool {
                backend.dispatch(kernel)
            }

            #[cfg(not(target_os = "none"))]
            #[inline(never)]
            pub(super) fn conv2d_then_dense(backend: Backend, kernel: ThenDenseKernel<'_, $weight>) -> bool {
                backend.dispatch(kernel)
            }

            #[inline(never)]
            pub(super) fn depthwise_conv2d(backend: Backend, kernel: DepthwiseKernel<'_, f32, $weight>) {
                backend.dispatch(kernel);
            }

            #[inline(never)]
            pub(super) fn depthwise_conv2d_bytes(backend: Backend, kernel: DepthwiseKernel<'_, u8, $weight>) {
                backend.dispatch(kernel);
            }
        }

        impl Compiled for $weight {
            $($without_vectors)*

            fn dense(backend: Backend, sums: Sums<'_, Self>) {
                $module::dense(backend, sums);
            }

            fn dense_batch(backend: Backend, sums: Sums<'_, Self>) {
                $module::dense_batch(backend, sums);
            }

            fn dense_whole_tiles(backend: Backend, sums: Sums<'_, Self>) -> usize {
                $module::dense_whole_tiles(backend, sums)
            }

            fn dense_narrow(backend: Backend, sums: Sums<'_, Self>) -> usize {
                $module::dense_narrow(backend, sums)
            }

            fn conv2d(backend: Backend, kernel: ConvKernel<'_, f32, Self>) -> bool {
                $module::conv2d(backend, kernel)
            }

            fn conv2d_bytes(backend: Backend, kernel: ConvKernel<'_, u8, Self>) -> bool {
                $module::conv2d_bytes(backend, kernel)
            }

            #[cfg(not(target_os = "none"))]
            fn conv2d_then_dense(backend: Backend, kernel: ThenDenseKernel<'_, Self>) -> bool {
                $module::conv2d_then_dense(backend, kernel)
            }

            fn depthwise_conv2d(backend: Backend, kernel: DepthwiseKernel<'_, f32, Self>) {
                $module::depthwise_conv2d(backend, kernel);
            }

            fn depthwise_conv2d_bytes(backend: Backend, kernel: DepthwiseKernel<'_, u8, Self>) {
                $module::depthwise_conv2d_bytes(backend, kernel);
            }
        }
    };
}

compiled! {
    f32_weights, f32,
    #[cfg(cortex_m_fpu)]
    #[inline(always)]
    fn dense_without_vectors<E: Element>(x: Inputs<'_, E>, weights: Panels<'_, f32>, floor: f32, out: &mut [f32]) -> bool {
        super::backend::cortex_m::run_dense(&x, &weights, floor, out);
        true
    }

    #[cfg(cortex_m_fpu)]
    #[inline(always)]
    fn conv2d_without_vectors<E: Element>(kernel: ConvKernel<'_, E, f32>) -> Option<ConvKernel<'_, E, f32>> {
        super::backend::cortex_m::run_conv2d(kernel);
        None
    }
}
compiled! { f16_weights, f16, }

/// Inputs of a convolution.
pub(crate) trait Input: Lanes {
    /// Runs a convolution over inputs of this type.
    fn conv2d<W: Weight>(backend: Backend, kernel: ConvKernel<'_, Self, W>) -> bool;
    /// Runs a depthwise convolution over inputs of this type.
    fn depthwise_conv2d<W: Weight>(backend: Backend, kernel: DepthwiseKernel<'_, Self, W>);
}

impl Input for f32 {
    fn conv2d<W: Weight>(backend: Backend, kernel: ConvKernel<'_, Self, W>) -> bool {
        W::conv2d(backend, kernel)
    }

    fn depthwise_conv2d<W: Weight>(backend: Backend, kernel: DepthwiseKernel<'_, Self, W>) {
        W::depthwise_conv2d(backend, kernel);
    }
}

impl Input for u8 {
    fn conv2d<W: Weight>(backend: Backend, kernel: ConvKernel<'_, Self, W>) -> bool {
        // A byte is part of many windows: it is converted once, if there is room. On a microcontroller's stack there is none.
        #[cfg(not(target_os = "none"))]
        let mut buffer = [0.0; 4096];
        #[cfg(not(target_os = "none"))]
        let kernel = match kernel.converted(&mut buffer) {
            Ok(kernel) => return W::conv2d(backend, kernel),
            Err(kernel) => kernel,
        };
        W::conv2d_bytes(backend, kernel)
    }

    fn depthwise_conv2d<W: Weight>(backend: Backend, kernel: DepthwiseKernel<'_, Self, W>) {
        W::depthwise_conv2d_bytes(backend, kernel);
    }
}
