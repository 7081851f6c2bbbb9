//! `thumbnet tune`.

use super::{DataArgs, print};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use thumbnet_trainer::checkpoint::Checkpoint;
use thumbnet_trainer::data::{DataSet, Parts};
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::output;
use thumbnet_trainer::plot;
use thumbnet_trainer::recipe::Recipe;
use thumbnet_trainer::train::{Epoch, Observer, Progress, train};
use thumbnet_trainer::tune::{self, Axis, Outcome, Trial};

/// Train a recipe with different values of its keys, on all cores, and show which do best on images that are kept apart.
///
/// The test images are not used. A search that was interrupted goes on where it was when the same command is given again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A built-in recipe (see `thumbnet recipes`) or a TOML file
    recipe: String,
    #[command(flatten)]
    data: DataArgs,
    /// Try every combination of these values, such as learning_rate=0.01,0.1 hidden=64,128 layers.0.activation=relu,tanh
    #[arg(long, value_name = "KEY=VALUES", num_args = 1.., required_unless_present = "space", conflicts_with_all = ["space", "random"])]
    grid: Vec<Axis>,
    /// Draw from these values at random, lists or ranges such as learning_rate=0.001..0.1; with --random
    #[arg(long, value_name = "KEY=VALUES", num_args = 1.., requires = "random")]
    space: Vec<Axis>,
    /// Try so many combinations drawn at random
    #[arg(long, value_name = "N", requires = "space")]
    random: Option<usize>,
    /// Draw them from this seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u32,
    /// Go through the images this many times, instead of the recipe's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Train on the first N images, instead of the recipe's
    #[arg(long, value_name = "N")]
    subset: Option<usize>,
    /// Train so many networks at a time [default: as many as the processor has cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// The folder for the results [default: runs/tune- and the recipe's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut recipe = Recipe::find(&args.recipe)?;
    recipe.epochs = args.epochs.unwrap_or(recipe.epochs);
    recipe.images = args.subset.or(recipe.images);
    let axes = if args.grid.is_empty() { &args.space } else { &args.grid };
    let trials = match args.random {
        Some(count) => tune::random(axes, count, args.seed),
        None => tune::grid(axes).map_err(Error::Option)?,
    };
    // A mistake in the last combination is better known before the first is trained.
    let recipes = trials.iter().map(|trial| tune::apply(&recipe, axes, trial)).collect::<Result<Vec<_>>>()?;
    let name = Path::new(&args.recipe).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = args.out.clone().unwrap_or_else(|| Path::new("runs").join(format!("tune-{name}")));
    std::fs::create_dir_all(&folder).map_err(Error::write(&folder))?;
    let table = folder.join("trials.csv");
    let done = match std::fs::read_to_string(&table) {
        Ok(text) => tune::parse_csv(&table, &text, axes)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        // Not to be written over.
        Err(e) => return Err(Error::read(&table)(e)),
    };
    let Parts { training: images, .. } = args.data.source()?.parts()?;
    let search = Search { axes, trials: &trials, recipes: &recipes, images: &images, table: &table };
    let jobs = args.jobs.map_or_else(|| thumbnet_trainer::batches::cores().get(), usize::from);
    let mut outcomes = search.run(done, jobs)?;
    outcomes.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy).then(a.loss.total_cmp(&b.loss)));
    let picture = folder.join("trials.svg");
    output::replace(&picture, plot::trials(&name, axes, &outcomes).as_bytes())?;
    print(&format!("{}\n{} and {}\n", ranking(axes, &outcomes), table.display(), picture.display()))
}

/// A search in progress.
struct Search<'a> {
    axes: &'a [Axis],
    trials: &'a [Trial],
    recipes: &'a [Recipe],
    images: &'a DataSet,
    table: &'a Path,
}

impl Search<'_> {
    /// Trains what is not among `done`, `jobs` networks at a time; gives the outcomes of all trials. The table is written anew
    /// after each.
    fn run(&self, done: Vec<Outcome>, jobs: usize) -> Result<Vec<Outcome>> {
        let is_done = |number: &usize| done.iter().any(|outcome| outcome.trial == tune::texts(&self.trials[*number]));
        let left: Vec<usize> = (0..self.trials.len()).filter(|number| !is_done(number)).collect();
        if left.len() < self.trials.len() {
            print(&format!("{} of {} are done already\n", self.trials.len() - left.len(), self.trials.len()))?;
        }
        let (next, outcomes, bars) = (AtomicUsize::new(0), Mutex::new(done), MultiProgress::new());
        let work = || -> Result<()> {
            // One thread each: several networks side by side need no others.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
            let pool = pool.map_err(|e| Error::Option(format!("no thread to train on: {e}")))?;
            while let Some(&number) = left.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = pool.install(|| self.train(number, &bars))?;
                let line = row(&outcome.trial, &outcome);
                bars.suspend(|| print(&(line + "\n")))?;
                let mut outcomes = outcomes.lock().expect("no thread panics with it");
                outcomes.push(outcome);
                output::replace(self.table, tune::csv(self.axes, &outcomes).as_bytes())?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs.min(left.len())).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a training does not panic"))
        })?;
        Ok(outcomes.into_inner().expect("no thread panics with it"))
    }

    fn train(&self, number: usize, bars: &MultiProgress) -> Result<Outcome> {
        let (recipe, trial) = (&self.recipes[number], tune::texts(&self.trials[number]));
        let bar = bars.add(ProgressBar::new(recipe.all_epochs() * 1000));
        let style = ProgressStyle::with_template("{prefix} {wide_bar:.cyan/blue} {msg}");
        bar.set_style(style.expect("the template is well formed"));
        bar.set_prefix(trial.join(" "));
        let started = Instant::now();
        // There is nothing to test on: every recipe here keeps images apart.
        let trained = train(recipe, self.images, self.images, &mut Display { bar: &bar, epochs: 0 });
        bar.finish_and_clear();
        let (accuracy, loss) = match trained {
            Ok(trained) => {
                let last = trained.history.last().expect("at least one epoch");
                (last.validation_accuracy.unwrap_or(0.0), last.validation_loss.unwrap_or(f64::INFINITY))
            }
            Err(Error::Diverged { .. }) => (0.0, f64::INFINITY),
            Err(other) => return Err(other),
        };
        Ok(Outcome { trial, accuracy, loss, seconds: started.elapsed().as_secs_f64() })
    }
}

/// Shows how far a training is.
struct Display<'a> {
    bar: &'a ProgressBar,
    epochs: u64,
}

impl Observer for Display<'_> {
    fn batch(&mut self, progress: &Progress) {
        self.bar.set_position(self.epochs * 1000 + (progress.images * 1000 / progress.of) as u64);
    }

    fn epoch(&mut self, epoch: &Epoch, _images: usize, _checkpoint: &dyn Fn() -> Checkpoint) -> Result<()> {
        self.epochs += 1;
        let accuracy = 100.0 * epoch.validation_accuracy.unwrap_or(0.0);
        self.bar.set_message(format!("epoch {}  {accuracy:.2} %", self.epochs));
        Ok(())
    }
}

fn row(values: &[String], outcome: &Outcome) -> String {
    let Outcome { accuracy, loss, seconds, .. } = outcome;
    format!("{:<40} {:>6.2} %  loss {loss:.4}  {seconds:>6.1} s", values.join("  "), 100.0 * accuracy)
}

/// The outcomes, the best first.
fn ranking(axes: &[Axis], outcomes: &[Outcome]) -> String {
    let keys: Vec<&str> = axes.iter().map(|axis| axis.key.as_str()).collect();
    let mut text = format!("\nthe best first, by accuracy on the images kept apart:\n{}\n", keys.join("  "));
    for outcome in outcomes {
        text += &(row(&outcome.trial, outcome) + "\n");
    }
    text
}
