//! Models that are part of the program: [`include_model!`](crate::include_model) and what it makes.

use crate::align::Scratch;
use crate::error::LoadError;
use crate::model::{Classification, Input, Model};
use core::ops::Deref;

/// A model whose sizes are types, so that running it cannot fail.
///
/// [`include_model!`](crate::include_model) names the type and makes the values.
#[derive(Clone, Debug)]
pub struct EmbeddedModel<const OPS: u32, const INPUTS: usize, const OUTPUTS: usize, const SCRATCH: usize>(
    Model<'static, OPS>,
);

impl<const OPS: u32, const INPUTS: usize, const OUTPUTS: usize, const SCRATCH: usize>
    EmbeddedModel<OPS, INPUTS, OUTPUTS, SCRATCH>
{
    /// Checks the blob, whose prefix the sizes are from: it is checked against what follows it.
    #[doc(hidden)]
    pub fn load(blob: &'static [u8]) -> Result<Self, LoadError> {
        Ok(Self(Model::load_with_ops(blob)?))
    }

    /// Runs the model on one input, an array of `INPUTS` f32 values or bytes, and returns its outputs.
    //
    // Not inlined, nor are the others: their caller would keep on its stack what they need, even while it loads a model.
    #[inline(never)]
    pub fn run<'i>(&self, input: impl Into<FixedInput<'i, INPUTS>>, scratch: &mut Scratch<SCRATCH>) -> [f32; OUTPUTS] {
        copied(self.0.run(input.into().0, scratch).unwrap_or_default())
    }

    /// [`run`](Self::run) without a final softmax: the values that softmax would turn into probabilities.
    #[inline(never)]
    pub fn logits<'i>(
        &self,
        input: impl Into<FixedInput<'i, INPUTS>>,
        scratch: &mut Scratch<SCRATCH>,
    ) -> [f32; OUTPUTS] {
        copied(self.0.logits(input.into().0, scratch).unwrap_or_default())
    }

    /// Runs the model on one input and returns the class with the largest output.
    #[inline(never)]
    pub fn classify<'i>(
        &self,
        input: impl Into<FixedInput<'i, INPUTS>>,
        scratch: &mut Scratch<SCRATCH>,
    ) -> Classification<'static> {
        // Never empty: the only errors are lengths, and those are types here.
        self.0.classification(self.0.run(input.into().0, scratch).unwrap_or_default())
    }
}

impl<const OPS: u32, const INPUTS: usize, const OUTPUTS: usize, const SCRATCH: usize> Deref
    for EmbeddedModel<OPS, INPUTS, OUTPUTS, SCRATCH>
{
    type Target = Model<'static, OPS>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

fn copied<const N: usize>(values: &[f32]) -> [f32; N] {
    // (Neither filled nor copied as a whole, for which a general `memset` or `memcpy` would be linked.)
    core::array::from_fn(|index| values.get(index).copied().unwrap_or_default())
}

/// One input of an [`EmbeddedModel`]: an array of `f32` or of bytes, of the right length by its type.
#[derive(Clone, Copy, Debug)]
pub struct FixedInput<'a, const N: usize>(Input<'a>);

impl<'a, const N: usize> From<&'a [f32; N]> for FixedInput<'a, N> {
    fn from(values: &'a [f32; N]) -> Self {
        Self(values.into())
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for FixedInput<'a, N> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(bytes.into())
    }
}

/// Makes a model file part of the program, as a module.
///
/// ```
/// thumbnet::include_model! {
///     /// The digit classifier.
///     pub mod digits = "../models/digits.tnet";
/// }
///
/// let model = digits::load()?;
/// let mut scratch = digits::Scratch::zeroed();
/// let image = [0u8; digits::INPUT_LEN];
/// let found = model.classify(&image, &mut scratch);
/// # assert_eq!(found.label.len(), 1);
/// # Ok::<(), thumbnet::LoadError>(())
/// ```
///
/// The path is relative to the file that invokes the macro. The bytes are aligned and stay where they are linked. The
/// prefix is read while compiling, and a file that is not a model, or is truncated, is a compile error. What the module
/// has:
///
/// | item | what it is |
/// |---|---|
/// | `BLOB` | the file's bytes |
/// | `INPUT_LEN`, `OUTPUT_LEN` | the number of input and output values |
/// | `SCRATCH_BYTES` | the scratch memory that a run needs |
/// | `OPS` | the operations that the model needs; no others are linked |
/// | `Model` | the type of the loaded model: an [`EmbeddedModel`](crate::EmbeddedModel), whose `run` cannot fail |
/// | `Scratch` | the type of its scratch memory |
/// | `load()` | checks the blob, its checksum included, and makes a `Model` |
///
/// A file that is no model does not compile:
///
/// ```compile_fail
/// thumbnet::include_model! { mod broken = "../Cargo.toml"; }
/// ```
#[macro_export]
macro_rules! include_model {
    ($(#[$attribute:meta])* $visibility:vis mod $name:ident = $path:expr $(;)?) => {
        $(#[$attribute])*
        $visibility mod $name {
            const FILE: &[u8] = ::core::include_bytes!($path);
            const PREFIX: $crate::blob::Prefix = $crate::blob::embedded_prefix(FILE);
            static ALIGNED: $crate::Aligned<[u8; FILE.len()]> = $crate::Aligned(*::core::include_bytes!($path));
            /// The model file.
            pub static BLOB: &[u8] = &ALIGNED.0;
            /// The number of input values.
            pub const INPUT_LEN: usize = PREFIX.input_len as usize;
            /// The number of output values.
            pub const OUTPUT_LEN: usize = PREFIX.output_len as usize;
            /// The scratch memory that a run needs, in bytes.
            pub const SCRATCH_BYTES: usize = PREFIX.scratch_bytes as usize;
            /// The operations that the model needs.
            pub const OPS: u32 = PREFIX.ops;
            /// The type of the loaded model.
            pub type Model = $crate::EmbeddedModel<OPS, INPUT_LEN, OUTPUT_LEN, SCRATCH_BYTES>;
            /// The type of the model's scratch memory.
            pub type Scratch = $crate::Scratch<SCRATCH_BYTES>;
            /// Checks the blob, its checksum included, and makes a model of it.
            ///
            /// # Errors
            /// What is wrong with the blob.
            pub fn load() -> ::core::result::Result<Model, $crate::LoadError> {
                Model::load(BLOB)
            }
        }
    };
}
