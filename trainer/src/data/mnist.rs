//! The MNIST data set in its four IDX files.

use super::{Images, idx};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The names of the four files, without `.gz`.
pub const FILES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

/// The number of classes: the digits 0 to 9.
pub const CLASSES: usize = 10;

/// Reads the 60,000 training images from `folder`.
///
/// # Errors
/// If the folder or a file is missing, damaged, or does not fit the other one.
pub fn training(folder: &Path) -> Result<Images> {
    read(folder, FILES[0], FILES[1])
}

/// Reads the 10,000 test images from `folder`. Errors as for [`training`].
pub fn test(folder: &Path) -> Result<Images> {
    read(folder, FILES[2], FILES[3])
}

/// The folder used when none is named: `data/mnist` below the current folder, or else in the repository that this
/// binary was built from.
pub fn default_folder() -> PathBuf {
    let here = PathBuf::from("data/mnist");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mnist");
    if !here.is_dir() && repository.is_dir() { repository } else { here }
}

fn read(folder: &Path, images: &str, labels: &str) -> Result<Images> {
    let (images_path, labels_path) = (find(folder, images)?, find(folder, labels)?);
    let images = idx::read(&images_path, 3)?;
    let labels = idx::read(&labels_path, 1)?;
    let count = images.dimensions[0];
    if labels.values.len() != count {
        let problem = format!("{} labels, but {} holds {count} images", labels.values.len(), images_path.display());
        return Err(Error::contents(&labels_path, problem));
    }
    if count == 0 {
        return Err(Error::contents(&images_path, "no images"));
    }
    if let Some(position) = labels.values.iter().position(|&label| usize::from(label) >= CLASSES) {
        let problem = format!("label {} at position {position}, expected 0 to 9", labels.values[position]);
        return Err(Error::contents(&labels_path, problem));
    }
    let (rows, columns) = (images.dimensions[1], images.dimensions[2]);
    Ok(Images { pixels: images.values, labels: labels.values, rows, columns })
}

fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    if !folder.is_dir() {
        return Err(Error::MissingData { path: folder.to_owned(), what: "folder" });
    }
    let candidates = [folder.join(format!("{name}.gz")), folder.join(name)];
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Error::MissingData { path: folder.join(name), what: "file" })
}
