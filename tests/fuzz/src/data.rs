//! What the trainer reads: data sets, pictures and recipes.

use std::fs;
use std::path::Path;
use tempfile::TempDir;
use thumbnet::layer::Shape;
use thumbnet_trainer::data::{self, DataSet, Options, Parts, Source, mnist};
use thumbnet_trainer::error::Error;
use thumbnet_trainer::recipe::Recipe;

thread_local! {
    /// The readers take paths.
    static FOLDER: TempDir = tempfile::tempdir().expect("a folder for temporary files");
}

/// Writes files to a folder, by name, and gives `read` the folder.
fn with_files(files: &[(&str, &[u8])], read: impl FnOnce(&Path)) {
    FOLDER.with(|folder| {
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).expect("room for a small file");
        }
        read(folder.path());
    });
}

/// What was read is whole; what was not has a message that names its file.
fn check<T>(outcome: Result<T, Error>, name: &str, whole: impl FnOnce(&T)) {
    match outcome {
        Ok(read) => whole(&read),
        Err(error) => assert!(error.to_string().contains(name), "{error} does not name {name}"),
    }
}

fn assert_whole(set: &DataSet) {
    assert_eq!(set.values.len(), set.len() * set.size());
    assert_eq!(set.labels.len(), set.len());
    assert!(set.labels.iter().all(|label| usize::from(*label) < set.classes.len()));
}

fn assert_parts_whole(parts: &Parts) {
    assert_whole(&parts.training);
    assert_whole(&parts.test);
}

/// The images and the labels of an MNIST-like set; the first two bytes say how many bytes the images have.
pub fn idx(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else { return };
    let (images, labels) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    let files = [(mnist::FILES[0], images), (mnist::FILES[1], labels)];
    with_files(&files, |folder| check(mnist::training(folder), "train-", assert_whole));
}

/// A table of numbers.
pub fn csv(bytes: &[u8]) {
    with_files(&[("table.csv", bytes)], |folder| {
        let open = |options| Source::open(&folder.join("table.csv"), options).and_then(|source| source.parts());
        check(open(Options::default()), "table.csv", assert_parts_whole);
        let options = Options { shape: Some(Shape::flat(2)), label: Some("1".into()), classes: None };
        check(open(options), "", assert_parts_whole);
    });
}

/// A zip file of numpy arrays.
pub fn npz(bytes: &[u8]) {
    with_files(&[("arrays.npz", bytes)], |folder| {
        let parts = Source::open(&folder.join("arrays.npz"), Options::default()).and_then(|source| source.parts());
        check(parts, "arrays.npz", assert_parts_whole);
    });
}

/// A picture, as an example and as a drawn digit.
pub fn image(bytes: &[u8]) {
    with_files(&[("picture", bytes)], |folder| {
        let path = folder.join("picture");
        check(data::Picture::read(&path, None), "picture", |picture| {
            assert_eq!(Some(picture.pixels.len()), picture.shape.elements().map(|count| count as usize));
        });
        let asked = Shape { height: 5, width: 7, channels: 3 };
        check(data::Picture::read(&path, Some(asked)), "picture", |picture| assert_eq!(picture.shape, asked));
        check(thumbnet_trainer::image::read(&path), "picture", |picture| {
            assert_eq!(picture.pixels.len(), picture.width * picture.height);
            if picture.pixels.len() <= 1 << 20
                && let Ok(digit) = thumbnet_trainer::image::prepare(picture, 28, 28)
            {
                assert_eq!(digit.len(), 28 * 28);
            }
        });
    });
}

/// A recipe: one that can be read is the same when it is written and read again.
pub fn recipe(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    check(Recipe::parse("fuzz.toml", text), "fuzz.toml", |recipe| {
        let written = recipe.to_toml();
        match Recipe::parse("fuzz.toml", &written) {
            Ok(again) => assert_eq!(again, *recipe, "{written}"),
            Err(error) => panic!("{error}\n{written}"),
        }
    });
}
