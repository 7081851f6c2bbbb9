//! The operation mask: which kernels and weight types a model needs, and which ones a build has.
//!
//! A blob's prefix carries the mask of what it needs. [`Model`](crate::Model) has the mask of the build as a const
//! parameter and tests it before each kernel call, so that a firmware that names the mask of its own model, as
//! [`include_model!`](crate::include_model) does, links no other kernel.

/// Dense layers.
pub const DENSE: u32 = 1 << 0;
/// 2-D convolution, with or without fused max pooling.
pub const CONV2D: u32 = 1 << 1;
/// 2-D max pooling as a layer of its own.
pub const MAX_POOL2D: u32 = 1 << 2;
/// Softmax over the outputs.
pub const SOFTMAX: u32 = 1 << 3;
/// The hyperbolic tangent as activation.
pub const TANH: u32 = 1 << 4;
/// The logistic function as activation.
pub const SIGMOID: u32 = 1 << 5;
/// 2-D convolution of each channel by itself.
pub const DEPTHWISE_CONV2D: u32 = 1 << 6;
/// Quantisation of the input, with which every int8 model begins.
pub const QUANTIZE: u32 = 1 << 7;
/// 2-D average pooling.
pub const AVG_POOL2D: u32 = 1 << 8;
/// ReLU6 as activation.
pub const RELU6: u32 = 1 << 9;
/// The leaky ReLU as activation.
pub const LEAKY_RELU: u32 = 1 << 10;
/// f32 weights.
pub const WEIGHTS_F32: u32 = 1 << 16;
/// f16 weights.
pub const WEIGHTS_F16: u32 = 1 << 17;
/// int8 weights in groups of four, as desktop processors like them.
pub const WEIGHTS_INT8_GROUPED: u32 = 1 << 18;
/// int8 weights in folded pairs, as microcontrollers like them.
pub const WEIGHTS_INT8_FOLDED: u32 = 1 << 19;
/// int8 weights in either packing.
pub(crate) const WEIGHTS_INT8: u32 = WEIGHTS_INT8_GROUPED | WEIGHTS_INT8_FOLDED;

/// Everything that this version of the library can run.
pub const ALL: u32 = DENSE
    | CONV2D
    | MAX_POOL2D
    | SOFTMAX
    | TANH
    | SIGMOID
    | DEPTHWISE_CONV2D
    | QUANTIZE
    | AVG_POOL2D
    | RELU6
    | LEAKY_RELU
    | WEIGHTS_F32
    | WEIGHTS_F16
    | WEIGHTS_INT8_GROUPED
    | WEIGHTS_INT8_FOLDED;

/// The names of the operations in a mask, lowest bit first; an unknown bit is called `"unknown"`.
///
/// ```
/// use thumbnet::ops;
/// assert!(ops::names(ops::DENSE | ops::TANH).eq(["dense", "tanh"]));
/// ```
pub fn names(mask: u32) -> impl Iterator<Item = &'static str> {
    (0..u32::BITS).map(|bit| 1u32 << bit).filter(move |bit| mask & bit != 0).map(name)
}

fn name(bit: u32) -> &'static str {
    match bit {
        DENSE => "dense",
        CONV2D => "conv2d",
        MAX_POOL2D => "max_pool2d",
        SOFTMAX => "softmax",
        TANH => "tanh",
        SIGMOID => "sigmoid",
        DEPTHWISE_CONV2D => "depthwise_conv2d",
        QUANTIZE => "quantize",
        AVG_POOL2D => "avg_pool2d",
        RELU6 => "relu6",
        LEAKY_RELU => "leaky_relu",
        WEIGHTS_F32 => "f32 weights",
        WEIGHTS_F16 => "f16 weights",
        WEIGHTS_INT8_GROUPED => "int8 grouped weights",
        WEIGHTS_INT8_FOLDED => "int8 folded weights",
        _ => "unknown",
    }
}
