//! What a layer learns, and the gradients that it learns from.

use crate::elementwise;
use crate::kernels::channels;
use crate::kernels::conv2d::{Geometry, Prepared};
use crate::random::RandomState;
use crate::recipe::Init;
use std::sync::Arc;

/// The parameters of one layer.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// `[inputs, outputs]` row-major; of a convolution `[kernel height, kernel width, channels, filters]`; of a batch
    /// normalisation the scale of every channel.
    pub weights: Vec<f32>,
    /// `[outputs]`, or empty for a layer without biases.
    pub bias: Vec<f32>,
    /// What the layer has seen of the images and does not learn from: a batch normalisation's running mean of every channel,
    /// followed by the running variances. Empty for the others.
    pub running: Vec<f32>,
    /// The number of sums that the weights make.
    pub outputs: usize,
    rounded: Option<Rounded>,
    prepared: Option<(Arc<Geometry>, Prepared)>,
}

/// What weights that are rounded to int8 are rounded from.
#[derive(Clone, Debug)]
struct Rounded {
    /// The weights that descend, as [`Parameters::weights`].
    weights: Vec<f32>,
    /// The value of one step of each output's weights.
    steps: Vec<f32>,
}

impl Parameters {
    /// `inputs * outputs` weights drawn as `init` says, and zero biases if there are any.
    pub fn new(inputs: usize, outputs: usize, bias: bool, init: Init, rng: &mut RandomState) -> Self {
        let weights = (0..inputs * outputs).map(|_| init.draw(inputs, outputs, rng) as f32).collect();
        Self::of(weights, vec![0.0; if bias { outputs } else { 0 }], outputs)
    }

    /// These weights and biases.
    pub fn of(weights: Vec<f32>, bias: Vec<f32>, outputs: usize) -> Self {
        Parameters { weights, bias, running: Vec::new(), outputs, rounded: None, prepared: None }
    }

    /// From now on `weights` are rounded to int8, while what they are rounded from descends.
    pub fn round(&mut self) {
        self.rounded = Some(Rounded { weights: self.weights.clone(), steps: vec![0.0; self.outputs] });
        self.refresh();
    }

    /// What gradient descent moves: the weights before any rounding, and the biases. [`Self::refresh`] must follow a change.
    pub fn learned_mut(&mut self) -> [&mut Vec<f32>; 2] {
        let weights = self.rounded.as_mut().map_or(&mut self.weights, |rounded| &mut rounded.weights);
        [weights, &mut self.bias]
    }

    /// The weights before any rounding.
    pub fn learned(&self) -> &[f32] {
        self.rounded.as_ref().map_or(&self.weights, |rounded| &rounded.weights)
    }

    /// From now on the weights are also there as a convolution's loops want them; `input_gradient` says whether that for its
    /// input is wanted.
    pub(crate) fn prepare_for(&mut self, geometry: Arc<Geometry>, input_gradient: bool) {
        let prepared = Prepared::new(&geometry, input_gradient);
        self.prepared = Some((geometry, prepared));
        self.refresh();
    }

    /// The weights as a convolution's loops want them.
    ///
    /// # Panics
    /// If they are not those of a convolution.
    pub(super) fn prepared(&self) -> &Prepared {
        &self.prepared.as_ref().expect("the weights of a convolution").1
    }

    /// Makes anew what is made of the weights: due after every change to them.
    pub fn refresh(&mut self) {
        if let Some(rounded) = &mut self.rounded {
            elementwise::round_weights(&rounded.weights, &mut rounded.steps, &mut self.weights);
        }
        if let Some((geometry, prepared)) = &mut self.prepared {
            prepared.prepare(geometry, &self.weights);
        }
    }

    /// One step of plain gradient descent (`parameter -= rate * gradient`); the gradients are cleared.
    pub fn descend(&mut self, gradients: &mut Gradients, rate: f32) {
        let outputs = self.outputs;
        let [weights, bias] = self.learned_mut();
        if gradients.touched.all {
            elementwise::descend(weights, &mut gradients.weights, rate);
        }
        for row in gradients.touched.rows.drain(..) {
            let range = row * outputs..(row + 1) * outputs;
            // Already cleared, and so without effect, if all rows were stepped above.
            elementwise::descend(&mut weights[range.clone()], &mut gradients.weights[range], rate);
            gradients.touched.noted[row] = false;
        }
        gradients.touched.all = false;
        elementwise::descend(bias, &mut gradients.bias, rate);
    }

    /// Adds the biases to every row of `sums`.
    pub(super) fn add_bias(&self, sums: &mut [f32]) {
        if !self.bias.is_empty() {
            elementwise::add_bias(sums, &self.bias);
        }
    }
}

/// The gradients of a layer's parameters, summed over images.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of [`Parameters::weights`].
    pub weights: Vec<f32>,
    /// Of [`Parameters::bias`].
    pub bias: Vec<f32>,
    /// What the layer saw of the last images, for [`Parameters::running`].
    pub statistics: Vec<f32>,
    touched: Touched,
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

impl Gradients {
    /// Zeros, as many as `parameters` has.
    pub fn of(parameters: &Parameters) -> Self {
        let inputs = parameters.weights.len() / parameters.outputs.max(1);
        Gradients {
            weights: vec![0.0; parameters.weights.len()],
            bias: vec![0.0; parameters.bias.len()],
            statistics: vec![0.0; parameters.running.len()],
            touched: Touched { rows: Vec::with_capacity(inputs), noted: vec![false; inputs], all: false },
        }
    }

    /// Adds the gradient of the biases: the sum of the rows of `output_gradient`, of which there is one for each image or,
    /// if there are `many`, for each position of each image.
    pub(super) fn add_bias(&mut self, output_gradient: &[f32], many: bool) {
        match (self.bias.is_empty(), many) {
            (true, _) => {}
            (false, false) => elementwise::add_rows(output_gradient, &mut self.bias),
            (false, true) => channels::add_rows(output_gradient, &mut self.bias),
        }
    }

    /// Notes that row `row` of the weights has a gradient.
    pub(super) fn touch(&mut self, row: usize) {
        if !std::mem::replace(&mut self.touched.noted[row], true) {
            self.touched.rows.push(row);
        }
    }

    /// Notes that every row of the weights may have a gradient.
    pub(super) fn touch_all(&mut self) {
        self.touched.all = true;
    }

    /// Forgets which rows have a gradient; for optimizers that step all of them.
    pub(crate) fn forget_touched(&mut self) {
        let Touched { rows, noted, all } = &mut self.touched;
        rows.drain(..).for_each(|row| noted[row] = false);
        *all = false;
    }
}
