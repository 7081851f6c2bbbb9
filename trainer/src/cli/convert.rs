//! `thumbnet convert`.

use super::{DataArgs, ModelFile, grouped, packed_for, print, print_json, weight_type_name};
use serde::Serialize;
use std::path::PathBuf;
use thumbnet::layer::WeightType;
use thumbnet::{AlignedBuf, Model};
use thumbnet_trainer::data::DataSet;
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::evaluate::{self, Comparison};
use thumbnet_trainer::recipe::Processor;
use thumbnet_trainer::{batches, convert, output, quantize};

/// Store a model's weights in another way, and measure what that costs on the test images.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file
    model: PathBuf,
    /// How the weights are stored: f16 takes half of the bytes of f32, int8 a quarter. Int8 weights make the arithmetic
    /// int8, too: the ranges of the activations are measured on training images
    #[arg(long, value_name = "TYPE")]
    weights: Weights,
    /// What int8 weights are packed for; every processor runs either, with the same results [default: cortex-m]
    #[arg(long = "for", value_name = "PROCESSOR")]
    processor: Option<For>,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A type that weights can be stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Weights {
    F32,
    F16,
    Int8,
}

/// See [`Processor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum For {
    CortexM,
    Desktop,
}

/// What became of the model.
#[derive(Debug, Serialize)]
struct Report {
    before: Size,
    after: Size,
    /// `None` where nothing was measured.
    measured: Option<Comparison>,
    /// Why nothing was measured.
    not_measured: Option<String>,
}

/// What a model takes.
#[derive(Debug, Serialize)]
struct Size {
    /// The types that its weights are stored as.
    weights: String,
    /// What int8 weights are packed for.
    packed_for: Option<&'static str>,
    file_bytes: u64,
    weight_bytes: u64,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let model = file.model()?;
    let converted = convert(args, &file, &model)?;
    let test = test_images(&args.data)?;
    let after = Model::load(&converted).expect("an encoded model loads");
    let measured = test.and_then(|test| {
        let compared = evaluate::compare([&model, &after], &test, batches::cores());
        compared.map_err(|problem| format!("the model {problem}"))
    });
    let not_measured = measured.as_ref().err().cloned();
    let report = Report {
        before: size(&model, file.bytes.len()),
        after: size(&after, converted.len()),
        measured: measured.ok(),
        not_measured,
    };
    output::replace(&args.out, &converted)?;
    if args.json { print_json(&report) } else { print(&table(&report)) }
}

/// The model as the arguments want it.
fn convert(args: &Args, file: &ModelFile, model: &Model<'_>) -> Result<AlignedBuf> {
    let refused = |problem| file.error(problem);
    let float = match (args.weights, args.processor) {
        (Weights::Int8, processor) => {
            let images = training_images(&args.data)?;
            let steps = quantize::calibrate(model, &images).map_err(refused)?;
            let processor = match processor {
                Some(For::Desktop) => Processor::Desktop,
                Some(For::CortexM) | None => Processor::CortexM,
            };
            return quantize::quantize(model, &steps, processor.into()).map_err(refused);
        }
        (_, Some(_)) => return Err(Error::Option("--for: only int8 weights are packed for a processor".to_owned())),
        (Weights::F32, None) => WeightType::F32,
        (Weights::F16, None) => WeightType::F16,
    };
    convert::convert(model, float).map_err(refused)
}

/// The training images, which int8 weights cannot do without.
fn training_images(data: &DataArgs) -> Result<DataSet> {
    data.source().and_then(|source| source.training()).map_err(|e| match e {
        missing @ Error::MissingData { .. } => Error::Option(format!(
            "--weights int8 measures the range of each layer's activations on training images, but there are none: {missing}"
        )),
        other => other,
    })
}

/// The test images; in their place the reason why there are none, unless the user named a path.
fn test_images(data: &DataArgs) -> Result<std::result::Result<DataSet, String>> {
    match data.source().and_then(|source| source.test()) {
        Ok(images) => Ok(Ok(images)),
        Err(missing @ Error::MissingData { .. }) if data.data.is_none() => Ok(Err(missing.to_string())),
        Err(e) => Err(e),
    }
}

fn size(model: &Model<'_>, file_bytes: usize) -> Size {
    let stored: Vec<WeightType> = model.layers().filter_map(|info| info.layer.weight_type()).collect();
    let mut names: Vec<_> = stored.iter().map(|weights| weight_type_name(*weights)).collect();
    names.dedup();
    Size {
        weights: names.join("+"),
        packed_for: stored.iter().find_map(|weights| packed_for(*weights)),
        file_bytes: file_bytes as u64,
        weight_bytes: model.weight_bytes() as u64,
    }
}

fn table(report: &Report) -> String {
    let Report { before, after, measured, not_measured } = report;
    let row = |name: &str, before: &str, after: &str| format!("{name:<18} {before:>11} {after:>11}");
    let bytes = |name, before: u64, after: u64| {
        let share = 100.0 * after as f64 / before.max(1) as f64;
        format!("{}   {share:.1} %\n", row(name, &grouped(before), &grouped(after)))
    };
    let mut text = row("", "before", "after") + "\n" + &row("weights", &before.weights, &after.weights);
    text += &after.packed_for.map(|processor| format!("   for {processor}")).unwrap_or_default();
    text.push('\n');
    text += &bytes("bytes of the file", before.file_bytes, after.file_bytes);
    text += &bytes("bytes of weights", before.weight_bytes, after.weight_bytes);
    if let Some(found) = measured {
        let percent = |accuracy: f64| format!("{:.2} %", 100.0 * accuracy);
        text += &row("accuracy", &percent(found.accuracy_before), &percent(found.accuracy_after));
        text += &format!("   {} and {} of {} images\n", found.correct_before, found.correct_after, found.images);
        text += &format!(
            "\n{} answers changed, largest difference of a logit {:.2e}\n",
            found.changed_answers, found.largest_logit_difference
        );
    }
    if let Some(reason) = not_measured {
        text += &format!("\naccuracy not measured: {reason}\n");
    }
    text
}
