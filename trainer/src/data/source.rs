//! Tells what a path holds, and reads it as a training and a test part.

use super::{DataSet, PIXEL_SCALE, Values, csv, mnist, npz, pictures, split, unpack};
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use thumbnet::layer::{InputSpec, MAX_ELEMENTS, Shape};

/// The share of the examples that is held back for testing where a source has no test part: every fifth of each class.
const TEST_SHARE: f64 = 0.2;

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder with the four IDX files of MNIST ([`mnist::FILES`]).
    Idx,
    /// A folder with `train.csv` and `test.csv`.
    CsvFolder,
    /// A folder of pictures: `CLASS/PICTURE`, or `train/CLASS/PICTURE` and `test/CLASS/PICTURE`.
    Pictures,
    /// A zip file of numpy arrays.
    Npz,
    /// A text file with one example a line.
    Csv,
}

impl Kind {
    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Idx => "folder with the IDX files of MNIST",
            Kind::CsvFolder => "folder with train.csv and test.csv",
            Kind::Pictures => "folder of pictures for each class",
            Kind::Npz => "file of numpy arrays (.npz)",
            Kind::Csv => "CSV file",
        }
    }
}

/// What a source cannot tell by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// The shape of an example. Rows of numbers are taken as this shape, pictures are scaled to it.
    pub shape: Option<Shape>,
    /// The column of a CSV file with the labels: its name, or its number counted from 1.
    pub label: Option<String>,
    /// The names of the classes to take, in the order of their numbers; all if not given.
    pub classes: Option<Vec<String>>,
}

/// Where examples come from.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    kind: Kind,
    options: Options,
}

/// The examples of a source.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Those to train on.
    pub training: DataSet,
    /// Those to test on, with the same classes and the same input.
    pub test: DataSet,
    /// Whether the source had no test part, so that every fifth example of each class was held back.
    pub held_back: bool,
}

/// What a reader found in a file, in the order of the file.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) shape: Shape,
    /// `[N, H, W, C]`.
    pub(super) values: Values,
    /// `[N]`.
    pub(super) labels: Vec<u16>,
    pub(super) classes: Vec<String>,
    /// Whether the values are certainly pixels, however dark.
    pub(super) pixels: bool,
    /// Where the test part begins, if there is one.
    pub(super) test_from: Option<usize>,
}

impl Source {
    /// Looks at what `path` holds, without reading all of it.
    ///
    /// # Errors
    /// [`Error::MissingData`] if there is nothing, [`Error::Contents`] for a folder that is no data set, [`Error::Option`] for
    /// options that do not go with it.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        let kind = if path.is_dir() { kind_of_folder(path)? } else { kind_of_file(path)? };
        let refused =
            |option, takes| Err(Error::Option(format!("{option}: {} is a {}, {takes}", path.display(), kind.name())));
        if kind == Kind::Idx && options.shape.is_some() {
            return refused("--shape", "which has a shape");
        }
        if options.label.is_some() && !matches!(kind, Kind::Csv | Kind::CsvFolder) {
            return refused("--label", "which has no columns");
        }
        let names = options.classes.as_deref().unwrap_or_default();
        if options.classes.is_some() && (names.len() < 2 || (1..names.len()).any(|n| names[..n].contains(&names[n]))) {
            return Err(Error::Option(format!(
                "--classes {}: expected two classes or more, each once",
                names.join(",")
            )));
        }
        Ok(Source { path: path.to_owned(), kind, options })
    }

    /// What the path holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The examples to train on, and those to test on.
    ///
    /// # Errors
    /// If a file is missing, damaged, or holds something else than examples of one shape with a label each.
    pub fn parts(&self) -> Result<Parts> {
        let Parts { training, test, held_back } = self.all_classes()?;
        Ok(Parts { training: self.chosen(training)?, test: self.chosen(test)?, held_back })
    }

    /// The examples of the classes that were asked for.
    fn chosen(&self, data: DataSet) -> Result<DataSet> {
        let Some(names) = &self.options.classes else { return Ok(data) };
        data.of_classes(names).map_err(|problem| Error::contents(&self.path, problem))
    }

    fn all_classes(&self) -> Result<Parts> {
        let (path, options) = (&self.path, &self.options);
        let found = match self.kind {
            Kind::Idx => {
                let (training, test) = (mnist::training(path)?, mnist::test(path)?);
                if training.input != test.input {
                    let [found, expected] = [&test, &training].map(|part| super::shape_text(part.input.shape));
                    let problem = format!("test images of {found}, but training images of {expected}");
                    return Err(Error::contents(path, problem));
                }
                return Ok(Parts { training, test, held_back: false });
            }
            Kind::Pictures => pictures::read(path, options.shape)?,
            Kind::CsvFolder => {
                let [training, test] = ["train.csv", "test.csv"].map(|name| beside(path, name));
                csv::read(&[&training?, &test?], options)?
            }
            Kind::Csv => csv::read(&[path], options)?,
            Kind::Npz => npz::read(path, options.shape)?,
        };
        Ok(assemble(found))
    }

    /// The examples to train on. Errors as of [`parts`](Self::parts).
    pub fn training(&self) -> Result<DataSet> {
        match self.kind {
            Kind::Idx => self.chosen(mnist::training(&self.path)?),
            _ => Ok(self.parts()?.training),
        }
    }

    /// The examples to test on. Errors as of [`parts`](Self::parts).
    pub fn test(&self) -> Result<DataSet> {
        match self.kind {
            Kind::Idx => self.chosen(mnist::test(&self.path)?),
            _ => Ok(self.parts()?.test),
        }
    }

    /// All examples, those to train on first. Errors as of [`parts`](Self::parts).
    pub fn all(&self) -> Result<DataSet> {
        let Parts { mut training, test, .. } = self.parts()?;
        match (&mut training.values, test.values) {
            (Values::Bytes(all), Values::Bytes(more)) => all.extend(more),
            (Values::Floats(all), Values::Floats(more)) => all.extend(more),
            _ => unreachable!("both parts have values of one type"),
        }
        training.labels.extend(test.labels);
        Ok(training)
    }
}

fn kind_of_folder(path: &Path) -> Result<Kind> {
    if mnist::is_in(path) {
        return Ok(Kind::Idx);
    }
    if beside(path, "train.csv").is_ok() || beside(path, "test.csv").is_ok() {
        return Ok(Kind::CsvFolder);
    }
    if pictures::folders(path)?.is_empty() {
        let problem = format!(
            "no data set in this folder: expected the MNIST files ({}), train.csv and test.csv, or a folder of pictures for \
             each class",
            mnist::FILES.join(", ")
        );
        return Err(Error::contents(path, problem));
    }
    Ok(Kind::Pictures)
}

fn kind_of_file(path: &Path) -> Result<Kind> {
    if !path.exists() {
        return Err(Error::MissingData { path: path.to_owned(), what: "file or folder" });
    }
    let start = unpack::start(path)?;
    match &start[..] {
        [b'P', b'K', 3 | 5, ..] => Ok(Kind::Npz),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            let problem =
                "a single numpy array, but labels are needed, too: np.savez(\"data.npz\", x=values, y=labels)";
            Err(Error::contents(path, problem))
        }
        _ => Ok(Kind::Csv),
    }
}

/// The file of that name in a folder, gzipped or not.
fn beside(folder: &Path, name: &str) -> Result<PathBuf> {
    let candidates = [folder.join(name), folder.join(format!("{name}.gz"))];
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Error::MissingData { path: folder.join(name), what: "file" })
}

/// A shape of these dimensions, if the core can have it.
pub(super) fn shape(dimensions: [usize; 3]) -> std::result::Result<Shape, String> {
    let [height, width, channels] = dimensions.map(|size| u16::try_from(size).unwrap_or(0));
    let shape = Shape::new(height, width, channels);
    shape.elements().map(|_| shape).ok_or_else(|| {
        let [height, width, channels] = dimensions;
        format!(
            "examples of {height}x{width}x{channels}, expected dimensions from 1 to 65535 and at most {MAX_ELEMENTS} values"
        )
    })
}

/// Sorts the names of classes: numbers by size, otherwise by the alphabet.
pub(super) fn sort_classes(names: &mut [String]) {
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or(0));
    } else {
        names.sort();
    }
}

/// Settles what the numbers are, and which examples are tested on.
fn assemble(found: Found) -> Parts {
    let Found { shape, values, labels, classes, pixels, test_from } = found;
    let (training, test) = match test_from {
        Some(first) => ((0..first).collect(), (first..labels.len()).collect()),
        None => split::hold_back(&labels, classes.len(), TEST_SHARE),
    };
    let input = InputSpec { shape, scale: PIXEL_SCALE, offset: 0.0 };
    let mut all = DataSet { values: narrowed(values), labels, classes, input, factor: 1.0 };
    let [mut training, mut test] = [training, test].map(|indices: Vec<usize>| all.select(&indices));
    if !(pixels || has_white(&all.values)) {
        (all.input, all.factor) = of_numbers(&training);
    }
    for part in [&mut training, &mut test] {
        (part.input, part.factor) = (all.input, all.factor);
    }
    Parts { training, test, held_back: test_from.is_none() }
}

/// Whole numbers from 0 to 255 as bytes.
fn narrowed(values: Values) -> Values {
    match values {
        Values::Floats(floats) if floats.iter().all(|&value| f32::from(value as u8) == value) => {
            Values::Bytes(floats.into_iter().map(|value| value as u8).collect())
        }
        other => other,
    }
}

/// Whether these are bytes that make use of the whole range, as pixels do.
fn has_white(values: &Values) -> bool {
    matches!(values, Values::Bytes(bytes) if bytes.contains(&255))
}

/// The input and the factor ([`DataSet::factor`]) of numbers that are no pixels.
fn of_numbers(training: &DataSet) -> (InputSpec, f32) {
    let ((scale, offset), square) = match &training.values {
        Values::Bytes(bytes) => ((1.0, 0.0), mean(bytes.iter().map(|&byte| f64::from(byte).powi(2)))),
        Values::Floats(values) => (range_in_bytes(values), mean(values.iter().map(|&value| f64::from(value).powi(2)))),
    };
    (InputSpec { scale, offset, ..training.input }, factor(square.sqrt()))
}

/// The factor for values of this root mean square: 1 for those that learning rates are made for, such as grey levels between 0
/// and 1 or standardised values; otherwise the power of two that makes it one between 0.7 and 1.4.
fn factor(root_mean_square: f64) -> f32 {
    let usual = root_mean_square == 0.0 || (1.0 / 16.0..=2.0).contains(&root_mean_square);
    if usual { 1.0 } else { (-root_mean_square.log2().round().clamp(-100.0, 100.0)).exp2() as f32 }
}

/// The scale and the offset with which the bytes span the range of the values: for devices that measure in bytes, and for
/// int8, whose steps cover this range.
fn range_in_bytes(values: &[f32]) -> (f32, f32) {
    let (min, max) = values.iter().fold((f32::MAX, f32::MIN), |(min, max), &value| (value.min(min), value.max(max)));
    let scale = ((f64::from(max) - f64::from(min)) / 255.0) as f32;
    if scale.is_normal() && scale > 0.0 { (scale, min) } else { (1.0, 0.0) }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: Values, labels: &[u16]) -> Found {
        let shape = Shape::new(1, 2, 1);
        let classes = vec!["a".to_owned(), "b".to_owned()];
        Found { shape, values, labels: labels.to_vec(), classes, pixels: false, test_from: None }
    }

    #[test]
    fn whole_numbers_up_to_255_are_bytes_and_pixels_if_255_is_among_them() {
        let parts = assemble(found(Values::Floats(vec![0.0, 16.0, 3.0, 5.0, 16.0, 0.0]), &[0, 1, 0]));
        assert_eq!(parts.training.values, Values::Bytes(vec![0, 16, 3, 5]));
        assert_eq!((&parts.test.values, &parts.test.labels[..]), (&Values::Bytes(vec![16, 0]), &[0][..]));
        let input = parts.training.input;
        assert_eq!((input.scale, input.offset, parts.training.factor), (1.0, 0.0, 0.125));
        assert!(parts.held_back && parts.test.input == input && parts.test.factor == 0.125);
        let pixels = assemble(found(Values::Floats(vec![0.0, 255.0]), &[0])).training;
        assert_eq!((pixels.values, pixels.input.scale, pixels.factor), (Values::Bytes(vec![0, 255]), PIXEL_SCALE, 1.0));
        let dark = Found { pixels: true, ..found(Values::Bytes(vec![0, 2]), &[0]) };
        assert_eq!(assemble(dark).training.input.scale, PIXEL_SCALE);
    }

    #[test]
    fn other_numbers_stay_and_the_training_part_says_how_large_they_are() {
        let values = Values::Floats(vec![-300.0, 210.0, 100.0, 0.5]);
        let parts = assemble(Found { test_from: Some(1), ..found(values, &[0, 1]) });
        assert_eq!(parts.training.values, Values::Floats(vec![-300.0, 210.0]));
        assert_eq!(parts.test.values, Values::Floats(vec![100.0, 0.5]));
        assert_eq!((parts.test.input.scale, parts.test.input.offset), (2.0, -300.0));
        assert_eq!(parts.test.factor, 1.0 / 256.0);
        assert!(!parts.held_back);
    }

    #[test]
    fn odd_numbers_have_an_input_all_the_same() {
        for values in
            [[0.5, 0.5], [-0.0, 0.0], [f32::MAX, f32::MIN], [f32::MIN_POSITIVE, 0.0], [1e-40, 2e-40], [300.0; 2]]
        {
            let data = assemble(found(Values::Floats(values.to_vec()), &[0])).training;
            assert!(data.input.scale.is_normal() && data.input.offset.is_finite(), "{values:?}: {data:?}");
            assert!(data.factor.is_finite() && data.factor > 0.0, "{values:?}: {data:?}");
        }
    }

    #[test]
    fn what_is_neither_large_nor_small_stays() {
        for (root_mean_square, expected) in
            [(0.0, 1.0), (0.33, 1.0), (1.9, 1.0), (2.1, 0.5), (7.7, 0.125), (0.06, 16.0)]
        {
            assert_eq!(factor(root_mean_square), expected, "{root_mean_square}");
        }
    }

    #[test]
    fn numbers_are_sorted_as_numbers() {
        let sorted = |names: &[&str]| {
            let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            sort_classes(&mut names);
            names
        };
        assert_eq!(sorted(&["10", "9", "-1"]), ["-1", "9", "10"]);
        assert_eq!(sorted(&["10", "9", "x"]), ["10", "9", "x"]);
    }
}
