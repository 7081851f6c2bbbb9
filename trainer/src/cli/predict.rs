//! `thumbnet predict`.

use super::{ModelFile, backend, labels, print, print_json};
use serde::Serialize;
use std::path::{Path, PathBuf};
use thumbnet::{AlignedBuf, Ensemble};
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::image;

/// Classify pictures of digits: PNG or PGM of any size, dark on light or light on dark.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file, or an ensemble
    model: PathBuf,
    /// The pictures
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Run on this backend of the core, instead of the fastest
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Print JSON: a list with one object per picture
    #[arg(long)]
    json: bool,
}

/// What a model says of a picture.
#[derive(Debug, Serialize)]
struct Prediction {
    image: String,
    class: usize,
    label: String,
    probability: f32,
    /// The model's outputs in the order of the classes.
    probabilities: Vec<f32>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let model = file.ensemble()?.with_backend(backend(args.backend.as_deref())?);
    let shape = model.input().shape;
    if shape.channels != 1 {
        return Err(file.error(format!("takes {} channels, but pictures here are grey", shape.channels)));
    }
    let predictions = args.images.iter().map(|path| predict(&model, path)).collect::<Result<Vec<_>>>()?;
    if args.json {
        return print_json(&predictions);
    }
    let labels = labels(&model);
    predictions.iter().try_for_each(|prediction| print(&lines(prediction, &labels)))
}

fn predict(model: &Ensemble<'_>, path: &Path) -> Result<Prediction> {
    let shape = model.input().shape;
    let pixels = image::prepare(&image::read(path)?, shape.height.into(), shape.width.into())
        .map_err(|problem| Error::contents(path, problem))?;
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let refused = |e: thumbnet::RunError| Error::contents(path, e.to_string());
    let found = model.classify(&pixels[..], &mut scratch).map_err(refused)?;
    let probabilities = model.run(&pixels[..], &mut scratch).map_err(refused)?.to_vec();
    Ok(Prediction {
        image: path.display().to_string(),
        class: found.class,
        label: labels(model)[found.class].clone(),
        probability: found.probability,
        probabilities,
    })
}

/// The answer, and below it what the model gives to every class.
fn lines(prediction: &Prediction, labels: &[String]) -> String {
    let Prediction { image, label, probability, probabilities, .. } = prediction;
    let mut text = format!("{image}: {label} ({:.1} %)\n ", 100.0 * probability);
    for (label, probability) in labels.iter().zip(probabilities) {
        text += &format!("  {label}: {:.1} %", 100.0 * probability);
    }
    text + "\n"
}
