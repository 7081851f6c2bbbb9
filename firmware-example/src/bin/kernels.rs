//! Compares the kernels of this processor with plain loops: dense layers of every size up to [`LARGEST`] and random convolutions.
//!
//! `cargo xtask test kernels` runs it under QEMU. The products are added in the same order, so the results are the same to the last
//! bit. The exit code is 0 only if none differs.
#![no_std]
#![no_main]

use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, hprintln};
use panic_semihosting as _;
use thumbnet::blob::{self, ModelSpec, Tensors};
use thumbnet::kernels::{self, Backend, Panels, pack};
use thumbnet::layer::{Activation, Conv2d, InputSpec, Layer, Padding, Shape, WeightType};
use thumbnet::{Aligned, Model};

/// The most inputs and outputs of a dense layer.
const LARGEST: usize = 40;

/// Convolutions, each with another shape, window, stride, padding and pool.
const CONVOLUTIONS: u32 = 400;

/// Room for the values of anything here, for the blob of a convolution, and for its scratch memory.
const VALUES: usize = 2048;
const BLOB: usize = 16 * 1024;
const SCRATCH: usize = 16 * 1024;

/// Floors, and the offsets of bytes: with the second of these a byte of 0 is not the value 0.
const FLOORS: [f32; 2] = [0.0, f32::NEG_INFINITY];
const SCALE: f32 = 1.0 / 255.0;
const OFFSETS: [f32; 2] = [0.0, -0.25];

#[entry]
fn main() -> ! {
    static mut MEMORY: Memory = Memory {
        weights: [0.0; VALUES],
        bias: [0.0; LARGEST],
        values: [0.0; VALUES],
        bytes: [0; VALUES],
        outputs: [0.0; VALUES],
        blob: Aligned([0; BLOB]),
        scratch: Aligned([0; SCRATCH]),
    };
    let mut random = Random(1);
    let (mut compared, mut different) = (0, 0);
    let mut tell = |outcome: Outcome| {
        compared += outcome.compared;
        different += outcome.different;
    };
    for inputs in 1..=LARGEST {
        for outputs in 1..=LARGEST {
            tell(dense(MEMORY, &mut random, inputs, outputs));
        }
    }
    for _ in 0..CONVOLUTIONS {
        tell(convolution(MEMORY, &mut random));
    }
    hprintln!("{} outputs compared with plain loops, {} differ", compared, different);
    loop {
        debug::exit(if compared > 0 && different == 0 { debug::EXIT_SUCCESS } else { debug::EXIT_FAILURE });
    }
}

/// Memory for one layer.
struct Memory {
    weights: [f32; VALUES],
    bias: [f32; LARGEST],
    values: [f32; VALUES],
    bytes: [u8; VALUES],
    outputs: [f32; VALUES],
    blob: Aligned<[u8; BLOB]>,
    scratch: Aligned<[u8; SCRATCH]>,
}

/// Outputs that were compared with those of a plain loop.
#[derive(Default)]
struct Outcome {
    compared: u32,
    different: u32,
}

impl Outcome {
    fn compare(&mut self, found: f32, expected: f32) {
        self.compared += 1;
        self.different += u32::from(found != expected && !(found.is_nan() && expected.is_nan()));
    }
}

/// A linear congruential generator, with the constants of Knuth's MMIX.
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 32) * u64::from(end)) >> 32) as u32
    }

    /// A number from `first` to `last`.
    fn between(&mut self, first: u32, last: u32) -> u32 {
        first + self.below(last - first + 1)
    }

    /// A number between -1 and 1; every third is 0.
    fn value(&mut self) -> f32 {
        if self.below(3) == 0 { 0.0 } else { self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0 }
    }

    fn fill(&mut self, memory: &mut Memory) {
        memory.weights.fill_with(|| self.value());
        memory.bias.fill_with(|| self.value());
        memory.values.fill_with(|| self.value());
        if self.below(8) == 0 {
            memory.values[self.below(16) as usize] = -f32::NAN;
        }
        memory.bytes.fill_with(|| if self.below(2) == 0 { 0 } else { self.below(256) as u8 });
    }
}

fn floored(floor: f32, sum: f32) -> f32 {
    if floor > sum { floor } else { sum }
}

/// A dense layer of that size, with values and with bytes.
fn dense(memory: &mut Memory, random: &mut Random, inputs: usize, outputs: usize) -> Outcome {
    random.fill(memory);
    let Memory { weights, bias, values, bytes, outputs: out, blob, .. } = memory;
    let (weights, bias, values, bytes) =
        (&weights[..inputs * outputs], &bias[..outputs], &values[..inputs], &bytes[..inputs]);
    let len = pack::tensor_bytes::<f32>(inputs as u32, outputs as u32).expect("the tensor is small") as usize;
    let tensor = &mut blob.0[..len];
    pack::pack::<f32>(weights, bias, outputs, tensor).expect("the lengths fit");
    let panels = Panels::<f32>::new(tensor, inputs, outputs).expect("the length fits");
    let out = &mut out[..outputs];
    let mut outcome = Outcome::default();
    let sum = |output: usize, value: &dyn Fn(usize) -> f32| {
        (0..inputs).fold(bias[output], |sum, input| sum + value(input) * weights[input * outputs + output])
    };
    for floor in FLOORS {
        kernels::dense(Backend::best(), values, panels, floor, out);
        for (output, found) in out.iter().enumerate() {
            outcome.compare(*found, floored(floor, sum(output, &|input| values[input])));
        }
        for offset in OFFSETS {
            kernels::dense_bytes(Backend::best(), bytes, (SCALE, offset), panels, floor, out);
            for (output, found) in out.iter().enumerate() {
                outcome.compare(*found, floored(floor, sum(output, &|input| f32::from(bytes[input]) * SCALE + offset)));
            }
        }
    }
    outcome
}

/// A random convolution, with values or with bytes, if it is possible.
fn convolution(memory: &mut Memory, random: &mut Random) -> Outcome {
    random.fill(memory);
    let small = |random: &mut Random, last: u32| random.between(1, last) as u8;
    let pad = |random: &mut Random| random.between(0, 4) as i8 - 1;
    let activation = if random.below(2) == 0 { Activation::Relu } else { Activation::None };
    let conv = Conv2d {
        filters: random.between(1, 20) as u16,
        kernel: [small(random, 4), small(random, 4)],
        stride: [small(random, 2), small(random, 2)],
        padding: Padding { top: pad(random), bottom: pad(random), left: pad(random), right: pad(random) },
        pool: [small(random, 3), small(random, 3)],
        activation,
        weights: WeightType::F32,
    };
    let shape = Shape::new(random.between(1, 9) as u16, random.between(1, 9) as u16, random.between(1, 4) as u16);
    let offset = OFFSETS[random.below(2) as usize];
    let as_bytes = random.below(2) == 0;
    let layers = [Layer::Conv2d(conv)];
    let Ok(output) = layers[0].output(shape) else { return Outcome::default() };

    let Memory { weights, bias, values, bytes, blob, scratch, .. } = memory;
    let [height, width, channels] = [shape.height, shape.width, shape.channels].map(usize::from);
    let ([kh, kw], filters) = (conv.kernel.map(usize::from), usize::from(conv.filters));
    let (weights, bias) = (&weights[..kh * kw * channels * filters], &bias[..filters]);
    let len = height * width * channels;
    let (values, bytes) = (&values[..len], &bytes[..len]);
    let spec = ModelSpec { input: InputSpec { shape, scale: SCALE, offset }, labels: &[], layers: &layers };
    let blob_len = blob::encoded_len(&spec).expect("the model is small");
    blob::encode(&spec, &[Tensors { weights, bias }], blob).expect("the model fits");
    let model = Model::load(&blob.0[..blob_len]).expect("the blob is a model");
    let scratch: &mut Aligned<[u8]> = scratch;
    let found = if as_bytes { model.run(bytes, scratch) } else { model.run(values, scratch) }.expect("the lengths fit");

    let input = |row: i32, column: i32, channel: usize| {
        let inside = (0..height as i32).contains(&row) && (0..width as i32).contains(&column);
        let index = (row * width as i32 + column) as usize * channels + channel;
        match (inside, as_bytes) {
            (false, _) => 0.0,
            (true, true) => f32::from(bytes[index]) * SCALE + offset,
            (true, false) => values[index],
        }
    };
    // The sum of one filter for the window with that corner.
    let sum = |top: i32, left: i32, filter: usize| {
        let mut sum = bias[filter];
        for tap in 0..kh * kw * channels {
            let (row, column, channel) = (tap / channels / kw, tap / channels % kw, tap % channels);
            sum += input(top + row as i32, left + column as i32, channel) * weights[tap * filters + filter];
        }
        sum
    };
    let ([sh, sw], [ph, pw]) = (conv.stride.map(i32::from), conv.pool.map(i32::from));
    let floor = if activation == Activation::Relu { 0.0 } else { f32::NEG_INFINITY };
    let mut outcome = Outcome::default();
    for (index, found) in found.iter().enumerate() {
        let (position, filter) = (index / filters, index % filters);
        let (row, column) = (position / usize::from(output.width), position % usize::from(output.width));
        let mut largest = floor;
        for window in 0..ph * pw {
            let top = (row as i32 * ph + window / pw) * sh - i32::from(conv.padding.top);
            let left = (column as i32 * pw + window % pw) * sw - i32::from(conv.padding.left);
            let sum = sum(top, left, filter);
            largest = if largest.is_nan() || sum < largest { largest } else { sum };
        }
        outcome.compare(*found, largest);
    }
    outcome
}
