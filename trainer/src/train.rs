//! The training loop: epochs, batches, updates, and what it reports on the way.

use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::export::export_for;
use crate::layers::Pass;
use crate::loss::Tally;
use crate::network::Network;
use crate::quantize::{self, Steps};
use crate::random::RandomState;
use crate::recipe::{Quantize, Recipe, Schedule};
use thumbnet::Model;
use thumbnet::layer::Packing;

/// What one epoch brought: a row of the log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Its number, counted as the recipe counts.
    pub epoch: u32,
    /// The mean loss during the epoch, each batch before its own update; `None` if the recipe logs no loss.
    pub train_loss: Option<f64>,
    /// The share of correct answers during the epoch, 0 to 1, likewise.
    pub train_accuracy: f64,
    /// The mean loss over the test images after the epoch.
    pub test_loss: Option<f64>,
    /// The share of correct answers over the test images; `None` after epochs that were not tested.
    pub test_accuracy: Option<f64>,
}

/// Where an epoch stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The epoch's number, counted as the recipe counts.
    pub epoch: u32,
    /// Images trained on so far in this epoch.
    pub images: usize,
    /// Their mean loss.
    pub loss: f64,
    /// The share of correct answers among them.
    pub accuracy: f64,
}

/// Told how a training proceeds. `()` listens to nothing.
pub trait Observer {
    /// A batch is done.
    fn batch(&mut self, _progress: &Progress) {}

    /// An epoch is done and, if it was to be, tested.
    fn epoch(&mut self, _epoch: &Epoch) {}
}

impl Observer for () {}

/// A finished training.
pub struct Trained {
    /// The network with its final weights.
    pub network: Network,
    /// The steps of its activations, if the recipe has it quantised.
    pub steps: Option<Steps>,
    /// One row per epoch.
    pub history: Vec<Epoch>,
    /// What dropout and shuffles are drawn from next.
    rng: RandomState,
}

/// Trains the network of `recipe` on `images` (the first [`Recipe::images`] of them) and tests it on `test`. If the recipe has
/// it quantised, [`fine_tune`] follows.
///
/// # Errors
/// [`Error::Recipe`] if the recipe does not fit the images, [`Error::Diverged`] if the loss stops being a number.
pub fn train(recipe: &Recipe, images: &DataSet, test: &DataSet, observer: &mut dyn Observer) -> Result<Trained> {
    recipe.check()?;
    let mut training = Training::new(recipe, images)?;
    if let Some(first) = recipe.quirks.first_update {
        let indices: Vec<usize> = (0..first.images.min(training.count)).collect();
        training.update(&indices, first.learning_rate);
    }
    let rates = Rates { start: recipe.learning_rate, schedule: recipe.schedule, epochs: recipe.epochs };
    training.epochs(rates, test, observer)?;
    match recipe.quantize {
        Some(quantize) => fine_tune(training.trained, recipe, quantize, images, test, observer),
        None => Ok(training.trained),
    }
}

/// Trains on with the weights and activations of an int8 model, whatever [`Recipe::quantize`] says. `trained` comes from
/// [`train`] with the same recipe and images.
///
/// # Errors
/// As [`train`].
pub fn fine_tune(
    trained: Trained,
    recipe: &Recipe,
    quantize: Quantize,
    images: &DataSet,
    test: &DataSet,
    observer: &mut dyn Observer,
) -> Result<Trained> {
    let mut training = Training::resume(recipe, images, trained)?;
    training.quantize()?;
    let rates = Rates { start: quantize.learning_rate, schedule: Schedule::Cosine, epochs: quantize.epochs };
    training.epochs(rates, test, observer)?;
    Ok(training.trained)
}

/// Tallies the network's answers to `images`, without dropout.
pub fn measure(network: &mut Network, recipe: &Recipe, images: &DataSet) -> Tally {
    let order: Vec<usize> = (0..images.len()).collect();
    let mut tally = Tally::default();
    for slice in order.chunks(network.slice_rows()) {
        network.load(images, slice);
        let labels = &images.labels[slice[0]..][..slice.len()];
        let outputs = network.forward(slice.len(), Pass::Test);
        tally += recipe.loss.tally(outputs, labels, recipe.quirks.of_loss(), None);
    }
    tally
}

/// The learning rates of some epochs.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// Of the first batch.
    start: f32,
    schedule: Schedule,
    /// How many epochs there are.
    epochs: u32,
}

impl Rates {
    /// The learning rate after so many epochs.
    fn after(&self, epochs: f64) -> f32 {
        (f64::from(self.start) * self.schedule.factor(epochs / f64::from(self.epochs))) as f32
    }
}

/// The state of a training in progress.
struct Training<'a> {
    recipe: &'a Recipe,
    images: &'a DataSet,
    /// How many of the images are used.
    count: usize,
    /// What there is so far.
    trained: Trained,
    /// The labels of the slice at hand.
    labels: Vec<u16>,
}

impl<'a> Training<'a> {
    fn new(recipe: &'a Recipe, images: &'a DataSet) -> Result<Self> {
        let mut rng = RandomState::new(recipe.seed);
        let input = images.input.shape;
        let mut network = Network::new(recipe, input, images.classes.len(), &mut rng)?;
        if recipe.quirks.weights_drawn_twice {
            network = Network::new(recipe, input, images.classes.len(), &mut rng)?;
        }
        Self::resume(recipe, images, Trained { network, steps: None, history: Vec::new(), rng })
    }

    fn resume(recipe: &'a Recipe, images: &'a DataSet, trained: Trained) -> Result<Self> {
        let count = recipe.images.unwrap_or(usize::MAX).min(images.len());
        if recipe.drop_last && count < recipe.batch {
            return Err(recipe.error(format!("batch = {} with drop_last, but there are {count} images", recipe.batch)));
        }
        let slice = trained.network.slice_rows();
        if recipe.quirks.update_per_image && recipe.batch > slice {
            return Err(recipe.error(format!("update_per_image takes batches of at most {slice} images here")));
        }
        Ok(Training { recipe, images, count, trained, labels: Vec::with_capacity(slice) })
    }

    /// Trains for as many epochs as there are rates for.
    fn epochs(&mut self, rates: Rates, test: &DataSet, observer: &mut dyn Observer) -> Result<()> {
        let recipe = self.recipe;
        for number in 0..rates.epochs {
            let tested = number % recipe.test_every == 0 || number + 1 == rates.epochs;
            let mut epoch = self.epoch(|done: f64| rates.after(f64::from(number) + done), observer)?;
            if tested {
                let tally = measure(&mut self.trained.network, recipe, test);
                epoch.test_accuracy = Some(tally.correct as f64 / test.len() as f64);
                epoch.test_loss = recipe.log_loss.then(|| tally.loss / test.len() as f64);
            }
            observer.epoch(&epoch);
            self.trained.history.push(epoch);
        }
        Ok(())
    }

    /// Has the network round as an int8 model does, with the ranges that its activations have now.
    fn quantize(&mut self) -> Result<()> {
        let file = export_for(&self.trained.network, self.recipe.loss, self.images)?;
        let model = Model::load(&file).expect("an exported model loads");
        let refused = |problem| self.recipe.error(format!("cannot be quantised: the network {problem}"));
        let steps = quantize::calibrate(&model, self.images).map_err(refused)?;
        // What the format cannot hold is better known before the fine-tuning than after it.
        quantize::quantize(&model, &steps, Packing::Folded).map_err(refused)?;
        // The network sees the values times a factor that the exported weights have instead.
        self.trained.network.quantize(&Steps { input: steps.input * self.images.factor, ..steps.clone() });
        self.trained.steps = Some(steps);
        Ok(())
    }

    /// One epoch; `rate` gives the learning rate after a part of it.
    fn epoch(&mut self, rate: impl Fn(f64) -> f32, observer: &mut dyn Observer) -> Result<Epoch> {
        let recipe = self.recipe;
        let number = recipe.first_epoch + self.trained.history.len() as u32;
        let order = if recipe.shuffle { self.trained.rng.permutation(self.count) } else { (0..self.count).collect() };
        let (mut total, mut seen, mut batch_means) = (Tally::default(), 0, 0.0);
        for batch in order.chunks(recipe.batch).filter(|batch| !recipe.drop_last || batch.len() == recipe.batch) {
            let tally = self.update(batch, rate(seen as f64 / self.count as f64));
            total += tally;
            seen += batch.len();
            batch_means += tally.loss / batch.len() as f64;
            let (loss, accuracy) = (total.loss / seen as f64, total.correct as f64 / seen as f64);
            observer.batch(&Progress { epoch: number, images: seen, loss, accuracy });
        }
        let divisor = if recipe.quirks.average_over_dropped { self.count } else { seen } as f64;
        let mut loss = total.loss / divisor;
        if recipe.quirks.loss_over_full_batches {
            loss = batch_means / (self.count / recipe.batch).max(1) as f64;
        }
        if !loss.is_finite() {
            return Err(Error::Diverged { recipe: recipe.name.clone(), epoch: number, loss });
        }
        Ok(Epoch {
            epoch: number,
            train_loss: recipe.log_loss.then_some(loss),
            train_accuracy: total.correct as f64 / divisor,
            test_loss: None,
            test_accuracy: None,
        })
    }

    /// One update from the images named by `indices`; tallies them as they were before it.
    fn update(&mut self, indices: &[usize], learning_rate: f32) -> Tally {
        let (recipe, count) = (self.recipe, indices.len() as f64);
        // The gradients are sums over the batch: dividing the rate makes them means.
        let divisor = if recipe.quirks.divide_by_batch_twice { count * count } else { count };
        let mut rate = f64::from(learning_rate) / divisor;
        if recipe.quirks.update_per_image {
            // The updates k = 0, 1, ... see the output weights k steps on: on average (count - 1) / 2.
            self.trained.network.look_ahead((rate * (count - 1.0) / 2.0) as f32);
            rate *= count;
        }
        let mut tally = Tally::default();
        for slice in indices.chunks(self.trained.network.slice_rows()) {
            tally += self.accumulate(slice);
        }
        let kernel_rate = if recipe.quirks.kernels_climb { -rate } else { rate };
        self.trained.network.descend(rate as f32, kernel_rate as f32);
        tally
    }

    /// Adds the gradients of one slice of a batch.
    fn accumulate(&mut self, slice: &[usize]) -> Tally {
        let rows = slice.len();
        self.labels.clear();
        self.labels.extend(slice.iter().map(|&index| self.images.labels[index]));
        self.trained.network.load(self.images, slice);
        self.trained.network.forward(rows, Pass::Train(&mut self.trained.rng));
        let (outputs, gradient) = self.trained.network.output_and_gradient(rows);
        let tally = self.recipe.loss.tally(outputs, &self.labels, self.recipe.quirks.of_loss(), Some(gradient));
        self.trained.network.backward(rows);
        tally
    }
}
