//! Int8 models, drawn at random: the same bits on every backend and with either packing, and near to the f32 model.

mod common;

use common::network::{
    Network, activation, avg_pool, conv, dense, depthwise, dims, input, many_zeros, max_pool, quantized, signed_vec,
    special_values,
};
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
    let mean = ([1u8..=9, 1..=9], [1u8..=3, 1..=3]).prop_map(|(kernel, stride)| avg_pool(kernel, stride));
    let dense = (outputs(), activation())
        .prop_map(move |(outputs, activation)| Layer::Dense(Dense { outputs, activation, weights }));
    let depthwise = ([1u8..=4, 1..=4], [1u8..=3, 1..=3], padding(), activation()).prop_map(
        move |(kernel, stride, padding, activation)| {
            Layer::DepthwiseConv2d(DepthwiseConv2d { kernel, stride, padding, activation, weights })
        },
    );
    prop_oneof![4 => conv, 1 => pool, 1 => mean, 3 => dense, 2 => depthwise]
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
    let special = special_values(&mut rng, network.input_len(), 1);
    for packing in PACKINGS {
        let blob = encode(network, 1.0 / 127.0, &scales, packing).expect("ordinary weights and scales");
        let loaded = Model::load(&blob).expect("a valid blob");
        for input in [Input::F32(&values), Input::F32(&special), Input::U8(&bytes)] {
            check_everywhere(&loaded, input);
        }
        check_batch(&loaded, &bytes);
    }
}

/// Groups of inputs that are 0 in all rows of a tile are skipped where there are many, alone and in a batch.
#[test]
fn groups_of_zeros_are_skipped() {
    let mut rng = Rng::with_seed(9);
    for inputs in [255, 256, 257, 300, 784, 1023, 4096, 4100] {
        for outputs in [31, 32, 48, 64, 70, 130] {
            for not_zero in [0.0, 0.3, 0.7, 1.0] {
                let activation = [Activation::None, Activation::Relu][rng.usize(0..2)];
                let layers = [dense(outputs, activation), dense(33, Activation::None)];
                let network = Network::random(input(1, 1, inputs), &layers, rng.u64(..));
                let rows = rng.usize(8..=25);
                let mut values = many_zeros(&mut rng, rows, inputs.into(), not_zero);
                if rng.bool() {
                    // As in an image.
                    values.iter_mut().for_each(|value| *value = value.abs());
                }
                for packing in PACKINGS {
                    let blob = encode(&network, 1.0 / 127.0, &[0.05; 2], packing).expect("ordinary weights and scales");
                    let loaded = Model::load(&blob).expect("a valid blob");
                    let images = values.chunks(inputs.into());
                    check_everywhere(&loaded, Input::F32(images.clone().next().expect("eight rows and more")));
                    let alone: Vec<f32> = images.flat_map(|image| logits(&loaded, Input::F32(image), 0)).collect();
                    for backend in backends() {
                        let model = loaded.clone().with_backend(backend);
                        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes() * rows);
                        let mut outputs = vec![f32::NAN; alone.len()];
                        model.logits_batch(&values[..], &mut scratch, &mut outputs).expect("the lengths fit");
                        assert!(bits(&outputs) == bits(&alone), "{inputs} inputs on {}", backend.name());
                    }
                }
            }
        }
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

/// How far the outputs of a convolution get ahead of its inputs, in values, found by trying: what each output position reads and
/// writes, one after the other.
fn lead(conv: &Conv2d, [height, width, channels]: [usize; 3], [rows, columns, filters]: [usize; 3]) -> usize {
    let ([kh, kw], [sh, sw], [ph, pw]) =
        (conv.kernel.map(usize::from), conv.stride.map(usize::from), conv.pool.map(usize::from));
    let [top, left] = [conv.padding.top, conv.padding.left].map(|n| usize::try_from(n).expect("no cropping"));
    let first_read = |row: usize, column: usize| {
        let taps = (0..(ph - 1) * sh + kh).flat_map(|y| (0..(pw - 1) * sw + kw).map(move |x| [y, x]));
        let places = taps.filter_map(|[y, x]| {
            let [y, x] = [(row * ph * sh + y).checked_sub(top)?, (column * pw * sw + x).checked_sub(left)?];
            (y < height && x < width).then_some((y * width + x) * channels)
        });
        places.min().expect("a window within the input")
    };
    let reads: Vec<_> = (0..rows).flat_map(|row| (0..columns).map(move |column| first_read(row, column))).collect();
    let ahead = (1..reads.len()).map(|made| (made * filters).saturating_sub(*reads[made..].iter().min().unwrap()));
    ahead.max().unwrap_or(0).max((rows * columns * filters).saturating_sub(height * width * channels))
}

/// The scratch memory of two convolutions and a dense layer, as `docs/format.md` describes it.
#[test]
fn a_convolution_with_folded_weights_writes_over_its_input() {
    let layer = |filters, [top, bottom, left, right]: [i8; 4], stride, pool| {
        let padding = Padding { top, bottom, left, right };
        Conv2d { padding, stride: [stride; 2], pool: [pool; 2], ..conv(filters, 3, Activation::Relu) }
    };
    // The last number is the second layer's lead: none; a row and a position of padding; all outputs but the last position's, less
    // what lies before that one's window.
    let drawn = [
        (28, layer(8, [0; 4], 1, 2), layer(16, [0; 4], 1, 2), 0),
        (9, layer(8, [1; 4], 1, 1), layer(8, [1; 4], 1, 1), 8 * (9 + 1)),
        (9, layer(4, [0; 4], 1, 1), layer(24, [1; 4], 1, 1), 48 * 24 - (5 * 7 + 5) * 4),
    ];
    for (seed, (side, first, second, expected)) in (1..).zip(drawn) {
        let layers = [Layer::Conv2d(first), Layer::Conv2d(second), dense(10, Activation::None)];
        let network = Network::random(input(side, side, 1), &layers, seed);
        let before = dims(&network.input);
        let between = reference::output_dims(&layers[0], before).expect("a possible layer");
        let behind = reference::output_dims(&layers[1], between).expect("a possible layer");
        let lead = lead(&second, between, behind);
        assert_eq!(lead, expected);
        let held = lead.div_ceil(4) + between.iter().product::<usize>().div_ceil(4);
        let workspace = |conv: &Conv2d, [_, width, channels]: [usize; 3], quantizes: bool| {
            let (run, rows) = ((3 * channels).div_ceil(4), 3 + usize::from(conv.pool[0] - 1));
            let sums = usize::from(conv.filters).next_multiple_of(4);
            sums + 2 * rows * run + run + if quantizes { (rows * width * channels).div_ceil(4) + 1 } else { 0 }
        };
        let words = [
            held + workspace(&first, before, true),
            held + workspace(&second, between, false),
            behind.iter().product::<usize>().div_ceil(4) + 10 + 12 + 4 * 64,
        ];
        let blob = encode(&network, 1.0 / 127.0, &[0.02; 3], Packing::Folded).expect("ordinary weights and scales");
        let model = Model::load(&blob).expect("a valid blob");
        assert_eq!(model.scratch_bytes(), 4 * words.into_iter().max().expect("three layers"));
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

/// Where 127 steps are more than 6, a ReLU6 is more than the ReLU that it usually is.
#[test]
fn a_relu6_of_large_sums_ends_at_6() {
    let layers = [dense(20, Activation::Relu6), dense(3, Activation::None)];
    let mut network = Network::random(input(8, 8, 1), &layers, 6);
    // Sums from -9 to 54.
    network.tensors[0].weights = (0..64 * 20).map(|n| (n % 20) as f32 / 20.0 - 0.15).collect();
    network.tensors[0].bias = vec![0.0; 20];
    for (scale, ceiling) in [(0.01, 127), (6.0 / 127.0, 127), (0.06, 100), (0.5, 12)] {
        for packing in PACKINGS {
            let blob = encode(&network, 1.0 / 127.0, &[scale, 1.0], packing).expect("ordinary weights");
            let model = Model::load(&blob).expect("a valid blob");
            let Some(PackedTensor::Int8(tensor)) = model.tensors().next() else { panic!("an int8 tensor") };
            let found: Vec<_> = tensor.scales().map(|scale| 127 - (scale >> 24)).collect();
            assert_eq!(found, [ceiling; 20], "a step of {scale}");
            for value in [1.0, 0.5, 0.1, -0.5] {
                check_everywhere(&model, Input::F32(&[value; 64]));
            }
        }
    }
}

/// Fails unless every backend gives the bits of the reference.
#[track_caller]
fn check_everywhere(loaded: &Model<'_>, input: Input<'_>) {
    let expected = bits(&int8::logits(loaded, input));
    for backend in backends() {
        let model = loaded.clone().with_backend(backend);
        for before in [0, 0x7f, 0xff] {
            assert_eq!(bits(&logits(&model, input, before)), expected, "on {} for {input:?}", backend.name());
        }
    }
}

/// The average of a window is rounded to the nearest integer, whatever its size: a fixed point that is exact enough.
#[test]
fn averages_are_rounded_to_the_nearest_step() {
    let mut rng = Rng::with_seed(15);
    for kernel in [[1, 1], [1, 2], [2, 2], [3, 3], [7, 7], [5, 9], [16, 16], [255, 255]] {
        let [height, width] = kernel.map(u16::from);
        // The identity behind the pooling, in steps that are the sums.
        let spec = InputSpec { scale: 1.0, offset: 0.0, ..input(height, width, 1) };
        let layers = [avg_pool(kernel, [1, 1]), dense(1, Activation::None)];
        let mut network = Network::random(spec, &layers, 7);
        network.tensors[0] = common::network::Tensor { weights: vec![1.0], bias: vec![0.0] };
        for packing in PACKINGS {
            let blob = encode(&network, 1.0, &[1.0], packing).expect("ordinary weights");
            let model = Model::load(&blob).expect("a valid blob");
            for limits in [-127..=127, -127..=-127, 127..=127, -3..=2, 0..=1] {
                let values: Vec<_> = (0..height * width).map(|_| rng.i16(limits.clone()) as f32).collect();
                let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
                check_everywhere(&model, Input::F32(&values));
                let found = logits(&model, Input::F32(&values), 0)[0];
                // (Where a mean lies in the middle between two steps, it may be either; 2^-24 of 127 * 65,025 is the error.)
                assert!(
                    (f64::from(found) - mean).abs() < 0.501 + 0.3 * values.len() as f64 / 65_025.0,
                    "{found} of {mean}"
                );
            }
        }
    }
}

/// A filter that was pruned away must not make the steps of the others coarse.
#[test]
fn an_output_without_weights_does_not_matter_to_the_others() {
    let mut network = Network::random(input(1, 1, 5), &[dense(4, Activation::Relu), dense(2, Activation::None)], 8);
    network.tensors[0].bias = vec![0.5, 0.0, -0.5, 0.25];
    let scales_without = |output: usize| {
        let mut network = network.clone();
        network.tensors[0].weights.iter_mut().skip(output).step_by(4).for_each(|weight| *weight = 0.0);
        network.tensors[0].bias[output] = 0.0;
        let blob = encode(&network, 1.0 / 127.0, &[0.02, 1.0], Packing::Folded).expect("ordinary weights");
        let model = Model::load(&blob).expect("a valid blob");
        check_everywhere(&model, Input::F32(&[1.0, -0.5, 0.25, 0.0, 0.75]));
        let Some(PackedTensor::Int8(tensor)) = model.tensors().next() else { panic!("an int8 tensor") };
        tensor.scales().collect::<Vec<_>>()
    };
    let (second, third) = (scales_without(1), scales_without(2));
    assert_eq!((second[0], second[3]), (third[0], third[3]));
    // Steps of 0.02 from sums in steps of about 0.7 / 127^2.
    assert!(second[0] >> 16 < 4, "{:x}", second[0]);
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
    for pool in [max_pool, avg_pool] {
        let pooled = network(&[Layer::Conv2d(conv(2, 2, Activation::None)), pool([2, 2], [1, 1])]);
        let error = encode(&pooled, 0.1, &[1.0], Packing::Folded).unwrap_err();
        assert_eq!(
            error.to_string(),
            "layer 2 is impossible: int8 activations where f32 ones are needed, or the other way round"
        );
    }
    // Half a step of such a scale would be more than 6.
    let bounded = network(&[dense(3, Activation::Relu6), dense(2, Activation::None)]);
    assert_eq!(encode(&bounded, 0.1, &[12.5, 1.0], Packing::Folded).unwrap_err(), EncodeError::Scale { index: 1 });
    let mixed = ModelSpec { input: hidden.input, labels: &[], layers: &hidden.layers };
    let layers: Vec<_> =
        quantized(&hidden.input, &[], 0.1, Packing::Folded).into_iter().chain(mixed.layers.iter().copied()).collect();
    let error = blob::encoded_len(&ModelSpec { layers: &layers, ..mixed }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "layer 1 is impossible: int8 activations where f32 ones are needed, or the other way round"
    );
}
