//! Model files: loaded, and run if they load.

use crate::common::network::{Network, dims, quantized};
use crate::common::raw::{crc32, repair, reseal, set_word};
use crate::common::{MOST_WORK, backends, bits, reference, work};
use arbitrary::unstructured::Int;
use arbitrary::{Result, Unstructured};
use fastrand::Rng;
use std::ops::RangeInclusive;
use std::sync::LazyLock;
use thumbnet::blob::{self, ModelSpec};
use thumbnet::layer::{
    Activation, AvgPool2d, Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, MaxPool2d, Packing, Padding, Shape, Slope,
    WeightType,
};
use thumbnet::{AlignedBuf, Ensemble, Model, ensemble as ensembles};

/// What memory behind the scratch memory is filled with.
const CANARY: u8 = 0xc5;

/// Any bytes as a model file: as they are, with the right checksum, and with the right prefix.
pub fn model(bytes: &[u8]) {
    let _ = Model::load(bytes);
    let mut file = AlignedBuf::from_bytes(bytes);
    meet(&file);
    if file.len() >= 8 {
        file[..8].copy_from_slice(b"TNET\x01\0\0\0");
    }
    reseal(&mut file);
    meet(&file);
    repair(&mut file);
    meet(&file);
}

/// A valid file of drawn layers, with some bytes changed and the prefix repaired.
pub fn model_mutated(bytes: &[u8]) {
    let mut drawn = Unstructured::new(bytes);
    let Ok(Some(network)) = draw_network(&mut drawn) else { return };
    let mut file = network.encode();
    let header = file.len() - Model::load(&file).expect("a valid file").weight_bytes();
    for _ in 0..8 {
        let Ok((in_header, at, flip)) = drawn.arbitrary::<(bool, u16, u8)>() else { break };
        let reach = if in_header { header } else { file.len() };
        file[usize::from(at) % reach] ^= flip;
    }
    repair(&mut file);
    meet(&file);
}

/// The drawn layers that fit behind one another; `None` if they make no model.
fn draw_network(drawn: &mut Unstructured<'_>) -> Result<Option<Network>> {
    let mut side = || drawn.int_in_range(1..=12);
    let shape = Shape { height: side()?, width: side()?, channels: side()? };
    let input = InputSpec { shape, scale: 1.0 / 255.0, offset: -0.25 };
    let packing = *drawn.choose(&[None, Some(Packing::Grouped), Some(Packing::Folded)])?;
    let weights = *drawn.choose(&[WeightType::F32, WeightType::F16])?;
    let mut here = dims(&input);
    let mut layers = Vec::new();
    for _ in 0..drawn.int_in_range(1..=8)? {
        let layer = draw_layer(drawn, if packing.is_some() { WeightType::F32 } else { weights })?;
        if let Some(made) = reference::output_dims(&layer, here) {
            here = made;
            layers.push(layer);
        }
    }
    if drawn.arbitrary()? {
        layers.push(Layer::Softmax);
    }
    let layers = packing.map_or_else(|| layers.clone(), |packing| quantized(&input, &layers, 0.01, packing));
    let possible = blob::encoded_len(&ModelSpec { input, labels: &[], layers: &layers }).is_ok();
    let seed = drawn.arbitrary::<u8>()?;
    Ok(possible.then(|| Network::random(input, &layers, seed.into())))
}

fn draw_layer(drawn: &mut Unstructured<'_>, weights: WeightType) -> Result<Layer> {
    let [kernel, stride, pool] =
        [draw_sides(drawn, 1..=5u8)?, draw_sides(drawn, 1..=3u8)?, draw_sides(drawn, 1..=3u8)?];
    let ([top, bottom], [left, right]) = (draw_sides(drawn, -3..=4i8)?, draw_sides(drawn, -3..=4i8)?);
    let padding = Padding { top, bottom, left, right };
    let outputs = drawn.int_in_range(1..=40)?;
    let slope = Slope::new(f32::from(drawn.int_in_range(1..=255u8)?) / 256.0).expect("between 0 and 1");
    let activation = *drawn.choose(&[
        Activation::None,
        Activation::Relu,
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Relu6,
        Activation::LeakyRelu(slope),
    ])?;
    Ok(*drawn.choose(&[
        Layer::Dense(Dense { outputs, activation, weights }),
        Layer::Conv2d(Conv2d { filters: outputs, kernel, stride, padding, pool, activation, weights }),
        Layer::DepthwiseConv2d(DepthwiseConv2d { kernel, stride, padding, activation, weights }),
        Layer::MaxPool2d(MaxPool2d { kernel, stride }),
        Layer::AvgPool2d(AvgPool2d { kernel, stride }),
    ])?)
}

/// Two numbers of that range.
fn draw_sides<T: Int>(drawn: &mut Unstructured<'_>, range: RangeInclusive<T>) -> Result<[T; 2]> {
    Ok([drawn.int_in_range(range.clone())?, drawn.int_in_range(range)?])
}

/// Loads a file and, if it is a model, runs it on every backend.
fn meet(file: &AlignedBuf) {
    match Model::load(file) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(model) if work(&model) > MOST_WORK => {}
        Ok(model) => backends().into_iter().for_each(|backend| check(&model.clone().with_backend(backend))),
    }
}

/// The same bits whatever was in the scratch memory before, and no more of it used than promised.
fn check(model: &Model<'_>) {
    let mut rng = Rng::with_seed(model.input_len() as u64);
    // Any bits: NaN, infinities and denormals among them.
    let values: Vec<f32> = (0..model.input_len()).map(|_| f32::from_bits(rng.u32(..))).collect();
    let bytes: Vec<u8> = values.iter().map(|value| value.to_bits() as u8).collect();
    let first = run(model, &values[..], 0);
    assert_eq!(bits(&first), bits(&run(model, &values[..], 0xff)), "scratch memory matters");
    let first = run(model, &bytes[..], 0x7f);
    assert_eq!(bits(&first), bits(&run(model, &bytes[..], 0xff)), "scratch memory matters");
    let mut scratch = AlignedBuf::zeroed(2 * model.scratch_bytes());
    let mut of_batch = vec![0.0; 2 * model.output_len()];
    model.run_batch(&[&bytes[..], &bytes].concat()[..], &mut scratch, &mut of_batch).expect("the lengths fit");
    let class = model.classify(&bytes[..], &mut scratch).expect("the lengths fit").class;
    assert!(class < model.output_len());
}

fn run<'i>(model: &Model<'_>, input: impl Into<thumbnet::Input<'i>>, before: u8) -> Vec<f32> {
    let needed = model.scratch_bytes();
    let mut scratch = AlignedBuf::zeroed(needed + 128);
    scratch[..needed].fill(before);
    scratch[needed..].fill(CANARY);
    let outputs = model.run(input, &mut scratch).expect("the lengths fit").to_vec();
    assert_eq!(outputs.len(), model.output_len());
    assert!(scratch[needed..].iter().all(|byte| *byte == CANARY), "more than {needed} bytes were used");
    outputs
}

/// Two small models in one file.
static PAIR: LazyLock<AlignedBuf> = LazyLock::new(|| {
    let layer = |outputs, activation| Layer::Dense(Dense { outputs, activation, weights: WeightType::F32 });
    let input = InputSpec { shape: Shape::flat(3), scale: 1.0, offset: 0.0 };
    let members = [2, 5].map(|hidden| {
        let layers = [layer(hidden, Activation::Relu), layer(2, Activation::None), Layer::Softmax];
        Network::random(input, &layers, hidden.into()).labelled(&["a", "b"]).encode()
    });
    let members = members.each_ref().map(|member| &member[..]);
    let mut file = AlignedBuf::zeroed(ensembles::encoded_len(&members).expect("a small file"));
    ensembles::encode(&members, &mut file).expect("members that fit");
    file
});

/// Any bytes as an ensemble: as they are, and as changes to a valid one, with the right checksums.
pub fn ensemble(bytes: &[u8]) {
    let _ = Ensemble::load(bytes);
    meet_ensemble(&AlignedBuf::from_bytes(bytes));
    let mut file = PAIR.clone();
    for edit in bytes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % file.len();
        file[at] ^= edit[2];
    }
    seal_ensemble(&mut file);
    let start = file.as_ptr().addr();
    let place = |member: &[u8]| member.as_ptr().addr() - start..member.as_ptr().addr() - start + member.len();
    let places: Vec<_> = ensembles::member_files(&file).into_iter().flatten().map(place).collect();
    for place in places {
        reseal(&mut file[place]);
    }
    seal_ensemble(&mut file);
    meet_ensemble(&file);
}

/// Makes the checksum of an ensemble right: it covers all but itself, as that of a model does.
fn seal_ensemble(file: &mut [u8]) {
    let covered = file.iter().enumerate().filter(|(at, _)| !(8..12).contains(at)).map(|(_, byte)| *byte);
    let checksum = crc32(covered);
    set_word(file, 8, checksum);
}

fn meet_ensemble(file: &AlignedBuf) {
    let ensemble = match Ensemble::load(file) {
        Ok(ensemble) => ensemble,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    if ensemble.members().iter().map(work).sum::<u64>() > MOST_WORK {
        return;
    }
    let input = vec![0.5; ensemble.input_len()];
    let needed = ensemble.scratch_bytes();
    let mut scratch = AlignedBuf::zeroed(needed + 64);
    scratch.fill(CANARY);
    let outputs = ensemble.run(&input[..], &mut scratch).expect("the lengths fit").len();
    assert_eq!(outputs, ensemble.output_len());
    assert!(scratch[needed..].iter().all(|byte| *byte == CANARY), "more than {needed} bytes were used");
}
