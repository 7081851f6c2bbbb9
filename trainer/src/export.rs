//! From a trained network to a model file for the core.

use crate::data::{DataSet, PIXEL_SCALE};
use crate::error::{Error, Result};
use crate::layers::Parameters;
use crate::loss::Loss;
use crate::network::Network;
use crate::parts::Parts;
use crate::quantize;
use crate::recipe::Recipe;
use crate::train::Trained;
use thumbnet::blob::{ModelSpec, Tensors, encode, encoded_len};
use thumbnet::layer::{InputSpec, Layer};
use thumbnet::{AlignedBuf, Model};

/// The exported form of `network`: what only serves training is gone, pooling is joined to the convolution before it,
/// and a network trained with cross-entropy ends in a softmax. `labels` names the classes. The input is that of pixels.
///
/// # Errors
/// [`Error::Option`] if the network exceeds a limit of the format.
pub fn export(network: &Network, loss: Loss, labels: &[&str]) -> Result<AlignedBuf> {
    let network = &network.folded();
    let mut layers = descriptors(network);
    if loss == Loss::CrossEntropy {
        layers.push(Layer::Softmax);
    }
    let input = InputSpec { shape: network.input(), scale: PIXEL_SCALE, offset: 0.0 };
    let spec = ModelSpec { input, labels, layers: &layers };
    let tensors: Vec<Tensors<'_>> = network.parameters().map(tensors).collect();
    let refused = |e| Error::Option(format!("the network cannot be exported: {e}"));
    let mut blob = AlignedBuf::zeroed(encoded_len(&spec).map_err(refused)?);
    encode(&spec, &tensors, &mut blob).map_err(refused)?;
    Ok(blob)
}

/// The layers of the exported form of a network without batch normalisations (see [`Network::folded`]), but for a softmax.
pub(crate) fn descriptors(network: &Network) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    for layer in network.layers().filter_map(|(layer, _)| layer.descriptor()) {
        match layers.last_mut().and_then(|before| join_pool(before, &layer)) {
            Some(joined) => *layers.last_mut().expect("there is one before") = joined,
            None => layers.push(layer),
        }
    }
    layers
}

/// [`export`] for a network that was trained on `data`: the model takes the values as they are there, and has its classes.
///
/// # Errors
/// As [`export`].
pub fn export_for(network: &Network, loss: Loss, data: &DataSet) -> Result<AlignedBuf> {
    let labels: Vec<&str> = data.classes.iter().map(String::as_str).collect();
    let file = export(network, loss, &labels)?;
    let model = Model::load(&file).expect("an exported model loads");
    let mut parts = Parts::of(&model).expect("an exported model has f32 weights");
    if parts.input == data.input && data.factor == 1.0 {
        return Ok(file);
    }
    parts.input = data.input;
    // What may come before the first weights (pooling, dropout) makes no difference to a positive factor.
    if let Some(first) = parts.parameters.first_mut() {
        first.weights.iter_mut().for_each(|weight| *weight *= data.factor);
    }
    parts.encode(&[]).map_err(|e| Error::Option(format!("the network cannot be exported: {e}")))
}

/// The exported form of what came of `recipe` and `data`: an int8 model if it is to be quantised, otherwise as [`export_for`].
///
/// # Errors
/// As [`export`]; [`Error::Recipe`] if the trained network cannot be quantised.
pub fn export_trained(trained: &Trained, recipe: &Recipe, data: &DataSet) -> Result<AlignedBuf> {
    let file = export_for(&trained.network, recipe.loss, data)?;
    let (Some(steps), Some(quantize)) = (&trained.steps, recipe.quantize) else { return Ok(file) };
    let model = Model::load(&file).expect("an exported model loads");
    quantize::quantize(&model, steps, quantize.processor.into())
        .map_err(|problem| recipe.error(format!("the network {problem}")))
}

fn tensors(parameters: &Parameters) -> Tensors<'_> {
    Tensors { weights: &parameters.weights, bias: &parameters.bias }
}

/// A convolution with the pooling that follows it, if the core can do both at once. The order of activation and pooling
/// does not matter: every activation is monotonic.
fn join_pool(before: &Layer, layer: &Layer) -> Option<Layer> {
    match (before, layer) {
        (Layer::Conv2d(conv), Layer::MaxPool2d(pool)) if conv.pool == [1, 1] && pool.kernel == pool.stride => {
            let mut joined = *conv;
            joined.pool = pool.kernel;
            Some(Layer::Conv2d(joined))
        }
        _ => None,
    }
}
