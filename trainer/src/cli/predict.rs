//! `thumbnet predict`.

use super::{DataArgs, ModelFile, Part, backend, labels, print, print_json};
use serde::Serialize;
use std::path::{Path, PathBuf};
use thumbnet::{AlignedBuf, Ensemble, Input};
use thumbnet_trainer::data::{Picture, shape_text};
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::{evaluate, image};

/// Classify pictures of digits (PNG or PGM of any size, dark on light or light on dark), other pictures, or examples of a data
/// set.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file, or an ensemble
    model: PathBuf,
    /// The pictures
    #[arg(required_unless_present = "data", conflicts_with = "data", value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Take the pictures as they are, instead of cutting out a digit; they must have the size that the model takes
    #[arg(long)]
    as_is: bool,
    #[command(flatten)]
    data: DataArgs,
    /// Which examples of --data
    #[arg(long, value_name = "PART", default_value = "test")]
    part: Part,
    /// The first N examples of --data
    #[arg(long, value_name = "N", default_value_t = 10)]
    limit: usize,
    /// Run on this backend of the core, instead of the fastest
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Print JSON: a list with one object per picture
    #[arg(long)]
    json: bool,
}

/// What a model says of a picture or another example.
#[derive(Debug, Serialize)]
struct Prediction {
    image: String,
    /// The class that the data says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    class: usize,
    label: String,
    probability: f32,
    /// The model's outputs in the order of the classes.
    probabilities: Vec<f32>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let model = file.ensemble()?.with_backend(backend(args.backend.as_deref())?);
    let predictions = match args.data.data {
        Some(_) => of_data(&file, &model, args)?,
        None => {
            args.images.iter().map(|path| of_picture(&file, &model, path, args.as_is)).collect::<Result<Vec<_>>>()?
        }
    };
    if args.json {
        return print_json(&predictions);
    }
    let labels = labels(&model);
    predictions.iter().try_for_each(|prediction| print(&lines(prediction, &labels)))
}

fn of_data(file: &ModelFile, model: &Ensemble<'_>, args: &Args) -> Result<Vec<Prediction>> {
    let mut data = args.part.read(&args.data)?;
    data.truncate(args.limit);
    evaluate::check_shape(&model.members()[0], &data).map_err(|problem| file.error(problem))?;
    let values = data.values_for(model.input());
    let predict = |index: usize| {
        let input = values.slice(index * data.size(), (index + 1) * data.size());
        let mut prediction = predict(file, model, &format!("example {index}"), input)?;
        prediction.expected = Some(data.classes[usize::from(data.labels[index])].clone());
        Ok(prediction)
    };
    (0..data.len()).map(predict).collect()
}

/// A digit in a picture if the model takes grey ones, or else the picture as it is.
fn of_picture(file: &ModelFile, model: &Ensemble<'_>, path: &Path, as_is: bool) -> Result<Prediction> {
    let shape = model.input().shape;
    let name = path.display().to_string();
    if shape.channels == 1 && !as_is {
        let pixels = image::prepare(&image::read(path)?, shape.height.into(), shape.width.into())
            .map_err(|problem| Error::contents(path, problem))?;
        return predict(file, model, &name, (&pixels[..]).into());
    }
    let picture = Picture::read(path, None)?;
    if picture.shape != shape {
        let [found, expected] = [picture.shape, shape].map(shape_text);
        return Err(Error::contents(path, format!("a picture of {found}, but the model takes {expected}")));
    }
    predict(file, model, &name, (&picture.pixels[..]).into())
}

fn predict(file: &ModelFile, model: &Ensemble<'_>, name: &str, input: Input<'_>) -> Result<Prediction> {
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let refused = |e: thumbnet::RunError| file.error(format!("{name}: {e}"));
    let found = model.classify(input, &mut scratch).map_err(refused)?;
    let probabilities = model.run(input, &mut scratch).map_err(refused)?.to_vec();
    Ok(Prediction {
        image: name.to_owned(),
        expected: None,
        class: found.class,
        label: labels(model)[found.class].clone(),
        probability: found.probability,
        probabilities,
    })
}

/// The answer, and below it what the model gives to every class.
fn lines(prediction: &Prediction, labels: &[String]) -> String {
    let Prediction { image, label, probability, probabilities, .. } = prediction;
    let mut text = format!("{image}: {label} ({:.1} %)", 100.0 * probability);
    text += &prediction.expected.as_ref().map(|expected| format!(", expected {expected}")).unwrap_or_default();
    text += "\n ";
    for (label, probability) in labels.iter().zip(probabilities) {
        text += &format!("  {label}: {:.1} %", 100.0 * probability);
    }
    text + "\n"
}
