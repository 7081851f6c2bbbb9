//! A reader written from `docs/format.md` alone, with byte offsets and nothing of the library, to prove that the page is
//! enough; and the page's worked example, to prove that it is right.

use half::f16;
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

/// Height, width, channels.
type Shape3 = [usize; 3];

/// A layer of any kind but softmax; what a kind does not have is 1 or empty. The weights are unpacked to
/// `[inputs][outputs]`.
struct PageLayer {
    kind: usize,
    input: Shape3,
    output: Shape3,
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Top, bottom, left, right.
    padding: [i8; 4],
    pool: [usize; 2],
    activation: usize,
    /// Of a leaky ReLU.
    slope: f64,
    bias: Vec<f32>,
    weights: Vec<Vec<f32>>,
}

struct File {
    scale: f32,
    offset: f32,
    labels: Vec<String>,
    layers: Vec<PageLayer>,
    softmax: bool,
}

/// Takes a tensor of panels apart, and says how many bytes it has; a weight has `size`.
fn tensor(bytes: &[u8], inputs: usize, outputs: usize, size: usize) -> (Vec<f32>, Vec<Vec<f32>>, usize) {
    let float = |at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let half = |at: usize| f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32();
    let mut weights = vec![vec![0.0; outputs]; inputs];
    let mut at = 0;
    for first in (0..outputs).step_by(16) {
        for row in &mut weights {
            for weight in &mut row[first..outputs.min(first + 16)] {
                *weight = if size == 4 { float(at) } else { half(at) };
                at += size;
            }
        }
    }
    let behind_loads = at + size * ((16 - outputs % 16) % 16);
    let biases = at.next_multiple_of(4);
    let bias = (0..outputs).map(|output| float(biases + 4 * output)).collect();
    (bias, weights, behind_loads.max(biases + 4 * outputs).next_multiple_of(64))
}

/// Reads a layer's fields, which follow its index, and says how many bytes a weight has: 0 if there are none.
fn layer(kind: usize, header: &mut Reader<'_>, input: Shape3) -> (PageLayer, usize) {
    let pair = |header: &mut Reader<'_>| [usize::from(header.byte()), usize::from(header.byte())];
    let outputs = if kind < 2 { header.varint() } else { input[2] };
    let (mut kernel, mut stride, mut padding, mut pool) = ([1; 2], [1; 2], [0; 4], [1; 2]);
    if kind > 0 {
        (kernel, stride) = (pair(header), pair(header));
    }
    if kind == 1 || kind == 4 {
        padding = [0; 4].map(|_: i8| header.byte() as i8);
    }
    if kind == 1 {
        pool = pair(header);
    }
    let (mut activation, mut slope, mut size) = (0, 0.0, 0);
    if kind != 2 && kind != 6 {
        activation = header.varint();
        if activation == 5 {
            let (multiplier, shift) = (header.byte(), header.byte());
            slope = f64::from(multiplier) / f64::from(256u32 << shift);
        }
        size = [4, 2][header.varint()];
    }
    let windows = |side: usize| {
        let padded = input[side] as i64 + i64::from(padding[2 * side]) + i64::from(padding[2 * side + 1]);
        ((padded as usize - kernel[side]) / stride[side] + 1) / pool[side]
    };
    let output = if kind == 0 { [1, 1, outputs] } else { [windows(0), windows(1), outputs] };
    let (bias, weights) = (Vec::new(), Vec::new());
    (PageLayer { kind, input, output, kernel, stride, padding, pool, activation, slope, bias, weights }, size)
}

fn read(file: &[u8]) -> File {
    assert_eq!(&file[0..4], b"TNET");
    assert_eq!(file[4..8], [1, 0, 0, 0]);
    assert_eq!(word(file, 8), checksum(file) as usize);
    assert_eq!(word(file, 12), file.len());
    let weights_offset = word(file, 32);
    let mut header = Reader { bytes: file, at: 40 };
    let mut shape = [header.varint(), header.varint(), header.varint()];
    assert_eq!(word(file, 24), shape.iter().product());
    let (scale, offset) = (header.float(), header.float());
    let bytes = header.varint();
    let labels = std::str::from_utf8(header.take(bytes)).expect("UTF-8");
    let labels = if labels.is_empty() { Vec::new() } else { labels.split('\n').map(String::from).collect() };
    assert_eq!(header.varint(), 1, "members");
    let member = usize::from(header.byte());
    let count = header.varint();
    assert_eq!(member, count);
    let (mut layers, mut sizes) = (Vec::new(), Vec::new());
    let (mut softmax, mut scratch, mut operations) = (false, 0, 0);
    for index in 0..count {
        let kind = header.varint();
        operations |= [1, 1 << 1, 1 << 2, 1 << 3, 1 << 6, 1 << 7, 1 << 8][kind];
        if kind == 3 {
            softmax = true;
            continue;
        }
        let (layer, size) = layer(kind, &mut header, shape);
        operations |= [0, 0, 1 << 4, 1 << 5, 1 << 9, 1 << 10][layer.activation];
        operations |= [0, 0, 1 << 17, 0, 1 << 16][size];
        let held: usize = if index == 0 { 0 } else { shape.iter().product() };
        shape = layer.output;
        scratch = scratch.max(4 * (held + shape.iter().product::<usize>()));
        layers.push(layer);
        sizes.push(size);
    }
    assert_eq!(word(file, 16), operations);
    let padding = header.varint();
    assert!(header.take(padding).iter().all(|byte| *byte == 0));
    let weights_bytes = header.varint();
    assert_eq!((header.at, weights_bytes), (weights_offset, word(file, 36)));
    assert_eq!((weights_offset % 64, weights_offset + weights_bytes), (0, file.len()));
    assert_eq!((word(file, 20), word(file, 28)), (scratch, shape.iter().product()));
    let mut at = weights_offset;
    for (layer, size) in layers.iter_mut().zip(sizes).filter(|(_, size)| *size > 0) {
        let window = layer.kernel[0] * layer.kernel[1];
        let inputs = [layer.input.iter().product(), window * layer.input[2], 0, 0, window][layer.kind];
        let (bias, weights, bytes) = tensor(&file[at..], inputs, layer.output[2], size);
        (layer.bias, layer.weights) = (bias, weights);
        at += bytes;
    }
    assert_eq!(at, file.len());
    File { scale, offset, labels, layers, softmax }
}

impl PageLayer {
    fn run(&self, x: &[f64]) -> Vec<f64> {
        let [rows, columns, outputs] = self.output;
        let [ph, pw] = self.pool;
        let mut out = Vec::new();
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            for output in 0..outputs {
                let windows = (0..ph).flat_map(|y| (0..pw).map(move |x| [row * ph + y, column * pw + x]));
                let values = windows.map(|window| self.window(x, window, output));
                out.push(values.fold(f64::NEG_INFINITY, f64::max));
            }
        }
        out
    }

    /// What the layer makes of one window, of which there is a single one if it is dense.
    fn window(&self, x: &[f64], [row, column]: [usize; 2], output: usize) -> f64 {
        let weight = |input: usize| f64::from(self.weights[input][output]);
        if self.kind == 0 {
            let sum = x.iter().enumerate().map(|(input, x)| x * weight(input)).sum::<f64>();
            return self.activate(sum + f64::from(self.bias[output]));
        }
        let [height, width, channels] = self.input;
        let [top, _, left, _] = self.padding.map(i64::from);
        let at = |ky: usize, kx: usize, channel: usize| {
            let (y, x_) = ((row * self.stride[0] + ky) as i64 - top, (column * self.stride[1] + kx) as i64 - left);
            let inside = (0..height as i64).contains(&y) && (0..width as i64).contains(&x_);
            inside.then(|| x[(y as usize * width + x_ as usize) * channels + channel])
        };
        let [kh, kw] = self.kernel;
        let taps = (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx)));
        match self.kind {
            1 => {
                let product = |ky, kx, c| at(ky, kx, c).map(|x| x * weight((ky * kw + kx) * channels + c));
                let products = taps.flat_map(|(ky, kx)| (0..channels).filter_map(move |c| product(ky, kx, c)));
                self.activate(products.sum::<f64>() + f64::from(self.bias[output]))
            }
            2 => taps.filter_map(|(ky, kx)| at(ky, kx, output)).fold(f64::NEG_INFINITY, f64::max),
            4 => {
                let products = taps.filter_map(|(ky, kx)| at(ky, kx, output).map(|x| x * weight(ky * kw + kx)));
                self.activate(products.sum::<f64>() + f64::from(self.bias[output]))
            }
            6 => taps.filter_map(|(ky, kx)| at(ky, kx, output)).sum::<f64>() / (kh * kw) as f64,
            other => panic!("there is no layer {other}"),
        }
    }

    fn activate(&self, x: f64) -> f64 {
        match self.activation {
            0 => x,
            1 => x.max(0.0),
            2 => x.tanh(),
            3 => 1.0 / (1.0 + (-x).exp()),
            4 => x.clamp(0.0, 6.0),
            5 => x.max(self.slope * x),
            other => panic!("there is no activation {other}"),
        }
    }
}

impl File {
    fn run(&self, bytes: &[u8]) -> Vec<f64> {
        let mut x: Vec<f64> = bytes.iter().map(|b| f64::from(f32::from(*b) * self.scale + self.offset)).collect();
        for layer in &self.layers {
            x = layer.run(&x);
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

/// Every kind of layer, all activations, both types of weights, more than one panel.
#[test]
fn the_page_is_enough_to_read_larger_files() {
    let golden: [&[u8]; 5] = [
        include_bytes!("golden/v1-dense.tnet"),
        include_bytes!("golden/v1-conv.tnet"),
        include_bytes!("golden/v1-f16.tnet"),
        include_bytes!("golden/v1-depthwise.tnet"),
        include_bytes!("golden/v1-average.tnet"),
    ];
    for bytes in golden {
        let file = read(bytes);
        let blob = AlignedBuf::from_bytes(bytes);
        let model = Model::load(&blob).expect("a valid model");
        assert!(file.labels.iter().enumerate().all(|(class, label)| label == model.label(class)));
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
        let input: Vec<u8> = (0..model.input_len()).map(|i| (i * 59 + 9) as u8).collect();
        let found = model.run(&input[..], &mut scratch).expect("the lengths fit");
        let expected = file.run(&input);
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} is not {expected}");
        }
    }
    assert_eq!(read(golden[0]).labels, ["north", "öst", "south", "西"]);
}
