//! The layers of a network in training: forward, backward, and their parameters. Activations are `[N, H, W, C]`.

pub mod activation;
pub mod conv2d;
pub mod dense;
pub mod dropout;
#[cfg(test)]
mod gradient_check;
pub mod max_pool;
pub mod round;
mod sparse;

use crate::elementwise;
use crate::random::RandomState;
use crate::recipe::Init;

/// What a forward pass is for.
#[derive(Debug)]
pub enum Pass<'a> {
    /// Training: dropout draws its masks from this state.
    Train(&'a mut RandomState),
    /// Measuring: nothing is random.
    Test,
}

/// What a layer's backward pass works on: buffers of its last forward pass, `[rows, H, W, C]` each.
#[derive(Debug)]
pub struct Backward<'a> {
    /// The number of images.
    pub rows: usize,
    /// The layer's input.
    pub input: &'a [f32],
    /// The layer's output.
    pub output: &'a [f32],
    /// The loss's gradient for the output; it may be changed on the way.
    pub output_gradient: &'a mut [f32],
    /// Where the gradient for the input goes, if anyone needs it.
    pub input_gradient: Option<&'a mut [f32]>,
}

/// One layer. It owns its parameters and whatever its backward pass has to remember of the forward pass.
pub trait Layer {
    /// What the layer is in an exported model; `None` if it exists only during training.
    fn descriptor(&self) -> Option<thumbnet::layer::Layer>;

    /// Computes `output` (`[rows, H, W, C]` of this layer) from `input` (`[rows, H, W, C]` of the one before).
    fn forward(&mut self, rows: usize, input: &[f32], output: &mut [f32], pass: &mut Pass<'_>);

    /// Given the loss's gradient for the layer's output, adds the layer's share to its parameters' gradients and, if
    /// asked, overwrites the gradient for its input.
    fn backward(&mut self, pass: Backward<'_>);

    /// Whether the layer does nothing but in training.
    fn only_in_training(&self) -> bool {
        false
    }

    /// Makes the layer carry gradients down through its weights as they would be `distance` further along its own
    /// negative gradient. Only for the notebook quirk [`crate::recipe::Quirks::update_per_image`].
    fn look_ahead(&mut self, _distance: f32) {}

    /// The layer's parameters, if it has any.
    fn parameters(&self) -> Option<&Parameters> {
        None
    }

    /// As [`Layer::parameters`].
    fn parameters_mut(&mut self) -> Option<&mut Parameters> {
        None
    }
}

/// Weights and biases with their gradients.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// `[inputs, outputs]` row-major; of a convolution `[kernel height, kernel width, channels, filters]`.
    pub weights: Vec<f32>,
    /// `[outputs]`, or empty for a layer without biases.
    pub bias: Vec<f32>,
    /// The gradient of the loss, as `weights`; summed over the images of a batch.
    pub weight_gradient: Vec<f32>,
    /// The gradient of the loss, as `bias`.
    pub bias_gradient: Vec<f32>,
    /// The number of sums that the weights make.
    pub outputs: usize,
    touched: Touched,
    rounded: Option<Rounded>,
}

/// What weights that are rounded to int8 are rounded from.
#[derive(Clone, Debug)]
struct Rounded {
    /// The weights that descend, as [`Parameters::weights`].
    weights: Vec<f32>,
    /// The value of one step of each output's weights.
    steps: Vec<f32>,
}

/// The rows of a weight matrix that a batch has a gradient for. Where no image has ink, that is none.
#[derive(Clone, Debug)]
struct Touched {
    /// Each row once, unless `all`.
    rows: Vec<usize>,
    /// Whether a row is in `rows`.
    noted: Vec<bool>,
    all: bool,
}

impl Parameters {
    /// `inputs * outputs` weights drawn as `init` says, and zero biases if there are any.
    pub fn new(inputs: usize, outputs: usize, bias: bool, init: Init, rng: &mut RandomState) -> Self {
        let weights: Vec<f32> = (0..inputs * outputs).map(|_| init.draw(inputs, outputs, rng) as f32).collect();
        let bias = vec![0.0; if bias { outputs } else { 0 }];
        Parameters {
            weight_gradient: vec![0.0; weights.len()],
            bias_gradient: vec![0.0; bias.len()],
            touched: Touched { rows: Vec::with_capacity(inputs), noted: vec![false; inputs], all: false },
            weights,
            bias,
            outputs,
            rounded: None,
        }
    }

    /// From now on `weights` are rounded to int8, while what they are rounded from descends.
    pub fn round(&mut self) {
        let mut rounded = Rounded { weights: self.weights.clone(), steps: vec![0.0; self.outputs] };
        elementwise::round_weights(&rounded.weights, &mut rounded.steps, &mut self.weights);
        self.rounded = Some(rounded);
    }

    /// Adds the biases to every row of `sums`.
    fn add_bias(&self, sums: &mut [f32]) {
        if !self.bias.is_empty() {
            elementwise::add_bias(sums, &self.bias);
        }
    }

    /// Adds the gradient of the biases: the sum of the rows of `output_gradient`.
    fn add_bias_gradient(&mut self, output_gradient: &[f32]) {
        if !self.bias.is_empty() {
            elementwise::add_rows(output_gradient, &mut self.bias_gradient);
        }
    }

    /// Notes that row `row` of the weights has a gradient.
    fn touch(&mut self, row: usize) {
        if !std::mem::replace(&mut self.touched.noted[row], true) {
            self.touched.rows.push(row);
        }
    }

    /// Notes that every row of the weights may have a gradient.
    fn touch_all(&mut self) {
        self.touched.all = true;
    }

    /// One step of gradient descent (`parameter -= rate * gradient`); the gradients are cleared.
    pub fn descend(&mut self, rate: f32) {
        let weights = self.rounded.as_mut().map_or(&mut self.weights, |rounded| &mut rounded.weights);
        if self.touched.all {
            elementwise::descend(weights, &mut self.weight_gradient, rate);
        }
        for row in self.touched.rows.drain(..) {
            let range = row * self.outputs..(row + 1) * self.outputs;
            // Already cleared, and so without effect, if all rows were stepped above.
            elementwise::descend(&mut weights[range.clone()], &mut self.weight_gradient[range], rate);
            self.touched.noted[row] = false;
        }
        self.touched.all = false;
        elementwise::descend(&mut self.bias, &mut self.bias_gradient, rate);
        if let Some(rounded) = &mut self.rounded {
            elementwise::round_weights(&rounded.weights, &mut rounded.steps, &mut self.weights);
        }
    }
}
