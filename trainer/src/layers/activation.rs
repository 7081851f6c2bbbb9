//! The functions that dense and convolution layers apply to their sums.

use crate::elementwise;
use thumbnet::layer::Activation;

/// Applies `activation` in place.
pub fn apply(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Relu => elementwise::relu(values),
        Activation::Tanh => elementwise::tanh(values),
        Activation::Sigmoid => values.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
        Activation::Relu6 => values.iter_mut().for_each(|x| *x = x.clamp(0.0, 6.0)),
        Activation::LeakyRelu(slope) => values.iter_mut().for_each(|x| *x = x.max(*x * slope.value())),
    }
}

/// Turns the gradient for the activation's output into the one for its input. All functions allow that from their
/// `output` alone. Tanh's slope is taken at `tanh_scale * output`, where 1 is the mathematics.
pub fn backward(activation: Activation, output: &[f32], tanh_scale: f32, gradient: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Relu => elementwise::relu_slope(output, gradient),
        Activation::Tanh => elementwise::tanh_slope(output, tanh_scale, gradient),
        Activation::Sigmoid => elementwise::sigmoid_slope(output, gradient),
        Activation::Relu6 => {
            let inside = |y: f32| y > 0.0 && y < 6.0;
            gradient.iter_mut().zip(output).for_each(|(g, &y)| *g = if inside(y) { *g } else { 0.0 });
        }
        Activation::LeakyRelu(slope) => {
            gradient.iter_mut().zip(output).filter(|(_, y)| **y < 0.0).for_each(|(g, _)| *g *= slope.value());
        }
    }
}
