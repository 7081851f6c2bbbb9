//! What one thread does with the images of a batch that are its own: augmentation, forward and backward.

use crate::augment::{self, Augmenter};
use crate::data::DataSet;
use crate::distill::Teacher;
use crate::layers::Pass;
use crate::loss::{self, Tally};
use crate::network::{Replica, Shared};
use crate::random::RandomState;
use crate::recipe::Recipe;

/// What is learned from, and how.
#[derive(Clone, Copy)]
pub(super) struct Lesson<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) images: &'a DataSet,
    pub(super) teacher: Option<Teacher<'a>>,
    /// How many epochs there were.
    pub(super) epoch: u32,
}

impl Lesson<'_> {
    /// Adds the gradients for the images of `slice` to those of `replica`, and leaves their tally with `worker`.
    pub(super) fn learn(
        &self,
        replica: &mut Replica,
        shared: Shared<'_>,
        worker: &mut Worker,
        slice: &[usize],
        rng: &mut RandomState,
    ) {
        let (recipe, rows) = (self.recipe, slice.len());
        worker.labels.clear();
        worker.labels.extend(slice.iter().map(|&index| self.images.labels[index]));
        replica.load(self.images, slice);
        if let Some(augmenter) = &mut worker.augmenter {
            let images = replica.input_mut(rows).chunks_exact_mut(self.images.size());
            for (image, &index) in images.zip(slice) {
                augmenter.apply(image, &mut augment::rng_for(recipe.seed, self.epoch, index));
            }
        }
        if let Some(teacher) = self.teacher {
            teacher.answer(replica.input_mut(rows), &mut worker.targets);
        }
        replica.forward(shared, rows, Pass::Train(rng));
        let (outputs, gradient) = replica.output_and_gradient(rows);
        worker.tally = recipe.loss.tally(outputs, &worker.labels, recipe.quirks.of_loss(), Some(gradient));
        if recipe.label_smoothing > 0.0 {
            loss::smooth(gradient, &worker.labels, recipe.label_smoothing);
        }
        if let Some(teacher) = self.teacher {
            teacher.correct(outputs, &worker.targets, gradient);
        }
        replica.backward(shared, rows);
    }
}

/// What a thread needs beside a replica.
#[derive(Clone, Default)]
pub(super) struct Worker {
    pub(super) labels: Vec<u16>,
    /// What the teacher says of the images.
    pub(super) targets: Vec<f32>,
    pub(super) tally: Tally,
    pub(super) augmenter: Option<Augmenter>,
}
