//! A validated view of a blob, and the walk through its layers.

use crate::align::Aligned;
#[cfg(target_os = "none")]
use crate::blob::Layers;
use crate::blob::{self, PackedTensor, Parsed};
use crate::error::{LoadError, RunError};
use crate::kernels::backend::tile::Inputs;
use crate::kernels::compiled;
#[cfg(not(target_os = "none"))]
use crate::kernels::conv2d::then_dense::{Background, ThenDense};
use crate::kernels::dense::{dense_bytes_rows, dense_rows};
use crate::kernels::int8::requantize::{Curve, Epilogue, Target};
use crate::kernels::int8::{self, quantize::Source, tensor::Int8Tensor};
use crate::kernels::windows::Geometry;
use crate::kernels::{self, Backend, Panels, Weight};
use crate::layer::{Activation, ElementType, InputSpec, Layer, Packing, Quantize, Shape, WeightType};
use crate::ops;
use crate::plan::{Memory, Split, Step, Walk};
#[cfg(not(target_os = "none"))]
use crate::plan::{Steps, WalkAgain};

/// One input of a model: values, or bytes that the model scales by its [`InputSpec`].
///
/// Slices and arrays of `f32` and `u8` turn into one.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Values, `[H, W, C]`.
    F32(&'a [f32]),
    /// Bytes, `[H, W, C]`; byte `b` stands for `b * scale + offset`.
    U8(&'a [u8]),
}

impl<'a> Input<'a> {
    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        Values::from(*self).len()
    }

    /// The `len` values from `first` on; none if there are fewer.
    pub(crate) fn part(&self, first: usize, len: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(values.get(first..).and_then(|rest| rest.get(..len)).unwrap_or_default()),
            Self::U8(bytes) => Self::U8(bytes.get(first..).and_then(|rest| rest.get(..len)).unwrap_or_default()),
        }
    }
}

impl<'a> From<&'a [f32]> for Input<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::U8(bytes)
    }
}

impl<'a, const N: usize> From<&'a [f32; N]> for Input<'a> {
    fn from(values: &'a [f32; N]) -> Self {
        Self::F32(values)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Input<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::U8(bytes)
    }
}

/// The class that a model finds most likely.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classification<'b> {
    /// The index of the largest output; the first of them if there are several.
    pub class: usize,
    /// Its label; empty if the model has none.
    pub label: &'b str,
    /// Its probability: the output of a model that ends in softmax. A model without one was trained towards outputs of 0
    /// and 1 (squared error), which estimate probabilities directly; theirs is the output, bounded to 0..1.
    pub probability: f32,
}

/// A layer as [`Model::layers`] reports it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerInfo {
    /// The descriptor.
    pub layer: Layer,
    /// Shape of the layer's input.
    pub input: Shape,
    /// Shape of the layer's output.
    pub output: Shape,
    /// Number of weights and biases.
    pub parameters: u64,
    /// Multiply-accumulate operations of one inference.
    pub macs: u64,
    /// Bytes of the packed tensor.
    pub weight_bytes: u32,
}

/// A model, ready to run: a view of a blob that was checked completely.
///
/// `OPS` is the mask of the operations that this build has (see [`ops`]); kernels that are not in it are not linked. Use
/// [`Model::load`] for all of them, [`Model::load_with_ops`] to name fewer, and
/// [`include_model!`](crate::include_model) to have the mask taken from the model itself.
///
/// Once loaded, a model cannot fail but for lengths: whatever the blob's bytes were, [`run`](Self::run) does not panic,
/// does not read or write out of bounds, and needs no more scratch memory than it says.
#[derive(Clone, Debug)]
pub struct Model<'b, const OPS: u32 = { ops::ALL }> {
    parsed: Parsed<'b, OPS>,
    #[cfg(not(target_os = "none"))]
    steps: Steps<'b>,
    backend: Backend,
}

impl<'b> Model<'b> {
    /// Checks a blob and makes a model of it, with every operation that this library has.
    ///
    /// The blob must start on a 64-byte boundary, as an [`Aligned`] does. Its weights are used where they are.
    ///
    /// # Errors
    /// [`LoadError`] says what is wrong with the blob. Any bytes at all may be given.
    pub fn load(blob: &'b [u8]) -> Result<Self, LoadError> {
        Self::load_with_ops(blob)
    }
}

impl<'b, const OPS: u32> Model<'b, OPS> {
    /// [`load`](Model::load) for a build with the operations `OPS` only.
    ///
    /// # Errors
    /// [`LoadError`] says what is wrong with the blob; [`LoadError::UnsupportedOps`] if it needs more than `OPS`.
    ///
    /// ```
    /// use thumbnet::{LoadError, Model, ops};
    /// type DenseOnly<'b> = Model<'b, { ops::DENSE | ops::WEIGHTS_F32 }>;
    /// assert!(matches!(DenseOnly::load_with_ops(b"no model"), Err(LoadError::TooShort { .. })));
    /// ```
    pub fn load_with_ops(blob: &'b [u8]) -> Result<Self, LoadError> {
        let parsed = blob::parse(blob)?;
        Ok(Self {
            #[cfg(not(target_os = "none"))]
            steps: Steps::new(Walk::<_, OPS>::new(parsed.input.shape, parsed.layers).steps(), |step| {
                tensor::<OPS>(parsed.weights, step)
            }),
            parsed,
            backend: Backend::best(),
        })
    }

    /// The same model on another backend.
    #[must_use]
    pub fn with_backend(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// The backend that the model runs on.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Shape and normalisation of the input.
    #[must_use]
    pub fn input(&self) -> &InputSpec {
        &self.parsed.input
    }

    /// The number of input values.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.parsed.plan.input_len as usize
    }

    /// The number of output values.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.parsed.plan.output_len as usize
    }

    /// The scratch memory that a run needs, in bytes.
    #[must_use]
    pub fn scratch_bytes(&self) -> usize {
        self.parsed.plan.scratch_bytes as usize
    }

    /// The bytes of the weight section.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.parsed.plan.weight_bytes as usize
    }

    /// The operations that the model needs: see [`ops`].
    #[must_use]
    pub fn ops(&self) -> u32 {
        self.parsed.plan.ops
    }

    /// The label of a class; empty if the model has none.
    #[must_use]
    pub fn label(&self, class: usize) -> &'b str {
        blob::labels_in(self.parsed.labels).nth(class).unwrap_or_default()
    }

    /// The labels of all classes, in their order; none at all if the model has none.
    pub fn labels(&self) -> impl Iterator<Item = &'b str> {
        blob::labels_in(self.parsed.labels)
    }

    /// Whether the outputs are probabilities: whether the last layer is softmax.
    #[must_use]
    pub fn ends_with_softmax(&self) -> bool {
        matches!(self.parsed.layers.last(), Some(Layer::Softmax))
    }

    /// The layers, first to last, with their shapes and costs.
    pub fn layers(&self) -> impl Iterator<Item = LayerInfo> + '_ {
        self.walk().steps().map(|step| {
            let (inputs, outputs) = step.layer.weight_matrix::<OPS>(step.input).unwrap_or((0, 0));
            LayerInfo {
                layer: step.layer,
                input: step.input,
                output: step.output,
                parameters: (u64::from(inputs) + 1) * u64::from(outputs),
                macs: step.layer.macs(step.input),
                weight_bytes: step.tensor_bytes,
            }
        })
    }

    /// The parameters of the layers that have some, in the order of the layers: what [`blob::encode`] takes, but packed.
    pub fn tensors(&self) -> impl Iterator<Item = PackedTensor<'b>> + '_ {
        self.walk().steps().filter_map(|step| tensor::<OPS>(self.parsed.weights, &step))
    }

    /// Runs the model on one input and returns its outputs, which lie in `scratch`.
    ///
    /// `scratch` must have [`scratch_bytes`](Self::scratch_bytes) bytes or more; its contents do not matter.
    ///
    /// # Errors
    /// [`RunError`] if a length does not fit.
    pub fn run<'i, 's>(
        &self,
        input: impl Into<Input<'i>>,
        scratch: &'s mut Aligned<[u8]>,
    ) -> Result<&'s [f32], RunError> {
        self.run_checked(Values::from(input.into()), scratch, self.parsed.layers.len())
    }

    /// [`run`](Self::run) without a final softmax: the values that softmax would turn into probabilities.
    ///
    /// # Errors
    /// [`RunError`] if a length does not fit.
    pub fn logits<'i, 's>(
        &self,
        input: impl Into<Input<'i>>,
        scratch: &'s mut Aligned<[u8]>,
    ) -> Result<&'s [f32], RunError> {
        self.run_checked(Values::from(input.into()), scratch, self.layers_to_logits())
    }

    /// Runs the model on many inputs that lie one behind the other, and writes their outputs one behind the other.
    ///
    /// As many inputs are computed at a time as `scratch` has room for: each takes [`scratch_bytes`](Self::scratch_bytes)
    /// of it. Dense layers are much faster for some dozens at a time, since each weight is read once for several inputs.
    ///
    /// # Errors
    /// [`RunError`] if the inputs are not a multiple of [`input_len`](Self::input_len) values, if the outputs are not
    /// exactly as many as they make, or if `scratch` has no room for even one input.
    pub fn run_batch<'i>(
        &self,
        inputs: impl Into<Input<'i>>,
        scratch: &mut Aligned<[u8]>,
        outputs: &mut [f32],
    ) -> Result<(), RunError> {
        self.run_batch_checked(Values::from(inputs.into()), scratch, outputs, self.parsed.layers.len())
    }

    /// [`run_batch`](Self::run_batch) without a final softmax.
    ///
    /// # Errors
    /// As of [`run_batch`](Self::run_batch).
    pub fn logits_batch<'i>(
        &self,
        inputs: impl Into<Input<'i>>,
        scratch: &mut Aligned<[u8]>,
        outputs: &mut [f32],
    ) -> Result<(), RunError> {
        self.run_batch_checked(Values::from(inputs.into()), scratch, outputs, self.layers_to_logits())
    }

    /// Runs the model on one input and returns the class with the largest output.
    ///
    /// # Errors
    /// [`RunError`] if a length does not fit.
    pub fn classify<'i>(
        &self,
        input: impl Into<Input<'i>>,
        scratch: &mut Aligned<[u8]>,
    ) -> Result<Classification<'b>, RunError> {
        let outputs = self.run(input, scratch)?;
        Ok(self.classification(outputs))
    }

    pub(crate) fn classification(&self, outputs: &[f32]) -> Classification<'b> {
        let mut best = (0, f32::NEG_INFINITY);
        for (class, output) in outputs.iter().enumerate() {
            if *output > best.1 {
                best = (class, *output);
            }
        }
        let (class, output) = best;
        Classification { class, label: self.label(class), probability: output.clamp(0.0, 1.0) }
    }

    /// The number of layers without a final softmax.
    fn layers_to_logits(&self) -> usize {
        self.parsed.layers.len() - usize::from(self.ends_with_softmax())
    }

    /// No step is an error: loading took the same walk.
    #[cfg(target_os = "none")]
    #[inline(always)]
    fn walk(&self) -> Walk<Layers<'b, OPS>, OPS> {
        Walk::new(self.parsed.input.shape, self.parsed.layers)
    }

    /// No step is an error: loading took the same walk.
    #[cfg(not(target_os = "none"))]
    #[inline(always)]
    fn walk(&self) -> WalkAgain<'_> {
        self.steps.walk()
    }

    /// `layers` is the number of layers to run: all, or all but the softmax at the end.
    fn run_checked<'s>(
        &self,
        input: Values<'_>,
        scratch: &'s mut Aligned<[u8]>,
        layers: usize,
    ) -> Result<&'s [f32], RunError> {
        if input.len() != self.input_len() {
            return Err(RunError::WrongInputLength { found: input.len(), expected: self.input_len() });
        }
        let too_small = RunError::ScratchTooSmall { found: scratch.len(), needed: self.scratch_bytes() };
        let arena = arena(scratch, self.scratch_bytes()).ok_or(too_small)?;
        let mut kept = NOTHING_YET;
        self.execute(1, input, arena, layers, &mut kept).ok_or(too_small)
    }

    fn run_batch_checked(
        &self,
        mut inputs: Values<'_>,
        scratch: &mut Aligned<[u8]>,
        outputs: &mut [f32],
        layers: usize,
    ) -> Result<(), RunError> {
        let (found, input_len, output_len) = (inputs.len(), self.input_len(), self.output_len());
        let count = found.checked_div(input_len).unwrap_or(0);
        if count * input_len != found {
            return Err(RunError::WrongInputLength { found, expected: input_len });
        }
        if outputs.len() != count * output_len {
            return Err(RunError::WrongOutputLength { found: outputs.len(), expected: count * output_len });
        }
        let too_small = RunError::ScratchTooSmall { found: scratch.len(), needed: self.scratch_bytes() };
        let at_a_time = scratch.len().checked_div(self.scratch_bytes()).filter(|room| *room > 0).ok_or(too_small)?;
        let mut kept = NOTHING_YET;
        for outputs in outputs.chunks_mut((at_a_time * output_len).max(1)) {
            let rows = outputs.len().checked_div(output_len).unwrap_or(0);
            let (these, others) = inputs.split_at(rows * input_len);
            let arena = arena(scratch, rows * self.scratch_bytes()).ok_or(too_small)?;
            let made = self.execute(rows, these, arena, layers, &mut kept).ok_or(too_small)?;
            outputs.iter_mut().zip(made).for_each(|(to, made)| *to = *made);
            inputs = others;
        }
        Ok(())
    }

    /// The walk itself, for `rows` inputs. `None` if the arena is too small, which the plan rules out.
    #[inline(always)]
    fn execute<'s>(
        &self,
        rows: usize,
        input: Values<'_>,
        arena: &'s mut [u32],
        layers: usize,
        kept: &mut Kept,
    ) -> Option<&'s [f32]> {
        #[cfg(target_os = "none")]
        let Kept = kept;
        let (mut held, mut before, mut element) = (0, 0, ElementType::F32);
        // Whether what the layer before has left are this layer's outputs.
        #[cfg(not(target_os = "none"))]
        let mut computed = false;
        let mut walk = self.walk();
        for index in 0..layers {
            let Some(Ok(step)) = walk.advance() else { break };
            if step.memory == Memory::Untouched {
                continue;
            }
            let words_before = step.words_before::<OPS>(rows);
            let made = words_before + step.output_words(rows);
            let Split { source, workspace, target } = step.split(arena, held, made)?;
            if step.memory == Memory::InPlace {
                let row = (held / rows.max(1)).max(1);
                self.overwrite(step, bytemuck::cast_slice_mut(target), row);
                continue;
            }
            let source = source.get(before..).unwrap_or_default();
            let source = match element {
                _ if held == 0 => input,
                _ if step.memory == Memory::Over => Values::Within(before * 4),
                ElementType::F32 => Values::F32(bytemuck::cast_slice(source)),
                ElementType::Int8 => Values::Int8(bytemuck::cast_slice(source)),
            };
            let target = target.get_mut(words_before..)?;
            #[cfg_attr(target_os = "none", expect(unused_mut, reason = "only hosts compute two layers at a time"))]
            let mut target = match step.output_type {
                ElementType::F32 => Target::F32(bytemuck::cast_slice_mut(target)),
                ElementType::Int8 => Target::Int8(bytemuck::cast_slice_mut(target)),
            };
            let tensor = self.tensor(index, step);
            #[cfg(not(target_os = "none"))]
            if let (true, Values::F32(outputs), Target::F32(out)) = (computed, source, &mut target) {
                computed = false;
                out.iter_mut().zip(outputs).for_each(|(to, output)| *to = *output);
                self.activate(step.layer.activation(), out);
                (held, before, element) = (made, words_before, step.output_type);
                continue;
            }
            #[cfg(not(target_os = "none"))]
            if let (true, Some(next), Target::F32(room)) = (held == 0 && index + 1 < layers, walk.peek(), &mut target)
                && let (Some(first), Some(second)) = (tensor.as_ref(), self.tensor(index + 1, next).as_ref())
                && self.two_layers(rows, (step, first), (next, second), source, room, kept)
            {
                computed = true;
                (held, before, element) = (made, words_before, step.output_type);
                continue;
            }
            self.layer(rows, step, tensor.as_ref(), source, workspace, target)?;
            (held, before, element) = (made, words_before, step.output_type);
        }
        walk.activation(arena, held).map(bytemuck::cast_slice)
    }

    /// The parameters of the layer of that index, to which the walk has come with `step`.
    #[cfg(target_os = "none")]
    #[inline(always)]
    fn tensor(&self, _: usize, step: &Step) -> Option<PackedTensor<'b>> {
        tensor::<OPS>(self.parsed.weights, step)
    }

    /// The parameters of the layer of that index.
    #[cfg(not(target_os = "none"))]
    #[inline(always)]
    fn tensor(&self, index: usize, _: &Step) -> &Option<PackedTensor<'b>> {
        self.steps.tensor(index)
    }

    /// Runs a layer that overwrites its input, every `row` values for themselves.
    fn overwrite(&self, step: &Step, values: &mut [f32], row: usize) {
        if OPS & ops::SOFTMAX != 0 && matches!(step.layer, Layer::Softmax) {
            kernels::softmax_rows(self.backend, values, row);
        }
    }

    /// Runs a convolution over images and the dense layer behind it together, if that is worth it: the outputs are at the beginning
    /// of `room` then.
    #[cfg(not(target_os = "none"))]
    fn two_layers(
        &self,
        rows: usize,
        first: (&Step, &PackedTensor<'_>),
        second: (&Step, &PackedTensor<'_>),
        images: Values<'_>,
        room: &mut [f32],
        kept: &mut Kept,
    ) -> bool {
        const NEEDED: u32 = ops::CONV2D | ops::DENSE;
        let ((conv, filters), (dense, weights)) = (first, second);
        if OPS & NEEDED != NEEDED || rows < MIN_ROWS_OF_TWO_LAYERS {
            return false;
        }
        let done = match (filters, weights) {
            (PackedTensor::F32(filters), PackedTensor::F32(weights)) if OPS & ops::WEIGHTS_F32 != 0 => {
                self.two_layers_of(rows, (conv, *filters), (dense, *weights), images, room, kept)
            }
            (PackedTensor::F16(filters), PackedTensor::F16(weights)) if OPS & ops::WEIGHTS_F16 != 0 => {
                self.two_layers_of(rows, (conv, *filters), (dense, *weights), images, room, kept)
            }
            _ => None,
        };
        done.is_some()
    }

    #[cfg(not(target_os = "none"))]
    fn two_layers_of<W: Weight>(
        &self,
        rows: usize,
        (step, filters): (&Step, Panels<'_, W>),
        (next, weights): (&Step, Panels<'_, W>),
        mut images: Values<'_>,
        room: &mut [f32],
        kept: &mut Kept,
    ) -> Option<()> {
        let (Layer::Conv2d(conv), Layer::Dense(dense)) = (&step.layer, &next.layer) else { return None };
        let (read, made) = (step.read as usize, step.made as usize);
        let layers = ThenDense::new((conv, filters, floor(conv.activation)), (step.input, step.output), weights)?;
        if kept.is_none() {
            let (image, _) = images.split_at(read);
            if !self.with_f32(image, |image| layers.suits(self.backend, image))? {
                return None;
            }
            let activate = |values: &mut [f32]| self.activate(conv.activation, values);
            *kept = layers.background(self.backend, activate, room.get_mut(..made)?);
        }
        let background = kept.as_ref()?;
        let least = floor(dense.activation);
        // The outputs come first. All images are worked on in the last one's room, which the first-level cache soon holds.
        let (outputs, room) = room.get_mut(..rows * made)?.split_at_mut_checked((rows - 1) * made)?;
        let width = weights.outputs();
        for (row, out) in outputs.get_mut(..rows * width)?.chunks_exact_mut(width.max(1)).enumerate() {
            let (image, others) = images.split_at(read);
            let run = |values: &[f32]| layers.run(self.backend, values, background, least, room, out);
            if !self.with_f32(image, run)? {
                if row == 0 {
                    return None;
                }
                self.convolution(step, image, filters, Target::F32(room))?;
                dense_rows(self.backend, 1, room, weights, least, out);
            }
            images = others;
        }
        Some(())
    }

    /// What `run` makes of values, or of those that bytes stand for; `None` if these are too many.
    #[cfg(not(target_os = "none"))]
    fn with_f32<R>(&self, values: Values<'_>, run: impl FnOnce(&[f32]) -> R) -> Option<R> {
        match values {
            Values::F32(values) => Some(run(values)),
            Values::U8(bytes) => {
                let mut room = [0.0; 4096];
                let values = room.get_mut(..bytes.len())?;
                self.scaled(bytes).convert(values);
                Some(run(values))
            }
            Values::Int8(_) | Values::Within(_) => None,
        }
    }

    /// Runs one layer for `rows` inputs, from `source` to `target`.
    #[inline(always)]
    fn layer(
        &self,
        rows: usize,
        step: &Step,
        tensor: Option<&PackedTensor<'_>>,
        mut source: Values<'_>,
        workspace: &mut [u32],
        mut target: Target<'_>,
    ) -> Option<()> {
        let (read, made) = (step.read as usize, step.made as usize);
        if let Layer::Dense(dense) = step.layer {
            return if OPS & ops::DENSE != 0 {
                self.dense(rows, step, dense.activation, tensor?, source, workspace, target)
            } else {
                None
            };
        }
        if rows == 1 || matches!(step.layer, Layer::Quantize(_)) {
            return self.image_layer(step, tensor, source, workspace, target);
        }
        for row in 0..rows {
            let (image, others) = source.split_at(read);
            let (image, room) = match image {
                // Counted from this image's outputs on.
                Values::Within(first) => (Values::Within(first.checked_sub(row * made)?), usize::MAX),
                image => (image, made),
            };
            self.image_layer(step, tensor, image, workspace, target.part(row * made, room))?;
            source = others;
        }
        Some(())
    }

    /// Runs one of the layers that take one input at a time.
    fn image_layer(
        &self,
        step: &Step,
        tensor: Option<&PackedTensor<'_>>,
        x: Values<'_>,
        workspace: &mut [u32],
        out: Target<'_>,
    ) -> Option<()> {
        match &step.layer {
            Layer::Conv2d(_) | Layer::DepthwiseConv2d(_) => match tensor? {
                PackedTensor::F32(weights) if OPS & ops::WEIGHTS_F32 != 0 => self.convolution(step, x, *weights, out),
                PackedTensor::F16(weights) if OPS & ops::WEIGHTS_F16 != 0 => self.convolution(step, x, *weights, out),
                PackedTensor::Int8(tensor) if OPS & ops::WEIGHTS_INT8 != 0 => {
                    self.convolution_int8(step, x, tensor, workspace, out)
                }
                _ => None,
            },
            Layer::MaxPool2d(pool) if OPS & ops::MAX_POOL2D != 0 => {
                let shapes = (step.input, step.output);
                match (x, out) {
                    (Values::F32(x), Target::F32(out)) => {
                        kernels::max_pool2d::max_pool2d(Inputs::plain(x), pool, shapes, out)
                    }
                    (Values::U8(x), Target::F32(out)) => {
                        kernels::max_pool2d::max_pool2d(self.scaled(x), pool, shapes, out);
                    }
                    (Values::Int8(x), Target::Int8(out)) if OPS & ops::QUANTIZE != 0 => {
                        let (x, out) = (x.get(..step.read as usize)?, out.get_mut(..step.made as usize)?);
                        kernels::max_pool2d::max_pool2d_int8(x, pool, shapes, out);
                    }
                    _ => return None,
                }
                Some(())
            }
            Layer::AvgPool2d(pool) if OPS & ops::AVG_POOL2D != 0 => {
                let shapes = (step.input, step.output);
                match (x, out) {
                    (Values::F32(x), Target::F32(out)) => {
                        kernels::avg_pool2d::avg_pool2d(Inputs::plain(x), pool, shapes, out);
                    }
                    (Values::U8(x), Target::F32(out)) => {
                        kernels::avg_pool2d::avg_pool2d(self.scaled(x), pool, shapes, out);
                    }
                    (Values::Int8(x), Target::Int8(out)) if OPS & ops::QUANTIZE != 0 => {
                        let (x, out) = (x.get(..step.read as usize)?, out.get_mut(..step.made as usize)?);
                        kernels::avg_pool2d::avg_pool2d_int8(x, pool, shapes, out);
                    }
                    _ => return None,
                }
                Some(())
            }
            // Folded weights of a first layer quantise on the way.
            Layer::Quantize(quantize) if OPS & ops::QUANTIZE != 0 && OPS & QUANTIZED_FIRST != 0 => {
                let Target::Int8(out) = out else { return None };
                int8::quantize(self.backend, x.quantized(Some(quantize))?, out);
                Some(())
            }
            _ => None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a part of its only caller")]
    #[inline(always)]
    fn dense(
        &self,
        rows: usize,
        step: &Step,
        activation: Activation,
        tensor: &PackedTensor<'_>,
        x: Values<'_>,
        workspace: &mut [u32],
        out: Target<'_>,
    ) -> Option<()> {
        match (tensor, out) {
            (PackedTensor::F32(weights), Target::F32(out)) if OPS & ops::WEIGHTS_F32 != 0 => {
                self.dense_f32(rows, activation, x, *weights, out)
            }
            (PackedTensor::F16(weights), Target::F32(out)) if OPS & ops::WEIGHTS_F16 != 0 => {
                self.dense_f32(rows, activation, x, *weights, out)
            }
            (PackedTensor::Int8(tensor), out) if OPS & ops::WEIGHTS_INT8 != 0 => self.dense_int8(
                rows,
                x.quantized(step.quantize.as_ref())?,
                tensor,
                self.epilogue(activation, tensor),
                workspace,
                out,
            ),
            _ => None,
        }
    }

    /// A dense layer with floating-point weights.
    #[inline(always)]
    fn dense_f32<W: Weight>(
        &self,
        rows: usize,
        activation: Activation,
        x: Values<'_>,
        weights: Panels<'_, W>,
        out: &mut [f32],
    ) -> Option<()> {
        match x {
            Values::F32(x) => dense_rows(self.backend, rows, x, weights, floor(activation), out),
            Values::U8(x) => {
                let InputSpec { scale, offset, .. } = self.parsed.input;
                dense_bytes_rows(self.backend, rows, x, (scale, offset), weights, floor(activation), out);
            }
            Values::Int8(_) | Values::Within(_) => return None,
        }
        self.activate(activation, out);
        Some(())
    }

    #[inline(always)]
    fn dense_int8(
        &self,
        rows: usize,
        x: Source<'_>,
        tensor: &Int8Tensor<'_>,
        epilogue: Epilogue,
        workspace: &mut [u32],
        mut out: Target<'_>,
    ) -> Option<()> {
        match tensor.packing() {
            Packing::Grouped if OPS & ops::WEIGHTS_INT8_GROUPED != 0 => {
                let x = x.ready()?.get(..rows * tensor.inputs())?;
                let out = out.part(0, rows * tensor.outputs());
                int8::dense_grouped(self.backend, x, tensor, &epilogue, out);
            }
            Packing::Folded if OPS & ops::WEIGHTS_INT8_FOLDED != 0 && rows == 1 => {
                int8::dense::dense_folded(x, tensor, &epilogue, workspace, out)?;
            }
            Packing::Folded if OPS & ops::WEIGHTS_INT8_FOLDED != 0 => {
                for row in 0..rows {
                    let x = x.part(row * tensor.inputs(), tensor.inputs());
                    let out = out.part(row * tensor.outputs(), tensor.outputs());
                    int8::dense::dense_folded(x, tensor, &epilogue, workspace, out)?;
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// A convolution, depthwise or not, with floating-point weights.
    #[inline(always)]
    fn convolution<W: Weight>(
        &self,
        step: &Step,
        x: Values<'_>,
        weights: Panels<'_, W>,
        out: Target<'_>,
    ) -> Option<()> {
        let Target::F32(out) = out else { return None };
        match x {
            Values::F32(x) => self.convolution_of(step, Inputs::plain(x), weights, out)?,
            Values::U8(x) => self.convolution_of(step, self.scaled(x), weights, out)?,
            Values::Int8(_) | Values::Within(_) => return None,
        }
        Some(())
    }

    #[inline(always)]
    fn convolution_of<E: compiled::Input, W: Weight>(
        &self,
        step: &Step,
        x: Inputs<'_, E>,
        weights: Panels<'_, W>,
        out: &mut [f32],
    ) -> Option<()> {
        let (backend, shapes) = (self.backend, (step.input, step.output));
        let activated = match &step.layer {
            Layer::Conv2d(conv) if OPS & ops::CONV2D != 0 => {
                kernels::conv2d::conv2d(backend, x, conv, shapes, weights, floor(conv.activation), &mut *out)
            }
            Layer::DepthwiseConv2d(conv) if OPS & ops::DEPTHWISE_CONV2D != 0 => {
                let floor = floor(conv.activation);
                kernels::depthwise_conv2d::depthwise_conv2d(backend, x, conv, shapes, weights, floor, &mut *out);
                false
            }
            _ => return None,
        };
        if !activated {
            self.activate(step.layer.activation(), out);
        }
        Some(())
    }

    #[inline(always)]
    fn convolution_int8(
        &self,
        step: &Step,
        x: Values<'_>,
        tensor: &Int8Tensor<'_>,
        workspace: &mut [u32],
        mut out: Target<'_>,
    ) -> Option<()> {
        const GROUPED: u32 = ops::CONV2D | ops::WEIGHTS_INT8_GROUPED;
        const FOLDED: u32 = ops::CONV2D | ops::WEIGHTS_INT8_FOLDED;
        let (x, input, output) = (x.quantized(step.quantize.as_ref())?, step.input, step.output);
        let epilogue = self.epilogue(step.layer.activation(), tensor);
        match (&step.layer, tensor.packing()) {
            (Layer::Conv2d(conv), Packing::Grouped) if OPS & GROUPED == GROUPED => {
                let geometry = Geometry::new(conv, input, output);
                let (x, out) = (x.ready()?.get(..step.read as usize)?, out.part(0, step.made as usize));
                int8::conv2d_grouped(self.backend, x, geometry, tensor, &epilogue, workspace, out);
            }
            (Layer::Conv2d(conv), Packing::Folded) if OPS & FOLDED == FOLDED => {
                int8::conv2d::conv2d_folded(x, conv, (input, output), tensor, &epilogue, workspace, out)?;
            }
            (Layer::DepthwiseConv2d(conv), _) if OPS & ops::DEPTHWISE_CONV2D != 0 => {
                let geometry = Geometry::depthwise(conv, input, output);
                let (x, out) = (x.ready()?.get(..step.read as usize)?, out.part(0, step.made as usize));
                int8::depthwise_conv2d::depthwise_conv2d(x, geometry, tensor, &epilogue, out);
            }
            _ => return None,
        }
        Some(())
    }

    /// What int8 sums become.
    fn epilogue(&self, activation: Activation, tensor: &Int8Tensor<'_>) -> Epilogue {
        let (curve, argument) = match activation {
            Activation::Relu => (None, 0),
            Activation::Tanh if OPS & ops::TANH != 0 => (Some(Curve::TANH), 0),
            Activation::Sigmoid if OPS & ops::SIGMOID != 0 => (Some(Curve::SIGMOID), 0),
            Activation::Relu6 if OPS & ops::RELU6 != 0 => (tensor.is_bounded().then_some(Curve::RELU6), 0),
            Activation::LeakyRelu(slope) if OPS & ops::LEAKY_RELU != 0 => {
                (Some(Curve::LEAKY_RELU), slope.to_bits().into())
            }
            _ => (None, -127),
        };
        Epilogue { curve, argument }
    }

    /// Bytes of the input, with what they stand for.
    fn scaled<'i>(&self, bytes: &'i [u8]) -> Inputs<'i, u8> {
        Inputs { values: bytes, scale: self.parsed.input.scale, offset: self.parsed.input.offset }
    }

    /// The part of an activation that is more than a bound.
    fn activate(&self, activation: Activation, values: &mut [f32]) {
        match activation {
            Activation::Tanh if OPS & ops::TANH != 0 => kernels::tanh(self.backend, values),
            Activation::Sigmoid if OPS & ops::SIGMOID != 0 => kernels::sigmoid(self.backend, values),
            Activation::Relu6 if OPS & ops::RELU6 != 0 => kernels::relu6(self.backend, values),
            Activation::LeakyRelu(slope) if OPS & ops::LEAKY_RELU != 0 => {
                kernels::leaky_relu(self.backend, values, slope.value());
            }
            _ => {}
        }
    }
}

/// The parameters of a layer; `None` if it has none, or if this build has no kernels for their type.
#[inline(never)]
fn tensor<'b, const OPS: u32>(weights: &'b [u8], step: &Step) -> Option<PackedTensor<'b>> {
    let weight_type = step.layer.weight_type()?;
    let bytes = weights.get(step.tensor_offset as usize..)?.get(..step.tensor_bytes as usize)?;
    match weight_type {
        WeightType::F32 if OPS & ops::WEIGHTS_F32 != 0 => {
            let (inputs, outputs) = step.layer.weight_matrix::<OPS>(step.input)?;
            Panels::new(bytes, inputs as usize, outputs as usize).map(PackedTensor::F32)
        }
        WeightType::F16 if OPS & ops::WEIGHTS_F16 != 0 => {
            let (inputs, outputs) = step.layer.weight_matrix::<OPS>(step.input)?;
            Panels::new(bytes, inputs as usize, outputs as usize).map(PackedTensor::F16)
        }
        WeightType::Int8(packing) if OPS & ops::WEIGHTS_INT8 != 0 => {
            Int8Tensor::new(bytes, step.layer.sums::<OPS>(step.input)?, packing).map(PackedTensor::Int8)
        }
        _ => None,
    }
}

/// What may come behind a quantisation that is a step of its own.
const QUANTIZED_FIRST: u32 = ops::WEIGHTS_INT8_GROUPED | ops::DEPTHWISE_CONV2D | ops::MAX_POOL2D | ops::AVG_POOL2D;

/// What is computed once for all inputs of a batch.
#[cfg(not(target_os = "none"))]
type Kept = Option<Background>;
#[cfg(not(target_os = "none"))]
const NOTHING_YET: Kept = None;
#[cfg(target_os = "none")]
struct Kept;
#[cfg(target_os = "none")]
const NOTHING_YET: Kept = Kept;

/// The fewest inputs for which two layers may be computed together: what that takes once is less than what it saves then.
#[cfg(not(target_os = "none"))]
const MIN_ROWS_OF_TWO_LAYERS: usize = 8;

/// What a layer reads.
#[derive(Clone, Copy)]
enum Values<'a> {
    F32(&'a [f32]),
    /// Bytes of the model's input.
    U8(&'a [u8]),
    Int8(&'a [i8]),
    /// Int8 activations in the target's memory, from that value on.
    Within(usize),
}

impl<'a> From<Input<'a>> for Values<'a> {
    fn from(input: Input<'a>) -> Self {
        match input {
            Input::F32(values) => Self::F32(values),
            Input::U8(bytes) => Self::U8(bytes),
        }
    }
}

impl<'a> Values<'a> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::U8(bytes) => bytes.len(),
            Self::Int8(values) => values.len(),
            Self::Within(_) => 0,
        }
    }

    /// The first `len` values, and the others; nothing of what there is less than `len` of.
    #[inline(always)]
    fn split_at(self, len: usize) -> (Self, Self) {
        match self {
            Self::F32(values) => {
                let (first, others) = values.split_at_checked(len).unwrap_or_default();
                (Self::F32(first), Self::F32(others))
            }
            Self::U8(bytes) => {
                let (first, others) = bytes.split_at_checked(len).unwrap_or_default();
                (Self::U8(first), Self::U8(others))
            }
            Self::Int8(values) => {
                let (first, others) = values.split_at_checked(len).unwrap_or_default();
                (Self::Int8(first), Self::Int8(others))
            }
            Self::Within(first) => (self, Self::Within(first + len)),
        }
    }

    /// The values as int8 activations: those that are not are quantised as `how` says.
    fn quantized(self, how: Option<&'a Quantize>) -> Option<Source<'a>> {
        match (self, how) {
            (Self::Int8(values), _) => Some(Source::Int8(values)),
            (Self::Within(first), _) => Some(Source::Within(first)),
            (Self::U8(bytes), Some(how)) => Some(Source::Bytes(bytes, how)),
            (Self::F32(values), Some(how)) => Some(Source::F32(values, how)),
            (_, None) => None,
        }
    }
}

/// The first `bytes` of the scratch memory, as words; `None` if there are fewer.
fn arena(scratch: &mut Aligned<[u8]>, bytes: usize) -> Option<&mut [u32]> {
    bytemuck::try_cast_slice_mut(scratch.0.get_mut(..bytes)?).ok()
}

/// The least value that a kernel's epilogue lets through.
fn floor(activation: Activation) -> f32 {
    match activation {
        Activation::Relu | Activation::Relu6 => 0.0,
        Activation::None | Activation::Tanh | Activation::Sigmoid | Activation::LeakyRelu(_) => f32::NEG_INFINITY,
    }
}
