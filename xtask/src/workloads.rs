//! The workloads of `cargo xtask count`: networks with random weights, on a random input, for one core each; and what the best
//! other library takes for the same.

use anyhow::{Context, Result};
use std::path::PathBuf;
use thumbnet::blob::{self, ModelSpec, Tensors};
use thumbnet::layer::{Activation, Conv2d, Dense, InputSpec, Layer, Packing, Padding, Quantize, Shape, WeightType};
use thumbnet::{AlignedBuf, Model};

/// A network on a core.
pub(crate) struct Workload {
    pub(crate) core: &'static Core,
    pub(crate) weights: WeightType,
    pub(crate) network: &'static Network,
    /// The best other library, in what was measured of it.
    pub(crate) peer: Peer,
    /// What it may take at most; checked by `cargo xtask test`.
    pub(crate) bound: Bound,
}

/// What an inference may take at most.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    /// Of the peer's instructions, and of its cycles where they are known.
    pub(crate) ratio: Option<f64>,
    /// Bytes of code.
    pub(crate) code: Option<u64>,
    /// Bytes of RAM.
    pub(crate) ram: Option<u64>,
}

impl Bound {
    const NONE: Self = Self { ratio: None, code: None, ram: None };

    const fn ratio(ratio: f64) -> Self {
        Self { ratio: Some(ratio), ..Self::NONE }
    }

    const fn code(self, bytes: u64) -> Self {
        Self { code: Some(bytes), ..self }
    }

    const fn ram(self, bytes: u64) -> Self {
        Self { ram: Some(bytes), ..self }
    }
}

/// A processor that code is compiled for.
pub(crate) struct Core {
    pub(crate) name: &'static str,
    pub(crate) target: &'static str,
}

/// A network without weights.
pub(crate) struct Network {
    pub(crate) name: &'static str,
    layers: &'static [Layer],
}

/// What another library takes: its code without weights, and its activations and scratch memory, in bytes.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) instructions: u64,
    pub(crate) cycles: Option<u64>,
    pub(crate) code: u64,
    pub(crate) ram: u64,
}

const M4F: Core = Core { name: "m4f", target: "thumbv7em-none-eabihf" };
const M0: Core = Core { name: "m0", target: "thumbv6m-none-eabi" };

const W1: Network = Network {
    name: "w1",
    layers: &[dense(128, Activation::Relu), dense(64, Activation::Relu), dense(10, Activation::None)],
};
const W2: Network = Network { name: "w2", layers: &[dense(32, Activation::Relu), dense(10, Activation::None)] };
const W4: Network = Network { name: "w4", layers: &[conv2d(8), conv2d(16), dense(10, Activation::None)] };

/// Every workload that is counted. (The peers' cycles on an M0 were not estimated.)
pub(crate) const ALL: &[Workload] = &[
    f32(&M4F, &W1, Bound::ratio(0.60), Peer::new("CMSIS-DSP", 304_477, 1_078, 768).cycles(716_239)),
    f32(&M4F, &W2, Bound::ratio(0.60), Peer::new("CMSIS-DSP", 70_859, 1_078, 768).cycles(166_691)),
    f32(&M4F, &W4, Bound::ratio(0.60), Peer::new("naive C", 791_102, 2_364, 27_040).cycles(1_589_604)),
    f32(&M0, &W1, Bound::NONE, Peer::new("naive C", 15_144_071, 2_642, 768)),
    f32(&M0, &W2, Bound::NONE, Peer::new("naive C", 3_484_784, 2_642, 768)),
    f32(&M0, &W4, Bound::NONE, Peer::new("naive C", 33_224_795, 3_822, 27_040)),
    int8(&M4F, &W1, Bound::ratio(0.65).code(6 * 1024), Peer::new("CMSIS-NN", 215_229, 4_594, 192).cycles(266_016)),
    int8(&M4F, &W2, Bound::NONE, Peer::new("CMSIS-NN", 50_088, 4_594, 192).cycles(61_998)),
    // The instructions are those of the best library for each layer, the rest is CMSIS-NN's.
    int8(
        &M4F,
        &W4,
        Bound::ratio(0.60).code(10 * 1024).ram(2560),
        Peer::new("best per layer", 661_927, 13_560, 7_048).cycles(1_575_795),
    ),
    int8(&M0, &W1, Bound::ratio(0.75), Peer::new("CMSIS-NN", 679_405, 3_042, 192)),
    int8(&M0, &W2, Bound::NONE, Peer::new("CMSIS-NN", 160_481, 3_042, 192)),
    int8(&M0, &W4, Bound::ratio(0.75), Peer::new("naive C", 2_016_031, 2_940, 6_760)),
];

const fn int8(core: &'static Core, network: &'static Network, bound: Bound, peer: Peer) -> Workload {
    Workload { core, weights: WeightType::Int8(Packing::Folded), network, peer, bound }
}

const fn f32(core: &'static Core, network: &'static Network, bound: Bound, peer: Peer) -> Workload {
    Workload { core, weights: WeightType::F32, network, peer, bound }
}

impl Peer {
    const fn new(name: &'static str, instructions: u64, code: u64, ram: u64) -> Self {
        Self { name, instructions, cycles: None, code, ram }
    }

    const fn cycles(self, cycles: u64) -> Self {
        Self { cycles: Some(cycles), ..self }
    }
}

const fn dense(outputs: u16, activation: Activation) -> Layer {
    Layer::Dense(Dense { outputs, activation, weights: WeightType::F32 })
}

/// Windows of 3 × 3 without padding, ReLU, and a pool of 2 × 2.
const fn conv2d(filters: u16) -> Layer {
    let padding = Padding { top: 0, bottom: 0, left: 0, right: 0 };
    let (activation, weights) = (Activation::Relu, WeightType::F32);
    Layer::Conv2d(Conv2d { filters, kernel: [3, 3], stride: [1, 1], padding, pool: [2, 2], activation, weights })
}

impl Workload {
    /// What the files of the workload are called.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.network.name, self.weights_name())
    }

    /// By how much an output may differ from this machine's, which with f32 may add in another order, or round once where the
    /// processor rounds twice. Int8 arithmetic is the same everywhere.
    pub(crate) fn largest_difference(&self) -> f32 {
        if matches!(self.weights, WeightType::Int8(_)) { 0.0 } else { 1e-4 }
    }

    /// The core and the workload.
    pub(crate) fn full_name(&self) -> String {
        format!("{} {}", self.core.name, self.name())
    }

    pub(crate) fn weights_name(&self) -> &'static str {
        match self.weights {
            WeightType::F32 => "f32",
            WeightType::F16 => "f16",
            WeightType::Int8(_) => "int8",
        }
    }

    /// The model: the same in every call, on every machine.
    pub(crate) fn model(&self) -> Result<AlignedBuf> {
        let mut random = fastrand::Rng::with_seed(5);
        let shape = Shape::new(28, 28, 1);
        let input = InputSpec { shape, scale: 1.0 / 255.0, offset: 0.0 };
        let layers = self.layers(&input)?;
        let spec = ModelSpec { input, labels: &[], layers: &layers };
        let mut values = Vec::new();
        let mut input = shape;
        for layer in self.network.layers {
            let (inputs, outputs) = match layer {
                Layer::Dense(dense) => (elements(input), usize::from(dense.outputs)),
                Layer::Conv2d(conv) => {
                    let [height, width] = conv.kernel.map(usize::from);
                    (height * width * usize::from(input.channels), usize::from(conv.filters))
                }
                _ => anyhow::bail!("no workload has a {} layer", layer.name()),
            };
            // So large that the sums are about as large as the inputs.
            let most = (6.0 / inputs as f32).sqrt();
            let mut uniform = |most: f32| (random.f32() * 2.0 - 1.0) * most;
            let weights = (0..inputs * outputs).map(|_| uniform(most)).collect::<Vec<_>>();
            let bias = (0..outputs).map(|_| uniform(0.1)).collect::<Vec<_>>();
            values.push((weights, bias));
            input = layer.output(input)?;
        }
        let tensors = values.iter().map(|(weights, bias)| Tensors { weights, bias }).collect::<Vec<_>>();
        let mut blob = AlignedBuf::zeroed(blob::encoded_len(&spec)?);
        // Steps of int8 activations, which are about 1.
        let scales = tensors.iter().map(|_| 1.0 / 32.0).collect::<Vec<_>>();
        blob::encode_int8(&spec, &tensors, &scales, &mut blob)?;
        Ok(blob)
    }

    /// The network's layers with the workload's weights.
    fn layers(&self, input: &InputSpec) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        if matches!(self.weights, WeightType::Int8(_)) {
            let quantize = Quantize::new(input, 1.0 / 127.0).context("an ordinary scale")?;
            layers.push(Layer::Quantize(quantize));
        }
        layers.extend(self.network.layers.iter().map(|layer| match *layer {
            Layer::Dense(dense) => Layer::Dense(Dense { weights: self.weights, ..dense }),
            Layer::Conv2d(conv) => Layer::Conv2d(Conv2d { weights: self.weights, ..conv }),
            other => other,
        }));
        Ok(layers)
    }

    /// The input, of which 30 % is not 0.
    pub(crate) fn input(&self) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(6);
        (0..28 * 28).map(|_| if random.f32() < 0.3 { random.u8(1..) } else { 0 }).collect()
    }

    /// What this machine makes of the input.
    pub(crate) fn outputs(&self) -> Result<Vec<f32>> {
        let blob = self.model()?;
        let model = Model::load(&blob)?;
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
        Ok(model.run(&*self.input(), &mut scratch)?.to_vec())
    }

    /// Writes the files that the firmware includes.
    pub(crate) fn write(&self) -> Result<()> {
        let replace = |path: PathBuf, bytes: &[u8]| {
            // A file that is already right keeps its time, and what was built from it stays.
            if std::fs::read(&path).is_ok_and(|old| old == bytes) {
                return Ok(());
            }
            thumbnet_trainer::output::replace(&path, bytes).with_context(|| path.display().to_string())
        };
        let folder = crate::command::firmware().join("assets");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join(self.name());
        replace(file.with_extension("tnet"), &self.model()?)?;
        replace(file.with_extension("input"), &self.input())
    }
}

fn elements(shape: Shape) -> usize {
    shape.elements().unwrap_or_default() as usize
}
