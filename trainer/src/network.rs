//! A network in training: its layers, and the buffers for one slice of a batch.

use crate::data::DataSet;
use crate::elementwise;
use crate::error::Result;
use crate::layers::conv2d::Conv2d;
use crate::layers::dense::Dense;
use crate::layers::dropout::Dropout;
use crate::layers::max_pool::MaxPool2d;
use crate::layers::round::Round;
use crate::layers::{Backward, Layer, Parameters, Pass};
use crate::quantize::Steps;
use crate::random::RandomState;
use crate::recipe::{self, Crop, Quirks, Recipe};
use thumbnet::layer::{self as core, Shape};

/// How many values the largest activation of a slice may have: a few times this, as 32-bit floats, stay in the cache.
const SLICE_VALUES: usize = 1 << 18;

/// A network whose layers can be trained.
pub struct Network {
    input: Shape,
    layers: Vec<Box<dyn Layer>>,
    /// The input and every layer's output, `[slice_rows, H, W, C]` each.
    activations: Vec<Vec<f32>>,
    /// The loss's gradient for each layer's output; the first one, for the input, stays empty.
    gradients: Vec<Vec<f32>>,
    slice_rows: usize,
    /// The value of one step of the input, if the network is quantised.
    input_step: Option<f32>,
    /// Which of `activations` holds the last forward pass's output.
    last: usize,
}

impl Network {
    /// The network of `recipe` for images of `input`, its weights drawn from `rng` layer by layer.
    ///
    /// # Errors
    /// [`crate::error::Error::Recipe`] if a layer does not fit what comes before it, or the last one the classes.
    pub fn new(recipe: &Recipe, input: Shape, classes: usize, rng: &mut RandomState) -> Result<Self> {
        let mut shapes = vec![input];
        let mut layers = Vec::new();
        for (index, layer) in recipe.layers.iter().enumerate() {
            let before = shapes[index];
            let (layer, after) = build(layer, before, index == 0, &recipe.quirks, rng)
                .map_err(|problem| recipe.error(format!("layer {}: {problem}", index + 1)))?;
            layers.push(layer);
            shapes.push(after);
        }
        let last = shapes[shapes.len() - 1];
        if len(last) != classes {
            return Err(
                recipe.error(format!("the last layer has {} outputs, but there are {classes} classes", len(last)))
            );
        }
        let widest = shapes.iter().map(|&shape| len(shape)).max().unwrap_or(1);
        let slice_rows = (SLICE_VALUES / widest).max(1);
        let activations: Vec<_> = shapes.iter().map(|&shape| vec![0.0; slice_rows * len(shape)]).collect();
        let gradients = std::iter::once(Vec::new()).chain(activations[1..].iter().cloned()).collect();
        Ok(Network { input, layers, activations, gradients, slice_rows, input_step: None, last: 0 })
    }

    /// From now on weights and activations are rounded as in an int8 model with these steps; gradients pass the rounding as
    /// if it were not there.
    pub fn quantize(&mut self, steps: &Steps) {
        self.parameters_mut().for_each(Parameters::round);
        self.input_step = Some(steps.input);
        let with_parameters = (0..self.layers.len()).filter(|&index| self.layers[index].parameters().is_some());
        // Not behind the last one, whose sums are not rounded; from the back, so that the places in front stay the same.
        let places: Vec<usize> = with_parameters.collect();
        for (&place, &step) in places.iter().zip(&steps.layers).rev().skip(1) {
            self.layers.insert(place + 1, Box::new(Round::new(step)));
            self.activations.insert(place + 2, self.activations[place + 1].clone());
            self.gradients.insert(place + 2, self.gradients[place + 1].clone());
        }
    }

    /// The shape of one image.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// The most images that one forward pass takes; larger batches come in slices whose gradients add up.
    pub fn slice_rows(&self) -> usize {
        self.slice_rows
    }

    /// The layers, first to last.
    pub fn layers(&self) -> impl Iterator<Item = &dyn Layer> {
        self.layers.iter().map(AsRef::as_ref)
    }

    /// The parameters of every layer that has some, first to last.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameters> {
        self.layers.iter_mut().filter_map(|layer| layer.parameters_mut())
    }

    /// Takes the images named by `indices`, at most [`Self::slice_rows`], as the input of the next forward pass.
    pub fn load(&mut self, images: &DataSet, indices: &[usize]) {
        images.load(indices, self.input_mut(indices.len()));
    }

    /// The input of the next forward pass, `[rows, H, W, C]`.
    pub fn input_mut(&mut self, rows: usize) -> &mut [f32] {
        &mut self.activations[0][..rows * len(self.input)]
    }

    /// Runs the first `rows` loaded images through the layers; gives the outputs before any softmax, `[rows, classes]`.
    pub fn forward(&mut self, rows: usize, mut pass: Pass<'_>) -> &[f32] {
        self.last = 0;
        if let Some(step) = self.input_step {
            let pixels = self.input_mut(rows).to_vec();
            elementwise::round_to_steps(&pixels, step, self.input_mut(rows));
        }
        for (index, layer) in self.layers.iter_mut().enumerate() {
            if matches!(pass, Pass::Test) && layer.only_in_training() {
                continue;
            }
            let (before, after) = self.activations.split_at_mut(index + 1);
            let output = rows_of(&after[0], rows, self.slice_rows);
            let input = rows_of(&before[self.last], rows, self.slice_rows);
            layer.forward(rows, &before[self.last][..input], &mut after[0][..output], &mut pass);
            self.last = index + 1;
        }
        self.output(rows)
    }

    /// The outputs of the last forward pass, `[rows, classes]`.
    pub fn output(&self, rows: usize) -> &[f32] {
        let output = &self.activations[self.last];
        &output[..rows_of(output, rows, self.slice_rows)]
    }

    /// The outputs of the last forward pass, and where their gradient goes before [`Self::backward`].
    pub fn output_and_gradient(&mut self, rows: usize) -> (&[f32], &mut [f32]) {
        let (output, gradient) = (&self.activations[self.last], &mut self.gradients[self.last]);
        let length = rows_of(output, rows, self.slice_rows);
        (&output[..length], &mut gradient[..length])
    }

    /// Carries the gradient of the outputs back through the layers, adding to the gradients of the parameters. The
    /// forward pass just before must have been one for training, with the same `rows`.
    pub fn backward(&mut self, rows: usize) {
        for (index, layer) in self.layers.iter_mut().enumerate().rev() {
            let (before, after) = self.gradients.split_at_mut(index + 1);
            let input = &self.activations[index];
            let output = &self.activations[index + 1];
            let input_len = rows_of(input, rows, self.slice_rows);
            let output_len = rows_of(output, rows, self.slice_rows);
            layer.backward(Backward {
                rows,
                input: &input[..input_len],
                output: &output[..output_len],
                output_gradient: &mut after[0][..output_len],
                // Nobody needs the gradient of the pixels.
                input_gradient: if index == 0 { None } else { Some(&mut before[index][..input_len]) },
            });
        }
    }

    /// See [`Layer::look_ahead`].
    pub fn look_ahead(&mut self, distance: f32) {
        self.layers.iter_mut().for_each(|layer| layer.look_ahead(distance));
    }

    /// One step of gradient descent by every layer, `kernel_rate` for convolutions and `rate` for the others. The
    /// gradients are cleared.
    pub fn descend(&mut self, rate: f32, kernel_rate: f32) {
        for layer in &mut self.layers {
            let rate = if matches!(layer.descriptor(), Some(core::Layer::Conv2d(_))) { kernel_rate } else { rate };
            if let Some(parameters) = layer.parameters_mut() {
                parameters.descend(rate);
            }
        }
    }
}

/// The length of `rows` images in a buffer made for `slice_rows`.
fn rows_of(buffer: &[f32], rows: usize, slice_rows: usize) -> usize {
    buffer.len() / slice_rows * rows
}

/// The number of values of one activation.
pub(crate) fn len(shape: Shape) -> usize {
    usize::from(shape.height) * usize::from(shape.width) * usize::from(shape.channels)
}

type Built = (Box<dyn Layer>, Shape);

/// Builds one layer behind an activation of shape `input`, which may be the image itself; also gives the shape of its
/// output.
fn build(
    layer: &recipe::Layer,
    input: Shape,
    is_image: bool,
    quirks: &Quirks,
    rng: &mut RandomState,
) -> std::result::Result<Built, core::LayerError> {
    let tanh_scale = if quirks.slope_after_dropout { 2.0 } else { 1.0 };
    Ok(match *layer {
        recipe::Layer::Dense { outputs, activation, bias, init } => {
            let descriptor = core::Dense { outputs, activation: activation.into(), weights: core::WeightType::F32 };
            let shape = core::Layer::Dense(descriptor).output(input)?;
            let parameters = Parameters::new(len(input), len(shape), bias, init, rng);
            let mut dense = Dense::new(descriptor, parameters);
            dense.tanh_scale = tanh_scale;
            dense.sparse_input = is_image;
            (Box::new(dense), shape)
        }
        recipe::Layer::Conv2d { filters, kernel, stride, padding, crop, activation, bias, init } => {
            let descriptor = core::Conv2d {
                filters,
                kernel,
                stride,
                padding: pad(padding, crop, input, kernel, stride)?,
                pool: [1, 1],
                activation: activation.into(),
                weights: core::WeightType::F32,
            };
            let shape = core::Layer::Conv2d(descriptor).output(input)?;
            let window = usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(input.channels);
            let parameters = Parameters::new(window, usize::from(filters), bias, init, rng);
            let mut conv = Conv2d::new(descriptor, input, shape, parameters);
            conv.tanh_scale = tanh_scale;
            (Box::new(conv), shape)
        }
        recipe::Layer::MaxPool2d { kernel, stride } => {
            let descriptor = core::MaxPool2d { kernel, stride: stride.unwrap_or(kernel) };
            let shape = core::Layer::MaxPool2d(descriptor).output(input)?;
            (Box::new(MaxPool2d::new(descriptor, input, shape)), shape)
        }
        recipe::Layer::Dropout { rate } => {
            let mut dropout = Dropout::new(rate);
            if quirks.unscaled_dropout_gradient {
                dropout.backward_scale = 1.0;
            }
            (Box::new(dropout), input)
        }
    })
}

/// The padding per side: what `padding` adds less what `crop` takes away.
fn pad(
    padding: recipe::Padding,
    crop: Crop,
    input: Shape,
    kernel: [u8; 2],
    stride: [u8; 2],
) -> std::result::Result<core::Padding, core::LayerError> {
    let side = |size: u16, cropped: [u8; 2], kernel: u8, stride: u8| {
        let size = i32::from(size) - i32::from(cropped[0]) - i32::from(cropped[1]);
        let (kernel, stride) = (i32::from(kernel), i32::from(stride).max(1));
        let total = match padding {
            recipe::Padding::Valid => 0,
            recipe::Padding::Same => ((size - 1) / stride * stride + kernel - size).max(0),
        };
        let [before, after] = [total / 2 - i32::from(cropped[0]), total - total / 2 - i32::from(cropped[1])];
        let narrow = |n: i32| i8::try_from(n).map_err(|_| core::LayerError::TooLarge);
        Ok((narrow(before)?, narrow(after)?))
    };
    let (top, bottom) = side(input.height, [crop.top, crop.bottom], kernel[0], stride[0])?;
    let (left, right) = side(input.width, [crop.left, crop.right], kernel[1], stride[1])?;
    Ok(core::Padding { top, bottom, left, right })
}
