//! Zip files of numpy arrays, as `np.savez` and `np.savez_compressed` write them.

use super::source::{Found, shape};
use super::{Values, npy, shape_text};
use crate::error::{Error, Result};
use std::io::Read as _;
use std::path::Path;
use thumbnet::layer::Shape;

/// What the arrays are called, in small letters: values and labels to train on, and to test on.
const PARTS: [[&str; 4]; 2] =
    [["x_train", "y_train", "x_test", "y_test"], ["train_images", "train_labels", "test_images", "test_labels"]];
/// What they are called where there is one part: values, labels.
const WHOLE: [&[&str]; 2] = [&["x", "data", "images"], &["y", "target", "labels", "label"]];

/// Reads the arrays of a file. See `docs/data.md` for their names and shapes.
pub(super) fn read(path: &Path, shape: Option<Shape>) -> Result<Found> {
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    parse(&bytes, shape).map_err(|problem| Error::contents(path, problem))
}

fn parse(bytes: &[u8], asked: Option<Shape>) -> std::result::Result<Found, String> {
    let damaged = |e: zip::result::ZipError| format!("damaged or truncated zip file ({e})");
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).map_err(damaged)?;
    let names: Vec<String> = (0..archive.len())
        .map(|index| {
            let name = archive.name_for_index(index).and_then(std::result::Result::ok).unwrap_or_default();
            name.trim_end_matches(".npy").to_owned()
        })
        .collect();
    let mut array = |name: &str| {
        let at = names.iter().position(|known| known == name).ok_or_else(|| format!("no array {name}"))?;
        let problem = |problem: String| format!("array {name}: {problem}");
        let mut file = archive.by_index(at).map_err(|e| problem(damaged(e)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| problem(format!("damaged or truncated ({e})")))?;
        npy::parse(&bytes).map_err(problem)
    };
    let (training, test) = arrays(&names)?;
    let (values, mut labels) = examples(array(&training[0])?, array(&training[1])?, asked, &training)?;
    let Layout { shape, mut values } = values;
    let test_from = test.as_ref().map(|_| labels.len());
    if let Some(names) = test {
        let (more, more_labels) = examples(array(&names[0])?, array(&names[1])?, asked, &names)?;
        if more.shape != shape {
            let [found, expected] = [more.shape, shape].map(shape_text);
            return Err(format!("array {}: examples of {found}, but {} has {expected}", names[0], training[0]));
        }
        values = joined(values, more.values);
        labels.extend(more_labels);
    }
    let classes = labels.iter().max().map_or(0, |&last| last + 1);
    let classes = (0..classes).map(|class| class.to_string()).collect();
    Ok(Found { shape, values, labels, classes, pixels: false, test_from })
}

/// The names of values and labels.
type Pair = [String; 2];

/// Which arrays are values and labels, of the training part and, if there is one, of the test part.
fn arrays(names: &[String]) -> std::result::Result<(Pair, Option<Pair>), String> {
    let find = |wanted: &str| names.iter().find(|name| name.eq_ignore_ascii_case(wanted)).cloned();
    for [x, y, x_test, y_test] in PARTS {
        if let Some(values) = find(x) {
            let labels = find(y).ok_or_else(|| format!("array {x}, but no {y} with its labels"))?;
            let test = match (find(x_test), find(y_test)) {
                (Some(values), Some(labels)) => Some([values, labels]),
                (None, None) => None,
                (values, _) => {
                    let [there, not] = if values.is_some() { [x_test, y_test] } else { [y_test, x_test] };
                    return Err(format!("array {there}, but no {not}"));
                }
            };
            return Ok(([values, labels], test));
        }
    }
    let [values, labels] = WHOLE.map(|wanted| wanted.iter().find_map(|name| find(name)));
    match (values, labels) {
        (Some(values), Some(labels)) => Ok(([values, labels], None)),
        _ => Err(format!(
            "expected arrays {} (or without the last two), or one of {} and one of {}; found {}",
            PARTS[0].join(", "),
            WHOLE[0].join("/"),
            WHOLE[1].join("/"),
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        )),
    }
}

/// Values and the shape of one example.
struct Layout {
    shape: Shape,
    values: Values,
}

/// The examples and labels of two arrays.
fn examples(
    values: npy::Array,
    labels: npy::Array,
    asked: Option<Shape>,
    names: &Pair,
) -> std::result::Result<(Layout, Vec<u16>), String> {
    let problem = |index: usize, problem: String| Err(format!("array {}: {problem}", names[index]));
    let natural = match values.shape[..] {
        [_, length] => shape([1, length, 1]),
        [_, height, width] => shape([height, width, 1]),
        [_, height, width, channels] => shape([height, width, channels]),
        _ => Err(format!("the shape {:?}, expected [N, L], [N, H, W] or [N, H, W, C]", values.shape)),
    };
    let natural = match natural {
        Ok(shape) => shape,
        Err(e) => return problem(0, e),
    };
    if let Some(asked) = asked.filter(|asked| asked.elements() != natural.elements()) {
        return problem(
            0,
            format!("examples of {}, which cannot be taken as {}", shape_text(natural), shape_text(asked)),
        );
    }
    let count = values.shape[0];
    if count == 0 {
        return problem(0, "no examples".to_owned());
    }
    if !matches!(labels.shape[..], [n] | [n, 1] if n == count) {
        return problem(1, format!("the shape {:?}, expected [{count}] as there are {count} examples", labels.shape));
    }
    if let Values::Floats(values) = &values.values
        && let Some(position) = values.iter().position(|value| !value.is_finite())
    {
        let example = position / (values.len() / count).max(1);
        return problem(0, format!("{} in example {example}, expected finite numbers", values[position]));
    }
    match class_numbers(&labels.values) {
        Ok(labels) => Ok((Layout { shape: asked.unwrap_or(natural), values: values.values }, labels)),
        Err(e) => problem(1, e),
    }
}

fn class_numbers(labels: &Values) -> std::result::Result<Vec<u16>, String> {
    match labels {
        Values::Bytes(bytes) => Ok(bytes.iter().map(|&label| u16::from(label)).collect()),
        Values::Floats(values) => (values.iter().enumerate())
            .map(|(position, &value)| {
                let label = value as u16;
                if f32::from(label) == value && label < u16::MAX {
                    Ok(label)
                } else {
                    Err(format!("label {value} at position {position}, expected whole numbers from 0 to 65534"))
                }
            })
            .collect(),
    }
}

/// The values of both, as bytes if both are.
fn joined(first: Values, second: Values) -> Values {
    let floats = |values: Values| match values {
        Values::Floats(floats) => floats,
        Values::Bytes(bytes) => bytes.into_iter().map(f32::from).collect(),
    };
    match (first, second) {
        (Values::Bytes(first), Values::Bytes(second)) => Values::Bytes([first, second].concat()),
        (first, second) => Values::Floats([floats(first), floats(second)].concat()),
    }
}
