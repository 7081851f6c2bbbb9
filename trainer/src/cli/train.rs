//! `thumbnet train`.

use super::{DataArgs, ModelFile, grouped, print};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thumbnet_trainer::checkpoint::Checkpoint;
use thumbnet_trainer::data::Parts;
use thumbnet_trainer::distill::Teacher;
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::evaluate::Evaluation;
use thumbnet_trainer::recipe::{self, Recipe, Transfer};
use thumbnet_trainer::run::Run;
use thumbnet_trainer::train::{Epoch, Observer, Progress, Training};
use thumbnet_trainer::{export, log, output, plot};

/// Train a network and export it, then measure the exported file on the test images.
///
/// Everything about it goes into a folder: the recipe as followed, the log, a checkpoint after every epoch, the model.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A built-in recipe (see `thumbnet recipes`) or a TOML file
    #[arg(default_value = recipe::DEFAULT, conflicts_with = "resume")]
    recipe: String,
    #[command(flatten)]
    data: DataArgs,
    /// The model file to write, beside the one in the folder of the run [default: the recipe's name with .tnet]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The folder to make for this run [default: runs/ and the recipe's name, with a number if there is one]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    run: Option<PathBuf>,
    /// Go on with the training of this folder, which was interrupted; the result is that of an uninterrupted one
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    changes: Changes,
    /// Use N threads [default: as many as the processor has cores]; the result is the same
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
    /// Write losses and accuracies as CSV, one row per epoch
    #[arg(long, value_name = "FILE.csv")]
    log: Option<PathBuf>,
    /// Draw the course of the training
    #[arg(long, value_name = "FILE.svg", value_parser = super::svg_file)]
    plot: Option<PathBuf>,
    /// Print the result only
    #[arg(long)]
    quiet: bool,
}

/// What is to be otherwise than in the recipe.
#[derive(Debug, clap::Args)]
struct Changes {
    /// Go through the images this many times, instead of the recipe's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "resume")]
    epochs: Option<u32>,
    /// Draw weights, dropout and shuffles from this seed, instead of the recipe's
    #[arg(long, value_name = "N", conflicts_with = "resume")]
    seed: Option<u32>,
    /// Train on the first N images, instead of the recipe's
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "resume")]
    subset: Option<usize>,
    /// Begin with the first layers of this model, as many as it has in common with the recipe
    #[arg(long, value_name = "MODEL", conflicts_with = "resume")]
    from: Option<PathBuf>,
    /// Leave the first N layers with weights as they are in that model
    #[arg(long, value_name = "N", requires = "from", default_value_t = 0)]
    freeze: usize,
}

impl Changes {
    fn apply(&self, recipe: &mut Recipe) {
        recipe.epochs = self.epochs.unwrap_or(recipe.epochs);
        recipe.seed = self.seed.unwrap_or(recipe.seed);
        recipe.images = self.subset.or(recipe.images);
        if let Some(path) = &self.from {
            recipe.transfer = Some(Transfer { from: path.display().to_string(), freeze: self.freeze });
        }
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    if let Some(threads) = args.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        pool.map_err(|e| Error::Option(format!("--threads {threads}: {e}")))?;
    }
    let (resumed, mut recipe, checkpoint) = match &args.resume {
        Some(path) => Run::open(path).map(|(run, recipe, checkpoint)| (Some(run), recipe, checkpoint))?,
        None => (None, Recipe::find(&args.recipe)?, None),
    };
    args.changes.apply(&mut recipe);
    let name = name(args.resume.as_deref().unwrap_or(Path::new(&args.recipe)));
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tnet")));
    for path in [Some(&out), args.log.as_ref(), args.plot.as_ref()].into_iter().flatten() {
        output::check_writable(path)?;
    }
    let Parts { training: images, test, .. } = args.data.source()?.parts()?;
    let distill = recipe.distill.clone();
    let teacher = distill.as_ref().map(|distill| ModelFile::read(Path::new(&distill.from))).transpose()?;
    let teacher_model = teacher.as_ref().map(ModelFile::model).transpose()?;
    let mut training = Training::new(&recipe, &images, &test)?;
    if let Some(Transfer { from, freeze }) = &recipe.transfer {
        start_from(&mut training, &ModelFile::read(Path::new(from))?, *freeze)?;
    }
    if let (Some(file), Some(model), Some(distill)) = (&teacher, &teacher_model, &distill) {
        training.learn_from(Teacher::new(model, distill, &images).map_err(|problem| file.error(problem))?);
    }
    if let (Some(run), Some(checkpoint)) = (&resumed, &checkpoint) {
        training.resume(checkpoint).map_err(|problem| Error::contents(&run.checkpoint(), problem))?;
    }
    let run = match (resumed, &args.run) {
        (Some(run), _) => run,
        (None, Some(path)) => Run::create(path, &recipe)?,
        (None, None) => Run::create_numbered(Path::new("runs"), &name, &recipe)?,
    };

    let done = checkpoint.map_or(0, |checkpoint| checkpoint.history().len());
    let mut display = Display::new(&recipe, &run, done, args.quiet);
    let trained = training.run(&mut display)?;
    display.bar.finish_and_clear();

    run.log(&trained.history)?;
    if let Some(path) = &args.log {
        output::replace(path, log::csv(&trained.history).as_bytes())?;
    }
    if let Some(path) = &args.plot {
        output::replace(path, plot::training(&name, &trained.history).as_bytes())?;
    }
    let file = export::export_trained(&trained, &recipe, &images)?;
    let kept = run.file("model.tnet");
    output::replace(&kept, &file)?;
    output::replace(&out, &file)?;
    let time = display.started.elapsed();
    // What is measured is the file as it now lies on the disk.
    let file = ModelFile::read(&kept)?;
    let (page, evaluation) =
        super::report::page(&name, &file, &test, Some(&recipe.to_toml()), &trained.history, Some(time))?;
    output::replace(&run.file("report.html"), page.as_bytes())?;
    report(&out, &file, &evaluation)?;
    print(&format!("{}: the recipe, the log, a checkpoint, the model and report.html\n", run.path().display()))
}

fn start_from(training: &mut Training<'_>, file: &ModelFile, freeze: usize) -> Result<()> {
    let taken = training.start_from(&file.model()?, freeze).map_err(|problem| file.error(problem))?;
    print(&format!(
        "{}: the first {taken} layers with weights are taken over, {freeze} of them kept\n",
        file.path.display()
    ))
}

fn report(path: &Path, file: &ModelFile, evaluation: &Evaluation) -> Result<()> {
    let parameters = file.model()?.layers().map(|layer| layer.parameters).sum();
    print(&format!(
        "{}: {} parameters, {} bytes\ntest accuracy {:.2} % ({} of {} images), mean loss {:.4}\n",
        path.display(),
        grouped(parameters),
        grouped(file.bytes.len() as u64),
        100.0 * evaluation.accuracy,
        evaluation.correct,
        evaluation.images,
        evaluation.loss,
    ))
}

/// What a run of this recipe or in this folder is called.
fn name(path: &Path) -> String {
    let path = path.components().next_back().map_or(path, |last| Path::new(last.as_os_str()));
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or("expected a number, at least 1".to_owned())
}

/// Shows the training: a bar per epoch while it runs, then a line.
struct Display<'a> {
    bar: ProgressBar,
    run: &'a Run,
    quiet: bool,
    /// Epochs of the whole training.
    epochs: u64,
    /// Those of them that are done.
    done: u64,
    /// Images learned from since then.
    images: usize,
    started: Instant,
}

impl<'a> Display<'a> {
    fn new(recipe: &Recipe, run: &'a Run, before: usize, quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(1) };
        let style = ProgressStyle::with_template("epoch {prefix} {wide_bar:.cyan/blue} {pos}/{len} {msg}");
        bar.set_style(style.expect("the template is well formed"));
        Display {
            bar,
            run,
            quiet,
            epochs: recipe.all_epochs(),
            done: before as u64,
            images: 0,
            started: Instant::now(),
        }
    }

    /// Images per second, and the time left at this speed.
    fn pace(&self, progress: &Progress) -> String {
        let here = self.images + progress.images;
        let pace = here as f64 / self.started.elapsed().as_secs_f64();
        let left = (self.epochs - self.done) as f64 * progress.of as f64 - progress.images as f64;
        let left = HumanDuration(Duration::try_from_secs_f64(left / pace).unwrap_or(Duration::MAX));
        format!("{} images/s, {left:#} left", grouped(pace as u64))
    }
}

impl Observer for Display<'_> {
    fn batch(&mut self, progress: &Progress) {
        // Drawing is limited to a few times a second, but making the text is not.
        if self.bar.is_hidden() || progress.images / 512 == self.bar.position() as usize / 512 {
            return;
        }
        if progress.images as u64 <= self.bar.position() {
            self.bar.reset();
        }
        self.bar.set_prefix(progress.epoch.to_string());
        self.bar.set_length(progress.of as u64);
        let (loss, accuracy) = (progress.loss, 100.0 * progress.accuracy);
        self.bar.set_message(format!("loss {loss:.4}  accuracy {accuracy:.2} %  {}", self.pace(progress)));
        self.bar.set_position(progress.images as u64);
    }

    fn epoch(&mut self, epoch: &Epoch, images: usize, checkpoint: &dyn Fn() -> Checkpoint) -> Result<()> {
        self.done += 1;
        self.images += images;
        self.run.keep(&checkpoint())?;
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
