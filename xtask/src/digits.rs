//! The models that the firmware can include, and `firmware-example/assets/MODEL.bin`: test digits, and what the core makes
//! of them on this machine.

use crate::command;
use crate::digits_file::{CLASSES, Digit, PIXELS};
use anyhow::{Context, Result, anyhow, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use thumbnet::layer::WeightType;
use thumbnet::{AlignedBuf, Model};
use thumbnet_trainer::{convert::convert, data::mnist, output};

/// The models in `models`, each named after its recipe; there is a `-int8` one beside each.
pub(crate) const TRAINED: [&str; 3] = ["digits", "s1-fixed", "cnn-8-16"];

/// Those whose training ends with int8 weights.
pub(crate) const FINE_TUNED: [&str; 5] = ["digits-quick", "digits-nano", "digits-tiny", "digits-small", "digits-best"];

/// Models made from another one when they are asked for: name, origin, and how the weights are stored.
const CONVERTED: [(&str, &str, WeightType); 1] = [("cnn-8-16-f16", "cnn-8-16", WeightType::F16)];

/// The bytes of a model that the firmware can include.
pub(crate) fn read_model(name: &str) -> Result<AlignedBuf> {
    if let Some((_, origin, weights)) = CONVERTED.into_iter().find(|(converted, ..)| *converted == name) {
        let origin = read_model(origin)?;
        return convert(&Model::load(&origin)?, weights).map_err(|problem| anyhow!("{name}: {problem}"));
    }
    let path = command::root().join("models").join(name).with_extension("tnet");
    let bytes = fs::read(&path).with_context(|| format!("{}: models/README.md says how it is made", path.display()))?;
    Ok(AlignedBuf::from_bytes(&bytes))
}

/// Writes what the firmware needs to run a model on the first `count` test images: the digits file, and the model itself if
/// it is not in `models`.
pub(crate) fn make_file(name: &str, count: usize) -> Result<()> {
    let blob = read_model(name)?;
    let model = Model::load(&blob).with_context(|| name.to_owned())?;
    ensure!(
        model.input_len() == PIXELS && model.output_len() == CLASSES,
        "{name}: {} inputs and {} outputs, but the firmware is written for {PIXELS} and {CLASSES}",
        model.input_len(),
        model.output_len()
    );
    let mut images = mnist::test(&command::root().join("data/mnist"))?;
    images.truncate(count);
    let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
    let digits = (0..images.len()).map(|index| {
        let pixels = images.bytes(index).context("MNIST is bytes")?;
        let prediction = model.classify(pixels, &mut scratch)?.class;
        let logits = model.logits(pixels, &mut scratch)?.try_into()?;
        Ok(Digit { label: images.labels[index].try_into()?, prediction: prediction.try_into()?, logits, pixels })
    });
    let digits = digits.collect::<Result<Vec<_>>>()?;
    let path = path(name);
    fs::create_dir_all(path.parent().expect("a file is in a folder"))?;
    if CONVERTED.iter().any(|(converted, ..)| *converted == name) {
        replace(&path.with_extension("tnet"), &blob)?;
    }
    replace(&path, &postcard::to_stdvec(&digits)?)?;
    println!("{}: {} digits, and the desktop's results for them", path.display(), digits.len());
    Ok(())
}

/// The digits file of a model.
pub(crate) fn path(name: &str) -> PathBuf {
    command::firmware().join("assets").join(name).with_extension("bin")
}

/// Replaces a file, unless it has these contents already: then nothing has to be built anew.
fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    Ok(output::replace(path, contents)?)
}
