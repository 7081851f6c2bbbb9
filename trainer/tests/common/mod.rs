//! What the tests of the `thumbnet` command share: running it, and a data set small enough to train on in a moment.

// Each test is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Runs `thumbnet` in `folder`.
pub(crate) fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thumbnet")).args(args).current_dir(folder).output().expect("the binary starts")
}

/// Runs `thumbnet`, which must succeed; gives what it printed.
pub(crate) fn succeeds(folder: &Path, args: &[&str]) -> String {
    let output = run(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("output is text")
}

/// Runs `thumbnet`, which must fail with exit code 2 and a message that holds every one of `parts`.
pub(crate) fn fails(folder: &Path, args: &[&str], parts: &[&str]) {
    let output = run(folder, args);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: no {part:?} in: {message}");
    }
}

pub(crate) fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).expect("valid JSON")
}

pub(crate) fn repository_data() -> String {
    in_repository("data/mnist")
}

/// The path of a model in `models`.
pub(crate) fn shipped_model(name: &str) -> String {
    in_repository(&format!("models/{name}"))
}

fn in_repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    path.to_str().expect("a plain path").to_owned()
}

pub(crate) fn big_endian(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A tiny data set in the four files: image `i` is a bright square in a place that depends on its class, `i % 10`.
fn tiny_data(folder: &Path, train: u32, test: u32) -> PathBuf {
    let data = folder.join("tiny");
    std::fs::create_dir_all(&data).unwrap();
    for (name, count) in [("train", train), ("t10k", test)] {
        let mut images = big_endian(&[0x803, count, 28, 28]);
        let mut labels = big_endian(&[0x801, count]);
        for class in (0..count).map(|index| index % 10) {
            let inside = |i: u32| (4..24).contains(&(i / 28)) && (i % 28) / 2 == class + 2;
            images.extend((0..784).map(|i| if inside(i) { 200 } else { 0 }));
            labels.push(class as u8);
        }
        std::fs::write(data.join(format!("{name}-images-idx3-ubyte")), images).unwrap();
        std::fs::write(data.join(format!("{name}-labels-idx1-ubyte")), labels).unwrap();
    }
    data
}

/// A folder with the tiny data set in `tiny`.
pub(crate) fn workspace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny_data(folder.path(), 320, 40);
    folder
}

/// Trains the recipe `digits` on the tiny data for a moment and writes `name`.
pub(crate) fn train_tiny(folder: &Path, name: &str) {
    succeeds(folder, &["train", "digits", "--data", "tiny", "--epochs", "2", "--out", name, "--quiet"]);
}
