//! The layout of weights: panels of up to sixteen outputs.
//!
//! A matrix of `inputs` rows and `outputs` columns is stored as `ceil(outputs / 16)` panels, one after the other. A panel
//! has `inputs` rows of as many weights as it has outputs (sixteen, fewer in the last), so that a kernel walks over it from
//! its first weight to its last, once per tile. Behind the panels, from the next multiple of four bytes on, come the biases.
//!
//! Sixteen outputs are one AVX-512 register, two of AVX2, four of NEON or SSE, and half of the registers of a
//! Cortex-M4F. Loads may be wider than the last panel: the tensor is long enough for them, and filled up to a multiple of
//! 64 bytes.

use super::vector::Vector;
use bytemuck::Pod;
use half::f16;

/// The most outputs of a panel.
pub const PANEL: usize = 16;

/// A type that weights can be stored as: `f32` or [`half::f16`].
///
/// (No other type can implement it: the kernels know how to load these two.)
pub trait Weight: Pod + sealed::Load + sealed::Compiled {
    /// The stored value that is nearest to `value`.
    fn from_f32(value: f32) -> Self;
    /// The value.
    fn to_f32(self) -> f32;
}

pub(crate) mod sealed {
    use super::{Panels, Vector};
    use crate::kernels::backend::Backend;
    use crate::kernels::backend::tile::{Element, Inputs};
    use crate::kernels::conv2d::ConvKernel;
    #[cfg(not(target_os = "none"))]
    use crate::kernels::conv2d::then_dense::ThenDenseKernel;
    use crate::kernels::dense::Sums;
    use crate::kernels::depthwise_conv2d::DepthwiseKernel;

    /// The kernels for one type of weights.
    pub trait Compiled: Sized {
        /// A dense layer of one row, if the processor has a kernel for it that is no [`Kernel`](crate::kernels::backend::Kernel);
        /// else false.
        #[inline(always)]
        fn dense_without_vectors<E: Element>(
            _x: Inputs<'_, E>,
            _weights: Panels<'_, Self>,
            _floor: f32,
            _out: &mut [f32],
        ) -> bool {
            false
        }
        /// A convolution, likewise; else the kernel, unused.
        #[inline(always)]
        fn conv2d_without_vectors<E: Element>(kernel: ConvKernel<'_, E, Self>) -> Option<ConvKernel<'_, E, Self>> {
            Some(kernel)
        }
        /// A dense layer of one row.
        fn dense(backend: Backend, sums: Sums<'_, Self>);
        /// A dense layer of any number of rows.
        fn dense_batch(backend: Backend, sums: Sums<'_, Self>);
        /// Whole tiles of a dense layer, if the backend has a loop of its own for them: how many rows.
        fn dense_whole_tiles(backend: Backend, sums: Sums<'_, Self>) -> usize;
        /// The beginning of the sums of the panel that is not whole, of any number of rows: of how many inputs.
        fn dense_narrow(backend: Backend, sums: Sums<'_, Self>) -> usize;
        /// A convolution, and whether the activation has been applied as well.
        fn conv2d(backend: Backend, kernel: ConvKernel<'_, f32, Self>) -> bool;
        /// A convolution over bytes, likewise.
        fn conv2d_bytes(backend: Backend, kernel: ConvKernel<'_, u8, Self>) -> bool;
        /// A convolution and the dense layer behind it, if that is worth it.
        #[cfg(not(target_os = "none"))]
        fn conv2d_then_dense(backend: Backend, kernel: ThenDenseKernel<'_, Self>) -> bool;
        /// A depthwise convolution.
        fn depthwise_conv2d(backend: Backend, kernel: DepthwiseKernel<'_, f32, Self>);
        /// A depthwise convolution over bytes.
        fn depthwise_conv2d_bytes(backend: Backend, kernel: DepthwiseKernel<'_, u8, Self>);
    }

    /// How a kernel loads weights.
    pub trait Load: Copy {
        /// A vector of weights.
        ///
        /// # Safety
        /// `from` must be valid for reads of `V::LANES` weights, and aligned as one of them is.
        #[allow(unsafe_code)] // only declares
        unsafe fn load<V: Vector>(token: V::Token, from: *const Self) -> V;

        /// The backend for a single row, where each weight is loaded for one product.
        fn row_backend(backend: Backend) -> Backend {
            backend
        }
    }
}

impl Weight for f32 {
    fn from_f32(value: f32) -> Self {
        value
    }

    fn to_f32(self) -> f32 {
        self
    }
}

impl Weight for f16 {
    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn to_f32(self) -> f32 {
        self.to_f32()
    }
}

/// Where the parts of a tensor lie, in bytes.
struct Layout {
    bias: u32,
    len: u32,
}

impl Layout {
    const fn new(inputs: u32, outputs: u32, weight_bytes: u32) -> Option<Self> {
        let Some(weights) = inputs.checked_mul(outputs) else { return None };
        let Some(weights) = weights.checked_mul(weight_bytes) else { return None };
        let Some(bias) = weights.checked_next_multiple_of(4) else { return None };
        let Some(bias_bytes) = outputs.checked_mul(4) else { return None };
        let Some(behind_bias) = bias.checked_add(bias_bytes) else { return None };
        let overhang = match outputs % PANEL as u32 {
            0 => 0,
            rest => (PANEL as u32 - rest) * weight_bytes,
        };
        let Some(behind_loads) = weights.checked_add(overhang) else { return None };
        let longest = if behind_bias > behind_loads { behind_bias } else { behind_loads };
        match longest.checked_next_multiple_of(crate::ALIGNMENT as u32) {
            Some(len) => Some(Self { bias, len }),
            None => None,
        }
    }

    fn of<W>(inputs: usize, outputs: usize) -> Option<Self> {
        Self::new(inputs.try_into().ok()?, outputs.try_into().ok()?, size_of::<W>() as u32)
    }
}

/// The bytes of a packed tensor, its end padding included; `None` if that is 4 GiB or more.
///
/// ```
/// use thumbnet::kernels::pack::tensor_bytes;
/// assert_eq!(tensor_bytes::<f32>(784, 128), Some((784 * 128 + 128) * 4));
/// assert_eq!(tensor_bytes::<half::f16>(784, 128), Some(784 * 128 * 2 + 128 * 4));
/// ```
#[must_use]
pub const fn tensor_bytes<W: Weight>(inputs: u32, outputs: u32) -> Option<u32> {
    match Layout::new(inputs, outputs, size_of::<W>() as u32) {
        Some(layout) => Some(layout.len),
        None => None,
    }
}

/// Packs a row-major matrix `weights`, `[inputs, outputs]`, and its biases (`[outputs]`, or none for zeros) into `tensor`.
///
/// Returns `None`, with `tensor` in any state, if a length does not fit: `tensor` must have [`tensor_bytes`] bytes, and
/// start at a multiple of four.
#[must_use]
pub fn pack<W: Weight>(weights: &[f32], bias: &[f32], outputs: usize, tensor: &mut [u8]) -> Option<()> {
    let inputs = weights.len().checked_div(outputs)?;
    let layout = Layout::of::<W>(inputs, outputs)?;
    let bias_fits = bias.is_empty() || bias.len() == outputs;
    if inputs * outputs != weights.len() || tensor.len() != layout.len as usize || !bias_fits {
        return None;
    }
    tensor.fill(0);
    let (panels, behind) = tensor.split_at_mut_checked(layout.bias as usize)?;
    let stored_bias: &mut [f32] = bytemuck::try_cast_slice_mut(behind.get_mut(..outputs * 4)?).ok()?;
    stored_bias.iter_mut().zip(bias).for_each(|(to, bias)| *to = *bias);
    let mut rest: &mut [W] = bytemuck::try_cast_slice_mut(panels.get_mut(..weights.len() * size_of::<W>())?).ok()?;
    for first in (0..outputs).step_by(PANEL) {
        let width = PANEL.min(outputs - first);
        let (panel, behind) = rest.split_at_mut_checked(inputs * width)?;
        rest = behind;
        // (Neither is 0, but the compiler does not know, and would link a panic.)
        for (to, from) in panel.chunks_exact_mut(width.max(1)).zip(weights.chunks_exact(outputs.max(1))) {
            to.iter_mut().zip(from.get(first..)?).for_each(|(to, from)| *to = W::from_f32(*from));
        }
    }
    Some(())
}

/// A packed tensor whose length is known to fit its shape.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a, W = f32> {
    /// The panels, and all that follows them in the tensor.
    weights: &'a [W],
    bias: &'a [f32],
    inputs: usize,
    outputs: usize,
}

/// Some vectors of outputs, next to each other: where their parameters lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns<'a, W, const COUNT: usize> {
    /// The weights of the tensor.
    pub(crate) weights: &'a [W],
    /// Where each vector's weights for input 0 begin; those for input `k` begin `k * width` further on.
    pub(crate) starts: [usize; COUNT],
    /// The number of outputs of the panels that the vectors lie in.
    pub(crate) width: usize,
    /// The biases, from the first output on.
    pub(crate) bias: &'a [f32],
    /// The index of the first output.
    pub(crate) first: usize,
}

impl<'a, W: Weight> Panels<'a, W> {
    /// A view of `tensor`, as [`pack`] wrote it, as panels for `inputs` inputs and `outputs` outputs; `None` if its length
    /// is not that of such a tensor, if it does not start at a multiple of four bytes, or if a size is 0.
    #[must_use]
    pub fn new(tensor: &'a [u8], inputs: usize, outputs: usize) -> Option<Self> {
        let layout = Layout::of::<W>(inputs, outputs)?;
        if inputs == 0 || outputs == 0 || tensor.len() != layout.len as usize {
            return None;
        }
        let bias = tensor.get(layout.bias as usize..)?.get(..outputs * 4)?;
        let weights = bytemuck::try_cast_slice(tensor).ok()?;
        Some(Self { weights, bias: bytemuck::try_cast_slice(bias).ok()?, inputs, outputs })
    }

    /// The number of inputs.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        self.inputs
    }

    /// The number of outputs.
    #[must_use]
    pub const fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether so many inputs and outputs are those of `rows` rows.
    #[inline(always)]
    pub(crate) fn fit(&self, rows: usize, inputs: usize, outputs: usize) -> bool {
        rows.checked_mul(self.inputs) == Some(inputs) && rows.checked_mul(self.outputs) == Some(outputs)
    }

    /// The biases, `[outputs]`.
    #[must_use]
    pub const fn bias(&self) -> &'a [f32] {
        self.bias
    }

    /// The panels, the first of which begins with the first value, and what follows them in the tensor.
    #[cfg(not(target_os = "none"))]
    pub(crate) const fn weights(&self) -> &'a [W] {
        self.weights
    }

    /// The weight of one input for one output; `None` if there is no such input or output.
    #[must_use]
    pub fn weight(&self, input: usize, output: usize) -> Option<f32> {
        if input >= self.inputs || output >= self.outputs {
            return None;
        }
        let first = output / PANEL * PANEL;
        let width = PANEL.min(self.outputs - first);
        self.weights.get(first * self.inputs + input * width + (output - first)).map(|weight| weight.to_f32())
    }

    /// `COUNT` vectors of `lanes` outputs each, from output `first` on. `None` if there are not so many before output `end`
    /// whose panels have the same width; the last vector of a panel may reach beyond it.
    ///
    /// `lanes` must divide [`PANEL`], and `first` must be a multiple of it.
    #[inline(always)]
    pub(crate) fn columns<const COUNT: usize>(
        &self,
        lanes: usize,
        first: usize,
        end: usize,
    ) -> Option<Columns<'a, W, COUNT>> {
        let full = self.outputs / PANEL * PANEL;
        let last = first + (COUNT - 1) * lanes;
        let width = if first < full { PANEL } else { self.outputs - full };
        if last >= end.min(self.outputs) || (first < full && last >= full) {
            return None;
        }
        let start = |c: usize| {
            let output = first + c * lanes;
            self.inputs * (output / PANEL * PANEL) + output % PANEL
        };
        let (weights, starts) = (self.weights, core::array::from_fn(start));
        Some(Columns { weights, starts, width, bias: self.bias.get(first..)?, first })
    }
}
