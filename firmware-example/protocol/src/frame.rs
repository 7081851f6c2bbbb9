//! How it is sent: messages in frames, and frames out of a stream of bytes.

use crate::message::MAX_DATA;
use core::fmt;
use postcard::ser_flavors::{Cobs, Slice, crc::CrcModifier};
use serde::{Deserialize, Serialize};

/// The most bytes of a message, its checksum included: the data, and what goes with it.
pub const MAX_MESSAGE: usize = MAX_DATA + 128;

/// The most bytes of a frame, with the zero bytes around it.
pub const MAX_FRAME: usize = cobs::max_encoding_length(MAX_MESSAGE) + 2;

static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

/// Bytes of the checksum at the end of a message.
const CRC_BYTES: usize = 4;

/// A frame that is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Longer than [`MAX_FRAME`].
    TooLong,
    /// Not COBS.
    Coding,
    /// The checksum is not that of the message.
    Checksum,
    /// An intact message, but not one of this version of the protocol.
    Message,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "a frame without an end",
            Self::Coding => "a damaged frame",
            Self::Checksum => "a frame with a wrong checksum",
            Self::Message => "an unknown message: of another version of the protocol?",
        })
    }
}

impl core::error::Error for Unreadable {}

/// Makes a frame of a [`Request`](crate::Request) or an [`Answer`](crate::Answer) in `buffer`. `None` if there is not enough
/// room: [`MAX_FRAME`] bytes are enough if the message keeps to [`MAX_DATA`].
pub fn encode<'b>(message: &impl Serialize, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let (start, rest) = buffer.split_first_mut()?;
    *start = 0;
    let cobs = Cobs::try_new(Slice::new(rest)).ok()?;
    let frame = postcard::serialize_with_flavor(message, CrcModifier::new(cobs, CRC.digest())).ok()?;
    let end = frame.len().checked_add(1)?;
    buffer.get(..end)
}

/// Reads the message that a [`Receiver`] found.
///
/// # Errors
/// [`Unreadable::Message`] if it is none, or if bytes follow it.
pub fn decode<'m, T: Deserialize<'m>>(message: &'m [u8]) -> Result<T, Unreadable> {
    match postcard::take_from_bytes(message) {
        Ok((decoded, [])) => Ok(decoded),
        _ => Err(Unreadable::Message),
    }
}

/// Finds frames in a stream of bytes. After noise it is back in step at the next zero byte.
///
/// ```
/// use thumbnet_protocol::{Command, MAX_FRAME, Receiver, Request, decode, encode};
/// let request = Request { number: 7, command: Command::Info };
/// let mut buffer = [0; MAX_FRAME];
/// let frame = encode(&request, &mut buffer).unwrap();
/// let mut receiver = Receiver::new();
/// let mut found = 0;
/// for byte in b"noise".iter().chain(frame) {
///     if let Some(Ok(message)) = receiver.push(*byte) {
///         assert_eq!(decode::<Request>(message), Ok(request));
///         found += 1;
///     }
/// }
/// assert_eq!(found, 1);
/// ```
#[derive(Clone, Debug)]
pub struct Receiver {
    frame: [u8; MAX_FRAME],
    /// Bytes since the last zero byte; more than there is room for if the frame is too long.
    length: usize,
}

impl Receiver {
    /// One that has not received anything.
    #[must_use]
    pub const fn new() -> Self {
        Self { frame: [0; MAX_FRAME], length: 0 }
    }

    /// Takes the next byte of the stream. A zero byte that ends a frame gives its message, without the checksum.
    ///
    /// # Errors
    /// [`Unreadable`], but for [`Unreadable::Message`], if what ends here is no frame.
    pub fn push(&mut self, byte: u8) -> Option<Result<&[u8], Unreadable>> {
        if byte != 0 {
            if let Some(place) = self.frame.get_mut(self.length) {
                *place = byte;
            }
            self.length = self.length.saturating_add(1);
            return None;
        }
        match core::mem::take(&mut self.length) {
            0 => None,
            length => Some(self.frame.get_mut(..length).ok_or(Unreadable::TooLong).and_then(message)),
        }
    }
}

impl Default for Receiver {
    fn default() -> Self {
        Self::new()
    }
}

/// The message in the COBS form of a message and its checksum, in place.
fn message(frame: &mut [u8]) -> Result<&[u8], Unreadable> {
    let length = cobs::decode_in_place(frame).map_err(|_| Unreadable::Coding)?;
    let decoded = frame.get(..length).ok_or(Unreadable::Coding)?;
    let (message, checksum) = decoded.split_last_chunk::<CRC_BYTES>().ok_or(Unreadable::Checksum)?;
    if CRC.checksum(message).to_le_bytes() == *checksum { Ok(message) } else { Err(Unreadable::Checksum) }
}
