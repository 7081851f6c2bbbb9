//! A convolution over images with background and the dense layer behind it, in batches: the library may compute both together, and
//! only where an image is not background.

mod common;

use common::network::{Network, activation, conv, dense, signed_vec, with_background};
use common::reference::{Bounded, from_bytes, from_values};
use common::{assert_within, backends};
use fastrand::Rng;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use thumbnet::layer::{Activation, Conv2d, Dense, InputSpec, Layer, Padding, Shape, WeightType};
use thumbnet::{AlignedBuf, Input, Model};

/// Images in a batch.
const BATCH: usize = 19;

fn spec(height: u16, width: u16) -> InputSpec {
    InputSpec { shape: Shape::new(height, width, 1), scale: 1.0 / 255.0, offset: 0.0 }
}

/// The two layers, of sizes for which they are computed together and of others, and perhaps a softmax.
fn network(rng: &mut Rng, activation: Activation) -> Network {
    let weights = if rng.bool() { WeightType::F32 } else { WeightType::F16 };
    let filters = if rng.bool() { 8 * rng.u16(1..=3) } else { rng.u16(1..=18) };
    let pool = [[1, 1], [1, 1], [2, 2], [1, 2]][rng.usize(0..4)];
    let padding = if rng.u8(0..8) > 0 { Padding::default() } else { Padding { top: 1, bottom: 1, left: 1, right: 1 } };
    let kernel = [rng.u8(1..=5), rng.u8(1..=5)];
    let layer = Conv2d { filters, kernel, stride: [rng.u8(1..=2); 2], padding, pool, activation, weights };
    let last = Dense { outputs: rng.u16(1..=20), activation: Activation::None, weights };
    let mut layers = vec![Layer::Conv2d(layer), Layer::Dense(last)];
    if rng.bool() {
        layers.push(dense(5, Activation::Relu));
    }
    if rng.bool() {
        layers.push(Layer::Softmax);
    }
    Network::random(spec(rng.u16(16..=24), rng.u16(16..=40)), &layers, rng.u64(..))
}

/// The image's outputs, with the error that an image which is all background may have as well: its sums are a part of these.
fn expected(network: &Network, image: Vec<Bounded>) -> Vec<Bounded> {
    let background = network.reference(vec![Bounded::exact(0.0); network.input_len()]);
    let with_error = |(of_image, of_zeros): (Bounded, Bounded)| Bounded {
        error: 2.0 * (of_image.error + of_zeros.error),
        ..of_image
    };
    network.reference(image).into_iter().zip(background).map(with_error).collect()
}

/// Compares a batch with the reference, however many images are computed at a time.
fn check(network: &Network, images: Input<'_>, expected: &[Bounded]) {
    let blob = network.encode();
    for backend in backends() {
        let model = Model::load(&blob).expect("a valid blob").with_backend(backend);
        for at_a_time in [1, 8, 11, BATCH] {
            let what = || format!("{:?}, {at_a_time} at a time, on {}", network.layers, backend.name());
            let mut scratch = AlignedBuf::zeroed(at_a_time * model.scratch_bytes());
            scratch.fill(0xff);
            let mut found = vec![f32::NAN; BATCH * model.output_len()];
            model.run_batch(images, &mut scratch, &mut found).expect("the lengths fit");
            assert_within(&found, expected, what);
        }
    }
}

#[test]
fn images_with_background_and_without() {
    let mut rng = Rng::with_seed(1);
    let mut activations = TestRunner::deterministic();
    for _ in 0..60 {
        let drawn = activation().new_tree(&mut activations).expect("any activation").current();
        let network = network(&mut rng, drawn);
        let [height, width] = [network.input.shape.height, network.input.shape.width].map(usize::from);
        let mut values = Vec::new();
        for image in 0..BATCH {
            match rng.u8(0..8) {
                0 => values.extend(vec![0.0; height * width]),
                1 if image > 0 => values.extend(signed_vec(&mut rng, height * width)),
                _ => values.extend(with_background(&mut rng, height, width)),
            }
        }
        let images = values.chunks(height * width);
        let of_values: Vec<_> = images.flat_map(|image| expected(&network, from_values(image))).collect();
        check(&network, Input::F32(&values), &of_values);
        let bytes: Vec<u8> = values.iter().map(|value| (value.abs() * 255.0) as u8).collect();
        let images = bytes.chunks(height * width);
        let of_bytes = images.flat_map(|image| expected(&network, from_bytes(&network.input, image)));
        check(&network, Input::U8(&bytes), &of_bytes.collect::<Vec<_>>());
    }
}

/// Where the background itself is not finite, a difference from it would be NaN where the sum is infinite.
#[test]
fn biases_and_weights_that_are_not_finite() {
    let mut rng = Rng::with_seed(2);
    let mut sound =
        Network::random(spec(20, 20), &[Layer::Conv2d(conv(16, 3, Activation::None)), dense(10, Activation::None)], 3);
    for tensor in &mut sound.tensors {
        tensor.bias = signed_vec(&mut rng, tensor.weights.len() / [9, 5184][usize::from(tensor.weights.len() > 1000)]);
    }
    let images: Vec<f32> = (0..BATCH).flat_map(|_| with_background(&mut rng, 20, 20)).collect();
    for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        for (tensor, of_bias) in [(0, true), (1, true), (1, false)] {
            let mut network = sound.clone();
            let Some(tensor) = network.tensors.get_mut(tensor) else { panic!("there are two") };
            let values = if of_bias { &mut tensor.bias } else { &mut tensor.weights };
            let at = rng.usize(0..values.len());
            values[at] = value;
            let of_images: Vec<_> =
                images.chunks(400).flat_map(|image| expected(&network, from_values(image))).collect();
            check(&network, Input::F32(&images), &of_images);
        }
    }
}
