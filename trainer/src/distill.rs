//! Distillation: a network learns what a larger one answers. Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a
//! Neural Network" (2015).

use crate::batches;
use crate::data::{DataSet, shape_text};
use crate::loss::softmax;
use crate::recipe::Distill;
use std::num::NonZeroUsize;
use thumbnet::Model;

/// The larger network, and how much is learned from it.
#[derive(Clone, Copy, Debug)]
pub struct Teacher<'a> {
    model: &'a Model<'a>,
    temperature: f32,
    weight: f32,
    /// The network gets the values of an example times this, the teacher without it.
    factor: f32,
}

impl<'a> Teacher<'a> {
    /// `model` as the teacher of networks for examples such as `data`.
    ///
    /// # Errors
    /// A message if it takes other inputs or knows other classes.
    pub fn new(model: &'a Model<'a>, distill: &Distill, data: &DataSet) -> Result<Self, String> {
        let (found, wanted) = (model.input().shape, data.input.shape);
        if found != wanted {
            return Err(format!("takes inputs of {}, but the examples are {}", shape_text(found), shape_text(wanted)));
        }
        let (outputs, classes) = (model.output_len(), data.classes.len());
        if outputs != classes {
            return Err(format!("knows {outputs} classes, but there are {classes}"));
        }
        Ok(Teacher { model, temperature: distill.temperature, weight: distill.weight, factor: data.factor })
    }

    /// Writes its logits for `images` to `targets`.
    pub(crate) fn answer(&self, images: &[f32], targets: &mut Vec<f32>) {
        targets.resize(images.len() / self.model.input_len() * self.model.output_len(), 0.0);
        let run = |images: &[f32], targets: &mut [f32]| {
            batches::logits_batch(self.model, images, targets, NonZeroUsize::MIN).expect("lengths that fit");
        };
        if self.factor == 1.0 {
            return run(images, targets);
        }
        let values: Vec<f32> = images.iter().map(|value| value / self.factor).collect();
        run(&values, targets);
    }

    /// Turns the gradient of the cross-entropy with the labels into that of the mixture with the cross-entropy with the
    /// teacher's answers: both softened by the temperature `T`, and times `T^2`, so that the balance does not depend on it.
    pub(crate) fn correct(&self, outputs: &[f32], targets: &[f32], gradient: &mut [f32]) {
        let Teacher { temperature, weight, .. } = *self;
        let classes = self.model.output_len();
        let mut probabilities = [vec![0.0; classes], vec![0.0; classes]];
        let rows = outputs.chunks_exact(classes).zip(targets.chunks_exact(classes));
        for ((outputs, targets), gradient) in rows.zip(gradient.chunks_exact_mut(classes)) {
            for (probabilities, logits) in probabilities.iter_mut().zip([outputs, targets]) {
                let softened: Vec<f32> = logits.iter().map(|logit| logit / temperature).collect();
                softmax(&softened, probabilities);
            }
            for (class, slope) in gradient.iter_mut().enumerate() {
                let towards_teacher = probabilities[0][class] - probabilities[1][class];
                *slope = (1.0 - weight) * *slope + weight * temperature * towards_teacher;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::mnist;
    use crate::loss::{Loss, LossQuirks};
    use thumbnet::AlignedBuf;

    /// The mixture as it is defined, in double precision.
    fn mixture(outputs: &[f32], targets: &[f32], label: usize, temperature: f64, weight: f64) -> f64 {
        let log_softmax = |logits: &[f32], temperature: f64| -> Vec<f64> {
            let sum: f64 = logits.iter().map(|&x| (f64::from(x) / temperature).exp()).sum();
            logits.iter().map(|&x| f64::from(x) / temperature - sum.ln()).collect()
        };
        let of_labels = -log_softmax(outputs, 1.0)[label];
        let answers = log_softmax(targets, temperature).into_iter().zip(log_softmax(outputs, temperature));
        let of_teacher: f64 = answers.map(|(teacher, own)| -teacher.exp() * own).sum();
        (1.0 - weight) * of_labels + weight * temperature * temperature * of_teacher
    }

    #[test]
    fn the_gradient_is_that_of_the_mixture() {
        let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/cnn-8-16.tnet")).unwrap();
        let file = AlignedBuf::from_bytes(&file);
        let model = Model::load(&file).unwrap();
        let distill = Distill { from: String::new(), temperature: 3.0, weight: 0.7 };
        let test = mnist::test(&mnist::default_folder()).unwrap();
        let teacher = Teacher::new(&model, &distill, &test).unwrap();
        let outputs: Vec<f32> = (0..10).map(|i| (i as f32 * 1.3).sin()).collect();
        let targets: Vec<f32> = (0..10).map(|i| (i as f32 * 0.7).cos() * 4.0).collect();
        let mut gradient = vec![0.0; 10];
        Loss::CrossEntropy.tally(&outputs, &[4], LossQuirks::default(), Some(&mut gradient));
        teacher.correct(&outputs, &targets, &mut gradient);
        for (index, found) in gradient.iter().enumerate() {
            let at = |step: f32| {
                let mut moved = outputs.clone();
                moved[index] += step;
                mixture(&moved, &targets, 4, 3.0, f64::from(0.7f32))
            };
            let expected = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((f64::from(*found) - expected).abs() < 1e-3, "{index}: {found}, expected {expected}");
        }
    }
}
