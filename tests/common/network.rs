//! Networks as a test holds them: descriptors with weights in the documented order, to be encoded or computed by the
//! reference.

use super::reference::{self, Bounded, Dims};
use fastrand::Rng;
use half::f16;
use proptest::prelude::*;
use thumbnet::AlignedBuf;
use thumbnet::blob::{self, ModelSpec, Tensors};
use thumbnet::layer::{
    Activation, AvgPool2d, Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, MaxPool2d, Packing, Padding, Quantize,
    Shape, Slope, WeightType,
};
use thumbnet::ops;

/// The parameters of one layer that has some.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) weights: Vec<f32>,
    pub(crate) bias: Vec<f32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) input: InputSpec,
    pub(crate) labels: Vec<String>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) tensors: Vec<Tensor>,
}

pub(crate) fn dense(outputs: u16, activation: Activation) -> Layer {
    Layer::Dense(Dense { outputs, activation, weights: WeightType::F32 })
}

/// A square convolution with a stride of 1, without padding or pooling.
pub(crate) fn conv(filters: u16, kernel: u8, activation: Activation) -> Conv2d {
    Conv2d {
        filters,
        kernel: [kernel; 2],
        stride: [1, 1],
        padding: Padding::default(),
        pool: [1, 1],
        activation,
        weights: WeightType::F32,
    }
}

/// A square depthwise convolution with a stride of 1 and without padding.
pub(crate) fn depthwise(kernel: u8, activation: Activation) -> DepthwiseConv2d {
    DepthwiseConv2d {
        kernel: [kernel; 2],
        stride: [1, 1],
        padding: Padding::default(),
        activation,
        weights: WeightType::F32,
    }
}

pub(crate) fn max_pool(kernel: [u8; 2], stride: [u8; 2]) -> Layer {
    Layer::MaxPool2d(MaxPool2d { kernel, stride })
}

pub(crate) fn avg_pool(kernel: [u8; 2], stride: [u8; 2]) -> Layer {
    Layer::AvgPool2d(AvgPool2d { kernel, stride })
}

/// A leaky ReLU with about this slope.
pub(crate) fn leaky(slope: f32) -> Activation {
    Activation::LeakyRelu(Slope::new(slope).expect("an ordinary slope"))
}

pub(crate) fn input(height: u16, width: u16, channels: u16) -> InputSpec {
    InputSpec { shape: Shape::new(height, width, channels), scale: 1.0 / 255.0, offset: -0.25 }
}

pub(crate) fn dims(input: &InputSpec) -> Dims {
    [input.shape.height, input.shape.width, input.shape.channels].map(usize::from)
}

/// A value between -1 and 1.
pub(crate) fn signed(rng: &mut Rng) -> f32 {
    rng.f32() * 2.0 - 1.0
}

pub(crate) fn signed_vec(rng: &mut Rng, len: usize) -> Vec<f32> {
    (0..len).map(|_| signed(rng)).collect()
}

/// Rows of values of which about so many are not 0, many of them the same ones in each row: groups of four, as in an image.
pub(crate) fn many_zeros(rng: &mut Rng, rows: usize, inputs: usize, not_zero: f32) -> Vec<f32> {
    let groups: Vec<bool> = (0..inputs.div_ceil(4)).map(|_| rng.f32() < not_zero).collect();
    let mut draw = |input: usize| match rng.u8(0..8) {
        _ if !groups[input / 4] => 0.0,
        0 => 0.0,
        1 => -0.0,
        _ => signed(rng),
    };
    (0..rows * inputs).map(|at| draw(at % inputs)).collect()
}

/// An image that is 0 outside of a rectangle, which may be empty, and here and there within it.
pub(crate) fn with_background(rng: &mut Rng, height: usize, width: usize) -> Vec<f32> {
    let mut range = |len: usize| {
        let first = rng.usize(0..=len);
        first..rng.usize(first..=len)
    };
    let (rows, columns) = (range(height), range(width));
    let inside = |at: usize| rows.contains(&(at / width)) && columns.contains(&(at % width));
    (0..height * width).map(|at| if inside(at) && rng.u8(0..8) > 0 { signed(rng) } else { 0.0 }).collect()
}

/// Values of which about `share` in four are NaN, infinite, denormal or zero.
pub(crate) fn special_values(rng: &mut Rng, len: usize, share: u8) -> Vec<f32> {
    const SPECIAL: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 0.0, 1e-40, -1e-45, f32::MIN_POSITIVE];
    let one = |rng: &mut Rng| if rng.u8(0..4) < share { SPECIAL[rng.usize(0..SPECIAL.len())] } else { signed(rng) };
    (0..len).map(|_| one(rng)).collect()
}

impl Network {
    /// A network with random weights, of such a size that sums stay around 1; without labels.
    ///
    /// One tensor in four leaves its biases out.
    pub(crate) fn random(input: InputSpec, layers: &[Layer], seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut dims = dims(&input);
        let mut tensors = Vec::new();
        for layer in layers {
            if let Some([inputs, outputs]) = reference::weight_dims(layer, dims) {
                let size = (3.0 / inputs as f32).sqrt();
                // Stored exactly, so that the reference has the same weights.
                let stored = |w: f32| match layer.weight_type() {
                    Some(WeightType::F16) => f16::from_f32(w).to_f32(),
                    _ => w,
                };
                let weights = signed_vec(&mut rng, inputs * outputs).iter().map(|w| stored(w * size)).collect();
                let bias = if rng.u8(..) < 64 { Vec::new() } else { signed_vec(&mut rng, outputs) };
                tensors.push(Tensor { weights, bias });
            }
            dims = reference::output_dims(layer, dims).expect("the layers fit");
        }
        Self { input, labels: Vec::new(), layers: layers.to_vec(), tensors }
    }

    pub(crate) fn labelled(mut self, labels: &[&str]) -> Self {
        self.labels = labels.iter().map(ToString::to_string).collect();
        self
    }

    pub(crate) fn input_len(&self) -> usize {
        dims(&self.input).iter().product()
    }

    pub(crate) fn encode(&self) -> AlignedBuf {
        let labels: Vec<_> = self.labels.iter().map(String::as_str).collect();
        let spec = ModelSpec { input: self.input, labels: &labels, layers: &self.layers };

        let tensors: Vec<_> = self.tensors.iter().map(|t| Tensors { weights: &t.weights, bias: &t.bias }).collect();
        let mut out = AlignedBuf::zeroed(blob::encoded_len(&spec).expect("the specification is that of a model"));
        // What the buffer held must not shine through.
        out.fill(0xa5);
        // The activations of these networks are about 1.
        let scales = vec![1.0 / 64.0; tensors.len()];
        let written = blob::encode_int8(&spec, &tensors, &scales, &mut out).expect("the model fits").len();
        assert_eq!(written, out.len());
        out
    }

    /// What the network makes of an input, with error bounds.
    pub(crate) fn reference(&self, input: Vec<Bounded>) -> Vec<Bounded> {
        let mut tensors = self.tensors.iter();
        let mut dims = dims(&self.input);
        let mut x = input;
        for layer in &self.layers {
            let tensor = reference::weight_dims(layer, dims).and_then(|_| tensors.next());
            let (weights, bias) = tensor.map_or((&[][..], &[][..]), |t| (&t.weights, &t.bias));
            x = reference::layer(layer, dims, &x, weights, bias);
            dims = reference::output_dims(layer, dims).expect("the layers fit");
        }
        x
    }
}

/// What models with int8 weights need, and no others.
pub(crate) const INT8_OPS: u32 = ops::QUANTIZE | ops::WEIGHTS_INT8_GROUPED | ops::WEIGHTS_INT8_FOLDED;

/// The layers with int8 weights, behind a quantisation of the input to steps of `scale`.
pub(crate) fn quantized(input: &InputSpec, layers: &[Layer], scale: f32, packing: Packing) -> Vec<Layer> {
    let with_weights = |layer: &Layer| {
        let mut layer = *layer;
        match &mut layer {
            Layer::Dense(Dense { weights, .. })
            | Layer::Conv2d(Conv2d { weights, .. })
            | Layer::DepthwiseConv2d(DepthwiseConv2d { weights, .. }) => *weights = WeightType::Int8(packing),
            _ => {}
        }
        layer
    };
    let first = Layer::Quantize(Quantize::new(input, scale).expect("an ordinary scale"));
    std::iter::once(first).chain(layers.iter().map(with_weights)).collect()
}

/// Every activation, the leaky ReLU with slopes of many sizes.
pub(crate) fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![
        Just(Activation::None),
        Just(Activation::Relu),
        Just(Activation::Tanh),
        Just(Activation::Sigmoid),
        Just(Activation::Relu6),
        (-15.9f32..-0.01).prop_map(|log| leaky(log.exp2())),
    ]
}

/// A small model with every kind of layer but a quantisation, every activation, and labels.
pub(crate) fn every_layer() -> Network {
    let mut first = conv(3, 3, Activation::Tanh);
    first.padding = Padding { top: 1, bottom: -1, left: 2, right: 0 };
    first.pool = [2, 1];
    let mut second = depthwise(3, Activation::Relu);
    second.padding = Padding { top: 1, bottom: 1, left: 0, right: 2 };
    let layers = [
        Layer::Conv2d(first),
        Layer::DepthwiseConv2d(second),
        max_pool([2, 2], [1, 2]),
        avg_pool([1, 2], [1, 1]),
        dense(5, Activation::Sigmoid),
        dense(5, Activation::Relu6),
        dense(6, leaky(0.1)),
        dense(4, Activation::Relu),
        dense(3, Activation::None),
        Layer::Softmax,
    ];
    Network::random(input(7, 6, 2), &layers, 1).labelled(&["one", "zwei", "три"])
}

pub(crate) fn dense_model() -> Network {
    Network::random(input(1, 1, 3), &[dense(2, Activation::None)], 2)
}
