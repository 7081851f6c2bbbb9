//! A training that was interrupted and went on gives the file of one that was not; so does any number of threads.

use thumbnet::layer::Shape;
use thumbnet_trainer::checkpoint::Checkpoint;
use thumbnet_trainer::data::DataSet;
use thumbnet_trainer::error::{Error, Result};
use thumbnet_trainer::export::export_trained;
use thumbnet_trainer::recipe::Recipe;
use thumbnet_trainer::train::{Epoch, Observer, Trained, Training, train};

/// Everything that a training remembers from one epoch to the next, in one recipe.
const RECIPE: &str = r#"
description = "test"
seed = 5
epochs = 8
batch = 20
micro_batch = 8
learning_rate = 0.02
schedule = "cosine"
warm_up = 0.5
loss = "cross-entropy"
shuffle = true
label_smoothing = 0.1
ema = 0.9
validation = 0.2
patience = 10
[optimizer]
type = "adam-w"
[regularize]
l1 = 0.0001
clip_norm = 5.0
[augment]
rotate = 10.0
shift = 1.0
noise = 0.01
[[layers]]
type = "conv2d"
filters = 3
kernel = [3, 3]
batch_norm = true
activation = "relu"
init = "he-normal"
[[layers]]
type = "max-pool2d"
kernel = [2, 2]
[[layers]]
type = "dropout"
rate = 0.2
[[layers]]
type = "dense"
outputs = 3
init = "glorot-uniform"
[quantize]
epochs = 2
learning_rate = 0.001
"#;

/// Bright thirds: which third of the picture is bright is its class.
fn pictures(count: usize) -> DataSet {
    let pixel = |index: usize, place: usize| {
        let bright = place % 9 / 3 == index % 3;
        (usize::from(bright) * 180 + (index * 31 + place * 17) % 70) as u8
    };
    let pixels = (0..count).flat_map(|index| (0..72).map(move |place| pixel(index, place))).collect();
    let labels = (0..count).map(|index| (index % 3) as u16).collect();
    DataSet::of_pixels(pixels, labels, Shape::new(8, 9, 1), ["left", "middle", "right"].map(str::to_owned).to_vec())
}

fn file(trained: &Trained, recipe: &Recipe, images: &DataSet) -> Vec<u8> {
    export_trained(trained, recipe, images).unwrap().to_vec()
}

/// Ends the training after some epochs, and has what it could go on from.
struct Interruption {
    after: usize,
    checkpoint: Option<Checkpoint>,
}

impl Observer for Interruption {
    fn epoch(&mut self, _epoch: &Epoch, _images: usize, checkpoint: &dyn Fn() -> Checkpoint) -> Result<()> {
        self.after -= 1;
        if self.after > 0 {
            return Ok(());
        }
        self.checkpoint = Some(checkpoint());
        Err(Error::Option("interrupted".to_owned()))
    }
}

#[test]
fn a_resumed_training_ends_with_the_same_bytes() {
    let recipe = Recipe::parse("test", RECIPE).unwrap();
    let (images, test) = (pictures(150), pictures(30));
    let whole = train(&recipe, &images, &test, &mut ()).unwrap();
    assert!(whole.history.iter().all(|epoch| epoch.validation_loss.is_some() && epoch.test_loss.is_none()));
    let last = whole.history.last().unwrap().validation_accuracy.unwrap();
    assert!(last > 0.9, "it does not learn: {last}");
    let folder = tempfile::tempdir().unwrap();
    for after in 1..=10 {
        let mut interruption = Interruption { after, checkpoint: None };
        assert!(Training::new(&recipe, &images, &test).unwrap().run(&mut interruption).is_err());
        let path = folder.path().join("checkpoint");
        interruption.checkpoint.unwrap().write(&path).unwrap();
        let mut training = Training::new(&recipe, &images, &test).unwrap();
        training.resume(&Checkpoint::read(&path).unwrap()).unwrap();
        let trained = training.run(&mut ()).unwrap();
        assert_eq!(trained.history, whole.history, "after {after} epochs");
        assert!(file(&trained, &recipe, &images) == file(&whole, &recipe, &images), "after {after} epochs");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let recipe = Recipe::parse("test", RECIPE).unwrap();
    let (images, test) = (pictures(150), pictures(30));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let trained = pool.install(|| train(&recipe, &images, &test, &mut ()).unwrap());
        (file(&trained, &recipe, &images), trained.history)
    };
    assert!(with(1) == with(3));
}

#[test]
fn a_checkpoint_of_something_else_is_refused() {
    let recipe = Recipe::parse("test", RECIPE).unwrap();
    let (images, test) = (pictures(60), pictures(30));
    let training = Training::new(&recipe, &images, &test).unwrap();
    let checkpoint = training.checkpoint();

    let slower = Recipe { learning_rate: 0.03, ..recipe.clone() };
    let refused = Training::new(&slower, &images, &test).unwrap().resume(&checkpoint).unwrap_err();
    assert!(refused.contains("another recipe") && refused.contains("learning_rate"), "{refused}");
    let mut others = images.clone();
    others.labels[7] = (others.labels[7] + 1) % 3;
    let refused = Training::new(&recipe, &others, &test).unwrap().resume(&checkpoint).unwrap_err();
    assert!(refused.contains("data have changed"), "{refused}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint");
    checkpoint.write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let refusal = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Checkpoint::read(&path).unwrap_err().to_string()
    };
    for length in [0, 7, 8, 11, 12, 40, bytes.len() - 1] {
        let message = refusal(&bytes[..length]);
        assert!(message.contains("checkpoint") && message.contains(path.to_str().unwrap()), "{length}: {message}");
    }
    let mut damaged = bytes.clone();
    damaged[bytes.len() / 2] ^= 4;
    assert!(refusal(&damaged).contains("checksum"));
}
