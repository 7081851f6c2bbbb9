//! `thumbnet report`.

use super::{DataArgs, ModelFile, labels, print};
use std::path::{Path, PathBuf};
use thumbnet::Input;
use thumbnet_trainer::data::mnist;
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::report::{Examples, Report};
use thumbnet_trainer::{batches, evaluate, log, mistakes, output, report};

/// Write a page about a model: key figures, confusion matrix, the worst mistakes, layers, kernels.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
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
    let model = file.model()?;
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(Error::read(path));
    let recipe = args.recipe.as_ref().map(read).transpose()?;
    let history = args.log.as_deref().map(history).transpose()?.unwrap_or_default();
    let test = mnist::test(&args.data.folder())?;
    let evaluation = evaluate::evaluate(&model, &test, batches::cores()).map_err(|problem| file.error(problem))?;
    let mut outputs = vec![0.0; test.len() * model.output_len()];
    let examples = Input::U8(&test.pixels);
    batches::run_batch(&model, examples, &mut outputs, batches::cores()).map_err(|e| file.error(e.to_string()))?;
    let page = Report {
        title: &args.model.file_stem().unwrap_or_default().to_string_lossy(),
        recipe: recipe.as_deref(),
        history: &history,
        training_time: None,
        models: std::slice::from_ref(&model),
        file_bytes: file.bytes.len(),
        scratch_bytes: model.scratch_bytes(),
        classes: &labels(&model),
        evaluation: &evaluation,
        examples: Examples { values: examples, shape: model.input().shape },
        mistakes: &mistakes::worst(&outputs, &test.labels, model.output_len(), report::MISTAKES),
    }
    .html();
    output::replace(&args.out, page.as_bytes())?;
    print(&format!("{}: {} bytes\n", args.out.display(), page.len()))
}

fn history(path: &Path) -> Result<Vec<thumbnet_trainer::train::Epoch>> {
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    log::parse(&text).map_err(|problem| Error::contents(path, problem))
}
