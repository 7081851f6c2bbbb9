//! `cargo xtask quantization`: what int8 costs in accuracy, after training and with fine-tuning.

use anyhow::{Result, anyhow, ensure};
use std::fmt::Write as _;
use thumbnet::Model;
use thumbnet::layer::Packing;
use thumbnet_trainer::data::{DataSet, mnist};
use thumbnet_trainer::recipe::{Processor, Quantize, Recipe};
use thumbnet_trainer::train::{fine_tune, train};
use thumbnet_trainer::{batches, evaluate, export, quantize};

/// The recipes to measure, and how they are fine-tuned.
const RECIPES: [(&str, Quantize); 3] =
    [("s4-exp1", fine_tuning(3, 0.01)), ("s1-fixed", fine_tuning(5, 0.004)), ("cnn-8-16", fine_tuning(2, 0.01))];
const SEEDS: [u32; 3] = [1, 2, 3];
/// How many test images the mean of the seeds may lose, of 10,000: after training, and with fine-tuning.
const ALLOWED: [f64; 2] = [10.0, 5.0];

const fn fine_tuning(epochs: u32, learning_rate: f32) -> Quantize {
    Quantize { epochs, learning_rate, processor: Processor::CortexM }
}

/// How many test images a recipe's models get right: f32, int8 after training, int8 with fine-tuning.
type Correct = [usize; 3];

/// Trains and measures everything; the table goes to standard output, as Markdown. With `only`, one recipe.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let known = || RECIPES.map(|(name, _)| name).join(", ");
    let chosen: Vec<_> = RECIPES.into_iter().filter(|(name, _)| only.is_none_or(|only| only == *name)).collect();
    ensure!(!chosen.is_empty(), "no such recipe here; there are {}", known());
    let folder = mnist::default_folder();
    let (images, test) = (mnist::training(&folder)?, mnist::test(&folder)?);
    let mut table =
        "| recipe | seed | f32 | int8 after training | int8 with fine-tuning |\n|---|---|---|---|---|\n".to_owned();
    let mut missed = Vec::new();
    for (name, fine_tuning) in chosen {
        let mut sums = [0.0; 3];
        for seed in SEEDS {
            let correct = measure(name, seed, fine_tuning, &images, &test)?;
            eprintln!("{name}, seed {seed}: {correct:?} of {} images", test.len());
            writeln!(table, "| `{name}` | {seed} | {} |", percent(correct.map(|n| n as f64), &test))?;
            sums.iter_mut().zip(correct).for_each(|(sum, correct)| *sum += correct as f64);
        }
        let means = sums.map(|sum| sum / SEEDS.len() as f64);
        writeln!(table, "| | **mean** | {} |", percent(means, &test))?;
        let lost = [means[0] - means[1], means[0] - means[2]];
        if lost.iter().zip(ALLOWED).any(|(lost, allowed)| *lost > allowed * test.len() as f64 / 10_000.0) {
            missed.push(format!("{name} loses {lost:.1?} images, {ALLOWED:.1?} are allowed"));
        }
    }
    print!("{table}");
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    Ok(())
}

fn percent(correct: [f64; 3], test: &DataSet) -> String {
    correct.map(|correct| format!("{:.2} %", 100.0 * correct / test.len() as f64)).join(" | ")
}

fn measure(name: &str, seed: u32, fine_tuning: Quantize, images: &DataSet, test: &DataSet) -> Result<Correct> {
    let recipe = Recipe { seed, quantize: None, ..Recipe::find(name)? };
    let refused = |problem: String| anyhow!("{name}: {problem}");
    let correct = |file: &[u8]| -> Result<usize> {
        let file = thumbnet::AlignedBuf::from_bytes(file);
        let model = Model::load(&file).map_err(|e| refused(e.to_string()))?;
        Ok(evaluate::evaluate(&model, test, batches::cores()).map_err(refused)?.correct)
    };
    let trained = train(&recipe, images, test, &mut ())?;
    let float = export::export_trained(&trained, &recipe, images)?;
    let model = Model::load(&float).map_err(|e| refused(e.to_string()))?;
    let steps = quantize::calibrate(&model, images).map_err(refused)?;
    let after_training = quantize::quantize(&model, &steps, Packing::Folded).map_err(refused)?;
    let recipe = Recipe { quantize: Some(fine_tuning), ..recipe };
    let tuned = fine_tune(trained, &recipe, fine_tuning, images, test, &mut ())?;
    let tuned = export::export_trained(&tuned, &recipe, images)?;
    Ok([correct(&float)?, correct(&after_training)?, correct(&tuned)?])
}
