//! A validated view of a blob, and the walk through its layers.

use crate::align::Aligned;
use crate::blob::{self, PackedTensor, Parsed};
use crate::error::{LoadError, RunError};
use crate::kernels::backend::tile::{Element, Inputs};
use crate::kernels::dense::{dense_bytes_rows, dense_rows};
use crate::kernels::{self, Backend, Panels, Weight};
use crate::layer::{Activation, Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, MaxPool2d, Shape, WeightType};
use crate::ops;
use crate::plan::{self, Place, Step, Steps};
use half::f16;

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
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::U8(bytes) => bytes.len(),
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerInfo<'m> {
    /// The descriptor.
    pub layer: &'m Layer,
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
    parsed: Parsed<'b>,
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
        match parsed.plan.ops & !OPS {
            0 => Ok(Self { parsed, backend: Backend::best() }),
            missing => Err(LoadError::UnsupportedOps { missing }),
        }
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
    pub fn layers(&self) -> impl Iterator<Item = LayerInfo<'_>> {
        self.steps().map(|step| {
            let (inputs, outputs) = step.layer.weight_matrix(step.input).unwrap_or((0, 0));
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
    pub fn tensors(&self) -> impl Iterator<Item = PackedTensor<'b>> {
        self.steps().filter_map(|step| match step.layer.weight_type()? {
            WeightType::F32 => self.tensor(&step).map(PackedTensor::F32),
            WeightType::F16 => self.tensor(&step).map(PackedTensor::F16),
        })
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
        self.run_checked(input.into(), scratch, self.parsed.layers.len())
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
        self.run_checked(input.into(), scratch, self.layers_to_logits())
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
        self.run_batch_checked(inputs.into(), scratch, outputs, self.parsed.layers.len())
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
        self.run_batch_checked(inputs.into(), scratch, outputs, self.layers_to_logits())
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

    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        // No step is an error: loading took the same walk.
        Steps::new(self.parsed.input.shape, &self.parsed.layers).map_while(Result::ok)
    }

    /// `layers` is the number of layers to run: all, or all but the softmax at the end.
    fn run_checked<'s>(
        &self,
        input: Input<'_>,
        scratch: &'s mut Aligned<[u8]>,
        layers: usize,
    ) -> Result<&'s [f32], RunError> {
        if input.len() != self.input_len() {
            return Err(RunError::WrongInputLength { found: input.len(), expected: self.input_len() });
        }
        let too_small = RunError::ScratchTooSmall { found: scratch.len(), needed: self.scratch_bytes() };
        self.execute(1, input, arena(scratch, self.scratch_bytes()).ok_or(too_small)?, layers).ok_or(too_small)
    }

    fn run_batch_checked(
        &self,
        mut inputs: Input<'_>,
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
        for outputs in outputs.chunks_mut((at_a_time * output_len).max(1)) {
            let rows = outputs.len().checked_div(output_len).unwrap_or(0);
            let (these, others) = inputs.split_at(rows * input_len);
            let arena = arena(scratch, rows * self.scratch_bytes()).ok_or(too_small)?;
            let made = self.execute(rows, these, arena, layers).ok_or(too_small)?;
            outputs.iter_mut().zip(made).for_each(|(to, made)| *to = *made);
            inputs = others;
        }
        Ok(())
    }

    /// The walk itself, for `rows` inputs. `None` if the arena is too small, which the plan rules out.
    #[inline(always)]
    fn execute<'s>(&self, rows: usize, input: Input<'_>, arena: &'s mut [f32], layers: usize) -> Option<&'s [f32]> {
        let mut place = Place::Input;
        let mut held = 0;
        for step in self.steps().take(layers) {
            let made = rows * step.output.elements()? as usize;
            if plan::in_place(step.layer) {
                let (values, _, _) = plan::split(arena, place, held, 0)?;
                values.chunks_exact_mut((held / rows.max(1)).max(1)).for_each(|values| self.overwrite(&step, values));
            } else {
                let (source, target, end) = plan::split(arena, place, held, made)?;
                let source = if place == Place::Input { input } else { Input::F32(source) };
                self.layer(rows, &step, source, target)?;
                place = end;
            }
            held = made;
        }
        let (outputs, _, _) = plan::split(arena, place, held, 0)?;
        Some(outputs)
    }

    /// Runs a layer that overwrites its input.
    fn overwrite(&self, step: &Step<'_>, values: &mut [f32]) {
        if OPS & ops::SOFTMAX != 0 && matches!(step.layer, Layer::Softmax) {
            kernels::softmax(self.backend, values);
        }
    }

    /// Runs one layer for `rows` inputs, from `source` to `target`.
    #[inline(always)]
    fn layer(&self, rows: usize, step: &Step<'_>, mut source: Input<'_>, target: &mut [f32]) -> Option<()> {
        if let Layer::Dense(dense) = step.layer {
            return if OPS & ops::DENSE != 0 { self.dense(rows, step, dense, source, target) } else { None };
        }
        let made = step.output.elements()? as usize;
        for target in target.chunks_exact_mut(made.max(1)) {
            let (image, others) = source.split_at(step.input.elements()? as usize);
            self.image_layer(step, image, target)?;
            source = others;
        }
        Some(())
    }

    /// Runs one of the layers that take one input at a time.
    fn image_layer(&self, step: &Step<'_>, source: Input<'_>, target: &mut [f32]) -> Option<()> {
        match step.layer {
            Layer::Conv2d(conv) if OPS & ops::CONV2D != 0 => match source {
                Input::F32(values) => self.conv2d(step, conv, Inputs::plain(values), target),
                Input::U8(bytes) => self.conv2d(step, conv, self.scaled(bytes), target),
            },
            Layer::MaxPool2d(pool) if OPS & ops::MAX_POOL2D != 0 => {
                match source {
                    Input::F32(values) => Self::max_pool2d(step, pool, Inputs::plain(values), target),
                    Input::U8(bytes) => Self::max_pool2d(step, pool, self.scaled(bytes), target),
                }
                Some(())
            }
            Layer::DepthwiseConv2d(conv) if OPS & ops::DEPTHWISE_CONV2D != 0 => match source {
                Input::F32(values) => self.depthwise_conv2d(step, conv, Inputs::plain(values), target),
                Input::U8(bytes) => self.depthwise_conv2d(step, conv, self.scaled(bytes), target),
            },
            _ => None,
        }
    }

    #[inline(always)]
    fn dense(&self, rows: usize, step: &Step<'_>, dense: &Dense, source: Input<'_>, target: &mut [f32]) -> Option<()> {
        match dense.weights {
            WeightType::F32 if OPS & ops::WEIGHTS_F32 != 0 => {
                self.dense_with::<f32>(rows, step, dense.activation, source, target)
            }
            WeightType::F16 if OPS & ops::WEIGHTS_F16 != 0 => {
                self.dense_with::<f16>(rows, step, dense.activation, source, target)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn dense_with<W: Weight>(
        &self,
        rows: usize,
        step: &Step<'_>,
        activation: Activation,
        source: Input<'_>,
        target: &mut [f32],
    ) -> Option<()> {
        let weights = self.tensor::<W>(step)?;
        match source {
            Input::F32(values) => dense_rows(self.backend, rows, values, weights, floor(activation), target),
            Input::U8(bytes) => {
                let InputSpec { scale, offset, .. } = self.parsed.input;
                dense_bytes_rows(self.backend, rows, bytes, (scale, offset), weights, floor(activation), target);
            }
        }
        self.activate(activation, target);
        Some(())
    }

    fn conv2d<E: kernels::compiled::Input>(
        &self,
        step: &Step<'_>,
        conv: &Conv2d,
        source: Inputs<'_, E>,
        target: &mut [f32],
    ) -> Option<()> {
        match conv.weights {
            WeightType::F32 if OPS & ops::WEIGHTS_F32 != 0 => self.conv2d_with::<E, f32>(step, conv, source, target),
            WeightType::F16 if OPS & ops::WEIGHTS_F16 != 0 => self.conv2d_with::<E, f16>(step, conv, source, target),
            _ => None,
        }
    }

    #[inline(always)]
    fn conv2d_with<E: kernels::compiled::Input, W: Weight>(
        &self,
        step: &Step<'_>,
        conv: &Conv2d,
        source: Inputs<'_, E>,
        target: &mut [f32],
    ) -> Option<()> {
        let weights = self.tensor::<W>(step)?;
        let shapes = (step.input, step.output);
        kernels::conv2d::conv2d(self.backend, source, conv, shapes, weights, floor(conv.activation), target);
        self.activate(conv.activation, target);
        Some(())
    }

    fn depthwise_conv2d<E: kernels::compiled::Input>(
        &self,
        step: &Step<'_>,
        conv: &DepthwiseConv2d,
        source: Inputs<'_, E>,
        target: &mut [f32],
    ) -> Option<()> {
        let (shapes, floor) = ((step.input, step.output), floor(conv.activation));
        match conv.weights {
            WeightType::F32 if OPS & ops::WEIGHTS_F32 != 0 => {
                let weights = self.tensor::<f32>(step)?;
                kernels::depthwise_conv2d::depthwise_conv2d(self.backend, source, conv, shapes, weights, floor, target);
            }
            WeightType::F16 if OPS & ops::WEIGHTS_F16 != 0 => {
                let weights = self.tensor::<f16>(step)?;
                kernels::depthwise_conv2d::depthwise_conv2d(self.backend, source, conv, shapes, weights, floor, target);
            }
            _ => return None,
        }
        self.activate(conv.activation, target);
        Some(())
    }

    fn max_pool2d<E: Element>(step: &Step<'_>, pool: &MaxPool2d, source: Inputs<'_, E>, target: &mut [f32]) {
        kernels::max_pool2d::max_pool2d(source, pool, (step.input, step.output), target);
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
            _ => {}
        }
    }

    fn tensor<W: Weight>(&self, step: &Step<'_>) -> Option<Panels<'b, W>> {
        let (inputs, outputs) = step.layer.weight_matrix(step.input)?;
        let bytes = self.parsed.weights.get(step.tensor_offset as usize..)?.get(..step.tensor_bytes as usize)?;
        Panels::new(bytes, inputs as usize, outputs as usize)
    }
}

/// The first `bytes` of the scratch memory, as values; `None` if there are fewer.
fn arena(scratch: &mut Aligned<[u8]>, bytes: usize) -> Option<&mut [f32]> {
    bytemuck::try_cast_slice_mut(scratch.0.get_mut(..bytes)?).ok()
}

/// The least value that a kernel's epilogue lets through.
fn floor(activation: Activation) -> f32 {
    match activation {
        Activation::Relu => 0.0,
        Activation::None | Activation::Tanh | Activation::Sigmoid => f32::NEG_INFINITY,
    }
}
