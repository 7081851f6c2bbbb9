//! The log of a training as CSV, one row per epoch.

use crate::train::Epoch;
use std::fmt::Write as _;

/// The columns.
pub const HEADER: &str = "epoch,train_loss,train_acc,val_loss,val_acc,test_loss,test_acc";

/// `history` as CSV with [`HEADER`]. Numbers have all their digits; what was not measured is left empty.
pub fn csv(history: &[Epoch]) -> String {
    let cell = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    history.iter().fold(format!("{HEADER}\n"), |mut text, row| {
        let measured = [
            row.train_loss,
            Some(row.train_accuracy),
            row.validation_loss,
            row.validation_accuracy,
            row.test_loss,
            row.test_accuracy,
        ];
        writeln!(text, "{},{}", row.epoch, measured.map(cell).join(",")).expect("a string takes all");
        text
    })
}

/// Reads what [`csv()`] wrote. Columns are found by their names, so that logs of earlier versions can be read as well.
///
/// # Errors
/// A message with the line and the cell that cannot be.
pub fn parse(text: &str) -> Result<Vec<Epoch>, String> {
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    if columns.first() != Some(&"epoch") {
        return Err(format!("not a log of a training: expected the columns {HEADER}"));
    }
    lines
        .enumerate()
        .map(|(index, line)| parse_row(&columns, line).map_err(|e| format!("line {}: {e}", index + 2)))
        .collect()
}

fn parse_row(columns: &[&str], line: &str) -> Result<Epoch, String> {
    let cells: Vec<&str> = line.split(',').collect();
    if cells.len() != columns.len() {
        return Err(format!("{} cells, expected {}", cells.len(), columns.len()));
    }
    let cell = |name: &str| match columns.iter().position(|column| *column == name).map(|place| cells[place]) {
        None | Some("") => Ok(None),
        Some(cell) => cell.parse().map(Some).map_err(|_| format!("{name} is {cell:?}, expected a number")),
    };
    let needed = |name: &str| cell(name)?.ok_or_else(|| format!("no {name}"));
    Ok(Epoch {
        epoch: needed("epoch")? as u32,
        train_loss: cell("train_loss")?,
        train_accuracy: needed("train_acc")?,
        validation_loss: cell("val_loss")?,
        validation_accuracy: cell("val_acc")?,
        test_loss: cell("test_loss")?,
        test_accuracy: cell("test_acc")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_numbers_are_empty_cells() {
        let full = Epoch {
            epoch: 0,
            train_loss: Some(0.1),
            train_accuracy: 0.5,
            test_loss: Some(2.0),
            test_accuracy: Some(1.0 / 3.0),
            ..Epoch::default()
        };
        let bare = Epoch { epoch: 1, train_accuracy: 0.5, validation_accuracy: Some(0.25), ..Epoch::default() };
        assert_eq!(csv(&[full, bare]), format!("{HEADER}\n0,0.1,0.5,,,2,0.3333333333333333\n1,,0.5,,0.25,,\n"));
    }

    #[test]
    fn a_log_is_read_again() {
        let row = Epoch {
            epoch: 7,
            train_loss: Some(1.0 / 3.0),
            train_accuracy: 0.5,
            validation_loss: Some(0.1),
            validation_accuracy: Some(0.75),
            test_loss: None,
            test_accuracy: Some(0.25),
        };
        assert_eq!(parse(&csv(&[row, row])), Ok(vec![row, row]));
        assert!(parse("loss\n").unwrap_err().contains("expected the columns epoch,"));
        assert_eq!(parse("epoch,train_acc\n1,0.5\n2\n").unwrap_err(), "line 3: 1 cells, expected 2");
        assert_eq!(parse("epoch,train_acc\n1,x").unwrap_err(), "line 2: train_acc is \"x\", expected a number");
        assert_eq!(parse("epoch,train_acc\n1,").unwrap_err(), "line 2: no train_acc");
    }
}
