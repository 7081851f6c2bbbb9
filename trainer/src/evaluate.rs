//! Measures an exported model: the core itself runs over a data set.

use crate::data::Images;
use crate::loss::{Loss, LossQuirks, argmax};
use serde::Serialize;
use thumbnet::{AlignedBuf, Model};

/// How well a model does on a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// The share of correct answers, 0 to 1.
    pub accuracy: f64,
    /// The mean loss per image: cross-entropy if the model ends in a softmax, otherwise the sum of squared differences
    /// from the one-hot label.
    pub loss: f64,
    /// How many images there were.
    pub images: usize,
    /// How many answers were correct.
    pub correct: usize,
    /// The share of correct answers among the images of each class; 0 for a class without images.
    pub per_class: Vec<f64>,
    /// `confusion[label][answer]` counts images.
    pub confusion: Vec<Vec<usize>>,
}

/// Images that the core runs at a time.
const BATCH: usize = 64;

/// Runs `model` over `images`.
///
/// # Errors
/// A message if the model takes other images or knows fewer classes than there are.
pub fn evaluate(model: &Model<'_>, images: &Images) -> Result<Evaluation, String> {
    let (pixels, classes) = (images.rows * images.columns, model.output_len());
    if model.input_len() != pixels {
        return Err(format!("takes {} values, but an image here has {pixels} pixels", model.input_len()));
    }
    if let Some(label) = images.labels.iter().find(|&&label| usize::from(label) >= classes) {
        return Err(format!("has {classes} outputs, but there are images of class {label}"));
    }
    let loss_kind = if model.ends_with_softmax() { Loss::CrossEntropy } else { Loss::SquaredError };
    let mut scratch = AlignedBuf::zeroed(BATCH * model.scratch_bytes());
    let mut outputs = vec![0.0; images.len() * classes];
    model.logits_batch(&images.pixels[..], &mut scratch, &mut outputs).map_err(|e| e.to_string())?;
    let mut confusion = vec![vec![0; classes]; classes];
    let mut loss = 0.0;
    for (outputs, label) in outputs.chunks_exact(classes).zip(images.labels.iter().map(|&label| usize::from(label))) {
        loss += loss_kind.of_image(outputs, label, LossQuirks::default());
        confusion[label][argmax(outputs)] += 1;
    }
    Ok(summary(confusion, loss))
}

fn summary(confusion: Vec<Vec<usize>>, loss: f64) -> Evaluation {
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    let images = confusion.iter().flatten().sum();
    let correct = confusion.iter().enumerate().map(|(class, row)| row[class]).sum();
    Evaluation {
        accuracy: share(correct, images),
        loss: if images == 0 { 0.0 } else { loss / images as f64 },
        images,
        correct,
        per_class: confusion.iter().enumerate().map(|(class, row)| share(row[class], row.iter().sum())).collect(),
        confusion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confusion_matrix_is_summed_up() {
        let evaluation = summary(vec![vec![3, 1], vec![0, 0]], 2.0);
        assert_eq!((evaluation.accuracy, evaluation.images, evaluation.correct), (0.75, 4, 3));
        assert_eq!((evaluation.loss, evaluation.per_class), (0.5, vec![0.75, 0.0]));
    }
}
