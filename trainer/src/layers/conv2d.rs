//! The 2-D convolution (cross-correlation, as everywhere in this field), depthwise or not: `activation(x * W + b)`.

use super::{Backward, Forward, Layer, activation};
use crate::kernels::conv2d::{self, Geometry, Workspace};
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
        activation::backward(self.descriptor.activation(), output, self.tanh_scale, output_gradient);
        if let Some(gradients) = gradients {
            gradients.add_bias(output_gradient, true);
            gradients.touch_all();
            let sums = &mut gradients.weights;
            conv2d::weight_gradient(&self.geometry, &mut self.workspace, input, output_gradient, sums);
        }
        if let Some(input_gradient) = input_gradient {
            let prepared = parameters.prepared();
            conv2d::input_gradient(&self.geometry, prepared, &mut self.workspace, output_gradient, input_gradient);
        }
    }

    fn set_activation(&mut self, activation: core::Activation) {
        match &mut self.descriptor {
            core::Layer::Conv2d(conv) => conv.activation = activation,
            core::Layer::DepthwiseConv2d(conv) => conv.activation = activation,
            _ => {}
        }
    }
}
