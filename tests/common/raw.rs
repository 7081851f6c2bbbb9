//! Blobs written by hand, byte by byte, so that a test can say anything in them; and seals for patched ones.
//!
//! This is a second writer of the format: `format.rs` compares it with the library's.

use super::network::Network;
use thumbnet::layer::{Activation, Layer, Packing, WeightType};
use thumbnet::{AlignedBuf, LoadError, Model};

/// Where the fields of the prefix lie.
pub(crate) mod field {
    pub(crate) const VERSION: usize = 4;
    pub(crate) const RESERVED: usize = 6;
    pub(crate) const CHECKSUM: usize = 8;
    pub(crate) const FILE_BYTES: usize = 12;
    pub(crate) const OPS: usize = 16;
    pub(crate) const SCRATCH_BYTES: usize = 20;
    pub(crate) const INPUT_LEN: usize = 24;
    pub(crate) const OUTPUT_LEN: usize = 28;
    pub(crate) const WEIGHTS_OFFSET: usize = 32;
    pub(crate) const WEIGHTS_BYTES: usize = 36;
    /// Length of the whole prefix.
    pub(crate) const END: usize = 40;
}

/// CRC-32 as in zlib, bit by bit.
pub(crate) fn crc32(bytes: impl IntoIterator<Item = u8>) -> u32 {
    !bytes.into_iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

pub(crate) fn word(blob: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(blob[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn set_word(blob: &mut [u8], at: usize, value: u32) {
    blob[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Makes the checksum right, so that a check behind it has to find what is wrong. The length is left as it is.
pub(crate) fn reseal_checksum(blob: &mut [u8]) {
    if blob.len() >= field::END {
        let covered = blob.iter().enumerate().filter(|(at, _)| !(8..12).contains(at)).map(|(_, byte)| *byte);
        let crc = crc32(covered);
        set_word(blob, field::CHECKSUM, crc);
    }
}

/// Makes the length and the checksum right.
pub(crate) fn reseal(blob: &mut [u8]) {
    if blob.len() >= field::END {
        set_word(blob, field::FILE_BYTES, blob.len() as u32);
        reseal_checksum(blob);
    }
}

/// [`reseal`], and corrects whatever else of the prefix the loader complains about, so that mutated layers come to run.
pub(crate) fn repair(blob: &mut AlignedBuf) {
    reseal(blob);
    for _ in 0..10 {
        let Err(LoadError::PrefixMismatch { field, actual, .. }) = Model::load(blob) else { return };
        let at = match field {
            "input length" => field::INPUT_LEN,
            "output length" => field::OUTPUT_LEN,
            "weights offset" => field::WEIGHTS_OFFSET,
            "weights length" => field::WEIGHTS_BYTES,
            "operations" => field::OPS,
            "scratch bytes" => field::SCRATCH_BYTES,
            "reserved" => return blob[field::RESERVED..field::CHECKSUM].fill(0),
            other => panic!("the prefix has no field {other:?}"),
        };
        let value = if field == "operations" { word(blob, at) | actual } else { actual };
        set_word(blob, at, value);
        reseal_checksum(blob);
    }
}

pub(crate) fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn activation_bytes(activation: Activation) -> Vec<u8> {
    match activation {
        Activation::None => vec![0],
        Activation::Relu => vec![1],
        Activation::Tanh => vec![2],
        Activation::Sigmoid => vec![3],
        Activation::Relu6 => vec![4],
        Activation::LeakyRelu(slope) => {
            let (multiplier, shift) = slope_parts(slope.value());
            vec![5, multiplier, shift]
        }
    }
}

/// A slope as `multiplier / 2^(8 + shift)`, with a multiplier from 128 to 255.
pub(crate) fn slope_parts(slope: f32) -> (u8, u8) {
    let shift = (0..16).find(|shift| slope * f32::from(1u16 << shift) >= 0.5).expect("a slope of more than 2^-16");
    ((slope * f32::from(1u16 << shift) * 256.0) as u8, shift)
}

pub(crate) fn layer_bytes(layer: &Layer) -> Vec<u8> {
    let weights: &[u8] = match layer.weight_type() {
        None | Some(WeightType::F32) => &[0],
        Some(WeightType::F16) => &[1],
        Some(WeightType::Int8(Packing::Grouped)) => &[2, 0],
        Some(WeightType::Int8(Packing::Folded)) => &[2, 1],
    };
    let activation = activation_bytes(layer.activation());
    match layer {
        Layer::Dense(dense) => [&[0], &varint(dense.outputs.into())[..], &activation, weights].concat(),
        Layer::Conv2d(conv) => {
            let p = conv.padding;
            let padding = [p.top, p.bottom, p.left, p.right].map(|side| side as u8);
            let windows = [&conv.kernel[..], &conv.stride, &padding, &conv.pool].concat();
            [&[1], &varint(conv.filters.into())[..], &windows, &activation, weights].concat()
        }
        Layer::MaxPool2d(pool) => [&[2][..], &pool.kernel, &pool.stride].concat(),
        Layer::AvgPool2d(pool) => [&[6][..], &pool.kernel, &pool.stride].concat(),
        Layer::Softmax => vec![3],
        Layer::DepthwiseConv2d(conv) => {
            let p = conv.padding;
            let padding = [p.top, p.bottom, p.left, p.right].map(|side| side as u8);
            let windows = [&conv.kernel[..], &conv.stride, &padding].concat();
            [&[4][..], &windows, &activation, weights].concat()
        }
        Layer::Quantize(quantize) => {
            let offset = quantize.byte_offset;
            let zigzag = ((offset << 1) ^ (offset >> 31)) as u32;
            let multiplier = varint(quantize.byte_multiplier);
            [&[5][..], &quantize.inverse_scale.to_le_bytes(), &multiplier, &varint(zigzag)].concat()
        }
    }
}

/// A blob in parts, each of which may be anything.
#[derive(Clone, Debug)]
pub(crate) struct RawBlob {
    pub(crate) shape: [u16; 3],
    pub(crate) scale: f32,
    pub(crate) offset: f32,
    pub(crate) labels: Vec<u8>,
    pub(crate) members: Vec<u8>,
    /// The encoded layers.
    pub(crate) layers: Vec<Vec<u8>>,
    /// Bytes before the weight section; `None` for as many zeros as its alignment needs.
    pub(crate) padding: Option<Vec<u8>>,
    pub(crate) weights: Vec<u8>,
    /// Bytes behind the weight section.
    pub(crate) behind: Vec<u8>,
    pub(crate) ops: u32,
    pub(crate) scratch_bytes: u32,
    pub(crate) input_len: u32,
    pub(crate) output_len: u32,
}

impl RawBlob {
    /// The parts of a network's blob. Those that are hard to derive are taken from the library's.
    pub(crate) fn of(network: &Network) -> Self {
        let blob = network.encode();
        let shape = network.input.shape;
        Self {
            shape: [shape.height, shape.width, shape.channels],
            scale: network.input.scale,
            offset: network.input.offset,
            labels: network.labels.join("\n").into_bytes(),
            members: vec![network.layers.len() as u8],
            layers: network.layers.iter().map(layer_bytes).collect(),
            padding: None,
            weights: blob[word(&blob, field::WEIGHTS_OFFSET) as usize..].to_vec(),
            behind: Vec::new(),
            ops: word(&blob, field::OPS),
            scratch_bytes: word(&blob, field::SCRATCH_BYTES),
            input_len: word(&blob, field::INPUT_LEN),
            output_len: word(&blob, field::OUTPUT_LEN),
        }
    }

    /// The header from the input's shape up to the layers: all but the padding and the length of the weight section.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut header: Vec<u8> = self.shape.iter().flat_map(|n| varint((*n).into())).collect();
        header.extend([self.scale, self.offset].iter().flat_map(|x| x.to_le_bytes()));
        header.extend([sized(&self.labels), sized(&self.members), varint(self.layers.len() as u32)].concat());
        header.extend(self.layers.concat());
        header
    }

    pub(crate) fn write(&self) -> AlignedBuf {
        self.write_with(self.header())
    }

    /// The blob with another header.
    pub(crate) fn write_with(&self, mut header: Vec<u8>) -> AlignedBuf {
        let length = varint(self.weights.len() as u32);
        let zeros = || vec![0; (64 - (field::END + header.len() + 1 + length.len()) % 64) % 64];
        let padding = self.padding.clone().unwrap_or_else(zeros);
        header.extend([sized(&padding), length].concat());
        let offset = (field::END + header.len()) as u32;
        let words = [1, 0, 0, self.ops, self.scratch_bytes, self.input_len, self.output_len, offset];
        let mut bytes = b"TNET".to_vec();
        bytes.extend(words.iter().chain([&(self.weights.len() as u32)]).flat_map(|word| word.to_le_bytes()));
        bytes.extend([&header[..], &self.weights, &self.behind].concat());
        let mut blob = AlignedBuf::from_bytes(&bytes);
        reseal(&mut blob);
        blob
    }
}

/// Bytes behind their number.
fn sized(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u32), bytes.to_vec()].concat()
}
