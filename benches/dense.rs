//! Matrix products, weights packed beforehand: every backend beside `matrixmultiply`, `gemm` and `faer` in the same run.
//!
//! Criterion measures and keeps a history; the table at the end is made of interleaved least times, so that its ratios
//! hold on a machine that other programs share.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use support::Contestant;
use support::peers::{self, PEERS, Product};
use thumbnet::kernels::{Panels, dense, pack};
use thumbnet::{AlignedBuf, Backend};

/// Rows, inputs and outputs: squares, the layers of an MLP for MNIST, its gradients, and convolutions as products.
const SHAPES: [(&str, [usize; 3]); 13] = [
    ("sq32", [32, 32, 32]),
    ("sq64", [64, 64, 64]),
    ("sq128", [128, 128, 128]),
    ("sq256", [256, 256, 256]),
    ("sq512", [512, 512, 512]),
    ("sq1024", [1024, 1024, 1024]),
    ("gemv", [1, 784, 128]),
    ("b32", [32, 784, 128]),
    ("b100", [100, 784, 100]),
    ("dw", [128, 32, 784]),
    ("im2col_conv1", [676, 9, 16]),
    ("im2col_conv2", [121, 144, 32]),
    ("im2col_conv2_b64", [7744, 144, 32]),
];

/// The shapes whose history Criterion keeps.
const HISTORY: [&str; 3] = ["sq256", "gemv", "b32"];

/// A product's operands, in both layouts.
struct Work {
    name: String,
    sizes: [usize; 3],
    x: Vec<f32>,
    weights: Vec<f32>,
    panels: AlignedBuf,
}

impl Work {
    fn new(name: &str, sizes @ [rows, inputs, outputs]: [usize; 3]) -> Self {
        let weights = support::numbers(inputs * outputs);
        let bytes = pack::tensor_bytes::<f32>(inputs as u32, outputs as u32).expect("a small layer");
        let mut panels = AlignedBuf::zeroed(bytes as usize);
        pack::pack::<f32>(&weights, &[], outputs, &mut panels).expect("lengths that fit");
        let name = format!("{name} {rows}x{inputs}x{outputs}");
        Self { name, sizes, x: support::numbers(rows * inputs), weights, panels }
    }

    fn macs(&self) -> u64 {
        self.sizes.iter().product::<usize>() as u64
    }

    /// This library on each of its backends, then the peers.
    fn contestants(&self) -> Vec<Contestant<'_>> {
        let [rows, inputs, outputs] = self.sizes;
        let out = || vec![0.0; rows * outputs];
        let panels = Panels::<f32>::new(&self.panels, inputs, outputs).expect("packed above");
        let ours = Backend::available().map(|backend| {
            let mut out = out();
            Contestant::new(backend.name(), move || {
                dense(backend, black_box(&self.x), panels, f32::NEG_INFINITY, &mut out);
            })
        });
        let theirs = PEERS.map(|(name, multiply)| {
            let mut out = out();
            let product = Product { a: &self.x, b: &self.weights, sizes: self.sizes };
            Contestant::new(name, move || multiply(black_box(product), &mut out))
        });
        ours.chain(theirs).collect()
    }
}

fn history(criterion: &mut Criterion) {
    for (name, sizes) in SHAPES.into_iter().filter(|(name, _)| HISTORY.contains(name)) {
        let work = Work::new(name, sizes);
        let mut group = criterion.benchmark_group(&work.name);
        group.throughput(Throughput::Elements(work.macs()));
        for mut contestant in work.contestants() {
            group.bench_function(BenchmarkId::from_parameter(contestant.name), |bencher| {
                bencher.iter(&mut contestant.run)
            });
        }
    }
}

fn main() {
    let mut criterion = support::criterion();
    history(&mut criterion);
    criterion.final_summary();
    if support::measuring() {
        let mut table = support::Table::begin();
        for (name, sizes) in SHAPES {
            let work = Work::new(name, sizes);
            table.row(&work.name, work.macs(), work.contestants(), &peers::NAMES);
        }
    }
}
