//! Reads the few types of postcard that the header of a model uses.
//!
//! The code that serde derives does the same in three times the flash, and for every kind of layer, where a build with the
//! operations `OPS` needs few. (Writing, which no device does, is left to serde and postcard; `tests/format.rs` compares.)

use crate::layer::{
    Activation, AvgPool2d, Conv2d, Dense, DepthwiseConv2d, Layer, MaxPool2d, Packing, Padding, Quantize, Shape, Slope,
    WeightType,
};
use crate::ops;

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'b>(pub(crate) &'b [u8]);

impl<'b> Cursor<'b> {
    pub(crate) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A varint of at most 32 bits.
    #[inline(never)]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        let mut value = 0;
        let mut shift = 0;
        while shift < 32 {
            let byte = u32::from(self.u8()?);
            let bits = byte & 0x7f;
            // The fifth byte has room for four bits.
            if shift == 28 && bits > 0xf {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
            shift += 7;
        }
        None
    }

    fn u16(&mut self) -> Option<u16> {
        self.u32()?.try_into().ok()
    }

    fn i32(&mut self) -> Option<i32> {
        let zigzag = self.u32()?;
        Some((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }

    pub(crate) fn f32(&mut self) -> Option<f32> {
        self.array().map(f32::from_le_bytes)
    }

    /// A list of bytes.
    #[inline(never)]
    pub(crate) fn bytes(&mut self) -> Option<&'b [u8]> {
        let len = self.u32()? as usize;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn shape(&mut self) -> Option<Shape> {
        Some(Shape { height: self.u16()?, width: self.u16()?, channels: self.u16()? })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn padding(&mut self) -> Option<Padding> {
        let [top, bottom, left, right] = self.array()?.map(u8::cast_signed);
        Some(Padding { top, bottom, left, right })
    }

    fn activation<const OPS: u32>(&mut self) -> Option<Activation> {
        match self.u8()? {
            0 => Some(Activation::None),
            1 => Some(Activation::Relu),
            2 if OPS & ops::TANH != 0 => Some(Activation::Tanh),
            3 if OPS & ops::SIGMOID != 0 => Some(Activation::Sigmoid),
            4 if OPS & ops::RELU6 != 0 => Some(Activation::Relu6),
            5 if OPS & ops::LEAKY_RELU != 0 => Slope::from_parts(self.u8()?, self.u8()?).map(Activation::LeakyRelu),
            _ => None,
        }
    }

    fn weights<const OPS: u32>(&mut self) -> Option<WeightType> {
        match self.u8()? {
            0 if OPS & ops::WEIGHTS_F32 != 0 => Some(WeightType::F32),
            1 if OPS & ops::WEIGHTS_F16 != 0 => Some(WeightType::F16),
            2 => match self.u8()? {
                0 if OPS & ops::WEIGHTS_INT8_GROUPED != 0 => Some(WeightType::Int8(Packing::Grouped)),
                1 if OPS & ops::WEIGHTS_INT8_FOLDED != 0 => Some(WeightType::Int8(Packing::Folded)),
                _ => None,
            },
            _ => None,
        }
    }

    /// A layer of a kind that is in `OPS`. (The indices of all enums are below 128, so they are single bytes.)
    #[cfg_attr(target_os = "none", inline(never))]
    #[cfg_attr(not(target_os = "none"), inline(always))]
    pub(crate) fn layer<const OPS: u32>(&mut self) -> Option<Layer> {
        Some(match self.u8()? {
            0 if OPS & ops::DENSE != 0 => Layer::Dense(Dense {
                outputs: self.u16()?,
                activation: self.activation::<OPS>()?,
                weights: self.weights::<OPS>()?,
            }),
            1 if OPS & ops::CONV2D != 0 => Layer::Conv2d(Conv2d {
                filters: self.u16()?,
                kernel: self.array()?,
                stride: self.array()?,
                padding: self.padding()?,
                pool: self.array()?,
                activation: self.activation::<OPS>()?,
                weights: self.weights::<OPS>()?,
            }),
            2 if OPS & ops::MAX_POOL2D != 0 => {
                Layer::MaxPool2d(MaxPool2d { kernel: self.array()?, stride: self.array()? })
            }
            3 if OPS & ops::SOFTMAX != 0 => Layer::Softmax,
            4 if OPS & ops::DEPTHWISE_CONV2D != 0 => Layer::DepthwiseConv2d(DepthwiseConv2d {
                kernel: self.array()?,
                stride: self.array()?,
                padding: self.padding()?,
                activation: self.activation::<OPS>()?,
                weights: self.weights::<OPS>()?,
            }),
            5 if OPS & ops::QUANTIZE != 0 => Layer::Quantize(Quantize {
                inverse_scale: self.f32()?,
                byte_multiplier: self.u32()?,
                byte_offset: self.i32()?,
            }),
            6 if OPS & ops::AVG_POOL2D != 0 => {
                Layer::AvgPool2d(AvgPool2d { kernel: self.array()?, stride: self.array()? })
            }
            _ => return None,
        })
    }
}

/// Whether bytes are valid UTF-8.
///
/// That of `core` is made for long texts: it is faster, and six times as large.
pub(crate) fn is_utf8(mut bytes: &[u8]) -> bool {
    while let Some((first, behind)) = bytes.split_first() {
        // How many bytes follow, and between which bounds the next one lies: there is one way to write a character, and
        // half of a UTF-16 pair is none.
        let (more, next) = match first {
            0..=0x7f => (0, 0..=0),
            0xc2..=0xdf => (1, 0x80..=0xbf),
            0xe0 => (2, 0xa0..=0xbf),
            0xed => (2, 0x80..=0x9f),
            0xe1..=0xef => (2, 0x80..=0xbf),
            0xf0 => (3, 0x90..=0xbf),
            0xf1..=0xf3 => (3, 0x80..=0xbf),
            0xf4 => (3, 0x80..=0x8f),
            _ => return false,
        };
        let Some((continuation, behind)) = behind.split_at_checked(more) else { return false };
        if continuation.first().is_some_and(|byte| !next.contains(byte))
            || continuation.iter().any(|byte| byte & 0xc0 != 0x80)
        {
            return false;
        }
        bytes = behind;
    }
    true
}
