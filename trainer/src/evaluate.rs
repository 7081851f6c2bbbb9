//! Measures an exported model: the core itself runs over a data set.

use crate::batches;
use crate::data::{DataSet, shape_text};
use crate::loss::{Loss, LossQuirks, argmax};
use serde::Serialize;
use std::num::NonZeroUsize;
use thumbnet::layer::Shape;
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
/// A message if the model takes other examples ([`check_shape`]) or does not know their classes ([`labels_for`]).
pub fn evaluate(model: &Model<'_>, images: &DataSet, threads: NonZeroUsize) -> Result<Evaluation, String> {
    check_shape(model, images)?;
    let labels = labels_for(model, images)?;
    let logits = logits(model, images, threads)?;
    Ok(tally(model.output_len(), loss(model.ends_with_softmax()), &labels, &logits))
}

/// Runs `ensemble` over `images`, likewise. The loss is that of the averaged outputs.
///
/// # Errors
/// As of [`evaluate`].
pub fn evaluate_ensemble(
    ensemble: &Ensemble<'_>,
    images: &DataSet,
    threads: NonZeroUsize,
) -> Result<Evaluation, String> {
    let outputs = ensemble_outputs(ensemble, images, threads)?;
    evaluate_outputs(ensemble, images, &outputs)
}

/// The same from the ensemble's [outputs](ensemble_outputs), for who needs them for something else too.
///
/// # Errors
/// As of [`evaluate`].
pub fn evaluate_outputs(ensemble: &Ensemble<'_>, images: &DataSet, outputs: &[f32]) -> Result<Evaluation, String> {
    let labels = labels_for(&ensemble.members()[0], images)?;
    // The logits of which the outputs of a softmax would be the probabilities.
    let logit = |&probability: &f32| probability.max(f32::MIN_POSITIVE).ln();
    let softmax = ensemble.ends_with_softmax();
    let logits = if softmax { outputs.iter().map(logit).collect() } else { outputs.to_vec() };
    Ok(tally(ensemble.output_len(), loss(softmax), &labels, &logits))
}

/// The outputs of `ensemble` for every image, `[N, outputs]`.
///
/// # Errors
/// A message if the images do not fit.
pub fn ensemble_outputs(ensemble: &Ensemble<'_>, images: &DataSet, threads: NonZeroUsize) -> Result<Vec<f32>, String> {
    // All members take and know the same.
    check_shape(&ensemble.members()[0], images)?;
    let mut outputs = vec![0.0; images.len() * ensemble.output_len()];
    let values = images.values_for(ensemble.input());
    batches::ensemble_batch(ensemble, values.as_input(), &mut outputs, threads).map_err(|e| e.to_string())?;
    Ok(outputs)
}

/// Checks that `model` takes examples of the shape of `data`, or as many values if one of them is a plain row of values.
///
/// # Errors
/// A message with both shapes.
pub fn check_shape(model: &Model<'_>, data: &DataSet) -> Result<(), String> {
    let is_row =
        |shape: Shape| [shape.height, shape.width, shape.channels].iter().filter(|&&size| size > 1).count() < 2;
    let (takes, found) = (model.input().shape, data.input.shape);
    if takes == found || (model.input_len() == data.size() && (is_row(takes) || is_row(found))) {
        return Ok(());
    }
    Err(format!(
        "takes {} values ({}), but an image here has {} ({})",
        model.input_len(),
        shape_text(takes),
        data.size(),
        shape_text(found)
    ))
}

/// The class that `model` should give to each of the examples: the one of the same name, or of the same number if the model's
/// classes have no names or the data's are just numbered.
///
/// # Errors
/// A message with the classes of both, if the model does not know one.
pub fn labels_for(model: &Model<'_>, data: &DataSet) -> Result<Vec<u16>, String> {
    let known: Vec<&str> = model.labels().collect();
    let counts = data.counts();
    let by_name = |name: &str| known.iter().position(|label| *label == name);
    // A class without examples is never asked for.
    let unknown = (0..counts.len()).find(|&class| counts[class] > 0 && by_name(&data.classes[class]).is_none());
    let Some(unknown) = unknown else {
        let answers: Vec<_> = data.classes.iter().map(|name| by_name(name).unwrap_or(usize::MAX)).collect();
        return Ok(data.labels.iter().map(|&label| answers[usize::from(label)] as u16).collect());
    };
    let numbered = data.classes.iter().enumerate().all(|(number, name)| *name == number.to_string());
    let outputs = model.output_len();
    let beyond = (outputs..counts.len()).find(|&class| counts[class] > 0);
    if beyond.is_none() && (known.is_empty() || numbered) {
        return Ok(data.labels.clone());
    }
    let class = &data.classes[beyond.unwrap_or(unknown)];
    let names = known.iter().take(20).copied().collect::<Vec<_>>().join(", ");
    let names =
        if known.is_empty() { names } else { format!(" ({names}{})", if known.len() > 20 { ", …" } else { "" }) };
    Err(format!("has {outputs} outputs{names}, but there are images of class {class}"))
}

/// The outputs of `model` for every image, `[N, outputs]`, without a final softmax. The shape has been checked.
fn logits(model: &Model<'_>, images: &DataSet, threads: NonZeroUsize) -> Result<Vec<f32>, String> {
    let mut outputs = vec![0.0; images.len() * model.output_len()];
    let values = images.values_for(model.input());
    batches::logits_batch(model, values.as_input(), &mut outputs, threads).map_err(|e| e.to_string())?;
    Ok(outputs)
}

/// The loss that a model was trained with, by what it ends in.
fn loss(softmax: bool) -> Loss {
    if softmax { Loss::CrossEntropy } else { Loss::SquaredError }
}

fn tally(classes: usize, loss_kind: Loss, labels: &[u16], logits: &[f32]) -> Evaluation {
    let mut confusion = vec![vec![0; classes]; classes];
    let mut loss = 0.0;
    for (outputs, label) in logits.chunks_exact(classes).zip(labels.iter().map(|&label| usize::from(label))) {
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
pub fn compare(
    [before, after]: [&Model<'_>; 2],
    images: &DataSet,
    threads: NonZeroUsize,
) -> Result<Comparison, String> {
    check_shape(before, images)?;
    let labels = labels_for(before, images)?;
    let (old, new) = (logits(before, images, threads)?, logits(after, images, threads)?);
    let answers = |logits: &[f32]| logits.chunks_exact(before.output_len()).map(argmax).collect::<Vec<_>>();
    let changed = answers(&old).iter().zip(&answers(&new)).filter(|(old, new)| old != new).count();
    let differences = old.iter().zip(&new).map(|(old, new)| (old - new).abs());
    let tally =
        |model: &Model<'_>, logits: &[f32]| tally(model.output_len(), loss(model.ends_with_softmax()), &labels, logits);
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
