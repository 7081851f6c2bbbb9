//! A training that is killed, interrupted, or that runs out of disk: what is there under a final name is whole, nothing saved
//! is lost, and `--resume` ends with the bytes of a training that was left alone.
#![cfg(unix)]

mod common;

use common::{fails, succeeds, workspace};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use thumbnet_trainer::checkpoint::Checkpoint;

/// Small, but with everything that a checkpoint holds.
const RECIPE: &str = r#"
description = "test"
seed = 3
epochs = 6
batch = 16
micro_batch = 8
learning_rate = 0.01
loss = "cross-entropy"
shuffle = true
validation = 0.1
ema = 0.9
optimizer = { type = "adam-w" }
augment = { rotate = 5.0 }
quantize = { epochs = 2, learning_rate = 0.001 }
[[layers]]
type = "conv2d"
filters = 4
kernel = [3, 3]
stride = [2, 2]
batch_norm = true
activation = "relu"
init = "he-normal"
[[layers]]
type = "dense"
init = "glorot-uniform"
"#;

const TRAIN: [&str; 7] = ["train", "r.toml", "--data", "tiny", "--threads", "1", "--quiet"];

fn start(folder: &Path, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thumbnet"));
    command.args(args).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the binary starts")
}

/// What lies under a final name is whole: it loads, or is not there at all.
fn check_whole(folder: &Path) {
    for model in ["a.tnet", "run/model.tnet"] {
        if let Ok(file) = std::fs::read(folder.join(model)) {
            thumbnet::Model::load(&thumbnet::AlignedBuf::from_bytes(&file)).expect(model);
        }
    }
    if folder.join("run/checkpoint").exists() {
        Checkpoint::read(&folder.join("run/checkpoint")).unwrap();
    }
    if let Ok(page) = std::fs::read_to_string(folder.join("run/report.html")) {
        assert!(page.ends_with("</html>"), "{page}");
    }
    if let Ok(log) = std::fs::read_to_string(folder.join("run/log.csv")) {
        assert!(log.ends_with('\n') && log.lines().all(|line| line.matches(',').count() == 6), "{log}");
    }
}

/// Trains in `folder`, in `run`, and writes `a.tnet`; resumes if `run` can be.
fn train_or_resume(folder: &Path) -> &'static [&'static str] {
    let begun = folder.join("run/recipe.toml").exists();
    if begun {
        &["train", "--resume", "run", "--data", "tiny", "--threads", "1", "--quiet", "--out", "a.tnet"]
    } else {
        // (Nothing is in the folder yet if it was killed before it had begun.)
        let _ = std::fs::remove_dir_all(folder.join("run"));
        &["train", "r.toml", "--data", "tiny", "--threads", "1", "--quiet", "--out", "a.tnet", "--run", "run"]
    }
}

#[test]
fn a_training_that_is_killed_again_and_again_ends_with_the_same_bytes() {
    let folder = workspace();
    let path = folder.path();
    std::fs::write(path.join("r.toml"), RECIPE).unwrap();
    succeeds(path, &[&TRAIN[..], &["--out", "expected.tnet", "--run", "undisturbed"]].concat());
    let expected = std::fs::read(path.join("expected.tnet")).unwrap();

    // From 1 ms on, a little later each time: during the start, within epochs, while checkpoints, log, model and page are
    // written. Every kill leaves more epochs done than the one before, or as many.
    let (mut kills, mut done) = (0, 0);
    for attempt in 1.. {
        assert!(attempt < 2_000, "it does not get on");
        let mut child = start(path, train_or_resume(path));
        std::thread::sleep(Duration::from_micros(1_000 + attempt * 1_500));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        check_whole(path);
        let now = Checkpoint::read(&path.join("run/checkpoint")).map_or(0, |checkpoint| checkpoint.history().len());
        assert!(now >= done, "{now} epochs, but there were {done}");
        done = now;
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(9));
        kills += 1;
    }
    assert!(kills >= 10, "{kills}");
    for model in ["a.tnet", "run/model.tnet"] {
        assert!(std::fs::read(path.join(model)).unwrap() == expected, "{model} after {kills} kills");
    }
}

/// (Only GNU's `env` can undo that interrupts are ignored.)
#[cfg(target_os = "linux")]
#[test]
fn an_interrupt_ends_it_and_leaves_a_checkpoint() {
    let folder = workspace();
    let path = folder.path();
    std::fs::write(path.join("r.toml"), RECIPE.replace("epochs = 6", "epochs = 100000")).unwrap();
    // A process in the background of a shell inherits that interrupts are ignored.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=INT", env!("CARGO_BIN_EXE_thumbnet")])
        .args(TRAIN)
        .args(["--run", "run", "--out", "a.tnet"]);
    let mut child = command.current_dir(path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = std::time::Instant::now();
    let waited = |what: &str| {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    };
    while !path.join("run/checkpoint").exists() {
        waited("no checkpoint");
    }
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if begun.elapsed() > Duration::from_secs(50) => {
                child.kill().unwrap();
                panic!("it goes on after an interrupt");
            }
            None => waited("it goes on after an interrupt"),
        }
    };
    // The shell reports this as 130.
    assert_eq!(status.signal(), Some(2));
    check_whole(path);
    assert!(!path.join("a.tnet").exists());
    assert!(!Checkpoint::read(&path.join("run/checkpoint")).unwrap().history().is_empty());
}

#[test]
fn data_that_changed_are_noticed() {
    let folder = workspace();
    let path = folder.path();
    std::fs::write(path.join("r.toml"), RECIPE).unwrap();
    succeeds(path, &[&TRAIN[..], &["--run", "run", "--out", "a.tnet"]].concat());
    let images = path.join("tiny/train-images-idx3-ubyte");
    let mut bytes = std::fs::read(&images).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&images, bytes).unwrap();
    let resume = ["train", "--resume", "run", "--data", "tiny", "--out", "b.tnet"];
    fails(path, &resume, &["run/checkpoint", "the data have changed"]);
    assert!(!path.join("b.tnet").exists());
}

/// Runs `thumbnet` where no file can grow beyond `blocks` of 512 bytes: as on a full disk, a write ends with an error.
fn run_with_little_space(folder: &Path, blocks: u32, args: &[&str]) -> std::process::Output {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_thumbnet")]).args(args).current_dir(folder);
    command.output().expect("a shell")
}

#[test]
fn a_full_disk_is_an_error_and_what_was_there_stays() {
    let folder = workspace();
    let path = folder.path();
    std::fs::write(path.join("r.toml"), RECIPE).unwrap();
    succeeds(path, &[&TRAIN[..], &["--run", "run", "--out", "a.tnet"]].concat());
    let saved = |name: &str| std::fs::read(path.join(name)).unwrap();
    let names = ["a.tnet", "run/model.tnet", "run/checkpoint", "run/log.csv", "run/report.html", "run/recipe.toml"];
    let before = names.map(saved);
    for (what, args) in [
        ("a.tnet", &["convert", "../models/digits.tnet", "--weights", "f16", "--data", "tiny", "--out", "a.tnet"][..]),
        ("run/report.html", &["report", "a.tnet", "--data", "tiny", "--out", "run/report.html"]),
        ("checkpoint", &["train", "r.toml", "--data", "tiny", "--epochs", "9", "--run", "new", "--out", "a.tnet"]),
    ] {
        let model = common::shipped_model("digits.tnet");
        let args: Vec<&str> = args.iter().map(|&arg| if arg.starts_with("..") { &model[..] } else { arg }).collect();
        let output = run_with_little_space(path, 4, &args);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{what}: {message}");
        assert!(message.contains("cannot write") && message.contains(what), "{message}");
        assert!(names.map(saved) == before, "{what}");
        let left: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".thumbnet-")), "{left:?}");
    }
}

#[test]
fn a_folder_that_takes_no_files_is_named() {
    let folder = workspace();
    std::fs::write(folder.path().join("r.toml"), RECIPE).unwrap();
    // (Permissions do not bind root; in /proc nobody makes files.)
    fails(folder.path(), &[&TRAIN[..], &["--out", "/proc/a.tnet"]].concat(), &["cannot write /proc/a.tnet"]);
    assert!(!folder.path().join("runs").exists(), "it is known before the training");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let folder = workspace();
    let model = common::shipped_model("digits.tnet");
    let script = "\"$0\" \"$@\" | true && \"$0\" eval \"$2\" --data tiny | head -1";
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", script, env!("CARGO_BIN_EXE_thumbnet"), "inspect", &model]);
    let output = command.current_dir(folder.path()).output().expect("a shell");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
