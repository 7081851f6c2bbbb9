//! Starting a training from the layers of a trained model.

use crate::data::{DataSet, shape_text};
use crate::export::descriptors;
use crate::network::Network;
use crate::parts::{Parts, with_weights};
use thumbnet::Model;
use thumbnet::layer::{Layer, WeightType};

/// Puts the parameters of the first layers of `model` into those of `network`, as many as agree. Their batch normalisations
/// are gone for good: a model has them folded into its weights. The last layer is not taken over if the model's answers mean
/// other classes than those of `data`. Gives how many layers with weights were taken over.
///
/// # Errors
/// A message if `model` has int8 weights, another input, or not even its first layer in common with the network.
pub(crate) fn take_over(network: &mut Network, model: &Model<'_>, data: &DataSet) -> Result<usize, String> {
    let mut parts = Parts::of(model)?;
    let (found, wanted) = (parts.input.shape, network.input());
    if found != wanted {
        return Err(format!("takes inputs of {}, but the examples are {}", shape_text(found), shape_text(wanted)));
    }
    let layers = descriptors(&network.folded());
    let in_common = layers.iter().zip(&parts.layers).take_while(|(wanted, found)| same(wanted, found)).count();
    let with_weights = |layers: &[Layer]| layers.iter().filter(|layer| layer.weight_type().is_some()).count();
    let mut count = with_weights(&layers[..in_common]);
    if !(parts.labels.is_empty() || parts.labels == data.classes) {
        count = count.min(with_weights(&layers).saturating_sub(1));
    }
    if count == 0 {
        return Err(format!(
            "begins with {}, but the recipe with {}",
            parts.layers.first().map_or("nothing", Layer::name),
            layers.first().map_or("nothing", Layer::name)
        ));
    }
    if let Some(first) = parts.parameters.first_mut() {
        // The network gets the values of an example times the factor, the model without it.
        first.weights.iter_mut().for_each(|weight| *weight /= data.factor);
    }
    network.fold(count);
    for (parameters, from) in network.parameters_mut().zip(&parts.parameters).take(count) {
        let [weights, bias] = parameters.learned_mut();
        weights.clone_from(&from.weights);
        bias.clone_from(&from.bias);
        parameters.refresh();
    }
    Ok(count)
}

/// Whether two layers compute the same, whatever type their weights have.
fn same(a: &Layer, b: &Layer) -> bool {
    with_weights(*a, WeightType::F32) == with_weights(*b, WeightType::F32)
}
