//! The fully connected layer: `activation(x W + b)`.

use super::{Backward, Forward, Gradients, Layer, activation};
use crate::elementwise;
use crate::gemm::{self, Matrix};
use crate::kernels::sparse::SparseMatrix;
use thumbnet::layer as core;

/// Up to this many images at a time, inputs are taken as sparse in every layer: the blocked matrix product would first
/// have to copy all the weights into its own order, and ReLU and dropout leave many zeros, too.
const FEW_ROWS: usize = 3;

/// A dense layer in training.
#[derive(Clone, Debug)]
pub struct Dense {
    descriptor: core::Dense,
    /// Where tanh's slope is taken, see [`activation::backward`].
    pub tanh_scale: f32,
    /// Whether the inputs are mostly zeros, as pixels are.
    pub sparse_input: bool,
    /// The input of the last forward pass, if it was taken as sparse.
    nonzero: SparseMatrix,
    /// See [`Layer::look_ahead`].
    look_ahead: f32,
    moved_weights: Vec<f32>,
}

impl Dense {
    /// A layer as `descriptor` says.
    pub fn new(descriptor: core::Dense) -> Self {
        Dense {
            descriptor,
            tanh_scale: 1.0,
            sparse_input: false,
            nonzero: SparseMatrix::default(),
            look_ahead: 0.0,
            moved_weights: Vec::new(),
        }
    }

    fn takes_sparse(&self, rows: usize) -> bool {
        self.sparse_input || rows <= FEW_ROWS
    }

    fn add_gradients(&self, rows: usize, input: &[f32], output_gradient: &[f32], gradients: &mut Gradients) {
        let (inputs, outputs) = (input.len() / rows, output_gradient.len() / rows);
        if self.takes_sparse(rows) {
            self.nonzero.add_transposed_product(output_gradient, &mut gradients.weights, outputs);
            self.nonzero.columns().for_each(|row| gradients.touch(row));
        } else {
            let input = Matrix::new(input, rows, inputs).transposed();
            gemm::multiply(input, Matrix::new(output_gradient, rows, outputs), &mut gradients.weights, true);
            gradients.touch_all();
        }
        gradients.add_bias(output_gradient, false);
    }

    /// The weights that carry the gradient to the layer below.
    fn carrying_weights<'a>(&'a mut self, weights: &'a [f32], gradient: Option<&[f32]>) -> &'a [f32] {
        match gradient {
            Some(gradient) if self.look_ahead != 0.0 => {
                self.moved_weights.clear();
                self.moved_weights.extend_from_slice(weights);
                elementwise::add_scaled(&mut self.moved_weights, -self.look_ahead, gradient);
                &self.moved_weights
            }
            _ => weights,
        }
    }
}

impl Layer for Dense {
    fn descriptor(&self) -> Option<core::Layer> {
        Some(core::Layer::Dense(self.descriptor))
    }

    fn forward(&mut self, work: Forward<'_, '_>) {
        let Forward { rows, parameters, input, output, .. } = work;
        let parameters = parameters.expect("a dense layer has parameters");
        let (inputs, outputs) = (input.len() / rows, parameters.outputs);
        if self.takes_sparse(rows) {
            self.nonzero.assign(input, inputs);
            self.nonzero.multiply(&parameters.weights, output, outputs);
        } else {
            let weights = Matrix::new(&parameters.weights, inputs, outputs);
            gemm::multiply(Matrix::new(input, rows, inputs), weights, output, false);
        }
        parameters.add_bias(output);
        activation::apply(self.descriptor.activation, output);
    }

    fn backward(&mut self, work: Backward<'_>) {
        let Backward { rows, parameters, mut gradients, input, output, output_gradient, input_gradient } = work;
        let parameters = parameters.expect("a dense layer has parameters");
        activation::backward(self.descriptor.activation, output, self.tanh_scale, output_gradient);
        if let Some(gradients) = gradients.as_deref_mut() {
            self.add_gradients(rows, input, output_gradient, gradients);
        }
        if let Some(input_gradient) = input_gradient {
            let gradient = gradients.as_deref().map(|gradients| &gradients.weights[..]);
            let weights = self.carrying_weights(&parameters.weights, gradient);
            let (inputs, outputs) = (input.len() / rows, parameters.outputs);
            let weights = Matrix::new(weights, inputs, outputs).transposed();
            gemm::multiply(Matrix::new(output_gradient, rows, outputs), weights, input_gradient, false);
        }
    }

    fn set_activation(&mut self, activation: core::Activation) {
        self.descriptor.activation = activation;
    }

    fn look_ahead(&mut self, distance: f32) {
        self.look_ahead = distance;
    }
}
