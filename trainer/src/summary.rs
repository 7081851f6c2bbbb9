//! What a model consists of and what it costs, layer by layer.

use serde::Serialize;
use thumbnet::layer::{Activation, AvgPool2d, Layer, MaxPool2d, Packing, Padding, Shape, WeightType};
use thumbnet::{LayerInfo, Model};

/// What a model consists of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Shape of the input, `[H, W, C]`.
    pub input: [u16; 3],
    /// What a byte of the input is multiplied by.
    pub scale: f32,
    /// What is added to that.
    pub offset: f32,
    /// The names of the classes.
    pub labels: Vec<String>,
    /// Number of weights and biases.
    pub parameters: u64,
    /// Multiply-accumulate operations of one inference.
    pub macs: u64,
    /// Bytes of the weights, as packed.
    pub weight_bytes: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Bytes of memory for one inference.
    pub scratch_bytes: u64,
    /// From the input on.
    pub layers: Vec<Row>,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The kind of layer.
    pub layer: &'static str,
    /// The window of a layer that has one, and what is out of the ordinary about it.
    pub details: String,
    /// The activation; empty if there is none.
    pub activation: String,
    /// The type of the weights; empty if there are none.
    pub weights: &'static str,
    /// What int8 weights are packed for.
    pub packed_for: Option<&'static str>,
    /// Shape of the layer's input, `[H, W, C]`.
    pub input: [u16; 3],
    /// Shape of the layer's output, `[H, W, C]`.
    pub output: [u16; 3],
    /// Number of weights and biases.
    pub parameters: u64,
    /// Multiply-accumulate operations of one inference.
    pub macs: u64,
    /// Bytes of the weights, as packed.
    pub weight_bytes: u64,
}

/// The heads of [`Row::cells`].
pub const COLUMNS: [&str; 8] = ["layer", "window", "activation", "output", "weights", "parameters", "MACs", "bytes"];

/// How many of the [`COLUMNS`] are words; the others are numbers.
pub const WORDS: usize = 5;

impl Summary {
    /// Of `model`, whose file has so many bytes and whose classes are called `labels`.
    #[must_use]
    pub fn new(model: &Model<'_>, labels: &[String], file_bytes: usize) -> Self {
        let layers: Vec<Row> = model.layers().map(Row::new).collect();
        let input = model.input();
        Summary {
            input: dimensions(input.shape),
            scale: input.scale,
            offset: input.offset,
            labels: labels.to_vec(),
            parameters: layers.iter().map(|row| row.parameters).sum(),
            macs: layers.iter().map(|row| row.macs).sum(),
            weight_bytes: layers.iter().map(|row| row.weight_bytes).sum(),
            file_bytes: file_bytes as u64,
            scratch_bytes: model.scratch_bytes() as u64,
            layers,
        }
    }
}

impl Row {
    fn new(info: LayerInfo) -> Self {
        Row {
            layer: info.layer.name(),
            details: details(&info.layer),
            activation: match info.layer.activation() {
                Activation::None => String::new(),
                Activation::Relu => "relu".to_owned(),
                Activation::Tanh => "tanh".to_owned(),
                Activation::Sigmoid => "sigmoid".to_owned(),
                Activation::Relu6 => "relu6".to_owned(),
                Activation::LeakyRelu(slope) => format!("leaky_relu {}", slope.value()),
            },
            weights: info.layer.weight_type().map_or("", weight_type_name),
            packed_for: info.layer.weight_type().and_then(packed_for),
            input: dimensions(info.input),
            output: dimensions(info.output),
            parameters: info.parameters,
            macs: info.macs,
            weight_bytes: info.weight_bytes.into(),
        }
    }

    /// What a table says of the layer, in the order of [`COLUMNS`].
    #[must_use]
    pub fn cells(&self) -> [String; 8] {
        [
            self.layer.to_owned(),
            self.details.clone(),
            self.activation.clone(),
            dimensions_text(self.output),
            self.packed_for.map_or(self.weights.to_owned(), |processor| format!("{} {processor}", self.weights)),
            grouped(self.parameters),
            grouped(self.macs),
            grouped(self.weight_bytes),
        ]
    }
}

/// The window of a layer that has one, and what is out of the ordinary about it.
fn details(layer: &Layer) -> String {
    let by = |[height, width]: [u8; 2]| format!("{height}x{width}");
    let unless = |usual: bool, text: String| if usual { String::new() } else { text };
    let window = |kernel, stride, pad: Padding| {
        let padding = format!(" padding {} {} {} {}", pad.top, pad.bottom, pad.left, pad.right);
        by(kernel)
            + &unless(stride == [1, 1], format!(" stride {}", by(stride)))
            + &unless(pad == Default::default(), padding)
    };
    match layer {
        Layer::Conv2d(conv) => {
            window(conv.kernel, conv.stride, conv.padding)
                + &unless(conv.pool == [1, 1], format!(" pool {}", by(conv.pool)))
        }
        Layer::MaxPool2d(MaxPool2d { kernel, stride }) | Layer::AvgPool2d(AvgPool2d { kernel, stride }) => {
            by(*kernel) + &unless(stride == kernel, format!(" stride {}", by(*stride)))
        }
        Layer::DepthwiseConv2d(conv) => window(conv.kernel, conv.stride, conv.padding),
        Layer::Dense(_) | Layer::Softmax | Layer::Quantize(_) => String::new(),
    }
}

fn dimensions(shape: Shape) -> [u16; 3] {
    [shape.height, shape.width, shape.channels]
}

/// `28x28x1`; just the length of a flat vector.
#[must_use]
pub fn dimensions_text([height, width, channels]: [u16; 3]) -> String {
    match (height, width) {
        (1, 1) => channels.to_string(),
        _ => format!("{height}x{width}x{channels}"),
    }
}

/// The type's name.
#[must_use]
pub fn weight_type_name(weights: WeightType) -> &'static str {
    match weights {
        WeightType::F32 => "f32",
        WeightType::F16 => "f16",
        WeightType::Int8(_) => "int8",
    }
}

/// What int8 weights are packed for, as `convert --for` calls it; `None` for other weights.
#[must_use]
pub fn packed_for(weights: WeightType) -> Option<&'static str> {
    match weights {
        WeightType::F32 | WeightType::F16 => None,
        WeightType::Int8(Packing::Folded) => Some("cortex-m"),
        WeightType::Int8(Packing::Grouped) => Some("desktop"),
    }
}

/// `12345678` as `12,345,678`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
    }
}
