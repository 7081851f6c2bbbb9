//! Batches of images, spread over the processor's cores. The core library itself knows no threads.

use rayon::prelude::*;
use std::num::NonZeroUsize;
use thumbnet::{Aligned, AlignedBuf, Ensemble, Input, Model, RunError};

/// How many images the core runs at a time, and so the images whose scratch memory each thread has.
///
/// Work is divided between threads in multiples of it. The order in which the core adds up the products of an image
/// depends on the image's place in its batch; so it has the same place, and the same sums to the last bit, whatever the
/// number of threads.
pub const AT_A_TIME: usize = 64;

/// The number of cores: as many threads as can run at a time.
#[must_use]
pub fn cores() -> NonZeroUsize {
    NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN)
}

/// Runs `model` on `inputs`, `[N, inputs]` row-major, and writes `outputs`, `[N, outputs]`, on up to `threads` threads of
/// rayon's pool, each with scratch memory of its own.
///
/// The outputs are, bit for bit, those of [`Model::run_batch`] with scratch memory for [`AT_A_TIME`] images.
///
/// # Errors
/// [`RunError`] if the inputs are not a multiple of the model's, or if the outputs are not exactly as many as they make.
///
/// ```
/// use thumbnet::{AlignedBuf, Model};
/// use thumbnet_trainer::batches;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/digits.tnet");
/// # let file = AlignedBuf::from_bytes(&std::fs::read(path)?);
/// let model = Model::load(&file)?;
/// let images = vec![0u8; 1000 * model.input_len()];
/// let mut outputs = vec![0.0; 1000 * model.output_len()];
/// batches::run_batch(&model, &images[..], &mut outputs, batches::cores())?;
/// # assert!((outputs[9990..].iter().sum::<f32>() - 1.0).abs() < 1e-5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run_batch<'i>(
    model: &Model<'_>,
    inputs: impl Into<Input<'i>>,
    outputs: &mut [f32],
    threads: NonZeroUsize,
) -> Result<(), RunError> {
    let run = |inputs: Input<'_>, scratch: &mut _, outputs: &mut _| model.run_batch(inputs, scratch, outputs);
    spread(Sizes::of(model), inputs.into(), outputs, threads, run)
}

/// [`run_batch`] without a final softmax.
///
/// # Errors
/// As of [`run_batch`].
pub fn logits_batch<'i>(
    model: &Model<'_>,
    inputs: impl Into<Input<'i>>,
    outputs: &mut [f32],
    threads: NonZeroUsize,
) -> Result<(), RunError> {
    let run = |inputs: Input<'_>, scratch: &mut _, outputs: &mut _| model.logits_batch(inputs, scratch, outputs);
    spread(Sizes::of(model), inputs.into(), outputs, threads, run)
}

/// [`run_batch`] for an ensemble: as of [`Ensemble::run_batch`] with scratch memory for [`AT_A_TIME`] images.
///
/// # Errors
/// As of [`run_batch`].
pub fn ensemble_batch<'i>(
    ensemble: &Ensemble<'_>,
    inputs: impl Into<Input<'i>>,
    outputs: &mut [f32],
    threads: NonZeroUsize,
) -> Result<(), RunError> {
    let (inputs_each, outputs_each) = (ensemble.input_len(), ensemble.output_len());
    let sizes = Sizes { inputs: inputs_each, outputs: outputs_each, scratch: ensemble.scratch_bytes() };
    let run = |inputs: Input<'_>, scratch: &mut _, outputs: &mut _| ensemble.run_batch(inputs, scratch, outputs);
    spread(sizes, inputs.into(), outputs, threads, run)
}

/// The values of an image, those that are made of it, and the scratch memory that it takes.
#[derive(Clone, Copy)]
struct Sizes {
    inputs: usize,
    outputs: usize,
    scratch: usize,
}

impl Sizes {
    fn of(model: &Model<'_>) -> Self {
        Sizes { inputs: model.input_len(), outputs: model.output_len(), scratch: model.scratch_bytes() }
    }
}

fn spread(
    sizes: Sizes,
    inputs: Input<'_>,
    outputs: &mut [f32],
    threads: NonZeroUsize,
    run: impl Fn(Input<'_>, &mut Aligned<[u8]>, &mut [f32]) -> Result<(), RunError> + Sync,
) -> Result<(), RunError> {
    match inputs {
        Input::F32(values) => spread_slice(sizes, values, outputs, threads, run),
        Input::U8(bytes) => spread_slice(sizes, bytes, outputs, threads, run),
    }
}

/// One contiguous part of the images for each thread. `run` is called with the inputs, the scratch memory and the outputs
/// of a part; it reports lengths that do not fit.
fn spread_slice<'i, T: Sync>(
    sizes: Sizes,
    inputs: &'i [T],
    outputs: &mut [f32],
    threads: NonZeroUsize,
    run: impl Fn(Input<'i>, &mut Aligned<[u8]>, &mut [f32]) -> Result<(), RunError> + Sync,
) -> Result<(), RunError>
where
    Input<'i>: From<&'i [T]>,
{
    let count = inputs.len() / sizes.inputs;
    let part = count.div_ceil(AT_A_TIME).div_ceil(threads.get()) * AT_A_TIME;
    let part_of = |inputs: &'i [T], outputs: &mut [f32]| {
        let mut scratch = AlignedBuf::zeroed(AT_A_TIME.min(count.max(1)) * sizes.scratch);
        run(inputs.into(), &mut scratch, outputs)
    };
    let fits = count * sizes.inputs == inputs.len() && count * sizes.outputs == outputs.len();
    if count <= part || !fits {
        return part_of(inputs, outputs);
    }
    let inputs = inputs.par_chunks(part * sizes.inputs);
    outputs.par_chunks_mut(part * sizes.outputs).zip(inputs).try_for_each(|(outputs, inputs)| part_of(inputs, outputs))
}
