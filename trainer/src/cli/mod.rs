//! The command line: one module per command, and what they share.

mod bench;
mod convert;
mod device;
mod ensemble;
mod eval;
mod inspect;
mod predict;
mod recipes;
mod train;

use clap::{Parser, Subcommand};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use thumbnet::ensemble::{MAGIC, member_files};
use thumbnet::layer::{Packing, WeightType};
use thumbnet::{AlignedBuf, Backend, Ensemble, Model};
use thumbnet_trainer::data::mnist;
use thumbnet_trainer::error::{Error, Result};

/// Trains digit classifiers for the thumbnet core and looks at what it exported.
#[derive(Debug, Parser)]
#[command(name = "thumbnet", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::Args),
    Recipes,
    Eval(eval::Args),
    Predict(predict::Args),
    Inspect(inspect::Args),
    Bench(bench::Args),
    Convert(convert::Args),
    Ensemble(ensemble::Args),
    Device(device::Args),
}

/// Runs the command that the process was started with.
pub(crate) fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Train(args) => train::run(&args),
        Command::Recipes => recipes::run(),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Ensemble(args) => ensemble::run(&args),
        Command::Device(args) => device::run(&args),
    }
}

/// Where the data set is.
#[derive(Debug, clap::Args)]
struct DataArgs {
    /// Folder with the four MNIST files, gzipped or not [default: data/mnist]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

impl DataArgs {
    fn folder(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(mnist::default_folder)
    }
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

fn weight_type_name(weights: WeightType) -> &'static str {
    match weights {
        WeightType::F32 => "f32",
        WeightType::F16 => "f16",
        WeightType::Int8(_) => "int8",
    }
}

/// What int8 weights are packed for, as `convert --for` calls it; `None` for other weights.
fn packed_for(weights: WeightType) -> Option<&'static str> {
    match weights {
        WeightType::F32 | WeightType::F16 => None,
        WeightType::Int8(Packing::Folded) => Some("cortex-m"),
        WeightType::Int8(Packing::Grouped) => Some("desktop"),
    }
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

/// `12345678` as `12,345,678`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
    }
}
