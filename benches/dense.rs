//! Matrix products, weights packed beforehand or (`matmul`) each time: every backend beside `matrixmultiply`, `gemm` and
//! `faer` in the same run.
//!
//! Criterion measures and keeps a history; the table at the end is made of interleaved least times, so that its ratios
//! hold on a machine that other programs share.

mod support;

use criterion::{BenchmarkId, Criterion, Throughput};
use std::hint::black_box;
use support::peers::{self, PEERS, Product};
use support::{Contestant, Work};
use thumbnet::kernels::{Panels, dense, matmul, matmul_packing_bytes, pack};
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

/// The shapes that the table has a second time, as products of plain matrices.
const PLAIN: [&str; 2] = ["sq128", "sq512"];

/// A product's operands, in both layouts.
struct Operands {
    name: String,
    sizes: [usize; 3],
    x: Vec<f32>,
    weights: Vec<f32>,
    panels: AlignedBuf,
}

impl Operands {
    fn new(name: &str, sizes @ [rows, inputs, outputs]: [usize; 3]) -> Self {
        let weights = support::numbers(inputs * outputs);
        let bytes = pack::tensor_bytes::<f32>(inputs as u32, outputs as u32).expect("a small layer");
        let mut panels = AlignedBuf::zeroed(bytes as usize);
        pack::pack::<f32>(&weights, &[], outputs, &mut panels).expect("lengths that fit");
        let name = format!("{name} {rows}x{inputs}x{outputs}");
        Self { name, sizes, x: support::numbers(rows * inputs), weights, panels }
    }

    fn work(&self, name: String) -> Work {
        let weight_bytes = (self.sizes[0] == 1).then_some(self.panels.len());
        Work { name, macs: self.macs(), weight_bytes }
    }

    fn macs(&self) -> u64 {
        self.sizes.iter().product::<usize>() as u64
    }

    fn out(&self) -> Vec<f32> {
        let [rows, _, outputs] = self.sizes;
        vec![0.0; rows * outputs]
    }

    /// The product with the weights that are packed already.
    fn packed(&self, backend: Backend) -> Contestant<'_> {
        let [_, inputs, outputs] = self.sizes;
        let panels = Panels::<f32>::new(&self.panels, inputs, outputs).expect("packed above");
        let mut out = self.out();
        Contestant::new(backend.name(), move || {
            dense(backend, black_box(&self.x), panels, f32::NEG_INFINITY, &mut out);
        })
    }

    /// The product of the plain matrices.
    fn plain(&self, backend: Backend) -> Contestant<'_> {
        let (sizes @ (_, inputs, outputs), mut out) = (self.sizes.into(), self.out());
        let mut packing = AlignedBuf::zeroed(matmul_packing_bytes(inputs, outputs).expect("a small matrix"));
        Contestant::new(backend.name(), move || {
            let (a, b) = black_box((&self.x, &self.weights));
            matmul(backend, a, b, sizes, &mut packing, &mut out).expect("lengths that fit");
        })
    }

    /// This library on each of its backends, then the peers.
    fn contestants<'a>(&'a self, ours: impl Fn(&'a Self, Backend) -> Contestant<'a>) -> Vec<Contestant<'a>> {
        let theirs = PEERS.map(|(name, multiply)| {
            let mut out = self.out();
            let product = Product { a: &self.x, b: &self.weights, sizes: self.sizes };
            Contestant::new(name, move || multiply(black_box(product), &mut out))
        });
        Backend::available().map(|backend| ours(self, backend)).chain(theirs).collect()
    }
}

fn history(criterion: &mut Criterion) {
    for (name, sizes) in SHAPES.into_iter().filter(|(name, _)| HISTORY.contains(name)) {
        let operands = Operands::new(name, sizes);
        let mut group = criterion.benchmark_group(&operands.name);
        group.throughput(Throughput::Elements(operands.macs()));
        for mut contestant in operands.contestants(Operands::packed) {
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
            let operands = Operands::new(name, sizes);
            let work = operands.work(operands.name.clone());
            table.row(&work, operands.contestants(Operands::packed), &peers::NAMES);
            if PLAIN.contains(&name) {
                let work = operands.work(format!("{} matmul", operands.name));
                table.row(&work, operands.contestants(Operands::plain), &peers::NAMES);
            }
        }
    }
}
