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
}
