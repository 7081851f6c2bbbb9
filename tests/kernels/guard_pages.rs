//! No kernel touches memory beyond what it was given: input, model file, scratch memory and outputs each lie right before or
//! right behind a page that nobody may touch, for every tail that the tiles of a kernel can leave.
//!
//! An access beyond an end is a segmentation fault, which stops the whole test. That the zeros behind a tensor's biases are
//! enough for the loads of whole vectors is shown here too: the last tensor of a file ends where the file does.

use crate::common::guarded::{Guarded, Place};
use crate::common::network::{
    Network, avg_pool, conv, dense, depthwise, every_layer, input, leaky, many_zeros, max_pool, quantized, signed_vec,
    with_background,
};
use crate::common::{backends, bits, network, reference, run};
use crate::is_emulated;
use fastrand::Rng;
use half::f16;
use thumbnet::kernels::pack::{pack, tensor_bytes};
use thumbnet::kernels::{self, Panels, Weight, matmul, matmul_packing_bytes};
use thumbnet::layer::{Activation, Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, Packing, Padding, WeightType};
use thumbnet::{Aligned, AlignedBuf, Backend, Ensemble, Input, Model, ensemble};

const WEIGHTS: [WeightType; 4] =
    [WeightType::F32, WeightType::F16, WeightType::Int8(Packing::Grouped), WeightType::Int8(Packing::Folded)];

/// Bytes that are room enough for each piece of memory here.
const ROOM: usize = 1 << 18;
/// What scratch memory is filled with: in a result it would be NaN.
const BEFORE: u8 = 0xff;

/// The four pieces of memory that a model works with.
struct Memory {
    file: Guarded,
    input: Guarded,
    scratch: Guarded,
    outputs: Guarded,
}

impl Memory {
    fn new() -> Self {
        let [file, input, scratch, outputs] = [(); 4].map(|()| Guarded::new(ROOM));
        Self { file, input, scratch, outputs }
    }

    /// Runs a network on values and on bytes, one at a time and three, on every backend, all its memory between guards.
    /// The results must be those of ordinary memory.
    fn check(&mut self, network: &Network, rng: &mut Rng) {
        let len = network.input.shape.elements().expect("a small shape") as usize;
        let values = signed_vec(rng, 3 * len);
        let bytes: Vec<u8> = values.iter().map(|_| rng.u8(..)).collect();
        self.check_inputs(network, &values, &bytes);
    }

    /// [`check`](Self::check) on these values and bytes, of some inputs.
    fn check_inputs(&mut self, network: &Network, values: &[f32], bytes: &[u8]) {
        let plain = network.encode();
        let loaded = Model::load(&plain).expect("a valid blob");
        for place in Place::BOTH {
            let model = Model::load(self.file.hold(place, &plain)).expect("a valid blob");
            let values = &*self.input.hold(place, values);
            for backend in backends() {
                let (model, loaded) = (model.clone().with_backend(backend), loaded.clone().with_backend(backend));
                check_model(&model, &loaded, Input::F32(values), place, (&mut self.scratch, &mut self.outputs));
            }
            let bytes = &*self.input.hold(place, bytes);
            for backend in backends() {
                let (model, loaded) = (model.clone().with_backend(backend), loaded.clone().with_backend(backend));
                check_model(&model, &loaded, Input::U8(bytes), place, (&mut self.scratch, &mut self.outputs));
            }
        }
    }
}

/// Compares a model between guards with the same model in ordinary memory, on some inputs.
fn check_model(
    model: &Model<'_>,
    plain: &Model<'_>,
    inputs: Input<'_>,
    place: Place,
    (scratch, outputs): (&mut Guarded, &mut Guarded),
) {
    let what = || format!("{place:?} on {}: {:?}", model.backend().name(), model.layers().collect::<Vec<_>>());
    let first = match inputs {
        Input::F32(values) => Input::F32(&values[..model.input_len()]),
        Input::U8(bytes) => Input::U8(&bytes[..model.input_len()]),
    };
    let expected = run(plain, first);
    let needed = model.scratch_bytes();
    assert_eq!(
        bits(model.run(first, room(scratch, place, needed)).expect("the lengths fit")),
        bits(&expected),
        "{}",
        what()
    );
    let behind = &scratch.take(place, needed.next_multiple_of(64))[needed..];
    assert!(behind.iter().all(|byte| *byte == BEFORE), "{}: more scratch memory than promised", what());

    let count = match inputs {
        Input::F32(values) => values.len() / model.input_len(),
        Input::U8(bytes) => bytes.len() / model.input_len(),
    };
    let mut expected = vec![0.0; count * plain.output_len()];
    plain.run_batch(inputs, &mut AlignedBuf::zeroed(count * needed), &mut expected).expect("the lengths fit");
    let found = outputs.hold(place, &vec![f32::NAN; expected.len()]);
    model.run_batch(inputs, room(scratch, place, count * needed), found).expect("the lengths fit");
    assert_eq!(bits(found), bits(&expected), "{}: a batch", what());
}

/// Scratch memory at a guard, `bytes` rounded up to what its type can have.
fn room(guarded: &mut Guarded, place: Place, bytes: usize) -> &mut Aligned<[u8]> {
    let memory = guarded.take(place, bytes.next_multiple_of(64));
    memory.fill(BEFORE);
    Aligned::from_mut(memory).expect("a page is aligned")
}

/// A network of one layer with weights of that type, behind a quantisation if they are int8.
fn single(spec: InputSpec, mut layer: Layer, weights: WeightType, seed: u64) -> Network {
    match (&mut layer, weights) {
        (_, WeightType::Int8(packing)) => {
            return Network::random(spec, &quantized(&spec, &[layer], 0.01, packing), seed);
        }
        (Layer::Dense(Dense { weights, .. }), of) => *weights = of,
        (Layer::Conv2d(Conv2d { weights, .. }), of) => *weights = of,
        (Layer::DepthwiseConv2d(DepthwiseConv2d { weights, .. }), of) => *weights = of,
        _ => {}
    }
    Network::random(spec, &[layer], seed)
}

/// Every size of a layer; on an emulated processor, which is slow (and has short vectors), those up to a panel and a vector.
fn sizes() -> std::ops::RangeInclusive<u16> {
    1..=if is_emulated() { 21 } else { 70 }
}

/// Whether such a layer has an output.
fn fits(spec: &InputSpec, layer: &Layer) -> bool {
    reference::output_dims(layer, network::dims(spec)).is_some()
}

#[test]
fn dense_layers_of_every_size() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(1));
    for weights in WEIGHTS {
        for outputs in sizes() {
            for inputs in sizes() {
                let network = single(input(1, 1, inputs), dense(outputs, Activation::None), weights, rng.u64(..));
                memory.check(&network, &mut rng);
            }
        }
        // The parts in which bytes are converted, and groups of inputs.
        for inputs in [127, 128, 129, 255, 257, 1000] {
            for outputs in [1, 10, 16, 17, 33] {
                let network = single(input(1, 1, inputs), dense(outputs, Activation::Relu), weights, rng.u64(..));
                memory.check(&network, &mut rng);
            }
        }
    }
}

/// The loops for panels that are narrower than a vector.
#[test]
fn dense_layers_of_few_outputs_and_many_inputs() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(9));
    for weights in WEIGHTS {
        for inputs in 511..=529 {
            for outputs in [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 26] {
                let network = single(input(1, 1, inputs), dense(outputs, Activation::Relu), weights, rng.u64(..));
                let rows = rng.usize(1..=9);
                let values = signed_vec(&mut rng, rows * usize::from(inputs));
                let bytes: Vec<u8> = values.iter().map(|value| (value.abs() * 100.0) as u8).collect();
                memory.check_inputs(&network, &values, &bytes);
            }
        }
    }
}

/// The loops over those inputs that are not zero, and the tiles of many rows.
#[test]
fn dense_layers_of_many_zeros() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(7));
    for weights in WEIGHTS {
        for inputs in [64, 65, 66, 67, 79, 80, 81, 255, 256, 259, 260, 700] {
            for outputs in [32, 33, 47, 48, 64, 65, 70] {
                let network = single(input(1, 1, inputs), dense(outputs, Activation::Relu), weights, rng.u64(..));
                let (rows, share) = (rng.usize(1..=17), [0.0, 0.3, 0.9][rng.usize(0..3)]);
                let values = many_zeros(&mut rng, rows, inputs.into(), share);
                let bytes: Vec<u8> = values.iter().map(|value| (value.abs() * 100.0) as u8).collect();
                memory.check_inputs(&network, &values, &bytes);
            }
        }
    }
}

#[test]
fn convolutions_of_images_with_background() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(8));
    for weights in WEIGHTS {
        for width in (16..=33).chain([63, 64, 65]) {
            for pool in [1, 2] {
                let mut drawn = conv(rng.u16(1..=35), 3, Activation::Tanh);
                drawn.pool = [pool; 2];
                let height = rng.u16(16..=20);
                let network = single(input(height, width, 1), Layer::Conv2d(drawn), weights, rng.u64(..));
                let values = with_background(&mut rng, height.into(), width.into());
                let bytes: Vec<u8> = values.iter().map(|value| (value.abs() * 100.0) as u8).collect();
                memory.check_inputs(&network, &values, &bytes);
            }
        }
    }
}

#[test]
fn convolutions_of_images_with_background_and_dense_layers_behind() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(9));
    // (Backends of emulated processors compute one layer after the other.)
    let least = if is_emulated() { 16 } else { 1 };
    for weights in [WeightType::F32, WeightType::F16] {
        for outputs in least..=16 {
            for filters in [8, 16] {
                let mut first = conv(filters, 3, Activation::Tanh);
                (first.stride, first.weights) = ([2, 2], weights);
                let last = Layer::Dense(Dense { outputs, activation: Activation::None, weights });
                let spec = InputSpec { offset: 0.0, ..input(rng.u16(16..=20), rng.u16(16..=33), 1) };
                let network = Network::random(spec, &[Layer::Conv2d(first), last], rng.u64(..));
                let [height, width] = [spec.shape.height, spec.shape.width].map(usize::from);
                let values: Vec<f32> = (0..9).flat_map(|_| with_background(&mut rng, height, width)).collect();
                let bytes: Vec<u8> = values.iter().map(|value| (value.abs() * 100.0) as u8).collect();
                memory.check_inputs(&network, &values, &bytes);
            }
        }
    }
}

#[test]
fn convolutions_of_every_width() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(2));
    let activations =
        [Activation::None, Activation::Relu, Activation::Tanh, Activation::Sigmoid, Activation::Relu6, leaky(0.2)];
    for weights in WEIGHTS {
        for width in 1..=23 {
            for filters in [1, 2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 35] {
                let spec = input(rng.u16(3..=7), width, rng.u16(1..=9));
                let side = |rng: &mut Rng| if rng.bool() { 0 } else { rng.i8(-2..=3) };
                let [top, bottom, left, right] = [(); 4].map(|()| side(&mut rng));
                let drawn = Conv2d {
                    kernel: [rng.u8(1..=5), rng.u8(1..=5)],
                    stride: [rng.u8(1..=2), rng.u8(1..=3)],
                    padding: Padding { top, bottom, left, right },
                    pool: [rng.u8(1..=2), rng.u8(1..=3)],
                    ..conv(filters, 1, activations[rng.usize(0..6)])
                };
                // The windows that some backends have loops of their own for.
                let size = [1, 3, 5][rng.usize(0..3)];
                let common = Conv2d { pool: [rng.u8(1..=2); 2], ..conv(filters, size, Activation::Relu) };
                for layer in [drawn, common].map(Layer::Conv2d).into_iter().filter(|layer| fits(&spec, layer)) {
                    memory.check(&single(spec, layer, weights, rng.u64(..)), &mut rng);
                }
            }
        }
    }
}

#[test]
fn depthwise_convolutions_of_every_width() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(3));
    for weights in WEIGHTS {
        for channels in (1..=20).chain([31, 32, 33, 40]) {
            for width in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17, 19] {
                let spec = input(rng.u16(2..=6), width, channels);
                let side = |rng: &mut Rng| if rng.bool() { 0 } else { rng.i8(-2..=3) };
                let [top, bottom, left, right] = [(); 4].map(|()| side(&mut rng));
                let layer = Layer::DepthwiseConv2d(DepthwiseConv2d {
                    kernel: [rng.u8(1..=5), rng.u8(1..=5)],
                    stride: [rng.u8(1..=2), rng.u8(1..=3)],
                    padding: Padding { top, bottom, left, right },
                    ..depthwise(1, Activation::Relu)
                });
                if fits(&spec, &layer) {
                    memory.check(&single(spec, layer, weights, rng.u64(..)), &mut rng);
                }
            }
        }
    }
}

/// Pooling of values and, in front of an int8 layer, of int8 activations; softmax; and all layers behind one another.
#[test]
fn pooling_softmax_and_whole_networks() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(4));
    for channels in 1..=35 {
        for pool in [max_pool, avg_pool] {
            let layer = pool([rng.u8(1..=3), rng.u8(1..=3)], [rng.u8(1..=2), rng.u8(1..=3)]);
            let spec = input(rng.u16(3..=6), rng.u16(3..=9), channels);
            memory.check(&Network::random(spec, &[layer], 1), &mut rng);
            for packing in [Packing::Grouped, Packing::Folded] {
                let layers = [layer, dense(channels, Activation::None), Layer::Softmax];
                memory.check(&Network::random(spec, &quantized(&spec, &layers, 0.01, packing), 2), &mut rng);
            }
        }
        let layers = [dense(channels, Activation::None), Layer::Softmax];
        memory.check(&Network::random(input(1, 1, 3), &layers, 3), &mut rng);
    }
    memory.check(&every_layer(), &mut rng);
    let network = every_layer();
    for packing in [Packing::Grouped, Packing::Folded] {
        let layers = quantized(&network.input, &network.layers, 0.01, packing);
        memory.check(&Network::random(network.input, &layers, 4), &mut rng);
    }
}

#[test]
fn ensembles() {
    let mut rng = Rng::with_seed(5);
    let [mut file, mut given, mut scratch] = [(); 3].map(|()| Guarded::new(ROOM));
    for outputs in 1..=35 {
        let spec = input(3, 5, 2);
        let members = [3, 17].map(|hidden| {
            let layers = [dense(hidden, Activation::Relu), dense(outputs, Activation::None), Layer::Softmax];
            Network::random(spec, &layers, hidden.into()).encode()
        });
        let members = [&members[0][..], &members[1]];
        let mut whole = AlignedBuf::zeroed(ensemble::encoded_len(&members).expect("less than 4 GiB"));
        ensemble::encode(&members, &mut whole).expect("members that fit");
        let values = signed_vec(&mut rng, 30);
        let plain = Ensemble::load(&whole).expect("a valid ensemble");
        for (place, backend) in places_and_backends() {
            let plain = plain.clone().with_backend(backend);
            let mut room_for_plain = AlignedBuf::zeroed(plain.scratch_bytes());
            let expected = bits(plain.run(&values[..], &mut room_for_plain).expect("the lengths fit"));
            let guarded = Ensemble::load(file.hold(place, &whole)).expect("a valid ensemble").with_backend(backend);
            let input = &*given.hold(place, &values);
            let found =
                guarded.run(input, room(&mut scratch, place, guarded.scratch_bytes())).expect("the lengths fit");
            assert_eq!(bits(found), expected, "{outputs} outputs, {place:?} on {}", backend.name());
        }
    }
}

/// Dense layers by themselves, on slices that begin and end at any value.
#[test]
fn dense_kernels() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(6));
    for outputs in 1..=70 {
        for inputs in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 70, 129] {
            let (rows, weights) = (rng.usize(1..=13), signed_vec(&mut rng, inputs * outputs));
            let values = signed_vec(&mut rng, rows * inputs);
            check_dense::<f32>(&mut memory, &weights, outputs, &values);
            check_dense::<f16>(&mut memory, &weights, outputs, &values);
        }
    }
}

fn check_dense<W: Weight>(memory: &mut Memory, weights: &[f32], outputs: usize, values: &[f32]) {
    let inputs = weights.len() / outputs;
    let mut plain = AlignedBuf::zeroed(tensor_bytes::<W>(inputs as u32, outputs as u32).expect("small") as usize);
    pack::<W>(weights, &[], outputs, &mut plain).expect("the lengths fit");
    let packed = Panels::<W>::new(&plain, inputs, outputs).expect("packed for this shape");
    let bytes: Vec<u8> = values.iter().map(|value| value.to_bits() as u8).collect();
    let len = values.len() / inputs * outputs;
    for place in Place::BOTH {
        let panels = Panels::<W>::new(memory.file.hold(place, &plain), inputs, outputs).expect("packed for this shape");
        for backend in backends() {
            let what = || format!("[{inputs}, {outputs}], {place:?} on {}", backend.name());
            let mut expected = vec![0.0; len];
            kernels::dense(backend, values, packed, 0.0, &mut expected);
            let found = memory.outputs.hold(place, &vec![f32::NAN; len]);
            kernels::dense(backend, memory.input.hold(place, values), panels, 0.0, found);
            assert_eq!(bits(found), bits(&expected), "{}", what());

            kernels::dense_bytes(backend, &bytes, (0.1, -3.0), packed, -1.0, &mut expected);
            let found = memory.outputs.hold(place, &vec![f32::NAN; len]);
            kernels::dense_bytes(backend, memory.input.hold(place, &bytes), (0.1, -3.0), panels, -1.0, found);
            assert_eq!(bits(found), bits(&expected), "bytes, {}", what());
        }
    }
}

#[test]
fn matrix_products() {
    let (mut memory, mut rng) = (Memory::new(), Rng::with_seed(7));
    for (m, n) in (1..=25).flat_map(|m| (1..=70).step_by(3).map(move |n| (m, n))) {
        let k = rng.usize(1..=20);
        let (a, b) = (signed_vec(&mut rng, m * k), signed_vec(&mut rng, k * n));
        let needed = matmul_packing_bytes(k, n).expect("small");
        let mut expected = vec![0.0; m * n];
        for (place, backend) in places_and_backends() {
            matmul(backend, &a, &b, (m, k, n), &mut AlignedBuf::zeroed(needed), &mut expected)
                .expect("the lengths fit");
            let (a, b) = (memory.input.hold(place, &a), memory.file.hold(place, &b));
            let (packing, found) =
                (room(&mut memory.scratch, place, needed), memory.outputs.hold(place, &vec![0.0; m * n]));
            matmul(backend, a, b, (m, k, n), packing, found).expect("the lengths fit");
            assert_eq!(bits(found), bits(&expected), "[{m}, {k}] times [{k}, {n}], {place:?} on {}", backend.name());
        }
    }
}

#[test]
fn functions_of_every_length() {
    type Function = fn(Backend, &mut [f32]);
    let functions: [Function; 6] = [
        kernels::exp,
        kernels::tanh,
        kernels::sigmoid,
        kernels::relu6,
        |backend, values| kernels::leaky_relu(backend, values, 0.3),
        kernels::softmax,
    ];
    let (mut memory, mut rng) = (Guarded::new(ROOM), Rng::with_seed(8));
    for len in 0..=70 {
        let values: Vec<f32> = signed_vec(&mut rng, len).iter().map(|value| 20.0 * value).collect();
        for (place, backend) in places_and_backends() {
            for (index, function) in functions.iter().enumerate() {
                let mut expected = values.clone();
                function(backend, &mut expected);
                let found = memory.hold(place, &values);
                function(backend, found);
                assert_eq!(bits(found), bits(&expected), "{index} of {len}, {place:?} on {}", backend.name());
            }
        }
    }
}

fn places_and_backends() -> impl Iterator<Item = (Place, Backend)> {
    Place::BOTH.into_iter().flat_map(|place| backends().into_iter().map(move |backend| (place, backend)))
}
