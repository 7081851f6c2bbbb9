//! The harness's networks as models of this library.

use crate::data::{Data, Result, size};
use thumbnet::blob::{ModelSpec, Tensors, encode, encode_int8, encoded_len};
use thumbnet::layer::{Activation, Conv2d, Dense, InputSpec, Layer, Packing, Padding, Quantize, Shape, WeightType};
use thumbnet::{AlignedBuf, Model};

/// A network as a model file in memory.
pub(crate) struct Network {
    file: AlignedBuf,
}

impl Network {
    /// Reads a network from the harness's data and encodes it.
    pub(crate) fn read(data: &Data, name: &str) -> Result<Self> {
        let reader = Reader::read(data, name)?;
        reader.encode(reader.layers.len())
    }

    /// The same with int8 weights. The activations' scales are calibrated with `inputs`: the largest value that each layer
    /// makes of them becomes 127 steps.
    pub(crate) fn read_int8(data: &Data, name: &str, inputs: &[f32]) -> Result<Self> {
        let reader = Reader::read(data, name)?;
        let scales = reader.scales(inputs)?;
        let quantize = Quantize::new(&INPUT, largest(inputs) / 127.0);
        let quantize = quantize.ok_or_else(|| format!("{name}: the inputs are out of int8's range"))?;
        let mut layers = vec![Layer::Quantize(quantize)];
        for mut layer in reader.layers.iter().copied() {
            if let Layer::Dense(Dense { weights, .. }) | Layer::Conv2d(Conv2d { weights, .. }) = &mut layer {
                *weights = WeightType::Int8(Packing::Grouped);
            }
            layers.push(layer);
        }
        let spec = ModelSpec { input: INPUT, labels: &[], layers: &layers };
        let mut file = AlignedBuf::zeroed(encoded_len(&spec)?);
        encode_int8(&spec, &reader.tensors(), &scales, &mut file)?;
        Ok(Self { file })
    }

    pub(crate) fn model(&self) -> Result<Model<'_>> {
        Ok(Model::load(&self.file)?)
    }
}

/// Every network of the harness takes an image of MNIST.
const INPUT: InputSpec = InputSpec { shape: Shape::new(28, 28, 1), scale: 1.0 / 255.0, offset: 0.0 };
/// Every convolution of the harness has windows of this height and width, and a stride of 1.
const WINDOW: [u8; 2] = [3, 3];

/// A network while its lines are read.
struct Reader<'a> {
    data: &'a Data,
    name: &'a str,
    layers: Vec<Layer>,
    /// Weights and biases, in this library's order.
    tensors: Vec<[Vec<f32>; 2]>,
}

/// The largest size of a value.
fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

impl<'a> Reader<'a> {
    fn read(data: &'a Data, name: &'a str) -> Result<Self> {
        let mut reader = Reader { data, name, layers: Vec::new(), tensors: Vec::new() };
        for line in data.layers(name) {
            reader.line(line)?;
        }
        Ok(reader)
    }

    fn tensors(&self) -> Vec<Tensors<'_>> {
        self.tensors.iter().map(|[weights, bias]| Tensors { weights, bias }).collect()
    }

    /// The first `count` layers as a model.
    fn encode(&self, count: usize) -> Result<Network> {
        let layers = &self.layers[..count];
        let spec = ModelSpec { input: INPUT, labels: &[], layers };
        let mut tensors = self.tensors();
        tensors.truncate(layers.iter().filter(|layer| layer.weight_type().is_some()).count());
        let mut file = AlignedBuf::zeroed(encoded_len(&spec)?);
        encode(&spec, &tensors, &mut file)?;
        Ok(Network { file })
    }

    /// For each layer with weights the value of one step of its int8 outputs.
    fn scales(&self, inputs: &[f32]) -> Result<Vec<f32>> {
        let with_weights = (1..=self.layers.len()).filter(|count| self.layers[count - 1].weight_type().is_some());
        let scale = |count| {
            let network = self.encode(count)?;
            let model = network.model()?;
            let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
            let mut outputs = vec![0.0; inputs.len() / model.input_len() * model.output_len()];
            model.run_batch(inputs, &mut scratch, &mut outputs)?;
            Ok(largest(&outputs) / 127.0)
        };
        with_weights.map(scale).collect()
    }

    fn line(&mut self, line: &[String]) -> Result<()> {
        let unexpected =
            format!("model.tsv: {} {}: unknown, or not behind a layer that it goes with", self.name, line.join(" "));
        match (line[0].as_str(), self.layers.last_mut()) {
            ("dense", _) => self.dense(size(line, 1)?)?,
            ("conv", _) => self.conv(size(line, 1)?)?,
            // Here these are parts of the layer before them. A ReLU may come after the pooling as well as before.
            ("relu", Some(Layer::Dense(Dense { activation, .. }) | Layer::Conv2d(Conv2d { activation, .. }))) => {
                *activation = Activation::Relu;
            }
            ("tanh", Some(Layer::Dense(Dense { activation, .. }) | Layer::Conv2d(Conv2d { activation, .. }))) => {
                *activation = Activation::Tanh;
            }
            ("pool", Some(Layer::Conv2d(conv))) => conv.pool = [2, 2],
            ("softmax", _) => self.layers.push(Layer::Softmax),
            // Flattening changes nothing here.
            ("flatten", _) => {}
            _ => Err(unexpected)?,
        }
        Ok(())
    }

    /// The shape that the layers so far make.
    fn shape(&self) -> Result<Shape> {
        Ok(self.layers.iter().try_fold(INPUT.shape, |shape, layer| layer.output(shape))?)
    }

    /// The next layer's tensor of that kind, `w` or `b`.
    fn tensor(&self, kind: char) -> Result<Vec<f32>> {
        self.data.tensor(&format!("{}.{kind}{}", self.name, self.tensors.len()))
    }

    /// A dense layer: `[out, in]` with inputs in the order C, H, W becomes `[in, out]` in the order H, W, C.
    fn dense(&mut self, outputs: usize) -> Result<()> {
        let Shape { height, width, channels } = self.shape()?;
        let [height, width, channels] = [height, width, channels].map(usize::from);
        let (theirs, inputs) = (self.tensor('w')?, height * width * channels);
        self.expect(&theirs, outputs * inputs)?;
        let mut ours = Vec::with_capacity(theirs.len());
        for position in 0..height * width {
            for channel in 0..channels {
                let input = channel * height * width + position;
                ours.extend((0..outputs).map(|output| theirs[output * inputs + input]));
            }
        }
        self.tensors.push([ours, self.tensor('b')?]);
        let (activation, weights) = (Activation::None, WeightType::F32);
        self.layers.push(Layer::Dense(Dense { outputs: outputs.try_into()?, activation, weights }));
        Ok(())
    }

    /// A convolution: `[out, in, row, column]` becomes `[row, column, in, out]`.
    fn conv(&mut self, filters: usize) -> Result<()> {
        let channels = usize::from(self.shape()?.channels);
        let positions = WINDOW.map(usize::from).iter().product::<usize>();
        let theirs = self.tensor('w')?;
        self.expect(&theirs, filters * channels * positions)?;
        let mut ours = Vec::with_capacity(theirs.len());
        for position in 0..positions {
            for channel in 0..channels {
                ours.extend((0..filters).map(|filter| theirs[(filter * channels + channel) * positions + position]));
            }
        }
        self.tensors.push([ours, self.tensor('b')?]);
        self.layers.push(Layer::Conv2d(Conv2d {
            filters: filters.try_into()?,
            kernel: WINDOW,
            stride: [1, 1],
            padding: Padding::default(),
            pool: [1, 1],
            activation: Activation::None,
            weights: WeightType::F32,
        }));
        Ok(())
    }

    fn expect(&self, weights: &[f32], expected: usize) -> Result<()> {
        let (name, tensor, found) = (self.name, self.tensors.len(), weights.len());
        if found == expected {
            Ok(())
        } else {
            Err(format!("{name}.w{tensor}: found {found} weights, expected {expected}"))?
        }
    }
}
