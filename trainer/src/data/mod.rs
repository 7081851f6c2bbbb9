//! Labelled examples, and where they come from.
//!
//! [`Source`] tells what a path holds and reads it; a [`DataSet`] is what comes of it, whatever the format.

mod csv;
mod idx;
pub mod mnist;
mod npy;
mod npz;
mod pictures;
mod source;
mod split;
mod unpack;

pub use pictures::Picture;
pub use source::{Kind, Options, Parts, Source};

use crate::elementwise;
use std::borrow::Cow;
use thumbnet::Input;
use thumbnet::layer::{InputSpec, Shape};

/// What a pixel's byte is multiplied by.
pub const PIXEL_SCALE: f32 = 1.0 / 255.0;

/// Labelled examples of one shape: pictures, signals, or plain rows of numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSet {
    /// The values, as a model trained on them takes them.
    pub values: Values,
    /// `[N]`, the class of each example: a position in [`classes`](Self::classes).
    pub labels: Vec<u16>,
    /// The names of the classes. They become the labels of a model.
    pub classes: Vec<String>,
    /// The shape of one example, and the value that a byte stands for: the input of a model trained on them.
    pub input: InputSpec,
    /// What training multiplies the values by, so that they are neither large nor small: a power of two, which the weights
    /// of an exported model's first layer make good for without a rounding error. 1 for pixels.
    pub factor: f32,
}

/// The values of examples, `[N, H, W, C]`.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Pixels, or other whole numbers from 0 to 255.
    Bytes(Vec<u8>),
    /// Any other numbers. All of them are finite.
    Floats(Vec<f32>),
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Values::Bytes(bytes) => bytes.len(),
            Values::Floats(floats) => floats.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values from `start` to `end`, for the core.
    ///
    /// # Panics
    /// If there are fewer than `end`.
    pub fn slice(&self, start: usize, end: usize) -> Input<'_> {
        match self {
            Values::Bytes(bytes) => Input::U8(&bytes[start..end]),
            Values::Floats(floats) => Input::F32(&floats[start..end]),
        }
    }

    /// All values, for the core.
    pub fn as_input(&self) -> Input<'_> {
        self.slice(0, self.len())
    }

    /// The values of the examples of `size` values each that `indices` name.
    fn select(&self, indices: &[usize], size: usize) -> Self {
        fn rows<T: Copy>(values: &[T], indices: &[usize], size: usize) -> Vec<T> {
            indices.iter().flat_map(|index| &values[index * size..][..size]).copied().collect()
        }
        match self {
            Values::Bytes(bytes) => Values::Bytes(rows(bytes, indices, size)),
            Values::Floats(floats) => Values::Floats(rows(floats, indices, size)),
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Values::Bytes(bytes) => bytes.truncate(len),
            Values::Floats(floats) => floats.truncate(len),
        }
    }
}

impl DataSet {
    /// Pictures of bytes (`pixels`, `[N, H, W, C]`), 0 to 255 of which stand for 0 to 1.
    pub fn of_pixels(pixels: Vec<u8>, labels: Vec<u16>, shape: Shape, classes: Vec<String>) -> Self {
        let input = InputSpec { shape, scale: PIXEL_SCALE, offset: 0.0 };
        DataSet { values: Values::Bytes(pixels), labels, classes, input, factor: 1.0 }
    }

    /// How many examples there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The number of values of an example.
    pub fn size(&self) -> usize {
        let Shape { height, width, channels } = self.input.shape;
        usize::from(height) * usize::from(width) * usize::from(channels)
    }

    /// The values of one example, `[H, W, C]`, for the core.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn example(&self, index: usize) -> Input<'_> {
        self.values.slice(index * self.size(), (index + 1) * self.size())
    }

    /// A checksum of the examples and their labels.
    pub fn checksum(&self) -> u32 {
        let crc = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISO_HDLC);
        let mut digest = crc.digest();
        self.labels.iter().for_each(|label| digest.update(&label.to_le_bytes()));
        match &self.values {
            Values::Bytes(bytes) => digest.update(bytes),
            Values::Floats(values) => values.iter().for_each(|value| digest.update(&value.to_le_bytes())),
        }
        digest.finalize()
    }

    /// The bytes of one example, `[H, W, C]`; `None` if the values are not bytes.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn bytes(&self, index: usize) -> Option<&[u8]> {
        match self.example(index) {
            Input::U8(bytes) => Some(bytes),
            Input::F32(_) => None,
        }
    }

    /// Keeps the first `count` examples (all of them if there are fewer).
    pub fn truncate(&mut self, count: usize) {
        self.labels.truncate(count);
        self.values.truncate(self.len() * self.size());
    }

    /// The examples that `indices` name, in that order.
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        DataSet {
            values: self.values.select(indices, self.size()),
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            classes: self.classes.clone(),
            ..*self
        }
    }

    /// The examples of the classes called `names`, which are then numbered in that order.
    ///
    /// # Errors
    /// A message if there is no such class.
    pub fn of_classes(&self, names: &[String]) -> Result<Self, String> {
        let mut new_label = vec![None; self.classes.len()];
        for (label, name) in (0..).zip(names) {
            let unknown = || format!("no class {name:?}, there are {}", self.classes.join(", "));
            let class = self.classes.iter().position(|class| class == name).ok_or_else(unknown)?;
            new_label[class] = Some(label);
        }
        let label = |index: usize| new_label[usize::from(self.labels[index])];
        let indices: Vec<usize> = (0..self.len()).filter(|&index| label(index).is_some()).collect();
        let labels = indices.iter().filter_map(|&index| label(index)).collect();
        Ok(DataSet { labels, classes: names.to_vec(), ..self.select(&indices) })
    }

    /// Writes the examples named by `indices` to `output` (`[indices.len(), H, W, C]`) as training sees them: a byte as
    /// the value that it stands for, any value times [`factor`](Self::factor). A pixel is `byte / 255`, each quotient
    /// rounded once, as numpy does.
    pub fn load(&self, indices: &[usize], output: &mut [f32]) {
        for (&index, row) in indices.iter().zip(output.chunks_exact_mut(self.size())) {
            match self.example(index) {
                Input::U8(bytes) if self.input.scale == PIXEL_SCALE => elementwise::pixels_to_unit(bytes, row),
                Input::U8(bytes) => row.iter_mut().zip(bytes).for_each(|(to, &byte)| *to = f32::from(byte)),
                Input::F32(values) => row.copy_from_slice(values),
            }
            if self.factor != 1.0 {
                row.iter_mut().for_each(|value| *value *= self.factor);
            }
        }
    }

    /// The positions of the examples to train on, and those of about `fraction` (0 to 1) of the examples of each class to
    /// validate on, evenly spaced in their order. Nothing is drawn at random: every training has the same ones.
    pub fn validation_split(&self, fraction: f64) -> (Vec<usize>, Vec<usize>) {
        split::hold_back(&self.labels, self.classes.len(), fraction)
    }

    /// How many examples of each class there are.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        self.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        counts
    }

    /// The values as a model with this input takes them: bytes as bytes if it was trained on bytes, otherwise as the
    /// numbers that they stand for here.
    pub fn values_for(&self, model: &InputSpec) -> Cow<'_, Values> {
        match &self.values {
            Values::Bytes(bytes) if !is_of_bytes(model) => {
                let value = |&byte: &u8| f32::from(byte) * self.input.scale + self.input.offset;
                Cow::Owned(Values::Floats(bytes.iter().map(value).collect()))
            }
            values => Cow::Borrowed(values),
        }
    }
}

/// Whether the bytes of a model's input are pixels, or numbers that stand for themselves. Otherwise they only span the range of
/// the numbers that the model was trained on.
fn is_of_bytes(input: &InputSpec) -> bool {
    (input.scale == PIXEL_SCALE || input.scale == 1.0) && input.offset == 0.0
}

/// A shape as `--shape` takes it: `28x28x1`, height by width by channels.
pub fn shape_text(shape: Shape) -> String {
    format!("{}x{}x{}", shape.height, shape.width, shape.channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(count: usize) -> Vec<String> {
        (0..count).map(|class| class.to_string()).collect()
    }

    #[test]
    fn pictures_are_selected_and_scaled() {
        let bytes = vec![0, 51, 102, 255, 1, 2];
        let mut images = DataSet::of_pixels(bytes, vec![3, 4, 5], Shape::new(1, 2, 1), classes(6));
        let mut output = [9.0; 4];
        images.load(&[2, 0], &mut output);
        assert_eq!(output, [(1.0f64 / 255.0) as f32, (2.0f64 / 255.0) as f32, 0.0, 0.2]);
        assert_eq!(images.bytes(1), Some(&[102, 255][..]));
        let chosen = images.select(&[2, 0]);
        assert_eq!((&chosen.values, &chosen.labels[..]), (&Values::Bytes(vec![1, 2, 0, 51]), &[5, 3][..]));
        images.truncate(usize::MAX);
        assert_eq!((images.len(), images.values.len()), (3, 6));
        images.truncate(2);
        assert_eq!((images.len(), images.values.len()), (2, 4));
    }

    #[test]
    fn classes_are_chosen_and_numbered_anew() {
        let images = DataSet::of_pixels(vec![10, 20, 30, 40], vec![2, 0, 1, 2], Shape::new(1, 1, 1), classes(3));
        let chosen = images.of_classes(&["2".to_owned(), "1".to_owned()]).unwrap();
        assert_eq!((chosen.values, chosen.labels), (Values::Bytes(vec![10, 30, 40]), vec![0, 1, 0]));
        assert_eq!(chosen.classes, ["2", "1"]);
        let refused = images.of_classes(&["2".to_owned(), "7".to_owned()]).unwrap_err();
        assert_eq!(refused, "no class \"7\", there are 0, 1, 2");
    }

    #[test]
    fn numbers_are_loaded_with_their_factor() {
        let mut data = DataSet::of_pixels(vec![0, 16], vec![0], Shape::new(1, 2, 1), classes(2));
        (data.input.scale, data.factor) = (1.0, 0.125);
        let mut output = [9.0; 2];
        data.load(&[0], &mut output);
        assert_eq!(output, [0.0, 2.0]);
        data.values = Values::Floats(vec![-0.5, 16.0]);
        data.load(&[0], &mut output);
        assert_eq!(output, [-0.0625, 2.0]);
    }

    #[test]
    fn bytes_become_numbers_for_a_model_of_numbers_only() {
        let mut data = DataSet::of_pixels(vec![0, 51], vec![0], Shape::new(1, 2, 1), classes(2));
        let model = |scale, offset| InputSpec { scale, offset, ..data.input };
        assert_eq!(*data.values_for(&model(PIXEL_SCALE, 0.0)), data.values);
        assert_eq!(*data.values_for(&model(1.0, 0.0)), data.values);
        let floats = data.values_for(&model(0.5, -3.0)).into_owned();
        assert_eq!(floats, Values::Floats(vec![0.0, 51.0 * PIXEL_SCALE]));
        data.values = floats;
        assert_eq!(*data.values_for(&InputSpec { scale: PIXEL_SCALE, ..data.input }), data.values);
    }
}
