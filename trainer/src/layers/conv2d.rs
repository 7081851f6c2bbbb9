//! The 2-D convolution (cross-correlation, as everywhere in this field), depthwise or not: `activation(x * W + b)`.

use super::{Backward, Forward, Layer, activation};
use crate::kernels::channels;
use crate::kernels::conv2d::{self, Geometry, Wanted, Workspace};
use std::sync::Arc;
use thumbnet::layer as core;

/// A convolution layer in training.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// A `Conv2d` or a `DepthwiseConv2d`.
    descriptor: core::Layer,
    geometry: Arc<Geometry>,
    workspace: Workspace,
    /// Where tanh's slope is taken, see [`activation::backward`].
    pub tanh_scale: f32,
}

impl Conv2d {
    /// A layer as `descriptor` says (without fused pooling), with the geometry that its parameters are prepared for.
    pub(crate) fn new(descriptor: core::Layer, geometry: Arc<Geometry>) -> Self {
        let workspace = Workspace::new(&geometry);
        Conv2d { descriptor, geometry, workspace, tanh_scale: 1.0 }
    }
}

impl Layer for Conv2d {
    fn descriptor(&self) -> Option<core::Layer> {
        Some(self.descriptor)
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        let Forward { parameters, input, output, .. } = work;
        let parameters = parameters.expect("a convolution has parameters");
        conv2d::forward(&self.geometry, parameters.prepared(), &mut self.workspace, &parameters.bias, input, output);
        activation::apply(self.descriptor.activation(), output);
    }

    fn backward(&mut self, work: Backward<'_>) {
        let Backward { parameters, gradients, input, output, output_gradient, input_gradient, .. } = work;
        let parameters = parameters.expect("a convolution has parameters");
        let activation = self.descriptor.activation();
        let weights = gradients.map(|gradients| {
            gradients.touch_all();
            if activation == core::Activation::Relu && !gradients.bias.is_empty() {
                channels::relu_gradient(output, output_gradient, &mut gradients.bias);
            } else {
                activation::backward(activation, output, self.tanh_scale, output_gradient);
                gradients.add_bias(output_gradient, true);
            }
            &mut gradients.weights[..]
        });
        if weights.is_none() {
            activation::backward(activation, output, self.tanh_scale, output_gradient);
        }
        let wanted = Wanted { weights, input: input_gradient };
        let prepared = parameters.prepared();
        conv2d::gradients(&self.geometry, prepared, &mut self.workspace, input, output_gradient, wanted);
    }

    fn set_activation(&mut self, activation: core::Activation) {
        match &mut self.descriptor {
            core::Layer::Conv2d(conv) => conv.activation = activation,
            core::Layer::DepthwiseConv2d(conv) => conv.activation = activation,
            _ => {}
        }
    }
}
