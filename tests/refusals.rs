//! Every error that there is, each reached and with its message.

mod common;

use common::network::{
    INT8_OPS, Network, avg_pool, conv, dense, dense_model, depthwise, every_layer, input, max_pool, quantized,
};
use common::raw::{RawBlob, field, layer_bytes, reseal, reseal_checksum, set_word, word};
use common::{run, run_everywhere};
use thumbnet::blob::{self, MAX_LABEL_BYTES, ModelSpec, PREFIX_BYTES, Tensors};
use thumbnet::layer::{
    Activation, Conv2d, DepthwiseConv2d, InputSpec, Layer, LayerError, MAX_LAYERS, Packing, Padding,
};
use thumbnet::{Aligned, AlignedBuf, Backend, EncodeError, HeaderError, LoadError, Model, RunError, ops};

/// The error of a blob that must not load.
fn error(blob: &[u8]) -> LoadError {
    Model::load(blob).expect_err("the blob is bad")
}

#[track_caller]
fn assert_refused(blob: &[u8], expected: LoadError, message: &str) {
    let found = error(blob);
    assert_eq!(found, expected);
    assert_eq!(found.to_string(), message);
    let _: &dyn std::error::Error = &found;
}

/// The dense model with one thing changed.
fn changed(change: impl FnOnce(&mut RawBlob)) -> AlignedBuf {
    let mut raw = RawBlob::of(&dense_model());
    change(&mut raw);
    raw.write()
}

/// The dense model with a word of its prefix changed, and a checksum that says that this is right.
fn with_word(at: usize, value: u32) -> AlignedBuf {
    let mut blob = dense_model().encode();
    set_word(&mut blob, at, value);
    reseal_checksum(&mut blob);
    blob
}

#[test]
fn files_of_other_kinds_are_refused() {
    assert_refused(
        &[],
        LoadError::TooShort { found: 0, needed: 40 },
        "0 bytes are too short for a model: its prefix alone has 40",
    );
    let png = AlignedBuf::from_bytes(&[&b"\x89PNG\r\n\x1a\n"[..], &[0; 64]].concat());
    let message = "not a thumbnet model: begins with [89, 50, 4e, 47], not with \"TNET\"";
    assert_refused(&png, LoadError::NotAModel { found: *b"\x89PNG" }, message);
    let mut later = dense_model().encode();
    later[field::VERSION..field::RESERVED].copy_from_slice(&[0x34, 0x12]);
    reseal_checksum(&mut later);
    let expected = LoadError::UnsupportedVersion { found: 0x1234, supported: 1 };
    assert_refused(&later, expected, "format version 4660, but this library reads version 1");
}

#[test]
fn truncated_files_are_refused() {
    let blob = dense_model().encode();
    let expected = LoadError::WrongLength { found: 100, expected: 192 };
    let message = "100 bytes long, but the prefix says 192: truncated, or with something appended";
    assert_refused(&blob[..100], expected, message);
}

#[test]
fn damaged_files_are_told_from_misplaced_ones() {
    let mut blob = changed(|_| ());
    let stored = word(&blob, field::CHECKSUM);
    blob[100] ^= 1;
    let computed = blob::checksum(&blob);
    let message = format!("damaged: its checksum is {computed:08x}, but it was written as {stored:08x}");
    assert_refused(&blob, LoadError::ChecksumMismatch { stored, computed }, &message);
    let mut buffer = AlignedBuf::zeroed(500);
    let blob = changed(|_| ());
    buffer[3..3 + blob.len()].copy_from_slice(&blob);
    let message = "the model starts 3 bytes behind a 64-byte boundary; put it into an `Aligned`";
    assert_refused(&buffer[3..3 + blob.len()], LoadError::Misaligned { off_by: 3 }, message);
}

#[test]
fn labels_are_utf8_or_refused() {
    let network = Network::random(input(1, 1, 2), &[dense(1, Activation::None)], 1);
    let mut raw = RawBlob::of(&network);
    let mut rng = fastrand::Rng::with_seed(9);
    // Bytes at which the rules change are drawn more often.
    let edges =
        [0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0];
    let edges = [&edges[..], &[0xf1, 0xf3, 0xf4, 0xf5, 0xff, b'a']].concat();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..20_000 {
        let byte = |_| if rng.u8(..) < 200 { edges[rng.usize(..edges.len())] } else { rng.u8(..) };
        raw.labels = (0..fastrand::usize(1..=5)).map(byte).filter(|byte| *byte != b'\n').chain([b'z']).collect();
        let loads = Model::load(&raw.write()).is_ok();
        assert_eq!(loads, std::str::from_utf8(&raw.labels).is_ok(), "{:02x?}", raw.labels);
        if loads { good += 1 } else { bad += 1 }
    }
    assert!(good > 1000 && bad > 1000, "{good} valid and {bad} invalid labels");
}

#[test]
fn missing_operations_are_named() {
    let blob = with_word(field::OPS, word(&dense_model().encode(), field::OPS) | 1 << 31);
    let expected = LoadError::UnsupportedOps { missing: 1 << 31 };
    assert_refused(&blob, expected, "needs operations that this build does not have: unknown");
    let blob = every_layer().encode();
    const DENSE: u32 = ops::DENSE | ops::WEIGHTS_F32;
    let error = Model::<DENSE>::load_with_ops(&blob).expect_err("it has more than dense layers");
    assert_eq!(error, LoadError::UnsupportedOps { missing: ops::ALL & !(DENSE | ops::WEIGHTS_F16 | INT8_OPS) });
    let names = "conv2d max_pool2d softmax tanh sigmoid depthwise_conv2d avg_pool2d relu6 leaky_relu";
    assert_eq!(error.to_string(), format!("needs operations that this build does not have: {names}"));
    let blob = dense_model().encode();
    let model = Model::<DENSE>::load_with_ops(&blob).expect("a model with dense layers");
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let expected = run(&Model::load(&blob).expect("a valid blob"), &[1.0, 2.0, 3.0]);
    assert_eq!(model.run(&[1.0, 2.0, 3.0], &mut scratch), Ok(&expected[..]));
}

#[test]
fn headers_that_cannot_be_decoded_are_refused() {
    let layer = layer_bytes(&dense(2, Activation::None));
    let malformed = [
        ("labels that are not UTF-8", changed(|raw| raw.labels = vec![b'a', b'\n', 0xff])),
        ("a kind of layer that does not exist", changed(|raw| raw.layers = vec![vec![7, 0, 0]])),
        ("a kind of layer beyond a byte", changed(|raw| raw.layers = vec![vec![0x80, 0x80, 0x80, 0x80, 0x01]])),
        ("an activation that does not exist", changed(|raw| raw.layers = vec![vec![0, 2, 6, 0]])),
        ("a slope with less than eight digits", changed(|raw| raw.layers = vec![vec![0, 2, 5, 127, 0, 0]])),
        ("a slope that is too small", changed(|raw| raw.layers = vec![vec![0, 2, 5, 128, 16, 0]])),
        ("a weight type that does not exist", changed(|raw| raw.layers = vec![vec![0, 2, 0, 3]])),
        ("outputs beyond 16 bits", changed(|raw| raw.layers = vec![vec![0, 0xff, 0xff, 0x04, 0, 0]])),
        ("too many layers", changed(|raw| raw.layers = vec![layer.clone(); MAX_LAYERS + 1])),
        ("a packing that does not exist", changed(|raw| raw.layers = vec![vec![0, 2, 0, 2, 2]])),
    ];
    for (what, blob) in malformed {
        assert_eq!(error(&blob), LoadError::MalformedHeader, "{what}");
        assert_eq!(error(&blob).to_string(), "the header cannot be decoded");
    }
    // Lengths that promise far more than there is.
    let blob = dense_model().encode();
    let header = &blob[..word(&blob, field::WEIGHTS_OFFSET) as usize];
    for at in PREFIX_BYTES..header.len() {
        let mut long = AlignedBuf::from_bytes(header);
        let end = (at + 5).min(long.len());
        long[at..end].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f][..end - at]);
        reseal(&mut long);
        assert!(Model::load(&long).is_err(), "a varint of 4 billion at {at}");
    }
}

#[test]
fn headers_that_mean_nothing_are_refused() {
    let two = |raw: &mut RawBlob| {
        raw.layers.push(layer_bytes(&dense(2, Activation::None)));
        raw.weights.extend([0; 128]);
    };
    let scale = "the input's scale and offset must be finite";
    let members = "the members' layer counts do not make one network of all layers";
    let padding = "the padding before the weights is not as it should be";
    let cases = [
        (HeaderError::InputScale, scale, changed(|raw| raw.scale = f32::NAN)),
        (HeaderError::InputScale, scale, changed(|raw| raw.offset = f32::NEG_INFINITY)),
        (HeaderError::Labels, "the labels are longer than the format allows", {
            changed(|raw| raw.labels = [&[b'x'; MAX_LABEL_BYTES], &b"\n"[..]].concat())
        }),
        (HeaderError::NoLayers, "there are no layers", changed(|raw| raw.layers.clear())),
        (HeaderError::Members, members, changed(|raw| raw.members.clear())),
        (HeaderError::Members, members, changed(|raw| raw.members = vec![0])),
        (HeaderError::Members, members, changed(|raw| raw.members = vec![2])),
        (HeaderError::Members, members, changed(|raw| raw.members = vec![1, 0])),
        (HeaderError::Members, members, changed(|raw| raw.members = vec![1; 300])),
        (
            HeaderError::Members,
            members,
            changed(|raw| {
                two(raw);
                raw.members = vec![1, 1];
            }),
        ),
        (
            HeaderError::Members,
            members,
            changed(|raw| {
                two(raw);
                raw.members = vec![1];
            }),
        ),
        (HeaderError::Padding, padding, changed(|raw| raw.padding = Some(vec![0; 64]))),
        (HeaderError::Padding, padding, changed(|raw| raw.padding = Some(Vec::new()))),
        (HeaderError::Padding, padding, {
            let mut blob = dense_model().encode();
            let last = word(&blob, field::WEIGHTS_OFFSET) as usize - 3;
            assert_eq!(blob[last], 0);
            blob[last] = 1;
            // The two bytes behind it are the length of the weight section.
            reseal(&mut blob);
            blob
        }),
        (HeaderError::TrailingBytes, "bytes follow the weights", changed(|raw| raw.behind = vec![0])),
    ];
    for (expected, message, blob) in cases {
        assert_refused(&blob, LoadError::InvalidHeader(expected), &format!("invalid header: {message}"));
        assert_eq!(expected.to_string(), message);
    }
}

/// Layers that no model can have, each with the shape of the input and the error.
fn impossible_layers() -> Vec<([u16; 3], Layer, LayerError)> {
    let with = |change: &dyn Fn(&mut thumbnet::layer::Conv2d)| {
        let mut conv = conv(2, 2, Activation::None);
        change(&mut conv);
        Layer::Conv2d(conv)
    };
    let each = |kernel, stride, [top, bottom, left, right]: [i8; 4]| {
        let padding = Padding { top, bottom, left, right };
        Layer::DepthwiseConv2d(DepthwiseConv2d { kernel, stride, padding, ..depthwise(2, Activation::None) })
    };
    let (small, long, square) = ([4, 4, 2], [65_535, 1, 1], [1024, 1024, 1]);
    vec![
        (small, dense(0, Activation::None), LayerError::ZeroSize),
        (small, with(&|conv| conv.filters = 0), LayerError::ZeroSize),
        (small, with(&|conv| conv.kernel = [0, 2]), LayerError::ZeroSize),
        (small, with(&|conv| conv.kernel = [2, 0]), LayerError::ZeroSize),
        (small, with(&|conv| conv.stride = [0, 1]), LayerError::ZeroSize),
        (small, with(&|conv| conv.stride = [1, 0]), LayerError::ZeroSize),
        (small, with(&|conv| conv.pool = [0, 1]), LayerError::ZeroSize),
        (small, with(&|conv| conv.pool = [1, 0]), LayerError::ZeroSize),
        (small, max_pool([0, 1], [1, 1]), LayerError::ZeroSize),
        (small, max_pool([1, 1], [1, 0]), LayerError::ZeroSize),
        (small, with(&|conv| conv.kernel = [5, 1]), LayerError::WindowTooLarge),
        (small, with(&|conv| conv.kernel = [1, 5]), LayerError::WindowTooLarge),
        (small, with(&|conv| conv.pool = [4, 1]), LayerError::WindowTooLarge),
        (small, with(&|conv| conv.padding.top = -3), LayerError::WindowTooLarge),
        (small, with(&|conv| conv.padding.right = -128), LayerError::WindowTooLarge),
        (small, max_pool([5, 1], [1, 1]), LayerError::WindowTooLarge),
        (small, avg_pool([0, 1], [1, 1]), LayerError::ZeroSize),
        (small, avg_pool([1, 1], [1, 0]), LayerError::ZeroSize),
        (small, avg_pool([1, 5], [1, 1]), LayerError::WindowTooLarge),
        (
            long,
            with(&|conv| {
                conv.kernel = [1, 1];
                conv.padding.top = 1;
            }),
            LayerError::TooLarge,
        ),
        (
            long,
            with(&|conv| {
                conv.kernel = [1, 1];
                conv.filters = 17;
            }),
            LayerError::TooLarge,
        ),
        (square, with(&|conv| conv.padding = Padding { top: 1, bottom: 1, left: 1, right: 1 }), LayerError::TooLarge),
        // More than 4 GiB of weights.
        (square, dense(2048, Activation::None), LayerError::TooLarge),
        // A window of more than MAX_ELEMENTS values.
        (
            [2, 2, 65_535],
            with(&|conv| {
                conv.kernel = [16, 16];
                conv.padding.top = 60;
                conv.padding.left = 60;
            }),
            LayerError::TooLarge,
        ),
        (small, each([0, 2], [1, 1], [0; 4]), LayerError::ZeroSize),
        (small, each([2, 0], [1, 1], [0; 4]), LayerError::ZeroSize),
        (small, each([2, 2], [0, 1], [0; 4]), LayerError::ZeroSize),
        (small, each([2, 2], [1, 0], [0; 4]), LayerError::ZeroSize),
        (small, each([5, 1], [1, 1], [0; 4]), LayerError::WindowTooLarge),
        (small, each([1, 5], [1, 1], [0; 4]), LayerError::WindowTooLarge),
        (small, each([2, 2], [1, 1], [0, -3, 0, 0]), LayerError::WindowTooLarge),
        (small, each([2, 2], [1, 1], [0, 0, -128, 0]), LayerError::WindowTooLarge),
        (long, each([1, 1], [1, 1], [0, 1, 0, 0]), LayerError::TooLarge),
        (square, each([2, 2], [1, 1], [1; 4]), LayerError::TooLarge),
        // More than 4 GiB of weights.
        ([1, 1, 65_535], each([255, 255], [1, 1], [127; 4]), LayerError::TooLarge),
    ]
}

#[test]
fn layers_that_cannot_be_are_refused() {
    let messages = |error| match error {
        LayerError::ZeroSize => "a size or stride of 0",
        LayerError::WindowTooLarge => "a window larger than its input",
        LayerError::TooLarge => "larger than the format's limits",
        LayerError::SoftmaxMisplaced => "a softmax that is not the last layer, or the only one",
        other => panic!("{other} has no message here"),
    };
    for (shape, layer, expected) in impossible_layers() {
        let [height, width, channels] = shape;
        let blob = changed(|raw| {
            raw.shape = shape;
            raw.layers = vec![layer_bytes(&layer)];
        });
        let message = format!("layer 0 is impossible: {}", messages(expected));
        assert_refused(&blob, LoadError::InvalidLayer { index: 0, error: expected }, &message);
        let spec = ModelSpec { input: input(height, width, channels), labels: &[], layers: &[layer] };
        let error = EncodeError::InvalidLayer { index: 0, error: expected };
        assert_eq!(blob::encoded_len(&spec), Err(error));
        assert_eq!(error.to_string(), message);
        assert_eq!(expected.to_string(), messages(expected));
    }
    let blob = changed(|raw| {
        raw.layers = vec![layer_bytes(&dense(2, Activation::None)), vec![3], layer_bytes(&dense(2, Activation::None))];
        raw.members = vec![3];
    });
    let misplaced = |index| LoadError::InvalidLayer { index, error: LayerError::SoftmaxMisplaced };
    assert_refused(&blob, misplaced(1), "layer 1 is impossible: a softmax that is not the last layer, or the only one");
    let blob = changed(|raw| raw.layers = vec![vec![3]]);
    assert_refused(&blob, misplaced(0), "layer 0 is impossible: a softmax that is not the last layer, or the only one");
    // Together more than 4 GiB, though each is less.
    let layers = [dense(65_535, Activation::None); MAX_LAYERS];
    let spec = ModelSpec { input: input(1, 1, 65_535), labels: &[], layers: &layers };
    assert!(matches!(
        blob::encoded_len(&spec),
        Err(EncodeError::InvalidLayer { error: LayerError::TooLarge, .. } | EncodeError::BufferTooSmall)
    ));
}

/// Otherwise what lies behind a run of inputs, or what an earlier run left there, would count.
#[test]
fn int8_weights_of_inputs_that_there_are_not_are_refused_or_do_not_matter() {
    let changed = |blob: &AlignedBuf, byte: usize| {
        let mut changed = blob.clone();
        let start = blob.len() - Model::load(blob).expect("a valid model").weight_bytes();
        changed[start + byte] ^= 1;
        reseal_checksum(&mut changed);
        changed
    };
    for (packing, panel) in [(Packing::Grouped, 16), (Packing::Folded, 4)] {
        for inputs in 1..=8usize {
            let (input, width) = (input(1, 1, 4), inputs.try_into().expect("few inputs"));
            let layers = [dense(width, Activation::None), dense(5, Activation::None)];
            let network = Network::random(input, &quantized(&input, &layers, 0.01, packing), 1);
            let (blob, groups) = (network.encode(), inputs.div_ceil(4));
            let first = Model::load(&blob).expect("a valid model").layers().nth(1).expect("a dense layer").weight_bytes;
            for byte in (0..groups * panel * 4).filter(|byte| byte / (4 * panel) * 4 + byte % 4 >= inputs) {
                let values = [77u8; 3 * 4];
                let run = |blob: &AlignedBuf| -> Vec<Vec<f32>> {
                    let model = Model::load(blob).expect("a dense model");
                    let backends = Backend::available().map(|backend| model.clone().with_backend(backend));
                    let outputs = backends.map(|model| {
                        let mut scratch = AlignedBuf::zeroed(3 * model.scratch_bytes());
                        scratch.fill(0x55);
                        let mut outputs = vec![0.0; 3 * model.output_len()];
                        model.run_batch(&values[..], &mut scratch, &mut outputs).expect("the lengths fit");
                        scratch.fill(0x55);
                        outputs.extend(model.run(&values[..4], &mut scratch).expect("the lengths fit"));
                        outputs
                    });
                    outputs.collect()
                };
                assert_eq!(
                    run(&changed(&blob, first as usize + byte)),
                    run(&blob),
                    "byte {byte} of {packing:?} weights for {inputs} inputs"
                );
            }
        }
        for channels in 1..=8usize {
            // Two runs of so many inputs, and five outputs: a panel is not full.
            let input = input(2, 1, channels.try_into().expect("few channels"));
            let layer = Layer::Conv2d(Conv2d { kernel: [2, 1], ..conv(5, 1, Activation::None) });
            let network = Network::random(input, &quantized(&input, &[layer], 0.01, packing), channels as u64);
            let blob = network.encode();
            let groups = channels.div_ceil(4);
            for byte in 0..2 * groups * panel * 4 * 5usize.div_ceil(panel) {
                let changed = changed(&blob, byte);
                if byte / (4 * panel) % groups * 4 + byte % 4 < channels {
                    assert!(Model::load(&changed).is_ok(), "byte {byte} of {packing:?} weights for {channels} inputs");
                } else {
                    let expected = LoadError::InvalidLayer { index: 1, error: LayerError::Filling };
                    assert_refused(
                        &changed,
                        expected,
                        "layer 1 is impossible: weights of inputs that it does not have",
                    );
                }
            }
        }
    }
}

#[test]
fn impossible_input_shapes_are_refused() {
    let message = "the input has a dimension of 0, or more values than the format allows";
    for shape in [[0, 1, 3], [1, 0, 3], [1, 1, 0], [65_535, 65_535, 65_535], [1024, 1024, 2], [1025, 1024, 1]] {
        let blob = changed(|raw| raw.shape = shape);
        let expected = LoadError::InvalidHeader(HeaderError::InputShape);
        assert_refused(&blob, expected, &format!("invalid header: {message}"));
        let layers = &[dense(1, Activation::None)];
        let spec = ModelSpec { input: input(shape[0], shape[1], shape[2]), labels: &[], layers };
        assert_eq!(blob::encoded_len(&spec), Err(EncodeError::InputShape));
        assert_eq!(EncodeError::InputShape.to_string(), message);
    }
}

#[test]
fn contradictions_are_refused() {
    let blob = changed(|raw| raw.labels = b"a\nb\nc".to_vec());
    assert_refused(&blob, LoadError::WrongLabelCount { found: 3, outputs: 2 }, "3 labels for 2 outputs");
    let blob = changed(|raw| raw.labels = b"a".to_vec());
    assert_refused(&blob, LoadError::WrongLabelCount { found: 1, outputs: 2 }, "1 labels for 2 outputs");
    for len in [0, 4, 64, 127, 192] {
        let blob = changed(|raw| raw.weights.resize(len, 0));
        let expected = LoadError::WrongWeightLength { found: len, expected: 128 };
        assert_refused(&blob, expected, &format!("{len} bytes of weights, but the layers have 128"));
    }
}

/// The prefix must be exact where it can be, and may promise more scratch memory and operations than are needed.
#[test]
fn promises_of_the_prefix_are_checked() {
    let original = dense_model().encode();
    let fields = [
        ("operations", field::OPS, ops::DENSE),
        ("scratch bytes", field::SCRATCH_BYTES, 7),
        ("input length", field::INPUT_LEN, 2),
        ("input length", field::INPUT_LEN, 4),
        ("output length", field::OUTPUT_LEN, 1),
        ("output length", field::OUTPUT_LEN, 3),
        ("weights offset", field::WEIGHTS_OFFSET, 0),
        ("weights offset", field::WEIGHTS_OFFSET, 128),
        ("weights length", field::WEIGHTS_BYTES, 127),
        ("weights length", field::WEIGHTS_BYTES, u32::MAX),
    ];
    for (name, at, stored) in fields {
        let actual = word(&original, at);
        let expected = LoadError::PrefixMismatch { field: name, stored, actual };
        let message = format!("the prefix says {name} = {stored}, but the model has {actual}");
        assert_refused(&with_word(at, stored), expected, &message);
    }
    let mut reserved = dense_model().encode();
    reserved[field::RESERVED..field::CHECKSUM].copy_from_slice(&[1, 2]);
    reseal_checksum(&mut reserved);
    let expected = LoadError::PrefixMismatch { field: "reserved", stored: 0x201, actual: 0 };
    assert_refused(&reserved, expected, "the prefix says reserved = 513, but the model has 0");

    for (at, more) in [(field::OPS, ops::ALL), (field::SCRATCH_BYTES, u32::MAX), (field::SCRATCH_BYTES, 9)] {
        let blob = with_word(at, more);
        let model = Model::load(&blob).expect("promising more is no error");
        assert_eq!((model.ops(), model.scratch_bytes()), (ops::DENSE | ops::WEIGHTS_F32, 8));
        run_everywhere(&blob);
    }
}

#[test]
fn wrong_lengths_are_refused_at_a_run() {
    let blob = dense_model().encode();
    let model = Model::load(&blob).expect("a valid blob");
    let mut scratch = AlignedBuf::zeroed(64);
    for len in [0, 2, 4, 1000] {
        let expected = RunError::WrongInputLength { found: len, expected: 3 };
        let message = format!("the input has {len} values, but the model takes 3");
        assert_eq!(expected.to_string(), message);
        assert_eq!(model.run(&vec![0.0; len][..], &mut scratch), Err(expected));
        assert_eq!(model.run(&vec![0; len][..], &mut scratch), Err(expected));
        assert_eq!(model.logits(&vec![0; len][..], &mut scratch), Err(expected));
        assert_eq!(model.classify(&vec![0; len][..], &mut scratch), Err(expected));
    }
    for len in 0..8 {
        let mut scratch = AlignedBuf::zeroed(len);
        let expected = RunError::ScratchTooSmall { found: len, needed: 8 };
        assert_eq!(expected.to_string(), format!("{len} bytes of scratch memory, but the model needs 8"));
        assert_eq!(model.run(&[0.0; 3], &mut scratch), Err(expected));
    }
    let mut other = Aligned([0; 9]);
    assert!(model.run(&[0.0; 3], &mut other).is_ok());
}

#[test]
fn wrong_lengths_are_refused_at_a_batch() {
    let blob = dense_model().encode();
    let model = Model::load(&blob).expect("a valid blob");
    let mut scratch = AlignedBuf::zeroed(64);
    let expected = RunError::WrongInputLength { found: 7, expected: 3 };
    assert_eq!(model.run_batch(&[0.0; 7], &mut scratch, &mut [0.0; 4]), Err(expected));
    for len in [0, 3, 5] {
        let expected = RunError::WrongOutputLength { found: len, expected: 4 };
        assert_eq!(expected.to_string(), format!("room for {len} outputs, but the batch makes 4"));
        assert_eq!(model.run_batch(&[0.0; 6], &mut scratch, &mut vec![0.0; len]), Err(expected));
        assert_eq!(model.logits_batch(&[0; 6], &mut scratch, &mut vec![0.0; len]), Err(expected));
    }
    let expected = RunError::ScratchTooSmall { found: 7, needed: 8 };
    assert_eq!(model.run_batch(&[0.0; 6], &mut AlignedBuf::zeroed(7), &mut [0.0; 4]), Err(expected));
    assert!(model.run_batch(&[0.0; 0], &mut scratch, &mut []).is_ok());
}

#[test]
fn specifications_that_are_no_model_are_not_written() {
    let layer = [dense(2, Activation::None)];
    let spec = ModelSpec { input: input(1, 1, 3), labels: &[], layers: &layer };
    let tensors = [Tensors { weights: &[0.0; 6], bias: &[] }];
    let mut out = AlignedBuf::zeroed(1000);
    let mut refused = |spec: &ModelSpec<'_>, tensors: &[Tensors<'_>], expected: EncodeError, message: &str| {
        assert_eq!(blob::encode(spec, tensors, &mut out), Err(expected));
        assert_eq!(expected.to_string(), message);
        let _: &dyn std::error::Error = &expected;
    };
    let many = [dense(2, Activation::None); MAX_LAYERS + 1];
    for layers in [&many[..], &[]] {
        let message = format!("{} layers, but a model has between 1 and 32", layers.len());
        refused(&ModelSpec { layers, ..spec }, &tensors, EncodeError::LayerCount { found: layers.len() }, &message);
    }
    let long = "x".repeat(MAX_LABEL_BYTES);
    for labels in [&["a"][..], &["a", "b", "c"], &["a\n", "b"], &[long.as_str(), ""], &[""]] {
        let message = "labels must be as many as the outputs, without line breaks, and at most 4096 bytes together";
        refused(&ModelSpec { labels, ..spec }, &tensors, EncodeError::Labels, message);
    }
    for (scale, offset) in [(f32::NAN, 0.0), (f32::INFINITY, 0.0), (1.0, f32::NAN), (1.0, f32::NEG_INFINITY)] {
        let input = InputSpec { scale, offset, ..spec.input };
        let message = "the input's scale and offset must be finite";
        refused(&ModelSpec { input, ..spec }, &tensors, EncodeError::InputScale, message);
    }
    for count in [0, 2] {
        let tensors = vec![tensors[0]; count];
        let message = format!("{count} tensors are not one for each layer with weights");
        refused(&spec, &tensors, EncodeError::TensorCount { found: count }, &message);
    }
    for (weights, bias) in [(5, 0), (7, 0), (0, 2), (6, 1), (6, 3), (8, 2), (6, 4)] {
        let tensors = [Tensors { weights: &vec![0.0; weights], bias: &vec![0.0; bias] }];
        let message = "the weights or biases of layer 0 are not as many as it has";
        refused(&spec, &tensors, EncodeError::TensorShape { index: 0 }, message);
    }
    for len in 0..blob::encoded_len(&spec).expect("a model") {
        let mut out = AlignedBuf::zeroed(len);
        assert_eq!(blob::encode(&spec, &tensors, &mut out), Err(EncodeError::BufferTooSmall));
    }
    assert_eq!(EncodeError::BufferTooSmall.to_string(), "the model does not fit into the buffer");
}
