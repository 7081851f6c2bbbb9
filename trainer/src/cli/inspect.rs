//! `thumbnet inspect`.

use super::{ModelFile, grouped, packed_for, print, print_json, weight_type_name};
use serde::Serialize;
use std::path::PathBuf;
use thumbnet::layer::{Activation, AvgPool2d, Layer, MaxPool2d, Padding, Shape};
use thumbnet::{Ensemble, LayerInfo, Model};
use thumbnet_trainer::error::Result;

/// Show what is in a model: layers, shapes, parameters, operations, memory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file, or an ensemble
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a model consists of.
#[derive(Debug, Serialize)]
struct Summary {
    input: [u16; 3],
    scale: f32,
    offset: f32,
    labels: Vec<String>,
    parameters: u64,
    macs: u64,
    weight_bytes: u64,
    file_bytes: u64,
    scratch_bytes: u64,
    layers: Vec<Row>,
}

/// What an ensemble consists of.
#[derive(Debug, Serialize)]
struct Members {
    parameters: u64,
    macs: u64,
    file_bytes: u64,
    scratch_bytes: u64,
    members: Vec<Summary>,
}

/// One layer.
#[derive(Debug, Serialize)]
struct Row {
    layer: &'static str,
    details: String,
    activation: String,
    weights: &'static str,
    /// What int8 weights are packed for.
    packed_for: Option<&'static str>,
    input: [u16; 3],
    output: [u16; 3],
    parameters: u64,
    macs: u64,
    weight_bytes: u64,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let whole = file.ensemble()?;
    let names = super::labels(&whole);
    let files = file.member_files()?;
    let mut members: Vec<Summary> =
        whole.members().iter().zip(files).map(|(member, file)| summary(member, &names, file.len())).collect();
    if !file.is_ensemble() {
        let summary = members.remove(0);
        return if args.json { print_json(&summary) } else { print(&table(&summary)) };
    }
    let members = ensemble(&whole, members, file.bytes.len());
    if args.json { print_json(&members) } else { print(&tables(&members)) }
}

fn ensemble(whole: &Ensemble<'_>, members: Vec<Summary>, file_bytes: usize) -> Members {
    Members {
        parameters: members.iter().map(|member| member.parameters).sum(),
        macs: members.iter().map(|member| member.macs).sum(),
        file_bytes: file_bytes as u64,
        scratch_bytes: whole.scratch_bytes() as u64,
        members,
    }
}

fn summary(model: &Model<'_>, labels: &[String], file_bytes: usize) -> Summary {
    let layers: Vec<Row> = model.layers().map(row).collect();
    let input = model.input();
    Summary {
        input: dimensions(input.shape),
        scale: input.scale,
        offset: input.offset,
        labels: labels.to_vec(),
        parameters: layers.iter().map(|row| row.parameters).sum(),
        macs: layers.iter().map(|row| row.macs).sum(),
        weight_bytes: layers.iter().map(|row| row.weight_bytes).sum(),
        file_bytes: file_bytes as u64,
        scratch_bytes: model.scratch_bytes() as u64,
        layers,
    }
}

fn row(info: LayerInfo) -> Row {
    Row {
        layer: info.layer.name(),
        details: details(&info.layer),
        activation: match info.layer.activation() {
            Activation::None => String::new(),
            Activation::Relu => "relu".to_owned(),
            Activation::Tanh => "tanh".to_owned(),
            Activation::Sigmoid => "sigmoid".to_owned(),
            Activation::Relu6 => "relu6".to_owned(),
            Activation::LeakyRelu(slope) => format!("leaky_relu {}", slope.value()),
        },
        weights: info.layer.weight_type().map_or("", weight_type_name),
        packed_for: info.layer.weight_type().and_then(packed_for),
        input: dimensions(info.input),
        output: dimensions(info.output),
        parameters: info.parameters,
        macs: info.macs,
        weight_bytes: info.weight_bytes.into(),
    }
}

/// The window of a layer that has one, and what is out of the ordinary about it.
fn details(layer: &Layer) -> String {
    let by = |[height, width]: [u8; 2]| format!("{height}x{width}");
    let unless = |usual: bool, text: String| if usual { String::new() } else { text };
    let window = |kernel, stride, pad: Padding| {
        let padding = format!(" padding {} {} {} {}", pad.top, pad.bottom, pad.left, pad.right);
        by(kernel)
            + &unless(stride == [1, 1], format!(" stride {}", by(stride)))
            + &unless(pad == Default::default(), padding)
    };
    match layer {
        Layer::Conv2d(conv) => {
            window(conv.kernel, conv.stride, conv.padding)
                + &unless(conv.pool == [1, 1], format!(" pool {}", by(conv.pool)))
        }
        Layer::MaxPool2d(MaxPool2d { kernel, stride }) | Layer::AvgPool2d(AvgPool2d { kernel, stride }) => {
            by(*kernel) + &unless(stride == kernel, format!(" stride {}", by(*stride)))
        }
        Layer::DepthwiseConv2d(conv) => window(conv.kernel, conv.stride, conv.padding),
        Layer::Dense(_) | Layer::Softmax | Layer::Quantize(_) => String::new(),
    }
}

fn dimensions(shape: Shape) -> [u16; 3] {
    [shape.height, shape.width, shape.channels]
}

/// The members of an ensemble one after the other, and their sums.
fn tables(ensemble: &Members) -> String {
    let count = ensemble.members.len();
    let mut text = String::new();
    for (index, member) in ensemble.members.iter().enumerate() {
        text += &format!("member {} of {count}: {}\n", index + 1, table(member));
    }
    let totals = [
        ("parameters of all members", ensemble.parameters),
        ("MACs per inference", ensemble.macs),
        ("bytes of the file", ensemble.file_bytes),
        ("bytes of scratch memory", ensemble.scratch_bytes),
    ];
    text + &lines(&totals)
}

/// A line for each number.
fn lines(totals: &[(&str, u64)]) -> String {
    totals.iter().map(|&(name, value)| format!("{:>12} {name}\n", grouped(value))).collect()
}

fn table(summary: &Summary) -> String {
    let shape = |[height, width, channels]: [u16; 3]| match (height, width) {
        (1, 1) => channels.to_string(),
        _ => format!("{height}x{width}x{channels}"),
    };
    let header = ["layer", "window", "activation", "output", "weights", "parameters", "MACs", "bytes"];
    let mut rows = vec![header.map(str::to_owned)];
    for row in &summary.layers {
        rows.push([
            row.layer.to_owned(),
            row.details.clone(),
            row.activation.clone(),
            shape(row.output),
            row.packed_for.map_or(row.weights.to_owned(), |processor| format!("{} {processor}", row.weights)),
            grouped(row.parameters),
            grouped(row.macs),
            grouped(row.weight_bytes),
        ]);
    }
    let widths: Vec<usize> =
        (0..header.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = format!("input {}, a byte b stands for b * {}", shape(summary.input), summary.scale);
    text += &if summary.offset == 0.0 { "\n\n".to_owned() } else { format!(" + {}\n\n", summary.offset) };
    for row in &rows {
        // Words to the left, numbers to the right.
        let cells = row.iter().zip(&widths).enumerate().filter(|(_, (_, width))| **width > 0);
        let cell = |(column, (cell, &width)): (usize, (&String, &usize))| {
            if column < 5 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        };
        text += cells.map(cell).collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    let totals = [
        ("parameters", summary.parameters),
        ("MACs per inference", summary.macs),
        ("bytes of weights", summary.weight_bytes),
        ("bytes of the file", summary.file_bytes),
        ("bytes of scratch memory", summary.scratch_bytes),
    ];
    text + "\n" + &lines(&totals)
}
