//! What a layer is: its descriptor in the blob, the shape it makes, its tensor and its cost.

use crate::kernels::int8::tensor::{self as int8_tensor, Sums};
use crate::kernels::pack;
use crate::ops;
use half::f16;
use serde::Serialize;

/// The most layers that a model may have.
pub const MAX_LAYERS: usize = 32;
/// The most values that one activation, the input included, may have.
pub const MAX_ELEMENTS: u32 = 1 << 20;

/// The shape of one activation, `[H, W, C]`: channels lie next to each other in memory, then columns, then rows.
///
/// A flat vector of `n` values is `[1, 1, n]`. Every dimension is between 1 and 65,535, and the product is at most
/// [`MAX_ELEMENTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
    /// Values per position.
    pub channels: u16,
}

impl Shape {
    /// A shape of `height` rows, `width` columns and `channels` values per position.
    #[must_use]
    pub const fn new(height: u16, width: u16, channels: u16) -> Self {
        Self { height, width, channels }
    }

    /// A flat vector of `len` values.
    #[must_use]
    pub const fn flat(len: u16) -> Self {
        Self::new(1, 1, len)
    }

    /// The number of values; `None` if a dimension is 0 or there are more than [`MAX_ELEMENTS`].
    #[must_use]
    pub const fn elements(&self) -> Option<u32> {
        // 65,535 * 65,535 fits into a u32; times the channels it may not.
        let area = self.height as u32 * self.width as u32;
        match area.checked_mul(self.channels as u32) {
            Some(n) if n > 0 && n <= MAX_ELEMENTS => Some(n),
            _ => None,
        }
    }
}

/// What the network gets to see: its shape, and how a byte becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct InputSpec {
    /// Shape of one input.
    pub shape: Shape,
    /// A byte `b` of a u8 input stands for the value `b * scale + offset`. For pixels between 0 and 1: `1.0 / 255.0`.
    pub scale: f32,
    /// See [`scale`](Self::scale).
    pub offset: f32,
}

/// The function that a dense or convolution layer applies to its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Activation {
    /// The sum itself.
    None,
    /// `max(0, x)`; NaN stays NaN.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(0, x), 6)`; NaN stays NaN.
    Relu6,
    /// `x` where that is at least 0, and `slope * x` below; NaN stays NaN.
    LeakyRelu(Slope),
}

/// The slope of a leaky ReLU below 0: `multiplier / 2^(8 + shift)` with eight significant bits, between 0 and 1.
///
/// As an f32 it is exact, and 32-bit integers can multiply by it without losing a digit: so an int8 model makes the same of it
/// everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Slope {
    /// From 128 to 255.
    multiplier: u8,
    /// At most [`Slope::LARGEST_SHIFT`].
    shift: u8,
}

impl Slope {
    /// The largest shift: of slopes of about 0.00001.
    const LARGEST_SHIFT: u8 = 15;

    /// The slope nearest to `value`; `None` if that is not between 2^-16 and 1, both excluded.
    ///
    /// ```
    /// use thumbnet::layer::Slope;
    /// assert_eq!(Slope::new(0.125).map(Slope::value), Some(0.125));
    /// assert_eq!(Slope::new(0.01).map(Slope::value), Some(164.0 / 16_384.0));
    /// assert_eq!(Slope::new(-0.1), None);
    /// ```
    #[must_use]
    pub const fn new(value: f32) -> Option<Self> {
        if !(value > 1.0 / 65_536.0 && value < 1.0) {
            return None;
        }
        let (mut scaled, mut shift) = (value * 256.0, 0);
        while scaled < 127.75 && shift < Self::LARGEST_SHIFT {
            scaled *= 2.0;
            shift += 1;
        }
        let nearest = (scaled + 0.5) as u32;
        Self::from_parts(if nearest < 255 { nearest as u8 } else { 255 }, shift)
    }

    /// `multiplier / 2^(8 + shift)`; `None` if a part is out of range.
    pub(crate) const fn from_parts(multiplier: u8, shift: u8) -> Option<Self> {
        if multiplier >= 128 && shift <= Self::LARGEST_SHIFT { Some(Self { multiplier, shift }) } else { None }
    }

    /// Both parts in one number.
    pub(crate) const fn to_bits(self) -> u16 {
        u16::from_le_bytes([self.multiplier, self.shift])
    }

    /// The slope of which [`to_bits`](Self::to_bits) has made `bits`.
    pub(crate) const fn from_bits(bits: u16) -> Self {
        let [multiplier, shift] = bits.to_le_bytes();
        Self { multiplier, shift: shift & Self::LARGEST_SHIFT }
    }

    /// The multiplier, of which 256 are 1, and the shift that follows it.
    pub(crate) const fn parts(self) -> (u8, u8) {
        (self.multiplier, self.shift)
    }

    /// The slope.
    #[must_use]
    pub const fn value(self) -> f32 {
        // A power of two, made of its exponent.
        self.multiplier as f32 * f32::from_bits((127 - 8 - self.shift as u32) << 23)
    }
}

impl Activation {
    const fn ops<const OPS: u32>(self) -> u32 {
        match self {
            // Both are a bound that the kernels' epilogue applies anyway.
            Self::None | Self::Relu => 0,
            Self::Tanh => ops::TANH & OPS,
            Self::Sigmoid => ops::SIGMOID & OPS,
            Self::Relu6 => ops::RELU6 & OPS,
            Self::LeakyRelu(_) => ops::LEAKY_RELU & OPS,
        }
    }
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum WeightType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision: half the flash. Sums are in single precision, and so are the biases.
    F16,
    /// 8-bit integers, with a scale for each output: a quarter of the flash, and integer arithmetic throughout.
    Int8(
        /// The order in which they lie.
        Packing,
    ),
}

impl WeightType {
    const fn ops(self) -> u32 {
        match self {
            Self::F32 => ops::WEIGHTS_F32,
            Self::F16 => ops::WEIGHTS_F16,
            Self::Int8(Packing::Grouped) => ops::WEIGHTS_INT8_GROUPED,
            Self::Int8(Packing::Folded) => ops::WEIGHTS_INT8_FOLDED,
        }
    }

    /// The type of the activations that a layer with such weights reads.
    const fn input_type(self) -> ElementType {
        match self {
            Self::F32 | Self::F16 => ElementType::F32,
            Self::Int8(_) => ElementType::Int8,
        }
    }
}

/// How int8 weights are packed. Every backend runs both, with the same results to the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Packing {
    /// Panels of sixteen outputs, four inputs of each side by side: for the dot products of desktop processors.
    Grouped,
    /// Panels of four outputs, two weights folded into each half-word: for microcontrollers.
    Folded,
}

/// The type of the values between two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// IEEE 754 single precision.
    F32,
    /// Integers `q` between -127 and 127 that stand for `q * scale`.
    Int8,
}

impl ElementType {
    /// The size of a value, in bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::F32 => 4,
            Self::Int8 => 1,
        }
    }
}

/// Turns the input into int8 activations. The first layer of every int8 model, and of no other.
///
/// A value `x` becomes the integer nearest to `x * inverse_scale`, a byte `b` becomes
/// `(b * byte_multiplier + byte_offset + 2^15) >> 16`; both are bounded to -127..=127.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantize {
    /// Steps per unit: 127 for values between -1 and 1.
    pub inverse_scale: f32,
    /// Steps per unit of a byte, times 2^16; from 0 to [`Quantize::LARGEST_MULTIPLIER`].
    pub byte_multiplier: u32,
    /// The steps of byte 0, times 2^16; at most [`Quantize::LARGEST_OFFSET`] on either side.
    pub byte_offset: i32,
}

impl Quantize {
    /// The largest [`byte_multiplier`](Self::byte_multiplier).
    pub const LARGEST_MULTIPLIER: u32 = 1 << 22;
    /// The largest [`byte_offset`](Self::byte_offset), and minus the smallest.
    pub const LARGEST_OFFSET: i32 = 1 << 29;

    /// The quantisation of `input` to steps of `scale`; `None` if it is out of range.
    #[must_use]
    pub fn new(input: &InputSpec, scale: f32) -> Option<Self> {
        let steps = |value: f32| f64::from(value) / f64::from(scale) * 65_536.0;
        // (Rounded by hand: `f64::round` is not in `core` everywhere.)
        let nearest = |value: f64| (value + if value < 0.0 { -0.5 } else { 0.5 }) as i64;
        let quantize = Self {
            inverse_scale: 1.0 / scale,
            byte_multiplier: u32::try_from(nearest(steps(input.scale))).ok()?,
            byte_offset: i32::try_from(nearest(steps(input.offset))).ok()?,
        };
        quantize.is_possible().then_some(quantize)
    }

    const fn is_possible(&self) -> bool {
        self.inverse_scale.is_finite()
            && self.inverse_scale > 0.0
            && self.byte_multiplier <= Self::LARGEST_MULTIPLIER
            && self.byte_offset.unsigned_abs() <= Self::LARGEST_OFFSET as u32
    }
}

/// Rows and columns of zeros around an input, or, where negative, cut off from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Padding {
    /// Rows above.
    pub top: i8,
    /// Rows below.
    pub bottom: i8,
    /// Columns to the left.
    pub left: i8,
    /// Columns to the right.
    pub right: i8,
}

/// A fully connected layer: `activation(x · W + b)` over all values of the input in memory order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Dense {
    /// Number of outputs.
    pub outputs: u16,
    /// Applied to the sums.
    pub activation: Activation,
    /// How the weights are stored.
    pub weights: WeightType,
}

/// A 2-D convolution (cross-correlation, as everywhere in this field): `activation(x ⋆ W + b)`, then max pooling.
///
/// Rows out: `(height + top + bottom - kernel) / stride + 1`, divided by the pool's height, each rounded down; columns
/// likewise. Positions that the pooling drops are never computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Conv2d {
    /// Number of output channels.
    pub filters: u16,
    /// Height and width of the window, each at least 1.
    pub kernel: [u8; 2],
    /// Vertical and horizontal step, each at least 1.
    pub stride: [u8; 2],
    /// Zeros around the input, per side; negative values crop.
    pub padding: Padding,
    /// Height and width of the max pooling that follows, with a stride of the same size; `[1, 1]` is none.
    pub pool: [u8; 2],
    /// Applied to the sums.
    pub activation: Activation,
    /// How the weights are stored.
    pub weights: WeightType,
}

/// A 2-D convolution of each channel by itself, with one filter each: `activation(x_c ⋆ W_c + b_c)`.
///
/// The first half of a depthwise separable convolution; the second is a [`Conv2d`] with a window of 1 × 1. Rows out:
/// `(height + top + bottom - kernel) / stride + 1`, rounded down; columns likewise; as many channels as come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DepthwiseConv2d {
    /// Height and width of the window, each at least 1.
    pub kernel: [u8; 2],
    /// Vertical and horizontal step, each at least 1.
    pub stride: [u8; 2],
    /// Zeros around the input, per side; negative values crop.
    pub padding: Padding,
    /// Applied to the sums.
    pub activation: Activation,
    /// How the weights are stored.
    pub weights: WeightType,
}

/// 2-D max pooling over each channel, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MaxPool2d {
    /// Height and width of the window, each at least 1.
    pub kernel: [u8; 2],
    /// Vertical and horizontal step, each at least 1.
    pub stride: [u8; 2],
}

/// The mean of each window of each channel, without padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AvgPool2d {
    /// Height and width of the window, each at least 1.
    pub kernel: [u8; 2],
    /// Vertical and horizontal step, each at least 1.
    pub stride: [u8; 2],
}

impl AvgPool2d {
    /// Global average pooling: one window, as large as its input. `None` if that has more than 255 rows or columns.
    ///
    /// ```
    /// use thumbnet::layer::{AvgPool2d, Layer, Shape};
    /// let pool = AvgPool2d::global(Shape::new(7, 5, 16)).unwrap();
    /// assert_eq!(Layer::AvgPool2d(pool).output(Shape::new(7, 5, 16)), Ok(Shape::flat(16)));
    /// ```
    #[must_use]
    pub const fn global(input: Shape) -> Option<Self> {
        if input.height > 255 || input.width > 255 {
            return None;
        }
        let kernel = [input.height as u8, input.width as u8];
        Some(Self { kernel, stride: kernel })
    }
}

/// One layer of a model, as the blob describes it.
///
/// Weights are not part of it: they follow in the blob's weight section, in the order of the layers.
// A tag of its own, instead of unused values of a field, takes a Cortex-M 3 % less code to tell layers apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[repr(u8)]
pub enum Layer {
    /// A fully connected layer.
    Dense(Dense),
    /// A 2-D convolution.
    Conv2d(Conv2d),
    /// 2-D max pooling.
    MaxPool2d(MaxPool2d),
    /// `exp(x_i) / Σ exp(x_j)` over all values. Only as the last layer, behind another: the values before it are the logits.
    Softmax,
    /// A 2-D convolution of each channel by itself.
    DepthwiseConv2d(DepthwiseConv2d),
    /// From values, or bytes, to int8 activations.
    Quantize(Quantize),
    /// 2-D average pooling.
    AvgPool2d(AvgPool2d),
}

impl Layer {
    /// The kind of layer, as the format's documentation calls it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Dense(_) => "dense",
            Self::Conv2d(_) => "conv2d",
            Self::MaxPool2d(_) => "max_pool2d",
            Self::Softmax => "softmax",
            Self::DepthwiseConv2d(_) => "depthwise_conv2d",
            Self::Quantize(_) => "quantize",
            Self::AvgPool2d(_) => "avg_pool2d",
        }
    }

    /// The activation that the layer applies.
    #[must_use]
    pub const fn activation(&self) -> Activation {
        match self {
            Self::Dense(dense) => dense.activation,
            Self::Conv2d(conv) => conv.activation,
            Self::DepthwiseConv2d(conv) => conv.activation,
            Self::MaxPool2d(_) | Self::Softmax | Self::Quantize(_) | Self::AvgPool2d(_) => Activation::None,
        }
    }

    /// How the layer's weights are stored; `None` if it has none.
    #[must_use]
    pub const fn weight_type(&self) -> Option<WeightType> {
        match self {
            Self::Dense(dense) => Some(dense.weights),
            Self::Conv2d(conv) => Some(conv.weights),
            Self::DepthwiseConv2d(conv) => Some(conv.weights),
            Self::MaxPool2d(_) | Self::Softmax | Self::Quantize(_) | Self::AvgPool2d(_) => None,
        }
    }

    /// The operations (see [`ops`]) that the layer needs, which must be in `OPS`.
    pub(crate) const fn ops<const OPS: u32>(&self) -> u32 {
        let kernel = match self {
            Self::Dense(_) => ops::DENSE,
            Self::Conv2d(_) => ops::CONV2D & OPS,
            Self::MaxPool2d(_) => ops::MAX_POOL2D & OPS,
            Self::Softmax => ops::SOFTMAX & OPS,
            Self::DepthwiseConv2d(_) => ops::DEPTHWISE_CONV2D & OPS,
            Self::Quantize(_) => ops::QUANTIZE & OPS,
            Self::AvgPool2d(_) => ops::AVG_POOL2D & OPS,
        };
        let weights = match self.weight_type() {
            Some(weights) => weights.ops(),
            None => 0,
        };
        kernel | self.activation().ops::<OPS>() | weights
    }

    /// The layer's weights as a matrix, `[inputs of one sum, outputs]`; `None` for a layer without weights or with sums
    /// of more than [`MAX_ELEMENTS`] inputs.
    pub(crate) fn weight_matrix<const OPS: u32>(&self, input: Shape) -> Option<(u32, u32)> {
        match self {
            Self::Dense(dense) => Some((input.elements()?, u32::from(dense.outputs))),
            Self::Conv2d(conv) if OPS & ops::CONV2D != 0 => {
                let [kh, kw] = conv.kernel;
                let window = Shape::new(u16::from(kh), u16::from(kw), input.channels);
                Some((window.elements()?, u32::from(conv.filters)))
            }
            Self::DepthwiseConv2d(conv) if OPS & ops::DEPTHWISE_CONV2D != 0 => {
                let [kh, kw] = conv.kernel.map(u32::from);
                Some((kh * kw, u32::from(input.channels)))
            }
            _ => None,
        }
    }

    /// What the sums of a layer with weights add up, in the order in which int8 weights are packed.
    pub(crate) fn sums<const OPS: u32>(&self, input: Shape) -> Option<Sums> {
        let (inputs, outputs) = self.weight_matrix::<OPS>(input)?;
        Some(match self {
            Self::Conv2d(conv) if OPS & ops::CONV2D != 0 => {
                let [kh, kw] = conv.kernel.map(u32::from);
                Sums { runs: kh, run: kw * u32::from(input.channels), outputs, depthwise: false }
            }
            Self::DepthwiseConv2d(_) if OPS & ops::DEPTHWISE_CONV2D != 0 => {
                Sums { runs: 1, run: inputs, outputs, depthwise: true }
            }
            _ => Sums { runs: 1, run: inputs, outputs, depthwise: false },
        })
    }

    /// The type of what the layer makes from activations of type `input`; `last` if nothing follows but softmax.
    pub(crate) const fn output_type(&self, input: ElementType, last: bool) -> Result<ElementType, LayerError> {
        let needed = match (self, self.weight_type()) {
            (_, Some(weights)) => weights.input_type(),
            (Self::Softmax | Self::Quantize(_), _) => ElementType::F32,
            (_, None) => input,
        };
        match (self, needed, input) {
            (_, ElementType::F32, ElementType::Int8) | (_, ElementType::Int8, ElementType::F32) => {
                Err(LayerError::ElementType)
            }
            (Self::Quantize(_), ..) if last => Err(LayerError::ElementType),
            (Self::Quantize(_), ..) => Ok(ElementType::Int8),
            (Self::MaxPool2d(_) | Self::AvgPool2d(_), ElementType::Int8, _) if last => Err(LayerError::ElementType),
            // The last sums are the logits: they are not rounded to eight bits.
            (Self::MaxPool2d(_) | Self::AvgPool2d(_), ..) => Ok(input),
            _ if last => Ok(ElementType::F32),
            _ => Ok(needed),
        }
    }

    /// The shape of the layer's output.
    ///
    /// # Errors
    /// [`LayerError`] if the descriptor makes no sense for this input.
    pub fn output(&self, input: Shape) -> Result<Shape, LayerError> {
        self.output_within::<{ ops::ALL }>(input)
    }

    /// [`output`](Self::output) for a layer that is in `OPS`.
    #[inline(never)]
    pub(crate) fn output_within<const OPS: u32>(&self, input: Shape) -> Result<Shape, LayerError> {
        let output = match self {
            Self::Dense(dense) => Shape::flat(dense.outputs),
            Self::Conv2d(conv) if OPS & ops::CONV2D != 0 => {
                let sums = slide(input, conv.kernel, conv.stride, conv.padding)?;
                let [ph, pw] = conv.pool.map(u16::from);
                let pooled = |n: u16, window: u16| n.checked_div(window).ok_or(LayerError::ZeroSize);
                Shape::new(pooled(sums.height, ph)?, pooled(sums.width, pw)?, conv.filters)
            }
            Self::MaxPool2d(pool) if OPS & ops::MAX_POOL2D != 0 => {
                slide(input, pool.kernel, pool.stride, Padding::default())?
            }
            Self::AvgPool2d(pool) if OPS & ops::AVG_POOL2D != 0 => {
                slide(input, pool.kernel, pool.stride, Padding::default())?
            }
            Self::Quantize(quantize) if !quantize.is_possible() => return Err(LayerError::Quantization),
            Self::DepthwiseConv2d(conv) if OPS & ops::DEPTHWISE_CONV2D != 0 => {
                slide(input, conv.kernel, conv.stride, conv.padding)?
            }
            _ => input,
        };
        match output {
            Shape { height: 0, .. } | Shape { width: 0, .. } => Err(LayerError::WindowTooLarge),
            Shape { channels: 0, .. } => Err(LayerError::ZeroSize),
            shape if shape.elements().is_none() => Err(LayerError::TooLarge),
            shape => Ok(shape),
        }
    }

    /// The multiply-accumulate operations that one inference spends in this layer; border windows count in full.
    #[must_use]
    pub fn macs(&self, input: Shape) -> u64 {
        let (Some((inputs, outputs)), Ok(output)) = (self.weight_matrix::<{ ops::ALL }>(input), self.output(input))
        else {
            return 0;
        };
        let sums = match self {
            Self::Conv2d(conv) => {
                let [ph, pw] = conv.pool.map(u64::from);
                u64::from(output.height) * ph * u64::from(output.width) * pw
            }
            Self::DepthwiseConv2d(_) => u64::from(output.height) * u64::from(output.width),
            _ => 1,
        };
        sums * u64::from(inputs) * u64::from(outputs)
    }
}

/// The positions of a window of `kernel` that slides over a padded input, and the input's channels.
fn slide(input: Shape, kernel: [u8; 2], stride: [u8; 2], padding: Padding) -> Result<Shape, LayerError> {
    let ([kh, kw], [sh, sw]) = (kernel, stride);
    let vertical = i32::from(padding.top) + i32::from(padding.bottom);
    let horizontal = i32::from(padding.left) + i32::from(padding.right);
    let (height, width) = (windows(input.height, vertical, kh, sh)?, windows(input.width, horizontal, kw, sw)?);
    Ok(Shape::new(height, width, input.channels))
}

/// How many windows of `kernel` fit into `len + padding` at steps of `stride`; 0 if not even one does.
fn windows(len: u16, padding: i32, kernel: u8, stride: u8) -> Result<u16, LayerError> {
    if kernel == 0 || stride == 0 {
        return Err(LayerError::ZeroSize);
    }
    let room = i32::from(len) + padding - i32::from(kernel);
    if room < 0 {
        return Ok(0);
    }
    let steps = room.checked_div(i32::from(stride)).ok_or(LayerError::ZeroSize)?;
    u16::try_from(steps + 1).map_err(|_| LayerError::TooLarge)
}

/// The bytes that the tensor of a layer in `OPS` takes in the weight section; 0 for a layer without weights.
#[inline(always)]
pub(crate) fn tensor_bytes<const OPS: u32>(layer: &Layer, input: Shape) -> Result<u32, LayerError> {
    let Some(weights) = layer.weight_type() else { return Ok(0) };
    let matrix = || layer.weight_matrix::<OPS>(input);
    let bytes = match weights {
        WeightType::F32 if OPS & ops::WEIGHTS_F32 != 0 => {
            matrix().and_then(|(inputs, outputs)| pack::tensor_bytes::<f32>(inputs, outputs))
        }
        WeightType::F16 if OPS & ops::WEIGHTS_F16 != 0 => {
            matrix().and_then(|(inputs, outputs)| pack::tensor_bytes::<f16>(inputs, outputs))
        }
        WeightType::Int8(packing) if OPS & ops::WEIGHTS_INT8 != 0 => {
            layer.sums::<OPS>(input).and_then(|sums| int8_tensor::bytes(&sums, packing))
        }
        _ => None,
    };
    bytes.ok_or(LayerError::TooLarge)
}

/// Why a layer cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerError {
    /// A number of outputs, a window, a stride or a pool of size 0.
    ZeroSize,
    /// The window (or the pool) is larger than what it slides over.
    WindowTooLarge,
    /// A dimension over 65,535, more than [`MAX_ELEMENTS`] values, or a weight section beyond 4 GiB.
    TooLarge,
    /// A softmax that is not the last layer, or that is the only one.
    SoftmaxMisplaced,
    /// A quantisation that is not the first layer.
    QuantizeMisplaced,
    /// Multipliers of a quantisation beyond the format's limits.
    Quantization,
    /// f32 activations where the layer reads int8, or the other way round; or int8 activations as the model's output.
    ElementType,
    /// Int8 weights of a convolution that only fill up a group of four, and are not zero.
    Filling,
}

impl core::fmt::Display for LayerError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("a size or stride of 0"),
            Self::WindowTooLarge => f.write_str("a window larger than its input"),
            Self::TooLarge => f.write_str("larger than the format's limits"),
            Self::SoftmaxMisplaced => f.write_str("a softmax that is not the last layer, or the only one"),
            Self::QuantizeMisplaced => f.write_str("a quantisation that is not the first layer"),
            Self::Quantization => f.write_str("a quantisation beyond the format's limits"),
            Self::ElementType => f.write_str("int8 activations where f32 ones are needed, or the other way round"),
            Self::Filling => f.write_str("weights of inputs that it does not have"),
        }
    }
}

impl core::error::Error for LayerError {}
