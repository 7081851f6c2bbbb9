//! The file format: what is written is read back, and a file that was cut, extended, moved or changed is refused.

mod common;

use common::network::{
    INT8_OPS, Network, avg_pool, conv, dense, dense_model, depthwise, every_layer, input, max_pool, signed_vec,
};
use common::raw::{RawBlob, field, repair, reseal, reseal_checksum, varint, word};
use common::reference::from_values;
use common::{assert_within, backends, bits, run, run_everywhere};
use fastrand::Rng;
use thumbnet::blob::{self, MAX_LABEL_BYTES, PREFIX_BYTES, Prefix};
use thumbnet::layer::{Activation, Layer, MAX_LAYERS, Shape};
use thumbnet::{AlignedBuf, HeaderError, LoadError, Model, ops};

/// The error of a blob that must not load.
fn error(blob: &[u8]) -> LoadError {
    Model::load(blob).expect_err("the blob is bad")
}

#[test]
fn what_is_encoded_is_loaded() {
    let network = every_layer();
    let blob = network.encode();
    let model = Model::load(&blob).expect("a valid blob");
    assert_eq!(model.input(), &network.input);
    assert_eq!(model.input_len(), 84);
    assert_eq!(model.output_len(), 3);
    assert!(model.ends_with_softmax());
    assert!(model.layers().map(|info| info.layer).eq(network.layers.iter().copied()));
    assert_eq!((0..4).map(|class| model.label(class)).collect::<Vec<_>>(), ["one", "zwei", "три", ""]);
    assert_eq!(model.ops(), ops::ALL & !(ops::WEIGHTS_F16 | INT8_OPS));
    let shapes: Vec<_> = model.layers().map(|info| info.output).collect();
    let flat = [5, 5, 6, 4, 3, 3].map(|len| [1, 1, len]);
    let expected = [&[[2, 6, 3], [2, 6, 3], [1, 3, 3], [1, 2, 3]][..], &flat].concat();
    let expected: Vec<_> =
        expected.iter().map(|[height, width, channels]| Shape::new(*height, *width, *channels)).collect();
    assert_eq!(shapes, expected);
    let parameters: Vec<_> = model.layers().map(|info| info.parameters).collect();
    assert_eq!(parameters, [19 * 3, 10 * 3, 0, 0, 7 * 5, 6 * 5, 6 * 6, 7 * 4, 5 * 3, 0]);
    // The convolution makes 4 rows of sums, of which pooling makes 2.
    let macs: Vec<_> = model.layers().map(|info| info.macs).collect();
    assert_eq!(macs, [4 * 6 * 18 * 3, 2 * 6 * 9 * 3, 0, 0, 30, 25, 30, 24, 12, 0]);
    assert_eq!(model.layers().map(|info| info.weight_bytes as usize).sum::<usize>(), model.weight_bytes());
    // From the first layer's 36 values to the second's.
    assert_eq!(model.scratch_bytes(), 4 * (36 + 36));

    let values = signed_vec(&mut Rng::with_seed(3), 84);
    let expected = network.reference(from_values(&values));
    for backend in backends() {
        let model = model.clone().with_backend(backend);
        assert_eq!(model.backend(), backend);
        let found = run(&model, &values[..]);
        assert_within(&found, &expected, || backend.name().to_string());
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
        let best = model.classify(&values[..], &mut scratch).expect("the lengths fit");
        assert!(found.iter().all(|p| *p <= found[best.class]));
        assert_eq!((best.label, best.probability), (model.label(best.class), found[best.class]));
        assert_eq!(model.logits(&values[..], &mut scratch).expect("the lengths fit").len(), 3);
    }
}

#[test]
fn the_prefix_says_what_the_model_says() {
    let blob = every_layer().encode();
    let model = Model::load(&blob).expect("a valid blob");
    let prefix = Prefix::read(&blob).expect("a valid prefix");
    assert_eq!(prefix.file_bytes as usize, blob.len());
    assert_eq!(prefix.ops, model.ops());
    assert_eq!(prefix.scratch_bytes as usize, model.scratch_bytes());
    assert_eq!(prefix.input_len as usize, model.input_len());
    assert_eq!(prefix.output_len as usize, model.output_len());
    assert_eq!(prefix.weights_bytes as usize, model.weight_bytes());
    assert_eq!(prefix.weights_offset as usize + model.weight_bytes(), blob.len());
    assert_eq!(prefix.weights_offset % 64, 0);
    assert_eq!(prefix.checksum, blob::checksum(&blob));
}

#[test]
fn a_second_writer_makes_the_same_bytes() {
    for network in [every_layer(), dense_model()] {
        assert_eq!(RawBlob::of(&network).write()[..], network.encode()[..]);
    }
}

#[test]
fn labels_are_read_as_they_were_written() {
    for labels in [["", ""], ["a", ""], ["", "b"], ["\r", "\0"], ["Ä".repeat(1000).as_str(), "é"]] {
        let network = Network { labels: labels.map(String::from).to_vec(), ..dense_model() };
        let blob = network.encode();
        let model = Model::load(&blob).expect("a valid blob");
        assert_eq!([model.label(0), model.label(1)], labels);
    }
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let blob = every_layer().encode();
    for len in 0..blob.len() {
        let mut cut = AlignedBuf::from_bytes(&blob[..len]);
        let expected = if len < PREFIX_BYTES {
            LoadError::TooShort { found: len, needed: PREFIX_BYTES }
        } else {
            LoadError::WrongLength { found: len, expected: blob.len() }
        };
        assert_eq!(error(&cut), expected);
        // Even where the prefix agrees that this is all.
        reseal(&mut cut);
        let error = error(&cut);
        assert!(!matches!(error, LoadError::ChecksumMismatch { .. } | LoadError::WrongLength { .. }), "{len}: {error}");
    }
}

#[test]
fn appended_bytes_are_refused() {
    let blob = every_layer().encode();
    for count in [1, 3, 4, 64, 1000] {
        let mut long = AlignedBuf::from_bytes(&[&blob[..], &vec![0; count]].concat());
        assert_eq!(error(&long), LoadError::WrongLength { found: long.len(), expected: blob.len() });
        reseal(&mut long);
        assert_eq!(error(&long), LoadError::InvalidHeader(HeaderError::TrailingBytes));
    }
}

#[test]
fn misaligned_files_are_refused() {
    let blob = every_layer().encode();
    for off_by in 1..64 {
        let mut buffer = AlignedBuf::zeroed(blob.len() + off_by);
        buffer[off_by..].copy_from_slice(&blob);
        assert_eq!(error(&buffer[off_by..]), LoadError::Misaligned { off_by });
    }
    let buffer = AlignedBuf::from_bytes(&[&[0; 64], &blob[..]].concat());
    assert!(Model::load(&buffer[64..]).is_ok());
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let mut blob = every_layer().encode();
    for at in 0..blob.len() {
        for bit in 0..8 {
            blob[at] ^= 1 << bit;
            let error = error(&blob);
            let expected = match at {
                0..4 => matches!(error, LoadError::NotAModel { .. }),
                4..6 => matches!(error, LoadError::UnsupportedVersion { supported: 1, .. }),
                6..8 => matches!(error, LoadError::PrefixMismatch { field: "reserved", .. }),
                12..16 => matches!(error, LoadError::WrongLength { .. }),
                _ => matches!(error, LoadError::ChecksumMismatch { .. }),
            };
            assert!(expected, "bit {bit} of byte {at}: {error}");
            blob[at] ^= 1 << bit;
        }
    }
    assert!(Model::load(&blob).is_ok());
}

/// The checksum hides every check behind it, so here it agrees with each change. What then loads must run.
#[test]
fn a_flipped_header_bit_with_the_right_checksum_never_panics() {
    let original = every_layer().encode();
    let header = word(&original, field::WEIGHTS_OFFSET) as usize;
    let (mut loaded, mut repaired, mut refused) = (0, 0, 0);
    for at in 0..header {
        for bit in 0..8 {
            let mut blob = original.clone();
            blob[at] ^= 1 << bit;
            reseal_checksum(&mut blob);
            match Model::load(&blob) {
                Ok(_) => {
                    run_everywhere(&blob);
                    loaded += 1;
                }
                Err(error) => assert!(!matches!(error, LoadError::ChecksumMismatch { .. }) || (8..12).contains(&at)),
            }
            // And once more with a prefix that agrees.
            repair(&mut blob);
            if Model::load(&blob).is_ok() {
                run_everywhere(&blob);
                repaired += 1;
            } else {
                refused += 1;
            }
        }
    }
    // Promises that are larger than needed, scale and offset, labels, activations, strides: many flips make a model.
    assert!(
        loaded > 100 && repaired > loaded && refused > 100,
        "{loaded} loaded, {repaired} repaired, {refused} refused"
    );
}

#[test]
fn a_model_may_have_as_many_layers_as_the_limit() {
    let network = Network::random(input(1, 1, 3), &[dense(3, Activation::Tanh); MAX_LAYERS], 5);
    let blob = network.encode();
    let model = Model::load(&blob).expect("a valid blob");
    assert_eq!(model.layers().count(), MAX_LAYERS);
    assert_within(&run(&model, &[0.1, 0.2, 0.3]), &network.reference(from_values(&[0.1, 0.2, 0.3])), || "deep".into());
}

#[test]
fn dimensions_may_be_as_large_as_the_limits() {
    // The longest side, the most values, the most outputs, the most channels.
    let one = Layer::Conv2d(conv(1, 1, Activation::None));
    let each = Layer::DepthwiseConv2d(depthwise(1, Activation::None));
    let cases = [
        (input(65_535, 1, 16), one),
        (input(1, 65_535, 16), one),
        (input(1024, 1024, 1), one),
        (input(16, 1, 65_535), one),
        (input(65_535, 1, 16), each),
        (input(1, 65_535, 16), each),
        (input(1024, 1024, 1), each),
        (input(16, 1, 65_535), each),
        (input(1024, 1024, 1), max_pool([255, 255], [255, 255])),
        (input(1024, 1024, 1), avg_pool([255, 255], [255, 255])),
        (input(1, 1, 2), dense(65_535, Activation::Relu)),
        (input(1024, 1024, 1), dense(1, Activation::None)),
    ];
    for (spec, layer) in cases {
        let network = Network::random(spec, &[layer], 6);
        let blob = network.encode();
        let model = Model::load(&blob).expect("a valid blob");
        let values = signed_vec(&mut Rng::with_seed(7), network.input_len());
        let expected = network.reference(from_values(&values));
        for backend in backends() {
            let model = model.clone().with_backend(backend);
            assert_within(&run(&model, &values[..]), &expected, || format!("{layer:?} of {:?}", spec.shape));
        }
    }
}

/// The longest labels that fit, and the biases left out or given as zeros.
#[test]
fn encoding_depends_on_the_specification_only() {
    let mut network = dense_model();
    network.labels = vec!["x".repeat(MAX_LABEL_BYTES - 1), String::new()];
    network.tensors[0].bias = Vec::new();
    let without = network.encode();
    network.tensors[0].bias = vec![0.0; 2];
    assert_eq!(without[..], network.encode()[..]);
    assert!(Model::load(&without).is_ok());
}

#[test]
fn runs_do_not_depend_on_one_another() {
    let blob = every_layer().encode();
    for backend in backends() {
        let model = Model::load(&blob).expect("a valid blob").with_backend(backend);
        let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
        let first = run(&model, &[0.25; 84]);
        let _ = model.run(&[f32::NAN; 84], &mut scratch).expect("the lengths fit");
        let again = model.run(&[0.25; 84], &mut scratch).expect("the lengths fit");
        assert_eq!(bits(&first), bits(again));
    }
}

#[test]
fn varints_are_those_of_the_page() {
    for (value, bytes) in
        [(0, &[0][..]), (127, &[0x7f]), (128, &[0x80, 0x01]), (784, &[0x90, 0x06]), (65_535, &[0xff, 0xff, 0x03])]
    {
        assert_eq!(varint(value), bytes);
    }
}
