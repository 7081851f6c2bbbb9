//! The lines that a notebook printed, and the same lines with our numbers in them.

use super::Row;

/// A number that a line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    TrainLoss,
    TrainAccuracy,
    TestLoss,
    TestAccuracy,
}

/// How a notebook wrote a number down.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    /// All digits of a short fraction.
    Full,
    /// The first characters of its text: cut off, not rounded.
    Cut(usize),
    /// Rounded to so many decimals, after multiplication.
    Rounded { decimals: usize, factor: f64 },
}

/// What stands before a number, what the number is, and how it is written. The first that a line contains counts.
const LABELS: [(&str, Quantity, Style); 8] = [
    ("Test-Acc:", Quantity::TestAccuracy, Style::Full),
    ("Train-Acc:", Quantity::TrainAccuracy, Style::Full),
    ("Test-Err:", Quantity::TestLoss, Style::Cut(5)),
    ("Train-Err:", Quantity::TrainLoss, Style::Cut(5)),
    ("Test Loss: ", Quantity::TestLoss, Style::Rounded { decimals: 4, factor: 1.0 }),
    ("Test Accuracy: ", Quantity::TestAccuracy, Style::Rounded { decimals: 2, factor: 100.0 }),
    ("- Loss: ", Quantity::TrainLoss, Style::Rounded { decimals: 4, factor: 1.0 }),
    (": ", Quantity::TrainLoss, Style::Rounded { decimals: 6, factor: 1.0 }),
];

/// One number of a line.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) quantity: Quantity,
    pub(super) printed: f64,
    /// Where the number stands in the line.
    at: std::ops::Range<usize>,
    style: Style,
}

/// One printed line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    text: String,
    /// The epoch that it is about; the last one if it names none.
    epoch: Option<u32>,
    pub(super) values: Vec<Value>,
}

/// One line with our numbers.
pub(super) struct Compared {
    /// The line as the notebook printed it.
    pub(super) printed: String,
    /// The same with our numbers, written as the notebook writes them.
    pub(super) ours: String,
    /// Ours less the printed one, both as written.
    pub(super) differences: Vec<(Quantity, f64)>,
}

/// The printed lines of a file. Numbers that the seed's text cuts off in the middle are left out.
pub(super) fn lines(text: &str) -> Vec<Line> {
    text.lines().map(line).collect()
}

fn line(text: &str) -> Line {
    let number = |from: &str| from.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect::<String>();
    let epoch = ["I:", "Epoch ", "Loss after epoch "].iter().find_map(|start| {
        let (_, rest) = text.split_once(start)?;
        number(rest).parse().ok()
    });
    let mut values = Vec::new();
    for (label, quantity, style) in LABELS {
        let Some(start) = text.find(label).map(|start| start + label.len()) else { continue };
        let digits = number(&text[start..]);
        // Without a decimal point it is the first digit of a number that was cut off.
        let cut = !digits.contains('.');
        let taken = values.iter().any(|value: &Value| value.at.start == start || value.quantity == quantity);
        if let (false, false, Ok(printed)) = (cut, taken, digits.parse()) {
            values.push(Value { quantity, printed, at: start..start + digits.len(), style });
        }
    }
    values.sort_by_key(|value| value.at.start);
    Line { text: text.to_owned(), epoch, values }
}

impl Line {
    /// The line beside ours. `None` if our log has no such epoch.
    pub(super) fn compare(&self, log: &[Row]) -> Option<Compared> {
        let row = match self.epoch {
            Some(epoch) => log.iter().find(|row| row.epoch == epoch)?,
            None => log.last()?,
        };
        let (mut ours, mut copied, mut differences) = (String::new(), 0, Vec::new());
        for value in &self.values {
            let written = value.style.write(row.get(value.quantity)?);
            differences.push((value.quantity, value.style.less(written.parse().ok()?, value.printed)));
            ours.push_str(&self.text[copied..value.at.start]);
            ours.push_str(&written);
            copied = value.at.end;
        }
        // What follows the last number is kept only if it belongs to it; a cut-off number is not.
        ours.push_str(if self.text[copied..].starts_with('%') { "%" } else { "" });
        Some(Compared { printed: self.text.clone(), ours, differences })
    }
}

impl Style {
    fn write(self, value: f64) -> String {
        match self {
            // Shares of 1,000 and 10,000 images have at most four decimals; the log has them in full.
            Self::Full => format!("{}", (value * 1e6).round() / 1e6),
            Self::Cut(characters) => format!("{value:.17}").chars().take(characters).collect(),
            Self::Rounded { decimals, factor } => format!("{:.*}", decimals, value * factor),
        }
    }

    /// The difference of two written numbers, in the unit of the log.
    fn less(self, ours: f64, printed: f64) -> f64 {
        match self {
            Self::Rounded { factor, .. } => (ours - printed) / factor,
            Self::Full | Self::Cut(_) => ours - printed,
        }
    }
}

impl Row {
    fn get(&self, quantity: Quantity) -> Option<f64> {
        match quantity {
            Quantity::TrainLoss => self.train_loss,
            Quantity::TrainAccuracy => self.train_acc,
            Quantity::TestLoss => self.test_loss,
            Quantity::TestAccuracy => self.test_acc,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: [Row; 2] = [
        Row { epoch: 1, train_loss: Some(0.16599), train_acc: Some(0.987), test_loss: Some(0.25), test_acc: Some(0.9) },
        Row {
            epoch: 2,
            train_loss: Some(0.09),
            train_acc: Some(0.99),
            test_loss: Some(0.21496),
            test_acc: Some(0.9383),
        },
    ];

    fn compare(text: &str) -> (String, Vec<(Quantity, f64)>) {
        let compared = line(text).compare(&LOG).expect("an epoch of the log");
        (compared.ours, compared.differences)
    }

    #[test]
    fn errors_are_cut_off_and_accuracies_in_full() {
        let (ours, differences) = compare("I:1 Train-Err:0.164 Train-Acc:0.99 Test-Err:0.250 Test-Acc:0.9");
        assert_eq!(ours, "I:1 Train-Err:0.165 Train-Acc:0.987 Test-Err:0.250 Test-Acc:0.9");
        let quantities: Vec<_> = differences.iter().map(|(quantity, _)| *quantity).collect();
        use Quantity::*;
        assert_eq!(quantities, [TrainLoss, TrainAccuracy, TestLoss, TestAccuracy]);
        assert!((differences[0].1 - 0.001).abs() < 1e-9 && (differences[1].1 + 0.003).abs() < 1e-9);
    }

    #[test]
    fn losses_are_rounded_and_lines_without_an_epoch_are_about_the_last() {
        assert_eq!(compare("Epoch 2/10 - Loss: 0.0900").0, "Epoch 2/10 - Loss: 0.0900");
        assert_eq!(compare("Test Loss: 0.2150").0, "Test Loss: 0.2150");
        let (ours, differences) = compare("Test Accuracy: 93.82%");
        assert_eq!(ours, "Test Accuracy: 93.83%");
        assert!((differences[0].1 - 0.0001).abs() < 1e-9);
    }

    #[test]
    fn a_number_that_the_seed_cuts_off_is_no_number() {
        assert_eq!(compare("I:1 Test-Acc:0.8 Train-").1.len(), 1);
        assert_eq!(compare("I:1 Test-Acc:0.8 Train-Acc:0").1.len(), 1);
        assert_eq!(compare("I:2 Test-Acc").1.len(), 0);
    }
}
