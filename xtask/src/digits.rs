//! Makes `firmware-example/assets/MODEL.bin`: test digits, and what the core makes of them on this machine.

use crate::command;
use crate::digits_file::{CLASSES, Digit, PIXELS};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use thumbnet::{AlignedBuf, Model};
use thumbnet_trainer::{data::mnist, output};

/// The first so many images of the test set go into the file.
const DIGITS: usize = 100;

/// The file of a model that the firmware can include.
fn model_path(name: &str) -> PathBuf {
    command::root().join("models").join(name).with_extension("tnet")
}

/// The bytes of a model that the firmware can include.
pub(crate) fn read_model(name: &str) -> Result<AlignedBuf> {
    let path = model_path(name);
    let bytes = fs::read(&path).with_context(|| format!("{}: models/README.md says how it is made", path.display()))?;
    Ok(AlignedBuf::from_bytes(&bytes))
}

/// Writes the file of a model anew.
pub(crate) fn make_file(name: &str) -> Result<()> {
    let (blob, model_path) = (read_model(name)?, model_path(name));
    let model = Model::load(&blob).with_context(|| model_path.display().to_string())?;
    ensure!(
        model.input_len() == PIXELS && model.output_len() == CLASSES,
        "{}: {} inputs and {} outputs, but the firmware is written for {PIXELS} and {CLASSES}",
        model_path.display(),
        model.input_len(),
        model.output_len()
    );
    let mut images = mnist::test(&command::root().join("data/mnist"))?;
    images.truncate(DIGITS);
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let digits = (0..images.len()).map(|index| {
        let pixels = images.image(index);
        let prediction = model.classify(pixels, &mut scratch)?.class;
        let logits = model.logits(pixels, &mut scratch)?.try_into()?;
        Ok(Digit { label: images.labels[index], prediction: prediction.try_into()?, logits, pixels })
    });
    let digits = digits.collect::<Result<Vec<_>>>()?;
    let path = command::firmware().join("assets").join(name).with_extension("bin");
    fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
    output::replace(&path, &postcard::to_stdvec(&digits)?)?;
    println!("{}: {} digits, and the desktop's results for them", path.display(), digits.len());
    Ok(())
}
