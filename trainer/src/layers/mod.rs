//! The layers of a network in training: forward, backward, and their parameters. Activations are `[N, H, W, C]`.

pub mod activation;
pub mod avg_pool;
pub mod batch_norm;
pub mod conv2d;
pub mod dense;
pub mod dropout;
#[cfg(test)]
mod gradient_check;
pub mod max_pool;
mod parameters;
pub mod round;

use crate::random::RandomState;
use dyn_clone::DynClone;
pub use parameters::{Gradients, Parameters};
use thumbnet::layer as core;

/// What a forward pass is for.
#[derive(Debug)]
pub enum Pass<'a> {
    /// Training: dropout draws its masks from this state.
    Train(&'a mut RandomState),
    /// Measuring: nothing is random.
    Test,
}

/// What a layer's forward pass works on; activations are `[rows, H, W, C]`.
#[derive(Debug)]
pub struct Forward<'a, 'r> {
    /// The number of images.
    pub rows: usize,
    /// The layer's parameters, if it has any.
    pub parameters: Option<&'a Parameters>,
    /// Where a layer that measures the batch leaves what it found, see [`Gradients::statistics`].
    pub gradients: Option<&'a mut Gradients>,
    /// The layer's input.
    pub input: &'a [f32],
    /// Where its output goes.
    pub output: &'a mut [f32],
    /// What the pass is for.
    pub pass: &'a mut Pass<'r>,
}

/// What a layer's backward pass works on: buffers of its last forward pass, `[rows, H, W, C]` each.
#[derive(Debug)]
pub struct Backward<'a> {
    /// The number of images.
    pub rows: usize,
    /// The layer's parameters, if it has any.
    pub parameters: Option<&'a Parameters>,
    /// Where the layer's share of the parameters' gradients is added.
    pub gradients: Option<&'a mut Gradients>,
    /// The layer's input.
    pub input: &'a [f32],
    /// The layer's output.
    pub output: &'a [f32],
    /// The loss's gradient for the output; it may be changed on the way.
    pub output_gradient: &'a mut [f32],
    /// Where the gradient for the input goes, if anyone needs it.
    pub input_gradient: Option<&'a mut [f32]>,
}

/// One layer of one replica of a network. It has whatever its backward pass must remember of the forward pass; the
/// parameters are shared by all replicas, and lent to it.
pub trait Layer: DynClone + Send {
    /// What the layer is in an exported model; `None` if it exists only during training.
    fn descriptor(&self) -> Option<core::Layer>;

    /// Computes the output from the input.
    fn forward(&mut self, work: Forward<'_, '_>);

    /// Given the loss's gradient for the layer's output, adds the layer's share to its parameters' gradients and, if
    /// asked, overwrites the gradient for its input.
    fn backward(&mut self, work: Backward<'_>);

    /// Whether the layer does nothing but in training.
    fn only_in_training(&self) -> bool {
        false
    }

    /// Whether the layer makes new values of rounded ones, which an int8 model rounds again.
    fn rounds_again(&self) -> bool {
        false
    }

    /// If the layer is folded into the one before it once training is over: the activation that it brings along.
    fn folds_into_the_layer_before(&self) -> Option<core::Activation> {
        None
    }

    /// Replaces the activation, of a layer that has one.
    fn set_activation(&mut self, _activation: core::Activation) {}

    /// Makes the layer carry gradients down through its weights as they would be `distance` further along its own
    /// negative gradient. Only for the notebook quirk [`crate::recipe::Quirks::update_per_image`].
    fn look_ahead(&mut self, _distance: f32) {}
}

dyn_clone::clone_trait_object!(Layer);
