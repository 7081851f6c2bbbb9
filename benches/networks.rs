//! Whole networks and convolution layers on every backend; dense networks also as products of `matrixmultiply`, `gemm`
//! and `faer`, layer after layer. Networks with weights of half the size and int8 networks, beside the same networks in f32.
//!
//! The peers that run convolutional networks are not in Rust, or are too large to build here: `docs/performance.md` has
//! them.

mod support;

use criterion::{BenchmarkId, Criterion};
use std::hint::black_box;
use support::peers::{self, PEERS, Peer, Product};
use support::{Contestant, Work, numbers};
use thumbnet::blob::{ModelSpec, Tensors, encode, encode_int8, encoded_len};
use thumbnet::layer::{
    Activation, Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, Packing, Padding, Quantize, Shape, WeightType,
};
use thumbnet::{AlignedBuf, Backend, Model};

/// How many images a batch has, and how many of them the scratch memory has room for.
const BATCHES: [(usize, usize); 3] = [(1, 1), (64, 32), (1000, 32)];

/// The networks that the table has a second time, with f16 weights.
const HALF: [&str; 2] = ["A1", "A4"];

fn dense(outputs: u16, activation: Activation, weights: WeightType) -> Layer {
    Layer::Dense(Dense { outputs, activation, weights })
}

fn conv(filters: u16, kernel: u8, pool: u8, activation: Activation, weights: WeightType) -> Layer {
    let (stride, padding) = ([1, 1], Padding::default());
    Layer::Conv2d(Conv2d { filters, kernel: [kernel; 2], stride, padding, pool: [pool; 2], activation, weights })
}

/// A depthwise convolution of 3 × 3, with an output of the same size.
fn depthwise() -> Layer {
    let padding = Padding { top: 1, bottom: 1, left: 1, right: 1 };
    let (activation, weights) = (Activation::Relu, WeightType::F32);
    Layer::DepthwiseConv2d(DepthwiseConv2d { kernel: [3; 2], stride: [1; 2], padding, activation, weights })
}

/// Images of bytes between 0 and 1.
fn pixels(shape: Shape) -> InputSpec {
    InputSpec { shape, scale: 1.0 / 255.0, offset: 0.0 }
}

/// A model with made-up weights.
struct Network {
    name: &'static str,
    file: AlignedBuf,
    /// The layers as matrices: weights `[inputs, outputs]` and biases.
    tensors: Vec<[Vec<f32>; 2]>,
    macs: u64,
    /// Whether all layers are dense, so that libraries for matrices can run it.
    all_dense: bool,
}

impl Network {
    fn new(name: &'static str, input: Shape, layers: &[Layer]) -> Self {
        let (mut shape, mut macs, mut tensors) = (input, 0, Vec::new());
        for layer in layers {
            let (inputs, outputs) = match layer {
                Layer::Dense(dense) => (shape.elements().expect("a small shape") as usize, dense.outputs),
                Layer::Conv2d(conv) => {
                    (conv.kernel.map(usize::from).iter().product::<usize>() * usize::from(shape.channels), conv.filters)
                }
                Layer::DepthwiseConv2d(conv) => {
                    (conv.kernel.map(usize::from).iter().product::<usize>(), shape.channels)
                }
                Layer::MaxPool2d(_) | Layer::AvgPool2d(_) | Layer::Softmax | Layer::Quantize(_) => (0, 0),
            };
            if outputs > 0 {
                tensors.push([numbers(inputs * usize::from(outputs)), numbers(usize::from(outputs))]);
            }
            macs += layer.macs(shape);
            shape = layer.output(shape).expect("a valid layer");
        }
        let spec = ModelSpec { input: pixels(input), labels: &[], layers };
        let parameters: Vec<_> = tensors.iter().map(|[weights, bias]| Tensors { weights, bias }).collect();
        let mut file = AlignedBuf::zeroed(encoded_len(&spec).expect("a valid model"));
        match layers {
            // Made-up weights have made-up scales: the time does not depend on them.
            [Layer::Quantize(_), ..] => encode_int8(&spec, &parameters, &vec![0.05; parameters.len()], &mut file),
            _ => encode(&spec, &parameters, &mut file),
        }
        .expect("a valid model");
        let all_dense = layers.iter().all(|layer| matches!(layer, Layer::Dense(_) | Layer::Softmax));
        Self { name, file, tensors, macs, all_dense }
    }

    fn work(&self, name: String, batch: usize) -> Work {
        let model = Model::load(&self.file).expect("written above");
        // Convolutions read theirs once for each few windows, batches once for each few images.
        let read_once = model.layers().filter(|layer| batch == 1 && matches!(layer.layer, Layer::Dense(_)));
        let weight_bytes = read_once.map(|layer| layer.weight_bytes as usize).reduce(|sum, bytes| sum + bytes);
        Work { name, macs: self.macs * batch as u64, weight_bytes }
    }

    /// This library on each of its backends, then the peers.
    fn contestants<'a>(&'a self, images: &'a [f32], at_a_time: usize) -> Vec<Contestant<'a>> {
        let ours = Backend::available().map(|backend| self.ours(backend.name(), backend, images, at_a_time));
        let theirs = PEERS.iter().filter(|_| self.all_dense).map(|peer| self.peer(peer, images));
        ours.chain(theirs).collect()
    }

    /// This library on one of its backends.
    fn ours<'a>(&'a self, name: &'static str, backend: Backend, images: &'a [f32], at_a_time: usize) -> Contestant<'a> {
        let model = Model::load(&self.file).expect("written above").with_backend(backend);
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes() * at_a_time);
        let mut outputs = vec![0.0; images.len() / model.input_len() * model.output_len()];
        Contestant::new(name, move || match at_a_time {
            1 => {
                black_box(model.run(black_box(images), &mut scratch).is_ok());
            }
            _ => {
                black_box(model.run_batch(black_box(images), &mut scratch, &mut outputs).is_ok());
            }
        })
    }

    /// A peer: a product per layer, with the bias, the ReLU and the softmax in plain Rust.
    fn peer<'a>(&'a self, &(name, multiply): &Peer, images: &'a [f32]) -> Contestant<'a> {
        let [weights, bias] = self.tensors.first().expect("a network has layers");
        let rows = images.len() / (weights.len() / bias.len());
        let mut values: Vec<_> = self.tensors.iter().map(|[_, bias]| vec![0.0; rows * bias.len()]).collect();
        Contestant::new(name, move || {
            let mut source = black_box(images);
            for (index, ([weights, bias], target)) in self.tensors.iter().zip(&mut values).enumerate() {
                let outputs = bias.len();
                multiply(Product { a: source, b: weights, sizes: [rows, weights.len() / outputs, outputs] }, target);
                let floor = if index + 1 < self.tensors.len() { 0.0 } else { f32::NEG_INFINITY };
                for row in target.chunks_exact_mut(outputs) {
                    row.iter_mut().zip(bias).for_each(|(value, bias)| *value = (*value + bias).max(floor));
                }
                source = target;
            }
            values.last_mut().into_iter().flat_map(|values| values.chunks_exact_mut(10)).for_each(softmax);
        })
    }
}

fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

/// The networks of the peer harness.
fn networks(weights: WeightType) -> Vec<Network> {
    use Activation::{None, Relu, Tanh};
    let dense = |outputs, activation| dense(outputs, activation, weights);
    let conv = |filters, kernel, pool, activation| conv(filters, kernel, pool, activation, weights);
    let shape = Shape::new(28, 28, 1);
    let quantize = Quantize::new(&pixels(shape), 1.0 / 127.0).map(Layer::Quantize);
    let quantize = quantize.filter(|_| matches!(weights, WeightType::Int8(_)));
    let network = |name, layers: &[Layer]| {
        let layers: Vec<_> = quantize.into_iter().chain(layers.iter().copied()).collect();
        Network::new(name, shape, &layers)
    };
    vec![
        network("A0", &[dense(10, None), Layer::Softmax]),
        network("A1", &[dense(128, Relu), dense(64, Relu), dense(10, None), Layer::Softmax]),
        network("A2", &[dense(128, Relu), dense(10, None), Layer::Softmax]),
        network("A3", &[conv(16, 3, 2, Relu), conv(32, 3, 2, Relu), dense(10, None), Layer::Softmax]),
        network("A4", &[conv(16, 3, 1, Tanh), dense(10, None), Layer::Softmax]),
    ]
}

/// Single convolution layers.
fn convolutions() -> Vec<Network> {
    let conv = |filters, kernel, pool| conv(filters, kernel, pool, Activation::Relu, WeightType::F32);
    let layer = |name, input, layer| Network::new(name, input, &[layer]);
    vec![
        layer("conv 28x28x1 3x3x16", Shape::new(28, 28, 1), conv(16, 3, 1)),
        layer("conv 28x28x1 3x3x16 pool 2", Shape::new(28, 28, 1), conv(16, 3, 2)),
        layer("conv 28x28x1 5x5x8 pool 2", Shape::new(28, 28, 1), conv(8, 5, 2)),
        layer("conv 13x13x16 3x3x32 pool 2", Shape::new(13, 13, 16), conv(32, 3, 2)),
        layer("conv 14x14x32 1x1x64", Shape::new(14, 14, 32), conv(64, 1, 1)),
        layer("depthwise 28x28x16 3x3", Shape::new(28, 28, 16), depthwise()),
        layer("depthwise 14x14x64 3x3", Shape::new(14, 14, 64), depthwise()),
    ]
}

fn history(criterion: &mut Criterion) {
    let image = numbers(784);
    for network in networks(WeightType::F32) {
        let mut group = criterion.benchmark_group(format!("{} batch 1", network.name));
        for mut contestant in network.contestants(&image, 1) {
            group.bench_function(BenchmarkId::from_parameter(contestant.name), |bencher| {
                bencher.iter(&mut contestant.run)
            });
        }
    }
}

fn summary() {
    let mut table = support::Table::begin();
    for network in networks(WeightType::F32) {
        for (batch, at_a_time) in BATCHES {
            let images = numbers(784 * batch);
            let work = network.work(format!("{} batch {batch}", network.name), batch);
            table.row(&work, network.contestants(&images, at_a_time), &peers::NAMES);
        }
    }
    half_weights(&mut table);
    int8(&mut table);
    for layer in convolutions() {
        let model = Model::load(&layer.file).expect("written above");
        let image = numbers(model.input_len());
        table.row(&layer.work(layer.name.into(), 1), layer.contestants(&image, 1), &peers::NAMES);
    }
}

/// Networks with f16 weights: the peer is the same backend with f32 weights.
fn half_weights(table: &mut support::Table) {
    let image = numbers(784);
    let pairs = networks(WeightType::F16).into_iter().zip(networks(WeightType::F32));
    for (half, whole) in pairs.filter(|(half, _)| HALF.contains(&half.name)) {
        let work = half.work(format!("{} batch 1, f16", half.name), 1);
        for backend in Backend::available() {
            let contestants = [(&half, backend.name()), (&whole, "its f32")];
            let contestants = contestants.map(|(network, name)| network.ours(name, backend, &image, 1));
            table.row(&work, contestants.into(), &["its f32"]);
        }
    }
}

/// Int8 networks: the peer is the same backend in f32.
fn int8(table: &mut support::Table) {
    for (int8, whole) in networks(WeightType::Int8(Packing::Grouped)).into_iter().zip(networks(WeightType::F32)) {
        for (batch, at_a_time) in BATCHES {
            let images = numbers(784 * batch);
            let work = int8.work(format!("{} batch {batch}, int8", int8.name), batch);
            for backend in Backend::available() {
                let contestants = [(&int8, backend.name()), (&whole, "its f32")];
                let contestants = contestants.map(|(network, name)| network.ours(name, backend, &images, at_a_time));
                table.row(&work, contestants.into(), &["its f32"]);
            }
        }
    }
}

fn main() {
    let mut criterion = support::criterion();
    history(&mut criterion);
    criterion.final_summary();
    if support::measuring() {
        summary();
    }
}
