//! `thumbnet convert`: what it keeps, what it changes, what it measures and what it refuses.

mod common;

use common::{fails, json, repository_data, shipped_model, succeeds, workspace};
use std::path::Path;
use thumbnet::blob::{ModelSpec, Tensors, encode, encoded_len};
use thumbnet::layer::{
    Activation, Conv2d, Dense, DepthwiseConv2d, InputSpec, Layer, MaxPool2d, Padding, Shape, WeightType,
};
use thumbnet::{AlignedBuf, Model};
use thumbnet_trainer::random::RandomState;

/// A model of 9 x 8 x 1 bytes with a layer of each kind, odd sizes and `labels`; the first weight of its dense layer is
/// `special`, if there is one.
fn every_kind(labels: &[&str], special: Option<f32>) -> AlignedBuf {
    let conv = Conv2d {
        filters: 21,
        kernel: [3, 2],
        stride: [2, 1],
        padding: Padding { top: 1, bottom: -1, left: 2, right: 0 },
        pool: [1, 2],
        activation: Activation::Tanh,
        weights: WeightType::F32,
    };
    let depthwise = DepthwiseConv2d {
        kernel: [2, 2],
        stride: [1, 1],
        padding: conv.padding,
        activation: Activation::Sigmoid,
        weights: WeightType::F32,
    };
    let layers = [
        Layer::Conv2d(conv),
        Layer::MaxPool2d(MaxPool2d { kernel: [2, 2], stride: [1, 1] }),
        Layer::DepthwiseConv2d(depthwise),
        Layer::Dense(Dense { outputs: 3, activation: Activation::Relu, weights: WeightType::F32 }),
        Layer::Softmax,
    ];
    let input = InputSpec { shape: Shape::new(9, 8, 1), scale: 0.01, offset: -0.5 };
    let spec = ModelSpec { input, labels, layers: &layers };
    let shape = layers[..3].iter().fold(input.shape, |shape, layer| layer.output(shape).unwrap());
    let inputs = shape.elements().unwrap() as usize;
    let mut rng = RandomState::new(5);
    let mut values = |count| (0..count).map(|_| rng.random_sample() as f32 - 0.5).collect::<Vec<_>>();
    let (first, second, mut third, bias) = (values(6 * 21), values(4 * 21), values(inputs * 3), values(21));
    if let Some(value) = special {
        third[0] = value;
    }
    let tensors = [(&first, &bias[..]), (&second, &bias), (&third, &[])];
    let tensors = tensors.map(|(weights, bias)| Tensors { weights, bias });
    let mut file = AlignedBuf::zeroed(encoded_len(&spec).unwrap());
    encode(&spec, &tensors, &mut file).unwrap();
    file
}

fn read(folder: &Path, name: &str) -> AlignedBuf {
    AlignedBuf::from_bytes(&std::fs::read(folder.join(name)).unwrap())
}

fn convert(folder: &Path, from: &str, weights: &str, to: &str) -> String {
    succeeds(folder, &["convert", from, "--weights", weights, "--out", to])
}

/// All weights of a model.
fn weights(model: &Model<'_>) -> Vec<f32> {
    let of_tensor = |tensor: thumbnet::blob::PackedTensor<'_>| {
        let inputs = 0..tensor.inputs();
        inputs.flat_map(|i| (0..tensor.outputs()).map(move |o| tensor.weight(i, o).unwrap())).collect::<Vec<_>>()
    };
    model.tensors().flat_map(of_tensor).collect()
}

/// All biases of a model.
fn biases(model: &Model<'_>) -> Vec<f32> {
    let of_tensor = |tensor: thumbnet::blob::PackedTensor<'_>| {
        (0..tensor.outputs()).map(|output| tensor.bias(output).unwrap()).collect::<Vec<_>>()
    };
    model.tensors().flat_map(of_tensor).collect()
}

#[test]
fn the_shipped_models_take_half_of_the_bytes_and_hardly_change_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let data = repository_data();
    for name in ["digits.tnet", "s1-fixed.tnet"] {
        let model = shipped_model(name);
        let command = ["convert", &model, "--weights", "f16", "--data", &data, "--out", name];
        let report = json(&succeeds(folder.path(), &[&command[..], &["--json"]].concat()));
        let (before, after, found) = (&report["before"], &report["after"], &report["measured"]);
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert_eq!(before["file_bytes"], size(Path::new(&model)));
        assert_eq!(after["file_bytes"], size(&folder.path().join(name)));
        assert_eq!((&before["weights"], &after["weights"]), (&"f32".into(), &"f16".into()));
        for bytes in ["file_bytes", "weight_bytes"] {
            let share = after[bytes].as_f64().unwrap() / before[bytes].as_f64().unwrap();
            assert!((0.49..0.51).contains(&share), "{name}: {share} of the {bytes}");
        }
        for (file, accuracy, correct) in
            [(&model[..], "accuracy_before", "correct_before"), (name, "accuracy_after", "correct_after")]
        {
            let evaluation = json(&succeeds(folder.path(), &["eval", file, "--data", &data, "--json"]));
            assert_eq!((&found[accuracy], &found[correct]), (&evaluation["accuracy"], &evaluation["correct"]));
        }
        assert_eq!(found["images"], 10_000);
        assert!(found["changed_answers"].as_u64().unwrap() <= 10, "{name}: {found}");
        let difference = found["largest_logit_difference"].as_f64().unwrap();
        assert!(difference > 0.0 && difference < 0.02, "{name}: {difference}");
        let text = succeeds(folder.path(), &command);
        for (side, accuracy) in [("before", "accuracy_before"), ("after", "accuracy_after")] {
            let percent = format!("{:.2} %", 100.0 * found[accuracy].as_f64().unwrap());
            assert!(text.contains(&percent) && text.contains(side), "no {percent} {side} in {text}");
        }
    }
}

#[test]
fn all_but_the_weights_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    for labels in [&["red", "", "blue"][..], &["", "", ""], &[]] {
        let original = every_kind(labels, None);
        std::fs::write(folder.path().join("f32.tnet"), &**original).unwrap();
        convert(folder.path(), "f32.tnet", "f16", "f16.tnet");
        let converted = read(folder.path(), "f16.tnet");
        let (before, after) = (Model::load(&original).unwrap(), Model::load(&converted).unwrap());
        assert_eq!(before.input(), after.input());
        assert!(after.labels().eq(labels.iter().copied()), "{labels:?}");
        let back = |layer: Layer| match layer {
            Layer::Dense(dense) => Layer::Dense(Dense { weights: WeightType::F32, ..dense }),
            Layer::Conv2d(conv) => Layer::Conv2d(Conv2d { weights: WeightType::F32, ..conv }),
            Layer::DepthwiseConv2d(conv) => {
                Layer::DepthwiseConv2d(DepthwiseConv2d { weights: WeightType::F32, ..conv })
            }
            other => other,
        };
        assert!(after.layers().all(|info| info.layer.weight_type().is_none_or(|weights| weights == WeightType::F16)));
        assert!(before.layers().map(|info| info.layer).eq(after.layers().map(|info| back(info.layer))));
        assert_eq!(biases(&before), biases(&after));
        let (exact, rounded) = (weights(&before), weights(&after));
        assert_eq!(exact.len(), rounded.len());
        for (exact, rounded) in exact.iter().zip(&rounded) {
            // Half a unit in the last of f16's 11 bits; below 2^-14 they are fewer.
            assert!((exact - rounded).abs() <= (exact.abs() / 2048.0).max(2f32.powi(-25)), "{exact} {rounded}");
        }
        assert_ne!(exact, rounded);
        let (mut here, mut there) =
            (AlignedBuf::zeroed(before.scratch_bytes()), AlignedBuf::zeroed(after.scratch_bytes()));
        let image: [u8; 72] = std::array::from_fn(|index| (index * 37 % 256) as u8);
        let logits = before.logits(&image, &mut here).unwrap().iter().zip(after.logits(&image, &mut there).unwrap());
        logits.for_each(|(before, after)| assert!((before - after).abs() < 5e-3, "{before} {after}"));
    }
}

#[test]
fn a_model_of_that_type_already_stays_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kinds.tnet"), &**every_kind(&["a", "b", "c"], None)).unwrap();
    for model in ["kinds.tnet".to_owned(), shipped_model("digits.tnet"), shipped_model("s1-fixed.tnet")] {
        convert(folder.path(), &model, "f32", "same.tnet");
        assert_eq!(std::fs::read(folder.path().join(&model)).unwrap(), **read(folder.path(), "same.tnet"), "{model}");
        // f32 has every value that f16 has: the way there and back loses nothing more.
        convert(folder.path(), &model, "f16", "half.tnet");
        convert(folder.path(), "half.tnet", "f32", "whole.tnet");
        convert(folder.path(), "whole.tnet", "f16", "again.tnet");
        let half = read(folder.path(), "half.tnet");
        assert_eq!(**half, **read(folder.path(), "again.tnet"), "{model}");
        convert(folder.path(), "half.tnet", "f16", "half.tnet");
        assert_eq!(**half, **read(folder.path(), "half.tnet"), "{model}");
    }
}

#[test]
fn what_was_not_measured_is_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("small.tnet"), &**every_kind(&[], None)).unwrap();
    let text = convert(folder.path(), "small.tnet", "f16", "half.tnet");
    assert!(
        text.contains("not measured: the model takes 72 values (9x8x1), but an image here has 784 (28x28x1)"),
        "{text}"
    );
    Model::load(&read(folder.path(), "half.tnet")).unwrap();
    let args = ["convert", "small.tnet", "--weights", "f16", "--out", "half.tnet", "--json"];
    let report = json(&succeeds(folder.path(), &args));
    assert!(report["measured"].is_null() && report["not_measured"].as_str().unwrap().contains("72"), "{report}");
}

#[test]
fn weights_that_f16_does_not_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kept.tnet"), "precious").unwrap();
    let to_f16 = ["convert", "odd.tnet", "--weights", "f16", "--out", "kept.tnet"];
    for value in [65_536.0, -65_504.004, f32::NEG_INFINITY, f32::NAN] {
        let file = every_kind(&[], Some(value));
        std::fs::write(folder.path().join("odd.tnet"), &**file).unwrap();
        let parts = ["odd.tnet", "layer 3 (dense)", "input 0 for output 0", &format!("is {value},"), "65504"];
        fails(folder.path(), &to_f16, &parts);
        assert_eq!(std::fs::read(folder.path().join("kept.tnet")).unwrap(), b"precious");
        convert(folder.path(), "odd.tnet", "f32", "same.tnet");
        assert_eq!(**file, **read(folder.path(), "same.tnet"), "{value}");
    }
    std::fs::write(folder.path().join("odd.tnet"), &**every_kind(&[], Some(-65_504.0))).unwrap();
    succeeds(folder.path(), &to_f16);
    let converted = read(folder.path(), "kept.tnet");
    assert!(weights(&Model::load(&converted).unwrap()).contains(&-65_504.0));
}

#[test]
fn bad_arguments_are_refused_and_nothing_is_written() {
    let folder = workspace();
    let model = shipped_model("digits.tnet");
    let refused = |args: &[&str], parts: &[&str]| {
        fails(folder.path(), &[&["convert"], args, &["--out", "new.tnet"]].concat(), parts);
        assert!(!folder.path().join("new.tnet").exists());
    };
    refused(&[&model, "--weights", "f8"], &["f8", "f32", "f16"]);
    refused(&[&model], &["--weights"]);
    refused(&["gone.tnet", "--weights", "f16"], &["gone.tnet"]);
    refused(&[&model, "--weights", "f16", "--data", "nowhere"], &["nowhere", "t10k-images-idx3-ubyte"]);
    std::fs::write(folder.path().join("words.tnet"), "TNET, but not a model").unwrap();
    refused(&["words.tnet", "--weights", "f16"], &["words.tnet", "not a usable model"]);
    fails(folder.path(), &["convert", &model, "--weights", "f16", "--out", "nowhere/new.tnet"], &["nowhere/new.tnet"]);
}
