//! Dense layers and a whole network of them, beside `matrixmultiply` in the same run.
//!
//! Criterion measures and keeps a history; the table at the end is made of interleaved least times, so that its ratios
//! hold on a machine that other programs share.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use support::{Contestant, print_ratios};
use thumbnet::blob::{ModelSpec, Tensors, encode, encoded_len};
use thumbnet::kernels::{Panels, dense, pack};
use thumbnet::layer::{Activation, Dense, InputSpec, Layer, Shape, WeightType};
use thumbnet::{AlignedBuf, Backend, Model};

const PEER: &str = "matrixmultiply";

/// Rows, inputs and outputs: the layers of the 784-128-64-10 network, and a batch of 32.
const SHAPES: [(usize, usize, usize); 5] = [(1, 784, 128), (1, 128, 64), (1, 64, 10), (32, 784, 128), (32, 128, 64)];

/// Small numbers of both signs that no compiler can guess; the same in every run.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// A dense layer's operands, in both layouts.
struct Work {
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    panels: AlignedBuf,
}

impl Work {
    fn new((rows, inputs, outputs): (usize, usize, usize)) -> Self {
        let (weights, bias) = (numbers(inputs * outputs), numbers(outputs));
        let bytes = pack::panel_bytes(inputs as u32, outputs as u32).expect("a small layer");
        let mut panels = AlignedBuf::zeroed(bytes as usize);
        pack::pack(&weights, &bias, outputs, bytemuck::cast_slice_mut(&mut panels)).expect("lengths that fit");
        Self { rows, inputs, outputs, x: numbers(rows * inputs), weights, bias, panels }
    }

    fn name(&self) -> String {
        format!("dense {}x{}x{}", self.rows, self.inputs, self.outputs)
    }

    /// The layer on one of this library's backends: `relu(x · W + b)`.
    fn thumbnet(&self, backend: Backend, out: &mut [f32]) {
        let panels = Panels::new(bytemuck::cast_slice(&self.panels), self.inputs, self.outputs);
        dense(backend, black_box(&self.x), panels.expect("packed above"), 0.0, out);
    }

    /// The same on `matrixmultiply`.
    fn matrixmultiply(&self, out: &mut [f32]) {
        dense_by_matrixmultiply(black_box(&self.x), &self.weights, &self.bias, out);
    }
}

/// `relu(x · W + b)` for any number of rows.
fn dense_by_matrixmultiply(x: &[f32], weights: &[f32], bias: &[f32], out: &mut [f32]) {
    let outputs = bias.len();
    let inputs = weights.len() / outputs;
    let rows = out.len() / outputs;
    assert!(x.len() == rows * inputs && weights.len() == inputs * outputs && out.len() == rows * outputs);
    out.chunks_exact_mut(outputs).for_each(|row| row.copy_from_slice(bias));
    let (k, n) = (inputs as isize, outputs as isize);
    // SAFETY: x is [rows, inputs], weights [inputs, outputs] and out [rows, outputs], all row-major and checked above.
    unsafe {
        matrixmultiply::sgemm(
            rows,
            inputs,
            outputs,
            1.0,
            x.as_ptr(),
            k,
            1,
            weights.as_ptr(),
            n,
            1,
            1.0,
            out.as_mut_ptr(),
            n,
            1,
        );
    }
    out.iter_mut().for_each(|value| *value = value.max(0.0));
}

fn layers(criterion: &mut Criterion) {
    for work in SHAPES.map(Work::new) {
        let mut group = criterion.benchmark_group(work.name());
        group.throughput(Throughput::Elements((work.rows * work.inputs * work.outputs) as u64));
        let mut out = vec![0.0; work.rows * work.outputs];
        for backend in Backend::available() {
            group.bench_function(BenchmarkId::from_parameter(backend.name()), |bencher| {
                bencher.iter(|| work.thumbnet(backend, &mut out));
            });
        }
        group.bench_function(BenchmarkId::from_parameter(PEER), |bencher| {
            bencher.iter(|| work.matrixmultiply(&mut out));
        });
    }
}

/// The 784-128-64-10 network, as a model and as plain matrices.
struct Network {
    file: AlignedBuf,
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    image: Vec<f32>,
}

impl Network {
    fn new() -> Self {
        let sizes = [784, 128, 64, 10];
        let layers: Vec<_> = sizes.windows(2).map(|pair| (numbers(pair[0] * pair[1]), numbers(pair[1]))).collect();
        let relu = |outputs| Dense { outputs, activation: Activation::Relu, weights: WeightType::F32 };
        let descriptors = [128, 64, 10].map(|outputs| Layer::Dense(relu(outputs)));
        let input = InputSpec { shape: Shape::new(28, 28, 1), scale: 1.0 / 255.0, offset: 0.0 };
        let spec = ModelSpec { input, labels: &[], layers: &descriptors };
        let tensors: Vec<_> = layers.iter().map(|(weights, bias)| Tensors { weights, bias }).collect();
        let mut file = AlignedBuf::zeroed(encoded_len(&spec).expect("a valid model"));
        encode(&spec, &tensors, &mut file).expect("a valid model");
        Self { file, layers, image: numbers(784) }
    }

    fn model(&self, backend: Backend) -> Model<'_> {
        Model::load(&self.file).expect("written above").with_backend(backend)
    }

    fn matrixmultiply(&self, [a, b, c]: &mut [Vec<f32>; 3]) {
        let [first, second, third] = &self.layers[..] else { unreachable!("three layers") };
        dense_by_matrixmultiply(black_box(&self.image), &first.0, &first.1, a);
        dense_by_matrixmultiply(a, &second.0, &second.1, b);
        dense_by_matrixmultiply(b, &third.0, &third.1, c);
    }
}

fn activations() -> [Vec<f32>; 3] {
    [vec![0.0; 128], vec![0.0; 64], vec![0.0; 10]]
}

const NETWORK: &str = "network 784-128-64-10";

fn network(criterion: &mut Criterion) {
    let network = Network::new();
    let mut group = criterion.benchmark_group(NETWORK);
    for backend in Backend::available() {
        let model = network.model(backend);
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
        group.bench_function(BenchmarkId::from_parameter(backend.name()), |bencher| {
            bencher.iter(|| model.run(black_box(&network.image[..]), &mut scratch).map(<[f32]>::len));
        });
    }
    let mut buffers = activations();
    group.bench_function(BenchmarkId::from_parameter(PEER), |bencher| {
        bencher.iter(|| network.matrixmultiply(&mut buffers));
    });
}

/// The table at the end: every backend beside the peer.
fn summary() {
    println!("\nleast times of interleaved rounds, one thread; the ratio is of times, so below 1 is faster\n");
    for work in SHAPES.map(Work::new) {
        let out = || vec![0.0; work.rows * work.outputs];
        let mut contestants: Vec<_> = Backend::available()
            .map(|backend| {
                let (work, mut out) = (&work, out());
                Contestant::new(backend.name(), move || work.thumbnet(backend, &mut out))
            })
            .collect();
        let (work, mut out) = (&work, out());
        contestants.push(Contestant::new(PEER, move || work.matrixmultiply(&mut out)));
        print_ratios(&work.name(), &mut contestants, PEER);
    }
    let network = Network::new();
    let mut contestants: Vec<_> = Backend::available()
        .map(|backend| {
            let (model, image) = (network.model(backend), &network.image);
            let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
            Contestant::new(backend.name(), move || {
                black_box(model.run(black_box(&image[..]), &mut scratch).is_ok());
            })
        })
        .collect();
    let (network, mut buffers) = (&network, activations());
    contestants.push(Contestant::new(PEER, move || network.matrixmultiply(&mut buffers)));
    print_ratios(NETWORK, &mut contestants, PEER);
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    layers(&mut criterion);
    network(&mut criterion);
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--bench") {
        summary();
    }
}
