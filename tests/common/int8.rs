//! Int8 arithmetic once more, as plain loops over 64-bit integers written from `docs/format.md`.
//!
//! There are no error bounds here: an int8 model has one right answer, to the last bit.

use super::raw::slope_parts;
use super::reference::{Dims, output_dims};
use thumbnet::blob::PackedTensor;
use thumbnet::kernels::Int8Tensor;
use thumbnet::layer::{Activation, AvgPool2d, Layer, MaxPool2d, Padding, Quantize};
use thumbnet::{Input, Model};

/// The activations that an input becomes.
fn quantize(how: &Quantize, input: Input<'_>) -> Vec<i64> {
    let bounded = |q: i64| q.clamp(-127, 127);
    match input {
        Input::U8(bytes) => {
            let steps = |byte: u8| i64::from(byte) * i64::from(how.byte_multiplier) + i64::from(how.byte_offset);
            bytes.iter().map(|byte| bounded((steps(*byte) + 32_768) >> 16)).collect()
        }
        Input::F32(values) => {
            let steps = |x: f32| x * how.inverse_scale;
            let nearest = |x: f32| (x + 0.5f32.copysign(x)) as i64;
            values.iter().map(|x| bounded(nearest(steps(*x)))).collect()
        }
    }
}

/// tanh in steps of 2^-15, from steps of 2^-12: linear between multiples of 1/16, constant from 4 on.
fn tanh(steps: i64) -> i64 {
    let entry = |index: i64| ((index as f64 / 16.0).tanh() * 32_768.0).round() as i64;
    let size = steps.abs().min(4 * 4096);
    let (index, rest) = (size / 256, size % 256);
    let next = if rest == 0 { entry(index) } else { entry(index + 1) };
    let value = entry(index) + ((next - entry(index)) * rest + 128).div_euclid(256);
    if steps < 0 { -value } else { value }
}

fn lookup(activation: Activation, steps: i64) -> i64 {
    match activation {
        Activation::Tanh => tanh(steps),
        _ => (32_768 + tanh(steps.div_euclid(2)) + 1).div_euclid(2),
    }
}

/// A sum times the scale of its output: in steps of the output, times 2^21.
fn product(sum: i64, scale: u32) -> i64 {
    let (multiplier, shift) = (scale & 0x7fff, (scale >> 16) & 31);
    (sum >> shift).clamp(-32_768, 32_767) * i64::from(multiplier)
}

/// What becomes of a sum in a layer whose outputs are int8.
fn to_int8(activation: Activation, sum: i64, scale: u32) -> i64 {
    let steps = (product(sum, scale) + (1 << 20)) >> 21;
    match activation {
        Activation::None => steps.clamp(-127, 127),
        Activation::Relu => steps.clamp(0, 127),
        Activation::Relu6 => steps.clamp(0, 127 - i64::from(scale >> 24)),
        Activation::LeakyRelu(slope) => {
            let (by, places) = slope_parts(slope.value());
            let multiplier = ((scale & 0x7fff) * u32::from(by) + 128) >> 8;
            let shift = (((scale >> 16) & 31) + u32::from(places)).min(31);
            let scale = if sum < 0 { multiplier | shift << 16 } else { scale };
            ((product(sum, scale) + (1 << 20)) >> 21).clamp(-127, 127)
        }
        Activation::Tanh | Activation::Sigmoid => {
            let table_steps = ((product(sum, scale) + (1 << 12)) >> 13).clamp(-32_767, 32_767);
            (lookup(activation, table_steps) * 127 + (1 << 14)) >> 15
        }
    }
}

/// And in the last one.
fn to_f32(activation: Activation, sum: i64, scale: u32) -> f32 {
    match activation {
        Activation::None => sum as i32 as f32 * f32::from_bits(scale),
        Activation::Relu => sum.max(0) as i32 as f32 * f32::from_bits(scale),
        Activation::Relu6 => (sum.max(0) as i32 as f32 * f32::from_bits(scale)).min(6.0),
        Activation::LeakyRelu(slope) => {
            let value = sum as i32 as f32 * f32::from_bits(scale);
            if value < 0.0 { value * slope.value() } else { value }
        }
        Activation::Tanh | Activation::Sigmoid => {
            let table_steps = ((product(sum, scale) + (1 << 12)) >> 13).clamp(-32_767, 32_767);
            lookup(activation, table_steps) as f32 / 32_768.0
        }
    }
}

/// Where the windows of a convolution begin, and how large they are.
struct Windows {
    kernel: [u8; 2],
    stride: [u8; 2],
    padding: Padding,
    pool: [u8; 2],
}

/// The largest of the pooled sums of each output, `[H, W, C]`.
fn convolution(
    x: &[i64],
    from: Dims,
    to: Dims,
    windows: &Windows,
    tensor: &Int8Tensor<'_>,
    depthwise: bool,
) -> Vec<i64> {
    let at = |row: i64, column: i64, channel: usize| {
        let inside = (0..from[0] as i64).contains(&row) && (0..from[1] as i64).contains(&column);
        if inside { x[(row as usize * from[1] + column as usize) * from[2] + channel] } else { 0 }
    };
    let weight = |input, output| i64::from(tensor.weight(input, output).expect("a weight"));
    let [kh, kw] = windows.kernel.map(usize::from);
    let sum = |row: usize, column: usize, output: usize| {
        let top = (row * usize::from(windows.stride[0])) as i64 - i64::from(windows.padding.top);
        let left = (column * usize::from(windows.stride[1])) as i64 - i64::from(windows.padding.left);
        let mut sum = i64::from(tensor.bias()[output]);
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let (row, column, position) = (top + ky as i64, left + kx as i64, ky * kw + kx);
            if depthwise {
                sum += at(row, column, output) * weight(position, output);
            } else {
                sum += (0..from[2]).map(|c| at(row, column, c) * weight(position * from[2] + c, output)).sum::<i64>();
            }
        }
        sum
    };
    let [ph, pw] = windows.pool.map(usize::from);
    let pooled = |row: usize, column: usize, output: usize| {
        let sums = (0..ph * pw).map(|n| sum(row * ph + n / pw, column * pw + n % pw, output));
        sums.max().expect("a pool is never empty")
    };
    let places = (0..to[0]).flat_map(|row| (0..to[1]).map(move |column| (row, column)));
    places
        .flat_map(|(row, column)| (0..to[2]).map(move |output| (row, column, output)))
        .map(|(r, c, o)| pooled(r, c, o))
        .collect()
}

/// The sums of a layer with weights.
fn sums(layer: &Layer, x: &[i64], from: Dims, to: Dims, tensor: &Int8Tensor<'_>) -> Vec<i64> {
    match layer {
        Layer::Conv2d(conv) => {
            let windows = Windows { kernel: conv.kernel, stride: conv.stride, padding: conv.padding, pool: conv.pool };
            convolution(x, from, to, &windows, tensor, false)
        }
        Layer::DepthwiseConv2d(conv) => {
            let windows = Windows { kernel: conv.kernel, stride: conv.stride, padding: conv.padding, pool: [1, 1] };
            convolution(x, from, to, &windows, tensor, true)
        }
        _ => {
            let products = |output: usize| {
                let weights = (0..x.len()).map(|input| i64::from(tensor.weight(input, output).expect("a weight")));
                i64::from(tensor.bias()[output]) + x.iter().zip(weights).map(|(x, w)| x * w).sum::<i64>()
            };
            (0..tensor.outputs()).map(products).collect()
        }
    }
}

/// What `combine` makes of each window.
fn pool(
    x: &[i64],
    (kernel, stride): ([u8; 2], [u8; 2]),
    from: Dims,
    to: Dims,
    combine: impl Fn(Vec<i64>) -> i64,
) -> Vec<i64> {
    let at = |row: usize, column: usize, channel: usize| x[(row * from[1] + column) * from[2] + channel];
    let mut pooled = Vec::new();
    for (row, column) in (0..to[0]).flat_map(|row| (0..to[1]).map(move |column| (row, column))) {
        let (top, left) = (row * usize::from(stride[0]), column * usize::from(stride[1]));
        for channel in 0..to[2] {
            let rows = top..top + usize::from(kernel[0]);
            let window = rows.flat_map(|row| (left..left + usize::from(kernel[1])).map(move |column| (row, column)));
            pooled.push(combine(window.map(|(row, column)| at(row, column, channel)).collect()));
        }
    }
    pooled
}

fn max(window: Vec<i64>) -> i64 {
    window.into_iter().max().expect("a window is never empty")
}

fn mean(window: Vec<i64>) -> i64 {
    let count = window.len() as i64;
    let reciprocal = ((1 << 24) + count / 2) / count;
    let product = window.iter().sum::<i64>() * reciprocal + (1 << 23);
    assert!(i32::try_from(product).is_ok(), "the page promises that 32 bits do");
    product >> 24
}

/// The outputs of an int8 model, without a final softmax.
pub(crate) fn logits(model: &Model<'_>, input: Input<'_>) -> Vec<f32> {
    let shape = model.input().shape;
    let mut dims = [shape.height, shape.width, shape.channels].map(usize::from);
    let layers: Vec<Layer> = model.layers().map(|info| info.layer).filter(|layer| *layer != Layer::Softmax).collect();
    let mut tensors = model.tensors();
    let mut x = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let made = output_dims(layer, dims).expect("the layers fit");
        match layer {
            Layer::Quantize(how) => x = quantize(how, input),
            Layer::MaxPool2d(MaxPool2d { kernel, stride }) => x = pool(&x, (*kernel, *stride), dims, made, max),
            Layer::AvgPool2d(AvgPool2d { kernel, stride }) => x = pool(&x, (*kernel, *stride), dims, made, mean),
            _ => {
                let Some(PackedTensor::Int8(tensor)) = tensors.next() else { panic!("an int8 layer") };
                let sums = sums(layer, &x, dims, made, &tensor);
                let scales: Vec<u32> = tensor.scales().collect();
                let scaled = sums.iter().zip(scales.iter().cycle());
                if index + 1 == layers.len() {
                    return scaled.map(|(sum, scale)| to_f32(layer.activation(), *sum, *scale)).collect();
                }
                x = scaled.map(|(sum, scale)| to_int8(layer.activation(), *sum, *scale)).collect();
            }
        }
        dims = made;
    }
    panic!("an int8 model ends with a layer that has weights, or with softmax")
}
