//! Deviations from the textbook, so that a notebook can be followed exactly.

use crate::loss::LossQuirks;
use serde::{Deserialize, Serialize};

/// What the notebooks do otherwise than the textbook, one option each. All are off unless a recipe sets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// The gradient is divided by the batch size twice (s0, s1), so a rate of 2 acts as 0.02 on the mean gradient.
    pub divide_by_batch_twice: bool,
    /// Tanh's slope is taken at the value that dropout has already doubled (s0, s1): `1 - (2t)^2`, which is negative
    /// where `|t| > 1/2`. The textbook takes `1 - t^2`.
    pub slope_after_dropout: bool,
    /// The dropout mask doubles the kept values on the way forward but not their gradients on the way back (s0, s1, s2).
    pub unscaled_dropout_gradient: bool,
    /// The kernels of convolutions step up the gradient (s1: `kernels -=` where the deltas call for `+=`). The other
    /// layers still descend, and the network learns on what random kernels give it.
    pub kernels_climb: bool,
    /// The squared error's gradient lacks the factor 2 (s2): the loss is reported as `sum (y - o)^2`, the step is that
    /// of half of it.
    pub half_squared_error_gradient: bool,
    /// The update stands inside the loop over the images of a batch (s2-batch): as many updates per batch as it has
    /// images, all from the outputs of the one forward pass. With a fixed output error the output weights move along a
    /// straight line, so the hidden layer sees their mean position; both layers are updated once by the sum. Only for
    /// networks of two dense layers.
    pub update_per_image: bool,
    /// Training accuracy and loss are divided by all images, also those that `drop_last` left out (s0, s1, s2-batch; it
    /// shows in s1, which uses 896 of its 1,000).
    pub average_over_dropped: bool,
    /// The sum of the batches' mean losses is divided by the number of *full* batches, even where a smaller last batch
    /// adds to it (s4: `60000 // batch`).
    pub loss_over_full_batches: bool,
    /// Weights are drawn, thrown away and drawn again (s3 initialises in two cells).
    pub weights_drawn_twice: bool,
    /// Cross-entropy is reported as `-ln(p + log_offset)` (s4: 1e-8). The gradient does not know it.
    pub log_offset: f64,
    /// Cross-entropy is reported from probabilities clipped to `[clip, 1 - clip]` (s3: 1e-12).
    pub clip_probabilities: f64,
    /// One more update before the first epoch (s4 tries out its update on five images and trains on from there).
    pub first_update: Option<FirstUpdate>,
}

/// See [`Quirks::first_update`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstUpdate {
    /// It takes the first so many images.
    pub images: usize,
    /// Its learning rate.
    pub learning_rate: f32,
}

impl Quirks {
    /// The part that concerns the loss.
    pub fn of_loss(&self) -> LossQuirks {
        LossQuirks {
            log_offset: self.log_offset,
            clip: self.clip_probabilities,
            half_gradient: self.half_squared_error_gradient,
        }
    }
}
