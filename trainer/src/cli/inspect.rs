//! `thumbnet inspect`.

use super::{ModelFile, grouped, labels, print, print_json};
use serde::Serialize;
use std::path::PathBuf;
use thumbnet::Ensemble;
use thumbnet_trainer::error::Result;
use thumbnet_trainer::summary::{COLUMNS, Row, Summary, WORDS, dimensions_text};

/// Show what is in a model: layers, shapes, parameters, operations, memory.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model file, or an ensemble
    model: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
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

pub(super) fn run(args: &Args) -> Result<()> {
    let file = ModelFile::read(&args.model)?;
    let whole = file.ensemble()?;
    let names = labels(&whole);
    let members = whole.members().iter().zip(file.member_files()?);
    let mut members: Vec<Summary> = members.map(|(member, file)| Summary::new(member, &names, file.len())).collect();
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
    text + "\n" + &lines(&totals)
}
