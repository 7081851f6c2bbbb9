//! The training loop: epochs, batches, updates, and what it reports on the way.

mod lesson;
mod measure;
mod rates;

pub use measure::measure;

use crate::augment::Augmenter;
use crate::checkpoint::{self, Checkpoint, Weights};
use crate::data::DataSet;
use crate::distill::Teacher;
use crate::error::{Error, Result};
use crate::export::export_for;
use crate::loss::Tally;
use crate::network::Network;
use crate::optimizer::Optimizer;
use crate::quantize::{self, Steps};
use crate::random::RandomState;
use crate::recipe::{Quantize, Recipe};
use lesson::{Lesson, Worker};
use measure::measure_some;
use rates::Rates;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thumbnet::Model;
use thumbnet::layer::Packing;

/// What one epoch brought: a row of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its number, counted as the recipe counts.
    pub epoch: u32,
    /// The mean loss during the epoch, each batch before its own update; `None` if the recipe logs no loss.
    pub train_loss: Option<f64>,
    /// The share of correct answers during the epoch, 0 to 1, likewise.
    pub train_accuracy: f64,
    /// The mean loss over the images kept apart for validation; `None` if there are none.
    pub validation_loss: Option<f64>,
    /// The share of correct answers over them.
    pub validation_accuracy: Option<f64>,
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
    /// The images that it will be in the end.
    pub of: usize,
    /// Their mean loss.
    pub loss: f64,
    /// The share of correct answers among them.
    pub accuracy: f64,
}

/// Told how a training proceeds. `()` listens to nothing.
pub trait Observer {
    /// A batch is done.
    fn batch(&mut self, _progress: &Progress) {}

    /// An epoch of so many images is done and, if it was to be, tested. `checkpoint` makes what the training could go on from.
    ///
    /// # Errors
    /// An error ends the training.
    fn epoch(&mut self, _epoch: &Epoch, _images: usize, _checkpoint: &dyn Fn() -> Checkpoint) -> Result<()> {
        Ok(())
    }
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
    /// How many updates there were.
    updates: u64,
}

/// Trains the network of `recipe` on `images` (the first [`Recipe::images`] of them) and tests it on `test`. If the recipe has
/// it quantised, [`fine_tune`] follows.
///
/// # Errors
/// [`Error::Recipe`] if the recipe does not fit the images, [`Error::Diverged`] if the loss stops being a number.
pub fn train(recipe: &Recipe, images: &DataSet, test: &DataSet, observer: &mut dyn Observer) -> Result<Trained> {
    Training::new(recipe, images, test)?.run(observer)
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
    let mut training = Training::of(recipe, images, test, trained)?;
    training.quantize()?;
    training.epochs(Rates::of_fine_tuning(quantize), observer)?;
    Ok(training.trained)
}

/// A training in progress.
pub struct Training<'a> {
    recipe: &'a Recipe,
    images: &'a DataSet,
    test: &'a DataSet,
    /// The images that are learned from, and those kept apart.
    learning: Vec<usize>,
    validating: Vec<usize>,
    /// What there is so far.
    trained: Trained,
    optimizer: Optimizer,
    /// The average over the course of the weights, with [`Recipe::ema`].
    average: Option<Weights>,
    /// The weights with the least validation loss so far, and that loss; with [`Recipe::patience`].
    best: Option<(f64, Weights)>,
    /// How many epochs were without a better one since.
    waited: u32,
    /// How many epochs there were since the start, or since the fine-tuning began.
    epochs: u32,
    /// One for each replica.
    workers: Vec<Worker>,
    teacher: Option<Teacher<'a>>,
}

impl<'a> Training<'a> {
    /// A training that has not begun; the weights are drawn from the recipe's seed.
    ///
    /// # Errors
    /// [`Error::Recipe`] if the recipe does not fit the images.
    pub fn new(recipe: &'a Recipe, images: &'a DataSet, test: &'a DataSet) -> Result<Self> {
        recipe.check()?;
        let mut rng = RandomState::new(recipe.seed);
        let input = images.input.shape;
        let mut network = Network::new(recipe, input, images.classes.len(), &mut rng)?;
        if recipe.quirks.weights_drawn_twice {
            network = Network::new(recipe, input, images.classes.len(), &mut rng)?;
        }
        Self::of(recipe, images, test, Trained { network, steps: None, history: Vec::new(), rng, updates: 0 })
    }

    /// A training that begins where another one stands.
    fn of(recipe: &'a Recipe, images: &'a DataSet, test: &'a DataSet, trained: Trained) -> Result<Self> {
        let count = recipe.images.unwrap_or(usize::MAX).min(images.len());
        let (mut learning, mut validating) = images.validation_split(recipe.validation);
        [&mut learning, &mut validating].into_iter().for_each(|part| part.retain(|&index| index < count));
        if recipe.drop_last && learning.len() < recipe.batch {
            let found = learning.len();
            return Err(recipe.error(format!("batch = {} with drop_last, but there are {found} images", recipe.batch)));
        }
        let slice = trained.network.slice_rows();
        let augment = recipe.augment;
        let augmenter = Augmenter::new(augment, images.input.shape).map_err(|problem| recipe.error(problem))?;
        if recipe.quirks.update_per_image && recipe.batch > slice {
            return Err(recipe.error(format!("update_per_image takes batches of at most {slice} images here")));
        }
        let mut training = Training {
            recipe,
            images,
            test,
            learning,
            validating,
            trained,
            optimizer: Optimizer::new(recipe.optimizer, recipe.regularize),
            average: None,
            best: None,
            waited: 0,
            epochs: 0,
            workers: vec![Worker { augmenter: (!augment.is_off()).then_some(augmenter), ..Worker::default() }],
            teacher: None,
        };
        training.start_phase();
        Ok(training)
    }

    /// Takes the parameters of the first layers from `model`, as many of its layers as are also the recipe's, and keeps those
    /// of the first `frozen` layers with weights as they are. The last layer is drawn anew if the classes are others.
    ///
    /// # Errors
    /// A message if `model` has int8 weights or not even its first layer in common with the recipe, or if fewer layers than
    /// `frozen` come from it.
    pub fn start_from(&mut self, model: &Model<'_>, frozen: usize) -> std::result::Result<usize, String> {
        let taken = crate::transfer::take_over(&mut self.trained.network, model, self.images)?;
        if frozen > taken {
            return Err(format!(
                "{frozen} layers are to be frozen, but only the first {taken} with weights come from it"
            ));
        }
        self.trained.network.freeze(frozen);
        self.start_phase();
        Ok(taken)
    }

    /// Has the network learn what `teacher` answers, too; see [`crate::recipe::Distill`].
    pub fn learn_from(&mut self, teacher: Teacher<'a>) {
        self.teacher = Some(teacher);
    }

    /// Goes on from where another training with the same recipe and images stood.
    ///
    /// # Errors
    /// A message if it was of another recipe or other images.
    pub fn resume(&mut self, checkpoint: &Checkpoint) -> std::result::Result<(), String> {
        checkpoint.check(self.recipe, self.images)?;
        let state = &checkpoint.state;
        if let Some(steps) = &state.steps {
            self.trained.network.fold(usize::MAX);
            self.trained.network.quantize(&self.seen(steps));
            self.start_phase();
        }
        state.weights.put(&mut self.trained.network)?;
        self.trained.steps.clone_from(&state.steps);
        self.trained.history.clone_from(&state.history);
        self.trained.rng = RandomState::restore(self.recipe.seed, state.random);
        self.trained.updates = state.updates;
        self.optimizer.memory = state.optimizer.clone();
        self.average.clone_from(&state.average);
        self.best.clone_from(&state.best);
        (self.waited, self.epochs) = (state.waited, state.epochs);
        Ok(())
    }

    /// What this training could go on from.
    pub fn checkpoint(&self) -> Checkpoint {
        let state = checkpoint::State {
            steps: self.trained.steps.clone(),
            weights: Weights::of(&self.trained.network),
            history: self.trained.history.clone(),
            random: self.trained.rng.position(),
            updates: self.trained.updates,
            optimizer: self.optimizer.memory.clone(),
            average: self.average.clone(),
            best: self.best.clone(),
            waited: self.waited,
            epochs: self.epochs,
        };
        Checkpoint::new(self.recipe, self.images, state)
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss stops being a number, [`Error::Recipe`] if the network cannot be quantised, or what
    /// `observer` gives.
    pub fn run(mut self, observer: &mut dyn Observer) -> Result<Trained> {
        let begun = self.epochs > 0 || self.trained.steps.is_some();
        if let (Some(first), false) = (self.recipe.quirks.first_update, begun) {
            let indices: Vec<usize> = self.learning[..first.images.min(self.learning.len())].to_vec();
            self.update(&indices, first.learning_rate);
        }
        if self.trained.steps.is_none() {
            self.epochs(Rates::of(self.recipe), observer)?;
        }
        if let Some(quantize) = self.recipe.quantize {
            if self.trained.steps.is_none() {
                self.quantize()?;
            }
            self.epochs(Rates::of_fine_tuning(quantize), observer)?;
        }
        Ok(self.trained)
    }

    /// Forgets what an optimizer, an average and a comparison of epochs remember of other weights.
    fn start_phase(&mut self) {
        self.optimizer = Optimizer::new(self.recipe.optimizer, self.recipe.regularize);
        self.average = (self.recipe.ema > 0.0).then(|| Weights::of(&self.trained.network));
        self.best = None;
        (self.waited, self.epochs) = (0, 0);
        let (_, replicas) = self.trained.network.split();
        self.workers.resize(replicas.len(), self.workers[0].clone());
    }

    /// Trains until there were as many epochs as there are rates for, or until they do not help any more. The network then has
    /// the weights that are to be exported.
    fn epochs(&mut self, rates: Rates, observer: &mut dyn Observer) -> Result<()> {
        let patience = self.recipe.patience.unwrap_or(u32::MAX);
        while self.epochs < rates.epochs && self.waited < patience {
            let number = self.epochs;
            let mut epoch = self.epoch(|done: f64| rates.after(f64::from(number) + done), observer)?;
            self.epochs += 1;
            let every = self.recipe.test_every;
            let tested = (every > 0 && number.is_multiple_of(every)) || self.epochs == rates.epochs;
            self.with_average(|training| training.examine(&mut epoch, tested));
            self.trained.history.push(epoch);
            observer.epoch(&epoch, self.learning.len(), &|| self.checkpoint())?;
        }
        let last = self.best.take().map(|(_, weights)| weights).or(self.average.take());
        if let Some(weights) = last {
            weights.put(&mut self.trained.network).expect("weights of this network");
        }
        Ok(())
    }

    /// Calls `act` while the network has the averaged weights, if there are any.
    fn with_average(&mut self, act: impl FnOnce(&mut Self)) {
        let Some(average) = &self.average else { return act(self) };
        let current = Weights::of(&self.trained.network);
        average.put(&mut self.trained.network).expect("weights of this network");
        act(self);
        current.put(&mut self.trained.network).expect("weights of this network");
    }

    /// Measures the network on the images kept apart, or if there are none and `tested` on the test images.
    fn examine(&mut self, epoch: &mut Epoch, tested: bool) {
        let recipe = self.recipe;
        let network = &mut self.trained.network;
        if self.validating.is_empty() {
            if tested {
                let tally = measure(network, recipe, self.test);
                epoch.test_accuracy = Some(tally.correct as f64 / self.test.len() as f64);
                epoch.test_loss = recipe.log_loss.then(|| tally.loss / self.test.len() as f64);
            }
            return;
        }
        let tally = measure_some(network, recipe, self.images, &self.validating);
        let loss = tally.loss / self.validating.len() as f64;
        epoch.validation_loss = Some(loss);
        epoch.validation_accuracy = Some(tally.correct as f64 / self.validating.len() as f64);
        if recipe.patience.is_some() {
            self.waited += 1;
            if self.best.as_ref().is_none_or(|(least, _)| loss < *least) {
                self.best = Some((loss, Weights::of(network)));
                self.waited = 0;
            }
        }
    }

    /// Has the network round as an int8 model does, with the ranges that its activations have now.
    fn quantize(&mut self) -> Result<()> {
        self.trained.network.fold(usize::MAX);
        let file = export_for(&self.trained.network, self.recipe.loss, self.images)?;
        let model = Model::load(&file).expect("an exported model loads");
        let refused = |problem| self.recipe.error(format!("cannot be quantised: the network {problem}"));
        let steps = quantize::calibrate(&model, self.images).map_err(refused)?;
        // What the format cannot hold is better known before the fine-tuning than after it.
        quantize::quantize(&model, &steps, Packing::Folded).map_err(refused)?;
        self.trained.network.quantize(&self.seen(&steps));
        self.trained.steps = Some(steps);
        self.start_phase();
        Ok(())
    }

    /// The steps as the network sees them: it gets the values times a factor that the exported weights have instead.
    fn seen(&self, steps: &Steps) -> Steps {
        Steps { input: steps.input * self.images.factor, ..steps.clone() }
    }

    /// One epoch; `rate` gives the learning rate after a part of it.
    fn epoch(&mut self, rate: impl Fn(f64) -> f32, observer: &mut dyn Observer) -> Result<Epoch> {
        let recipe = self.recipe;
        let number = recipe.first_epoch + self.trained.history.len() as u32;
        let order = self.order();
        let count = order.len();
        let (mut total, mut seen, mut batch_means) = (Tally::default(), 0, 0.0);
        for batch in order.chunks(recipe.batch).filter(|batch| !recipe.drop_last || batch.len() == recipe.batch) {
            let tally = self.update(batch, rate(seen as f64 / count as f64));
            total += tally;
            seen += batch.len();
            batch_means += tally.loss / batch.len() as f64;
            let (loss, accuracy) = (total.loss / seen as f64, total.correct as f64 / seen as f64);
            observer.batch(&Progress { epoch: number, images: seen, of: count, loss, accuracy });
        }
        let divisor = if recipe.quirks.average_over_dropped { count } else { seen } as f64;
        let mut loss = total.loss / divisor;
        if recipe.quirks.loss_over_full_batches {
            loss = batch_means / (count / recipe.batch).max(1) as f64;
        }
        if !loss.is_finite() {
            return Err(Error::Diverged { recipe: recipe.name.clone(), epoch: number, loss });
        }
        Ok(Epoch {
            epoch: number,
            train_loss: recipe.log_loss.then_some(loss),
            train_accuracy: total.correct as f64 / divisor,
            ..Epoch::default()
        })
    }

    /// The images of an epoch in their order.
    fn order(&mut self) -> Vec<usize> {
        let mut order = self.learning.clone();
        if self.recipe.shuffle {
            self.trained.rng.shuffle(&mut order);
        }
        order
    }

    /// One update from the images named by `indices`; tallies them as they were before it.
    fn update(&mut self, indices: &[usize], learning_rate: f32) -> Tally {
        let (recipe, count) = (self.recipe, indices.len() as f64);
        // The gradients are sums over the batch: dividing by their number makes them means.
        let divisor = if recipe.quirks.divide_by_batch_twice { count * count } else { count };
        let mut rate = f64::from(learning_rate);
        if recipe.quirks.update_per_image {
            // The updates k = 0, 1, ... see the output weights k steps on: on average (count - 1) / 2.
            let (_, replicas) = self.trained.network.split();
            replicas[0].look_ahead((rate / divisor * (count - 1.0) / 2.0) as f32);
            rate *= count;
        }
        let (tally, replicas) =
            if recipe.micro_batch.is_some() { self.learn_side_by_side(indices) } else { self.learn_in_turn(indices) };
        let kernel_rate = if recipe.quirks.kernels_climb { -rate } else { rate };
        self.optimizer.step(&mut self.trained.network, replicas, divisor, rate, kernel_rate);
        self.trained.updates += 1;
        if let Some(average) = &mut self.average {
            // While there is little to average over, the average follows more closely, as in TensorFlow.
            let updates = self.trained.updates as f32;
            average.follow(&self.trained.network, recipe.ema.min((1.0 + updates) / (10.0 + updates)));
        }
        tally
    }

    fn lesson(&self) -> Lesson<'a> {
        let epoch = self.trained.history.len() as u32;
        Lesson { recipe: self.recipe, images: self.images, teacher: self.teacher, epoch }
    }

    /// Adds up the gradients of a batch, one slice after the other, as numpy would draw for all of it.
    fn learn_in_turn(&mut self, indices: &[usize]) -> (Tally, usize) {
        let rows = self.trained.network.slice_rows();
        let lesson = self.lesson();
        let (shared, replicas) = self.trained.network.split();
        let (replica, worker) = (&mut replicas[0], &mut self.workers[0]);
        let mut tally = Tally::default();
        for slice in indices.chunks(rows) {
            lesson.learn(replica, shared, worker, slice, &mut self.trained.rng);
            tally += worker.tally;
        }
        (tally, 1)
    }

    /// Adds up the gradients of a batch's micro batches, each in its own replica; gives how many there were.
    fn learn_side_by_side(&mut self, indices: &[usize]) -> (Tally, usize) {
        let rows = self.trained.network.slice_rows();
        let lesson = self.lesson();
        let (seed, update) = (self.recipe.seed, self.trained.updates);
        let (shared, replicas) = self.trained.network.split();
        let count = indices.len().div_ceil(rows);
        let parts = replicas[..count].par_iter_mut().zip(&mut self.workers[..count]).zip(indices.par_chunks(rows));
        parts.enumerate().for_each(|(part, ((replica, worker), slice))| {
            let mut rng = RandomState::of_part(seed, update, part as u64);
            lesson.learn(replica, shared, worker, slice, &mut rng);
        });
        let mut tally = Tally::default();
        self.workers[..count].iter().for_each(|worker| tally += worker.tally);
        (tally, count)
    }
}
