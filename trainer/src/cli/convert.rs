//! `thumbnet convert`.

use super::{DataArgs, ModelFile, WEIGHT_TYPES, grouped, print, print_json, weight_type_name};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use std::path::PathBuf;
use thumbnet::Model;
use thumbnet::layer::WeightType;
use thumbnet_trainer::convert::convert;
use thumbnet_trainer::data::{Images, mnist};
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::evaluate::{self, Comparison};
use thumbnet_trainer::{batches, output};

/// Store a model's weights in another way, and measure what that costs on the 10,000 test images.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file
    model: PathBuf,
    /// How the weights are stored: f16 takes half of the bytes of f32
    #[arg(long, value_name = "TYPE", value_parser = weight_types())]
    weights: WeightType,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn weight_types() -> impl TypedValueParser<Value = WeightType> {
    PossibleValuesParser::new(WEIGHT_TYPES.map(weight_type_name)).map(|name| {
        let named = |weights: &WeightType| weight_type_name(*weights) == name;
        WEIGHT_TYPES.into_iter().find(named).expect("one of the possible values")
    })
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
    file_bytes: u64,
    weight_bytes: u64,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let model = file.model()?;
    let test = test_images(&args.data)?;
    let converted = convert(&model, args.weights).map_err(|problem| file.error(problem))?;
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

/// The test images; in their place the reason why there are none, unless the user named a folder.
fn test_images(data: &DataArgs) -> Result<std::result::Result<Images, String>> {
    match mnist::test(&data.folder()) {
        Ok(images) => Ok(Ok(images)),
        Err(missing @ Error::MissingData { .. }) if data.data.is_none() => Ok(Err(missing.to_string())),
        Err(e) => Err(e),
    }
}

fn size(model: &Model<'_>, file_bytes: usize) -> Size {
    let stored = |weights: &WeightType| model.layers().any(|info| info.layer.weight_type() == Some(*weights));
    let names: Vec<_> = WEIGHT_TYPES.into_iter().filter(stored).map(weight_type_name).collect();
    Size { weights: names.join("+"), file_bytes: file_bytes as u64, weight_bytes: model.weight_bytes() as u64 }
}

fn table(report: &Report) -> String {
    let Report { before, after, measured, not_measured } = report;
    let row = |name: &str, before: &str, after: &str| format!("{name:<18} {before:>11} {after:>11}");
    let bytes = |name, before: u64, after: u64| {
        let share = 100.0 * after as f64 / before.max(1) as f64;
        format!("{}   {share:.1} %\n", row(name, &grouped(before), &grouped(after)))
    };
    let mut text = row("", "before", "after") + "\n" + &row("weights", &before.weights, &after.weights) + "\n";
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
