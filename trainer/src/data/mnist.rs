//! Data sets in the four IDX files of MNIST: MNIST itself, Fashion-MNIST, EMNIST and others.

use super::{DataSet, idx, source};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The names of the four files, without `.gz`.
pub const FILES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// An optional file beside them with the names of the classes, one a line. Without it the classes are called 0, 1, 2, ….
pub const CLASS_NAMES: &str = "classes.txt";

/// Reads the training images from `folder`, 60,000 in MNIST.
///
/// # Errors
/// If the folder or a file is missing, damaged, or does not fit the other one.
pub fn training(folder: &Path) -> Result<DataSet> {
    read(folder, FILES[0], FILES[1])
}

/// Reads the test images from `folder`, 10,000 in MNIST. Errors as for [`training`].
pub fn test(folder: &Path) -> Result<DataSet> {
    read(folder, FILES[2], FILES[3])
}

/// The folder used when none is named: `data/mnist` below the current folder, or else in the repository that this
/// binary was built from.
pub fn default_folder() -> PathBuf {
    let here = PathBuf::from("data/mnist");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mnist");
    if !here.is_dir() && repository.is_dir() { repository } else { here }
}

/// Whether one of the four files is in `folder`.
pub(super) fn is_in(folder: &Path) -> bool {
    FILES.iter().any(|name| find(folder, name).is_ok())
}

fn read(folder: &Path, images: &str, labels: &str) -> Result<DataSet> {
    let (images_path, labels_path) = (find(folder, images)?, find(folder, labels)?);
    let images = idx::read(&images_path, 3)?;
    let labels = idx::read(&labels_path, 1)?.values;
    let count = images.dimensions[0];
    if labels.len() != count {
        let problem = format!("{} labels, but {} holds {count} images", labels.len(), images_path.display());
        return Err(Error::contents(&labels_path, problem));
    }
    if count == 0 {
        return Err(Error::contents(&images_path, "no images"));
    }
    let shape = source::shape([images.dimensions[1], images.dimensions[2], 1])
        .map_err(|problem| Error::contents(&images_path, problem))?;
    let classes = class_names(folder, &labels)?;
    if let Some(position) = labels.iter().position(|&label| usize::from(label) >= classes.len()) {
        let (label, last) = (labels[position], classes.len() - 1);
        let problem = format!("label {label} at position {position}, expected 0 to {last} as in {CLASS_NAMES}");
        return Err(Error::contents(&labels_path, problem));
    }
    Ok(DataSet::of_pixels(images.values, labels.into_iter().map(u16::from).collect(), shape, classes))
}

/// The names in [`CLASS_NAMES`], or the numbers up to the largest label of both parts.
fn class_names(folder: &Path, labels: &[u8]) -> Result<Vec<String>> {
    let path = folder.join(CLASS_NAMES);
    if path.is_file() {
        let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
        let names: Vec<String> =
            text.lines().map(|line| line.trim().to_owned()).filter(|name| !name.is_empty()).collect();
        if names.len() < 2 {
            return Err(Error::contents(&path, format!("{} names, expected one a line, at least 2", names.len())));
        }
        return Ok(names);
    }
    // The other part need not be there, nor be right; but a class that is only in it counts.
    let parts = [FILES[1], FILES[3]].map(|name| find(folder, name).and_then(|path| idx::read(&path, 1)));
    let all = parts.iter().flatten().flat_map(|part| &part.values).chain(labels);
    Ok((0..=all.copied().max().unwrap_or(0)).map(|class| class.to_string()).collect())
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    if !folder.is_dir() {
        return Err(Error::MissingData { path: folder.to_owned(), what: "folder" });
    }
    let candidates = [folder.join(format!("{name}.gz")), folder.join(name)];
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Error::MissingData { path: folder.join(name), what: "file" })
}
