//! Whole networks, drawn at random, on every backend against the plain reference.

mod common;

use common::network::{Network, activation, avg_pool, dims, signed_vec, special_values};
use common::reference::{self, Dims, from_bytes, from_values};
use common::{assert_within, backends, bits, run};
use fastrand::Rng;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use thumbnet::blob::{self, ModelSpec};
use thumbnet::layer::{Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, MaxPool2d, Padding, Shape, WeightType};
use thumbnet::{AlignedBuf, EncodeError, Model};

/// What memory behind the scratch memory is filled with.
const CANARY: u8 = 0xc5;

fn weight_type() -> impl Strategy<Value = WeightType> {
    prop_oneof![2 => Just(WeightType::F32), 1 => Just(WeightType::F16)]
}

fn layer() -> impl Strategy<Value = Layer> {
    let side = || prop_oneof![3 => Just(0), 2 => -3i8..=4];
    let padding =
        || [side(), side(), side(), side()].prop_map(|[top, bottom, left, right]| Padding { top, bottom, left, right });
    let conv =
        (1u16..=20, [1u8..=4, 1..=4], [1u8..=3, 1..=3], padding(), [1u8..=3, 1..=3], activation(), weight_type())
            .prop_map(|(filters, kernel, stride, padding, pool, activation, weights)| {
                Layer::Conv2d(Conv2d { filters, kernel, stride, padding, pool, activation, weights })
            });
    let pool = ([1u8..=3, 1..=3], [1u8..=3, 1..=3])
        .prop_map(|(kernel, stride)| Layer::MaxPool2d(MaxPool2d { kernel, stride }));
    let mean = ([1u8..=4, 1..=4], [1u8..=3, 1..=3]).prop_map(|(kernel, stride)| avg_pool(kernel, stride));
    let dense = (1u16..=40, activation(), weight_type())
        .prop_map(|(outputs, activation, weights)| Layer::Dense(Dense { outputs, activation, weights }));
    let depthwise = ([1u8..=4, 1..=4], [1u8..=3, 1..=3], padding(), activation(), weight_type()).prop_map(
        |(kernel, stride, padding, activation, weights)| {
            Layer::DepthwiseConv2d(DepthwiseConv2d { kernel, stride, padding, activation, weights })
        },
    );
    prop_oneof![9 => conv, 4 => pool, 4 => mean, 6 => dense, 6 => depthwise, 3 => Just(Layer::Softmax)]
}

fn input() -> impl Strategy<Value = InputSpec> {
    let shape = prop_oneof![
        4 => (1u16..=12, 1u16..=12, 1u16..=6).prop_map(|(height, width, channels)| Shape { height, width, channels }),
        1 => (1u16..=300).prop_map(Shape::flat),
    ];
    (shape, -0.1f32..0.1, -1.0f32..1.0).prop_map(|(shape, scale, offset)| InputSpec { shape, scale, offset })
}

/// Keeps the layers that fit behind one another; softmax fits at the end only, and not alone. The library must agree with the reference
/// about each of them.
fn fitting(input: InputSpec, drawn: &[Layer]) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut here: Dims = dims(&input);
    for (index, layer) in drawn.iter().enumerate() {
        let fits = if *layer == Layer::Softmax && (index + 1 < drawn.len() || layers.is_empty()) {
            None
        } else {
            reference::output_dims(layer, here)
        };
        let shape = Shape { height: here[0] as u16, width: here[1] as u16, channels: here[2] as u16 };
        match (fits, layer.output(shape)) {
            (Some([height, width, channels]), Ok(found)) => {
                assert_eq!([found.height, found.width, found.channels].map(usize::from), [height, width, channels]);
                layers.push(*layer);
                here = [height, width, channels];
            }
            (Some(_), Err(error)) => panic!("{layer:?} does fit {shape:?}, but: {error}"),
            (None, Ok(_)) => assert_eq!(*layer, Layer::Softmax, "{layer:?} does not fit {shape:?}"),
            (None, Err(error)) => {
                let spec = ModelSpec { input: InputSpec { shape, ..input }, labels: &[], layers: &[*layer] };
                assert_eq!(blob::encoded_len(&spec), Err(EncodeError::InvalidLayer { index: 0, error }));
            }
        }
    }
    layers
}

fn network() -> impl Strategy<Value = (Network, u64)> {
    (input(), prop::collection::vec(layer(), 1..=9), any::<u64>()).prop_filter_map("no layer fits", |drawn| {
        let (input, layers, seed) = drawn;
        let layers = fitting(input, &layers);
        (!layers.is_empty()).then(|| (Network::random(input, &layers, seed), seed))
    })
}

/// Runs with more scratch memory than needed, which must be left alone, whatever was in it and in the rest before.
fn run_guarded<'i>(model: &Model<'_>, input: impl Into<thumbnet::Input<'i>>, before: u8) -> Vec<f32> {
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes() + 200);
    let (inside, behind) = scratch.split_at_mut(model.scratch_bytes());
    inside.fill(before);
    behind.fill(CANARY);
    let found = model.run(input, &mut scratch).expect("the lengths fit").to_vec();
    let behind = &scratch[model.scratch_bytes()..];
    assert!(behind.iter().all(|byte| *byte == CANARY), "more than {} bytes were used", model.scratch_bytes());
    found
}

fn check(network: &Network, seed: u64) {
    let blob = network.encode();
    let loaded = Model::load(&blob).expect("a valid blob");
    let mut rng = Rng::with_seed(seed);
    let values = signed_vec(&mut rng, network.input_len());
    let bytes: Vec<_> = values.iter().map(|_| rng.u8(..)).collect();
    let of_values = network.reference(from_values(&values));
    let of_bytes = network.reference(from_bytes(&network.input, &bytes));
    for backend in backends() {
        let model = loaded.clone().with_backend(backend);
        let what = |input| move || format!("{input} on {}", backend.name());
        let found = run(&model, &values[..]);
        assert_within(&found, &of_values, what("values"));
        assert_eq!(bits(&run_guarded(&model, &values[..], 0)), bits(&found), "scratch memory matters");
        assert_eq!(bits(&run_guarded(&model, &values[..], 0x7f)), bits(&found), "scratch memory matters");
        let found = run(&model, &bytes[..]);
        assert_within(&found, &of_bytes, what("bytes"));
        assert_eq!(bits(&run_guarded(&model, &bytes[..], 0x3f)), bits(&found), "scratch memory matters");
        check_special(&model, network, &mut rng);
        check_logits(&model, network, &values);
        check_batches(&model, network, &mut rng);
    }
}

/// Inputs that are NaN, infinite or denormal give what IEEE 754 says, in whatever order the sums are taken: a few of them among
/// ordinary ones, and nothing else.
fn check_special(model: &Model<'_>, network: &Network, rng: &mut Rng) {
    for share in [1, 4] {
        let values = special_values(rng, network.input_len(), share);
        let what = || format!("{values:?} on {}", model.backend().name());
        assert_within(&run_guarded(model, &values[..], 0xff), &network.reference(from_values(&values)), what);
    }
}

/// Inputs in a batch: more than a tile has rows, and not a multiple of any.
const BATCH: usize = 27;

/// A batch makes the outputs of each of its inputs, however many of them there is scratch memory for at a time.
fn check_batches(model: &Model<'_>, network: &Network, rng: &mut Rng) {
    let (inputs, outputs) = (network.input_len(), model.output_len());
    let values = signed_vec(rng, BATCH * inputs);
    let bytes: Vec<_> = values.iter().map(|_| rng.u8(..)).collect();
    let expected_of_values = values.chunks(inputs).flat_map(|values| network.reference(from_values(values)));
    let expected_of_bytes = bytes.chunks(inputs).flat_map(|bytes| network.reference(from_bytes(&network.input, bytes)));
    let (of_values, of_bytes): (Vec<_>, Vec<_>) = (expected_of_values.collect(), expected_of_bytes.collect());
    for at_a_time in [1, 5, BATCH, 2 * BATCH] {
        let what = || format!("a batch, {at_a_time} at a time, on {}", model.backend().name());
        let mut scratch = AlignedBuf::zeroed(at_a_time * model.scratch_bytes() + 3);
        let mut found = vec![f32::NAN; BATCH * outputs];
        model.run_batch(&values[..], &mut scratch, &mut found).expect("the lengths fit");
        assert_within(&found, &of_values, what);
        found.fill(f32::NAN);
        model.run_batch(&bytes[..], &mut scratch, &mut found).expect("the lengths fit");
        assert_within(&found, &of_bytes, what);
        assert!(
            scratch[at_a_time * model.scratch_bytes()..].iter().all(|byte| *byte == 0),
            "beyond its scratch memory"
        );
    }
}

/// The logits are the outputs of the same network without its softmax.
fn check_logits(model: &Model<'_>, network: &Network, values: &[f32]) {
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let found = model.logits(values, &mut scratch).expect("the lengths fit");
    let mut without = network.clone();
    without.layers.retain(|layer| *layer != Layer::Softmax);
    let mut of_batch = vec![f32::NAN; model.output_len()];
    model.logits_batch(values, &mut AlignedBuf::zeroed(model.scratch_bytes()), &mut of_batch).expect("the lengths fit");
    assert_eq!(bits(&of_batch), bits(found), "a batch of one");
    assert_within(found, &without.reference(from_values(values)), || format!("logits on {}", model.backend().name()));
}

/// `PROPTEST_CASES`, which is for emulated processors, or enough.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").map_or(1000, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_networks_match_the_reference((network, seed) in network()) {
        check(&network, seed);
    }
}

/// The drawn networks have to reach what they are for, and with bounds that are tight.
#[test]
fn random_networks_are_worth_drawing() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut layers, mut tight, mut cropped, mut deep, drawn) = ([0; 6], 0, 0, 0, 300);
    for _ in 0..drawn {
        let (network, seed) = network().new_tree(&mut runner).expect("the filter rarely rejects").current();
        for layer in &network.layers {
            layers[match layer {
                Layer::Dense(_) => 0,
                Layer::Conv2d(_) => 1,
                Layer::MaxPool2d(_) => 2,
                Layer::Softmax => 3,
                Layer::DepthwiseConv2d(_) => 4,
                Layer::AvgPool2d(_) => 5,
                Layer::Quantize(_) => unreachable!("drawn by tests/int8.rs"),
            }] += 1;
            let negative = |p: Padding| [p.top, p.bottom, p.left, p.right].iter().any(|side| *side < 0);
            cropped += usize::from(match layer {
                Layer::Conv2d(conv) => negative(conv.padding),
                Layer::DepthwiseConv2d(conv) => negative(conv.padding),
                _ => false,
            });
        }
        deep += usize::from(network.layers.len() >= 4);
        let values = signed_vec(&mut Rng::with_seed(seed), network.input_len());
        let outputs = network.reference(from_values(&values));
        tight += usize::from(outputs.iter().all(|output| output.error < 1e-3 && output.value.is_finite()));
    }
    assert!(layers.iter().all(|count| *count > drawn / 20), "{layers:?}");
    assert!(cropped > drawn / 10 && deep > drawn / 10 && tight > drawn * 95 / 100, "{cropped} {deep} {tight}");
}
