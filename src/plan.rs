//! The walk over a model's layers: shapes, where each tensor lies, and how much scratch memory the walk needs.
//!
//! Loading, running and reporting all take the same walk, so that they cannot disagree.

use crate::layer::{Layer, LayerError, Shape, tensor_bytes};

/// One layer on the walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'m> {
    pub(crate) layer: &'m Layer,
    pub(crate) input: Shape,
    pub(crate) output: Shape,
    /// Where the tensor begins in the weight section, in bytes.
    pub(crate) tensor_offset: u32,
    /// How long the tensor is, in bytes; 0 if the layer has none.
    pub(crate) tensor_bytes: u32,
}

/// Walks over the layers, from the shape of the input on.
#[derive(Clone, Debug)]
pub(crate) struct Steps<'m> {
    layers: core::slice::Iter<'m, Layer>,
    first: bool,
    shape: Shape,
    tensor_offset: u32,
}

impl<'m> Steps<'m> {
    pub(crate) fn new(input: Shape, layers: &'m [Layer]) -> Self {
        Self { layers: layers.iter(), first: true, shape: input, tensor_offset: 0 }
    }

    fn step(&mut self, layer: &'m Layer) -> Result<Step<'m>, LayerError> {
        let (first, last) = (self.first, self.layers.as_slice().is_empty());
        if matches!(layer, Layer::Softmax) && (first || !last) {
            return Err(LayerError::SoftmaxMisplaced);
        }
        let step = Step {
            layer,
            input: self.shape,
            output: layer.output(self.shape)?,
            tensor_offset: self.tensor_offset,
            tensor_bytes: tensor_bytes(layer, self.shape)?,
        };
        self.first = false;
        self.shape = step.output;
        self.tensor_offset = step.tensor_offset.checked_add(step.tensor_bytes).ok_or(LayerError::TooLarge)?;
        Ok(step)
    }
}

impl<'m> Iterator for Steps<'m> {
    type Item = Result<Step<'m>, LayerError>;
    fn next(&mut self) -> Option<Self::Item> {
        let layer = self.layers.next()?;
        Some(self.step(layer))
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
    pub(crate) fn new(input: Shape, layers: &[Layer]) -> Result<Self, PlanError> {
        let input_len = input.elements().ok_or(PlanError::Input)?;
        let mut plan = Self { input_len, output_len: input_len, scratch_bytes: 0, weight_bytes: 0, ops: 0 };
        // The input stays where the caller has it, so the first layer needs room for its output only.
        let mut held = 0;
        for (index, step) in Steps::new(input, layers).enumerate() {
            let step = step.map_err(|error| PlanError::Layer(index, error))?;
            let made = step.output.elements().ok_or(PlanError::Layer(index, LayerError::TooLarge))?;
            // At most 2 * MAX_ELEMENTS values of four bytes.
            let values = if in_place(step.layer) { held } else { held + made };
            plan.scratch_bytes = plan.scratch_bytes.max(values * 4);
            plan.weight_bytes = step.tensor_offset + step.tensor_bytes;
            plan.ops |= step.layer.ops();
            plan.output_len = made;
            held = made;
        }
        Ok(plan)
    }
}

/// Whether a layer overwrites its input instead of writing elsewhere.
pub(crate) fn in_place(layer: &Layer) -> bool {
    matches!(layer, Layer::Softmax)
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

/// Splits the scratch memory `arena` into the activation that lies at `place` (`held` values; empty if it lies outside)
/// and room for `made` values at the other end. `None` if the arena is too small.
pub(crate) fn split(
    arena: &mut [f32],
    place: Place,
    held: usize,
    made: usize,
) -> Option<(&mut [f32], &mut [f32], Place)> {
    match place {
        Place::Input => Some((Default::default(), arena.get_mut(..made)?, Place::Low)),
        Place::Low => {
            let (source, rest) = arena.split_at_mut_checked(held)?;
            let (_, target) = rest.split_at_mut_checked(rest.len().checked_sub(made)?)?;
            Some((source, target, Place::High))
        }
        Place::High => {
            let (rest, source) = arena.split_at_mut_checked(arena.len().checked_sub(held)?)?;
            Some((source, rest.get_mut(..made)?, Place::Low))
        }
    }
}
