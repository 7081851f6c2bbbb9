//! `cargo xtask accuracy`: the built-in int8 recipes over five seeds, their files as the core runs them.

use anyhow::{Result, anyhow, ensure};
use std::fmt::Write as _;
use thumbnet::{AlignedBuf, Ensemble, Model};
use thumbnet_trainer::data::{DataSet, mnist};
use thumbnet_trainer::recipe::Recipe;
use thumbnet_trainer::train::train;
use thumbnet_trainer::{batches, evaluate, export};

/// A recipe, the largest file that it may make, and what the mean of the seeds must reach.
struct Goal {
    recipe: &'static str,
    bytes: usize,
    accuracy: f64,
}

const GOALS: [Goal; 5] = [
    Goal { recipe: "digits-quick", bytes: usize::MAX, accuracy: 0.990 },
    Goal { recipe: "digits-nano", bytes: 4 * 1024, accuracy: 0.990 },
    Goal { recipe: "digits-tiny", bytes: 10 * 1024, accuracy: 0.995 },
    Goal { recipe: "digits-small", bytes: 40 * 1024, accuracy: 0.996 },
    Goal { recipe: "digits-best", bytes: 400 * 1024, accuracy: 0.997 },
];
const SEEDS: [u32; 5] = [1, 2, 3, 4, 5];
/// The recipe of the ensemble's members, and what the ensembles of all but one of its seeds must reach on average.
const ENSEMBLE: (&str, f64) = ("digits-best", 0.9975);

/// Trains and measures everything; the table goes to standard output, as Markdown. With `only`, one recipe.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let known = || GOALS.map(|goal| goal.recipe).join(", ");
    let chosen: Vec<_> = GOALS.into_iter().filter(|goal| only.is_none_or(|only| only == goal.recipe)).collect();
    ensure!(!chosen.is_empty(), "no such recipe here; there are {}", known());
    let folder = mnist::default_folder();
    let (images, test) = (mnist::training(&folder)?, mnist::test(&folder)?);
    let mut table = "| recipe | bytes | seeds 1 to 5 | mean | goal |\n|---|---|---|---|---|\n".to_owned();
    let mut missed = Vec::new();
    for goal in chosen {
        let mut files = Vec::new();
        for seed in SEEDS {
            files.push(make(goal.recipe, seed, &images, &test)?);
            eprintln!("{}, seed {seed}: {:.2} %", goal.recipe, 100.0 * accuracy(&files[files.len() - 1..], &test)?);
        }
        let alone = files.chunks(1).map(|file| accuracy(file, &test)).collect::<Result<Vec<_>>>()?;
        let bytes = files.iter().map(|file| file.len()).max().unwrap_or(0);
        missed.extend(row(&mut table, goal.recipe, bytes, &alone, goal.accuracy)?);
        if bytes > goal.bytes {
            missed.push(format!("{} has {bytes} bytes, {} are allowed", goal.recipe, goal.bytes));
        }
        if goal.recipe == ENSEMBLE.0 {
            let without = |seed: usize| [&files[..seed], &files[seed + 1..]].concat();
            let four = (0..files.len()).map(|seed| accuracy(&without(seed), &test)).collect::<Result<Vec<_>>>()?;
            missed.extend(row(&mut table, "four of them together, without seed 1 to 5", 4 * bytes, &four, ENSEMBLE.1)?);
            writeln!(table, "| all five together | {} | | {} | |", 5 * bytes, percent(accuracy(&files, &test)?))?;
        }
    }
    print!("{table}");
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    Ok(())
}

/// A line of the table; gives what is missed, if anything.
fn row(table: &mut String, name: &str, bytes: usize, found: &[f64], goal: f64) -> Result<Option<String>> {
    let mean = found.iter().sum::<f64>() / found.len() as f64;
    let each = found.iter().map(|&accuracy| percent(accuracy)).collect::<Vec<_>>().join(", ");
    writeln!(table, "| {name} | {bytes} | {each} | **{:.3} %** | {} |", 100.0 * mean, percent(goal))?;
    // (A mean of shares is not exact.)
    Ok((mean < goal - 1e-9).then(|| format!("{name}: {:.3} %, expected {}", 100.0 * mean, percent(goal))))
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn make(name: &str, seed: u32, images: &DataSet, test: &DataSet) -> Result<AlignedBuf> {
    let recipe = Recipe { seed, ..Recipe::find(name)? };
    let trained = train(&recipe, images, test, &mut ())?;
    Ok(AlignedBuf::from_bytes(&export::export_trained(&trained, &recipe, images)?))
}

/// The share of the test images that the models get right when their answers are averaged.
fn accuracy(files: &[AlignedBuf], test: &DataSet) -> Result<f64> {
    let models = files.iter().map(|file| Model::load(file)).collect::<Result<Vec<_>, _>>();
    let models = models.map_err(|e| anyhow!("{e}"))?;
    let ensemble = Ensemble::from_models(models).map_err(|e| anyhow!("{e}"))?;
    let evaluation = evaluate::evaluate_ensemble(&ensemble, test, batches::cores()).map_err(|e| anyhow!(e))?;
    Ok(evaluation.accuracy)
}
