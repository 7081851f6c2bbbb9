//! Ensembles: the mean of what the members give, in the memory that was promised; and files that are none are refused.

mod common;

use common::network::{Network, conv, dense, input, leaky, quantized, signed_vec};
use common::raw::{crc32, word};
use common::{backends, bits, run};
use fastrand::Rng;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use thumbnet::ensemble::{self, Ensemble, EnsembleError, MAX_MEMBERS};
use thumbnet::layer::{Activation, Conv2d, InputSpec, Layer, Packing, Shape, WeightType};
use thumbnet::{AlignedBuf, Input, LoadError, Model, RunError, ops};

const LABELS: [&str; 3] = ["one", "zwei", "три"];

/// Models of several sizes and types that end in softmax. Each normalises its input in its own way.
fn members() -> Vec<Network> {
    let wide = [Layer::Conv2d(conv(20, 3, leaky(0.1))), dense(3, Activation::None), Layer::Softmax];
    let half = Conv2d { weights: WeightType::F16, pool: [2, 2], ..conv(5, 2, Activation::Relu6) };
    let half = [Layer::Conv2d(half), dense(40, Activation::Tanh), dense(3, Activation::None), Layer::Softmax];
    let own = InputSpec { scale: 0.01, offset: 0.0, ..input(6, 5, 2) };
    let int8 = quantized(&own, &wide, 0.02, Packing::Folded);
    let networks =
        [Network::random(input(6, 5, 2), &wide, 1), Network::random(own, &half, 2), Network::random(own, &int8, 3)];
    networks.map(|network| network.labelled(&LABELS)).to_vec()
}

fn encode(members: &[AlignedBuf]) -> AlignedBuf {
    let members: Vec<&[u8]> = members.iter().map(|member| &member[..]).collect();
    let mut out = AlignedBuf::zeroed(ensemble::encoded_len(&members).expect("less than 4 GiB"));
    out.fill(0xa5);
    let len = ensemble::encode(&members, &mut out).expect("members that fit").len();
    assert_eq!(len, out.len());
    out
}

fn files() -> Vec<AlignedBuf> {
    members().iter().map(Network::encode).collect()
}

/// The mean of the members' outputs, added up in their order.
fn mean(models: &[Model<'_>], input: Input<'_>) -> Vec<f32> {
    let mut sums = run(&models[0], input);
    for model in &models[1..] {
        sums.iter_mut().zip(run(model, input)).for_each(|(sum, output)| *sum += output);
    }
    sums.iter().map(|sum| sum / models.len() as f32).collect()
}

/// Runs with exactly as much scratch memory as promised, filled with `before`; what lies behind it must be left alone.
fn run_guarded(ensemble: &Ensemble<'_>, input: Input<'_>, before: u8) -> Vec<f32> {
    let mut scratch = AlignedBuf::zeroed(ensemble.scratch_bytes() + 64);
    scratch.fill(before);
    let found = ensemble.run(input, &mut scratch).expect("the lengths fit").to_vec();
    assert!(
        scratch[ensemble.scratch_bytes()..].iter().all(|byte| *byte == before),
        "more scratch memory than promised"
    );
    found
}

#[test]
fn outputs_are_the_means_of_the_members() {
    let files = files();
    let whole = encode(&files);
    let models: Vec<_> = files.iter().map(|file| Model::load(file).expect("a valid blob")).collect();
    let loaded = Ensemble::load(&whole).expect("a valid ensemble");
    let collected = Ensemble::from_models(models.iter().cloned()).expect("models that fit");
    let largest = models.iter().map(Model::scratch_bytes).max().expect("three models");
    assert_eq!(loaded.scratch_bytes(), largest.next_multiple_of(64) + 64);
    assert_eq!((loaded.members().len(), loaded.input_len(), loaded.output_len()), (3, 60, 3));
    assert!(loaded.ends_with_softmax() && loaded.input() == models[0].input());
    assert_eq!(loaded.labels().collect::<Vec<_>>(), LABELS);
    let mut rng = Rng::with_seed(1);
    let values = signed_vec(&mut rng, 60);
    let bytes: Vec<u8> = values.iter().map(|_| rng.u8(..)).collect();
    for backend in backends() {
        let models: Vec<_> = models.iter().map(|model| model.clone().with_backend(backend)).collect();
        for ensemble in [&loaded, &collected].map(|ensemble| ensemble.clone().with_backend(backend)) {
            assert!(ensemble.members().iter().all(|member| member.backend() == backend));
            for input in [Input::F32(&values), Input::U8(&bytes)] {
                let expected = bits(&mean(&models, input));
                for before in [0, 0x7f, 0xff] {
                    assert_eq!(bits(&run_guarded(&ensemble, input, before)), expected, "on {}", backend.name());
                }
                let mut scratch = AlignedBuf::zeroed(ensemble.scratch_bytes());
                let best = ensemble.classify(input, &mut scratch).expect("the lengths fit");
                assert_eq!(best.probability, f32::from_bits(expected[best.class]));
                assert!(expected.iter().all(|output| f32::from_bits(*output) <= best.probability));
                assert_eq!((best.label, ensemble.label(best.class)), (LABELS[best.class], LABELS[best.class]));
            }
        }
    }
}

#[test]
fn a_batch_gives_the_means_of_its_inputs() {
    let whole = encode(&files());
    let loaded = Ensemble::load(&whole).expect("a valid ensemble");
    let mut rng = Rng::with_seed(2);
    let values = signed_vec(&mut rng, 27 * 60);
    for backend in backends() {
        let ensemble = loaded.clone().with_backend(backend);
        let alone: Vec<f32> = values.chunks(60).flat_map(|x| run_guarded(&ensemble, Input::F32(x), 0)).collect();
        for at_a_time in [1, 5, 27, 40] {
            let mut scratch = AlignedBuf::zeroed(at_a_time * ensemble.scratch_bytes() + 64);
            scratch.fill(0xff);
            let mut found = vec![f32::NAN; 27 * 3];
            ensemble.run_batch(&values[..], &mut scratch, &mut found).expect("the lengths fit");
            assert!(scratch[at_a_time * ensemble.scratch_bytes()..].iter().all(|byte| *byte == 0xff));
            let near = found.iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(near, "{at_a_time} at a time on {}: {found:?}, not {alone:?}", backend.name());
        }
    }
}

/// Without softmax it is the outputs themselves; and an ensemble of one is that one.
#[test]
fn outputs_without_softmax_are_averaged_as_they_are() {
    let network = |seed| Network::random(input(1, 1, 4), &[dense(90, Activation::Tanh)], seed);
    let files = [network(1).encode(), network(2).encode()];
    let models: Vec<_> = files.iter().map(|file| Model::load(file).expect("a valid blob")).collect();
    let values = [0.5, -0.5, 1.0, 0.25];
    for count in [1, 2] {
        let whole = encode(&files[..count]);
        let ensemble = Ensemble::load(&whole).expect("a valid ensemble");
        assert!(!ensemble.ends_with_softmax());
        assert_eq!(ensemble.scratch_bytes(), 2 * 384);
        let found = run_guarded(&ensemble, Input::F32(&values), 0x7f);
        assert_eq!(bits(&found), bits(&mean(&models[..count], Input::F32(&values))));
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let whole = encode(&files());
    let ensemble = Ensemble::load(&whole).expect("a valid ensemble");
    let mut scratch = AlignedBuf::zeroed(ensemble.scratch_bytes());
    let wrong = RunError::WrongInputLength { found: 59, expected: 60 };
    assert_eq!(ensemble.run(&[0.0; 59], &mut scratch), Err(wrong));
    assert_eq!(ensemble.run_batch(&[0u8; 59], &mut scratch, &mut [0.0; 3]), Err(wrong));
    let wrong = RunError::WrongOutputLength { found: 5, expected: 6 };
    assert_eq!(ensemble.run_batch(&[0u8; 120], &mut scratch, &mut [0.0; 5]), Err(wrong));
    for len in 0..ensemble.scratch_bytes() {
        let mut scratch = AlignedBuf::zeroed(len);
        let wrong = RunError::ScratchTooSmall { found: len, needed: ensemble.scratch_bytes() };
        assert_eq!(ensemble.run(&[0u8; 60], &mut scratch), Err(wrong));
        assert_eq!(ensemble.run_batch(&[0u8; 60], &mut scratch, &mut [0.0; 3]), Err(wrong));
    }
    assert!(ensemble.run(&[0u8; 60], &mut scratch).is_ok());
}

/// A second writer, from `docs/format.md`.
fn written(members: &[AlignedBuf]) -> Vec<u8> {
    let mut file = b"TNEN\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend((members.len() as u32).to_le_bytes());
    let mut at = 20 + 8 * members.len();
    for member in members {
        at = at.div_ceil(64) * 64;
        file.extend([at as u32, member.len() as u32].map(u32::to_le_bytes).concat());
        at += member.len();
    }
    for member in members {
        file.resize(file.len().div_ceil(64) * 64, 0);
        file.extend(&member[..]);
    }
    let len = file.len() as u32;
    file[12..16].copy_from_slice(&len.to_le_bytes());
    seal(&mut file);
    file
}

/// Makes the checksum right.
fn seal(file: &mut [u8]) {
    if file.len() >= 12 {
        let covered = file.iter().enumerate().filter(|(at, _)| !(8..12).contains(at)).map(|(_, byte)| *byte);
        let crc = crc32(covered);
        file[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}

#[test]
fn a_second_writer_makes_the_same_bytes() {
    for count in 1..=3 {
        assert_eq!(encode(&files()[..count])[..], written(&files()[..count]));
    }
}

fn error(file: &[u8]) -> EnsembleError {
    Ensemble::load(&AlignedBuf::from_bytes(file)).expect_err("the file is bad")
}

#[test]
fn truncated_and_extended_files_are_refused_at_every_length() {
    let whole = encode(&files());
    for len in 0..whole.len() {
        let mut cut = whole[..len].to_vec();
        let expected = if len < 20 {
            EnsembleError::TooShort { found: len, needed: 20 }
        } else {
            EnsembleError::WrongLength { found: len, expected: whole.len() }
        };
        assert_eq!(error(&cut), expected);
        // Even where the file agrees that this is all.
        if len >= 20 {
            cut[12..16].copy_from_slice(&(len as u32).to_le_bytes());
            seal(&mut cut);
            assert!(matches!(error(&cut), EnsembleError::Place { .. }), "{len}: {}", error(&cut));
        }
    }
    let mut long = [&whole[..], &[0; 64]].concat();
    assert_eq!(error(&long), EnsembleError::WrongLength { found: long.len(), expected: whole.len() });
    let len = long.len() as u32;
    long[12..16].copy_from_slice(&len.to_le_bytes());
    seal(&mut long);
    assert_eq!(error(&long), EnsembleError::TrailingBytes);
    for off_by in [1, 4, 32] {
        let mut buffer = AlignedBuf::zeroed(whole.len() + off_by);
        buffer[off_by..].copy_from_slice(&whole);
        assert_eq!(Ensemble::load(&buffer[off_by..]).unwrap_err(), EnsembleError::Misaligned { off_by });
    }
}

/// Every bit is noticed, with the checksum or without: everything before the members has one meaning only.
#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let whole = encode(&files());
    let table = 20 + 8 * 3;
    for at in 0..whole.len() {
        for bit in if at < 256 { 0..8 } else { at % 8..at % 8 + 1 } {
            let mut file = whole.to_vec();
            file[at] ^= 1 << bit;
            let found = error(&file);
            let expected = match at {
                0..4 => matches!(found, EnsembleError::NotAnEnsemble { .. }),
                4..6 => matches!(found, EnsembleError::UnsupportedVersion { supported: 1, .. }),
                12..16 => matches!(found, EnsembleError::WrongLength { .. }),
                _ => matches!(found, EnsembleError::ChecksumMismatch { .. }),
            };
            assert!(expected && !found.to_string().is_empty(), "bit {bit} of byte {at}: {found}");
            if !(8..12).contains(&at) {
                seal(&mut file);
                let found = error(&file);
                let expected = match at {
                    0..16 => true,
                    16..20 => {
                        matches!(found, EnsembleError::MemberCount { .. } | EnsembleError::Place { .. })
                            || found == EnsembleError::TrailingBytes
                    }
                    _ if at < table => matches!(found, EnsembleError::Place { .. } | EnsembleError::TrailingBytes),
                    _ => matches!(found, EnsembleError::Place { .. } | EnsembleError::Member { .. }),
                };
                assert!(expected, "bit {bit} of byte {at}, sealed: {found}");
            }
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    let whole = encode(&files());
    let mut rng = Rng::with_seed(3);
    for _ in 0..20_000 {
        let mut file = if rng.bool() { whole.to_vec() } else { vec![0; rng.usize(0..300)] };
        let reach = file.len().min(if rng.bool() { 60 } else { usize::MAX });
        for _ in 0..rng.usize(1..20) {
            if reach > 0 {
                file[rng.usize(0..reach)] = rng.u8(..);
            }
        }
        if file.len() >= 16 && rng.bool() {
            let len = file.len() as u32;
            file[..8].copy_from_slice(b"TNEN\x01\0\0\0");
            file[12..16].copy_from_slice(&len.to_le_bytes());
        }
        seal(&mut file);
        let file = AlignedBuf::from_bytes(&file);
        match Ensemble::load(&file) {
            Ok(ensemble) => assert_eq!(run_guarded(&ensemble, Input::U8(&vec![7; ensemble.input_len()]), 0).len(), 3),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn members_that_do_not_fit_are_refused() {
    let refused = |others: &[AlignedBuf], expected: EnsembleError, message: &str| {
        let files = [&files()[..1], others].concat();
        let members: Vec<&[u8]> = files.iter().map(|file| &file[..]).collect();
        let mut out = AlignedBuf::zeroed(ensemble::encoded_len(&members).expect("less than 4 GiB"));
        assert_eq!(ensemble::encode(&members, &mut out).unwrap_err(), expected);
        assert_eq!(error(&written(&files)), expected);
        assert_eq!(expected.to_string(), message);
        let models = files.iter().filter_map(|file| Model::load(file).ok());
        if !matches!(expected, EnsembleError::Member { .. }) {
            assert_eq!(Ensemble::from_models(models).unwrap_err(), expected);
        }
    };
    let network = |spec: InputSpec, outputs, softmax: bool| {
        let layers = [dense(outputs, Activation::None), Layer::Softmax];
        Network::random(spec, &layers[..if softmax { 2 } else { 1 }], 9)
    };
    let here = input(6, 5, 2);
    let (found, expected) = (Shape::new(5, 6, 2), Shape::new(6, 5, 2));
    refused(
        &[network(input(5, 6, 2), 3, true).labelled(&LABELS).encode()],
        EnsembleError::InputShape { index: 1, found, expected },
        "member 1 takes 5 x 6 x 2 values, but the first takes 6 x 5 x 2 values",
    );
    refused(
        &[files()[1].clone(), network(here, 4, true).encode()],
        EnsembleError::OutputLength { index: 2, found: 4, expected: 3 },
        "member 2 has 4 outputs, but the first has 3",
    );
    for other in [network(here, 3, true), network(here, 3, true).labelled(&["one", "zwei", "drei"])] {
        let error = EnsembleError::Labels { index: 1 };
        refused(&[other.encode()], error, "member 1 has other labels than the first");
    }
    refused(
        &[network(here, 3, false).labelled(&LABELS).encode()],
        EnsembleError::Softmax { index: 1, found: false },
        "member 1 does not end in softmax, but the first does",
    );
    let none = AlignedBuf::from_bytes(&[7; 64]);
    refused(
        &[none],
        EnsembleError::Member { index: 1, error: LoadError::NotAModel { found: [7; 4] } },
        "member 1 is not a usable model: not a thumbnet model: begins with [07, 07, 07, 07], not with \"TNET\"",
    );
    let too_many = vec![files()[0].clone(); MAX_MEMBERS];
    refused(
        &too_many,
        EnsembleError::MemberCount { found: MAX_MEMBERS + 1 },
        "17 members, but an ensemble has between 1 and 16",
    );
    assert!(Ensemble::load(&encode(&too_many)).is_ok());
    assert_eq!(error(&written(&[])), EnsembleError::MemberCount { found: 0 });
    let mut small = AlignedBuf::zeroed(encode(&files()).len() - 1);
    let files = files();
    let members: Vec<&[u8]> = files.iter().map(|file| &file[..]).collect();
    assert_eq!(ensemble::encode(&members, &mut small).unwrap_err(), EnsembleError::BufferTooSmall);
}

#[test]
fn a_build_without_an_operation_refuses_its_members() {
    let whole = encode(&files());
    let missing = ops::LEAKY_RELU;
    let error = Ensemble::<{ ops::ALL & !ops::LEAKY_RELU }>::load_with_ops(&whole).unwrap_err();
    assert_eq!(error, EnsembleError::Member { index: 0, error: LoadError::UnsupportedOps { missing } });
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ensembles/v1.tnet")
}

/// An ensemble that was written once, and is read for ever: see `golden/README.md`.
#[test]
fn the_golden_file_is_read() {
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = AlignedBuf::from_bytes(&read(&golden()));
    let json: Value = serde_json::from_slice(&read(&golden().with_extension("json"))).expect("valid JSON");
    assert_eq!(json["checksum"], format!("{:08x}", word(&file, 8)), "the file was rewritten");
    let ensemble = Ensemble::load(&file).expect("a valid ensemble");
    assert_eq!(json["labels"], json!(ensemble.labels().collect::<Vec<_>>()));
    assert_eq!(json["members"], ensemble.members().len());
    let input: Vec<u8> = (0..ensemble.input_len()).map(|i| ((i * 83 + 5) % 256) as u8).collect();
    for backend in backends() {
        let found = run_guarded(&ensemble.clone().with_backend(backend), Input::U8(&input), 0);
        let expected = json["output"].as_array().expect("a list");
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected.as_f64().expect("a number")).abs() < 1e-6, "on {}", backend.name());
        }
    }
}

/// Writes the golden file if it is missing; its outputs come from the plain references of the layers.
#[test]
#[ignore = "writes files; see golden/README.md"]
fn write_the_golden_file() {
    if golden().exists() {
        return println!("{} is there, and stays as it is", golden().display());
    }
    let (networks, files) = (members(), files());
    let bytes: Vec<u8> = (0..60).map(|i| ((i * 83 + 5) % 256) as u8).collect();
    let mut mean = [0.0; 3];
    for (network, file) in networks.iter().zip(&files) {
        let model = Model::load(file).expect("a valid blob");
        let outputs = if network.layers.iter().any(|layer| matches!(layer, Layer::Quantize(_))) {
            let logits = common::int8::logits(&model, Input::U8(&bytes));
            common::reference::softmax(&common::reference::from_values(&logits))
        } else {
            network.reference(common::reference::from_bytes(&network.input, &bytes))
        };
        mean.iter_mut().zip(outputs).for_each(|(sum, output)| *sum += output.value / 3.0);
    }
    let whole = encode(&files);
    let checksum = format!("{:08x}", word(&whole, 8));
    let json = json!({ "checksum": checksum, "labels": LABELS, "members": 3, "output": mean });
    fs::create_dir_all(golden().parent().expect("a folder")).expect("the folder can be made");
    fs::write(golden().with_extension("json"), format!("{json:#}\n")).expect("the folder can be written to");
    fs::write(golden(), &whole[..]).expect("the folder can be written to");
}
