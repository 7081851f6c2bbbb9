//! Files of every version of the format, which are read for ever: see `golden/README.md`.

mod common;

use common::network::{Network, avg_pool, conv, dense, depthwise, input, leaky, max_pool, quantized};
use common::reference::{Bounded, from_bytes, from_values};
use common::{backends, raw, run};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use thumbnet::layer::{
    Activation, Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, Packing, Padding, Shape, WeightType,
};
use thumbnet::{AlignedBuf, Input, Model};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The list of numbers in `json[key]`.
fn numbers(json: &Value, key: &str) -> Vec<f64> {
    let list = json[key].as_array().unwrap_or_else(|| panic!("{key} is not a list"));
    list.iter().map(|number| number.as_f64().expect("a number")).collect()
}

#[track_caller]
fn assert_near(found: &[f32], expected: &Value, what: &str) {
    let tolerance = expected["tolerance"].as_f64().expect("a number");
    let expected = numbers(expected, "output");
    assert!(tolerance < 2e-4, "{what}: a tolerance of {tolerance} would pass anything");
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        // Reading JSON may cost the last digit of an f64.
        let tolerance = tolerance + 4.0 * f64::EPSILON * expected.abs();
        assert!((f64::from(*found) - expected).abs() <= tolerance, "{what}: {found} is not {expected}");
    }
}

fn check(path: &Path) {
    let blob = AlignedBuf::from_bytes(&read(path));
    let json: Value = serde_json::from_slice(&read(&path.with_extension("json"))).expect("valid JSON");
    let loaded = Model::load(&blob).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let checksum = format!("{:08x}", raw::word(&blob, raw::field::CHECKSUM));
    assert_eq!(json["checksum"], checksum, "{} was rewritten", path.display());
    let labels: Vec<_> = (0..loaded.output_len()).map(|class| loaded.label(class)).collect();
    assert_eq!(json["labels"], json!(labels));
    let layers: Vec<_> = loaded.layers().map(|info| info.layer.name()).collect();
    assert_eq!(json["layers"], json!(layers));

    let values: Vec<f32> = numbers(&json["values"], "input").iter().map(|x| *x as f32).collect();
    let bytes: Vec<u8> = numbers(&json["bytes"], "input").iter().map(|x| *x as u8).collect();
    for backend in backends() {
        let model = loaded.clone().with_backend(backend);
        let what = format!("{} on {}", path.display(), backend.name());
        assert_near(&run(&model, &values[..]), &json["values"], &what);
        assert_near(&run(&model, &bytes[..]), &json["bytes"], &what);
    }
}

#[test]
fn files_of_every_version_are_read() {
    let files: Vec<_> =
        fs::read_dir(folder()).expect("the folder exists").map(|entry| entry.expect("a file").path()).collect();
    let mut models: Vec<_> = files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "tnet")).collect();
    models.sort();
    let names: Vec<_> = models.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(
        names,
        [
            "v1-average.tnet",
            "v1-conv.tnet",
            "v1-dense.tnet",
            "v1-depthwise.tnet",
            "v1-f16.tnet",
            "v1-int8-average-folded.tnet",
            "v1-int8-average-grouped.tnet",
            "v1-int8-folded.tnet",
            "v1-int8-grouped.tnet"
        ],
        "no file may go, and a new one belongs on this list"
    );
    models.iter().for_each(|path| check(path));
}

/// Every activation, and more outputs than one panel has.
fn v1_dense() -> Network {
    let input = InputSpec { shape: Shape::flat(6), scale: 0.0078125, offset: -1.0 };
    let layers = [
        dense(17, Activation::Tanh),
        dense(18, Activation::Sigmoid),
        dense(5, Activation::Relu),
        dense(4, Activation::None),
    ];
    Network::random(input, &layers, 101).labelled(&["north", "öst", "south", "西"])
}

/// Convolutions with padding, cropping, strides and pooling, pooling by itself, and softmax.
fn v1_conv() -> Network {
    let mut first = conv(5, 3, Activation::Relu);
    first.stride = [1, 2];
    first.padding = Padding { top: 1, bottom: -1, left: 2, right: 0 };
    let mut second = conv(19, 2, Activation::Tanh);
    second.pool = [2, 1];
    let layers = [
        Layer::Conv2d(first),
        max_pool([2, 2], [1, 1]),
        Layer::Conv2d(second),
        dense(3, Activation::None),
        Layer::Softmax,
    ];
    Network::random(input(9, 8, 2), &layers, 102)
}

/// Weights in half precision, in a convolution and in dense layers of one and of two panels.
fn v1_f16() -> Network {
    let (weights, activation) = (WeightType::F16, Activation::Relu);
    let layers = [
        Layer::Conv2d(Conv2d { weights, ..conv(5, 3, activation) }),
        Layer::Dense(Dense { outputs: 19, activation, weights }),
        Layer::Dense(Dense { outputs: 3, activation: Activation::None, weights }),
    ];
    Network::random(input(6, 5, 1), &layers, 103)
}

/// Depthwise convolutions of one and of two panels, with padding, cropping, strides, both weight types; one reads the
/// input.
fn v1_depthwise() -> Network {
    let mut first = depthwise(3, Activation::Tanh);
    first.padding = Padding { top: 2, bottom: 1, left: -1, right: 1 };
    let mut second = DepthwiseConv2d { weights: WeightType::F16, ..depthwise(2, Activation::Relu) };
    second.stride = [3, 2];
    second.padding.right = 1;
    let layers = [
        Layer::DepthwiseConv2d(first),
        Layer::Conv2d(conv(18, 1, Activation::Relu)),
        Layer::DepthwiseConv2d(second),
        dense(3, Activation::None),
    ];
    Network::random(input(5, 8, 3), &layers, 104)
}

/// Int8 weights in every kind of layer that has some, with every activation; in either packing.
fn v1_int8(packing: Packing) -> Network {
    let mut first = conv(6, 3, Activation::Relu);
    first.padding = Padding { top: 1, bottom: 0, left: 2, right: 1 };
    first.pool = [2, 2];
    let layers = [
        Layer::Conv2d(first),
        Layer::DepthwiseConv2d(depthwise(2, Activation::Tanh)),
        max_pool([2, 1], [1, 1]),
        dense(19, Activation::Sigmoid),
        dense(3, Activation::None),
    ];
    let input = input(9, 8, 2);
    Network::random(input, &quantized(&input, &layers, 0.0078125, packing), 105)
}

/// Average pooling of windows that overlap and of whole channels, ReLU6, and leaky ReLUs of several slopes, in layers of every
/// kind and of both floating-point types.
fn v1_average() -> Network {
    let mut first = conv(18, 3, leaky(0.2));
    first.pool = [2, 1];
    let padding = Padding { top: 0, bottom: 1, left: 1, right: 0 };
    let layers = [
        Layer::Conv2d(first),
        avg_pool([2, 3], [1, 2]),
        Layer::DepthwiseConv2d(DepthwiseConv2d {
            weights: WeightType::F16,
            padding,
            ..depthwise(2, Activation::Relu6)
        }),
        avg_pool([2, 1], [2, 1]),
        Layer::Dense(Dense { outputs: 7, activation: leaky(0.01), weights: WeightType::F16 }),
        dense(3, Activation::Relu6),
        Layer::Softmax,
    ];
    let mut network = Network::random(input(9, 8, 2), &layers, 106);
    // So large that 6 is reached.
    network.tensors[1].weights.iter_mut().for_each(|weight| *weight *= 16.0);
    network
}

/// The same with int8 weights, of which the large ones make steps of which fewer than 127 are 6.
fn v1_int8_average(packing: Packing) -> Network {
    let mut first = conv(18, 3, leaky(0.2));
    first.pool = [2, 1];
    let padding = Padding { top: 0, bottom: 1, left: 1, right: 0 };
    let layers = [
        avg_pool([1, 2], [1, 1]),
        Layer::Conv2d(first),
        avg_pool([2, 3], [1, 2]),
        Layer::DepthwiseConv2d(DepthwiseConv2d { padding, ..depthwise(2, Activation::Relu6) }),
        avg_pool([2, 1], [2, 1]),
        dense(7, leaky(0.01)),
        dense(5, Activation::Relu6),
        dense(3, leaky(0.5)),
    ];
    let input = input(9, 8, 2);
    let mut network = Network::random(input, &quantized(&input, &layers, 0.0078125, packing), 107);
    network.tensors[1].weights.iter_mut().for_each(|weight| *weight *= 16.0);
    network
}

/// An input with the outputs that belong to it, and how far a correct f32 computation may be from them.
fn example(input: Value, outputs: &[Bounded]) -> Value {
    let output: Value = outputs.iter().map(|output| json!(output.value)).collect();
    let tolerance = outputs.iter().map(|output| output.error).fold(0.0, f64::max);
    json!({ "input": input, "output": output, "tolerance": tolerance })
}

fn write(name: &str, network: &Network) {
    let path = folder().join(name).with_extension("tnet");
    if path.exists() {
        return println!("{} is there, and stays as it is", path.display());
    }
    let blob = network.encode();
    // Numbers that are the same in decimal and in binary.
    let input: Vec<f32> = (0..network.input_len()).map(|i| ((i * 37 + 11) % 129) as f32 / 64.0 - 1.0).collect();
    let bytes: Vec<u8> = (0..network.input_len()).map(|i| ((i * 83 + 5) % 256) as u8).collect();
    let int8 = network.layers.iter().any(|layer| matches!(layer, Layer::Quantize(_)));
    let model = Model::load(&blob).expect("what was just encoded");
    let exact = |input: Input<'_>| from_values(&common::int8::logits(&model, input));
    let of_values = if int8 { exact(Input::F32(&input)) } else { network.reference(from_values(&input)) };
    let of_bytes = if int8 { exact(Input::U8(&bytes)) } else { network.reference(from_bytes(&network.input, &bytes)) };
    let labels = if network.labels.is_empty() { vec![String::new(); 3] } else { network.labels.clone() };
    let json = json!({
        "checksum": format!("{:08x}", raw::word(&blob, raw::field::CHECKSUM)),
        "labels": labels,
        "layers": network.layers.iter().map(Layer::name).collect::<Vec<_>>(),
        "values": example(json!(input), &of_values),
        "bytes": example(json!(bytes), &of_bytes),
    });
    fs::write(path.with_extension("json"), format!("{json:#}\n")).expect("the folder can be written to");
    fs::write(&path, &blob[..]).expect("the folder can be written to");
    println!("wrote {}", path.display());
}

/// Writes the files that are missing; never one that is there.
#[test]
#[ignore = "writes files; see golden/README.md"]
fn write_missing_files() {
    write("v1-dense", &v1_dense());
    write("v1-conv", &v1_conv());
    write("v1-f16", &v1_f16());
    write("v1-depthwise", &v1_depthwise());
    write("v1-int8-folded", &v1_int8(Packing::Folded));
    write("v1-int8-grouped", &v1_int8(Packing::Grouped));
    write("v1-average", &v1_average());
    write("v1-int8-average-folded", &v1_int8_average(Packing::Folded));
    write("v1-int8-average-grouped", &v1_int8_average(Packing::Grouped));
}
