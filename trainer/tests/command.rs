//! Runs the `thumbnet` command as a user does: one short training from data to prediction, and every kind of bad input.

mod common;

use common::{big_endian, fails, json, repository_data, succeeds, train_tiny, workspace};
use std::path::Path;

#[test]
fn training_on_real_digits_prints_what_eval_measures() {
    let folder = tempfile::tempdir().unwrap();
    let data = repository_data();
    let train = ["train", "digits", "--data", &data, "--subset", "2000", "--epochs", "1", "--seed", "7"];
    let files = ["--out", "small.tnet", "--log", "log.csv", "--plot", "course.svg"];
    let printed = succeeds(folder.path(), &[&train[..], &files[..]].concat());
    let evaluation = json(&succeeds(folder.path(), &["eval", "small.tnet", "--data", &data, "--json"]));
    let accuracy = evaluation["accuracy"].as_f64().unwrap();
    assert_eq!(evaluation["images"], 10_000);
    assert!(accuracy > 0.7, "{accuracy}");
    let line = format!("test accuracy {:.2} % ({} of 10000 images)", 100.0 * accuracy, evaluation["correct"]);
    assert!(printed.contains(&line), "no {line:?} in {printed}");
    // The trainer's own forward pass agrees with the core's, up to an image on the edge.
    let log = std::fs::read_to_string(folder.path().join("log.csv")).unwrap();
    let mut rows = log.lines();
    assert_eq!(rows.next(), Some("epoch,train_loss,train_acc,val_loss,val_acc,test_loss,test_acc"));
    let row: Vec<&str> = rows.next().unwrap().split(',').collect();
    // The recipe keeps nothing apart to validate on.
    assert_eq!((row.len(), row[0], row[3], row[4], rows.next()), (7, "1", "", "", None));
    let [test_loss, test_accuracy] = [row[5], row[6]].map(|cell| cell.parse::<f64>().unwrap());
    assert!((test_accuracy - accuracy).abs() < 1.5e-4, "{test_accuracy} {accuracy}");
    assert!((test_loss - evaluation["loss"].as_f64().unwrap()).abs() < 1e-4);
    let confusion = evaluation["confusion"].as_array().unwrap();
    let total: u64 = confusion.iter().flat_map(|row| row.as_array().unwrap()).map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((confusion.len(), total), (10, 10_000));
    assert!(std::fs::read_to_string(folder.path().join("course.svg")).unwrap().starts_with("<svg"));
}

#[test]
fn the_same_seed_gives_the_same_file() {
    let folder = workspace();
    train_tiny(folder.path(), "a.tnet");
    train_tiny(folder.path(), "b.tnet");
    succeeds(
        folder.path(),
        &["train", "digits", "--data", "tiny", "--epochs", "2", "--seed", "9", "--out", "c.tnet", "--quiet"],
    );
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("a.tnet"), read("b.tnet"));
    assert_ne!(read("a.tnet"), read("c.tnet"));
}

#[test]
fn a_trained_model_is_inspected_evaluated_and_asked() {
    let folder = workspace();
    train_tiny(folder.path(), "tiny.tnet");
    let summary = json(&succeeds(folder.path(), &["inspect", "tiny.tnet", "--json"]));
    assert_eq!(summary["parameters"], 784 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10);
    assert_eq!(summary["macs"], 784 * 128 + 128 * 64 + 64 * 10);
    assert_eq!(summary["layers"].as_array().unwrap().len(), 4);
    let size = std::fs::metadata(folder.path().join("tiny.tnet")).unwrap().len();
    assert_eq!(summary["file_bytes"].as_u64(), Some(size));
    assert!(summary["weight_bytes"].as_u64().unwrap() >= 4 * 109_386 && summary["scratch_bytes"].as_u64().unwrap() > 0);
    assert!(succeeds(folder.path(), &["inspect", "tiny.tnet"]).contains("109,386 parameters"));

    let eval = ["eval", "tiny.tnet", "--data", "tiny"];
    let text = succeeds(folder.path(), &[&eval[..], &["--plot", "confusion.svg"]].concat());
    assert!(text.starts_with("accuracy 100.00 % (40 of 40 images)"), "{text}");
    assert!(std::fs::read_to_string(folder.path().join("confusion.svg")).unwrap().contains("40"));
    let backends: Vec<_> = thumbnet::Backend::available().map(|backend| backend.name()).collect();
    for name in backends {
        let evaluation = json(&succeeds(folder.path(), &[&eval[..], &["--json", "--backend", name]].concat()));
        assert_eq!(evaluation["accuracy"], 1.0, "{name}");
    }

    std::fs::write(folder.path().join("bar.pgm"), bar()).unwrap();
    let predictions = json(&succeeds(folder.path(), &["predict", "tiny.tnet", "bar.pgm", "bar.pgm", "--json"]));
    assert_eq!(predictions.as_array().unwrap().len(), 2);
    let probabilities = predictions[0]["probabilities"].as_array().unwrap();
    assert!((probabilities.iter().map(|p| p.as_f64().unwrap()).sum::<f64>() - 1.0).abs() < 1e-5);
    let class = predictions[0]["class"].as_u64().unwrap();
    assert_eq!(predictions[0]["probability"], probabilities[class as usize]);
    assert!(succeeds(folder.path(), &["predict", "tiny.tnet", "bar.pgm"]).starts_with(&format!("bar.pgm: {class} (")));
}

/// A raw PGM with a dark bar on a light ground.
fn bar() -> Vec<u8> {
    let mut file = b"P5 60 50 255\n".to_vec();
    file.extend((0..3000).map(|i| if (20..26).contains(&(i % 60)) && (10..40).contains(&(i / 60)) { 10 } else { 240 }));
    file
}

#[test]
fn recipes_are_listed_one_a_line() {
    let text = succeeds(Path::new("."), &["recipes"]);
    assert_eq!(text.lines().count(), thumbnet_trainer::recipe::BUILT_IN.len());
    assert!(text.lines().any(|line| line.starts_with("digits ")));
}

#[test]
fn a_recipe_file_is_followed_and_its_mistakes_are_named() {
    let folder = workspace();
    let digits = include_str!("../recipes/digits.toml");
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("mine.toml", digits.replace("outputs = 64", "outputs = 20"));
    succeeds(folder.path(), &["train", "mine.toml", "--data", "tiny", "--epochs", "1", "--quiet"]);
    let summary = json(&succeeds(folder.path(), &["inspect", "mine.tnet", "--json"]));
    assert_eq!(summary["layers"][1]["output"], serde_json::json!([1, 1, 20]));

    std::fs::write(folder.path().join("kept.tnet"), "precious").unwrap();
    let refused = |recipe: &str, parts: &[&str]| {
        fails(folder.path(), &["train", recipe, "--data", "tiny", "--out", "kept.tnet"], parts);
        assert_eq!(std::fs::read_to_string(folder.path().join("kept.tnet")).unwrap(), "precious");
    };
    write("unknown.toml", format!("momentum = 0.9\n{digits}"));
    refused("unknown.toml", &["unknown.toml", "momentum"]);
    write("layer.toml", digits.replace("outputs = 64", "outputs = 64\nneurons = 3"));
    refused("layer.toml", &["layer.toml", "neurons"]);
    write("broken.toml", digits.replace("epochs = 10", "epochs = "));
    refused("broken.toml", &["broken.toml", "epochs"]);
    write("classes.toml", format!("{digits}outputs = 7\n"));
    refused("classes.toml", &["classes.toml", "7 outputs", "10 classes"]);
    write("wild.toml", digits.replace("learning_rate = 0.1", "learning_rate = 1e30"));
    refused("wild.toml", &["wild.toml", "diverged"]);
    refused("no-such-recipe", &["no-such-recipe", "digits"]);
}

#[test]
fn some_classes_are_trained_on_and_the_body_serves_for_others() {
    let folder = workspace();
    let train = |more: &[&str]| {
        let mut args = vec!["train", "cnn-8-16", "--data", "tiny", "--epochs", "1", "--quiet"];
        args.extend_from_slice(more);
        succeeds(folder.path(), &args)
    };
    train(&["--classes", "0,1,2", "--out", "low.tnet"]);
    let said = train(&["--classes", "9,8,7", "--out", "high.tnet", "--from", "low.tnet", "--freeze", "2"]);
    assert!(said.contains("low.tnet: the first 2 layers with weights are taken over, 2 of them kept"), "{said}");
    let summary = json(&succeeds(folder.path(), &["inspect", "high.tnet", "--json"]));
    assert_eq!(summary["labels"], serde_json::json!(["9", "8", "7"]));
    let all = json(&succeeds(folder.path(), &["eval", "high.tnet", "--data", "tiny", "--classes", "7,8,9", "--json"]));
    assert!(all["images"].as_u64().unwrap() > 0);
    fails(
        folder.path(),
        &["eval", "high.tnet", "--data", "tiny"],
        &["has 3 outputs (9, 8, 7), but there are images of class"],
    );
    let refused = |classes: &str, part: &str| {
        fails(folder.path(), &["eval", "high.tnet", "--data", "tiny", "--classes", classes], &[part]);
    };
    refused("7,x", "tiny: no class \"x\", there are 0, 1");
    refused("7", "two classes or more");
    refused("7,8,7", "each once");
}

#[test]
fn missing_and_damaged_data_are_named() {
    let folder = workspace();
    std::fs::write(folder.path().join("kept.tnet"), "precious").unwrap();
    let refused = |parts: &[&str]| {
        fails(folder.path(), &["train", "digits", "--data", "tiny", "--out", "kept.tnet"], parts);
        assert_eq!(std::fs::read_to_string(folder.path().join("kept.tnet")).unwrap(), "precious");
    };
    fails(
        folder.path(),
        &["train", "digits", "--data", "nowhere", "--out", "kept.tnet"],
        &["nowhere", "train-images-idx3-ubyte"],
    );
    let file = |name: &str| folder.path().join("tiny").join(name);
    let images = std::fs::read(file("train-images-idx3-ubyte")).unwrap();

    std::fs::write(file("train-images-idx3-ubyte"), &images[..images.len() - 1]).unwrap();
    refused(&["train-images-idx3-ubyte", "truncated", "320 x 28 x 28"]);
    std::fs::write(file("train-images-idx3-ubyte"), b"GIF89a, surely not an IDX file").unwrap();
    refused(&["train-images-idx3-ubyte", "magic number 0x47494638, expected 0x00000803"]);
    // A gzipped file is preferred to the plain one beside it; here it is cut short.
    let zipped = std::fs::read(Path::new(&repository_data()).join("t10k-images-idx3-ubyte.gz")).unwrap();
    std::fs::write(file("train-images-idx3-ubyte.gz"), &zipped[..1000]).unwrap();
    refused(&["train-images-idx3-ubyte.gz", "truncated gzip"]);
    std::fs::remove_file(file("train-images-idx3-ubyte.gz")).unwrap();
    std::fs::write(file("train-images-idx3-ubyte"), &images).unwrap();

    let labels = std::fs::read(file("train-labels-idx1-ubyte")).unwrap();
    std::fs::write(file("train-labels-idx1-ubyte"), [&big_endian(&[0x801, 319])[..], &labels[8..327]].concat())
        .unwrap();
    refused(&["train-labels-idx1-ubyte", "319 labels", "320 images"]);
    std::fs::write(file("train-labels-idx1-ubyte"), [&labels[..327], &[12]].concat()).unwrap();
    std::fs::write(file("classes.txt"), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n").unwrap();
    refused(&["train-labels-idx1-ubyte", "label 12 at position 319", "0 to 9 as in classes.txt"]);
    std::fs::remove_file(file("train-labels-idx1-ubyte")).unwrap();
    refused(&["train-labels-idx1-ubyte", "no such file"]);
}

#[test]
fn files_that_are_no_models_or_pictures_are_refused() {
    let folder = workspace();
    train_tiny(folder.path(), "tiny.tnet");
    let model = std::fs::read(folder.path().join("tiny.tnet")).unwrap();
    let mut flipped = model.clone();
    flipped[model.len() / 2] ^= 1;
    for (name, bytes) in
        [("short.tnet", &model[..100]), ("flipped.tnet", &flipped), ("empty.tnet", &[]), ("x.tnet", b"x")]
    {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        fails(folder.path(), &["inspect", name], &[name, "not a usable model"]);
        fails(folder.path(), &["eval", name, "--data", "tiny"], &[name, "not a usable model"]);
    }
    fails(folder.path(), &["inspect", "gone.tnet"], &["gone.tnet"]);
    fails(folder.path(), &["eval", "tiny.tnet", "--data", "tiny", "--backend", "abacus"], &["abacus", "scalar"]);
    std::fs::write(folder.path().join("words.png"), "not a picture").unwrap();
    fails(folder.path(), &["predict", "tiny.tnet", "words.png"], &["words.png", "not an image"]);
    std::fs::write(folder.path().join("blank.pgm"), b"P2 2 2 255 7 7 7 7").unwrap();
    fails(folder.path(), &["predict", "tiny.tnet", "blank.pgm"], &["blank.pgm", "blank"]);
    fails(folder.path(), &["predict", "tiny.tnet", "gone.png"], &["gone.png"]);
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_the_training() {
    let folder = workspace();
    let train = ["train", "digits", "--data", "tiny", "--epochs", "4294967295", "--quiet"];
    std::fs::create_dir(folder.path().join("folder.svg")).unwrap();
    for option in ["--out", "--log", "--plot"] {
        fails(folder.path(), &[&train[..], &[option, "nowhere/file.svg"]].concat(), &["nowhere/file.svg"]);
        fails(folder.path(), &[&train[..], &[option, "folder.svg"]].concat(), &["folder.svg", "directory"]);
    }
    fails(folder.path(), &[&train[..], &["--plot", "course.png"]].concat(), &["course.png", ".svg"]);
}

#[test]
fn a_run_leaves_a_folder_that_says_what_it_was() {
    let folder = workspace();
    let printed = succeeds(folder.path(), &["train", "--data", "tiny", "--epochs", "2", "--out", "first.tnet"]);
    assert!(printed.contains("validation loss") && printed.contains("runs/digits-quick"), "{printed}");
    let run = folder.path().join("runs/digits-quick");
    let read = |name: &str| std::fs::read(run.join(name)).expect(name);
    assert!(String::from_utf8(read("recipe.toml")).unwrap().contains("epochs = 2"));
    // Two epochs, and the five of the fine-tuning.
    assert_eq!(String::from_utf8(read("log.csv")).unwrap().lines().count(), 1 + 2 + 5);
    assert!(String::from_utf8(read("report.html")).unwrap().contains("digits-quick"));
    let model = read("model.tnet");
    assert_eq!(model, std::fs::read(folder.path().join("first.tnet")).unwrap());

    // The same again is a folder of its own; a finished run that is resumed makes the same file.
    let again = ["train", "--data", "tiny", "--epochs", "2", "--threads", "1", "--quiet"];
    assert!(succeeds(folder.path(), &again).contains("runs/digits-quick-2"));
    assert_eq!(model, std::fs::read(folder.path().join("digits-quick.tnet")).unwrap());
    let resume = ["train", "--resume", "runs/digits-quick", "--data", "tiny", "--out", "resumed.tnet", "--quiet"];
    succeeds(folder.path(), &resume);
    assert_eq!(model, std::fs::read(folder.path().join("resumed.tnet")).unwrap());
    fails(folder.path(), &["train", "--resume", "runs", "--data", "tiny"], &["runs/recipe.toml"]);

    // int8 weights are no body for another training.
    let transfer = ["train", "--from", "first.tnet", "--data", "tiny", "--epochs", "1", "--quiet"];
    fails(folder.path(), &transfer, &["first.tnet", "int8"]);
}

#[test]
fn a_training_from_another_models_layers_can_be_resumed() {
    let folder = workspace();
    train_tiny(folder.path(), "body.tnet");
    let transfer =
        ["train", "digits", "--from", "body.tnet", "--freeze", "1", "--data", "tiny", "--epochs", "1", "--seed", "5"];
    let printed = succeeds(folder.path(), &[&transfer[..], &["--run", "run", "--out", "a.tnet"]].concat());
    assert!(printed.contains("body.tnet: the first 3 layers with weights are taken over, 1 of them kept"), "{printed}");
    succeeds(folder.path(), &["train", "--resume", "run", "--data", "tiny", "--out", "b.tnet", "--quiet"]);
    let [a, b, body] = ["a.tnet", "b.tnet", "body.tnet"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    assert!(a == b && a != body);
    fails(folder.path(), &["train", "digits", "--from", "nowhere.tnet", "--data", "tiny"], &["nowhere.tnet"]);
}

#[test]
fn a_search_shows_the_best_first_and_goes_on_where_it_was() {
    let folder = workspace();
    let tune = ["tune", "digits", "--data", "tiny", "--epochs", "1", "--grid", "learning_rate=0.1,1e-9", "hidden=8,16"];
    let printed = succeeds(folder.path(), &tune);
    assert!(printed.contains("runs/tune-digits/trials.csv"), "{printed}");
    let table = std::fs::read_to_string(folder.path().join("runs/tune-digits/trials.csv")).unwrap();
    assert_eq!(table.lines().next(), Some("learning_rate,hidden,val_acc,val_loss,seconds"));
    assert_eq!(table.lines().count(), 1 + 4);
    assert!(folder.path().join("runs/tune-digits/trials.svg").exists());
    assert!(succeeds(folder.path(), &tune).contains("4 of 4 are done already"));
    let other = ["tune", "digits", "--data", "tiny", "--grid", "batch=8", "--out", "runs/tune-digits"];
    fails(folder.path(), &other, &["trials.csv", "another search"]);
    fails(folder.path(), &["tune", "digits", "--data", "tiny", "--grid", "speed=1"], &["speed"]);
}
