//! Pictures from files, and how they become what a model sees.

use crate::error::{Error, Result};
use std::path::Path;

/// The share of the model's input that a digit fills; MNIST fits digits into 20 of 28 pixels.
const FILL: f64 = 20.0 / 28.0;

/// The most pixels that a picture may have: more than cameras make.
const MOST_PIXELS: usize = 1 << 26;

/// A grey-scale picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `[height, width]`, 0 = black.
    pub pixels: Vec<u8>,
}

/// Reads a PNG or PGM file of any size.
///
/// # Errors
/// [`Error::Read`] if the file cannot be read, [`Error::Contents`] if it is neither or damaged.
pub fn read(path: &Path) -> Result<Picture> {
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    let picture = match &bytes[..] {
        [0x89, b'P', b'N', b'G', ..] => decode_png(&bytes),
        [b'P', b'2' | b'5', ..] => decode_pgm(&bytes),
        _ => Err("not an image: expected a PNG or PGM file".to_owned()),
    };
    picture.map_err(|problem| Error::contents(path, problem))
}

fn decode_png(bytes: &[u8]) -> std::result::Result<Picture, String> {
    let damaged = |e: png::DecodingError| format!("damaged PNG file: {e}");
    let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(damaged)?;
    let &png::Info { width, height, .. } = reader.info();
    check_size(width as usize, height as usize)?;
    let mut buffer = vec![0; reader.output_buffer_size().ok_or("PNG file too large")?];
    let info = reader.next_frame(&mut buffer).map_err(damaged)?;
    let samples = info.color_type.samples();
    let (colors, has_alpha) = if samples % 2 == 0 { (samples - 1, true) } else { (samples, false) };
    let grey: Vec<(f32, f32)> = buffer[..info.buffer_size()]
        .chunks_exact(samples)
        .map(|pixel| {
            let grey = pixel[..colors].iter().map(|&c| f32::from(c)).sum::<f32>() / colors as f32;
            (grey, if has_alpha { f32::from(pixel[colors]) / 255.0 } else { 1.0 })
        })
        .collect();
    // Behind transparent pixels goes whatever the drawing stands out from.
    let opaque: f32 = grey.iter().map(|(_, alpha)| alpha).sum();
    let light = grey.iter().map(|(grey, alpha)| grey * alpha).sum::<f32>() > 127.5 * opaque;
    let backdrop = if light { 0.0 } else { 255.0 };
    let pixels = grey.iter().map(|(grey, alpha)| (grey * alpha + backdrop * (1.0 - alpha)).round() as u8).collect();
    Ok(Picture { width: info.width as usize, height: info.height as usize, pixels })
}

/// The number of pixels of a picture, if memory is to be reserved for that many: a few bytes can announce any size.
fn check_size(width: usize, height: usize) -> std::result::Result<usize, String> {
    let count = width.checked_mul(height).filter(|count| (1..=MOST_PIXELS).contains(count));
    count.ok_or(format!("a picture of {width} x {height} pixels, expected 1 to {MOST_PIXELS} in all"))
}

/// PGM, plain (P2) or raw (P5). Source: the Netpbm manual, "pgm".
fn decode_pgm(bytes: &[u8]) -> std::result::Result<Picture, String> {
    let mut rest = &bytes[2..];
    let [width, height, max] = [next_number(&mut rest)?, next_number(&mut rest)?, next_number(&mut rest)?];
    let count = check_size(width, height)?;
    if !(1..=65_535).contains(&max) {
        return Err(format!("PGM with a maximum of {max}, expected 1 to 65535"));
    }
    let sample = |value: usize| (value.min(max) * 255 + max / 2) / max;
    let truncated =
        |found: usize| format!("truncated: {found} pixels, but the PGM header announces {width} x {height}");
    let mut pixels = Vec::new();
    if bytes[1] == b'2' {
        while pixels.len() < count {
            let value = next_number(&mut rest).map_err(|_| truncated(pixels.len()))?;
            pixels.push(sample(value) as u8);
        }
    } else {
        // Exactly one white-space character ends the header.
        let data = rest.get(1..).unwrap_or_default();
        let size = if max > 255 { 2 } else { 1 };
        let values = data.chunks_exact(size).map(|b| b.iter().fold(0, |value, &byte| value << 8 | usize::from(byte)));
        pixels.extend(values.take(count).map(|value| sample(value) as u8));
        if pixels.len() < count {
            return Err(truncated(pixels.len()));
        }
    }
    Ok(Picture { width, height, pixels })
}

/// The next decimal number, skipping white space and comments before it.
fn next_number(rest: &mut &[u8]) -> std::result::Result<usize, String> {
    loop {
        match rest {
            [b'#', ..] => *rest = &rest[rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len())..],
            [space, after @ ..] if space.is_ascii_whitespace() => *rest = after,
            _ => break,
        }
    }
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, after) = rest.split_at(digits);
    *rest = after;
    std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).ok_or("damaged PGM header".to_owned())
}

/// Brings a picture of one digit to `height` by `width` bytes (0 = background), the way MNIST was made: the digit is cut
/// out, fitted into 20/28 of the frame keeping its aspect ratio, and put with its centre of mass in the middle. Light
/// strokes on a dark ground and dark ones on a light ground are told apart by the picture's border.
///
/// # Errors
/// A message if there is nothing to see in the picture.
pub fn prepare(picture: &Picture, height: usize, width: usize) -> std::result::Result<Vec<u8>, String> {
    let ink = ink(picture);
    let digit = cut_out(&ink, picture.width).ok_or("blank: nothing stands out from the border's colour")?;
    let scale = (FILL * height as f64 / digit.height as f64).min(FILL * width as f64 / digit.width as f64);
    let fitted = |size: usize, frame: usize| ((size as f64 * scale).round() as usize).clamp(1, frame);
    let digit = resize(&digit, fitted(digit.height, height), fitted(digit.width, width));
    Ok(centre(&digit, height, width))
}

/// An excerpt of a picture as strength of ink.
struct Ink {
    height: usize,
    width: usize,
    values: Vec<f32>,
}

/// How much every pixel differs from the border's colour, towards the side on which the strokes are. What is no stronger
/// than the noise of the border counts as none.
fn ink(picture: &Picture) -> Vec<f32> {
    let Picture { width, height, pixels } = picture;
    let on_border =
        |i: usize| i < *width || i >= width * (height - 1) || i.is_multiple_of(*width) || i % width == width - 1;
    let mut border: Vec<f32> = (0..pixels.len()).filter(|&i| on_border(i)).map(|i| f32::from(pixels[i])).collect();
    border.sort_by(f32::total_cmp);
    let ground = border[border.len() / 2];
    let (min, max) = pixels.iter().fold((255, 0), |(min, max), &p| (p.min(min), p.max(max)));
    let sign = if f32::from(max) - ground >= ground - f32::from(min) { 1.0 } else { -1.0 };
    let mut noise: Vec<f32> = border.iter().map(|value| sign * (value - ground)).collect();
    noise.sort_by(f32::total_cmp);
    let noise = noise[noise.len() * 9 / 10].max(0.0);
    let strength = |&pixel: &u8| sign * (f32::from(pixel) - ground);
    pixels.iter().map(|pixel| if strength(pixel) > noise { strength(pixel) } else { 0.0 }).collect()
}

/// The smallest rectangle around all ink; `None` if there is none.
fn cut_out(ink: &[f32], width: usize) -> Option<Ink> {
    let inked = |i: &usize| ink[*i] > 0.0;
    let rows = || (0..ink.len()).filter(inked).map(|i| i / width);
    let columns = || (0..ink.len()).filter(inked).map(|i| i % width);
    let (top, bottom) = (rows().min()?, rows().max()?);
    let (left, right) = (columns().min()?, columns().max()?);
    let values = (top..=bottom).flat_map(|y| &ink[y * width + left..=y * width + right]).copied().collect();
    Some(Ink { height: bottom - top + 1, width: right - left + 1, values })
}

/// Scales an excerpt: every new pixel is the mean of the area it covers.
fn resize(ink: &Ink, height: usize, width: usize) -> Ink {
    let columns = overlaps(ink.width, width);
    let rows = overlaps(ink.height, height);
    let narrow: Vec<f32> = (ink.values.chunks_exact(ink.width))
        .flat_map(|row| columns.iter().map(move |shares| shares.iter().map(|&(x, share)| row[x] * share).sum::<f32>()))
        .collect();
    let values = (rows.iter())
        .flat_map(|shares| {
            let narrow = &narrow;
            (0..width).map(move |x| shares.iter().map(|&(y, share)| narrow[y * width + x] * share).sum::<f32>())
        })
        .collect();
    Ink { height, width, values }
}

/// For each of `to` equal parts of a line of `from` pixels: the pixels it covers, each with its share of the part.
fn overlaps(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let step = from as f64 / to as f64;
    let part = |index: usize| {
        let (start, end) = (index as f64 * step, (index + 1) as f64 * step);
        let share = move |pixel: usize| (end.min((pixel + 1) as f64) - start.max(pixel as f64)) / step;
        (start as usize..from.min(end.ceil() as usize)).map(move |pixel| (pixel, share(pixel) as f32)).collect()
    };
    (0..to).map(part).collect()
}

/// Puts an excerpt into a frame with its centre of mass in the middle, as far as it fits, at full contrast.
fn centre(ink: &Ink, height: usize, width: usize) -> Vec<u8> {
    let total: f32 = ink.values.iter().sum();
    let moment = |along: fn(usize, usize) -> usize| {
        ink.values.iter().enumerate().map(|(i, v)| v * along(i, ink.width) as f32).sum::<f32>() / total
    };
    let offset = |centre: f32, size: usize, frame: usize| {
        ((frame as f32 / 2.0 - centre).round().max(0.0) as usize).min(frame - size)
    };
    let top = offset(moment(|i, width| i / width), ink.height, height);
    let left = offset(moment(|i, width| i % width), ink.width, width);
    let max = ink.values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let mut frame = vec![0; height * width];
    for (y, row) in ink.values.chunks_exact(ink.width).enumerate() {
        for (x, value) in row.iter().enumerate() {
            frame[(top + y) * width + left + x] = (value / max * 255.0).round() as u8;
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bar of `ink` on `ground`, `4 * scale` wide and `10 * scale` high, off centre.
    fn bar(scale: usize, ground: u8, ink: u8) -> Picture {
        let (width, height) = (30 * scale, 20 * scale);
        let inside = |x: usize, y: usize| (3 * scale..7 * scale).contains(&x) && (5 * scale..15 * scale).contains(&y);
        let pixels = (0..width * height).map(|i| if inside(i % width, i / width) { ink } else { ground }).collect();
        Picture { width, height, pixels }
    }

    #[test]
    fn size_polarity_and_place_do_not_matter() {
        let expected = prepare(&bar(1, 0, 255), 28, 28).unwrap();
        // 20 rows high and 8 columns wide, in the middle.
        let inked = |i: &usize| expected[*i] == 255;
        assert_eq!((0..784).filter(inked).count(), 160);
        assert_eq!((0..784).filter(inked).map(|i| i / 28).min(), Some(5));
        assert_eq!((0..784).filter(inked).map(|i| i % 28).min(), Some(11));
        for (scale, ground, ink) in [(1, 255, 0), (3, 0, 255), (7, 200, 40), (2, 90, 250)] {
            assert_eq!(prepare(&bar(scale, ground, ink), 28, 28).unwrap(), expected, "{scale} {ground} {ink}");
        }
    }

    #[test]
    fn shrinking_averages() {
        let ink = Ink { height: 2, width: 4, values: vec![0.0, 4.0, 8.0, 8.0, 0.0, 4.0, 8.0, 0.0] };
        assert_eq!(resize(&ink, 1, 2).values, [2.0, 6.0]);
        assert_eq!(resize(&ink, 2, 4).values, ink.values);
    }

    #[test]
    fn a_blank_picture_is_refused() {
        let blank = Picture { width: 3, height: 2, pixels: vec![7; 6] };
        assert!(prepare(&blank, 28, 28).unwrap_err().contains("blank"));
    }

    #[test]
    fn pgm_files_plain_and_raw() {
        let plain = decode_pgm(b"P2 # made by hand\n3 2\n15\n0 1 2\n13 14 15").unwrap();
        assert_eq!(plain, Picture { width: 3, height: 2, pixels: vec![0, 17, 34, 221, 238, 255] });
        let raw = decode_pgm(b"P5\n2 1\n255\n\x0a\xff").unwrap();
        assert_eq!(raw.pixels, [10, 255]);
        assert_eq!(decode_pgm(b"P5 1 1 65535\n\x80\x80").unwrap().pixels, [128]);
        assert!(
            decode_pgm(b"P5\n2 2\n255\n\x0a\xff").unwrap_err().contains("2 pixels, but the PGM header announces 2 x 2")
        );
        assert!(decode_pgm(b"P2\n2 2\n255\n1 2 x").unwrap_err().contains("truncated"));
        assert!(decode_pgm(b"P5\n2 0\n255\n").is_err());
        assert!(decode_pgm(b"P5\n2 2\n0\n").unwrap_err().contains("maximum"));
        assert!(decode_pgm(b"P5").is_err());
    }

    fn png(color: png::ColorType, pixels: &[u8], width: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let height = pixels.len() as u32 / width / color.samples() as u32;
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        bytes
    }

    #[test]
    fn png_files_of_every_colour() {
        let pixels = |color, pixels: &[u8], width| decode_png(&png(color, pixels, width)).unwrap().pixels;
        assert_eq!(pixels(png::ColorType::Grayscale, &[1, 2, 3, 4], 2), [1, 2, 3, 4]);
        assert_eq!(pixels(png::ColorType::Rgb, &[10, 20, 30, 0, 0, 255], 2), [20, 85]);
        // Dark strokes on nothing get a white ground, light ones a black one.
        assert_eq!(pixels(png::ColorType::GrayscaleAlpha, &[0, 0, 0, 255], 2), [255, 0]);
        assert_eq!(pixels(png::ColorType::Rgba, &[255, 255, 255, 0, 255, 255, 255, 255], 2), [0, 255]);
        let whole = png(png::ColorType::Grayscale, &[9; 400], 20);
        assert!(decode_png(&whole[..whole.len() / 2]).unwrap_err().contains("PNG"));
    }
}
