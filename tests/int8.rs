//! Int8 models, drawn at random: the same bits on every backend and with either packing, and near to the f32 model.

mod common;

use common::network::{Network, conv, dense, depthwise, dims, input, max_pool, quantized, signed_vec};
use common::{backends, bits, int8, reference};
use fastrand::Rng;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use thumbnet::blob::{self, ModelSpec, PackedTensor, Tensors};
use thumbnet::layer::{
    Activation, Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, MaxPool2d, Packing, Padding, Shape, WeightType,
};
use thumbnet::{AlignedBuf, EncodeError, Input, Model, ops};

const PACKINGS: [Packing; 2] = [Packing::Grouped, Packing::Folded];

fn encode(network: &Network, input_scale: f32, scales: &[f32], packing: Packing) -> Result<AlignedBuf, EncodeError> {
    let layers = quantized(&network.input, &network.layers, input_scale, packing);
    let spec = ModelSpec { input: network.input, labels: &[], layers: &layers };
    let tensors: Vec<_> = network.tensors.iter().map(|t| Tensors { weights: &t.weights, bias: &t.bias }).collect();
    let mut out = AlignedBuf::zeroed(blob::encoded_len(&spec)?);
    out.fill(0xa5);
    blob::encode_int8(&spec, &tensors, scales, &mut out)?;
    Ok(out)
}

/// Runs with exactly as much scratch memory as promised, filled with `before`; what lies behind it must be left alone.
fn logits(model: &Model<'_>, input: Input<'_>, before: u8) -> Vec<f32> {
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes() + 64);
    scratch.fill(before);
    let found = model.logits(input, &mut scratch).expect("the lengths fit").to_vec();
    assert!(scratch[model.scratch_bytes()..].iter().all(|byte| *byte == before), "more scratch memory than promised");
    found
}

fn activation() -> impl Strategy<Value = Activation> {
    prop_oneof![Just(Activation::None), Just(Activation::Relu), Just(Activation::Tanh), Just(Activation::Sigmoid)]
}

fn layer() -> impl Strategy<Value = Layer> {
    let weights = WeightType::F32;
    let side = || prop_oneof![3 => Just(0), 2 => -3i8..=4];
    let padding =
        || [side(), side(), side(), side()].prop_map(|[top, bottom, left, right]| Padding { top, bottom, left, right });
    // Enough outputs for every tile of the kernels, and what is left of it.
    let outputs = || prop_oneof![3 => 1u16..=40, 1 => 41u16..=100];
    let conv = (outputs(), [1u8..=5, 1..=5], [1u8..=3, 1..=3], padding(), [1u8..=3, 1..=3], activation()).prop_map(
        move |(filters, kernel, stride, padding, pool, activation)| {
            Layer::Conv2d(Conv2d { filters, kernel, stride, padding, pool, activation, weights })
        },
    );
    let pool = ([1u8..=3, 1..=3], [1u8..=3, 1..=3])
        .prop_map(|(kernel, stride)| Layer::MaxPool2d(MaxPool2d { kernel, stride }));
    let dense = (outputs(), activation())
        .prop_map(move |(outputs, activation)| Layer::Dense(Dense { outputs, activation, weights }));
    let depthwise = ([1u8..=4, 1..=4], [1u8..=3, 1..=3], padding(), activation()).prop_map(
        move |(kernel, stride, padding, activation)| {
            Layer::DepthwiseConv2d(DepthwiseConv2d { kernel, stride, padding, activation, weights })
        },
    );
    prop_oneof![4 => conv, 1 => pool, 3 => dense, 2 => depthwise]
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        4 => (1u16..=13, 1u16..=13, 1u16..=9).prop_map(|(height, width, channels)| Shape { height, width, channels }),
        1 => (1u16..=1500).prop_map(Shape::flat),
    ]
}

/// Networks that end with a layer that has weights, as int8 models must.
fn network() -> impl Strategy<Value = (Network, u64)> {
    (shape(), prop::collection::vec(layer(), 1..=6), any::<u64>()).prop_filter_map("no layer fits", |drawn| {
        let (shape, layers, seed) = drawn;
        let input = InputSpec { shape, scale: 1.0 / 255.0, offset: -0.25 };
        let mut here = dims(&input);
        let mut fitting: Vec<Layer> = Vec::new();
        for layer in layers {
            if let Some(made) = reference::output_dims(&layer, here) {
                fitting.push(layer);
                here = made;
            }
        }
        while fitting.last().is_some_and(|layer| layer.weight_type().is_none()) {
            fitting.pop();
        }
        (!fitting.is_empty()).then(|| (Network::random(input, &fitting, seed), seed))
    })
}

fn check(network: &Network, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let scales: Vec<f32> = network.tensors.iter().map(|_| 0.002 + 0.05 * rng.f32()).collect();
    let values = signed_vec(&mut rng, network.input_len());
    let bytes: Vec<u8> = values.iter().map(|_| rng.u8(..)).collect();
    for packing in PACKINGS {
        let blob = encode(network, 1.0 / 127.0, &scales, packing).expect("ordinary weights and scales");
        let loaded = Model::load(&blob).expect("a valid blob");
        for input in [Input::F32(&values), Input::U8(&bytes)] {
            let expected = bits(&int8::logits(&loaded, input));
            for backend in backends() {
                let model = loaded.clone().with_backend(backend);
                for before in [0, 0x7f, 0xff] {
                    let found = bits(&logits(&model, input, before));
                    assert_eq!(found, expected, "{packing:?} on {} for {input:?}", backend.name());
                }
            }
        }
        check_batch(&loaded, &bytes);
    }
}

/// A batch of different inputs, of which some fit into the scratch memory at a time, gives what each gives alone.
fn check_batch(loaded: &Model<'_>, bytes: &[u8]) {
    let rows = 29;
    let inputs: Vec<u8> =
        (0..rows).flat_map(|row| bytes.iter().map(move |byte| byte.wrapping_mul(2 * row + 1))).collect();
    let alone: Vec<f32> = inputs.chunks(bytes.len()).flat_map(|input| logits(loaded, Input::U8(input), 0)).collect();
    for backend in backends() {
        let model = loaded.clone().with_backend(backend);
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes() * 26);
        let mut outputs = vec![f32::NAN; alone.len()];
        model.logits_batch(&inputs[..], &mut scratch, &mut outputs).expect("the lengths fit");
        assert_eq!(bits(&outputs), bits(&alone), "a batch on {}", backend.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]
    #[test]
    fn every_backend_and_packing_gives_the_same_bits((network, seed) in network()) {
        check(&network, seed);
    }
}

/// Each output is one input: what is rounded, bounded, or no number at all.
#[test]
fn unusual_inputs_are_quantised_alike() {
    let spec = input(1, 1, 200);
    let mut network = Network::random(spec, &[dense(200, Activation::None)], 1);
    network.tensors[0].weights.iter_mut().enumerate().for_each(|(n, w)| *w = f32::from(n / 200 == n % 200));
    network.tensors[0].bias.fill(0.0);
    // In steps of 1/128.
    let (infinite, too_large) = (f32::INFINITY, f32::MAX);
    let sizes = [
        infinite,
        too_large,
        2.2e9,
        32_768.0,
        128.0,
        127.5,
        127.49,
        126.5,
        2.5,
        1.5,
        0.5,
        0.499_999_97,
        1e-40,
        0.0,
        f32::NAN,
    ];
    let steps = sizes.map(|size| [size, -size]);
    let steps = steps.as_flattened();
    let mut rng = Rng::with_seed(7);
    for packing in PACKINGS {
        let blob = encode(&network, 1.0 / 128.0, &[1.0], packing).expect("ordinary weights");
        let model = Model::load(&blob).expect("a valid blob");
        // One unusual value among ordinary ones, and all of them.
        for unusual in 0..=steps.len() {
            let mut values: Vec<f32> = (0..200).map(|_| 250.0 * (rng.f32() - 0.5)).collect();
            match steps.get(unusual) {
                Some(step) => values[rng.usize(..200)] = *step,
                None => values.iter_mut().zip(steps.iter().cycle()).for_each(|(value, step)| *value = *step),
            }
            values.iter_mut().for_each(|value| *value /= 128.0);
            let expected = int8::logits(&model, Input::F32(&values));
            for backend in backends() {
                let found = logits(&model.clone().with_backend(backend), Input::F32(&values), 0);
                assert_eq!(bits(&found), bits(&expected), "{packing:?} on {}: {values:?}", backend.name());
            }
            for (value, made) in values.iter().zip(expected) {
                let step = if value.is_nan() { 0.0 } else { (value * 128.0).clamp(-127.0, 127.0) };
                assert!((made * 128.0 - step).abs() < 2.0, "{made} of {value}");
            }
        }
    }
}

#[test]
fn long_sums_do_not_overflow() {
    // The largest weights and inputs: half of what a 32-bit sum can hold after 66,571 products.
    for inputs in [519, 520, 521, 1041, 65_535] {
        let spec = input(1, 1, inputs);
        let mut network = Network::random(spec, &[dense(5, Activation::None)], 1);
        network.tensors[0].weights.iter_mut().enumerate().for_each(|(n, w)| *w = if n % 5 < 3 { 1.0 } else { -1.0 });
        for packing in PACKINGS {
            let blob = encode(&network, 1.0 / 127.0, &[1.0], packing).expect("sums that fit");
            let model = Model::load(&blob).expect("a valid blob");
            let values = vec![1.0; usize::from(inputs)];
            for backend in backends() {
                let found = logits(&model.clone().with_backend(backend), Input::F32(&values), 0);
                assert_eq!(bits(&found), bits(&int8::logits(&model, Input::F32(&values))), "{inputs} inputs");
                let expected = f32::from(inputs);
                assert!((found[0] / expected - 1.0).abs() < 0.02, "{} instead of about {expected}", found[0]);
            }
        }
    }
}

#[test]
fn an_int8_model_is_near_to_the_f32_model() {
    let mut first = conv(12, 3, Activation::Relu);
    first.padding = Padding { top: 1, bottom: 1, left: 1, right: 1 };
    first.pool = [2, 2];
    let layers = [
        Layer::Conv2d(first),
        Layer::DepthwiseConv2d(depthwise(3, Activation::Tanh)),
        max_pool([2, 2], [2, 2]),
        dense(30, Activation::Sigmoid),
        dense(10, Activation::None),
    ];
    let network = Network::random(InputSpec { offset: 0.0, ..input(14, 14, 1) }, &layers, 5);
    let plain = network.encode();
    let plain = Model::load(&plain).expect("a valid blob");
    let bytes: Vec<u8> = (0..196).map(|n| (n * 37 % 256) as u8).collect();
    let mut scratch = AlignedBuf::zeroed(plain.scratch_bytes());
    let expected = plain.logits(&bytes[..], &mut scratch).expect("the lengths fit").to_vec();
    let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    for packing in PACKINGS {
        let blob = encode(&network, 1.0 / 127.0, &[2.0 / 127.0; 4], packing).expect("ordinary weights");
        let model = Model::load(&blob).expect("a valid blob");
        assert!(blob.len() < 4 * 1024, "{} bytes", blob.len());
        let found = logits(&model, Input::U8(&bytes), 0);
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found - expected).abs() < 0.03 * largest, "{found} instead of about {expected}");
        }
    }
}

#[test]
fn weights_are_rounded_to_the_nearest_step_of_their_output() {
    let spec = InputSpec { scale: 1.0, offset: 0.0, ..input(1, 1, 3) };
    let mut network = Network::random(spec, &[dense(2, Activation::None)], 1);
    network.tensors[0].weights = vec![1.0, -0.5, -0.3, 0.25, 0.101, 0.0];
    network.tensors[0].bias = vec![0.5, -1.0];
    for packing in PACKINGS {
        let blob = encode(&network, 0.5, &[], packing).expect("ordinary weights");
        let model = Model::load(&blob).expect("a valid blob");
        let Some(PackedTensor::Int8(tensor)) = model.tensors().next() else { panic!("an int8 tensor") };
        let weights: Vec<_> = (0..3).flat_map(|i| [0, 1].map(|o| tensor.weight(i, o))).collect();
        // Steps of 1/127 and of 0.5/127.
        assert_eq!(weights, [127, -127, -38, 64, 13, 0].map(Some));
        assert_eq!(tensor.weight(3, 0).or(tensor.weight(0, 2)), None);
        // In steps of the sums: those of the weights times those of the inputs.
        assert_eq!(tensor.bias(), [127, -508]);
        let scales: Vec<f32> = tensor.scales().map(f32::from_bits).collect();
        assert_eq!(scales, [0.5 / 127.0, 0.25 / 127.0]);
        assert_eq!(model.ops() & ops::WEIGHTS_F32, 0);
    }
}

#[test]
fn what_int8_cannot_express_is_refused() {
    let network = |layers: &[Layer]| Network::random(input(4, 4, 2), layers, 1);
    let hidden = network(&[dense(3, Activation::Relu), dense(2, Activation::None)]);
    let refused = |scales: &[f32]| encode(&hidden, 0.1, scales, Packing::Folded).unwrap_err();
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert_eq!(refused(&[bad, 1.0]), EncodeError::Scale { index: 1 });
    }
    assert_eq!(refused(&[]), EncodeError::Scale { index: 1 });
    let mut infinite = hidden.clone();
    infinite.tensors[1].weights[0] = f32::INFINITY;
    assert_eq!(encode(&infinite, 0.1, &[1.0, 1.0], Packing::Grouped).unwrap_err(), EncodeError::Scale { index: 2 });
    // Its outputs would be int8.
    let pooled = network(&[Layer::Conv2d(conv(2, 2, Activation::None)), max_pool([2, 2], [1, 1])]);
    let error = encode(&pooled, 0.1, &[1.0], Packing::Folded).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 2 is impossible: int8 activations where f32 ones are needed, or the other way round"
    );
    let mixed = ModelSpec { input: hidden.input, labels: &[], layers: &hidden.layers };
    let layers: Vec<_> =
        quantized(&hidden.input, &[], 0.1, Packing::Folded).into_iter().chain(mixed.layers.iter().copied()).collect();
    let error = blob::encoded_len(&ModelSpec { layers: &layers, ..mixed }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 1 is impossible: int8 activations where f32 ones are needed, or the other way round"
    );
}
