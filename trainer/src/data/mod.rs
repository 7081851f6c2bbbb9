//! Labelled images, and where they come from.

pub mod idx;
pub mod mnist;

/// Grey-scale images with one label each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// `[N, rows, columns]`, one byte per pixel, 0 = background.
    pub pixels: Vec<u8>,
    /// `[N]`, the class of each image.
    pub labels: Vec<u8>,
    /// Height of an image in pixels.
    pub rows: usize,
    /// Width of an image in pixels.
    pub columns: usize,
}

impl Images {
    /// How many images there are.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The pixels of one image, `[rows, columns]`.
    pub fn image(&self, index: usize) -> &[u8] {
        let size = self.rows * self.columns;
        &self.pixels[index * size..][..size]
    }

    /// Keeps the first `count` images (all of them if there are fewer).
    pub fn truncate(&mut self, count: usize) {
        self.labels.truncate(count);
        self.pixels.truncate(self.len() * self.rows * self.columns);
    }

    /// Of the first `count` images the numbers of those to learn from, and of the part `fraction` to validate on.
    pub fn validation_split(&self, count: usize, fraction: f64) -> (Vec<usize>, Vec<usize>) {
        let every = if fraction > 0.0 { (1.0 / fraction).round().max(2.0) as usize } else { usize::MAX };
        (0..count).partition(|index| (index + 1) % every != 0)
    }

    /// A checksum of the images and labels.
    pub fn checksum(&self) -> u32 {
        let crc = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISO_HDLC);
        let mut digest = crc.digest();
        digest.update(&self.labels);
        digest.update(&self.pixels);
        digest.finalize()
    }

    /// Writes the images named by `indices` to `output` (`[indices.len(), rows, columns]`) as `pixel / 255`, each
    /// quotient rounded once, as numpy does.
    pub fn load(&self, indices: &[usize], output: &mut [f32]) {
        let size = self.rows * self.columns;
        for (&index, row) in indices.iter().zip(output.chunks_exact_mut(size)) {
            crate::elementwise::pixels_to_unit(self.image(index), row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_selected_and_scaled() {
        let mut images = Images { pixels: vec![0, 51, 102, 255, 1, 2], labels: vec![3, 4, 5], rows: 1, columns: 2 };
        let mut output = [9.0; 4];
        images.load(&[2, 0], &mut output);
        assert_eq!(output, [(1.0f64 / 255.0) as f32, (2.0f64 / 255.0) as f32, 0.0, 0.2]);
        images.truncate(usize::MAX);
        assert_eq!((images.len(), images.pixels.len()), (3, 6));
        images.truncate(2);
        assert_eq!((images.len(), images.pixels.len()), (2, 4));
    }
}
