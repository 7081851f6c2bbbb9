//! The fully connected layer: `activation(x W + b)`.

use super::{Backward, Layer, Parameters, Pass, activation};
use crate::elementwise;
use crate::gemm::{self, Matrix};
use thumbnet::layer as core;

/// Up to this many images at a time, skipping zero inputs one by one beats the blocked matrix product, which would
/// first have to copy all the weights into its own order.
const FEW_ROWS: usize = 3;

/// A dense layer in training.
#[derive(Clone, Debug)]
pub struct Dense {
    descriptor: core::Dense,
    parameters: Parameters,
    /// Where tanh's slope is taken, see [`activation::backward`].
    pub tanh_scale: f32,
    /// See [`Layer::look_ahead`].
    look_ahead: f32,
    moved_weights: Vec<f32>,
}

impl Dense {
    /// A layer as `descriptor` says, with the parameters that it starts from.
    pub fn new(descriptor: core::Dense, parameters: Parameters) -> Self {
        Dense { descriptor, parameters, tanh_scale: 1.0, look_ahead: 0.0, moved_weights: Vec::new() }
    }

    /// The numbers of inputs and outputs per image.
    fn lengths(&self) -> (usize, usize) {
        let outputs = self.parameters.outputs;
        (self.parameters.weights.len() / outputs, outputs)
    }

    fn add_weight_gradient(&mut self, rows: usize, input: &[f32], output_gradient: &[f32]) {
        let (inputs, outputs) = self.lengths();
        if rows > FEW_ROWS {
            let transposed = Matrix::new(input, rows, inputs).transposed();
            let gradient = Matrix::new(output_gradient, rows, outputs);
            gemm::multiply(transposed, gradient, &mut self.parameters.weight_gradient, true);
            return self.parameters.touch_all();
        }
        for (image, gradient) in input.chunks_exact(inputs).zip(output_gradient.chunks_exact(outputs)) {
            for (row, &value) in image.iter().enumerate().filter(|(_, value)| **value != 0.0) {
                let sums = &mut self.parameters.weight_gradient[row * outputs..][..outputs];
                elementwise::add_scaled(sums, value, gradient);
                self.parameters.touch(row);
            }
        }
    }

    /// The weights that carry the gradient to the layer below.
    fn carrying_weights(&mut self) -> &[f32] {
        if self.look_ahead == 0.0 {
            return &self.parameters.weights;
        }
        self.moved_weights.clone_from(&self.parameters.weights);
        elementwise::add_scaled(&mut self.moved_weights, -self.look_ahead, &self.parameters.weight_gradient);
        &self.moved_weights
    }
}

impl Layer for Dense {
    fn descriptor(&self) -> Option<core::Layer> {
        Some(core::Layer::Dense(self.descriptor))
    }

    fn forward(&mut self, rows: usize, input: &[f32], output: &mut [f32], _pass: &mut Pass<'_>) {
        let (inputs, outputs) = self.lengths();
        if rows > FEW_ROWS {
            let weights = Matrix::new(&self.parameters.weights, inputs, outputs);
            gemm::multiply(Matrix::new(input, rows, inputs), weights, output, false);
        } else {
            output.fill(0.0);
            for (image, sums) in input.chunks_exact(inputs).zip(output.chunks_exact_mut(outputs)) {
                elementwise::add_row_times_matrix(image, &self.parameters.weights, sums);
            }
        }
        self.parameters.add_bias(output);
        activation::apply(self.descriptor.activation, output);
    }

    fn backward(&mut self, pass: Backward<'_>) {
        let Backward { rows, input, output, output_gradient, input_gradient } = pass;
        activation::backward(self.descriptor.activation, output, self.tanh_scale, output_gradient);
        self.add_weight_gradient(rows, input, output_gradient);
        self.parameters.add_bias_gradient(output_gradient);
        if let Some(input_gradient) = input_gradient {
            let (inputs, outputs) = self.lengths();
            let weights = Matrix::new(self.carrying_weights(), inputs, outputs).transposed();
            gemm::multiply(Matrix::new(output_gradient, rows, outputs), weights, input_gradient, false);
        }
    }

    fn look_ahead(&mut self, distance: f32) {
        self.look_ahead = distance;
    }

    fn parameters(&self) -> Option<&Parameters> {
        Some(&self.parameters)
    }

    fn parameters_mut(&mut self) -> Option<&mut Parameters> {
        Some(&mut self.parameters)
    }
}
