//! The messages between a device that runs a model and the desktop that evaluates it, and how they go over a wire that may
//! lose or damage bytes: a UART, say.
//!
//! # Conversation
//! The desktop sends a [`Request`], the device sends an [`Answer`] with the same number. The desktop has one request under
//! way at a time; if no answer comes, it sends the same request again. Every request can be repeated without harm: an
//! answer that comes late has an old number and is dropped.
//!
//! | command | the device | reply |
//! |---|---|---|
//! | [`Command::Info`] | | [`Reply::Info`] |
//! | [`Command::Classify`] | runs its model on one input | [`Reply::Classified`] |
//! | [`Command::StartUpload`] | makes room for a model; the present one goes on | [`Reply::Stored`] |
//! | [`Command::Upload`] | stores the next bytes of it | [`Reply::Stored`] |
//! | [`Command::UseUpload`] | validates the new model; if it is one, it takes the place of the present one | [`Reply::Info`] |
//!
//! What the device cannot do it answers with [`Reply::Refused`], and goes on with what it had.
//!
//! # Frame
//! ```text
//! 0x00 | COBS( message | CRC-32, 4 bytes little-endian ) | 0x00
//! ```
//! The message is in [postcard](https://postcard.jamesmunns.com/wire-format)'s format: integers as varints, slices and strings
//! with their length before them, enum variants by their index. The checksum is CRC-32/ISO-HDLC (that of zip and Ethernet)
//! over the message. [COBS](https://en.wikipedia.org/wiki/Consistent_Overhead_Byte_Stuffing) takes all zero bytes out, so that a
//! zero byte is where a frame ends, whatever came before it: a receiver that lost its way is back on it at the next one. The
//! zero byte in front ends what noise may have left. Nothing between two zero bytes is no frame, and means nothing.
//!
//! A device answers a frame that it cannot read with [`Refusal::Unreadable`] under the number 0, which no request has; so
//! the desktop need not wait before it tries again.
#![no_std]

mod frame;
mod message;

pub use frame::{MAX_FRAME, MAX_MESSAGE, Receiver, Unreadable, decode, encode};
pub use message::{Answer, CHUNK, Command, Floats, Info, MAX_DATA, NO_NUMBER, Refusal, Reply, Request, VERSION};
