//! Examples and kernels as pictures: PNG for what has an area, a polyline for what has not.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};
use thumbnet::layer::Shape;

/// Values in the shape of an image or a signal, `[H, W, C]`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tile {
    pub(super) shape: Shape,
    pub(super) values: Vec<f32>,
}

impl Tile {
    /// As a picture of an example: its own colours, 0 is black and 1 is white. Values beyond that are brought into it.
    pub(super) fn example(&self) -> Markup {
        if !self.has_area() {
            return self.polylines();
        }
        let (low, high) = self.values.iter().fold((0f32, 1f32), |(low, high), &v| (low.min(v), high.max(v)));
        self.picture(|value| (255.0 * (value - low) / (high - low)).round() as u8, false)
    }

    /// As a picture of weights: 0 is in the middle, and the largest one, on either side, is the end of the scale.
    pub(super) fn weights(&self) -> Markup {
        if !self.has_area() {
            return self.polylines();
        }
        let largest = self.values.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
        self.picture(|value| (127.5 + 127.5 * value / largest).round() as u8, true)
    }

    fn has_area(&self) -> bool {
        self.shape.height > 1 && self.shape.width > 1
    }

    /// Three channels are red, green and blue. One channel is grey, or of [`signed`] colours; of other numbers of channels it
    /// is their mean.
    fn picture(&self, level: impl Fn(f32) -> u8, is_signed: bool) -> Markup {
        let channels = usize::from(self.shape.channels);
        let pixel = |values: &[f32]| match *values {
            [red, green, blue] => [red, green, blue].map(&level),
            _ => {
                let mean = level(values.iter().sum::<f32>() / values.len() as f32);
                if is_signed { signed(mean) } else { [mean; 3] }
            }
        };
        let pixels: Vec<u8> = self.values.chunks_exact(channels).flat_map(pixel).collect();
        let png = BASE64_STANDARD.encode(png(self.shape.width, self.shape.height, &pixels));
        html! { img src={ "data:image/png;base64," (png) } alt="" width=(self.shape.width) height=(self.shape.height); }
    }

    /// A line for each channel, or, without any other extent, one along the channels.
    fn polylines(&self) -> Markup {
        let positions = usize::from(self.shape.height) * usize::from(self.shape.width);
        let (positions, channels) = match positions {
            1 => (usize::from(self.shape.channels), 1),
            _ => (positions, usize::from(self.shape.channels)),
        };
        let (low, high) =
            self.values.iter().fold((f32::MAX, f32::MIN), |(low, high), &value| (low.min(value), high.max(value)));
        let (range, end) = ((high - low).max(f32::MIN_POSITIVE), positions.saturating_sub(1).max(1) as f32);
        let line = |channel: usize| {
            let point = |position: usize| {
                let value = self.values[position * channels + channel];
                format!("{:.1},{:.1}", 100.0 * position as f32 / end, 38.0 - 36.0 * (value - low) / range)
            };
            (0..positions).map(point).collect::<Vec<_>>().join(" ")
        };
        html! {
            svg.signal viewBox="0 0 100 40" preserveAspectRatio="none" {
                @for channel in 0..channels { polyline points=(line(channel)) {} }
            }
        }
    }
}

/// From orange (negative) over white to blue (positive).
fn signed(level: u8) -> [u8; 3] {
    const ENDS: [[f32; 3]; 2] = [[214.0, 96.0, 39.0], [31.0, 119.0, 180.0]];
    let position = f32::from(level) / 127.5 - 1.0;
    ENDS[usize::from(position > 0.0)].map(|end| (255.0 + position.abs() * (end - 255.0)).round() as u8)
}

/// RGB pixels as a PNG file.
fn png(width: u16, height: u16, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width.into(), height.into());
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_image_data(pixels))
        .expect("as many pixels as announced, into memory");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(markup: &Markup) -> Vec<u8> {
        let text = markup.0.split_once("base64,").unwrap().1.split('"').next().unwrap();
        let bytes = BASE64_STANDARD.decode(text).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels
    }

    #[test]
    fn examples_keep_their_colours() {
        let grey = Tile { shape: Shape::new(2, 2, 1), values: vec![0.0, 1.0, 0.2, 0.0] };
        assert_eq!(decode(&grey.example()), [[0; 3], [255; 3], [51; 3], [0; 3]].concat());
        let colour = Tile { shape: Shape::new(2, 2, 3), values: [1.0, 0.0, 0.2].repeat(4) };
        assert_eq!(decode(&colour.example()), [255, 0, 51].repeat(4));
        // Two channels are averaged; values from -1 to 3 take the whole scale.
        let wide = Tile { shape: Shape::new(2, 2, 2), values: vec![-1.0, -1.0, 3.0, 3.0, 0.0, 2.0, 1.0, 1.0] };
        assert_eq!(decode(&wide.example()), [[0; 3], [255; 3], [128; 3], [128; 3]].concat());
    }

    #[test]
    fn weights_are_coloured_by_their_sign() {
        let kernel = Tile { shape: Shape::new(2, 2, 1), values: vec![0.0, -3.0, 3.0, 0.0] };
        let pixels = decode(&kernel.weights());
        assert_eq!(pixels[3..9], [214, 96, 39, 31, 119, 180]);
        assert!(pixels[..3].iter().all(|&level| level > 253));
    }

    #[test]
    fn signals_are_lines() {
        let signal = Tile { shape: Shape::new(1, 3, 2), values: vec![0.0, 9.0, 1.0, 9.0, 2.0, 9.0] };
        let svg = signal.example().0;
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains(r#"points="0.0,38.0 50.0,34.0 100.0,30.0""#), "{svg}");
        let features = Tile { shape: Shape::flat(5), values: vec![0.0, 1.0, 0.0, 1.0, 0.0] };
        assert_eq!(features.example().0.matches("<polyline").count(), 1);
    }
}
