//! `thumbnet eval`.

use super::{DataArgs, ModelFile, Part, backend, labels, print, print_json};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use thumbnet_trainer::error::Result;
use thumbnet_trainer::evaluate::{self, Evaluation};
use thumbnet_trainer::{batches, output, plot};

/// Run a model over the test images: accuracy, mean loss, accuracy per class, confusion matrix.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Which of the examples
    #[arg(long, value_name = "PART", default_value = "test")]
    part: Part,
    /// Run on this backend of the core, instead of the fastest
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Run on so many cores [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Draw the confusion matrix
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let model = file.model()?.with_backend(backend(args.backend.as_deref())?);
    let test = args.part.read(&args.data)?;
    let evaluation = evaluate::evaluate(&model, &test, args.threads.unwrap_or_else(batches::cores))
        .map_err(|problem| file.error(problem))?;
    let labels = labels(&model);
    if let Some(path) = &args.plot {
        let names: Vec<&str> = labels.iter().map(String::as_str).collect();
        let title = args.model.file_stem().unwrap_or_default().to_string_lossy();
        output::replace(path, plot::confusion(&title, &evaluation, &names).as_bytes())?;
    }
    if args.json { print_json(&evaluation) } else { print(&table(&evaluation, &labels)) }
}

fn table(evaluation: &Evaluation, labels: &[String]) -> String {
    let Evaluation { accuracy, correct, images, loss, .. } = evaluation;
    let mut text =
        format!("accuracy {:.2} % ({correct} of {images} images), mean loss {loss:.4}\n\n", 100.0 * accuracy);
    let cells = evaluation.confusion.iter().flatten().map(|count| count.to_string().len());
    let width = labels.iter().map(|label| label.chars().count()).chain(cells).max().unwrap_or(0);
    let first = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0).max("label".len());
    text += &format!("{:first$}  accuracy   answers:", "label");
    labels.iter().for_each(|label| text += &format!(" {label:>width$}"));
    text.push('\n');
    for ((label, share), row) in labels.iter().zip(&evaluation.per_class).zip(&evaluation.confusion) {
        text += &format!("{label:>first$}  {:>6.2} %            ", 100.0 * share);
        row.iter().for_each(|count| text += &format!(" {count:>width$}"));
        text.push('\n');
    }
    text
}
