//! The walk over a model's layers: shapes, where each tensor lies, and how much scratch memory the walk needs.
//!
//! Loading, running and reporting all take the same walk, so that they cannot disagree.

#[cfg(not(target_os = "none"))]
use crate::blob::PackedTensor;
use crate::kernels::int8::{self, tensor::Sums};
#[cfg(not(target_os = "none"))]
use crate::layer::MAX_LAYERS;
use crate::layer::{Conv2d, ElementType, Layer, LayerError, Packing, Quantize, Shape, WeightType, tensor_bytes};
use crate::ops;

/// One layer on the walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) layer: Layer,
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    /// How many values the input and the output have.
    pub(crate) read: u32,
    pub(crate) made: u32,
    /// The type of the values that the layer makes.
    pub(crate) output_type: ElementType,
    pub(crate) memory: Memory,
    /// Where the outputs lie.
    place: Place,
    /// If the next layer writes over them: the words that it needs before them for each input.
    lead: Option<u32>,
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
    /// Overwrites its input, value by value.
    InPlace,
    /// Writes its outputs over inputs that it has read, and to the words before them.
    Over,
    /// Nothing: the next layer does what is to be done.
    Untouched,
}

impl Step {
    /// Four-byte words of memory for the outputs of `rows` inputs.
    #[inline(always)]
    pub(crate) fn output_words(&self, rows: usize) -> usize {
        (self.made as usize * rows * self.output_type.bytes() as usize).div_ceil(4)
    }

    /// Four-byte words before the outputs of `rows` inputs, for those of the next layer.
    #[inline(always)]
    pub(crate) fn words_before<const OPS: u32>(&self, rows: usize) -> usize {
        if OPS & FOLDED_CONV2D != FOLDED_CONV2D {
            return 0;
        }
        self.lead.unwrap_or(0) as usize * rows
    }
}

/// Walks over the layers, from the shape of the input on.
#[derive(Clone, Debug)]
pub(crate) struct Walk<I, const OPS: u32> {
    layers: I,
    /// The layer behind the one that the walk has come to.
    next: Option<Layer>,
    /// The walk has come to this one. Before the first one it is a stand-in that makes the input.
    step: Step,
    first: bool,
}

impl<I: Iterator<Item = Layer> + Clone, const OPS: u32> Walk<I, OPS> {
    #[inline(never)]
    pub(crate) fn new(input: Shape, mut layers: I) -> Self {
        let next = layers.next();
        let step = Step {
            layer: Layer::Softmax,
            input,
            output: input,
            read: 0,
            made: input.elements().unwrap_or(0),
            output_type: ElementType::F32,
            memory: Memory::Untouched,
            place: Place::Input,
            lead: None,
            quantize: None,
            tensor_offset: 0,
            tensor_bytes: 0,
            workspace: 0,
        };
        Self { layers, next, step, first: true }
    }

    /// Goes on to the next layer; `None` behind the last.
    //
    // The step stays where it is: moving it about would be more code than making it.
    #[inline(never)]
    pub(crate) fn advance(&mut self) -> Option<Result<&Step, LayerError>> {
        let layer = self.next.as_ref()?;
        self.step.quantize = match self.step.layer {
            Layer::Quantize(how) if self.step.memory == Memory::Untouched => Some(how),
            _ => None,
        };
        self.step.layer = *layer;
        self.next = self.layers.next();
        Some(self.enter().map(|()| &self.step))
    }

    #[inline(always)]
    fn enter(&mut self) -> Result<(), LayerError> {
        let (first, last) = (self.first, matches!(self.next, None | Some(Layer::Softmax)));
        self.first = false;
        let step = &mut self.step;
        step.input = step.output;
        let layer = &step.layer;
        step.memory = match layer {
            Layer::Softmax if first || self.next.is_some() => return Err(LayerError::SoftmaxMisplaced),
            Layer::Softmax => Memory::InPlace,
            Layer::Quantize(_) if !first => return Err(LayerError::QuantizeMisplaced),
            Layer::Quantize(_) if self.next.as_ref().is_some_and(quantizes_on_the_way) => Memory::Untouched,
            _ => Memory::Anew,
        };
        step.output = layer.output_within::<OPS>(step.input)?;
        step.read = step.made;
        step.made = step.output.elements().ok_or(LayerError::TooLarge)?;
        step.output_type = layer.output_type(step.output_type, last)?;
        step.tensor_offset = step.tensor_offset.checked_add(step.tensor_bytes).ok_or(LayerError::TooLarge)?;
        step.tensor_bytes = tensor_bytes::<OPS>(&step.layer, step.input)?;
        step.tensor_offset.checked_add(step.tensor_bytes).ok_or(LayerError::TooLarge)?;
        let workspace = workspace::<OPS>(&step.layer, step.input, step.quantize.is_some());
        step.workspace = workspace.ok_or(LayerError::TooLarge)?;
        self.place();
        Ok(())
    }

    /// Decides where the outputs lie, and what lies before them.
    #[inline(always)]
    fn place(&mut self) {
        let step = &mut self.step;
        if OPS & FOLDED_CONV2D == FOLDED_CONV2D && step.lead.take().is_some() {
            step.memory = Memory::Over;
        }
        step.place = match (step.memory, step.place) {
            (Memory::Anew, Place::Low) => Place::High,
            (Memory::Anew, _) => Place::Low,
            (_, place) => place,
        };
        if OPS & FOLDED_CONV2D == FOLDED_CONV2D && step.place == Place::Low {
            // What the last layer makes is not int8.
            let last = matches!(self.layers.clone().next(), None | Some(Layer::Softmax));
            let lead = self.next.as_ref().filter(|_| !last).and_then(|next| lead::<OPS>(next, step.output));
            // A layer that writes over its own inputs does so from the start of the memory.
            step.lead = lead.filter(|lead| *lead == 0 || step.memory == Memory::Anew);
        }
    }

    /// The outputs of the layer that the walk has come to: see [`Step::activation`].
    #[cfg(target_os = "none")]
    pub(crate) fn activation<'a>(&self, arena: &'a [u32], held: usize) -> Option<&'a [u32]> {
        self.step.activation(arena, held)
    }

    /// The layers one by one; the walk ends at an error.
    pub(crate) fn steps(mut self) -> impl Iterator<Item = Step> {
        core::iter::from_fn(move || self.advance()?.ok().copied())
    }
}

/// The same steps once more, where there is memory to keep them and views of their layers' tensors: that takes a fraction of the
/// time of walking again.
#[cfg(not(target_os = "none"))]
#[derive(Clone, Debug)]
pub(crate) struct Steps<'b> {
    steps: heapless::Vec<Step, MAX_LAYERS>,
    /// (Not a `Vec`, whose destructor would have models borrow their blobs until the end of a block.)
    tensors: [Option<PackedTensor<'b>>; MAX_LAYERS],
}

#[cfg(not(target_os = "none"))]
impl<'b> Steps<'b> {
    pub(crate) fn new(steps: impl Iterator<Item = Step>, tensor: impl Fn(&Step) -> Option<PackedTensor<'b>>) -> Self {
        let mut kept = Self { steps: heapless::Vec::new(), tensors: [None; MAX_LAYERS] };
        // There are no more layers than that.
        for (step, kept_tensor) in steps.zip(&mut kept.tensors) {
            *kept_tensor = tensor(&step);
            let _ = kept.steps.push(step);
        }
        kept
    }

    pub(crate) fn walk(&self) -> WalkAgain<'_> {
        WalkAgain { steps: self.steps.iter(), step: None }
    }

    /// The parameters of the layer with that index.
    #[inline(always)]
    pub(crate) fn tensor(&self, index: usize) -> &Option<PackedTensor<'b>> {
        self.tensors.get(index).unwrap_or(&None)
    }
}

/// A [`Walk`] over steps that were kept.
#[cfg(not(target_os = "none"))]
pub(crate) struct WalkAgain<'a> {
    steps: core::slice::Iter<'a, Step>,
    /// The walk has come to this one.
    step: Option<&'a Step>,
}

#[cfg(not(target_os = "none"))]
impl<'a> WalkAgain<'a> {
    /// As [`Walk::advance`].
    pub(crate) fn advance(&mut self) -> Option<Result<&'a Step, LayerError>> {
        self.step = Some(self.steps.next()?);
        self.step.map(Ok)
    }

    /// The next step, without going there.
    pub(crate) fn peek(&self) -> Option<&'a Step> {
        self.steps.as_slice().first()
    }

    /// As [`Walk::steps`].
    pub(crate) fn steps(self) -> impl Iterator<Item = Step> {
        self.steps.copied()
    }

    /// The outputs of the layer that the walk has come to: see [`Step::activation`].
    pub(crate) fn activation<'s>(&self, arena: &'s [u32], held: usize) -> Option<&'s [u32]> {
        self.step?.activation(arena, held)
    }
}

/// Whether a layer that reads int8 activations can make them itself, a few at a time.
fn quantizes_on_the_way(layer: &Layer) -> bool {
    matches!(layer, Layer::Dense(_) | Layer::Conv2d(_))
        && matches!(layer.weight_type(), Some(WeightType::Int8(Packing::Folded)))
}

/// What it takes to run 2-D convolutions with folded weights.
const FOLDED_CONV2D: u32 = ops::WEIGHTS_INT8_FOLDED | ops::CONV2D;

/// Four-byte words that a layer needs before its input to write its outputs over it; `None` if it can't.
fn lead<const OPS: u32>(layer: &Layer, input: Shape) -> Option<u32> {
    match (layer, layer.weight_type()) {
        (Layer::Conv2d(conv), Some(WeightType::Int8(Packing::Folded))) => {
            Some(int8::conv2d::folded_lead(conv, input, layer.output_within::<OPS>(input).ok()?))
        }
        _ => None,
    }
}

/// Four-byte words of workspace that a layer needs beside its input and its outputs.
fn workspace<const OPS: u32>(layer: &Layer, input: Shape, quantized: bool) -> Option<u32> {
    const GROUPED: u32 = ops::WEIGHTS_INT8_GROUPED | ops::CONV2D;
    match (layer, layer.weight_type()) {
        (Layer::Dense(dense), Some(WeightType::Int8(Packing::Folded))) if OPS & ops::WEIGHTS_INT8_FOLDED != 0 => {
            Some(int8::dense::folded_workspace(input.elements()?, dense.outputs.into()))
        }
        (Layer::Conv2d(conv), Some(WeightType::Int8(Packing::Folded))) if OPS & FOLDED_CONV2D == FOLDED_CONV2D => {
            int8::conv2d::folded_workspace(conv, input, quantized)
        }
        (Layer::Conv2d(conv), Some(WeightType::Int8(Packing::Grouped))) if OPS & GROUPED == GROUPED => {
            Some(int8::conv2d::grouped_workspace(conv, input))
        }
        _ => Some(0),
    }
}

/// Whether the int8 weights of a convolution that belong to no input are zero. A dense layer takes those inputs for zeros.
fn fills_up_with_zeros<const OPS: u32>(step: &Step, tensor: &[u8]) -> bool {
    match step.layer {
        Layer::Conv2d(Conv2d { kernel, filters, weights: WeightType::Int8(packing), .. })
            if OPS & ops::CONV2D != 0 && OPS & ops::WEIGHTS_INT8 != 0 =>
        {
            let (runs, run) = (kernel[0].into(), u32::from(kernel[1]) * u32::from(step.input.channels));
            // Known when the program is compiled, if it has one of them only.
            let packing = if OPS & ops::WEIGHTS_INT8_GROUPED == 0 { Packing::Folded } else { packing };
            Sums { runs, run, outputs: filters.into(), depthwise: false }.fills_up_with_zeros(packing, tensor)
        }
        _ => true,
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
    /// The plan for layers that are in `OPS`. Their weights are not looked at but for [`LayerError::Filling`]; they may be missing.
    pub(crate) fn new<const OPS: u32>(
        input: Shape,
        layers: impl Iterator<Item = Layer> + Clone,
        weights: &[u8],
    ) -> Result<Self, PlanError> {
        let input_len = input.elements().ok_or(PlanError::Input)?;
        let mut plan = Self { input_len, output_len: input_len, scratch_bytes: 0, weight_bytes: 0, ops: 0 };
        // The input stays where the caller has it, so the first layer needs room for its output only.
        let mut held = 0;
        let mut walk = Walk::<_, OPS>::new(input, layers);
        let mut index = 0;
        while let Some(step) = walk.advance() {
            let step = step.map_err(|error| PlanError::Layer(index, error))?;
            let too_large = PlanError::Layer(index, LayerError::TooLarge);
            let made = (step.words_before::<OPS>(1) + step.output_words(1)) as u32;
            // At most 3 * MAX_ELEMENTS words, and the workspace.
            let words = match step.memory {
                Memory::Anew => (held + made).checked_add(step.workspace).ok_or(too_large)?,
                Memory::Over => held.checked_add(step.workspace).ok_or(too_large)?,
                Memory::InPlace | Memory::Untouched => held,
            };
            plan.scratch_bytes = plan.scratch_bytes.max(words.checked_mul(4).ok_or(too_large)?);
            plan.weight_bytes = step.tensor_offset + step.tensor_bytes;
            if let Some(tensor) = weights.get(step.tensor_offset as usize..plan.weight_bytes as usize)
                && !fills_up_with_zeros::<OPS>(step, tensor)
            {
                return Err(PlanError::Layer(index, LayerError::Filling));
            }
            plan.ops |= step.layer.ops::<OPS>();
            plan.output_len = step.made;
            if matches!(step.memory, Memory::Anew | Memory::Over) {
                held = made;
            }
            index += 1;
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
    /// The activation that there is; empty if it lies elsewhere, or in the target.
    pub(crate) source: &'a mut [u32],
    /// What belongs to neither of the two.
    pub(crate) workspace: &'a mut [u32],
    /// Room for the next.
    pub(crate) target: &'a mut [u32],
}

impl Step {
    /// The outputs: `held` words of `arena`, and those before them.
    pub(crate) fn activation<'a>(&self, arena: &'a [u32], held: usize) -> Option<&'a [u32]> {
        match self.place {
            Place::Input => None,
            Place::Low => arena.get(..held),
            Place::High => arena.get(arena.len().checked_sub(held)?..),
        }
    }

    /// Splits the scratch memory `arena` into the activation that there is (`held` words, and those before it), room for
    /// `made` words, and what belongs to neither. `None` if the arena is too small.
    pub(crate) fn split<'a>(&self, arena: &'a mut [u32], held: usize, made: usize) -> Option<Split<'a>> {
        let source = Default::default();
        match (self.memory, self.place) {
            (Memory::Anew, Place::High) => {
                let (source, rest) = arena.split_at_mut_checked(held)?;
                let (workspace, target) = rest.split_at_mut_checked(rest.len().checked_sub(made)?)?;
                Some(Split { source, workspace, target })
            }
            (Memory::Anew, _) => {
                // An input that lies outside holds nothing.
                let (rest, source) = arena.split_at_mut_checked(arena.len().checked_sub(held)?)?;
                let (target, workspace) = rest.split_at_mut_checked(made)?;
                Some(Split { source, workspace, target })
            }
            (_, Place::High) => {
                let (workspace, target) = arena.split_at_mut_checked(arena.len().checked_sub(held)?)?;
                Some(Split { source, workspace, target })
            }
            _ => {
                let (target, workspace) = arena.split_at_mut_checked(held)?;
                Some(Split { source, workspace, target })
            }
        }
    }
}
