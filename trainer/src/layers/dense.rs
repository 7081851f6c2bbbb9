//! The fully connected layer: `activation(x W + b)`.

use super::sparse::SparseMatrix;
use super::{Backward, Layer, Parameters, Pass, activation};
use crate::elementwise;
use crate::gemm::{self, Matrix};
use thumbnet::layer as core;

/// Up to this many images at a time, inputs are taken as sparse in every layer: the blocked matrix product would first
/// have to copy all the weights into its own order, and ReLU and dropout leave many zeros, too.
const FEW_ROWS: usize = 3;

/// A dense layer in training.
#[derive(Clone, Debug)]
pub struct Dense {
    descriptor: core::Dense,
    parameters: Parameters,
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
    /// A layer as `descriptor` says, with the parameters that it starts from.
    pub fn new(descriptor: core::Dense, parameters: Parameters) -> Self {
        Dense {
            descriptor,
            parameters,
            tanh_scale: 1.0,
            sparse_input: false,
            nonzero: SparseMatrix::default(),
            look_ahead: 0.0,
            moved_weights: Vec::new(),
        }
    }

    /// The numbers of inputs and outputs per image.
    fn lengths(&self) -> (usize, usize) {
        let outputs = self.parameters.outputs;
        (self.parameters.weights.len() / outputs, outputs)
    }

    fn takes_sparse(&self, rows: usize) -> bool {
        self.sparse_input || rows <= FEW_ROWS
    }

    fn add_weight_gradient(&mut self, rows: usize, input: &[f32], output_gradient: &[f32]) {
        let (inputs, outputs) = self.lengths();
        let sparse = self.takes_sparse(rows);
        let sums = &mut self.parameters.weight_gradient;
        if sparse {
            self.nonzero.add_transposed_product(output_gradient, sums, outputs);
            self.nonzero.columns().for_each(|row| self.parameters.touch(row));
        } else {
            let input = Matrix::new(input, rows, inputs).transposed();
            gemm::multiply(input, Matrix::new(output_gradient, rows, outputs), sums, true);
            self.parameters.touch_all();
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
        if self.takes_sparse(rows) {
            self.nonzero.assign(input, inputs);
            self.nonzero.multiply(&self.parameters.weights, output, outputs);
        } else {
            let weights = Matrix::new(&self.parameters.weights, inputs, outputs);
            gemm::multiply(Matrix::new(input, rows, inputs), weights, output, false);
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
