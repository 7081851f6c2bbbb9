//! Recipes: a network and how it is trained, as a TOML file that people can read, copy and edit.

mod layer;
mod quirks;

pub use layer::{Activation, Crop, Init, Layer, Padding};
pub use quirks::{FirstUpdate, Quirks};

use crate::augment::Augment;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::optimizer::{Regularize, Rule};
use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::path::Path;
use thumbnet::layer::Packing;

/// The recipe that `thumbnet train` takes when none is named.
pub const DEFAULT: &str = "digits-quick";

/// A built-in recipe: its name and the text of its file.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// The name to give to `thumbnet train`.
    pub name: &'static str,
    /// The contents of `recipes/NAME.toml`.
    pub text: &'static str,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(BuiltIn { name: $name, text: include_str!(concat!("../../recipes/", $name, ".toml")) }),*]
    };
}

/// Every built-in recipe.
pub const BUILT_IN: &[BuiltIn] = built_in![
    "digits-quick",
    "digits-nano",
    "digits-tiny",
    "digits-small",
    "digits-best",
    "digits",
    "cnn-8-16",
    "digits-8x8",
    "s0",
    "s0-fixed",
    "s1",
    "s1-fixed",
    "s2-sgd",
    "s2-dropout",
    "s2-batch",
    "s2-batch-fixed",
    "s3",
    "s4",
    "s4-exp1",
    "s4-exp2",
    "s4-exp3",
    "s4-exp4",
];

/// A network and how it is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The built-in name or the file; not a key of the file.
    #[serde(skip)]
    pub name: String,
    /// One line for `thumbnet recipes`.
    pub description: String,
    /// Seeds numpy's legacy generator, from which weights, dropout masks and shuffles are drawn in that order.
    pub seed: u32,
    /// How many times training goes through the images.
    pub epochs: u32,
    /// The number of the first epoch in logs: the notebooks count from 0 or from 1.
    #[serde(default = "one")]
    pub first_epoch: u32,
    /// Images per update; more than there are means all of them.
    pub batch: usize,
    /// Whether the images left over after the last full batch are not trained on.
    #[serde(default)]
    pub drop_last: bool,
    /// The step along the negative gradient of the batch's mean loss.
    pub learning_rate: f32,
    /// What becomes of the learning rate in the course of the training.
    #[serde(default)]
    pub schedule: Schedule,
    /// For so many epochs at the start the learning rate rises in a straight line to what the schedule says.
    #[serde(default)]
    pub warm_up: f64,
    /// The rule by which gradients change parameters; plain gradient descent if not given.
    #[serde(default)]
    pub optimizer: Rule,
    /// Penalties on large weights, and a limit on gradients.
    #[serde(default)]
    pub regularize: Regularize,
    /// So many images at a time go through the network, on one core; the micro batches of a batch are worked on side by side.
    /// Batch normalisation takes its means over one of them, and each draws its dropout masks from a seed of its own. Without
    /// it there is one thread, and everything is drawn from numpy's generator as the notebooks do.
    pub micro_batch: Option<usize>,
    /// The part of every label that is spread over all classes, at least 0 and less than 1. Source: Szegedy et al., "Rethinking
    /// the Inception Architecture for Computer Vision" (2016).
    #[serde(default)]
    pub label_smoothing: f32,
    /// The part of an average over the course of the weights that each update keeps, 0 for none: what is tested and exported
    /// is then the average. Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), here
    /// with exponentially falling shares.
    #[serde(default)]
    pub ema: f32,
    /// The part of the training images that is kept apart: choices are made on it, and the test images are used once, at the
    /// end. At 0 the test images are used after epochs, as the notebooks do.
    #[serde(default)]
    pub validation: f64,
    /// Training ends when the loss on the images kept apart has not fallen for so many epochs, and the best epoch's weights
    /// are taken.
    pub patience: Option<u32>,
    /// What is minimised.
    pub loss: Loss,
    /// Whether each epoch takes the images in a new random order.
    #[serde(default)]
    pub shuffle: bool,
    /// Trains on the first so many images only.
    pub images: Option<usize>,
    /// The test images are evaluated after every so many epochs, and after the last one; with 0, after that one only.
    #[serde(default = "one")]
    pub test_every: u32,
    /// Whether the log has losses; some notebooks compute none.
    #[serde(default = "yes")]
    pub log_loss: bool,
    /// The layers, from the image on. Cross-entropy adds the softmax itself.
    pub layers: Vec<Layer>,
    /// Trains on with int8 arithmetic, and exports an int8 model. Without it the model is f32, which `thumbnet convert` can
    /// make int8 as well, at a slightly larger loss of accuracy.
    pub quantize: Option<Quantize>,
    /// Changes every image anew before it is learned from.
    #[serde(default)]
    pub augment: Augment,
    /// Begins with layers of a trained model.
    pub transfer: Option<Transfer>,
    /// Learns from a larger model, too.
    pub distill: Option<Distill>,
    /// Deviations from the textbook, named, so that a notebook can be followed exactly.
    #[serde(default)]
    pub quirks: Quirks,
}

/// Quantisation-aware fine-tuning: once the training is over, it goes on for some epochs with weights and activations rounded
/// as the exported int8 model rounds them. The gradients pass the rounding as if it were not there, and change the unrounded
/// weights. Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
/// Inference" (2018).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantize {
    /// How many more times training goes through the images.
    pub epochs: u32,
    /// The learning rate of these epochs' first batch; a tenth of the recipe's is a good start. It falls to zero along half
    /// a cosine.
    pub learning_rate: f32,
    /// What the weights are packed for.
    #[serde(default, rename = "for")]
    pub processor: Processor,
}

/// Transfer learning: the first layers come from a trained model, as many as it has in common with the recipe. Source: Yosinski et
/// al., "How transferable are features in deep neural networks?" (2014).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// The model's file.
    pub from: String,
    /// So many of the first layers with weights stay as they are there.
    #[serde(default)]
    pub freeze: usize,
}

/// Distillation: the loss is a mixture of the cross-entropy with the labels and that with what a larger model, the teacher,
/// answers. Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distill {
    /// The teacher's model file.
    pub from: String,
    /// Both answers' logits are divided by it: the higher, the more the small probabilities count.
    #[serde(default = "temperature")]
    pub temperature: f32,
    /// The part of the loss that is the teacher's, 0 to 1.
    #[serde(default = "half")]
    pub weight: f32,
}

/// What int8 weights are packed for. Every processor runs every packing, with the same results, if slower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Processor {
    /// Microcontrollers: what int8 models are mostly for.
    #[default]
    CortexM,
    /// PCs.
    Desktop,
}

impl From<Processor> for Packing {
    fn from(processor: Processor) -> Self {
        match processor {
            Processor::CortexM => Packing::Folded,
            Processor::Desktop => Packing::Grouped,
        }
    }
}

impl Recipe {
    /// The recipe called `name`: a built-in one, or else the file of that name.
    ///
    /// # Errors
    /// [`Error::UnknownRecipe`] if it is neither, otherwise as [`Recipe::parse`].
    pub fn find(name: &str) -> Result<Self> {
        if let Some(built_in) = BUILT_IN.iter().find(|built_in| built_in.name == name) {
            return built_in.recipe();
        }
        let path = Path::new(name);
        if !path.exists() {
            let known = BUILT_IN.iter().map(|built_in| built_in.name).collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownRecipe { name: name.to_owned(), known });
        }
        Self::parse(name, &std::fs::read_to_string(path).map_err(Error::read(path))?)
    }

    /// Reads a recipe from the text of its file; `name` is for messages.
    ///
    /// # Errors
    /// [`Error::Contents`] for text that is not a recipe, unknown keys included, [`Error::Recipe`] for values that make
    /// no sense.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut recipe: Recipe =
            toml::from_str(text).map_err(|e| Error::contents(Path::new(name), e.to_string().trim_end()))?;
        recipe.name = name.to_owned();
        recipe.check()?;
        Ok(recipe)
    }

    /// How many epochs there are, fine-tuning included.
    pub fn all_epochs(&self) -> u64 {
        u64::from(self.epochs) + self.quantize.map_or(0, |quantize| quantize.epochs.into())
    }

    /// The recipe as a file, with every key that has a value.
    ///
    /// # Panics
    /// Never: every recipe can be written.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a recipe can be written as TOML")
    }

    /// An [`Error::Recipe`] about this recipe.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::Recipe { recipe: self.name.clone(), problem: problem.into() }
    }

    /// Checks what the types do not say. Shapes are checked when the network is built.
    pub fn check(&self) -> Result<()> {
        let at_least_one = [
            ("epochs", self.epochs as usize),
            ("epochs of quantize", self.quantize.map_or(1, |quantize| quantize.epochs as usize)),
            ("batch", self.batch),
            ("images", self.images.unwrap_or(1)),
            ("micro_batch", self.micro_batch.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1) as usize),
            ("layers", self.layers.len()),
        ];
        if let Some((key, _)) = at_least_one.into_iter().find(|&(_, value)| value == 0) {
            return Err(self.error(format!("{key} must be at least 1")));
        }
        let rates = [Some(self.learning_rate), self.quantize.map(|quantize| quantize.learning_rate)];
        if let Some(rate) = rates.into_iter().flatten().find(|rate| !(*rate > 0.0 && rate.is_finite())) {
            return Err(self.error(format!("learning_rate = {rate} must be positive")));
        }
        self.check_training()?;
        if let Some(problem) = self.layers.iter().find_map(Layer::problem) {
            return Err(self.error(problem));
        }
        if self.quirks.update_per_image {
            self.check_update_per_image()?;
        }
        Ok(())
    }

    fn check_training(&self) -> Result<()> {
        let part = |name: &str, value: f64| {
            (!(0.0..1.0).contains(&value)).then(|| format!("{name} = {value} must be at least 0 and less than 1"))
        };
        let problems = [
            self.schedule.problem(),
            self.optimizer.problem(),
            self.regularize.problem(),
            part("label_smoothing", self.label_smoothing.into()),
            part("ema", self.ema.into()),
            part("validation", self.validation),
            (!(self.warm_up >= 0.0 && self.warm_up.is_finite()))
                .then(|| format!("warm_up = {} must not be negative", self.warm_up)),
            (self.patience.is_some() && self.validation == 0.0)
                .then(|| "patience needs images to validate on: set validation, the part of them".to_owned()),
            self.augment.check().err(),
            self.distill.as_ref().and_then(Distill::problem),
            (self.distill.is_some() && self.loss != Loss::CrossEntropy)
                .then(|| "distill is for the loss cross-entropy only".to_owned()),
            (self.label_smoothing > 0.0 && self.loss != Loss::CrossEntropy)
                .then(|| "label_smoothing is for the loss cross-entropy only".to_owned()),
        ];
        match problems.into_iter().flatten().next() {
            Some(problem) => Err(self.error(problem)),
            None if self.layers.iter().any(Layer::has_batch_norm) && self.micro_batch.is_none() => {
                Err(self.error("batch_norm needs micro_batch, the number of images that it takes its means over"))
            }
            None => Ok(()),
        }
    }

    fn check_update_per_image(&self) -> Result<()> {
        let dense = |layer: &&Layer| matches!(layer, Layer::Dense { .. });
        let other = self.layers.iter().any(|layer| !matches!(layer, Layer::Dense { .. } | Layer::Dropout { .. }));
        if other || self.layers.iter().filter(dense).count() != 2 {
            return Err(self.error("update_per_image is worked out for two dense layers (and dropout) only"));
        }
        if self.layers.iter().any(|layer| matches!(layer, Layer::Dense { bias: true, .. })) {
            return Err(self.error("update_per_image is worked out for layers without biases only"));
        }
        if self.quantize.is_some() {
            return Err(self.error("update_per_image and quantize do not go together"));
        }
        Ok(())
    }
}

impl Distill {
    /// What is wrong with it, if anything.
    fn problem(&self) -> Option<String> {
        let Distill { temperature, weight, .. } = *self;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Some(format!("temperature = {temperature} of distill must be positive"));
        }
        (!(0.0..=1.0).contains(&weight)).then(|| format!("weight = {weight} of distill must be 0 to 1"))
    }
}

impl BuiltIn {
    /// The recipe itself.
    ///
    /// # Errors
    /// As [`Recipe::parse`].
    pub fn recipe(&self) -> Result<Recipe> {
        Recipe::parse(self.name, self.text)
    }
}

fn temperature() -> f32 {
    4.0
}

fn half() -> f32 {
    0.5
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_recipe_is_valid_and_described() {
        for built_in in BUILT_IN {
            let recipe = built_in.recipe().unwrap();
            assert!(!recipe.description.is_empty() && !recipe.description.contains('\n'), "{}", built_in.name);
        }
        assert!(BUILT_IN.iter().any(|built_in| built_in.name == DEFAULT));
    }

    #[test]
    fn fine_tuning_is_read_and_its_mistakes_are_named() {
        let digits = BUILT_IN.iter().find(|built_in| built_in.name == "digits").unwrap().text;
        let parse = |lines: &str| Recipe::parse("mine.toml", &format!("{digits}\n[quantize]\n{lines}"));
        let found = parse("epochs = 2\nlearning_rate = 0.5\n").unwrap().quantize;
        assert_eq!(found, Some(Quantize { epochs: 2, learning_rate: 0.5, processor: Processor::CortexM }));
        let found = parse("epochs = 2\nlearning_rate = 0.5\nfor = \"desktop\"\n").unwrap().quantize.unwrap();
        assert_eq!(Packing::from(found.processor), Packing::Grouped);
        for (lines, part) in [
            ("epochs = 0\nlearning_rate = 0.5", "epochs of quantize must be at least 1"),
            ("epochs = 1\nlearning_rate = -0.5", "learning_rate = -0.5 must be positive"),
            ("epochs = 1", "learning_rate"),
            ("epochs = 1\nlearning_rate = 0.5\nfor = \"gpu\"", "gpu"),
            ("epochs = 1\nlearning_rate = 0.5\nbits = 4", "bits"),
        ] {
            let message = parse(lines).unwrap_err().to_string();
            assert!(message.starts_with("mine.toml") || message.starts_with("recipe mine.toml"), "{message}");
            assert!(message.contains(part), "{part} in {message}");
        }
        let batch = BUILT_IN.iter().find(|built_in| built_in.name == "s2-batch").unwrap().text;
        let both = format!("{batch}\n[quantize]\nepochs = 1\nlearning_rate = 0.5\n");
        assert!(Recipe::parse("mine.toml", &both).unwrap_err().to_string().contains("do not go together"));
    }

    #[test]
    fn unknown_keys_are_named_at_every_level() {
        let digits = BUILT_IN.iter().find(|built_in| built_in.name == "digits").unwrap().text;
        for (broken, key) in [
            (format!("momentum = 0.9\n{digits}"), "momentum"),
            (digits.replacen("outputs = 128", "outputs = 128\nneurons = 3", 1), "neurons"),
            (format!("{digits}\n[quirks]\nupside_down = true\n"), "upside_down"),
            (digits.replacen("type = \"dense\"", "type = \"lstm\"", 1), "lstm"),
        ] {
            let message = Recipe::parse("mine.toml", &broken).unwrap_err().to_string();
            assert!(message.contains("mine.toml") && message.contains(key), "{message}");
        }
    }

    #[test]
    fn senseless_values_are_refused() {
        let digits = BUILT_IN.iter().find(|built_in| built_in.name == "digits").unwrap().recipe().unwrap();
        let refused = |change: fn(&mut Recipe)| {
            let mut recipe = digits.clone();
            change(&mut recipe);
            recipe.check().unwrap_err().to_string()
        };
        assert!(refused(|r| r.epochs = 0).contains("epochs"));
        assert!(refused(|r| r.batch = 0).contains("batch"));
        assert!(refused(|r| r.layers.clear()).contains("layers"));
        assert!(refused(|r| r.images = Some(0)).contains("images"));
        assert!(refused(|r| r.learning_rate = -1.0).contains("learning_rate"));
        assert!(refused(|r| r.learning_rate = f32::NAN).contains("learning_rate"));
        assert!(refused(|r| r.layers.push(Layer::Dropout { rate: 1.0 })).contains("rate = 1"));
        assert!(refused(|r| r.quirks.update_per_image = true).contains("update_per_image"));
    }
}
