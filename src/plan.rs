//! The walk over a model's layers: shapes, where each tensor lies, and how much scratch memory the walk needs.
//!
//! Loading, running and reporting all take the same walk, so that they cannot disagree.

use crate::kernels::int8;
use crate::layer::{ElementType, Layer, LayerError, Packing, Quantize, Shape, WeightType, tensor_bytes};

/// One layer on the walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) layer: Layer,
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    /// The type of the values that the layer makes.
    pub(crate) output_type: ElementType,
    pub(crate) memory: Memory,
    /// How the layer quantises what it reads, if the quantisation before it has left that to it.
    pub(crate) quantize: Option<Quantize>,
    /// Where the tensor begins in the weight section, in bytes.
    pub(crate) tensor_offset: u32,
    /// How long the tensor is, in bytes; 0 if the layer has none.
    pub(crate) tensor_bytes: u32,
    /// Four-byte words of workspace that the layer needs.
    workspace: u32,
}

/// What a layer does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Writes its outputs to memory of their own.
    Anew,
    /// Overwrites its input.
    InPlace,
    /// Nothing: the next layer does what is to be done.
    Untouched,
}

impl Step {
    /// Four-byte words of memory for the outputs of `rows` inputs.
    pub(crate) fn output_words(&self, rows: usize) -> Option<usize> {
        Some((self.output.elements()? as usize * rows * self.output_type.bytes() as usize).div_ceil(4))
    }
}

/// Walks over the layers, from the shape of the input on.
#[derive(Clone, Debug)]
pub(crate) struct Steps<I> {
    layers: I,
    next: Option<Layer>,
    first: bool,
    shape: Shape,
    element: ElementType,
    quantize: Option<Quantize>,
    tensor_offset: u32,
}

impl<I: Iterator<Item = Layer>> Steps<I> {
    pub(crate) fn new(input: Shape, mut layers: I) -> Self {
        let next = layers.next();
        let element = ElementType::F32;
        Self { layers, next, first: true, shape: input, element, quantize: None, tensor_offset: 0 }
    }

    fn step(&mut self, layer: Layer) -> Result<Step, LayerError> {
        self.next = self.layers.next();
        match layer {
            Layer::Softmax if self.first || self.next.is_some() => return Err(LayerError::SoftmaxMisplaced),
            Layer::Quantize(_) if !self.first => return Err(LayerError::QuantizeMisplaced),
            _ => {}
        }
        let last = matches!(self.next, None | Some(Layer::Softmax));
        let quantize = self.quantize.take();
        let memory = match layer {
            Layer::Softmax => Memory::InPlace,
            Layer::Quantize(how) if self.next.as_ref().is_some_and(quantizes_on_the_way) => {
                self.quantize = Some(how);
                Memory::Untouched
            }
            _ => Memory::Anew,
        };
        let step = Step {
            layer,
            input: self.shape,
            output: layer.output(self.shape)?,
            output_type: layer.output_type(self.element, last)?,
            memory,
            quantize,
            tensor_offset: self.tensor_offset,
            tensor_bytes: tensor_bytes(&layer, self.shape)?,
            workspace: workspace(&layer, self.shape, quantize.is_some()).ok_or(LayerError::TooLarge)?,
        };
        self.first = false;
        self.shape = step.output;
        self.element = step.output_type;
        self.tensor_offset = step.tensor_offset.checked_add(step.tensor_bytes).ok_or(LayerError::TooLarge)?;
        Ok(step)
    }
}

impl<I: Iterator<Item = Layer>> Iterator for Steps<I> {
    type Item = Result<Step, LayerError>;
    fn next(&mut self) -> Option<Self::Item> {
        let layer = self.next.take()?;
        Some(self.step(layer))
    }
}

/// Whether a layer that reads int8 activations can make them itself, a few at a time.
fn quantizes_on_the_way(layer: &Layer) -> bool {
    matches!(layer, Layer::Dense(_) | Layer::Conv2d(_))
        && matches!(layer.weight_type(), Some(WeightType::Int8(Packing::Folded)))
}

/// Four-byte words of workspace that a layer needs beside its input and its outputs.
fn workspace(layer: &Layer, input: Shape, quantized: bool) -> Option<u32> {
    match (layer, layer.weight_type()) {
        (Layer::Dense(dense), Some(WeightType::Int8(Packing::Folded))) => {
            Some(int8::dense::folded_workspace(input.elements()?, dense.outputs.into()))
        }
        (Layer::Conv2d(conv), Some(WeightType::Int8(Packing::Folded))) => {
            int8::conv2d::folded_workspace(conv, input, quantized)
        }
        (Layer::Conv2d(conv), Some(WeightType::Int8(Packing::Grouped))) => {
            Some(int8::conv2d::grouped_workspace(conv, input))
        }
        _ => Some(0),
    }
}

/// What a model needs and makes, derived from its layers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) input_len: u32,
    pub(crate) output_len: u32,
    pub(crate) scratch_bytes: u32,
    pub(crate) weight_bytes: u32,
    pub(crate) ops: u32,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlanError {
    /// The shape of the input has a 0 in it, or too many values.
    Input,
    /// The layer of that index cannot be.
    Layer(usize, LayerError),
}

impl Plan {
    pub(crate) fn new(input: Shape, layers: impl Iterator<Item = Layer>) -> Result<Self, PlanError> {
        let input_len = input.elements().ok_or(PlanError::Input)?;
        let mut plan = Self { input_len, output_len: input_len, scratch_bytes: 0, weight_bytes: 0, ops: 0 };
        // The input stays where the caller has it, so the first layer needs room for its output only.
        let mut held = 0;
        for (index, step) in Steps::new(input, layers).enumerate() {
            let step = step.map_err(|error| PlanError::Layer(index, error))?;
            let too_large = PlanError::Layer(index, LayerError::TooLarge);
            let made = step.output_words(1).ok_or(too_large)? as u32;
            // At most 2 * MAX_ELEMENTS words, and the workspace.
            let words = match step.memory {
                Memory::Anew => (held + made).checked_add(step.workspace).ok_or(too_large)?,
                Memory::InPlace | Memory::Untouched => held,
            };
            plan.scratch_bytes = plan.scratch_bytes.max(words.checked_mul(4).ok_or(too_large)?);
            plan.weight_bytes = step.tensor_offset + step.tensor_bytes;
            plan.ops |= step.layer.ops();
            plan.output_len = step.output.elements().ok_or(too_large)?;
            if step.memory == Memory::Anew {
                held = made;
            }
        }
        Ok(plan)
    }
}

/// The two ends of the scratch memory, between which the activations alternate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the caller's input buffer.
    Input,
    /// At the start of the scratch memory.
    Low,
    /// At its end.
    High,
}

/// Parts of the scratch memory, in words of four bytes.
pub(crate) struct Split<'a> {
    /// The activation that there is; empty if it lies elsewhere.
    pub(crate) source: &'a mut [u32],
    /// What lies between the two.
    pub(crate) workspace: &'a mut [u32],
    /// Room for the next.
    pub(crate) target: &'a mut [u32],
    /// Where that is.
    pub(crate) end: Place,
}

/// Splits the scratch memory `arena` into the activation that lies at `place` (`held` words; empty if it lies outside), room
/// for `made` words at the other end, and what is between them. `None` if the arena is too small.
pub(crate) fn split(arena: &mut [u32], place: Place, held: usize, made: usize) -> Option<Split<'_>> {
    match place {
        Place::Input => {
            let (target, workspace) = arena.split_at_mut_checked(made)?;
            Some(Split { source: Default::default(), workspace, target, end: Place::Low })
        }
        Place::Low => {
            let (source, rest) = arena.split_at_mut_checked(held)?;
            let (workspace, target) = rest.split_at_mut_checked(rest.len().checked_sub(made)?)?;
            Some(Split { source, workspace, target, end: Place::High })
        }
        Place::High => {
            let (rest, source) = arena.split_at_mut_checked(arena.len().checked_sub(held)?)?;
            let (target, workspace) = rest.split_at_mut_checked(made)?;
            Some(Split { source, workspace, target, end: Place::Low })
        }
    }
}
