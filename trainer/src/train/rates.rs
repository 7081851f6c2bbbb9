//! The learning rate in the course of a training.

use crate::recipe::{Quantize, Recipe};
use crate::schedule::Schedule;

/// The learning rates of some epochs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    /// What the schedule's factors are of.
    peak: f32,
    schedule: Schedule,
    warm_up: f64,
    /// How many epochs there are.
    pub(super) epochs: u32,
}

impl Rates {
    pub(super) fn of(recipe: &Recipe) -> Self {
        let Recipe { learning_rate: peak, schedule, warm_up, epochs, .. } = *recipe;
        Rates { peak, schedule, warm_up, epochs }
    }

    pub(super) fn of_fine_tuning(quantize: Quantize) -> Self {
        Rates { peak: quantize.learning_rate, schedule: Schedule::Cosine, warm_up: 0.0, epochs: quantize.epochs }
    }

    /// The learning rate after so many epochs.
    pub(super) fn after(&self, epochs: f64) -> f32 {
        let warm = if epochs < self.warm_up { epochs / self.warm_up } else { 1.0 };
        (f64::from(self.peak) * warm * self.schedule.factor(epochs, self.epochs)) as f32
    }
}
