//! What is said.

use serde::{Deserialize, Serialize};

/// The version of this protocol. It changes when a message changes; [`Info::protocol`] tells the device's.
pub const VERSION: u16 = 2;

/// The most bytes that an input, a part of a model, or the outputs of a model may have in one message.
pub const MAX_DATA: usize = 4096;

/// The bytes of a model that one [`Command::Upload`] should carry: a lost frame costs no more than that.
pub const CHUNK: usize = 1024;

/// The number of an answer to something that had no number.
pub const NO_NUMBER: u32 = 0;

/// From the desktop to the device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request<'a> {
    /// Not [`NO_NUMBER`], and not that of the request before. One that is sent again keeps its number.
    pub number: u32,
    /// What the device is to do.
    #[serde(borrow)]
    pub command: Command<'a>,
}

/// What the device is to do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command<'a> {
    /// Tell about itself.
    Info,
    /// Run the model.
    Classify {
        /// The input: `[H, W, C]`, a byte per value, as many as the model takes and at most [`MAX_DATA`].
        input: &'a [u8],
    },
    /// Make room for a model. What was uploaded and not used is forgotten.
    StartUpload {
        /// What the model is called.
        name: &'a str,
        /// Its size in bytes.
        bytes: u32,
    },
    /// Store a part of it.
    Upload {
        /// Where in the model the part belongs: not behind what is there already.
        offset: u32,
        /// The part: at most [`MAX_DATA`] bytes.
        data: &'a [u8],
    },
    /// Use the uploaded model from now on.
    UseUpload,
}

/// From the device to the desktop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer<'a> {
    /// The request's number, or [`NO_NUMBER`].
    pub number: u32,
    /// How many requests the device has answered since it started, this one included; it wraps.
    pub requests: u32,
    /// The answer itself.
    #[serde(borrow)]
    pub reply: Reply<'a>,
}

/// The answer itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// The device and its model.
    Info(#[serde(borrow)] Info<'a>),
    /// What the model says of an input.
    Classified {
        /// The class with the largest output; the first of several.
        class: u16,
        /// The model's outputs: probabilities, if it ends in a softmax.
        outputs: Floats<'a>,
    },
    /// So much of the upload is there.
    Stored {
        /// Bytes, from the first one without a gap.
        bytes: u32,
    },
    /// The device did not do it.
    Refused(#[serde(borrow)] Refusal<'a>),
}

/// The device and its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info<'a> {
    /// [`VERSION`] of the device. It stays in front, whatever else changes.
    pub protocol: u16,
    /// What the model is called.
    pub model: &'a str,
    /// Size of the model file in bytes.
    pub model_bytes: u32,
    /// Height, width and channels of an input.
    pub shape: [u16; 3],
    /// The number of outputs: classes.
    pub outputs: u16,
    /// The number of labels: as many as outputs, or none.
    pub labels: u16,
    /// The scratch memory that the model needs, in bytes.
    pub scratch_bytes: u32,
    /// The largest model that can be uploaded, in bytes.
    pub upload_bytes: u32,
    /// The most stack that the device has used at one time since it started, in bytes.
    pub stack_bytes: u32,
    /// What the kernels were built for.
    pub kernels: &'a str,
}

/// Why the device did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal<'a> {
    /// A frame was damaged, or it is of another version of the protocol.
    Unreadable,
    /// The input does not have as many bytes as the model takes values.
    InputLength {
        /// Bytes received.
        found: u32,
        /// Values of the model's input.
        expected: u32,
    },
    /// A model that takes more of something than the device has.
    TooLarge {
        /// Of what: `"bytes"`, say.
        what: &'a str,
        /// What the model takes.
        needed: u32,
        /// What the device has.
        available: u32,
    },
    /// There is no upload under way.
    NoUpload,
    /// A part that leaves a gap, or reaches beyond the announced end; or the model is to be used before its end is there.
    UploadGap {
        /// Bytes that are there.
        stored: u32,
        /// Bytes that were announced.
        announced: u32,
    },
    /// What was uploaded is not a model.
    NoModel(&'a str),
}

/// A slice of `f32` as it lies in a message: little-endian, at any address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floats<'a>(&'a [u8]);

impl<'a> Floats<'a> {
    /// The values. On the little-endian processors that thumbnet runs on, these are the bytes of the slice.
    #[must_use]
    pub fn new(values: &'a [f32]) -> Self {
        const { assert!(cfg!(target_endian = "little"), "thumbnet is little-endian") }
        Self(bytemuck::cast_slice(values))
    }

    /// The values, one by one.
    pub fn iter(&self) -> impl Iterator<Item = f32> + use<'a> {
        let (values, _) = self.0.as_chunks();
        values.iter().map(|bytes| f32::from_le_bytes(*bytes))
    }
}
