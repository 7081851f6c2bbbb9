//! `thumbnet inspect`.

use super::{ModelFile, grouped, labels, print, print_json};
use std::path::PathBuf;
use thumbnet_trainer::error::Result;
use thumbnet_trainer::summary::{COLUMNS, Row, Summary, WORDS, dimensions_text};

/// Show what is in a model: layers, shapes, parameters, operations, memory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let model = file.model()?;
    let summary = Summary::new(&model, &labels(&model), file.bytes.len());
    if args.json { print_json(&summary) } else { print(&table(&summary)) }
}

fn table(summary: &Summary) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(summary.layers.iter().map(Row::cells));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = format!("input {}, a byte b stands for b * {}", dimensions_text(summary.input), summary.scale);
    text += &if summary.offset == 0.0 { "\n\n".to_owned() } else { format!(" + {}\n\n", summary.offset) };
    for row in &rows {
        // Words to the left, numbers to the right.
        let cells = row.iter().zip(&widths).enumerate().filter(|(_, (_, width))| **width > 0);
        let cell = |(column, (cell, &width)): (usize, (&String, &usize))| {
            if column < WORDS { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
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
    text.push('\n');
    totals.iter().for_each(|&(name, value)| text += &format!("{:>12} {name}\n", grouped(value)));
    text
}
