//! `thumbnet eval`.

use super::{DataArgs, ModelFile, Part, backend, labels, print, print_json, together};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use thumbnet_trainer::error::Result;
use thumbnet_trainer::evaluate::{self, Evaluation};
use thumbnet_trainer::{batches, output, plot};

/// Run models over the test images: accuracy, mean loss, accuracy per class, confusion matrix.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file, or an ensemble; several are run one by one, and then averaged as an ensemble of all
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
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
    #[arg(long, value_name = "FILE.svg", value_parser = super::svg_file)]
    plot: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What several models do, each by itself and all together.
#[derive(Debug, Serialize)]
struct Report {
    models: Vec<Single>,
    together: Evaluation,
}

/// What one of them does.
#[derive(Debug, Serialize)]
struct Single {
    model: String,
    #[serde(flatten)]
    evaluation: Evaluation,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let files = args.models.iter().map(|path| ModelFile::read(path)).collect::<Result<Vec<_>>>()?;
    let backend = backend(args.backend.as_deref())?;
    let all = together(&files)?.with_backend(backend);
    let test = args.part.read(&args.data)?;
    let threads = args.threads.unwrap_or_else(batches::cores);
    let single = |file: &ModelFile| {
        let evaluation = if file.is_ensemble() {
            evaluate::evaluate_ensemble(&file.ensemble()?.with_backend(backend), &test, threads)
        } else {
            evaluate::evaluate(&file.model()?.with_backend(backend), &test, threads)
        };
        evaluation.map_err(|problem| file.error(problem))
    };
    let mut singles = Vec::new();
    for file in &files {
        singles.push(Single { model: file.path.display().to_string(), evaluation: single(file)? });
    }
    let together = match &singles[..] {
        [alone] => alone.evaluation.clone(),
        _ => evaluate::evaluate_ensemble(&all, &test, threads).map_err(|problem| files[0].error(problem))?,
    };
    let labels = labels(&all);
    if let Some(path) = &args.plot {
        let names: Vec<&str> = labels.iter().map(String::as_str).collect();
        let stems = args.models.iter().map(|path| path.file_stem().unwrap_or_default().to_string_lossy());
        let title = stems.collect::<Vec<_>>().join(" + ");
        output::replace(path, plot::confusion(&title, &together, &names).as_bytes())?;
    }
    match (args.json, singles.len()) {
        (true, 1) => print_json(&together),
        (true, _) => print_json(&Report { models: singles, together }),
        (false, 1) => print(&table(&together, &labels)),
        (false, _) => print(&(one_by_one(&singles) + "\ntogether: " + &table(&together, &labels))),
    }
}

/// A line for each of several models.
fn one_by_one(singles: &[Single]) -> String {
    let width = singles.iter().map(|single| single.model.chars().count()).max().unwrap_or(0);
    let line = |Single { model, evaluation: Evaluation { accuracy, loss, .. } }: &Single| {
        format!("{model:<width$}  accuracy {:>6.2} %, mean loss {loss:.4}\n", 100.0 * accuracy)
    };
    singles.iter().map(line).collect()
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
