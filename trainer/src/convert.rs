//! The same model with its weights stored as other floating-point numbers. For int8 see [`quantize`](crate::quantize).

use crate::parts::{Parameters, Parts, with_weights};
use thumbnet::layer::WeightType;
use thumbnet::{AlignedBuf, Model};

/// The largest finite number that f16 has.
const LARGEST_F16: f32 = 65_504.0;

/// A copy of `model` whose weights are of type `weights`; input, labels, layers and biases stay as they are.
///
/// # Errors
/// A message with the layer, the place and the value of a weight that the type has no value near to: for f16 NaN, and
/// what lies outside of ±65,504. A message if the model has int8 weights, or is to have them.
pub fn convert(model: &Model<'_>, weights: WeightType) -> Result<AlignedBuf, String> {
    let mut parts = Parts::of(model)?;
    if let WeightType::Int8(_) = weights {
        return Err("int8 weights need activations in known steps: `quantize` makes them".to_owned());
    }
    if weights == WeightType::F16 {
        for (index, (layer, parameters)) in parts.layers_and_parameters().enumerate() {
            parameters
                .map_or(Ok(()), check_f16)
                .map_err(|problem| format!("layer {index} ({}): {problem}", layer.name()))?;
        }
    }
    parts.layers.iter_mut().for_each(|layer| *layer = with_weights(*layer, weights));
    parts.encode(&[]).map_err(|e| format!("cannot be written with other weights: {e}"))
}

/// A message if one of the weights is not to be had as f16.
fn check_f16(parameters: &Parameters) -> Result<(), String> {
    // NaN does not fit either: it is not less than anything.
    let fits = |weight: &f32| weight.abs() <= LARGEST_F16;
    let Some(position) = parameters.weights.iter().position(|weight| !fits(weight)) else { return Ok(()) };
    let (input, output) = (position / parameters.bias.len(), position % parameters.bias.len());
    let weight = parameters.weights[position];
    Err(format!(
        "the weight of input {input} for output {output} is {weight}, expected a number between -{LARGEST_F16} and \
         {LARGEST_F16}"
    ))
}
