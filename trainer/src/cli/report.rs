//! `thumbnet report`.

use super::{DataArgs, ModelFile, Part, labels, print};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thumbnet_trainer::data::DataSet;
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::evaluate::{self, Evaluation};
use thumbnet_trainer::report::{Examples, Report};
use thumbnet_trainer::train::Epoch;
use thumbnet_trainer::{batches, log, mistakes, output, report};

/// Write a page about a model: key figures, confusion matrix, the worst mistakes, layers, kernels.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Which of the examples
    #[arg(long, value_name = "PART", default_value = "test")]
    part: Part,
    /// The log of the training, for its course
    #[arg(long, value_name = "FILE.csv")]
    log: Option<PathBuf>,
    /// The recipe of the training, to be quoted
    #[arg(long, value_name = "FILE.toml")]
    recipe: Option<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE.html", default_value = "report.html")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<()> {
    output::check_writable(&args.out)?;
    let file = ModelFile::read(&args.model)?;
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(Error::read(path));
    let recipe = args.recipe.as_ref().map(read).transpose()?;
    let history = args.log.as_deref().map(history).transpose()?.unwrap_or_default();
    let title = args.model.file_stem().unwrap_or_default().to_string_lossy();
    let (page, _) = page(&title, &file, &args.part.read(&args.data)?, recipe.as_deref(), &history, None)?;
    output::replace(&args.out, page.as_bytes())?;
    print(&format!("{}: {} bytes\n", args.out.display(), page.len()))
}

/// The page called `title` about the model in `file`, and what it does with `test`; the rest is about its training.
pub(super) fn page(
    title: &str,
    file: &ModelFile,
    test: &DataSet,
    recipe: Option<&str>,
    history: &[Epoch],
    training_time: Option<Duration>,
) -> Result<(String, Evaluation)> {
    let whole = file.ensemble()?;
    let refused = |problem: String| file.error(problem);
    let outputs = evaluate::ensemble_outputs(&whole, test, batches::cores()).map_err(refused)?;
    let evaluation = evaluate::evaluate_outputs(&whole, test, &outputs).map_err(refused)?;
    let classes = evaluate::labels_for(&whole.members()[0], test).map_err(refused)?;
    let values = test.values_for(whole.input());
    let page = Report {
        title,
        recipe,
        history,
        training_time,
        models: whole.members(),
        file_bytes: file.bytes.len(),
        scratch_bytes: match whole.members() {
            [model] => model.scratch_bytes(),
            _ => whole.scratch_bytes(),
        },
        classes: &labels(&whole),
        evaluation: &evaluation,
        examples: Examples { values: values.as_input(), shape: test.input.shape },
        mistakes: &mistakes::worst(&outputs, &classes, whole.output_len(), report::MISTAKES),
    };
    let html = page.html();
    Ok((html, evaluation))
}

fn history(path: &Path) -> Result<Vec<Epoch>> {
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    log::parse(&text).map_err(|problem| Error::contents(path, problem))
}
