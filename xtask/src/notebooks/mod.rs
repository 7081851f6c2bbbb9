//! `cargo xtask notebooks`: trains every notebook's program and holds it to what the notebook printed.

mod page;
mod printed;
mod timing;

pub(crate) use timing::run as time;

use crate::command::{self, cargo, root};
use anyhow::{Context, Result, ensure};
use printed::Quantity;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of the notebooks, and how far a re-run in f32 may be from what it printed.
///
/// The tolerances of the accuracies are about what f32 itself drifts from f64: nothing for smooth networks, and a few
/// images for ReLU networks, where a single sum within rounding of zero changes sides.
struct Program {
    recipe: &'static str,
    test_accuracy: f64,
    train_accuracy: f64,
    loss: f64,
    /// The seeds to run; empty for the recipe's own.
    seeds: &'static [u32],
    /// The script of the numpy re-run and its arguments.
    numpy: &'static [&'static str],
}

const PROGRAMS: [Program; 11] = [
    Program::new("s0", 0.0002, 0.001, 0.0, &["000_tanh.py"]),
    Program::new("s1", 0.0002, 0.001, 0.0, &["001_cnn.py"]),
    Program::new("s2-sgd", 0.004, 0.003, 0.002, &["002_sgd.py"]),
    Program::new("s2-dropout", 0.0002, 0.001, 0.0011, &["002_dropout.py"]),
    Program::new("s2-batch", 0.001, 0.003, 0.0011, &["002_batch.py"]),
    Program { seeds: &[0, 1, 2], ..Program::new("s3", 0.0, 0.0, 0.03, &["003_gd.py"]) },
    Program::new("s4", 0.002, 0.0, 0.002, &["004_mlp.py", "--run", "main"]),
    Program::new("s4-exp1", 0.01, 0.0, 0.04, &["004_mlp.py", "--run", "exp1"]),
    Program::new("s4-exp2", 0.0002, 0.0, 0.0001, &["004_mlp.py", "--run", "exp2"]),
    Program::new("s4-exp3", 0.001, 0.0, 0.0004, &["004_mlp.py", "--run", "exp3"]),
    Program::new("s4-exp4", 0.001, 0.0, 0.0004, &["004_mlp.py", "--run", "exp4"]),
];

/// The corrected programs, and the test accuracy that each must reach.
const FIXED: [(&str, f64); 3] = [("s0-fixed", 0.873), ("s1-fixed", 0.865), ("s2-batch-fixed", 0.87)];

impl Program {
    const fn new(
        recipe: &'static str,
        test_accuracy: f64,
        train_accuracy: f64,
        loss: f64,
        numpy: &'static [&'static str],
    ) -> Self {
        Self { recipe, test_accuracy, train_accuracy, loss, seeds: &[], numpy }
    }

    fn allowed(&self, quantity: Quantity) -> f64 {
        match quantity {
            Quantity::TestAccuracy => self.test_accuracy,
            Quantity::TrainAccuracy => self.train_accuracy,
            Quantity::TrainLoss | Quantity::TestLoss => self.loss,
        }
    }

    fn printed(&self) -> Result<Vec<printed::Line>> {
        let path = notebooks().join("printed").join(self.recipe).with_extension("txt");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(printed::lines(&text))
    }
}

/// A row of the log that `thumbnet train --log` writes.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    epoch: u32,
    train_loss: Option<f64>,
    train_acc: Option<f64>,
    test_loss: Option<f64>,
    test_acc: Option<f64>,
}

/// What came of one training.
struct Run {
    recipe: String,
    seed: Option<u32>,
    log: Vec<Row>,
    /// The accuracy of the exported file, run by the core.
    exported: f64,
}

/// Where the printed lines, the numpy scripts and the words about the quirks are.
fn notebooks() -> PathBuf {
    root().join("xtask/notebooks")
}

/// Trains everything, writes `docs/notebooks.md`, and fails if something is further off than it may be.
pub(crate) fn run() -> Result<()> {
    let thumbnet = release_build()?;
    let mut runs = Vec::new();
    for program in &PROGRAMS {
        if program.seeds.is_empty() {
            runs.push(train(&thumbnet, program.recipe, None)?);
        }
        for seed in program.seeds {
            runs.push(train(&thumbnet, program.recipe, Some(*seed))?);
        }
    }
    for (recipe, _) in FIXED {
        runs.push(train(&thumbnet, recipe, None)?);
    }
    let page = page::write(&runs)?;
    let path = root().join("docs/notebooks.md");
    std::fs::write(&path, &page.text).with_context(|| path.display().to_string())?;
    println!("wrote docs/notebooks.md");
    ensure!(page.misses.is_empty(), "further off than allowed:\n  {}", page.misses.join("\n  "));
    Ok(())
}

/// Builds the `thumbnet` command and returns its path.
fn release_build() -> Result<PathBuf> {
    command::run(cargo().args(["build", "--release", "--package", "thumbnet-trainer"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/thumbnet"))
}

/// The folder for logs and models.
fn folder() -> Result<PathBuf> {
    let folder = root().join("target/notebooks");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

fn train(thumbnet: &Path, recipe: &str, seed: Option<u32>) -> Result<Run> {
    let folder = folder()?;
    let name = seed.map_or(recipe.to_owned(), |seed| format!("{recipe}-seed-{seed}"));
    let (log, model) = (folder.join(format!("{name}.csv")), folder.join(format!("{name}.tnet")));
    let mut train = Command::new(thumbnet);
    train.current_dir(root()).args(["train", recipe, "--quiet", "--log"]).arg(&log).arg("--out").arg(&model);
    if let Some(seed) = seed {
        train.args(["--seed", &seed.to_string()]);
    }
    command::run(&mut train)?;
    let rows: Result<Vec<Row>, _> = csv::Reader::from_path(&log)?.deserialize().collect();
    let exported = exported_accuracy(thumbnet, &model)?;
    Ok(Run { recipe: recipe.to_owned(), seed, log: rows.with_context(|| log.display().to_string())?, exported })
}

fn exported_accuracy(thumbnet: &Path, model: &Path) -> Result<f64> {
    #[derive(Deserialize)]
    struct Evaluation {
        accuracy: f64,
    }
    let output = command::output(Command::new(thumbnet).current_dir(root()).arg("eval").arg(model).arg("--json"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice::<Evaluation>(&output.stdout)?.accuracy)
}
