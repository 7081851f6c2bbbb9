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
