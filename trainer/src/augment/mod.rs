//! Data augmentation: every image is changed a little, anew in every epoch, so that the network sees more variety than the
//! data set has.
//!
//! What is random depends on the seed, the epoch and the number of the image alone ([`rng_for`]), not on which thread comes
//! to it when.

mod elastic;
mod resample;

use elastic::Elastic;
use rand_distr::{Distribution as _, StandardNormal};
use rand_xoshiro::rand_core::{Rng, SeedableRng as _};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};
use resample::{Placement, Resampler};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use thumbnet::layer::Shape;

/// By how much images are changed at random: the `[augment]` table of a recipe. Everything is off unless it is set.
///
/// Lengths are in pixels of the image (samples of a signal), so that a recipe says what one would see. What moves in from
/// outside is 0. An input of a single row (a signal) is shifted, scaled and distorted along the row only; rotation and
/// shear do not apply to it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Rotated about the centre by up to so many degrees either way.
    pub rotate: f32,
    /// Shifted by up to so many pixels, which need not be whole, along each axis.
    pub shift: f32,
    /// Height and width are multiplied by factors between `1 - scale` and `1 + scale`, drawn independently.
    pub scale: f32,
    /// Upright lines are slanted by up to so many degrees either way.
    pub shear: f32,
    /// Elastic distortion: the standard deviation of each pixel's displacement along each axis, in pixels. Source: Simard et
    /// al., "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis" (2003); their
    /// `alpha = 34, sigma = 4` is `elastic = 1.4, elastic_smoothness = 4`.
    pub elastic: f32,
    /// How smooth the distortion is: the standard deviation, in pixels, of the Gaussian filter that would smooth independent
    /// displacements as much.
    pub elastic_smoothness: f32,
    /// The probability that a rectangle of the image is set to 0. Sources: DeVries and Taylor, "Improved Regularization of
    /// Convolutional Neural Networks with Cutout" (2017); Zhong et al., "Random Erasing Data Augmentation" (2017).
    pub erase: f32,
    /// The longest side of that rectangle in pixels. Both sides are drawn between 1 and this.
    pub erase_size: u16,
    /// The standard deviation of the Gaussian noise that is added to every value; black is 0 and white is 1. Sums are not
    /// bounded to that range: it would shift the mean of a dark background.
    pub noise: f32,
}

impl Default for Augment {
    fn default() -> Self {
        Augment {
            rotate: 0.0,
            shift: 0.0,
            scale: 0.0,
            shear: 0.0,
            elastic: 0.0,
            elastic_smoothness: 4.0,
            erase: 0.0,
            erase_size: 8,
            noise: 0.0,
        }
    }
}

impl Augment {
    /// Checks the values by themselves.
    ///
    /// # Errors
    /// A message with the key, its value and the values that it may have.
    pub fn check(&self) -> Result<(), String> {
        let allowed: [(&str, f32, RangeInclusive<f32>); 9] = [
            ("rotate", self.rotate, 0.0..=180.0),
            ("shift", self.shift, 0.0..=65_535.0),
            ("scale", self.scale, 0.0..=0.9),
            ("shear", self.shear, 0.0..=80.0),
            ("elastic", self.elastic, 0.0..=65_535.0),
            ("elastic_smoothness", self.elastic_smoothness, 1.0..=65_535.0),
            ("erase", self.erase, 0.0..=1.0),
            ("erase_size", f32::from(self.erase_size), 1.0..=65_535.0),
            ("noise", self.noise, 0.0..=1_000.0),
        ];
        // (NaN is in no range.)
        match allowed.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((key, value, range)) => {
                Err(format!("augment.{key} = {value}: expected {} to {}", range.start(), range.end()))
            }
            None => Ok(()),
        }
    }

    /// Checks the values for inputs of `shape`.
    ///
    /// # Errors
    /// As [`check`](Self::check); also if a single row or column is to be rotated or sheared.
    pub fn check_for(&self, shape: Shape) -> Result<(), String> {
        self.check()?;
        if shape.height > 1 && shape.width > 1 {
            return Ok(());
        }
        match [("rotate", self.rotate), ("shear", self.shear)].into_iter().find(|&(_, value)| value != 0.0) {
            Some((key, value)) => Err(format!(
                "augment.{key} = {value}: the inputs are {} x {}, and a single row or column cannot be turned",
                shape.height, shape.width
            )),
            None => Ok(()),
        }
    }

    /// Whether nothing is changed.
    #[must_use]
    pub fn is_off(&self) -> bool {
        !self.moves() && self.erase == 0.0 && self.noise == 0.0
    }

    /// Whether pixels change their places.
    fn moves(&self) -> bool {
        [self.rotate, self.shift, self.scale, self.shear, self.elastic].iter().any(|&value| value != 0.0)
    }

    /// Draws where an image goes. There are as many draws whatever is off, so that the rotation, say, does not depend on
    /// whether there is a shift.
    fn placement(&self, rng: &mut (impl Rng + ?Sized)) -> Placement {
        let mut around_zero = |limit: f32| limit * symmetric(rng.next_u32());
        Placement {
            rotation: around_zero(self.rotate).to_radians(),
            shear: around_zero(self.shear).to_radians(),
            shift: [around_zero(self.shift), around_zero(self.shift)],
            scale: [1.0 + around_zero(self.scale), 1.0 + around_zero(self.scale)],
        }
    }
}

/// The generator for one image in one epoch. The same three numbers always give the same one; its algorithm (xoshiro256++,
/// seeded through SplitMix64) is fixed.
#[must_use]
pub fn rng_for(seed: u32, epoch: u32, index: usize) -> Xoshiro256PlusPlus {
    // Mixed before the image's number is added: seeds and epochs next to each other must not share generators.
    let epochs_own = SplitMix64::seed_from_u64(u64::from(seed) << 32 | u64::from(epoch)).next_u64();
    Xoshiro256PlusPlus::seed_from_u64(epochs_own.wrapping_add(index as u64))
}

/// Changes images as [`Augment`] says. Each thread has one of its own.
#[derive(Clone, Debug)]
pub struct Augmenter {
    augment: Augment,
    shape: Shape,
    resampler: Resampler,
    elastic: Option<Elastic>,
}

impl Augmenter {
    /// For images of `shape`, `[H, W, C]`.
    ///
    /// # Errors
    /// As [`Augment::check_for`].
    pub fn new(augment: Augment, shape: Shape) -> Result<Self, String> {
        augment.check_for(shape)?;
        let elastic = (augment.elastic != 0.0)
            .then(|| Elastic::new([shape.height, shape.width], augment.elastic, augment.elastic_smoothness));
        Ok(Augmenter { augment, shape, resampler: Resampler::new(shape), elastic })
    }

    /// Changes one image, `[H, W, C]`. Nothing is allocated.
    ///
    /// # Panics
    /// If `image` has not as many values as the shape.
    pub fn apply<R: Rng + ?Sized>(&mut self, image: &mut [f32], rng: &mut R) {
        if self.augment.moves() {
            let placement = self.augment.placement(rng);
            if let Some(elastic) = &mut self.elastic {
                elastic.draw(rng);
            }
            self.resampler.apply(image, &placement, self.elastic.as_ref());
        }
        if self.augment.erase > 0.0 {
            self.erase(image, rng);
        }
        if self.augment.noise > 0.0 {
            add_noise(image, self.augment.noise, rng);
        }
    }

    /// With the probability asked for, sets a rectangle to 0.
    fn erase(&self, image: &mut [f32], rng: &mut (impl Rng + ?Sized)) {
        if unit(rng.next_u32()) >= self.augment.erase {
            return;
        }
        let mut stretch = |side: u16| {
            let length = 1 + below(rng.next_u32(), side.min(self.augment.erase_size));
            let start = below(rng.next_u32(), side - length + 1);
            usize::from(start)..usize::from(start + length)
        };
        let (rows, columns) = (stretch(self.shape.height), stretch(self.shape.width));
        let channels = usize::from(self.shape.channels);
        let row_len = usize::from(self.shape.width) * channels;
        for row in image.chunks_exact_mut(row_len).take(rows.end).skip(rows.start) {
            row[columns.start * channels..columns.end * channels].fill(0.0);
        }
    }
}

fn add_noise(image: &mut [f32], deviation: f32, rng: &mut (impl Rng + ?Sized)) {
    for value in image {
        let normal: f32 = StandardNormal.sample(rng);
        *value += deviation * normal;
    }
}

/// The upper 24 bits of a random word as a number in `[0, 1)`: as many as an f32 holds.
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// A random word as a number in `[-1, 1)`.
fn symmetric(word: u32) -> f32 {
    2.0 * unit(word) - 1.0
}

/// A random word as a whole number less than `bound`. No value is more probable than another by more than `bound / 2^32`.
fn below(word: u32, bound: u16) -> u16 {
    ((u64::from(word) * u64::from(bound)) >> 32) as u16
}

#[cfg(test)]
mod tests;
