//! The two losses of the notebooks, their gradients, and the count of correct answers.

use serde::{Deserialize, Serialize};

/// What a training minimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Cross-entropy of the softmax of the outputs. The exported model ends with a softmax layer.
    CrossEntropy,
    /// Sum over the outputs of the squared difference from the one-hot label. The outputs stay linear.
    SquaredError,
}

/// How far a notebook's printed loss or its gradient leaves the textbook; see [`crate::recipe::Quirks`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossQuirks {
    /// Cross-entropy is reported as `-ln(p + log_offset)`.
    pub log_offset: f64,
    /// Cross-entropy is reported from probabilities clipped to `[clip, 1 - clip]`.
    pub clip: f64,
    /// The squared error's gradient is `output - label`, without the factor 2.
    pub half_gradient: bool,
}

/// The sums over some images.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tally {
    /// The sum of the images' losses.
    pub loss: f64,
    /// How many images have their largest output at their label.
    pub correct: usize,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.correct += other.correct;
    }
}

impl Loss {
    /// Tallies `outputs` (`[N, classes]`, before any softmax) against `labels` (`[N]`) and, if asked, writes the
    /// gradient of the *summed* loss with respect to the outputs.
    ///
    /// # Panics
    /// If a label is not less than the number of classes.
    pub fn tally(self, outputs: &[f32], labels: &[u16], quirks: LossQuirks, gradient: Option<&mut [f32]>) -> Tally {
        let classes = outputs.len() / labels.len().max(1);
        let rows = || outputs.chunks_exact(classes.max(1)).zip(labels.iter().map(|&label| usize::from(label)));
        let mut tally = Tally::default();
        for (row, label) in rows() {
            tally += Tally { loss: self.of_image(row, label, quirks), correct: usize::from(argmax(row) == label) };
        }
        if let Some(gradient) = gradient {
            for ((row, label), gradient) in rows().zip(gradient.chunks_exact_mut(classes.max(1))) {
                self.gradient_of_image(row, label, quirks, gradient);
            }
        }
        tally
    }

    /// The loss of one image: from the outputs before softmax, added up in double precision.
    pub fn of_image(self, outputs: &[f32], label: usize, quirks: LossQuirks) -> f64 {
        match self {
            Loss::SquaredError => {
                (outputs.iter().enumerate()).map(|(class, &y)| f64::from(y - one_hot(class, label)).powi(2)).sum()
            }
            Loss::CrossEntropy if quirks.log_offset == 0.0 && quirks.clip == 0.0 => {
                let max = f64::from(max(outputs));
                let sum: f64 = outputs.iter().map(|&y| (f64::from(y) - max).exp()).sum();
                sum.ln() - (f64::from(outputs[label]) - max)
            }
            Loss::CrossEntropy => {
                let max = max(outputs);
                let sum: f32 = outputs.iter().map(|&y| (y - max).exp()).sum();
                let probability = f64::from((outputs[label] - max).exp() / sum);
                -(probability.max(quirks.clip).min(1.0 - quirks.clip) + quirks.log_offset).ln()
            }
        }
    }

    fn gradient_of_image(self, outputs: &[f32], label: usize, quirks: LossQuirks, gradient: &mut [f32]) {
        match self {
            Loss::SquaredError => {
                let factor = if quirks.half_gradient { 1.0 } else { 2.0 };
                for (class, (slope, &y)) in gradient.iter_mut().zip(outputs).enumerate() {
                    *slope = factor * (y - one_hot(class, label));
                }
            }
            Loss::CrossEntropy => {
                softmax(outputs, gradient);
                gradient[label] -= 1.0;
            }
        }
    }
}

/// Turns the gradient of the summed cross-entropy with labels into that with labels of which the part `smoothing` is spread over
/// all classes.
pub(crate) fn smooth(gradient: &mut [f32], labels: &[u16], smoothing: f32) {
    let classes = gradient.len() / labels.len().max(1);
    for (slopes, &label) in gradient.chunks_exact_mut(classes.max(1)).zip(labels) {
        slopes.iter_mut().for_each(|slope| *slope -= smoothing / classes as f32);
        slopes[usize::from(label)] += smoothing;
    }
}

/// `exp(x_i) / sum(exp(x_j))` of one row, shifted by its maximum so that nothing overflows.
pub fn softmax(row: &[f32], probabilities: &mut [f32]) {
    let max = max(row);
    probabilities.iter_mut().zip(row).for_each(|(p, &x)| *p = (x - max).exp());
    let sum: f32 = probabilities.iter().sum();
    probabilities.iter_mut().for_each(|p| *p /= sum);
}

/// The position of the largest value, the first one if there are several.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = index;
        }
    }
    best
}

fn max(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

fn one_hot(class: usize, label: usize) -> f32 {
    f32::from(u8::from(class == label))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTBOOK: LossQuirks = LossQuirks { log_offset: 0.0, clip: 0.0, half_gradient: false };

    #[test]
    fn losses_of_known_rows() {
        let even = [0.0f32; 4];
        assert!((Loss::CrossEntropy.of_image(&even, 1, TEXTBOOK) - 4f64.ln()).abs() < 1e-12);
        assert_eq!(Loss::SquaredError.of_image(&[0.5, 0.0, -1.0], 0, TEXTBOOK), 0.25 + 1.0);
        // A hopeless row: the textbook keeps counting, the notebooks' guards against log(0) cap it.
        let hopeless = [0.0f32, 200.0];
        assert_eq!(Loss::CrossEntropy.of_image(&hopeless, 0, TEXTBOOK), 200.0);
        let offset = LossQuirks { log_offset: 1e-8, ..TEXTBOOK };
        assert!((Loss::CrossEntropy.of_image(&hopeless, 0, offset) + 1e-8f64.ln()).abs() < 1e-9);
        let clip = LossQuirks { clip: 1e-12, ..TEXTBOOK };
        assert!((Loss::CrossEntropy.of_image(&hopeless, 0, clip) + 1e-12f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn a_tally_counts_the_first_of_equal_maxima() {
        let outputs = [1.0, 1.0, 0.0, 0.0, 0.0, 5.0];
        let tally = Loss::SquaredError.tally(&outputs, &[0, 2], TEXTBOOK, None);
        assert_eq!(tally, Tally { loss: 1.0 + 16.0, correct: 2 });
        assert_eq!(Loss::SquaredError.tally(&outputs, &[1, 2], TEXTBOOK, None).correct, 1);
    }

    /// Central differences of each loss, for every output of two images.
    #[test]
    fn gradients_match_central_differences() {
        let outputs = [0.3, -1.2, 0.7, 0.1, 2.0, -0.5];
        let labels = [2, 0];
        for loss in [Loss::CrossEntropy, Loss::SquaredError] {
            let mut gradient = [0.0; 6];
            loss.tally(&outputs, &labels, TEXTBOOK, Some(&mut gradient));
            for index in 0..outputs.len() {
                let at = |step: f32| {
                    let mut moved = outputs;
                    moved[index] += step;
                    loss.tally(&moved, &labels, TEXTBOOK, None).loss
                };
                let expected = (at(1e-3) - at(-1e-3)) / 2e-3;
                assert!((f64::from(gradient[index]) - expected).abs() < 1e-3, "{loss:?} {index}");
            }
            let mut half = [0.0; 6];
            let quirks = LossQuirks { half_gradient: true, ..TEXTBOOK };
            loss.tally(&outputs, &labels, quirks, Some(&mut half));
            let factor = if loss == Loss::SquaredError { 2.0 } else { 1.0 };
            assert_eq!(half.map(|x| x * factor), gradient);
        }
    }
}
