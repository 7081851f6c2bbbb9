//! The command line: one module per command, and what they share.

mod bench;
mod convert;
mod data;
mod device;
mod ensemble;
mod eval;
mod inspect;
mod predict;
mod recipes;
mod report;
mod train;
mod tune;

use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use thumbnet::ensemble::{MAGIC, member_files};
use thumbnet::layer::Shape;
use thumbnet::{AlignedBuf, Backend, Ensemble, Model};
use thumbnet_trainer::data::{DataSet, Options, Source, mnist};
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::summary::{grouped, packed_for, weight_type_name};

/// Trains classifiers of pictures and signals for the thumbnet core, and looks at what it exported.
#[derive(Debug, Parser)]
#[command(name = "thumbnet", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Tune(tune::Args),
    /// List the built-in recipes
    Recipes,
    Data(data::Args),
    Eval(eval::Args),
    Predict(predict::Args),
    Inspect(inspect::Args),
    Report(report::Args),
    Bench(bench::Args),
    Convert(convert::Args),
    Ensemble(ensemble::Args),
    Device(device::Args),
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Train(args) => train::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Recipes => recipes::run(),
        Command::Data(args) => data::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Ensemble(args) => ensemble::run(&args),
        Command::Device(args) => device::run(&args),
    }
}

/// The name of a picture that is to be written.
fn svg_file(name: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(name);
    let is_svg = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
    if is_svg { Ok(path) } else { Err("the picture is an SVG: expected a name that ends in .svg".to_owned()) }
}

/// Where the data set is.
#[derive(Debug, clap::Args)]
struct DataArgs {
    /// A folder with the four MNIST files, a folder of pictures for each class, a .npz or a CSV file [default: data/mnist]
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    #[command(flatten)]
    options: DataOptions,
}

/// What the data does not say by itself.
#[derive(Debug, clap::Args)]
struct DataOptions {
    /// Take rows of numbers as examples of this shape (height, width, channels), or bring pictures to it
    #[arg(long, value_name = "HxW[xC]", value_parser = parse_shape)]
    shape: Option<Shape>,
    /// The column of a CSV file with the labels, by name or number [default: label, class, target, y, or else the last]
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Take only the examples of these classes, numbered in this order
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    classes: Option<Vec<String>>,
}

impl DataArgs {
    fn source(&self) -> Result<Source> {
        self.options.open(&self.data.clone().unwrap_or_else(mnist::default_folder))
    }
}

impl DataOptions {
    fn open(&self, path: &Path) -> Result<Source> {
        let DataOptions { shape, label, classes } = self;
        Source::open(path, Options { shape: *shape, label: label.clone(), classes: classes.clone() })
    }
}

/// Which examples of a data set.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Part {
    /// Those to test on; every fifth of each class if the data has no test part
    Test,
    /// Those to train on
    Training,
    /// All of them: for a file that has nothing else
    All,
}

impl Part {
    fn read(self, data: &DataArgs) -> Result<DataSet> {
        let source = data.source()?;
        match self {
            Part::Test => source.test(),
            Part::Training => source.training(),
            Part::All => source.all(),
        }
    }
}

fn parse_shape(text: &str) -> std::result::Result<Shape, String> {
    let sizes: Option<Vec<u16>> = text.split('x').map(|size| size.parse().ok()).collect();
    let shape = match sizes.as_deref() {
        Some(&[height, width]) => Shape::new(height, width, 1),
        Some(&[height, width, channels]) => Shape::new(height, width, channels),
        _ => Shape::new(0, 0, 0),
    };
    let problem = "expected height, width and, unless it is 1, the number of channels, as in 28x28 or 1x128x3";
    shape.elements().map(|_| shape).ok_or_else(|| problem.to_owned())
}

/// A file in memory, which should be a model or an ensemble.
struct ModelFile {
    path: PathBuf,
    bytes: AlignedBuf,
}

impl ModelFile {
    fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::read(path))?;
        Ok(ModelFile { path: path.to_owned(), bytes: AlignedBuf::from_bytes(&bytes) })
    }

    /// The model that the file is.
    fn model(&self) -> Result<Model<'_>> {
        if self.is_ensemble() {
            return Err(self.error("an ensemble of models, but one model is expected here"));
        }
        Model::load(&self.bytes).map_err(|e| self.error(format!("not a usable model: {e}")))
    }

    fn is_ensemble(&self) -> bool {
        self.bytes.starts_with(&MAGIC)
    }

    /// The ensemble that the file is, or one of the model that it is: that gives what the model gives.
    fn ensemble(&self) -> Result<Ensemble<'_>> {
        if self.is_ensemble() {
            Ensemble::load(&self.bytes).map_err(|e| self.error(format!("not a usable ensemble: {e}")))
        } else {
            let model = self.model()?;
            Ok(Ensemble::from_models([model]).expect("a model by itself"))
        }
    }

    /// The models in the file, each a file of its own.
    fn member_files(&self) -> Result<Vec<&[u8]>> {
        self.ensemble()?;
        if !self.is_ensemble() {
            return Ok(vec![&self.bytes]);
        }
        Ok(member_files(&self.bytes).expect("it was loaded").collect())
    }

    /// An error about this file.
    fn error(&self, problem: impl Into<String>) -> Error {
        Error::contents(&self.path, problem)
    }
}

/// All members of all files as one ensemble. An error names the file that does not fit the first.
fn together<'f>(files: &'f [ModelFile]) -> Result<Ensemble<'f>> {
    let mut members: Vec<Model<'f>> = Vec::new();
    for file in files {
        members.extend_from_slice(file.ensemble()?.members());
        Ensemble::from_models(members.iter().cloned())
            .map_err(|e| file.error(format!("cannot be averaged with {}: {e}", files[0].path.display())))?;
    }
    Ensemble::from_models(members).map_err(|e| Error::Option(e.to_string()))
}

/// The backend called `name`, or the best one.
fn backend(name: Option<&str>) -> Result<Backend> {
    let Some(name) = name else { return Ok(Backend::best()) };
    Backend::from_name(name).ok_or_else(|| {
        let known = Backend::available().map(Backend::name).collect::<Vec<_>>().join(", ");
        Error::Option(format!("--backend {name}: this machine has {known}"))
    })
}

/// The names of a model's classes; their numbers where it has no labels.
fn labels(model: &Ensemble<'_>) -> Vec<String> {
    let name = |class| match model.label(class) {
        "" => class.to_string(),
        label => label.to_owned(),
    };
    (0..model.output_len()).map(name).collect()
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::write(Path::new("standard output"))(e)),
        _ => Ok(()),
    }
}

/// Writes a value as JSON to standard output.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain values are always JSON");
    print(&(text + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
