//! What can go wrong, and how it is said.

use crate::layer::LayerError;
use crate::ops;
use core::fmt;

/// Why a blob is not a model that this build can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// Fewer bytes than a prefix has.
    TooShort {
        /// Bytes found.
        found: usize,
        /// Bytes that the prefix alone needs.
        needed: usize,
    },
    /// The first four bytes are not `TNET`.
    NotAModel {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A format version that this library does not read.
    UnsupportedVersion {
        /// The blob's version.
        found: u16,
        /// The version that this library reads.
        supported: u16,
    },
    /// More or fewer bytes than the prefix says.
    WrongLength {
        /// Bytes found.
        found: usize,
        /// Bytes that the prefix names.
        expected: usize,
    },
    /// The blob does not start on a 64-byte boundary: see [`Aligned`](crate::Aligned).
    Misaligned {
        /// How far behind a boundary it starts, in bytes.
        off_by: usize,
    },
    /// The checksum over the file's bytes is not the one stored in it.
    ChecksumMismatch {
        /// The stored CRC-32.
        stored: u32,
        /// The CRC-32 of what is there.
        computed: u32,
    },
    /// The blob needs operations that this build leaves out, or that this library does not know.
    UnsupportedOps {
        /// The missing ones, as a mask: see [`ops`].
        missing: u32,
    },
    /// The header behind the prefix is not valid postcard, names an unknown kind of layer, or holds more than the format's
    /// limits allow.
    MalformedHeader,
    /// The header says something that no model can mean.
    InvalidHeader(
        /// What.
        HeaderError,
    ),
    /// A layer that cannot be.
    InvalidLayer {
        /// Its index, counted from 0.
        index: usize,
        /// What is wrong with it.
        error: LayerError,
    },
    /// The labels are not as many as the outputs.
    WrongLabelCount {
        /// Labels found.
        found: usize,
        /// Outputs of the last layer.
        outputs: usize,
    },
    /// The weight section is not as long as the layers' tensors together.
    WrongWeightLength {
        /// Bytes found.
        found: usize,
        /// Bytes that the layers need.
        expected: usize,
    },
    /// The prefix contradicts what follows it.
    PrefixMismatch {
        /// The field of the prefix.
        field: &'static str,
        /// Its value.
        stored: u32,
        /// The value that follows from the rest of the blob.
        actual: u32,
    },
}

/// What a header says that no model can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// A dimension of the input is 0, or it has more values than the format allows.
    InputShape,
    /// The scale or the offset of the input is infinite or NaN.
    InputScale,
    /// The labels are longer together than the format allows.
    Labels,
    /// There are no layers.
    NoLayers,
    /// The members' layer counts do not add up to the layers, or there are several members, which this version cannot run.
    Members,
    /// The padding before the weight section is not zeros, or not as long as its alignment asks.
    Padding,
    /// There are bytes behind the weight section.
    TrailingBytes,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooShort { found, needed } => {
                write!(f, "{found} bytes are too short for a model: its prefix alone has {needed}")
            }
            Self::NotAModel { found } => write!(f, "not a thumbnet model: begins with {found:02x?}, not with \"TNET\""),
            Self::UnsupportedVersion { found, supported } => {
                write!(f, "format version {found}, but this library reads version {supported}")
            }
            Self::WrongLength { found, expected } => {
                write!(f, "{found} bytes long, but the prefix says {expected}: truncated, or with something appended")
            }
            Self::Misaligned { off_by } => {
                write!(f, "the model starts {off_by} bytes behind a 64-byte boundary; put it into an `Aligned`")
            }
            Self::ChecksumMismatch { stored, computed } => {
                write!(f, "damaged: its checksum is {computed:08x}, but it was written as {stored:08x}")
            }
            Self::UnsupportedOps { missing } => {
                f.write_str("needs operations that this build does not have:")?;
                ops::names(missing).try_for_each(|name| write!(f, " {name}"))
            }
            Self::MalformedHeader => f.write_str("the header cannot be decoded"),
            Self::InvalidHeader(error) => write!(f, "invalid header: {error}"),
            Self::InvalidLayer { index, error } => write!(f, "layer {index} is impossible: {error}"),
            Self::WrongLabelCount { found, outputs } => write!(f, "{found} labels for {outputs} outputs"),
            Self::WrongWeightLength { found, expected } => {
                write!(f, "{found} bytes of weights, but the layers have {expected}")
            }
            Self::PrefixMismatch { field, stored, actual } => {
                write!(f, "the prefix says {field} = {stored}, but the model has {actual}")
            }
        }
    }
}

impl core::error::Error for LoadError {}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InputShape => "the input has a dimension of 0, or more values than the format allows",
            Self::InputScale => "the input's scale and offset must be finite",
            Self::Labels => "the labels are longer than the format allows",
            Self::NoLayers => "there are no layers",
            Self::Members => "the members' layer counts do not make one network of all layers",
            Self::Padding => "the padding before the weights is not as it should be",
            Self::TrailingBytes => "bytes follow the weights",
        })
    }
}

impl core::error::Error for HeaderError {}

/// Why a model did not run: a length does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RunError {
    /// The input does not have as many values as the model's input shape, or a batch of inputs not a multiple of that.
    WrongInputLength {
        /// Values given.
        found: usize,
        /// Values that the model takes.
        expected: usize,
    },
    /// The outputs of a batch do not have room for exactly the model's outputs for each input.
    WrongOutputLength {
        /// Values given.
        found: usize,
        /// Values that the batch makes.
        expected: usize,
    },
    /// The scratch memory is smaller than [`Model::scratch_bytes`](crate::Model::scratch_bytes).
    ScratchTooSmall {
        /// Bytes given.
        found: usize,
        /// Bytes that the model needs.
        needed: usize,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongInputLength { found, expected } => {
                write!(f, "the input has {found} values, but the model takes {expected}")
            }
            Self::WrongOutputLength { found, expected } => {
                write!(f, "room for {found} outputs, but the batch makes {expected}")
            }
            Self::ScratchTooSmall { found, needed } => {
                write!(f, "{found} bytes of scratch memory, but the model needs {needed}")
            }
        }
    }
}

impl core::error::Error for RunError {}

/// Why a model cannot be written as a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// No layers, or more than [`MAX_LAYERS`](crate::layer::MAX_LAYERS).
    LayerCount {
        /// The number of layers.
        found: usize,
    },
    /// A layer that cannot be.
    InvalidLayer {
        /// Its index, counted from 0.
        index: usize,
        /// What is wrong with it.
        error: LayerError,
    },
    /// The labels are not as many as the outputs; or there are too many or too long ones; or one holds a line break.
    Labels,
    /// A dimension of the input is 0, or it has more values than the format allows.
    InputShape,
    /// The scale or the offset of the input is infinite or NaN.
    InputScale,
    /// There are not as many tensors as layers with weights.
    TensorCount {
        /// Tensors given.
        found: usize,
    },
    /// A tensor's weights or biases are not as many as its layer has.
    TensorShape {
        /// The layer's index, counted from 0.
        index: usize,
    },
    /// The scale of an int8 layer's outputs is missing or no positive number, or the layer's sums leave the range of the
    /// arithmetic.
    Scale {
        /// The layer's index, counted from 0.
        index: usize,
    },
    /// The blob does not fit into the output buffer, or into 4 GiB.
    BufferTooSmall,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LayerCount { found } => {
                write!(f, "{found} layers, but a model has between 1 and {}", crate::layer::MAX_LAYERS)
            }
            Self::InvalidLayer { index, error } => write!(f, "layer {index} is impossible: {error}"),
            Self::Labels => write!(
                f,
                "labels must be as many as the outputs, without line breaks, and at most {} bytes together",
                crate::blob::MAX_LABEL_BYTES
            ),
            Self::InputShape => f.write_str("the input has a dimension of 0, or more values than the format allows"),
            Self::InputScale => f.write_str("the input's scale and offset must be finite"),
            Self::TensorCount { found } => write!(f, "{found} tensors are not one for each layer with weights"),
            Self::TensorShape { index } => {
                write!(f, "the weights or biases of layer {index} are not as many as it has")
            }
            Self::Scale { index } => {
                write!(f, "layer {index} has no scale for its outputs, or sums that int8 arithmetic cannot hold")
            }
            Self::BufferTooSmall => f.write_str("the model does not fit into the buffer"),
        }
    }
}

impl core::error::Error for EncodeError {}
