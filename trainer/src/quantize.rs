//! From a trained model to one with int8 weights and activations.
//!
//! Weights are rounded to 127 steps on either side of zero, with a step for each output: their range is known. That of the
//! activations is measured: the model runs over [`CALIBRATION_IMAGES`] training images.

use crate::batches;
use crate::data::{DataSet, Values};
use crate::evaluate;
use crate::parts::{Parameters, Parts, with_weights};
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use thumbnet::layer::{Activation, InputSpec, Layer, Packing, Quantize, WeightType};
use thumbnet::{AlignedBuf, EncodeError, Model};

/// How many training images the ranges of the activations are measured on, evenly spaced over all of them.
pub const CALIBRATION_IMAGES: usize = 2000;

/// The largest int8 activation.
const LARGEST: f32 = 127.0;

/// The core wants a step of an output to be at least so many steps of its sums (2^21 / 32,767, and a little more), and makes
/// it so: known here, the simulation of a fine-tuning has the steps that the core will have.
const COARSEST_SUM: f32 = 64.01;

/// The value of one step of the int8 activations between the layers of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// Of the input.
    pub input: f32,
    /// Of the outputs of each layer with weights. What stands for the last one, whose outputs are f32, has no meaning.
    pub layers: Vec<f32>,
}

/// Measures the largest of each layer's activations, which become 127 steps, on some of `images`, which should be those that the model was trained on:
/// those that it is measured on later must not have a say in it.
///
/// Nothing is clipped. On the 58,000 training images that three `s4-exp1` models were not calibrated on, the largest value
/// left the logits closest to those of f32: a root mean square of 0.100, where the range of least squared error left 0.104,
/// the 99.99th percentile 0.104 and the 99.9th 0.216. The few large activations are what a network is sure by.
///
/// # Errors
/// A message if the model has int8 weights already, if it takes other images, or if an activation is not finite.
pub fn calibrate(model: &Model<'_>, images: &DataSet) -> Result<Steps, String> {
    let parts = Parts::of(model)?;
    evaluate::check_shape(model, images)?;
    let sample = sample(images, CALIBRATION_IMAGES);
    let sample = sample.values_for(&parts.input);
    let mut steps = Steps { input: input_step(&parts.input, &sample), layers: Vec::new() };
    let mut input = steps.input;
    for (index, (layer, parameters)) in parts.layers_and_parameters().enumerate() {
        let Some(parameters) = parameters else { continue };
        input = match layer.activation() {
            // Their range is known.
            Activation::Tanh | Activation::Sigmoid => 1.0 / LARGEST,
            Activation::None | Activation::Relu | Activation::Relu6 | Activation::LeakyRelu(_) => {
                let head = parts.head(index + 1).encode(&[]).expect("layers of a loaded model");
                let head = Model::load(&head).expect("an encoded model loads");
                let largest = largest_output(&head, &sample)
                    .map_err(|problem| format!("layer {index} ({}): {problem}", layer.name()))?;
                let finest = COARSEST_SUM * largest_weight(parameters) / LARGEST * input;
                (largest / LARGEST).max(finest).max(f32::MIN_POSITIVE)
            }
        };
        steps.layers.push(input);
    }
    Ok(steps)
}

/// `model` with int8 weights and activations of these steps, packed for one sort of processor.
///
/// # Errors
/// A message if the model has int8 weights already, or if int8 arithmetic cannot be had for it.
pub fn quantize(model: &Model<'_>, steps: &Steps, packing: Packing) -> Result<AlignedBuf, String> {
    let mut parts = Parts::of(model)?;
    let quantize = Quantize::new(&parts.input, steps.input)
        .ok_or_else(|| format!("cannot be made int8: bytes in steps of {} are beyond the format", parts.input.scale))?;
    let int8 = parts.layers.iter().map(|layer| with_weights(*layer, WeightType::Int8(packing)));
    let int8 = std::iter::once(Layer::Quantize(quantize)).chain(int8).collect();
    let float = std::mem::replace(&mut parts.layers, int8);
    parts.encode(&steps.layers).map_err(|e| match e {
        // The layers of the new model are counted from its quantisation on.
        EncodeError::Scale { index } if index > 0 => format!(
            "layer {} ({}): weights that are not finite, or too large for the sums of int8 arithmetic",
            index - 1,
            float[index - 1].name()
        ),
        other => format!("cannot be made int8: {other}"),
    })
}

/// `count` of the images, evenly spaced; all of them if there are fewer.
fn sample(images: &DataSet, count: usize) -> DataSet {
    let chosen = (0..count.min(images.len())).map(|number| number * images.len() / count.min(images.len()));
    images.select(&chosen.collect::<Vec<_>>())
}

/// The step with which the value of every byte up to the largest one that occurs lies within ±127 steps.
fn input_step(input: &InputSpec, sample: &Values) -> f32 {
    let largest = match sample {
        // The format has no more than 64 steps to a byte.
        Values::Bytes(bytes) => bytes.iter().fold(2, |largest, &byte| largest.max(byte)),
        Values::Floats(_) => u8::MAX,
    };
    let (first, last) = (input.offset, f32::from(largest) * input.scale + input.offset);
    first.abs().max(last.abs()).max(f32::MIN_POSITIVE * LARGEST) / LARGEST
}

/// The largest absolute value among the outputs of `model` for `values`.
fn largest_output(model: &Model<'_>, values: &Values) -> Result<f32, String> {
    let mut largest = 0.0f32;
    let part = batches::AT_A_TIME * model.input_len();
    for start in (0..values.len()).step_by(part) {
        let end = values.len().min(start + part);
        let mut outputs = vec![0.0; (end - start) / model.input_len() * model.output_len()];
        batches::logits_batch(model, values.slice(start, end), &mut outputs, NonZeroUsize::MIN)
            .expect("lengths that fit");
        if let Some(value) = outputs.iter().find(|value| !value.is_finite()) {
            return Err(format!("an activation of a training image is {value}"));
        }
        largest = outputs.iter().fold(largest, |largest, value| largest.max(value.abs()));
    }
    Ok(largest)
}

/// The largest absolute weight.
fn largest_weight(parameters: &Parameters) -> f32 {
    parameters.weights.iter().fold(0.0, |largest, weight| largest.max(weight.abs()))
}
