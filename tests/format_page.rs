//! A reader written from `docs/format.md` alone, with byte offsets and nothing of the library, to prove that the page is
//! enough; and the page's worked example, to prove that it is right.

use thumbnet::blob::{ModelSpec, Tensors, encode};
use thumbnet::layer::{Activation, Dense, InputSpec, Layer, Shape, WeightType};
use thumbnet::{AlignedBuf, Model};

const PAGE: &str = include_str!("../docs/format.md");

/// Reads the values of the header one after the other.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        self.at += count;
        &self.bytes[self.at - count..self.at]
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn varint(&mut self) -> usize {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn float(&mut self) -> f32 {
        f32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }
}

fn word(file: &[u8], at: usize) -> usize {
    u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize
}

/// CRC-32 as the page defines it, over everything but bytes 8 to 11.
fn checksum(file: &[u8]) -> u32 {
    let mut crc = 0xffff_ffffu32;
    for byte in file[..8].iter().chain(&file[12..]) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// A dense layer, its weights unpacked to `[inputs][outputs]`.
struct DenseLayer {
    activation: u8,
    bias: Vec<f32>,
    weights: Vec<Vec<f32>>,
}

struct File {
    scale: f32,
    offset: f32,
    labels: Vec<String>,
    layers: Vec<DenseLayer>,
    softmax: bool,
}

/// Takes a tensor of panels apart, and says how many bytes it has.
fn tensor(bytes: &[u8], inputs: usize, outputs: usize) -> (Vec<f32>, Vec<Vec<f32>>, usize) {
    let value = |index: usize| f32::from_le_bytes(bytes[4 * index..4 * index + 4].try_into().expect("four bytes"));
    let mut bias = vec![0.0; outputs];
    let mut weights = vec![vec![0.0; outputs]; inputs];
    let mut at = 0;
    for first in (0..outputs).step_by(16) {
        for row in &mut weights {
            for weight in &mut row[first..outputs.min(first + 16)] {
                *weight = value(at);
                at += 1;
            }
        }
    }
    bias.iter_mut().enumerate().for_each(|(output, bias)| *bias = value(at + output));
    let behind_loads = at + (16 - outputs % 16) % 16;
    (bias, weights, (4 * behind_loads.max(at + outputs)).div_ceil(64) * 64)
}

fn read(file: &[u8]) -> File {
    assert_eq!(&file[0..4], b"TNET");
    assert_eq!(file[4..8], [1, 0, 0, 0]);
    assert_eq!(word(file, 8), checksum(file) as usize);
    assert_eq!(word(file, 12), file.len());
    let weights_offset = word(file, 32);
    let mut header = Reader { bytes: file, at: 40 };
    let mut len = [header.varint(), header.varint(), header.varint()].iter().product::<usize>();
    assert_eq!(word(file, 24), len);
    let (scale, offset) = (header.float(), header.float());
    let bytes = header.varint();
    let labels = std::str::from_utf8(header.take(bytes)).expect("UTF-8");
    let labels = if labels.is_empty() { Vec::new() } else { labels.split('\n').map(String::from).collect() };
    assert_eq!(header.varint(), 1, "members");
    let member = usize::from(header.byte());
    let count = header.varint();
    assert_eq!(member, count);
    let mut shapes = Vec::new();
    let (mut softmax, mut scratch) = (false, 0);
    for index in 0..count {
        match header.varint() {
            0 => {
                let outputs = header.varint();
                let activation = header.varint() as u8;
                assert_eq!(header.varint(), 0, "f32 weights");
                let held = if index == 0 { 0 } else { len };
                scratch = scratch.max(4 * (held + outputs));
                shapes.push((len, outputs, activation));
                len = outputs;
            }
            3 => softmax = true,
            other => panic!("this reader has no layers of kind {other}"),
        }
    }
    let padding = header.varint();
    assert!(header.take(padding).iter().all(|byte| *byte == 0));
    let weights_bytes = header.varint();
    assert_eq!((header.at, weights_bytes), (weights_offset, word(file, 36)));
    assert_eq!((weights_offset % 64, weights_offset + weights_bytes), (0, file.len()));
    assert_eq!((word(file, 20), word(file, 28)), (scratch, len));
    let mut at = weights_offset;
    let mut layers = Vec::new();
    for (inputs, outputs, activation) in shapes {
        let (bias, weights, bytes) = tensor(&file[at..], inputs, outputs);
        layers.push(DenseLayer { activation, bias, weights });
        at += bytes;
    }
    assert_eq!(at, file.len());
    File { scale, offset, labels, layers, softmax }
}

impl File {
    fn run(&self, bytes: &[u8]) -> Vec<f64> {
        let mut x: Vec<f64> = bytes.iter().map(|b| f64::from(f32::from(*b) * self.scale + self.offset)).collect();
        for layer in &self.layers {
            let mut sums: Vec<f64> = layer.bias.iter().copied().map(f64::from).collect();
            for (x, row) in x.iter().zip(&layer.weights) {
                sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += x * f64::from(*weight));
            }
            let activation = |x: f64| match layer.activation {
                0 => x,
                1 => x.max(0.0),
                2 => x.tanh(),
                3 => 1.0 / (1.0 + (-x).exp()),
                other => panic!("there is no activation {other}"),
            };
            x = sums.into_iter().map(activation).collect();
        }
        if self.softmax {
            let sum: f64 = x.iter().map(|x| x.exp()).sum();
            x.iter_mut().for_each(|x| *x = x.exp() / sum);
        }
        x
    }
}

/// The first two columns of the page's table: offsets and bytes.
fn rows() -> impl Iterator<Item = (usize, Vec<u8>)> {
    let hex = |digits: &str| usize::from_str_radix(digits, 16).expect("hex digits");
    PAGE.lines().filter_map(|line| line.strip_prefix("| `0x")).map(move |row| {
        let columns: Vec<_> = row.split('`').collect();
        let bytes = match columns[2].strip_prefix("00 ×") {
            // "00 ×56" stands for that many zeros.
            Some(count) => vec![0; count.parse().expect("a number")],
            None => columns[2].split(' ').map(|digits| hex(digits) as u8).collect(),
        };
        (hex(columns[0]), bytes)
    })
}

fn example() -> Vec<u8> {
    rows().flat_map(|(_, bytes)| bytes).collect()
}

/// The model that the page shows.
fn encoded() -> AlignedBuf {
    let layer = Layer::Dense(Dense { outputs: 2, activation: Activation::Relu, weights: WeightType::F32 });
    let input = InputSpec { shape: Shape::flat(3), scale: 0.5, offset: -1.0 };
    let spec = ModelSpec { input, labels: &["no", "yes"], layers: &[layer, Layer::Softmax] };
    let tensors = Tensors { weights: &[1.0, -1.0, 2.0, -2.0, 3.0, 0.25], bias: &[0.5, -0.5] };
    let mut out = AlignedBuf::zeroed(1000);
    let len = encode(&spec, &[tensors], &mut out).expect("a valid model").len();
    AlignedBuf::from_bytes(&out[..len])
}

/// Says on failure what the table has to be.
#[test]
fn the_worked_example_is_what_the_library_writes() {
    let (page, library) = (example(), encoded());
    assert!(page == library[..], "the page has\n{page:02x?}\nbut the library writes\n{:02x?}", &library[..]);
    // The offsets of the first column are where the bytes are.
    let mut at = 0;
    for (offset, bytes) in rows() {
        assert_eq!(offset, at, "{bytes:02x?}");
        at += bytes.len();
    }
}

#[test]
fn the_page_is_enough_to_read_the_example() {
    let file = read(&example());
    assert_eq!((file.scale, file.offset, file.softmax), (0.5, -1.0, true));
    assert_eq!(file.labels, ["no", "yes"]);
    assert_eq!(file.layers[0].bias, [0.5, -0.5]);
    assert_eq!(file.layers[0].weights, [[1.0, -1.0], [2.0, -2.0], [3.0, 0.25]]);
    // The values are 0, 1 and 0.5, the sums 4 and -2.375.
    let expected = file.run(&[2, 4, 3]);
    assert!((expected[0] - 1.0 / (1.0 + (-4.0f64).exp())).abs() < 1e-12);
    let blob = AlignedBuf::from_bytes(&example());
    let model = Model::load(&blob).expect("a valid model");
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let found = model.classify(&[2, 4, 3], &mut scratch).expect("the lengths fit");
    assert_eq!(found.label, "no");
    assert!((f64::from(found.probability) - expected[0]).abs() < 1e-6);
}

/// More than one panel, several layers, all activations.
#[test]
fn the_page_is_enough_to_read_a_larger_file() {
    let golden = include_bytes!("golden/v1-dense.tnet");
    let file = read(golden);
    assert_eq!(file.labels, ["north", "öst", "south", "西"]);
    let blob = AlignedBuf::from_bytes(golden);
    let model = Model::load(&blob).expect("a valid model");
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let bytes = [9, 80, 255, 0, 31, 140];
    let found = model.run(&bytes, &mut scratch).expect("the lengths fit");
    for (found, expected) in found.iter().zip(file.run(&bytes)) {
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} is not {expected}");
    }
}
