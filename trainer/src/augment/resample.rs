//! Moves the pixels of an image: every pixel of the result is looked up, between four pixels of the original, where the
//! inverse of all motions together leads.

use super::elastic::Elastic;
use multiversion::multiversion;
use thumbnet::layer::Shape;

/// Where an image goes. The motions follow each other in the order of the fields, last first, about the image's centre.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placement {
    /// Down and to the right, in pixels.
    pub(super) shift: [f32; 2],
    /// In radians, from the x axis towards the y axis, which points down.
    pub(super) rotation: f32,
    /// The angle by which the y axis leans towards the x axis, in radians.
    pub(super) shear: f32,
    /// Factors of height and width.
    pub(super) scale: [f32; 2],
}

/// From a pixel of the result to a place in the original: `y = matrix[0] · (row, column) + offset[0]`, x likewise.
#[derive(Clone, Copy, Debug)]
struct Inverse {
    matrix: [[f32; 2]; 2],
    offset: [f32; 2],
}

impl Inverse {
    fn new(placement: &Placement, size: [u16; 2]) -> Self {
        let (sin, cos) = placement.rotation.sin_cos();
        let slant = placement.shear.tan();
        let [ky, kx] = placement.scale;
        // Turned back, then straightened up, then scaled back.
        let matrix = [[cos / ky, -sin / ky], [(sin - slant * cos) / kx, (cos + slant * sin) / kx]];
        let centre = size.map(|pixels| f32::from(pixels - 1) / 2.0);
        // A single row is not shifted vertically.
        let shifts = [0, 1].map(|axis| if size[axis] > 1 { placement.shift[axis] } else { 0.0 });
        let [dy, dx] = [0, 1].map(|axis| centre[axis] + shifts[axis]);
        let offset = [0, 1].map(|axis| centre[axis] - (matrix[axis][0] * dy + matrix[axis][1] * dx));
        Inverse { matrix, offset }
    }
}

/// Pixels of a row that are computed at a time.
pub(super) const LANES: usize = 16;

/// One value for each of the pixels that are computed at a time.
pub(super) type Lanes = [f32; LANES];

/// Resamples images of one shape.
#[derive(Clone, Debug)]
pub(super) struct Resampler {
    shape: Shape,
    original: Framed,
}

/// An image within zeros: a row above, two below, a column to the left, two to the right. So a place that is bounded to a
/// pixel outside of the image has four neighbours, whose values are right.
#[derive(Clone, Debug)]
struct Framed {
    /// `[height + 3, width + 3, channels]`.
    values: Vec<f32>,
    /// Values per row.
    row_len: usize,
}

impl Resampler {
    pub(super) fn new(shape: Shape) -> Self {
        let row_len = (usize::from(shape.width) + 3) * usize::from(shape.channels);
        let values = vec![0.0; (usize::from(shape.height) + 3) * row_len];
        // The largest shape of the format is far from it.
        assert!(values.len() < INTEGERS as usize, "indices are computed as f32");
        Resampler { shape, original: Framed { values, row_len } }
    }

    /// Moves the pixels of `image`, `[H, W, C]`.
    pub(super) fn apply(&mut self, image: &mut [f32], placement: &Placement, elastic: Option<&Elastic>) {
        assert_eq!(Some(image.len()), self.shape.elements().map(|count| count as usize), "an image of another shape");
        let channels = usize::from(self.shape.channels);
        let len = usize::from(self.shape.width) * channels;
        let framed = self.original.values.chunks_exact_mut(self.original.row_len).skip(1);
        for (framed, row) in framed.zip(image.chunks_exact(len)) {
            framed[channels..][..len].copy_from_slice(row);
        }
        let inverse = Inverse::new(placement, [self.shape.height, self.shape.width]);
        resample(&self.original, self.shape, &inverse, elastic, image);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn resample(original: &Framed, shape: Shape, inverse: &Inverse, elastic: Option<&Elastic>, image: &mut [f32]) {
    // The number of channels is known to the compiler where it matters most.
    match shape.channels {
        1 => resample_rows::<1>(original, shape, inverse, elastic, image),
        3 => resample_rows::<3>(original, shape, inverse, elastic, image),
        _ => resample_rows::<0>(original, shape, inverse, elastic, image),
    }
}

/// `CHANNELS` is the number of channels, or 0 for any.
#[inline(always)]
fn resample_rows<const CHANNELS: usize>(
    original: &Framed,
    shape: Shape,
    inverse: &Inverse,
    elastic: Option<&Elastic>,
    image: &mut [f32],
) {
    let channels = if CHANNELS == 0 { usize::from(shape.channels) } else { CHANNELS };
    for (row, output) in image.chunks_exact_mut(usize::from(shape.width) * channels).enumerate() {
        for (block, output) in output.chunks_mut(LANES * channels).enumerate() {
            let mut places = trace(row, block, inverse);
            if let Some(elastic) = elastic {
                places = elastic.displaced(row, block, places);
            }
            let [mut y, mut x] = places;
            let corners = find_corners(shape, original.row_len, &mut y, &mut x);
            interpolate::<CHANNELS>(original, channels, &corners, &y, &x, output);
        }
    }
}

/// The places, y and x, that the pixels of a block come from.
#[inline(always)]
fn trace(row: usize, block: usize, inverse: &Inverse) -> [Lanes; 2] {
    let first = (block * LANES) as f32;
    let mut places = [[0.0; LANES]; 2];
    // (Closures of `array::map` and the like are not always compiled for the vectors of the function around them.)
    for ((place, [along_rows, along_columns]), offset) in places.iter_mut().zip(inverse.matrix).zip(inverse.offset) {
        let start = along_rows * row as f32 + along_columns * first + offset;
        for (lane, place) in place.iter_mut().enumerate() {
            *place = start + along_columns * lane as f32;
        }
    }
    places
}

/// f32 numbers from here on to twice this are whole, and their lowest bits count them.
const INTEGERS: f32 = 8_388_608.0;

/// The indices of the upper left ones of the four neighbours. In `y` and `x` remains how far below and to the right of them
/// a place is, 0 to 1.
#[inline(always)]
fn find_corners(shape: Shape, row_len: usize, y: &mut Lanes, x: &mut Lanes) -> [u32; LANES] {
    let (height, width) = (f32::from(shape.height), f32::from(shape.width));
    let (row_len, channels) = (row_len as f32, f32::from(shape.channels));
    let mut corners = [0; LANES];
    for ((corner, y), x) in corners.iter_mut().zip(y).zip(x) {
        // Counted from the frame, both are at least 0.
        let (down, right) = (y.max(-1.0).min(height) + 1.0, x.max(-1.0).min(width) + 1.0);
        let (row, column) = (down.floor(), right.floor());
        // A cast would be careful about numbers that are none, and slow.
        *corner = (row * row_len + column * channels + INTEGERS).to_bits() - INTEGERS.to_bits();
        (*y, *x) = (down - row, right - column);
    }
    corners
}

/// Bilinear interpolation for the pixels of a block, of which there are fewer at the end of a row.
#[inline(always)]
fn interpolate<const CHANNELS: usize>(
    original: &Framed,
    channels: usize,
    corners: &[u32; LANES],
    down: &Lanes,
    right: &Lanes,
    output: &mut [f32],
) {
    let channels = if CHANNELS == 0 { channels } else { CHANNELS };
    for (((pixel, &corner), &down), &right) in output.chunks_exact_mut(channels).zip(corners).zip(down).zip(right) {
        // From the first of the four neighbours to the last: one check of bounds for all of them.
        let window = &original.values[corner as usize..][..original.row_len + 2 * channels];
        let (upper, lower) = (&window[..2 * channels], &window[original.row_len..]);
        for channel in 0..channels {
            let between = |row: &[f32]| row[channel] + right * (row[channels + channel] - row[channel]);
            let (above, below) = (between(upper), between(lower));
            pixel[channel] = above + down * (below - above);
        }
    }
}
