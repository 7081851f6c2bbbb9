//! The layout of int8 tensors: weights in one of two packings, then the biases, then what scales each output.
//!
//! A sum's inputs come in runs (the rows of a window; one for a dense layer), each filled up to groups of four inputs with zero
//! weights.
//!
//! - *Grouped*: panels of sixteen outputs. A panel holds, for each group of inputs, four weights of each output. Four products
//!   of sixteen outputs are one instruction of AVX-512 VNNI.
//! - *Folded*: panels of four outputs. A panel holds, for each group of inputs, a 32-bit word of each output: the half-words
//!   `w0 + 256 w1` and `w2 + 256 w3`. The DSP extension of a Cortex-M needs a third fewer instructions than for plain bytes:
//!   see [`folded`](crate::kernels::backend::folded).
//! - Of a depthwise convolution, whatever the packing: `[positions, channels]`.
//!
//! Outputs beyond the last and inputs that only fill up have zero weights.

use super::requantize::{Parameter, TABLE_STEP};
use crate::kernels::backend::folded;
use crate::layer::Packing;

/// The outputs of a panel of grouped weights.
pub(crate) const GROUPED_PANEL: usize = 16;
/// Of grouped weights, those of four inputs for the outputs of a panel.
pub(crate) type Group = [[i8; 4]; GROUPED_PANEL];
/// The largest weight; the smallest is its negative.
pub(crate) const LARGEST_WEIGHT: f32 = 127.0;

/// What a layer's sums add up: `runs` runs of `run` neighbouring inputs, for each of `outputs` outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) runs: u32,
    pub(crate) run: u32,
    pub(crate) outputs: u32,
    /// Whether each output has inputs of its own.
    pub(crate) depthwise: bool,
}

impl Sums {
    /// The inputs of one sum.
    pub(crate) fn inputs(&self) -> Option<u32> {
        self.runs.checked_mul(self.run)
    }

    /// The bytes of the weights.
    fn weight_bytes(&self, packing: Packing) -> Option<u32> {
        let Self { runs, run, outputs, .. } = *self;
        if self.depthwise {
            return self.inputs()?.checked_mul(outputs);
        }
        let panel = match packing {
            Packing::Grouped => GROUPED_PANEL,
            Packing::Folded => folded::PANEL,
        };
        let width = outputs.checked_next_multiple_of(panel as u32)?;
        runs.checked_mul(run.checked_next_multiple_of(4)?)?.checked_mul(width)
    }

    /// Whether the weights of inputs that only fill up the last group of a run are zero in `tensor`. A run reads those inputs
    /// too, and what lies there is none of its business.
    pub(crate) fn fills_up_with_zeros(&self, packing: Packing, tensor: &[u8]) -> bool {
        let (groups, used) = (self.run.div_ceil(4) as usize, self.run % 4);
        let panel = match packing {
            Packing::Grouped => GROUPED_PANEL,
            Packing::Folded => folded::PANEL,
        };
        // A pair without an upper weight has the sign of the lower one there.
        let signed = matches!(packing, Packing::Folded) && used % 2 == 1;
        let mut rest = tensor;
        for _ in 0..if used == 0 { 0 } else { self.runs * self.outputs.div_ceil(panel as u32) } {
            let Some((run, more)) = rest.split_at_checked(groups * panel * 4) else { return true };
            rest = more;
            let (_, last) = run.as_chunks().0.split_at_checked((groups - 1) * panel).unwrap_or_default();
            for &bytes in last {
                let word = u32::from_le_bytes(bytes) >> (8 * used - 1);
                if word >> 1 != if signed && word % 2 == 1 { 0xff } else { 0 } {
                    return false;
                }
            }
        }
        true
    }

    /// Where the biases and the parameters begin, and the length of the tensor.
    fn layout(&self, packing: Packing) -> Option<[u32; 3]> {
        let bias = self.weight_bytes(packing)?.checked_next_multiple_of(4)?;
        let parameters = bias.checked_add(self.outputs.checked_mul(4)?)?;
        let end = parameters.checked_add(self.outputs.checked_mul(4)?)?;
        Some([bias, parameters, end.checked_next_multiple_of(crate::ALIGNMENT as u32)?])
    }
}

/// The bytes of a tensor, its end padding included; `None` if that is 4 GiB or more.
pub(crate) fn bytes(sums: &Sums, packing: Packing) -> Option<u32> {
    sums.layout(packing).map(|[_, _, len]| len)
}

/// An int8 tensor whose length is known to fit its shape.
#[derive(Clone, Copy, Debug)]
pub struct Int8Tensor<'a> {
    /// The weights, and what fills them up to whole words.
    weights: &'a [u32],
    bias: &'a [i32],
    parameters: &'a [Parameter],
    packing: Packing,
    sums: Sums,
}

impl<'a> Int8Tensor<'a> {
    /// A view of `tensor`, as [`pack`] wrote it; `None` if its length is not that of such a tensor, or if it does not start
    /// at a multiple of four bytes.
    #[cfg_attr(not(target_os = "none"), inline(always))]
    pub(crate) fn new(tensor: &'a [u8], sums: Sums, packing: Packing) -> Option<Self> {
        let [bias, parameters, len] = sums.layout(packing)?.map(|offset| offset as usize);
        if tensor.len() != len {
            return None;
        }
        let words: &[u32] = bytemuck::try_cast_slice(tensor).ok()?;
        let outputs = sums.outputs as usize;
        let weights = words.get(..bias / 4)?;
        let bias = bytemuck::cast_slice(words.get(bias / 4..)?.get(..outputs)?);
        let parameters = bytemuck::cast_slice(words.get(parameters / 4..)?.get(..outputs)?);
        Some(Self { weights, bias, parameters, packing, sums })
    }

    /// The number of inputs of one sum.
    #[must_use]
    pub const fn inputs(&self) -> usize {
        self.sums.runs as usize * self.sums.run as usize
    }

    /// The number of outputs or filters.
    #[must_use]
    pub const fn outputs(&self) -> usize {
        self.sums.outputs as usize
    }

    /// The biases, `[outputs]`, in units of the sums.
    #[must_use]
    pub const fn bias(&self) -> &'a [i32] {
        self.bias
    }

    /// How the weights are packed.
    #[must_use]
    pub const fn packing(&self) -> Packing {
        self.packing
    }

    /// The weight of one input for one output; `None` if there is no such input or output.
    #[must_use]
    pub fn weight(&self, input: usize, output: usize) -> Option<i8> {
        if input >= self.inputs() || output >= self.outputs() {
            return None;
        }
        let at = |byte: usize| self.weights().get(byte).copied();
        match self.sums.place(self.packing, input, output)? {
            Place::Plain(byte) | Place::Lower(byte) => at(byte),
            Place::Upper(byte) => Some(at(byte)?.wrapping_add(i8::from(at(byte - 1)? < 0))),
        }
    }

    /// What scales the sums of each output, as `docs/format.md` describes it.
    pub fn scales(&self) -> impl Iterator<Item = u32> + 'a {
        self.parameters.iter().map(|parameter| parameter.word())
    }

    /// Whether a ReLU6 has to bound the outputs: where int8 ones would end at 127 anyway, it need not.
    pub(crate) fn is_bounded(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.is_bounded())
    }

    pub(crate) const fn parameters(&self) -> &'a [Parameter] {
        self.parameters
    }

    /// The groups of all panels of folded weights.
    pub(crate) const fn folded_weights(&self) -> &'a [folded::Weights] {
        let (weights, _) = self.weights.as_chunks();
        weights
    }

    /// The groups of all panels of grouped weights.
    pub(crate) fn grouped_weights(&self) -> &'a [Group] {
        let (groups, _) = self.weights.as_chunks::<GROUPED_PANEL>();
        bytemuck::cast_slice(groups)
    }

    /// All weights, as they lie.
    pub(crate) fn weights(&self) -> &'a [i8] {
        bytemuck::cast_slice(self.weights)
    }
}

/// Where a weight lies: at which byte of the tensor.
#[derive(Clone, Copy)]
enum Place {
    Plain(usize),
    /// The lower half of a folded pair: `w0` of the half-word `w0 + 256 w1`.
    Lower(usize),
    /// The upper half, which is one less than the weight where the lower one is negative.
    Upper(usize),
}

impl Sums {
    /// Where the weight of an input for an output lies.
    fn place(&self, packing: Packing, input: usize, output: usize) -> Option<Place> {
        if self.depthwise {
            return Some(Place::Plain(input * self.outputs as usize + output));
        }
        let run = self.run as usize;
        let (row, column) = (input.checked_div(run)?, input.checked_rem(run)?);
        let (group, column) = (row * run.div_ceil(4) + column / 4, column % 4);
        let groups = self.runs as usize * run.div_ceil(4);
        let byte = |panel: usize| ((output / panel * groups + group) * panel + output % panel) * 4 + column;
        Some(match packing {
            Packing::Grouped => Place::Plain(byte(GROUPED_PANEL)),
            Packing::Folded if column % 2 == 0 => Place::Lower(byte(folded::PANEL)),
            Packing::Folded => Place::Upper(byte(folded::PANEL)),
        })
    }
}

/// How a layer's values are scaled to integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scales {
    /// The value of one step of the inputs.
    pub(crate) input: f32,
    pub(crate) output: Output,
}

/// What a layer's sums become.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Output {
    F32,
    /// Integers, one step of which should have this value, for outputs of at most `largest`.
    Int8 {
        step: f32,
        largest: f32,
    },
    /// Integers that tanh or sigmoid are looked up for.
    Lookup,
}

impl Scales {
    /// The value of one step of an output's sums; 0 if these are always 0. `None` if a number is not finite.
    ///
    /// The largest weight is 127 steps; only weights that are tiny beside the bias are fewer, which has to fit into the sum.
    fn sum_scale(&self, column: &Column<'_>) -> Option<f64> {
        /// Leaves half of the sum's range to the products.
        const LARGEST_BIAS: f64 = (1u64 << 30) as f64;
        let bias = f64::from(column.bias.unwrap_or(0.0));
        let finite = bias.is_finite() && column.weights().all(f32::is_finite);
        let largest = column.weights().fold(0.0f32, |largest, weight| largest.max(weight.abs()));
        let weight = largest / LARGEST_WEIGHT;
        let scale = (f64::from(weight) * f64::from(self.input)).max(bias.abs() / LARGEST_BIAS);
        (finite && scale.is_finite()).then_some(scale)
    }

    /// The most steps of the value `step` that an output may have: 127, or fewer if those are more than the largest output. `None` if
    /// that is less than half a step.
    fn ceiling(&self, step: f32) -> Option<u8> {
        let Output::Int8 { largest, .. } = self.output else { return Some(127) };
        let ceiling = nearest(largest / step).min(127) as u8;
        (ceiling > 0).then_some(ceiling)
    }

    /// What the sums are scaled to, and the value of one step of the outputs that they make. `coarsest` is the value of the
    /// largest step of a sum.
    fn output_step(&self, coarsest: f64) -> Option<(Option<f32>, f32)> {
        Some(match self.output {
            Output::F32 => (None, 1.0),
            Output::Lookup => (Some(TABLE_STEP), 1.0 / 127.0),
            Output::Int8 { step: wanted, .. } if wanted.is_finite() && wanted > 0.0 => {
                let step = wanted.max((coarsest / Parameter::LARGEST_RATIO) as f32);
                (Some(step), step)
            }
            Output::Int8 { .. } => return None,
        })
    }
}

/// Rounds a row-major matrix `weights`, `[inputs, outputs]`, and its biases (`[outputs]`, or none for zeros) and packs them
/// into `tensor`, which has [`bytes`] bytes. Returns the value of one step of the outputs.
///
/// Returns `None`, with `tensor` in any state, if a length does not fit, if a number is not finite, or if a scale leaves the
/// range of the arithmetic.
pub(crate) fn pack(
    weights: &[f32],
    bias: &[f32],
    sums: Sums,
    packing: Packing,
    scales: Scales,
    tensor: &mut [u8],
) -> Option<f32> {
    let [bias_at, parameters_at, len] = sums.layout(packing)?.map(|offset| offset as usize);
    let (inputs, outputs) = (sums.inputs()? as usize, sums.outputs as usize);
    if tensor.len() != len || inputs.checked_mul(outputs)? != weights.len() {
        return None;
    }
    tensor.fill(0);
    let columns = || (0..outputs).map(|output| Column { weights, outputs, output, bias: bias.get(output).copied() });
    let mut coarsest = 0.0f64;
    for column in columns() {
        coarsest = coarsest.max(scales.sum_scale(&column)?);
    }
    let (step, made) = scales.output_step(coarsest)?;
    let ceiling = scales.ceiling(made)?;
    for (output, column) in columns().enumerate() {
        // An output that is always 0 must not make the others coarse: any scale will do for it.
        let scale = match scales.sum_scale(&column)? {
            0.0 if coarsest > 0.0 => coarsest,
            0.0 => f64::from(made) / 128.0,
            scale => scale,
        };
        let reach = column.pack(&sums, packing, (scale / f64::from(scales.input)) as f32, tensor)?;
        let bias = nearest_i64(f64::from(column.bias.unwrap_or(0.0)) / scale);
        i32::try_from(bias.checked_abs()?.checked_add(reach)?).ok()?;
        word(tensor, bias_at, output)?.copy_from_slice(&(bias as i32).to_le_bytes());
        word(tensor, parameters_at, output)?
            .copy_from_slice(&Parameter::new(scale, step)?.bounded(ceiling).to_le_bytes());
    }
    Some(made)
}

/// The parameters of one output.
struct Column<'a> {
    weights: &'a [f32],
    outputs: usize,
    output: usize,
    bias: Option<f32>,
}

impl Column<'_> {
    fn weights(&self) -> impl Iterator<Item = f32> + '_ {
        self.weights.iter().skip(self.output).step_by(self.outputs.max(1)).copied()
    }

    /// Packs the weights, rounded to multiples of `scale`; returns the largest sum that they could make.
    fn pack(&self, sums: &Sums, packing: Packing, scale: f32, tensor: &mut [u8]) -> Option<i64> {
        let mut reach = 0;
        for (input, weight) in self.weights().enumerate() {
            let weight = nearest(weight / scale).clamp(-127, 127) as i8;
            reach += 127 * i64::from(weight.unsigned_abs());
            put(tensor, sums.place(packing, input, self.output)?, weight)?;
        }
        Some(reach)
    }
}

/// Writes a weight; the lower one of a folded pair is there before the upper one.
fn put(tensor: &mut [u8], place: Place, weight: i8) -> Option<()> {
    let borrow = |lower: i8| i8::from(lower < 0);
    let (byte, stored) = match place {
        Place::Plain(byte) => (byte, weight),
        Place::Lower(byte) => {
            // The sign, for a pair that has no upper half.
            *tensor.get_mut(byte + 1)? = (-borrow(weight)).cast_unsigned();
            (byte, weight)
        }
        Place::Upper(byte) => (byte, weight.wrapping_sub(borrow(tensor.get(byte - 1)?.cast_signed()))),
    };
    *tensor.get_mut(byte)? = stored.cast_unsigned();
    Some(())
}

fn word(tensor: &mut [u8], start: usize, index: usize) -> Option<&mut [u8]> {
    tensor.get_mut(start + index * 4..start + index * 4 + 4)
}

/// The nearest integer, halves away from 0. (`f32::round` is not in `core` of the oldest supported Rust.)
pub(crate) fn nearest(value: f32) -> i32 {
    (value + if value < 0.0 { -0.5 } else { 0.5 }) as i32
}

fn nearest_i64(value: f64) -> i64 {
    (value + if value < 0.0 { -0.5 } else { 0.5 }) as i64
}
