//! Folders of pictures, one folder for each class.

use super::source::{Found, shape, sort_classes};
use super::{Values, shape_text};
use crate::error::{Error, Result};
use image::imageops::FilterType;
use image::{DynamicImage, GenericImageView as _};
use rayon::prelude::*;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use thumbnet::layer::Shape;

/// The files that count as pictures.
const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "bmp", "pgm", "ppm", "pnm", "pbm"];

/// A file and the number of its class.
type Labelled = (PathBuf, u16);

/// What is in a folder of pictures.
struct List {
    /// Those to train on.
    training: Vec<Labelled>,
    /// Those to test on, if they are apart.
    test: Option<Vec<Labelled>>,
    classes: Vec<String>,
}

/// Reads `CLASS/PICTURE`, or `train/CLASS/PICTURE` and `test/CLASS/PICTURE`, in the order of the classes and of the names. All pictures are
/// grey, or all are RGB; they have one size, or are brought to `asked`.
pub(super) fn read(folder: &Path, asked: Option<Shape>) -> Result<Found> {
    let List { training: mut files, test, classes } = list(folder)?;
    let test_from = test.as_ref().map(|_| files.len());
    files.extend(test.unwrap_or_default());
    let pictures: Vec<Result<Picture>> = files.par_iter().map(|(path, _)| Picture::read(path, asked)).collect();
    let (mut values, mut first) = (Vec::new(), None);
    for (picture, (path, _)) in pictures.into_iter().zip(&files) {
        let picture = picture?;
        let (shape, of) = *first.get_or_insert((picture.shape, path));
        if picture.shape != shape {
            let [found, expected] = [picture.shape, shape].map(shape_text);
            let problem = format!(
                "a picture of {found}, expected {expected} as of {}; --shape HxWxC brings all to one shape",
                of.display()
            );
            return Err(Error::contents(path, problem));
        }
        values.extend(picture.pixels);
    }
    let (shape, _) = first.ok_or_else(|| Error::contents(folder, "no pictures"))?;
    let labels = files.into_iter().map(|(_, label)| label).collect();
    Ok(Found { shape, values: Values::Bytes(values), labels, classes, pixels: true, test_from })
}

/// The folders in a folder, sorted by their names; hidden ones do not count.
pub(super) fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(path)?.into_iter().filter(|entry| entry.is_dir()).collect())
}

/// What is in a folder, sorted by name, but for what is hidden.
fn entries(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path).map_err(Error::read(path))?;
    let mut entries: Vec<PathBuf> =
        entries.map(|entry| Ok(entry.map_err(Error::read(path))?.path())).collect::<Result<_>>()?;
    entries.retain(|entry| !name(entry).starts_with('.'));
    entries.sort();
    Ok(entries)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn list(folder: &Path) -> Result<List> {
    let [training, test] = ["train", "test"].map(|part| folder.join(part));
    if !training.is_dir() {
        let classes = class_names(folder)?;
        return Ok(List { training: files(folder, &classes)?, test: None, classes });
    }
    let classes = class_names(&training)?;
    let test = if test.is_dir() { Some(files(&test, &classes)?) } else { None };
    Ok(List { training: files(&training, &classes)?, test, classes })
}

fn class_names(folder: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = folders(folder)?.iter().map(|path| name(path)).collect();
    sort_classes(&mut names);
    match names.len() {
        1..=65_535 => Ok(names),
        count => Err(Error::contents(folder, format!("{count} folders, expected one for each class"))),
    }
}

/// The pictures in the folders of `classes`.
fn files(folder: &Path, classes: &[String]) -> Result<Vec<Labelled>> {
    let mut files = Vec::new();
    for path in entries(folder)? {
        let class = classes.iter().position(|class| *class == name(&path));
        let Some(class) = class.filter(|_| path.is_dir()) else {
            let what =
                if path.is_dir() { "a class that is not in train" } else { "a file among the folders of the classes" };
            return Err(Error::contents(&path, format!("{what}, expected folders called {}", classes.join(", "))));
        };
        let pictures = entries(&path)?;
        if pictures.is_empty() {
            return Err(Error::contents(&path, "no pictures in the folder of this class"));
        }
        for picture in pictures {
            let extension = picture.extension().and_then(OsStr::to_str).unwrap_or_default().to_ascii_lowercase();
            if !EXTENSIONS.contains(&&extension[..]) || picture.is_dir() {
                return Err(Error::contents(&picture, format!("not a picture, expected {}", EXTENSIONS.join(", "))));
            }
            files.push((picture, class as u16));
        }
    }
    files.sort_by_key(|&(_, class)| class);
    Ok(files)
}

/// A picture as an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// One channel (grey) or three (RGB).
    pub shape: Shape,
    /// `[H, W, C]`.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// Reads a picture (PNG, JPEG, BMP or PNM) as it is, or brings it to a shape.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read, [`Error::Contents`] if it is no picture, is damaged, or has transparent
    /// pixels.
    pub fn read(path: &Path, asked: Option<Shape>) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::read(path))?;
        Self::decode(&bytes, asked).map_err(|problem| Error::contents(path, problem))
    }

    fn decode(bytes: &[u8], asked: Option<Shape>) -> std::result::Result<Self, String> {
        let picture = image::load_from_memory(bytes).map_err(|e| format!("not a picture, or a damaged one: {e}"))?;
        if picture.color().has_alpha() && picture.to_rgba8().pixels().any(|pixel| pixel.0[3] != 255) {
            return Err("a picture with transparent pixels, expected opaque ones".to_owned());
        }
        let picture = match asked {
            Some(shape) => picture.resize_exact(shape.width.into(), shape.height.into(), FilterType::Triangle),
            None => picture,
        };
        let (width, height) = picture.dimensions();
        let channels = asked.map_or(if picture.color().has_color() { 3 } else { 1 }, |shape| shape.channels);
        let pixels = match channels {
            1 => DynamicImage::to_luma8(&picture).into_raw(),
            3 => DynamicImage::to_rgb8(&picture).into_raw(),
            _ => return Err(format!("{channels} channels are asked for, but pictures have 1 (grey) or 3 (RGB)")),
        };
        Ok(Picture { shape: shape([height as usize, width as usize, channels.into()])?, pixels })
    }
}
