//! A network in training: its parameters, and replicas that each take a part of a batch through the layers.

use crate::data::DataSet;
use crate::elementwise;
use crate::error::Result;
use crate::kernels::conv2d::Geometry;
use crate::layers::avg_pool::AvgPool2d;
use crate::layers::batch_norm::BatchNorm;
use crate::layers::conv2d::Conv2d;
use crate::layers::dense::Dense;
use crate::layers::dropout::Dropout;
use crate::layers::max_pool::MaxPool2d;
use crate::layers::round::Round;
use crate::layers::{Backward, Forward, Gradients, Layer, Parameters, Pass};
use crate::quantize::Steps;
use crate::random::RandomState;
use crate::recipe::{self, Crop, Quirks, Recipe};
use std::sync::Arc;
use thumbnet::layer::{self as core, Shape};

/// How many values the largest activation of a slice may have: a few times this, as 32-bit floats, stay in the cache.
const SLICE_VALUES: usize = 1 << 18;

/// A network whose layers can be trained.
pub struct Network {
    input: Shape,
    /// The parameters of every layer.
    parameters: Vec<Option<Parameters>>,
    /// The first so many layers keep their parameters.
    frozen: usize,
    /// At least one.
    replicas: Vec<Replica>,
}

/// The layers of a network with buffers for a part of a batch: what one thread works on at a time.
#[derive(Clone)]
pub struct Replica {
    layers: Vec<Box<dyn Layer>>,
    /// The gradients of the parameters, summed over the images that this replica has seen since they were last cleared.
    sums: Vec<Option<Gradients>>,
    /// The input and every layer's output, `[rows, H, W, C]` each.
    activations: Vec<Vec<f32>>,
    /// The loss's gradient for each layer's output; the first one, for the input, stays empty.
    gradients: Vec<Vec<f32>>,
    rows: usize,
    /// The value of one step of the input, if the network is quantised.
    input_step: Option<f32>,
    /// Which of `activations` holds the last forward pass's output.
    last: usize,
}

impl Network {
    /// The network of `recipe` for images of `input`, its weights drawn from `rng` layer by layer. It has one replica for each
    /// of a batch's micro batches.
    ///
    /// # Errors
    /// [`crate::error::Error::Recipe`] if a layer does not fit what comes before it, or the last one the classes.
    pub fn new(recipe: &Recipe, input: Shape, classes: usize, rng: &mut RandomState) -> Result<Self> {
        let (mut shapes, mut layers, mut parameters) = (vec![input], Vec::new(), Vec::new());
        for (index, layer) in recipe.layers.iter().enumerate() {
            let before = shapes[shapes.len() - 1];
            let context =
                Context { classes, is_image: index == 0, next: recipe.layers.get(index + 1), quirks: &recipe.quirks };
            let built = build(layer, before, context, rng)
                .map_err(|problem| recipe.error(format!("layer {}: {problem}", index + 1)))?;
            for part in built {
                layers.push(part.layer);
                parameters.push(part.parameters);
                shapes.push(part.output);
            }
        }
        let last = shapes[shapes.len() - 1];
        if len(last) != classes {
            return Err(
                recipe.error(format!("the last layer has {} outputs, but there are {classes} classes", len(last)))
            );
        }
        let widest = shapes.iter().map(|&shape| len(shape)).max().unwrap_or(1);
        let rows = recipe.micro_batch.unwrap_or((SLICE_VALUES / widest).max(1));
        let activations: Vec<_> = shapes.iter().map(|&shape| vec![0.0; rows * len(shape)]).collect();
        let gradients = std::iter::once(Vec::new()).chain(activations[1..].iter().cloned()).collect();
        let sums = parameters.iter().map(|parameters| parameters.as_ref().map(Gradients::of)).collect();
        let replica = Replica { layers, sums, activations, gradients, rows, input_step: None, last: 0 };
        let count = recipe.micro_batch.map_or(1, |rows| recipe.batch.div_ceil(rows));
        Ok(Network { input, parameters, frozen: 0, replicas: vec![replica; count] })
    }

    /// From now on weights and activations are rounded as in an int8 model with these steps; gradients pass the rounding as
    /// if it were not there. There must be no batch normalisation any more, see [`Self::fold`].
    pub fn quantize(&mut self, steps: &Steps) {
        self.parameters_mut().for_each(Parameters::round);
        let mut places = Vec::new();
        let mut step = None;
        let mut steps_left = steps.layers.iter();
        for (index, parameters) in self.parameters.iter().enumerate() {
            if parameters.is_some() {
                step = steps_left.next().copied();
                places.push((index, step));
            } else if self.replicas[0].layers[index].rounds_again() {
                places.push((index, step));
            }
        }
        // Not behind the last one with parameters, whose sums are not rounded; from the back, so that the places in front stay the same.
        let last = places.iter().rposition(|&(index, _)| self.parameters[index].is_some());
        if let Some(last) = last {
            places.remove(last);
        }
        for &(place, step) in places.iter().rev() {
            let step = step.unwrap_or(steps.input);
            self.parameters.insert(place + 1, None);
            self.replicas.iter_mut().for_each(|replica| replica.insert(place, Box::new(Round::new(step))));
        }
        self.replicas.iter_mut().for_each(|replica| replica.input_step = Some(steps.input));
    }

    /// Makes the batch normalisations behind the first `count` layers with weights a part of those layers, for good.
    pub fn fold(&mut self, count: usize) {
        let mut index = 0;
        let mut folded = 0;
        while index + 1 < self.parameters.len() && folded < count {
            if let Some(activation) = self.replicas[0].layers[index + 1].folds_into_the_layer_before() {
                let norm = self.parameters.remove(index + 1).expect("a batch normalisation has parameters");
                let layer = self.parameters[index].as_mut().expect("the layer before has weights");
                fold(layer, &norm);
                let gradients = Gradients::of(layer);
                for replica in &mut self.replicas {
                    replica.remove(index + 1);
                    replica.layers[index].set_activation(activation);
                    replica.sums[index] = Some(gradients.clone());
                }
            }
            folded += usize::from(self.parameters[index].is_some());
            index += 1;
        }
    }

    /// As [`Self::fold`] for all layers, in a copy with one replica.
    pub fn folded(&self) -> Self {
        let mut copy = Network {
            input: self.input,
            parameters: self.parameters.clone(),
            frozen: self.frozen,
            replicas: vec![self.replicas[0].clone()],
        };
        copy.fold(usize::MAX);
        copy
    }

    /// From now on the first `count` layers with parameters keep them, and so does whatever stands before the next one.
    pub fn freeze(&mut self, count: usize) {
        let with_parameters = self.parameters.iter().enumerate().filter(|(_, parameters)| parameters.is_some());
        self.frozen = match with_parameters.map(|(index, _)| index).nth(count) {
            _ if count == 0 => 0,
            Some(index) => index,
            None => self.parameters.len(),
        };
    }

    /// The shape of one image.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// The most images that one forward pass takes; larger batches come in slices whose gradients add up.
    pub fn slice_rows(&self) -> usize {
        self.replicas[0].rows
    }

    /// The layers, first to last, with their parameters.
    pub fn layers(&self) -> impl Iterator<Item = (&dyn Layer, Option<&Parameters>)> {
        self.replicas[0].layers.iter().map(AsRef::as_ref).zip(self.parameters.iter().map(Option::as_ref))
    }

    /// The parameters of every layer that has some, first to last. After a change to what is rounded or prepared from,
    /// [`Parameters::refresh`] is due.
    pub fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameters> {
        self.parameters.iter_mut().flatten()
    }

    /// As [`Self::parameters_mut`], to be read.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameters> {
        self.parameters.iter().flatten()
    }

    /// The parameters, which all replicas share, and the replicas.
    pub fn split(&mut self) -> (Shared<'_>, &mut [Replica]) {
        (Shared { parameters: &self.parameters, frozen: self.frozen }, &mut self.replicas)
    }

    /// The parameters, the number of the first layers that keep theirs, and the replicas.
    pub(crate) fn split_mut(&mut self) -> (&mut [Option<Parameters>], usize, &mut [Replica]) {
        (&mut self.parameters, self.frozen, &mut self.replicas)
    }

    /// A copy of the gradients of the first replica, of the layer with parameters number `number`.
    #[cfg(test)]
    pub(crate) fn gradients(&self, number: usize) -> Gradients {
        self.replicas[0].sums.iter().flatten().nth(number).expect("there is such a layer").clone()
    }

    /// Runs `rows` images, `[rows, H, W, C]`, through the first replica without training; gives the outputs before any
    /// softmax, `[rows, classes]`.
    pub fn infer(&mut self, images: &[f32]) -> &[f32] {
        let rows = images.len() / len(self.input);
        let (shared, replicas) = self.split();
        let replica = &mut replicas[0];
        replica.input_mut(rows).copy_from_slice(images);
        replica.forward(shared, rows, Pass::Test)
    }
}

/// What all replicas share while they work.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    parameters: &'a [Option<Parameters>],
    frozen: usize,
}

impl Replica {
    /// The input of the next forward pass, `[rows, H, W, C]`.
    pub fn input_mut(&mut self, rows: usize) -> &mut [f32] {
        let length = rows_of(&self.activations[0], rows, self.rows);
        &mut self.activations[0][..length]
    }

    /// Takes the images named by `indices`, at most [`Network::slice_rows`], as the input of the next forward pass.
    pub fn load(&mut self, images: &DataSet, indices: &[usize]) {
        images.load(indices, self.input_mut(indices.len()));
    }

    /// Runs the first `rows` loaded images through the layers; gives the outputs before any softmax, `[rows, classes]`.
    pub fn forward(&mut self, shared: Shared<'_>, rows: usize, mut pass: Pass<'_>) -> &[f32] {
        self.last = 0;
        if let Some(step) = self.input_step {
            let length = rows_of(&self.activations[0], rows, self.rows);
            elementwise::round_to_steps_in_place(&mut self.activations[0][..length], step);
        }
        for (index, layer) in self.layers.iter_mut().enumerate() {
            if matches!(pass, Pass::Test) && layer.only_in_training() {
                continue;
            }
            let (before, after) = self.activations.split_at_mut(index + 1);
            let output = rows_of(&after[0], rows, self.rows);
            let input = rows_of(&before[self.last], rows, self.rows);
            layer.forward(Forward {
                rows,
                parameters: shared.parameters[index].as_ref(),
                gradients: self.sums[index].as_mut().filter(|_| index >= shared.frozen),
                input: &before[self.last][..input],
                output: &mut after[0][..output],
                pass: &mut pass,
            });
            self.last = index + 1;
        }
        self.output(rows)
    }

    /// The outputs of the last forward pass, `[rows, classes]`.
    pub fn output(&self, rows: usize) -> &[f32] {
        let output = &self.activations[self.last];
        &output[..rows_of(output, rows, self.rows)]
    }

    /// The outputs of the last forward pass, and where their gradient goes before [`Self::backward`].
    pub fn output_and_gradient(&mut self, rows: usize) -> (&[f32], &mut [f32]) {
        let (output, gradient) = (&self.activations[self.last], &mut self.gradients[self.last]);
        let length = rows_of(output, rows, self.rows);
        (&output[..length], &mut gradient[..length])
    }

    /// Carries the gradient of the outputs back through the layers, adding to the gradients of the parameters. The
    /// forward pass just before must have been one for training, with the same `rows`.
    pub fn backward(&mut self, shared: Shared<'_>, rows: usize) {
        let first = self.first_learning(shared);
        for (index, layer) in self.layers.iter_mut().enumerate().skip(first).rev() {
            let (before, after) = self.gradients.split_at_mut(index + 1);
            let input = &self.activations[index];
            let output = &self.activations[index + 1];
            let input_len = rows_of(input, rows, self.rows);
            let output_len = rows_of(output, rows, self.rows);
            layer.backward(Backward {
                rows,
                parameters: shared.parameters[index].as_ref(),
                gradients: self.sums[index].as_mut(),
                input: &input[..input_len],
                output: &output[..output_len],
                output_gradient: &mut after[0][..output_len],
                // Nobody needs the gradient of what does not learn.
                input_gradient: if index == first { None } else { Some(&mut before[index][..input_len]) },
            });
        }
    }

    /// The first layer that learns: what is below it needs no gradient.
    fn first_learning(&self, shared: Shared<'_>) -> usize {
        let learns = |index: &usize| shared.parameters[*index].is_some();
        (shared.frozen..self.layers.len()).find(learns).unwrap_or(self.layers.len())
    }

    /// The gradients of layer `index`.
    ///
    /// # Panics
    /// If the layer has no parameters.
    pub(crate) fn sums_mut(&mut self, index: usize) -> &mut Gradients {
        self.sums[index].as_mut().expect("a layer with parameters has gradients")
    }

    /// Whether layer `index` is a convolution.
    pub(crate) fn is_conv2d(&self, index: usize) -> bool {
        matches!(self.layers[index].descriptor(), Some(core::Layer::Conv2d(_)))
    }

    /// See [`Layer::look_ahead`].
    pub fn look_ahead(&mut self, distance: f32) {
        self.layers.iter_mut().for_each(|layer| layer.look_ahead(distance));
    }

    /// Inserts a layer without parameters behind layer `index`, with outputs of the same shape.
    fn insert(&mut self, index: usize, layer: Box<dyn Layer>) {
        self.layers.insert(index + 1, layer);
        self.sums.insert(index + 1, None);
        self.activations.insert(index + 2, self.activations[index + 1].clone());
        self.gradients.insert(index + 2, self.gradients[index + 1].clone());
    }

    /// Removes layer `index`, whose outputs have the shape of its inputs.
    fn remove(&mut self, index: usize) {
        self.layers.remove(index);
        self.sums.remove(index);
        self.activations.remove(index + 1);
        self.gradients.remove(index + 1);
    }
}

/// Makes `layer` do what it and the batch normalisation behind it do together.
fn fold(layer: &mut Parameters, norm: &Parameters) {
    let outputs = layer.outputs;
    layer.bias.resize(outputs, 0.0);
    for output in 0..outputs {
        let (factor, summand) = BatchNorm::fold(norm, output);
        layer.weights.iter_mut().skip(output).step_by(outputs).for_each(|weight| *weight *= factor);
        layer.bias[output] = layer.bias[output] * factor + summand;
    }
    layer.refresh();
}

/// The length of `rows` images in a buffer made for `slice_rows`.
fn rows_of(buffer: &[f32], rows: usize, slice_rows: usize) -> usize {
    buffer.len() / slice_rows * rows
}

/// The number of values of one activation.
pub(crate) fn len(shape: Shape) -> usize {
    usize::from(shape.height) * usize::from(shape.width) * usize::from(shape.channels)
}

/// A layer in training, what it starts from, and the shape of its output.
struct Part {
    layer: Box<dyn Layer>,
    parameters: Option<Parameters>,
    output: Shape,
}

/// What a layer is built for.
#[derive(Clone, Copy)]
struct Context<'a> {
    /// The number of classes.
    classes: usize,
    /// Whether the layer is the first one.
    is_image: bool,
    /// The layer behind it.
    next: Option<&'a recipe::Layer>,
    quirks: &'a Quirks,
}

/// Builds one layer behind an activation of shape `input`. One with a batch normalisation becomes two: the sums, then what is
/// done with them.
fn build(
    layer: &recipe::Layer,
    input: Shape,
    Context { classes, is_image, next, quirks }: Context<'_>,
    rng: &mut RandomState,
) -> std::result::Result<Vec<Part>, core::LayerError> {
    let tanh_scale = if quirks.slope_after_dropout { 2.0 } else { 1.0 };
    let (part, norm) = match *layer {
        recipe::Layer::Dense { outputs, activation, bias, batch_norm, init } => {
            let norm = batch_norm.then(|| activation.into());
            let activation = if batch_norm { core::Activation::None } else { activation.into() };
            let outputs = outputs.unwrap_or(classes.try_into().unwrap_or(u16::MAX));
            let descriptor = core::Dense { outputs, activation, weights: core::WeightType::F32 };
            let output = core::Layer::Dense(descriptor).output(input)?;
            let parameters = Parameters::new(len(input), len(output), bias && !batch_norm, init, rng);
            let mut dense = Dense::new(descriptor);
            dense.tanh_scale = tanh_scale;
            dense.sparse_input = is_image;
            (Part { layer: Box::new(dense), parameters: Some(parameters), output }, norm)
        }
        recipe::Layer::Conv2d { filters, kernel, stride, padding, crop, activation, bias, batch_norm, init } => {
            let norm = batch_norm.then(|| activation.into());
            let descriptor = core::Conv2d {
                filters,
                kernel,
                stride,
                padding: pad(padding, crop, input, kernel, stride)?,
                pool: [1, 1],
                activation: if batch_norm { core::Activation::None } else { activation.into() },
                weights: core::WeightType::F32,
            };
            let layer = core::Layer::Conv2d(descriptor);
            let output = layer.output(input)?;
            let window = usize::from(kernel[0]) * usize::from(kernel[1]) * usize::from(input.channels);
            let mut parameters = Parameters::new(window, usize::from(filters), bias && !batch_norm, init, rng);
            let geometry = Arc::new(geometry(&layer, input, next.filter(|_| !batch_norm)));
            parameters.prepare_for(Arc::clone(&geometry), !is_image);
            let mut conv = Conv2d::new(layer, geometry);
            conv.tanh_scale = tanh_scale;
            (Part { layer: Box::new(conv), parameters: Some(parameters), output }, norm)
        }
        recipe::Layer::DepthwiseConv2d { kernel, stride, padding, activation, bias, batch_norm, init } => {
            let norm = batch_norm.then(|| activation.into());
            let descriptor = core::DepthwiseConv2d {
                kernel,
                stride,
                padding: pad(padding, Crop::default(), input, kernel, stride)?,
                activation: if batch_norm { core::Activation::None } else { activation.into() },
                weights: core::WeightType::F32,
            };
            let layer = core::Layer::DepthwiseConv2d(descriptor);
            let output = layer.output(input)?;
            let window = usize::from(kernel[0]) * usize::from(kernel[1]);
            let mut parameters = Parameters::new(window, usize::from(input.channels), bias && !batch_norm, init, rng);
            let geometry = Arc::new(geometry(&layer, input, next.filter(|_| !batch_norm)));
            parameters.prepare_for(Arc::clone(&geometry), !is_image);
            (Part { layer: Box::new(Conv2d::new(layer, geometry)), parameters: Some(parameters), output }, norm)
        }
        recipe::Layer::MaxPool2d { kernel, stride } => {
            let descriptor = core::MaxPool2d { kernel, stride: stride.unwrap_or(kernel) };
            let output = core::Layer::MaxPool2d(descriptor).output(input)?;
            (Part { layer: Box::new(MaxPool2d::new(descriptor, input)), parameters: None, output }, None)
        }
        recipe::Layer::AvgPool2d { kernel, stride } => {
            let descriptor = core::AvgPool2d { kernel, stride: stride.unwrap_or(kernel) };
            let output = core::Layer::AvgPool2d(descriptor).output(input)?;
            (Part { layer: Box::new(AvgPool2d::new(descriptor, input)), parameters: None, output }, None)
        }
        recipe::Layer::GlobalAvgPool2d => {
            let descriptor = core::AvgPool2d::global(input).ok_or(core::LayerError::TooLarge)?;
            let output = core::Layer::AvgPool2d(descriptor).output(input)?;
            (Part { layer: Box::new(AvgPool2d::new(descriptor, input)), parameters: None, output }, None)
        }
        recipe::Layer::Dropout { rate } => {
            let mut dropout = Dropout::new(rate);
            if quirks.unscaled_dropout_gradient {
                dropout.backward_scale = 1.0;
            }
            (Part { layer: Box::new(dropout), parameters: None, output: input }, None)
        }
    };
    let (channels, output) = (usize::from(part.output.channels), part.output);
    let norm = norm.map(|activation| Part {
        layer: Box::new(BatchNorm::new(channels, activation)),
        parameters: Some(BatchNorm::parameters(channels)),
        output,
    });
    Ok(std::iter::once(part).chain(norm).collect())
}

/// The geometry of a convolution with the layer `next` right behind it.
fn geometry(layer: &core::Layer, input: Shape, next: Option<&recipe::Layer>) -> Geometry {
    let geometry = Geometry::new(input, layer);
    let (Some(recipe::Layer::MaxPool2d { kernel, stride }) | Some(recipe::Layer::AvgPool2d { kernel, stride })) = next
    else {
        return geometry;
    };
    let (kernel, stride) = (kernel.map(usize::from), stride.unwrap_or(*kernel).map(usize::from));
    geometry.pooled(kernel, stride, matches!(next, Some(recipe::Layer::MaxPool2d { .. })))
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
