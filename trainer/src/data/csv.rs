//! Text files with one example a line: its values and its label, separated by commas, semicolons or tabs; gzipped or not.

use super::source::{Found, Options, shape, sort_classes};
use super::{Values, shape_text, unpack};
use crate::error::{Error, Result};
use ::csv::{ReaderBuilder, StringRecord};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// What the column of the labels may be called, in small letters, if no other one is named.
const LABEL_NAMES: [&str; 4] = ["label", "class", "target", "y"];

/// Reads one file, or one to train on and one to test on. See `docs/data.md` for what is a label.
pub(super) fn read(paths: &[&PathBuf], options: &Options) -> Result<Found> {
    let mut tables = Vec::new();
    for path in paths {
        let text = unpack::read(path)?;
        let width = tables.first().map(|table: &Table| table.width);
        tables.push(parse(&text, options.label.as_deref(), width).map_err(|problem| Error::contents(path, problem))?);
    }
    let first = |problem: String| Error::contents(paths[0], problem);
    let width = tables[0].width;
    let natural = shape([1, width, 1]).map_err(first)?;
    if let Some(shape) = options.shape.filter(|shape| shape.elements() != natural.elements()) {
        let takes = shape.elements().unwrap_or(0);
        return Err(first(format!("{width} columns of values, but --shape {} takes {takes}", shape_text(shape))));
    }
    let test_from = (tables.len() > 1).then_some(tables[0].labels.len());
    let names: Vec<String> = tables.iter_mut().flat_map(|table| std::mem::take(&mut table.labels)).collect();
    let values = Values::Floats(tables.into_iter().flat_map(|table| table.values).collect());
    let (labels, classes) = number(&names).map_err(first)?;
    Ok(Found { shape: options.shape.unwrap_or(natural), values, labels, classes, pixels: false, test_from })
}

/// The lines of a file.
#[derive(Debug, PartialEq)]
struct Table {
    /// How many values a line has.
    width: usize,
    /// `[lines, width]`.
    values: Vec<f32>,
    /// `[lines]`, as they are written.
    labels: Vec<String>,
}

fn parse(text: &[u8], label: Option<&str>, expected: Option<usize>) -> std::result::Result<Table, String> {
    let not_text = |e: std::str::Utf8Error| format!("not a CSV file: byte {} is not UTF-8 text", e.valid_up_to());
    let text = std::str::from_utf8(text).map_err(not_text)?.trim_start_matches('\u{feff}').as_bytes();
    let mut reader = ReaderBuilder::new();
    let reader = reader.has_headers(false).flexible(true).trim(::csv::Trim::All).delimiter(delimiter(text));
    let mut table = Table { width: 0, values: Vec::new(), labels: Vec::new() };
    let mut record = StringRecord::new();
    let mut reader = reader.from_reader(text);
    let mut columns = None;
    while reader.read_record(&mut record).map_err(|e| format!("not a CSV file: {e}"))? {
        let line = record.position().map_or(0, ::csv::Position::line);
        let Some((column, count)) = columns else {
            let is_header = is_header(&record, label);
            let column = label_column(&record, label, is_header)?;
            if record.len() < 2 {
                return Err(format!("line {line}: one column, expected values and a label"));
            }
            table.width = record.len() - 1;
            if let Some(expected) = expected.filter(|&expected| expected != table.width) {
                return Err(format!("{} columns of values, but {expected} in the training file", table.width));
            }
            columns = Some((column, record.len()));
            if !is_header {
                table.push(&record, column, line)?;
            }
            continue;
        };
        if record.len() != count {
            return Err(format!("line {line}: {} columns, expected {count} as in the first line", record.len()));
        }
        table.push(&record, column, line)?;
    }
    if table.labels.is_empty() { Err("no examples".to_owned()) } else { Ok(table) }
}

impl Table {
    fn push(&mut self, record: &StringRecord, label: usize, line: u64) -> std::result::Result<(), String> {
        for (column, cell) in record.iter().enumerate() {
            if column == label {
                let class = class_name(cell).ok_or_else(|| format!("line {line}, column {}: no label", column + 1))?;
                self.labels.push(class);
                continue;
            }
            match cell.parse::<f32>() {
                Ok(value) if value.is_finite() => self.values.push(value),
                _ => return Err(format!("line {line}, column {}: {cell:?}, expected a number", column + 1)),
            }
        }
        Ok(())
    }
}

/// Whichever of the usual separators the first line has most of.
fn delimiter(text: &[u8]) -> u8 {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let count = |separator: u8| line.iter().filter(|&&byte| byte == separator).count();
    // (Of equals, the last.)
    *[b'\t', b';', b','].iter().max_by_key(|&&separator| count(separator)).unwrap_or(&b',')
}

/// Whether the first line names the columns: if one of them has the name of the label, or if none of them is a number.
fn is_header(record: &StringRecord, label: Option<&str>) -> bool {
    named_column(record, label).is_some() || record.iter().all(|cell| cell.parse::<f64>().is_err())
}

fn named_column(record: &StringRecord, label: Option<&str>) -> Option<usize> {
    let position = |name: &str| record.iter().position(|cell| cell.eq_ignore_ascii_case(name));
    match label {
        Some(label) if label.parse::<usize>().is_ok() => None,
        Some(label) => position(label),
        None => LABEL_NAMES.into_iter().find_map(position),
    }
}

/// The column with the labels, counted from 0: the one that is asked for, or one with a usual name, or the last.
fn label_column(first: &StringRecord, label: Option<&str>, is_header: bool) -> std::result::Result<usize, String> {
    if let Some(column) = named_column(first, label) {
        return Ok(column);
    }
    let columns = first.len();
    match label.map(|label| (label, label.parse::<usize>())) {
        None => Ok(columns - 1),
        Some((_, Ok(number))) if (1..=columns).contains(&number) => Ok(number - 1),
        Some((label, Ok(_))) => Err(format!("--label {label}: there are {columns} columns")),
        Some((label, Err(_))) if is_header => {
            let names = first.iter().take(20).collect::<Vec<_>>().join(", ");
            Err(format!("--label {label}: no such column; there are {names}{}", if columns > 20 { ", …" } else { "" }))
        }
        Some((label, Err(_))) => {
            Err(format!("--label {label}: the first line names no columns; give a number from 1 on"))
        }
    }
}

/// The name of the class that a cell stands for: `3.0` is `3`.
fn class_name(cell: &str) -> Option<String> {
    match cell.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && number.abs() < 1e15 => Some((number as i64).to_string()),
        Ok(number) if !number.is_finite() => None,
        _ => Some(cell.to_owned()).filter(|name| !name.is_empty()),
    }
}

/// Numbers the classes that occur, in their order.
fn number(labels: &[String]) -> std::result::Result<(Vec<u16>, Vec<String>), String> {
    let mut classes: Vec<String> = labels.iter().collect::<HashSet<_>>().into_iter().cloned().collect();
    if classes.len() > 65_535 || (classes.len() > 10 && classes.len() > labels.len() / 2) {
        return Err(format!(
            "{} different labels in {} lines, expected classes with several examples each; --label COLUMN says where the \
             labels are",
            classes.len(),
            labels.len()
        ));
    }
    sort_classes(&mut classes);
    let numbers: HashMap<&String, u16> = classes.iter().zip(0..).collect();
    Ok((labels.iter().map(|label| numbers[label]).collect(), classes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_are_found_and_named() {
        let found = |text: &str, label| {
            let table = parse(text.as_bytes(), label, None).unwrap();
            (table.labels.join(" "), table.values)
        };
        assert_eq!(found("7.0,1\n8,2\n", Some("1")), ("7 8".to_owned(), vec![1.0, 2.0]));
        assert_eq!(found("a,Target,b\n1,x,2\n", None), ("x".to_owned(), vec![1.0, 2.0]));
        assert_eq!(found("a,y,class\n1,2,3\n", None), ("3".to_owned(), vec![1.0, 2.0]));
        assert_eq!(found("0.5,0.25\n", None), ("0.25".to_owned(), vec![0.5]));
        assert_eq!(number(&["b", "a", "b"].map(str::to_owned)).unwrap().0, [1, 0, 1]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a.,;\"\n\t -]{0,60}", label in prop::option::of("[0-9a]{0,2}")) {
            if let Ok(table) = parse(text.as_bytes(), label.as_deref(), None) {
                prop_assert_eq!(table.values.len(), table.width * table.labels.len());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(table) = parse(&bytes, None, None) {
                prop_assert_eq!(table.values.len(), table.width * table.labels.len());
            }
        }
    }
}
