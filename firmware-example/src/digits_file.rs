//! The files `assets/MODEL.bin`: test digits, and what the desktop made of them with that model.
//!
//! It is one [postcard](https://postcard.jamesmunns.com/wire-format) message, a sequence of [`Digit`]s: their number as a
//! varint, then each digit's fields in order, without gaps. `cargo xtask firmware` writes it, `digits` reads it in place.

use serde::{Deserialize, Serialize};

/// Pixels of an image: 28 rows of 28, one byte each, 0 the background and 255 the ink.
pub const PIXELS: usize = 28 * 28;

/// Classes that the model tells apart.
pub const CLASSES: usize = 10;

/// One test image with its label, and the result that the desktop's core gave for it.
#[derive(Serialize, Deserialize)]
pub struct Digit<'a> {
    /// The right answer.
    pub label: u8,
    /// The class that the desktop's core gave.
    pub prediction: u8,
    /// The logits that the desktop's core gave.
    pub logits: [f32; CLASSES],
    /// The image: [`PIXELS`] bytes, row by row.
    pub pixels: &'a [u8],
}
