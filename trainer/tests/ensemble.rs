//! `thumbnet ensemble`, and the commands that take what it writes.

mod common;

use common::{fails, json, succeeds, workspace};
use std::path::Path;
use thumbnet::{AlignedBuf, Ensemble, Model};

/// Trains two networks that differ, and are not perfect.
fn two_models(folder: &Path) {
    for (seed, name) in [("1", "a.tnet"), ("2", "b.tnet")] {
        let train = [
            "train", "digits", "--data", "tiny", "--subset", "60", "--epochs", "1", "--seed", seed, "--out", name,
            "--quiet",
        ];
        succeeds(folder, &train);
    }
}

fn load(path: &Path) -> AlignedBuf {
    AlignedBuf::from_bytes(&std::fs::read(path).unwrap())
}

#[test]
fn an_ensemble_is_written_evaluated_inspected_and_asked() {
    let folder = workspace();
    let folder = folder.path();
    two_models(folder);
    let printed = succeeds(folder, &["ensemble", "a.tnet", "b.tnet", "--out", "both.tnet"]);
    let size = std::fs::metadata(folder.join("both.tnet")).unwrap().len();
    assert!(printed.starts_with("both.tnet: 2 models, "), "{printed}");
    let file = load(&folder.join("both.tnet"));
    let whole = Ensemble::load(&file).unwrap();
    assert_eq!(whole.members().len(), 2);

    // Together they are what the file is.
    let both = json(&succeeds(folder, &["eval", "both.tnet", "--data", "tiny", "--json"]));
    let apart = json(&succeeds(folder, &["eval", "a.tnet", "b.tnet", "--data", "tiny", "--json"]));
    assert_eq!(apart["together"], both);
    for (index, name) in ["a.tnet", "b.tnet"].into_iter().enumerate() {
        let mut alone = json(&succeeds(folder, &["eval", name, "--data", "tiny", "--json"]));
        alone["model"] = name.into();
        assert_eq!(apart["models"][index], alone);
    }
    assert_ne!(apart["models"][0]["loss"], apart["models"][1]["loss"]);
    check_loss(&whole, &load(&folder.join("tiny/t10k-images-idx3-ubyte"))[16..], &both);
    let text = succeeds(folder, &["eval", "a.tnet", "b.tnet", "--data", "tiny", "--plot", "confusion.svg"]);
    assert!(text.starts_with("a.tnet  accuracy ") && text.contains("\ntogether: accuracy "), "{text}");
    assert!(std::fs::read_to_string(folder.join("confusion.svg")).unwrap().contains("a + b"));

    let summary = json(&succeeds(folder, &["inspect", "both.tnet", "--json"]));
    let member = json(&succeeds(folder, &["inspect", "b.tnet", "--json"]));
    assert_eq!(summary["members"][1], member);
    assert_eq!(summary["file_bytes"], size);
    assert_eq!(summary["parameters"], 2 * member["parameters"].as_u64().unwrap());
    assert_eq!(summary["scratch_bytes"], whole.scratch_bytes());
    assert!(succeeds(folder, &["inspect", "both.tnet"]).contains("member 2 of 2: input 28x28x1"));

    let mut picture = b"P5 28 28 255\n".to_vec();
    picture.extend((0..784).map(|i| if (i % 28) / 2 == 5 { 10 } else { 240 }));
    std::fs::write(folder.join("bar.pgm"), picture).unwrap();
    let predict = |model: &str| json(&succeeds(folder, &["predict", model, "bar.pgm", "--json"]))[0].clone();
    let probability =
        |prediction: &serde_json::Value, class: usize| prediction["probabilities"][class].as_f64().unwrap();
    let (a, b, both) = (predict("a.tnet"), predict("b.tnet"), predict("both.tnet"));
    for class in 0..10 {
        let mean = (probability(&a, class) + probability(&b, class)) / 2.0;
        assert!((probability(&both, class) - mean).abs() < 1e-6);
    }

    // Members of an ensemble are taken one by one.
    succeeds(folder, &["ensemble", "both.tnet", "a.tnet", "--out", "three.tnet"]);
    assert_eq!(Ensemble::load(&load(&folder.join("three.tnet"))).unwrap().members().len(), 3);
}

/// The loss is that of the averaged probabilities.
fn check_loss(whole: &Ensemble<'_>, pixels: &[u8], found: &serde_json::Value) {
    let mut scratch = AlignedBuf::zeroed(whole.scratch_bytes());
    let of_image =
        |(index, image): (usize, &[u8])| -f64::from(whole.run(image, &mut scratch).unwrap()[index % 10]).ln();
    let expected = pixels.chunks_exact(784).take(40).enumerate().map(of_image).sum::<f64>() / 40.0;
    assert!((found["loss"].as_f64().unwrap() - expected).abs() < 1e-5, "{found} {expected}");
}

#[test]
fn what_cannot_be_averaged_is_refused_by_name() {
    let folder = workspace();
    let folder = folder.path();
    two_models(folder);
    std::fs::write(folder.join("kept.tnet"), "precious").unwrap();
    std::fs::write(folder.join("junk.tnet"), "no model at all").unwrap();
    let small = small_model();
    std::fs::write(folder.join("small.tnet"), &small[..]).unwrap();
    let refused = |models: &[&str], parts: &[&str]| {
        fails(folder, &[&["ensemble"], models, &["--out", "kept.tnet"]].concat(), parts);
        fails(folder, &[&["eval"], models, &["--data", "tiny"]].concat(), parts);
        assert_eq!(std::fs::read_to_string(folder.join("kept.tnet")).unwrap(), "precious");
    };
    refused(&["a.tnet", "junk.tnet"], &["junk.tnet", "not a usable model"]);
    refused(&["a.tnet", "missing.tnet"], &["missing.tnet"]);
    let shapes = ["small.tnet: cannot be averaged with a.tnet", "1 x 1 x 3 values", "28 x 28 x 1 values"];
    refused(&["a.tnet", "b.tnet", "small.tnet"], &shapes);
    refused(&["a.tnet"; 17], &["a.tnet", "17 members", "between 1 and 16"]);

    succeeds(folder, &["ensemble", "a.tnet", "b.tnet", "--out", "both.tnet"]);
    let mut damaged = std::fs::read(folder.join("both.tnet")).unwrap();
    damaged[1000] ^= 1;
    std::fs::write(folder.join("damaged.tnet"), damaged).unwrap();
    refused(&["damaged.tnet", "a.tnet"], &["damaged.tnet", "not a usable ensemble", "checksum"]);
    fails(folder, &["predict", "damaged.tnet", "x.png"], &["damaged.tnet", "checksum"]);
    // Where a single model is asked for.
    let one = ["both.tnet", "an ensemble of models, but one model is expected here"];
    fails(folder, &["bench", "both.tnet"], &one);
    fails(folder, &["convert", "both.tnet", "--weights", "f16", "--out", "kept.tnet"], &one);
}

/// A model with three inputs.
fn small_model() -> AlignedBuf {
    use thumbnet::blob::{ModelSpec, Tensors, encode, encoded_len};
    use thumbnet::layer::{Activation, Dense, InputSpec, Layer, Shape, WeightType};
    let dense = Layer::Dense(Dense { outputs: 10, activation: Activation::None, weights: WeightType::F32 });
    let input = InputSpec { shape: Shape::flat(3), scale: 1.0, offset: 0.0 };
    let spec = ModelSpec { input, labels: &[], layers: &[dense, Layer::Softmax] };
    let mut file = AlignedBuf::zeroed(encoded_len(&spec).unwrap());
    encode(&spec, &[Tensors { weights: &[0.5; 30], bias: &[] }], &mut file).unwrap();
    assert!(Model::load(&file).is_ok());
    file
}
