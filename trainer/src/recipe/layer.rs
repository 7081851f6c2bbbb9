//! The layers of a recipe.

use super::yes;
use crate::random::RandomState;
use serde::{Deserialize, Serialize};
use thumbnet::layer::Slope;

/// One layer of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Layer {
    /// Fully connected.
    Dense {
        /// Number of outputs; as many as the data has classes if not given.
        outputs: Option<u16>,
        /// Applied to the sums.
        #[serde(default)]
        activation: Activation,
        /// Whether there are biases; they start at zero.
        #[serde(default = "yes")]
        bias: bool,
        /// Whether the sums are normalised before the activation; there are no other biases then.
        #[serde(default)]
        batch_norm: bool,
        /// How the weights start.
        init: Init,
    },
    /// 2-D convolution.
    Conv2d {
        /// Number of output channels.
        filters: u16,
        /// Height and width of the window.
        kernel: [u8; 2],
        /// Vertical and horizontal step.
        #[serde(default = "unit")]
        stride: [u8; 2],
        /// What lies around the image.
        #[serde(default)]
        padding: Padding,
        /// Rows and columns of the input that are left out.
        #[serde(default)]
        crop: Crop,
        /// Applied to the sums.
        #[serde(default)]
        activation: Activation,
        /// Whether there are biases; they start at zero.
        #[serde(default = "yes")]
        bias: bool,
        /// Whether the sums are normalised before the activation; there are no other biases then.
        #[serde(default)]
        batch_norm: bool,
        /// How the weights start.
        init: Init,
    },
    /// 2-D convolution of every channel by itself.
    DepthwiseConv2d {
        /// Height and width of the window.
        kernel: [u8; 2],
        /// Vertical and horizontal step.
        #[serde(default = "unit")]
        stride: [u8; 2],
        /// What lies around the image.
        #[serde(default)]
        padding: Padding,
        /// Applied to the sums.
        #[serde(default)]
        activation: Activation,
        /// Whether there are biases; they start at zero.
        #[serde(default = "yes")]
        bias: bool,
        /// Whether the sums are normalised before the activation; there are no other biases then.
        #[serde(default)]
        batch_norm: bool,
        /// How the weights start.
        init: Init,
    },
    /// 2-D max pooling without padding.
    MaxPool2d {
        /// Height and width of the window.
        kernel: [u8; 2],
        /// Vertical and horizontal step; the window's size if not given.
        stride: Option<[u8; 2]>,
    },
    /// 2-D average pooling without padding.
    AvgPool2d {
        /// Height and width of the window.
        kernel: [u8; 2],
        /// Vertical and horizontal step; the window's size if not given.
        stride: Option<[u8; 2]>,
    },
    /// The mean of every channel.
    GlobalAvgPool2d,
    /// Sets values to zero at random during training.
    Dropout {
        /// The probability of being dropped, at least 0 and less than 1.
        rate: f64,
    },
}

/// The function that a layer applies to its sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// The sum itself.
    #[default]
    None,
    /// `max(0, x)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `min(max(0, x), 6)`.
    Relu6,
    /// `x` where it is positive, otherwise so many times `x`: between 2^-16 and 1, rounded to what the format has.
    LeakyRelu(f32),
}

/// What lies around the image of a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Nothing: windows stay inside.
    #[default]
    Valid,
    /// Zeros, so that the output is as large as the input divided by the stride, rounded up; an odd row or column goes
    /// to the bottom or right, as in TensorFlow.
    Same,
}

impl From<Activation> for thumbnet::layer::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::None => Self::None,
            Activation::Relu => Self::Relu,
            Activation::Tanh => Self::Tanh,
            Activation::Sigmoid => Self::Sigmoid,
            Activation::Relu6 => Self::Relu6,
            Activation::LeakyRelu(slope) => Self::LeakyRelu(Slope::new(slope).expect("a slope of a checked recipe")),
        }
    }
}

/// Rows and columns of the input that a convolution leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Crop {
    /// Rows at the top.
    pub top: u8,
    /// Rows at the bottom.
    pub bottom: u8,
    /// Columns at the left.
    pub left: u8,
    /// Columns at the right.
    pub right: u8,
}

/// How the weights of a layer start. Values are drawn in double precision in memory order and rounded once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Init {
    /// Uniform in `[-limit, limit)`, drawn as `2 * limit * random() - limit`.
    Uniform(f64),
    /// Normal with this standard deviation, drawn as `randn() * deviation`.
    Normal(f64),
    /// Normal with variance `2 / inputs`, for ReLU. Source: He et al., "Delving Deep into Rectifiers" (2015).
    HeNormal,
    /// Uniform within `sqrt(6 / (inputs + outputs))`, for tanh and softmax. Source: Glorot and Bengio, "Understanding
    /// the difficulty of training deep feedforward neural networks" (2010).
    GlorotUniform,
}

impl Init {
    /// One weight of a layer with `inputs` values per sum and `outputs` sums.
    pub fn draw(self, inputs: usize, outputs: usize, rng: &mut RandomState) -> f64 {
        match self {
            Init::Uniform(limit) => 2.0 * limit * rng.random_sample() - limit,
            Init::Normal(deviation) => rng.randn() * deviation,
            Init::HeNormal => rng.randn() * (2.0 / inputs as f64).sqrt(),
            Init::GlorotUniform => Init::Uniform((6.0 / (inputs + outputs) as f64).sqrt()).draw(inputs, outputs, rng),
        }
    }
}

impl Layer {
    /// Whether its sums are normalised over the images of a micro batch.
    pub(super) fn has_batch_norm(&self) -> bool {
        match *self {
            Layer::Dense { batch_norm, .. }
            | Layer::Conv2d { batch_norm, .. }
            | Layer::DepthwiseConv2d { batch_norm, .. } => batch_norm,
            _ => false,
        }
    }

    /// What makes no sense, if anything. Shapes are checked when the network is built.
    pub(super) fn problem(&self) -> Option<String> {
        match *self {
            Layer::Dense { activation: Activation::LeakyRelu(slope), .. }
            | Layer::Conv2d { activation: Activation::LeakyRelu(slope), .. }
            | Layer::DepthwiseConv2d { activation: Activation::LeakyRelu(slope), .. }
                if Slope::new(slope).is_none() =>
            {
                Some(format!("leaky-relu = {slope} must lie between 2^-16 and 1"))
            }
            Layer::Dropout { rate } if !(0.0..1.0).contains(&rate) => {
                Some(format!("rate = {rate} of dropout must be at least 0 and less than 1"))
            }
            _ => None,
        }
    }
}

fn unit() -> [u8; 2] {
    [1, 1]
}
