//! `thumbnet train`.

use super::{DataArgs, ModelFile, grouped, print};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Instant;
use thumbnet_trainer::checkpoint::Checkpoint;
use thumbnet_trainer::data::{DataSet, Parts};
use thumbnet_trainer::error::Result;
use thumbnet_trainer::recipe::{self, Recipe};
use thumbnet_trainer::train::{Epoch, Observer, Progress, train};
use thumbnet_trainer::{batches, evaluate, export, log, output, plot};

/// Train a network and export it, then measure the exported file on the test images.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A built-in recipe (see `thumbnet recipes`) or a TOML file
    #[arg(default_value = recipe::DEFAULT)]
    recipe: String,
    #[command(flatten)]
    data: DataArgs,
    /// The model file to write [default: the recipe's name with .tnet]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Go through the images this many times, instead of the recipe's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Draw weights, dropout and shuffles from this seed, instead of the recipe's
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Train on the first N images, instead of the recipe's
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    subset: Option<usize>,
    /// Write losses and accuracies as CSV, one row per epoch
    #[arg(long, value_name = "FILE.csv")]
    log: Option<PathBuf>,
    /// Draw the course of the training
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print the result only
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut recipe = Recipe::find(&args.recipe)?;
    recipe.epochs = args.epochs.unwrap_or(recipe.epochs);
    recipe.seed = args.seed.unwrap_or(recipe.seed);
    recipe.images = args.subset.or(recipe.images);
    let out = args.out.clone().unwrap_or_else(|| default_out(&args.recipe));
    for path in [Some(&out), args.log.as_ref(), args.plot.as_ref()].into_iter().flatten() {
        output::check_writable(path)?;
    }
    let Parts { training: images, test, .. } = args.data.source()?.parts()?;

    let mut display = Display::new(&recipe, &images, args.quiet);
    let trained = train(&recipe, &images, &test, &mut display)?;
    display.bar.finish_and_clear();

    if let Some(path) = &args.log {
        output::replace(path, log::csv(&trained.history).as_bytes())?;
    }
    if let Some(path) = &args.plot {
        output::replace(path, plot::training(&args.recipe, &trained.history).as_bytes())?;
    }
    output::replace(&out, &export::export_trained(&trained, &recipe, &images)?)?;
    report(&ModelFile::read(&out)?, &test)
}

/// Measures the file as it now lies on the disk.
fn report(file: &ModelFile, test: &DataSet) -> Result<()> {
    let model = file.model()?;
    let evaluation = evaluate::evaluate(&model, test, batches::cores()).map_err(|problem| file.error(problem))?;
    let parameters = model.layers().map(|layer| layer.parameters).sum();
    print(&format!(
        "{}: {} parameters, {} bytes\ntest accuracy {:.2} % ({} of {} images), mean loss {:.4}\n",
        file.path.display(),
        grouped(parameters),
        grouped(file.bytes.len() as u64),
        100.0 * evaluation.accuracy,
        evaluation.correct,
        evaluation.images,
        evaluation.loss,
    ))
}

fn default_out(recipe: &str) -> PathBuf {
    let stem = PathBuf::from(recipe);
    PathBuf::from(stem.file_stem().unwrap_or(stem.as_os_str())).with_extension("tnet")
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or("expected a number, at least 1".to_owned())
}

/// Shows the training: a bar per epoch while it runs, then a line.
struct Display {
    bar: ProgressBar,
    quiet: bool,
    started: Instant,
}

impl Display {
    fn new(recipe: &Recipe, images: &DataSet, quiet: bool) -> Self {
        let count = recipe.images.unwrap_or(usize::MAX).min(images.len());
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(count as u64) };
        let style = ProgressStyle::with_template("epoch {prefix} {wide_bar:.cyan/blue} {pos}/{len} {msg}");
        bar.set_style(style.expect("the template is well formed"));
        Display { bar, quiet, started: Instant::now() }
    }
}

impl Observer for Display {
    fn batch(&mut self, progress: &Progress) {
        if progress.images as u64 <= self.bar.position() {
            self.bar.reset();
            self.bar.set_prefix(progress.epoch.to_string());
        }
        // Drawing is limited to a few times a second, but making the text is not.
        if !self.bar.is_hidden() && progress.images / 512 != self.bar.position() as usize / 512 {
            self.bar.set_message(format!("loss {:.4}  accuracy {:.2} %", progress.loss, 100.0 * progress.accuracy));
            self.bar.set_position(progress.images as u64);
        }
    }

    fn epoch(&mut self, epoch: &Epoch, _checkpoint: &dyn Fn() -> Checkpoint) -> Result<()> {
        if self.quiet {
            return Ok(());
        }
        let loss = |value: Option<f64>| value.map(|loss| format!("loss {loss:.4}  ")).unwrap_or_default();
        let measured = |name: &str, of: Option<f64>, accuracy: Option<f64>| {
            let text = |accuracy: f64| format!("   {name} {}accuracy {:.2} %", loss(of), 100.0 * accuracy);
            accuracy.map(text).unwrap_or_default()
        };
        let line = format!(
            "epoch {:>3}   {}accuracy {:.2} %{}{}   {:.1} s",
            epoch.epoch,
            loss(epoch.train_loss),
            100.0 * epoch.train_accuracy,
            measured("validation", epoch.validation_loss, epoch.validation_accuracy),
            measured("test", epoch.test_loss, epoch.test_accuracy),
            self.started.elapsed().as_secs_f64(),
        );
        // A closed standard output must not end a training.
        self.bar.suspend(|| print(&(line + "\n")).unwrap_or_default());
        Ok(())
    }
}
