//! What a model is made of, as plain arrays: to be changed and written again.

use thumbnet::blob::{ModelSpec, PackedTensor, Tensors, encode, encode_int8, encoded_len};
use thumbnet::layer::{InputSpec, Layer, WeightType};
use thumbnet::{AlignedBuf, EncodeError, Model};

/// A model with f32 or f16 weights, unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) input: InputSpec,
    pub(crate) labels: Vec<&'a str>,
    pub(crate) layers: Vec<Layer>,
    /// Of each layer that has weights.
    pub(crate) parameters: Vec<Parameters>,
}

/// The parameters of one layer: see [`Tensors`].
#[derive(Clone, Debug)]
pub(crate) struct Parameters {
    /// `[inputs, outputs]` row-major.
    pub(crate) weights: Vec<f32>,
    /// `[outputs]`.
    pub(crate) bias: Vec<f32>,
}

impl<'a> Parts<'a> {
    /// Unpacks `model`.
    ///
    /// # Errors
    /// A message if it has int8 weights: what they were rounded from is lost.
    pub(crate) fn of(model: &Model<'a>) -> Result<Self, String> {
        let layers: Vec<Layer> = model.layers().map(|info| info.layer).collect();
        if layers.iter().any(|layer| matches!(layer.weight_type(), Some(WeightType::Int8(_)))) {
            return Err(
                "has int8 weights, which cannot be turned into others: convert the f32 model that it was made \
                        from"
                    .to_owned(),
            );
        }
        let parameters = model.tensors().map(|tensor| Parameters::of(&tensor)).collect();
        Ok(Parts { input: *model.input(), labels: model.labels().collect(), layers, parameters })
    }

    /// The layers without weights, and those with weights along with their parameters.
    pub(crate) fn layers_and_parameters(&self) -> impl Iterator<Item = (&Layer, Option<&Parameters>)> {
        let mut parameters = self.parameters.iter();
        self.layers.iter().map(move |layer| (layer, layer.weight_type().and_then(|_| parameters.next())))
    }

    /// The model of the first `count` layers.
    pub(crate) fn head(&self, count: usize) -> Self {
        let layers = self.layers[..count].to_vec();
        let tensors = layers.iter().filter(|layer| layer.weight_type().is_some()).count();
        Parts { input: self.input, labels: Vec::new(), layers, parameters: self.parameters[..tensors].to_vec() }
    }

    /// The file of the model; `scales` as of [`encode_int8`], for a model with int8 weights.
    pub(crate) fn encode(&self, scales: &[f32]) -> Result<AlignedBuf, EncodeError> {
        let spec = ModelSpec { input: self.input, labels: &self.labels, layers: &self.layers };
        let tensors: Vec<Tensors<'_>> = self.parameters.iter().map(Parameters::tensors).collect();
        let mut blob = AlignedBuf::zeroed(encoded_len(&spec)?);
        if scales.is_empty() {
            encode(&spec, &tensors, &mut blob)?;
        } else {
            encode_int8(&spec, &tensors, scales, &mut blob)?;
        }
        Ok(blob)
    }
}

impl Parameters {
    fn tensors(&self) -> Tensors<'_> {
        Tensors { weights: &self.weights, bias: &self.bias }
    }

    fn of(tensor: &PackedTensor<'_>) -> Self {
        let weight = |input, output| tensor.weight(input, output).expect("an input and an output of the tensor");
        let row = |input| (0..tensor.outputs()).map(move |output| weight(input, output));
        let bias = |output| tensor.bias(output).expect("an output of the tensor");
        Parameters {
            weights: (0..tensor.inputs()).flat_map(row).collect(),
            bias: (0..tensor.outputs()).map(bias).collect(),
        }
    }
}

/// `layer` with weights of another type, if it has any.
pub(crate) fn with_weights(mut layer: Layer, weights: WeightType) -> Layer {
    match &mut layer {
        Layer::Dense(dense) => dense.weights = weights,
        Layer::Conv2d(conv) => conv.weights = weights,
        Layer::DepthwiseConv2d(conv) => conv.weights = weights,
        Layer::MaxPool2d(_) | Layer::AvgPool2d(_) | Layer::Softmax | Layer::Quantize(_) => {}
    }
    layer
}
