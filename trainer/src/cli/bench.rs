//! `thumbnet bench`.

use super::{ModelFile, backend, grouped, print, print_json};
use serde::Serialize;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use thumbnet::blob::{ModelSpec, Tensors, encode_int8, encoded_len};
use thumbnet::layer::{Activation, Dense, InputSpec, Layer, Packing, Quantize, WeightType};
use thumbnet::{AlignedBuf, Backend, LayerInfo, Model, kernels};
use thumbnet_trainer::error::Result;

/// Time a model on this processor: one image, batches, and each layer by itself, on one thread.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file
    model: PathBuf,
    /// Measure this backend of the core only
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    macs: u64,
    /// Whether the layers are int8 ones, each of which is timed with the quantisation of its input.
    int8: bool,
    weight_bytes: u64,
    backends: Vec<BackendReport>,
}

/// A backend's least times.
#[derive(Debug, Serialize)]
struct BackendReport {
    backend: &'static str,
    /// Of one image.
    seconds: f64,
    /// Of one image of a batch of [`BATCH`].
    batch_seconds: f64,
    layers: Vec<LayerReport>,
}

/// A layer's least time by itself.
#[derive(Debug, Serialize)]
struct LayerReport {
    layer: &'static str,
    output: [u16; 3],
    macs: u64,
    weight_bytes: u64,
    seconds: f64,
}

const BATCH: usize = 64;
/// How many images of a batch are computed at a time: several tiles of the kernels.
const AT_A_TIME: usize = 16;

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let model = file.model()?;
    let backends = match &args.backend {
        Some(name) => vec![backend(Some(name))?],
        None => Backend::available().collect(),
    };
    let report = measure(&model, &backends);
    if args.json { print_json(&report) } else { print(&table(&report)) }
}

/// A piece of work, to be timed.
type Work<'a> = Box<dyn FnMut() + 'a>;

fn measure(model: &Model<'_>, backends: &[Backend]) -> Report {
    let layers: Vec<LayerInfo> = model.layers().collect();
    let packing = packing(&layers);
    let files: Vec<Option<AlignedBuf>> = layers.iter().map(|info| alone(info, packing)).collect();
    let images: Vec<f32> = values(BATCH * model.input_len());
    let mut works: Vec<Work<'_>> = Vec::new();
    for &backend in backends {
        works.push(single(model.clone().with_backend(backend), &images));
        works.push(batch(model.clone().with_backend(backend), &images));
        works.extend(
            layers.iter().zip(&files).map(|(info, file)| layer(info, file.as_deref().map(|file| &**file), backend)),
        );
    }
    let mut times = least_times(&mut works).into_iter();
    let mut next = || times.next().expect("a time for each piece of work");
    let backends = backends.iter().map(|backend| BackendReport {
        backend: backend.name(),
        seconds: next(),
        batch_seconds: next() / BATCH as f64,
        layers: layers.iter().map(|info| layer_report(info, next())).collect(),
    });
    Report {
        backends: backends.collect(),
        macs: layers.iter().map(|info| info.macs).sum(),
        int8: packing.is_some(),
        weight_bytes: model.weight_bytes() as u64,
    }
}

fn layer_report(info: &LayerInfo, seconds: f64) -> LayerReport {
    let shape = info.output;
    LayerReport {
        layer: info.layer.name(),
        output: [shape.height, shape.width, shape.channels],
        macs: info.macs,
        weight_bytes: info.weight_bytes.into(),
        seconds,
    }
}

/// Values between 0 and 1, hardly any of them 0: dense layers skip these, and how many an image has is for its user to know.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index * 7919 % 256) as f32 / 255.0).collect()
}

fn single<'a>(model: Model<'a>, images: &'a [f32]) -> Work<'a> {
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let image = &images[..model.input_len()];
    Box::new(move || {
        black_box(model.run(black_box(image), &mut scratch).is_ok());
    })
}

fn batch<'a>(model: Model<'a>, images: &'a [f32]) -> Work<'a> {
    let mut scratch = AlignedBuf::zeroed(AT_A_TIME * model.scratch_bytes());
    let mut outputs = vec![0.0; BATCH * model.output_len()];
    Box::new(move || {
        black_box(model.run_batch(black_box(images), &mut scratch, &mut outputs).is_ok());
    })
}

/// A layer by itself, which is timed as a model of its own; a softmax, which cannot be one, as a kernel.
fn layer<'a>(info: &LayerInfo, file: Option<&'a [u8]>, backend: Backend) -> Work<'a> {
    let count = |shape: thumbnet::layer::Shape| shape.elements().expect("a layer of a loaded model") as usize;
    let Some(file) = file else {
        let (logits, mut buffer) = (values(count(info.output)), values(count(info.output)));
        return Box::new(move || {
            buffer.copy_from_slice(&logits);
            kernels::softmax(backend, black_box(&mut buffer));
        });
    };
    let model = Model::load(file).expect("made from a layer of a loaded model").with_backend(backend);
    let input = values(count(info.input));
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    Box::new(move || {
        black_box(model.run(black_box(&input[..]), &mut scratch).is_ok());
    })
}

/// A model of one layer with made-up weights, which cost what any cost; `None` for a softmax.
///
/// With an int8 layer come the quantisation of its input and, where it is none that a model can end with, a dense layer of
/// one output: `packing` is that of the model.
fn alone(info: &LayerInfo, packing: Option<Packing>) -> Option<AlignedBuf> {
    if matches!(info.layer, Layer::Softmax) {
        return None;
    }
    let input = InputSpec { shape: info.input, scale: 1.0 / 255.0, offset: 0.0 };
    let quantize = Layer::Quantize(Quantize::new(&input, 1.0 / 127.0).expect("steps within the format's limits"));
    let end =
        |packing| Layer::Dense(Dense { outputs: 1, activation: Activation::None, weights: WeightType::Int8(packing) });
    let layers = match (packing, info.layer) {
        (None, layer) => vec![layer],
        (Some(packing), Layer::Quantize(_)) => vec![quantize, end(packing)],
        (Some(packing), layer @ (Layer::MaxPool2d(_) | Layer::AvgPool2d(_))) => vec![quantize, layer, end(packing)],
        (Some(_), layer) => vec![quantize, layer],
    };
    let count = match (info.layer.weight_type(), packing) {
        (Some(_), _) => (info.parameters as usize).saturating_sub(info.output.channels.into()),
        (None, Some(_)) => info.output.elements().expect("a layer of a loaded model") as usize,
        (None, None) => 0,
    };
    let weights = values(count);
    let tensors = [Tensors { weights: &weights, bias: &[] }];
    let tensors = if count > 0 { &tensors[..] } else { &[] };
    let spec = ModelSpec { input, labels: &[], layers: &layers };
    let mut file = AlignedBuf::zeroed(encoded_len(&spec).expect("a layer of a loaded model"));
    encode_int8(&spec, tensors, &[1.0], &mut file).expect("a layer of a loaded model");
    Some(file)
}

/// How a model's int8 weights are packed; `None` if it has others.
fn packing(layers: &[LayerInfo]) -> Option<Packing> {
    layers.iter().find_map(|info| match info.layer.weight_type() {
        Some(WeightType::Int8(packing)) => Some(packing),
        _ => None,
    })
}

/// How often each piece of work has its turn, and how long a turn lasts.
const ROUNDS: usize = 20;
const TURN: Duration = Duration::from_millis(2);

/// The least time of each piece of work, in seconds.
///
/// They take turns: a processor that other programs share changes its speed for seconds at a time, and only so does each
/// meet the same speeds.
fn least_times(works: &mut [Work<'_>]) -> Vec<f64> {
    let mut least = vec![f64::INFINITY; works.len()];
    for _ in 0..ROUNDS {
        for (work, least) in works.iter_mut().zip(&mut least) {
            let (turn, mut calls) = (Instant::now(), 1);
            while turn.elapsed() < TURN {
                let start = Instant::now();
                (0..calls).for_each(|_| work());
                *least = least.min(start.elapsed().as_secs_f64() / f64::from(calls));
                calls = (calls * 2).min(256);
            }
        }
    }
    least
}

fn table(report: &Report) -> String {
    let rate = |amount: u64, seconds: f64| amount as f64 / seconds / 1e9;
    let (macs, bytes) = (report.macs, report.weight_bytes);
    let mut text =
        format!("{} MACs and {} bytes of weights; least times of one thread\n", grouped(macs), grouped(bytes));
    text += "The inputs are noise. Dense layers skip inputs that are 0, so images may take less.\n\n";
    text += "backend    µs/image  GFLOP/s  weights GB/s    images/s in batches of 64  GFLOP/s\n";
    for found in &report.backends {
        text += &format!(
            "{:<8} {:>10.2} {:>8.1} {:>13.1} {:>28} {:>8.1}\n",
            found.backend,
            found.seconds * 1e6,
            rate(2 * macs, found.seconds),
            rate(bytes, found.seconds),
            grouped((1.0 / found.batch_seconds) as u64),
            rate(2 * macs, found.batch_seconds),
        );
    }
    let Some(best) = report.backends.last() else { return text };
    let quantize = if report.int8 { ", its input made int8" } else { "" };
    text += &format!("\neach layer by itself on {}, one image{quantize}\n\n", best.backend);
    text += "layer            output             MACs     bytes         µs  GFLOP/s  weights GB/s\n";
    for layer in &best.layers {
        let [height, width, channels] = layer.output;
        text += &format!(
            "{:<16} {:<10} {:>12} {:>9} {:>10.2} {:>8.1} {:>13.1}\n",
            layer.layer,
            if height == 1 && width == 1 { channels.to_string() } else { format!("{height}x{width}x{channels}") },
            grouped(layer.macs),
            grouped(layer.weight_bytes),
            layer.seconds * 1e6,
            rate(2 * layer.macs, layer.seconds),
            rate(layer.weight_bytes, layer.seconds),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use thumbnet::layer::{AvgPool2d, Conv2d, DepthwiseConv2d, MaxPool2d, Padding, Shape};

    /// A model with a layer of each kind.
    fn every_kind(weights: WeightType) -> AlignedBuf {
        let conv = Conv2d {
            filters: 4,
            kernel: [3, 3],
            stride: [1, 1],
            padding: Padding::default(),
            pool: [1, 1],
            activation: Activation::Relu,
            weights,
        };
        let (padding, activation) = (Padding { top: 1, bottom: 1, left: 1, right: 1 }, Activation::Relu);
        let input = InputSpec { shape: Shape::new(8, 8, 1), scale: 1.0 / 255.0, offset: 0.0 };
        let layers = [
            Layer::Quantize(Quantize::new(&input, 1.0 / 127.0).unwrap()),
            Layer::Conv2d(conv),
            Layer::DepthwiseConv2d(DepthwiseConv2d { kernel: [3, 3], stride: [1, 1], padding, activation, weights }),
            Layer::MaxPool2d(MaxPool2d { kernel: [2, 2], stride: [2, 2] }),
            Layer::AvgPool2d(AvgPool2d { kernel: [3, 3], stride: [1, 1] }),
            Layer::Dense(Dense { outputs: 10, activation: Activation::Tanh, weights }),
            Layer::Softmax,
        ];
        let layers = if weights == WeightType::F32 { &layers[1..] } else { &layers[..] };
        let spec = ModelSpec { input, labels: &[], layers };
        let (first, second) = (values(9 * 4), values(4 * 10));
        let tensors = [&first, &first, &second].map(|weights| Tensors { weights, bias: &[] });
        let mut file = AlignedBuf::zeroed(encoded_len(&spec).unwrap());
        encode_int8(&spec, &tensors, &[0.1; 3], &mut file).unwrap();
        file
    }

    #[test]
    fn every_backend_and_every_layer_is_measured() {
        let backends: Vec<Backend> = Backend::available().collect();
        let int8 = [Packing::Grouped, Packing::Folded].map(WeightType::Int8);
        for weights in [WeightType::F32, int8[0], int8[1]] {
            let report = measure(&Model::load(&every_kind(weights)).unwrap(), &backends);
            assert_eq!(report.macs, 2 * (6 * 6 * 9 * 4) + 4 * 10);
            assert_eq!(report.backends.len(), backends.len());
            for found in &report.backends {
                let names: Vec<_> = found.layers.iter().map(|layer| layer.layer).collect();
                let expected =
                    ["quantize", "conv2d", "depthwise_conv2d", "max_pool2d", "avg_pool2d", "dense", "softmax"];
                assert_eq!(names, expected[usize::from(weights == WeightType::F32)..]);
                let times = found.layers.iter().map(|layer| layer.seconds).chain([found.seconds, found.batch_seconds]);
                times.for_each(|seconds| assert!(seconds.is_finite() && seconds > 0.0, "{found:?}"));
            }
            assert!(table(&report).contains("depthwise_conv2d 6x6x4             1,296"), "{}", table(&report));
        }
    }
}
