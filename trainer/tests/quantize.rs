//! Int8: what `thumbnet convert --weights int8` keeps, measures and refuses, and that a fine-tuned network is the one that
//! the core runs.

mod common;

use common::{fails, json, repository_data, shipped_model, succeeds, workspace};
use std::path::Path;
use thumbnet::blob::{ModelSpec, PackedTensor, Tensors, encode, encoded_len};
use thumbnet::layer::{Activation, Dense, InputSpec, Layer, Packing, Shape, WeightType};
use thumbnet::{AlignedBuf, Model};
use thumbnet_trainer::data::{DataSet, mnist};
use thumbnet_trainer::loss::argmax;
use thumbnet_trainer::recipe::Recipe;
use thumbnet_trainer::train::{Trained, train};
use thumbnet_trainer::{batches, evaluate, export, quantize};

fn data() -> (DataSet, DataSet) {
    let folder = mnist::default_folder();
    (mnist::training(&folder).expect("the training images"), mnist::test(&folder).expect("the test images"))
}

fn read(path: impl AsRef<Path>) -> AlignedBuf {
    AlignedBuf::from_bytes(&std::fs::read(path).unwrap())
}

fn logits(model: &Model<'_>, images: &DataSet) -> Vec<f32> {
    let mut outputs = vec![f32::NAN; images.len() * model.output_len()];
    batches::logits_batch(model, images.values.as_input(), &mut outputs, batches::cores()).unwrap();
    outputs
}

#[test]
fn the_shipped_models_take_a_quarter_of_the_bytes_and_keep_their_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let (data, (_, test)) = (repository_data(), data());
    for name in ["digits.tnet", "s1-fixed.tnet", "cnn-8-16.tnet"] {
        let model = shipped_model(name);
        let mut answers = Vec::new();
        for packed_for in ["cortex-m", "desktop"] {
            let command = ["convert", &model, "--weights", "int8", "--for", packed_for, "--data", &data];
            let report = json(&succeeds(folder.path(), &[&command[..], &["--out", "int8.tnet", "--json"]].concat()));
            let (after, found) = (&report["after"], &report["measured"]);
            assert_eq!((&after["weights"], &after["packed_for"]), (&"int8".into(), &packed_for.into()));
            let share = after["weight_bytes"].as_f64().unwrap() / report["before"]["weight_bytes"].as_f64().unwrap();
            // Microcontrollers have four outputs side by side, desktops sixteen: that is much for ten outputs.
            let largest = if packed_for == "desktop" { 0.45 } else { 0.32 };
            assert!((0.25..largest).contains(&share), "{name} for {packed_for}: {share} of the bytes");
            let correct = |side: &str| found[side].as_i64().unwrap();
            assert!((correct("correct_before") - correct("correct_after")).abs() <= 10, "{name}: {found}");
            assert!(found["changed_answers"].as_u64().unwrap() <= 30, "{name}: {found}");

            let file = read(folder.path().join("int8.tnet"));
            let converted = Model::load(&file).unwrap();
            assert_eq!(converted.labels().collect::<String>(), "0123456789");
            answers.push(logits(&converted, &test));
            let summary = json(&succeeds(folder.path(), &["inspect", "int8.tnet", "--json"]));
            assert_eq!(summary["layers"][0]["layer"], "quantize");
            assert_eq!(
                (&summary["layers"][1]["weights"], &summary["layers"][1]["packed_for"]),
                (&"int8".into(), &packed_for.into())
            );
            let text = succeeds(folder.path(), &["inspect", "int8.tnet"]);
            assert!(text.contains(&format!("int8 {packed_for}")), "{text}");
        }
        assert!(answers[0] == answers[1], "{name}: the packings differ");
    }
}

#[test]
fn a_shipped_int8_model_is_what_its_command_makes() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["digits", "s1-fixed", "cnn-8-16"] {
        let (model, data) = (shipped_model(&format!("{name}.tnet")), repository_data());
        succeeds(folder.path(), &["convert", &model, "--weights", "int8", "--data", &data, "--out", "int8.tnet"]);
        let (made, shipped) =
            (read(folder.path().join("int8.tnet")), read(shipped_model(&format!("{name}-int8.tnet"))));
        // (Calibration runs in f32, whose last bits depend on the processor; the steps may differ in theirs.)
        assert_eq!(made.len(), shipped.len(), "{name}: `cargo xtask models` makes it anew");
        let (_, test) = data_of_a_few();
        let [made, shipped] = [&made, &shipped].map(|file| logits(&Model::load(file).unwrap(), &test));
        let classes = |logits: &[f32]| logits.chunks_exact(10).map(argmax).collect::<Vec<_>>();
        let same = classes(&made) == classes(&shipped);
        assert!(same, "{name}: the models give different answers; `cargo xtask models` makes them anew");
    }
}

/// The first training and test images.
fn data_of_a_few() -> (DataSet, DataSet) {
    let (mut images, mut test) = data();
    images.truncate(4000);
    test.truncate(1000);
    (images, test)
}

#[test]
fn the_bench_measures_int8_layers() {
    let report = json(&succeeds(Path::new("."), &["bench", &shipped_model("cnn-8-16-int8.tnet"), "--json"]));
    assert_eq!(report["int8"], true);
    let layers = report["backends"][0]["layers"].as_array().unwrap();
    assert_eq!(
        layers.iter().map(|layer| &layer["layer"]).collect::<Vec<_>>(),
        ["quantize", "conv2d", "conv2d", "dense", "softmax"]
    );
}

#[test]
fn what_cannot_be_made_int8_is_refused_and_nothing_is_written() {
    let folder = workspace();
    let (model, int8) = (shipped_model("digits.tnet"), shipped_model("digits-int8.tnet"));
    let refused = |args: &[&str], parts: &[&str]| {
        fails(folder.path(), &[&["convert"], args, &["--out", "new.tnet"]].concat(), parts);
        assert!(!folder.path().join("new.tnet").exists());
    };
    let missing = ["training images", "nowhere", "train-images-idx3-ubyte", "--data"];
    refused(&[&model, "--weights", "int8", "--data", "nowhere"], &missing);
    std::fs::remove_file(folder.path().join("tiny/train-labels-idx1-ubyte")).unwrap();
    refused(&[&model, "--weights", "int8", "--data", "tiny"], &["training images", "train-labels-idx1-ubyte"]);
    refused(&[&model, "--weights", "int8", "--for", "gpu"], &["gpu", "desktop", "cortex-m"]);
    refused(&[&model, "--weights", "f16", "--for", "desktop"], &["--for", "int8"]);
    for weights in ["f32", "f16", "int8"] {
        refused(
            &[&int8, "--weights", weights, "--data", &repository_data()],
            &["digits-int8.tnet", "int8 weights", "f32"],
        );
    }
    let digit = Shape::new(28, 28, 1);
    for (weight, activation, shape, parts) in [
        (1.0, Activation::Relu, Shape::new(9, 8, 1), ["takes 72 values", "784"]),
        (f32::INFINITY, Activation::Relu, digit, ["layer 0 (dense)", "activation"]),
        (20.0, Activation::Tanh, digit, ["layer 0 (dense)", "too large"]),
        (f32::NAN, Activation::Tanh, digit, ["layer 0 (dense)", "not finite"]),
    ] {
        std::fs::write(folder.path().join("odd.tnet"), &**two_layers(weight, activation, shape)).unwrap();
        refused(&["odd.tnet", "--weights", "int8", "--data", &repository_data()], &["odd.tnet", parts[0], parts[1]]);
    }
}

/// A model of two dense layers, all weights of which are `weight`.
fn two_layers(weight: f32, activation: Activation, shape: Shape) -> AlignedBuf {
    let dense = Layer::Dense(Dense { outputs: 3, activation, weights: WeightType::F32 });
    let input = InputSpec { shape, scale: 1.0 / 255.0, offset: 0.0 };
    let spec = ModelSpec { input, labels: &[], layers: &[dense, dense] };
    let (first, second) = (vec![weight; 3 * shape.elements().unwrap() as usize], vec![weight; 9]);
    let tensors = [&first, &second].map(|weights| Tensors { weights, bias: &[] });
    let mut file = AlignedBuf::zeroed(encoded_len(&spec).unwrap());
    encode(&spec, &tensors, &mut file).unwrap();
    file
}

/// Trains a recipe of `layers` (TOML, before a dense layer of ten outputs) for a moment, quantised at the end.
fn tuned(layers: &str, more: &str) -> (Recipe, Trained) {
    let text = format!(
        "description = \"test\"\nseed = 1\nepochs = 2\nbatch = 16\nlearning_rate = 0.05\nloss = \"cross-entropy\"\n{layers}
         [[layers]]\ntype = \"dense\"\noutputs = 10\ninit = \"glorot-uniform\"\n
         [quantize]\nepochs = 1\nlearning_rate = 0.01\n{more}"
    );
    let recipe = Recipe::parse("test", &text).unwrap();
    let (images, test) = data_of_a_few();
    let trained = train(&recipe, &images, &test, &mut ()).unwrap();
    let losses: Vec<f64> = trained.history.iter().map(|epoch| epoch.train_loss.unwrap()).collect();
    assert!(losses.len() == 3 && losses[2] < losses[1], "fine-tuning does not learn: {losses:?}");
    (recipe, trained)
}

/// The core gives the logits of the training's simulation, but for an activation here and there that lies between two steps.
fn core_agrees(layers: &str) {
    let (recipe, mut trained) = tuned(layers, "");
    let (images, test) = data_of_a_few();
    let file = export::export_trained(&trained, &recipe, &images).unwrap();
    let model = Model::load(&file).unwrap();
    let found = logits(&model, &test);
    let mut expected = Vec::new();
    for image in 0..test.len() {
        let mut pixels = vec![0.0; test.size()];
        test.load(&[image], &mut pixels);
        expected.extend_from_slice(trained.network.infer(&pixels));
    }
    let largest = expected.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
    let (mut sum, mut changed) = (0.0, 0);
    for (found, expected) in found.chunks_exact(10).zip(expected.chunks_exact(10)) {
        let difference = found.iter().zip(expected).fold(0.0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(difference <= 0.02 * largest, "{difference} of {largest}: {layers}");
        sum += difference;
        let [best, other] = [argmax(expected), argmax(found)];
        changed += usize::from(best != other);
        assert!(expected[best] - expected[other] <= 2.0 * difference, "{found:?}, expected {expected:?}: {layers}");
    }
    assert!(
        sum / test.len() as f32 <= 0.002 * largest,
        "on average {} of {largest}: {layers}",
        sum / test.len() as f32
    );
    assert!(changed <= 1, "{changed} answers differ: {layers}");
    let accuracy = evaluate::evaluate(&model, &test, batches::cores()).unwrap().accuracy;
    let logged = trained.history.last().unwrap().test_accuracy.unwrap();
    assert!((accuracy - logged).abs() < 1.1e-3 && accuracy > 0.6, "{accuracy}, logged {logged}: {layers}");

    // And the weights are those of the simulation, to the last bit of each step.
    let parameters: Vec<_> = trained.network.parameters().collect();
    for (tensor, parameters) in model.tensors().zip(&parameters) {
        let PackedTensor::Int8(tensor) = tensor else { panic!("an int8 tensor") };
        let outputs = parameters.outputs;
        for output in 0..outputs {
            let column: Vec<f32> = parameters.weights.iter().skip(output).step_by(outputs).copied().collect();
            let step = column.iter().fold(0.0f32, |largest, weight| largest.max(weight.abs())) / 127.0;
            for (input, weight) in column.iter().enumerate() {
                let steps = f32::from(tensor.weight(input, output).unwrap());
                assert!((weight - steps * step).abs() <= 1e-5 * step, "{weight} is not {steps} steps of {step}");
            }
        }
    }
}

#[test]
fn the_core_runs_the_dense_network_that_was_fine_tuned() {
    core_agrees(
        "[[layers]]\ntype = \"dense\"\noutputs = 32\nactivation = \"relu\"\ninit = \"he-normal\"
         [[layers]]\ntype = \"dropout\"\nrate = 0.2
         [[layers]]\ntype = \"dense\"\noutputs = 16\nactivation = \"sigmoid\"\nbias = false\ninit = \"glorot-uniform\"\n",
    );
}

#[test]
fn the_core_runs_the_convolutions_that_were_fine_tuned() {
    core_agrees(
        "[[layers]]\ntype = \"conv2d\"\nfilters = 4\nkernel = [3, 3]\npadding = \"same\"\nactivation = \"relu\"\ninit = \"he-normal\"
         [[layers]]\ntype = \"max-pool2d\"\nkernel = [2, 2]
         [[layers]]\ntype = \"conv2d\"\nfilters = 6\nkernel = [3, 3]\nactivation = \"tanh\"\ninit = \"glorot-uniform\"
         [[layers]]\ntype = \"max-pool2d\"\nkernel = [3, 3]\nstride = [2, 2]\n",
    );
}

#[test]
fn a_model_is_calibrated_on_what_it_makes_of_the_images() {
    // One output is the sum of the pixels: its largest value over the images is known.
    let (images, _) = data_of_a_few();
    let file = two_layers(1.0, Activation::Relu, Shape::new(28, 28, 1));
    let steps = quantize::calibrate(&Model::load(&file).unwrap(), &images).unwrap();
    let chosen = (0..images.len()).step_by(images.len() / quantize::CALIBRATION_IMAGES);
    let sums = chosen.map(|index| images.bytes(index).unwrap().iter().map(|&pixel| u32::from(pixel)).sum::<u32>());
    let largest = sums.max().unwrap() as f32 / 255.0;
    assert!((steps.layers[0] * 127.0 / largest - 1.0).abs() < 1e-5, "{steps:?}, expected {}", largest / 127.0);
    assert!((steps.input * 127.0 - 1.0).abs() < 1e-6);
    let int8 = quantize::quantize(&Model::load(&file).unwrap(), &steps, Packing::Grouped).unwrap();
    assert!(Model::load(&int8).unwrap().layers().any(|info| matches!(info.layer, Layer::Quantize(_))));
}

#[test]
fn a_recipe_with_fine_tuning_writes_an_int8_model() {
    let folder = workspace();
    let digits = include_str!("../recipes/digits.toml");
    let recipe = format!("{digits}\n[quantize]\nepochs = 1\nlearning_rate = 0.01\nfor = \"desktop\"\n");
    std::fs::write(folder.path().join("mine.toml"), recipe).unwrap();
    let text = succeeds(folder.path(), &["train", "mine.toml", "--data", "tiny", "--epochs", "3", "--log", "log.csv"]);
    assert!(text.contains("epoch   4"), "{text}");
    assert_eq!(std::fs::read_to_string(folder.path().join("log.csv")).unwrap().lines().count(), 1 + 4);
    let summary = json(&succeeds(folder.path(), &["inspect", "mine.tnet", "--json"]));
    assert_eq!(
        (&summary["layers"][1]["weights"], &summary["layers"][1]["packed_for"]),
        (&"int8".into(), &"desktop".into())
    );
}
