//! The same model with its weights stored in another way.

use thumbnet::blob::{ModelSpec, PackedTensor, Tensors, encode, encoded_len};
use thumbnet::layer::{Layer, WeightType};
use thumbnet::{AlignedBuf, Model};

/// The largest finite number that f16 has.
const LARGEST_F16: f32 = 65_504.0;

/// A copy of `model` whose weights are of type `weights`; input, labels, layers and biases stay as they are.
///
/// # Errors
/// A message with the layer, the place and the value of a weight that the type has no value near to: for f16 NaN, and
/// what lies outside of ±65,504.
pub fn convert(model: &Model<'_>, weights: WeightType) -> Result<AlignedBuf, String> {
    let layers: Vec<Layer> = model.layers().map(|info| with_weights(info.layer, weights)).collect();
    let with_tensor = layers.iter().enumerate().filter(|(_, layer)| layer.weight_type().is_some());
    let unpacked: Vec<Vec<f32>> = with_tensor
        .zip(model.tensors())
        .map(|((index, layer), tensor)| {
            unpack(&tensor, weights).map_err(|problem| format!("layer {index} ({}): {problem}", layer.name()))
        })
        .collect::<Result<_, _>>()?;
    let bias: Vec<Vec<f32>> = model.tensors().map(|tensor| bias(&tensor)).collect();
    let tensors: Vec<Tensors<'_>> =
        unpacked.iter().zip(&bias).map(|(weights, bias)| Tensors { weights, bias }).collect();
    let labels: Vec<&str> = model.labels().collect();
    let spec = ModelSpec { input: *model.input(), labels: &labels, layers: &layers };
    let refused = |e| format!("cannot be written with other weights: {e}");
    let mut blob = AlignedBuf::zeroed(encoded_len(&spec).map_err(refused)?);
    encode(&spec, &tensors, &mut blob).map_err(refused)?;
    Ok(blob)
}

/// `layer` with weights of another type, if it has any.
fn with_weights(mut layer: Layer, weights: WeightType) -> Layer {
    match &mut layer {
        Layer::Dense(dense) => dense.weights = weights,
        Layer::Conv2d(conv) => conv.weights = weights,
        Layer::DepthwiseConv2d(conv) => conv.weights = weights,
        Layer::MaxPool2d(_) | Layer::Softmax | Layer::Quantize(_) => {}
    }
    layer
}

/// The biases of a tensor, `[outputs]`.
fn bias(tensor: &PackedTensor<'_>) -> Vec<f32> {
    (0..tensor.outputs()).map(|output| tensor.bias(output).expect("an output of the tensor")).collect()
}

/// The weights of a tensor, `[inputs, outputs]` row-major; a message if one of them is not to be had as `target`.
fn unpack(tensor: &PackedTensor<'_>, target: WeightType) -> Result<Vec<f32>, String> {
    // NaN does not fit either: it is not less than anything.
    let fits = |weight: f32| match target {
        WeightType::F32 | WeightType::Int8(_) => true,
        WeightType::F16 => weight.abs() <= LARGEST_F16,
    };
    let mut weights = Vec::with_capacity(tensor.inputs() * tensor.outputs());
    for (input, output) in (0..tensor.inputs()).flat_map(|input| (0..tensor.outputs()).map(move |o| (input, o))) {
        let weight = tensor.weight(input, output).expect("an input and an output of the tensor");
        if !fits(weight) {
            return Err(format!(
                "the weight of input {input} for output {output} is {weight}, expected a number between \
                 -{LARGEST_F16} and {LARGEST_F16}"
            ));
        }
        weights.push(weight);
    }
    Ok(weights)
}
