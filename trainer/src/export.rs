//! From a trained network to a model file for the core.

use crate::error::{Error, Result};
use crate::layers::Parameters;
use crate::loss::Loss;
use crate::network::Network;
use std::path::Path;
use thumbnet::AlignedBuf;
use thumbnet::blob::{ModelSpec, Tensors, encode, encoded_len};
use thumbnet::layer::{InputSpec, Layer};

/// What a pixel's byte is multiplied by, in training as in the exported model.
pub const PIXEL_SCALE: f32 = 1.0 / 255.0;

/// The exported form of `network`: what only serves training is gone, pooling is joined to the convolution before it,
/// and a network trained with cross-entropy ends in a softmax. `labels` names the classes.
///
/// # Errors
/// [`Error::Option`] if the network exceeds a limit of the format.
pub fn export(network: &Network, loss: Loss, labels: &[&str]) -> Result<AlignedBuf> {
    let mut layers: Vec<Layer> = Vec::new();
    for layer in network.layers().filter_map(|layer| layer.descriptor()) {
        match layers.last_mut().and_then(|before| join_pool(before, &layer)) {
            Some(joined) => *layers.last_mut().expect("there is one before") = joined,
            None => layers.push(layer),
        }
    }
    if loss == Loss::CrossEntropy {
        layers.push(Layer::Softmax);
    }
    let input = InputSpec { shape: network.input(), scale: PIXEL_SCALE, offset: 0.0 };
    let spec = ModelSpec { input, labels, layers: &layers };
    let tensors: Vec<Tensors<'_>> = network.layers().filter_map(|layer| layer.parameters()).map(tensors).collect();
    let refused = |e| Error::Option(format!("the network cannot be exported: {e}"));
    let mut blob = AlignedBuf::zeroed(encoded_len(&spec).map_err(refused)?);
    encode(&spec, &tensors, &mut blob).map_err(refused)?;
    Ok(blob)
}

/// Exports `network` and writes it to `path`.
///
/// # Errors
/// As [`export`] and [`crate::output::replace`].
pub fn write(network: &Network, loss: Loss, labels: &[&str], path: &Path) -> Result<()> {
    crate::output::replace(path, &export(network, loss, labels)?)
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
