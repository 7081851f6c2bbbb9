//! Every layer once more, as plain f64 loops written from the documentation of the layers, together with a bound on how
//! far a correct f32 computation may be off.
//!
//! Nothing here is fast, clever, or shared with the library (of which only the descriptors' types are used).

use thumbnet::layer::{Activation, AvgPool2d, Conv2d, DepthwiseConv2d, InputSpec, Layer, MaxPool2d, Padding};

/// The most that rounding one f32 result changes it, relative to the result.
const UNIT: f64 = 1.0 / (1u32 << 24) as f64;
/// The smallest positive f32: the absolute error of a result that is denormal is at most half of it.
const TINY: f64 = 1.401_298_464_324_817e-45;

/// A value, and how far an f32 computation of it may be off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounded {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

impl Bounded {
    pub(crate) fn exact(value: f32) -> Self {
        Self { value: f64::from(value), error: 0.0 }
    }

    /// A computed value. An infinite one is exact, however the sums before it were rounded.
    fn computed(value: f64, error: f64) -> Self {
        Self { value, error: if value.is_finite() { error } else { 0.0 } }
    }

    /// Whether `found` is right. NaN and infinities have to be met exactly.
    pub(crate) fn admits(&self, found: f32) -> bool {
        let found = f64::from(found);
        if self.value.is_nan() {
            found.is_nan()
        } else if self.value.is_infinite() {
            found == self.value
        } else {
            (found - self.value).abs() <= self.error
        }
    }
}

/// Rows, columns, channels.
pub(crate) type Dims = [usize; 3];

/// The values of an input: of f32 they are exact, of bytes they carry the rounding of `byte * scale + offset`.
pub(crate) fn from_bytes(spec: &InputSpec, bytes: &[u8]) -> Vec<Bounded> {
    let (scale, offset) = (f64::from(spec.scale), f64::from(spec.offset));
    let scaled = |byte: &u8| {
        let product = f64::from(*byte) * scale;
        let value = product + offset;
        Bounded { value, error: UNIT * (product.abs() + value.abs() + UNIT * product.abs()) * 1.01 + TINY }
    };
    bytes.iter().map(scaled).collect()
}

pub(crate) fn from_values(values: &[f32]) -> Vec<Bounded> {
    values.iter().copied().map(Bounded::exact).collect()
}

/// `Σ a_i * b_i + bias` for exact `b`, in any order of summation.
fn sum(products: &[(Bounded, f32)], bias: f32) -> Bounded {
    let (mut value, mut magnitude, mut inherited) = (f64::from(bias), f64::from(bias).abs(), 0.0);
    for (a, b) in products {
        let b = f64::from(*b);
        value += a.value * b;
        magnitude += (a.value.abs() + a.error) * b.abs();
        inherited += a.error * b.abs();
    }
    // Each product is rounded once, and once more in each addition that it goes through.
    let roundings = products.len() as f64 + 2.0;
    Bounded::computed(value, inherited + roundings * (UNIT * 1.01 * magnitude + TINY))
}

fn activate(activation: Activation, x: Bounded) -> Bounded {
    // The library promises 4 units in the last place; one unit is at most 2 * UNIT of the value.
    let four_ulp = |value: f64| 8.0 * UNIT * 1.01 * value + 4.0 * TINY;
    match activation {
        Activation::None => x,
        Activation::Relu if x.value < 0.0 => Bounded { value: 0.0, error: (x.error + x.value).max(0.0) },
        Activation::Relu => x,
        Activation::Relu6 if x.value > 6.0 => Bounded { value: 6.0, error: (x.error - (x.value - 6.0)).max(0.0) },
        Activation::Relu6 => activate(Activation::Relu, x),
        Activation::LeakyRelu(slope) => {
            let slope = f64::from(slope.value());
            let value = if x.value < 0.0 { x.value * slope } else { x.value };
            // Where the sum may be on either side of 0, the error is that of the steeper one.
            let steepest = if x.value + x.error < 0.0 { slope } else { 1.0 };
            Bounded::computed(value, x.error * steepest + UNIT * 1.01 * (value.abs() + x.error) + TINY)
        }
        Activation::Tanh => {
            let value = x.value.tanh();
            // The slope is at most 1, and never do two results differ by more than 2. (`min` passes over NaN.)
            let inherited = x.error.min(2.0);
            Bounded { value, error: inherited + four_ulp(value.abs() + inherited) }
        }
        Activation::Sigmoid => {
            let value = sigmoid(x.value);
            let inherited = (x.error / 4.0).min(1.0);
            Bounded { value, error: inherited + four_ulp(value + inherited) }
        }
    }
}

pub(crate) fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

/// The largest value; NaN if there is one.
fn largest(window: &[Bounded]) -> Bounded {
    let mut best = Bounded { value: f64::NEG_INFINITY, error: 0.0 };
    for candidate in window {
        if best.value.is_nan() || candidate.value.is_nan() {
            best.value = f64::NAN;
        } else if candidate.value > best.value {
            best.value = candidate.value;
        }
        best.error = best.error.max(candidate.error);
    }
    best
}

/// `weights` is `[inputs, outputs]`, row-major; an empty `bias` stands for zeros.
pub(crate) fn dense(x: &[Bounded], weights: &[f32], bias: &[f32], outputs: usize) -> Vec<Bounded> {
    let one = |output: usize| {
        let products: Vec<_> = x.iter().enumerate().map(|(i, x)| (*x, weights[i * outputs + output])).collect();
        sum(&products, bias.get(output).copied().unwrap_or(0.0))
    };
    (0..outputs).map(one).collect()
}

/// How many windows of `kernel` fit at steps of `stride`; `None` if not even one does.
fn steps(len: i64, kernel: u8, stride: u8) -> Option<usize> {
    let room = len - i64::from(kernel);
    if kernel == 0 || stride == 0 || room < 0 { None } else { Some((room / i64::from(stride)) as usize + 1) }
}

/// Rows and columns of the sums of a convolution, before pooling.
fn conv_sums(kernel: [u8; 2], stride: [u8; 2], padding: Padding, [height, width, _]: Dims) -> Option<[usize; 2]> {
    let rows = height as i64 + i64::from(padding.top) + i64::from(padding.bottom);
    let columns = width as i64 + i64::from(padding.left) + i64::from(padding.right);
    Some([steps(rows, kernel[0], stride[0])?, steps(columns, kernel[1], stride[1])?])
}

/// The shape that a layer makes of `input`; `None` if it cannot be.
pub(crate) fn output_dims(layer: &Layer, input: Dims) -> Option<Dims> {
    const LIMIT: usize = 1 << 20;
    let dims = match layer {
        Layer::Dense(dense) => [1, 1, usize::from(dense.outputs)],
        Layer::Conv2d(conv) => {
            let [rows, columns] = conv_sums(conv.kernel, conv.stride, conv.padding, input)?;
            let [ph, pw] = conv.pool.map(usize::from);
            [rows.checked_div(ph)?, columns.checked_div(pw)?, usize::from(conv.filters)]
        }
        Layer::MaxPool2d(pool) => {
            let rows = steps(input[0] as i64, pool.kernel[0], pool.stride[0])?;
            [rows, steps(input[1] as i64, pool.kernel[1], pool.stride[1])?, input[2]]
        }
        Layer::AvgPool2d(AvgPool2d { kernel, stride }) => {
            return output_dims(&Layer::MaxPool2d(MaxPool2d { kernel: *kernel, stride: *stride }), input);
        }
        Layer::Softmax | Layer::Quantize(_) => input,
        Layer::DepthwiseConv2d(conv) => {
            let [rows, columns] = conv_sums(conv.kernel, conv.stride, conv.padding, input)?;
            [rows, columns, input[2]]
        }
    };
    let possible = dims.iter().all(|n| (1..=65_535).contains(n)) && dims.iter().product::<usize>() <= LIMIT;
    possible.then_some(dims)
}

/// The number of inputs of one sum and the number of outputs: the shape of the weights. `None` for a layer without.
pub(crate) fn weight_dims(layer: &Layer, input: Dims) -> Option<[usize; 2]> {
    match layer {
        Layer::Dense(dense) => Some([input.iter().product(), usize::from(dense.outputs)]),
        Layer::Conv2d(conv) => {
            let [kh, kw] = conv.kernel.map(usize::from);
            Some([kh * kw * input[2], usize::from(conv.filters)])
        }
        Layer::DepthwiseConv2d(conv) => {
            let [kh, kw] = conv.kernel.map(usize::from);
            Some([kh * kw, input[2]])
        }
        Layer::MaxPool2d(_) | Layer::AvgPool2d(_) | Layer::Softmax | Layer::Quantize(_) => None,
    }
}

/// The convolution, its activation and then its pooling, in the documentation's order.
///
/// `weights` is `[kh, kw, channels, filters]`. Places outside of the input add nothing.
pub(crate) fn conv2d(x: &[Bounded], dims: Dims, conv: &Conv2d, weights: &[f32], bias: &[f32]) -> Vec<Bounded> {
    let [height, width, channels] = dims;
    let filters = usize::from(conv.filters);
    let [rows, columns] = conv_sums(conv.kernel, conv.stride, conv.padding, dims).expect("the shape fits");
    let [kh, kw] = conv.kernel.map(usize::from);
    let [sh, sw] = conv.stride.map(usize::from);
    let at = |row: i64, column: i64, channel: usize| -> Option<Bounded> {
        let (row, column) = (row - i64::from(conv.padding.top), column - i64::from(conv.padding.left));
        let inside = (0..height as i64).contains(&row) && (0..width as i64).contains(&column);
        inside.then(|| x[(row as usize * width + column as usize) * channels + channel])
    };
    let one = |row: usize, column: usize, filter: usize| {
        let mut products = Vec::new();
        for ky in 0..kh {
            for kx in 0..kw {
                for channel in 0..channels {
                    let weight = weights[((ky * kw + kx) * channels + channel) * filters + filter];
                    if let Some(value) = at((row * sh + ky) as i64, (column * sw + kx) as i64, channel) {
                        products.push((value, weight));
                    }
                }
            }
        }
        activate(conv.activation, sum(&products, bias.get(filter).copied().unwrap_or(0.0)))
    };
    let [ph, pw] = conv.pool.map(usize::from);
    let mut out = Vec::new();
    for row in 0..rows / ph {
        for column in 0..columns / pw {
            for filter in 0..filters {
                let mut window = Vec::new();
                for y in 0..ph {
                    for x in 0..pw {
                        window.push(one(row * ph + y, column * pw + x, filter));
                    }
                }
                out.push(largest(&window));
            }
        }
    }
    out
}

/// The convolution of each channel by itself, and its activation. `weights` is `[kh, kw, channels]`.
pub(crate) fn depthwise_conv2d(
    x: &[Bounded],
    dims: Dims,
    conv: &DepthwiseConv2d,
    weights: &[f32],
    bias: &[f32],
) -> Vec<Bounded> {
    let [height, width, channels] = dims.map(|n| n as i64);
    let [rows, columns] = conv_sums(conv.kernel, conv.stride, conv.padding, dims).expect("the shape fits");
    let ([kh, kw], [sh, sw]) = (conv.kernel.map(i64::from), conv.stride.map(i64::from));
    let mut out = Vec::new();
    for row in 0..rows as i64 {
        for column in 0..columns as i64 {
            for channel in 0..channels {
                let mut products = Vec::new();
                for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                    let y = row * sh + ky - i64::from(conv.padding.top);
                    let x_ = column * sw + kx - i64::from(conv.padding.left);
                    if (0..height).contains(&y) && (0..width).contains(&x_) {
                        let value = x[((y * width + x_) * channels + channel) as usize];
                        products.push((value, weights[((ky * kw + kx) * channels + channel) as usize]));
                    }
                }
                let bias = bias.get(channel as usize).copied().unwrap_or(0.0);
                out.push(activate(conv.activation, sum(&products, bias)));
            }
        }
    }
    out
}

/// What `combine` makes of each window.
fn pool2d(x: &[Bounded], dims: Dims, pool: &MaxPool2d, combine: impl Fn(&[Bounded]) -> Bounded) -> Vec<Bounded> {
    let [rows, columns, channels] = output_dims(&Layer::MaxPool2d(*pool), dims).expect("the shape fits");
    let mut out = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            for channel in 0..channels {
                let mut window = Vec::new();
                for y in 0..usize::from(pool.kernel[0]) {
                    for x_ in 0..usize::from(pool.kernel[1]) {
                        let y = row * usize::from(pool.stride[0]) + y;
                        let x_ = column * usize::from(pool.stride[1]) + x_;
                        window.push(x[(y * dims[1] + x_) * channels + channel]);
                    }
                }
                out.push(combine(&window));
            }
        }
    }
    out
}

pub(crate) fn max_pool2d(x: &[Bounded], dims: Dims, pool: &MaxPool2d) -> Vec<Bounded> {
    pool2d(x, dims, pool, largest)
}

pub(crate) fn avg_pool2d(x: &[Bounded], dims: Dims, pool: &AvgPool2d) -> Vec<Bounded> {
    let windows = MaxPool2d { kernel: pool.kernel, stride: pool.stride };
    pool2d(x, dims, &windows, |window| {
        let ones: Vec<_> = window.iter().map(|value| (*value, 1.0)).collect();
        let Bounded { value, error } = sum(&ones, 0.0);
        let count = window.len() as f64;
        // The reciprocal of the number is rounded, and the product with it.
        Bounded::computed(value / count, (error + 2.02 * UNIT * (value.abs() + error)) / count + TINY)
    })
}

pub(crate) fn softmax(x: &[Bounded]) -> Vec<Bounded> {
    let top = x.iter().map(|x| x.value).fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b });
    let spread = x.iter().map(|x| (x.value - top).abs()).filter(|d| d.is_finite()).fold(0.0, f64::max);
    let inherited = x.iter().map(|x| x.error).fold(0.0, f64::max);
    let sum: f64 = x.iter().map(|x| (x.value - top).exp()).sum();
    // Errors of an exponent are relative errors of its result: what came in, and the rounding of the difference, of this
    // value and of those in the sum. Then two units of the exponential, the sum's roundings, and the quotient's.
    let exponent = 2.0 * (inherited + UNIT * (spread + inherited));
    let relative = exponent.exp() * (1.0 + (x.len() as f64 + 12.0) * UNIT * 1.01) - 1.0;
    let one = |x: &Bounded| {
        let value = (x.value - top).exp() / sum;
        Bounded { value, error: value * relative + 4.0 * TINY }
    };
    x.iter().map(one).collect()
}

/// One layer with its weights.
pub(crate) fn layer(layer: &Layer, dims: Dims, x: &[Bounded], weights: &[f32], bias: &[f32]) -> Vec<Bounded> {
    match layer {
        Layer::Dense(d) => {
            let sums = dense(x, weights, bias, usize::from(d.outputs));
            sums.into_iter().map(|sum| activate(d.activation, sum)).collect()
        }
        Layer::Conv2d(conv) => conv2d(x, dims, conv, weights, bias),
        Layer::MaxPool2d(pool) => max_pool2d(x, dims, pool),
        Layer::AvgPool2d(pool) => avg_pool2d(x, dims, pool),
        Layer::Softmax => softmax(x),
        Layer::DepthwiseConv2d(conv) => depthwise_conv2d(x, dims, conv, weights, bias),
        Layer::Quantize(_) => panic!("int8 arithmetic has a reference of its own: `int8`"),
    }
}
