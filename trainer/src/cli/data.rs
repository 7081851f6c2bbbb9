//! `thumbnet data`.

use super::{DataOptions, grouped, print, print_json};
use serde::Serialize;
use std::path::PathBuf;
use thumbnet_trainer::data::{DataSet, PIXEL_SCALE, Parts, Values, shape_text};
use thumbnet_trainer::error::Result;

/// Show what a data set was understood as: shape, values, classes, number of examples.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A folder with the four MNIST files, a folder of pictures for each class, a .npz or a CSV file
    path: PathBuf,
    #[command(flatten)]
    options: DataOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Summary {
    kind: &'static str,
    /// Height, width, channels.
    shape: [u16; 3],
    values: &'static str,
    /// Of the values to train on, as they are stored.
    range: [f32; 2],
    mean: f64,
    standard_deviation: f64,
    /// What training multiplies the values by.
    factor: f32,
    training: usize,
    test: usize,
    /// Whether the test part was held back from a source without one.
    held_back: bool,
    classes: Vec<Class>,
}

/// A class, and how many examples of it there are.
#[derive(Debug, Serialize)]
struct Class {
    name: String,
    training: usize,
    test: usize,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let source = args.options.open(&args.path)?;
    let parts = source.parts()?;
    let summary = summary(source.kind().name(), &parts);
    if args.json { print_json(&summary) } else { print(&table(&args.path.display().to_string(), &summary)) }
}

fn summary(kind: &'static str, parts: &Parts) -> Summary {
    let Parts { training, test, held_back } = parts;
    let Numbers { range, mean, deviation } = Numbers::of(&training.values);
    let counts = training.counts().into_iter().zip(test.counts());
    let classes = training.classes.iter().zip(counts);
    let shape = training.input.shape;
    Summary {
        kind,
        shape: [shape.height, shape.width, shape.channels],
        values: describe(training),
        range,
        mean,
        standard_deviation: deviation,
        factor: training.factor,
        training: training.len(),
        test: test.len(),
        held_back: *held_back,
        classes: classes.map(|(name, (training, test))| Class { name: name.clone(), training, test }).collect(),
    }
}

fn describe(data: &DataSet) -> &'static str {
    match &data.values {
        Values::Bytes(_) if data.input.scale == PIXEL_SCALE => "pixels, 0 to 255 of which stand for 0 to 1",
        Values::Bytes(_) => "whole numbers, one byte each",
        Values::Floats(_) => "numbers",
    }
}

/// What values are like.
struct Numbers {
    /// The smallest and the largest.
    range: [f32; 2],
    mean: f64,
    /// The standard deviation.
    deviation: f64,
}

impl Numbers {
    fn of(values: &Values) -> Self {
        match values {
            Values::Bytes(bytes) => Self::of_all(bytes.iter().map(|&byte| f32::from(byte))),
            Values::Floats(floats) => Self::of_all(floats.iter().copied()),
        }
    }

    fn of_all(values: impl ExactSizeIterator<Item = f32> + Clone) -> Self {
        let count = values.len().max(1) as f64;
        let mean = values.clone().map(f64::from).sum::<f64>() / count;
        let square = values.clone().map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        let range = values.fold([f32::MAX, f32::MIN], |[min, max], value| [value.min(min), value.max(max)]);
        Numbers { range, mean, deviation: square.sqrt() }
    }
}

fn table(path: &str, summary: &Summary) -> String {
    let Summary { kind, shape, values, range, mean, standard_deviation, factor, training, test, .. } = summary;
    let [height, width, channels] = *shape;
    let shape = shape_text(thumbnet::layer::Shape::new(height, width, channels));
    let mut text = format!("{path}: a {kind}\nshape {shape} (height x width x channels)\n");
    text += &format!(
        "values {} to {}, mean {mean:.4}, standard deviation {standard_deviation:.4}: {values}",
        range[0], range[1]
    );
    text += &if *factor == 1.0 { "\n".to_owned() } else { format!("; training sees them times {factor}\n") };
    text += &format!("{} examples to train on, {} to test on", grouped(*training as u64), grouped(*test as u64));
    text += if summary.held_back { " (every fifth of each class)\n\n" } else { "\n\n" };
    let names = summary.classes.iter().map(|class| class.name.chars().count());
    let width = names.max().unwrap_or(0).max("class".len());
    text += &format!("{:<width$}  training      test\n", "class");
    for Class { name, training, test } in &summary.classes {
        text += &format!("{name:<width$}  {:>8}  {:>8}\n", grouped(*training as u64), grouped(*test as u64));
    }
    text
}
