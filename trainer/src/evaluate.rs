//! Measures an exported model: the core itself runs over a data set.

use crate::batches;
use crate::data::Images;
use crate::loss::{Loss, LossQuirks, argmax};
use serde::Serialize;
use std::num::NonZeroUsize;
use thumbnet::{Ensemble, Model};

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

/// Runs `model` over `images`, on up to `threads` threads. Their number does not change the result.
///
/// # Errors
/// A message if the model takes other images or knows fewer classes than there are.
pub fn evaluate(model: &Model<'_>, images: &Images, threads: NonZeroUsize) -> Result<Evaluation, String> {
    let logits = logits(model, images, threads)?;
    Ok(tally(model.output_len(), loss(model.ends_with_softmax()), images, &logits))
}

/// Runs `ensemble` over `images`, likewise. The loss is that of the averaged outputs.
///
/// # Errors
/// As of [`evaluate`].
pub fn evaluate_ensemble(
    ensemble: &Ensemble<'_>,
    images: &Images,
    threads: NonZeroUsize,
) -> Result<Evaluation, String> {
    let classes = ensemble.output_len();
    check(ensemble.input_len(), classes, images)?;
    let mut outputs = vec![0.0; images.len() * classes];
    batches::ensemble_batch(ensemble, &images.pixels[..], &mut outputs, threads).map_err(|e| e.to_string())?;
    if ensemble.ends_with_softmax() {
        // The logits of which these would be the probabilities.
        outputs.iter_mut().for_each(|probability| *probability = probability.max(f32::MIN_POSITIVE).ln());
    }
    Ok(tally(classes, loss(ensemble.ends_with_softmax()), images, &outputs))
}

/// The outputs of `model` for every image, `[N, outputs]`, without a final softmax.
fn logits(model: &Model<'_>, images: &Images, threads: NonZeroUsize) -> Result<Vec<f32>, String> {
    let classes = model.output_len();
    check(model.input_len(), classes, images)?;
    let mut outputs = vec![0.0; images.len() * classes];
    batches::logits_batch(model, &images.pixels[..], &mut outputs, threads).map_err(|e| e.to_string())?;
    Ok(outputs)
}

/// A message if images do not have `inputs` pixels, or if one is of a class beyond `classes`.
fn check(inputs: usize, classes: usize, images: &Images) -> Result<(), String> {
    let pixels = images.rows * images.columns;
    if inputs != pixels {
        return Err(format!("takes {inputs} values, but an image here has {pixels} pixels"));
    }
    match images.labels.iter().find(|&&label| usize::from(label) >= classes) {
        Some(label) => Err(format!("has {classes} outputs, but there are images of class {label}")),
        None => Ok(()),
    }
}

/// The loss that a model was trained with, by what it ends in.
fn loss(softmax: bool) -> Loss {
    if softmax { Loss::CrossEntropy } else { Loss::SquaredError }
}

fn tally(classes: usize, loss_kind: Loss, images: &Images, logits: &[f32]) -> Evaluation {
    let mut confusion = vec![vec![0; classes]; classes];
    let mut loss = 0.0;
    for (outputs, label) in logits.chunks_exact(classes).zip(images.labels.iter().map(|&label| usize::from(label))) {
        loss += loss_kind.of_image(outputs, label, LossQuirks::default());
        confusion[label][argmax(outputs)] += 1;
    }
    summary(confusion, loss)
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

/// How two models with the same outputs differ on a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// How many images there were.
    pub images: usize,
    /// How many answers of the first model were correct.
    pub correct_before: usize,
    /// How many answers of the second model were correct.
    pub correct_after: usize,
    /// The first model's share of correct answers, 0 to 1.
    pub accuracy_before: f64,
    /// The second model's share of correct answers, 0 to 1.
    pub accuracy_after: f64,
    /// How many images the two give different answers to.
    pub changed_answers: usize,
    /// The largest difference between two outputs (without a final softmax); NaN if one of them is.
    pub largest_logit_difference: f32,
}

/// Runs two models with the same outputs over `images`, on up to `threads` threads.
///
/// # Errors
/// As of [`evaluate`].
pub fn compare([before, after]: [&Model<'_>; 2], images: &Images, threads: NonZeroUsize) -> Result<Comparison, String> {
    let (old, new) = (logits(before, images, threads)?, logits(after, images, threads)?);
    let answers = |logits: &[f32]| logits.chunks_exact(before.output_len()).map(argmax).collect::<Vec<_>>();
    let changed = answers(&old).iter().zip(&answers(&new)).filter(|(old, new)| old != new).count();
    let differences = old.iter().zip(&new).map(|(old, new)| (old - new).abs());
    let tally =
        |model: &Model<'_>, logits: &[f32]| tally(model.output_len(), loss(model.ends_with_softmax()), images, logits);
    let (old, new) = (tally(before, &old), tally(after, &new));
    Ok(Comparison {
        images: images.len(),
        correct_before: old.correct,
        correct_after: new.correct,
        accuracy_before: old.accuracy,
        accuracy_after: new.accuracy,
        changed_answers: changed,
        largest_logit_difference: differences
            .fold(0.0, |most, next| if most >= next || most.is_nan() { most } else { next }),
    })
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
