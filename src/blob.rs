//! The file format: one postcard message with a prefix at fixed places, a header, and weights that stay where they are.
//!
//! `docs/format.md` specifies it byte by byte. Reading ([`Prefix::read`] and `parse`) and writing ([`encode`]) stand side
//! by side here, so that they cannot drift apart.

use crate::align::{Aligned, misalignment};
use crate::decode::{Cursor, is_utf8};
use crate::error::{EncodeError, HeaderError, LoadError};
use crate::kernels::int8::tensor::Int8Tensor;
use crate::kernels::{Panels, int8, pack};
use crate::layer::{Activation, ElementType, InputSpec, Layer, MAX_LAYERS, WeightType};
use crate::ops;
use crate::plan::{Plan, PlanError, Step, Walk};
use half::f16;
use serde::Serialize;

/// The first bytes of every model.
pub const MAGIC: [u8; 4] = *b"TNET";
/// The version of the format that this library writes and reads.
pub const VERSION: u16 = 1;
/// The length of the prefix, in bytes.
pub const PREFIX_BYTES: usize = 40;
/// The most bytes that the labels may have together, separators included.
pub const MAX_LABEL_BYTES: usize = 4096;

/// The parts of a file that its checksum covers: all but the checksum itself.
const CHECKSUM: core::ops::Range<usize> = 8..12;

/// A table makes it eight times as fast, but is 1 KiB of flash.
#[cfg(target_os = "none")]
type Crc32 = crc::Crc<u32, crc::NoTable>;
#[cfg(not(target_os = "none"))]
type Crc32 = crc::Crc<u32, crc::Table<16>>;

/// What stands at fixed places at the start of a blob, readable at compile time.
///
/// It is a promise, not a fact: [`Model::load`](crate::Model::load) derives every field from the layers and refuses a blob
/// whose prefix promises too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// CRC-32 of everything else in the file.
    pub checksum: u32,
    /// Length of the whole file, in bytes.
    pub file_bytes: u32,
    /// The operations that the model needs: see [`ops`].
    pub ops: u32,
    /// Scratch memory that a run needs, in bytes.
    pub scratch_bytes: u32,
    /// Number of input values.
    pub input_len: u32,
    /// Number of output values.
    pub output_len: u32,
    /// Where the weight section begins, in bytes from the start; a multiple of 64.
    pub weights_offset: u32,
    /// Length of the weight section, in bytes.
    pub weights_bytes: u32,
}

impl Prefix {
    /// Reads the prefix of a blob.
    ///
    /// # Errors
    /// [`LoadError::TooShort`], [`LoadError::NotAModel`] or [`LoadError::UnsupportedVersion`].
    ///
    /// ```
    /// use thumbnet::{LoadError, blob::Prefix};
    /// assert_eq!(Prefix::read(&[0; 40]), Err(LoadError::NotAModel { found: [0; 4] }));
    /// ```
    pub const fn read(blob: &[u8]) -> Result<Self, LoadError> {
        let Some(p) = blob.first_chunk::<PREFIX_BYTES>() else {
            return Err(LoadError::TooShort { found: blob.len(), needed: PREFIX_BYTES });
        };
        if !matches!([p[0], p[1], p[2], p[3]], MAGIC) {
            return Err(LoadError::NotAModel { found: [p[0], p[1], p[2], p[3]] });
        }
        let found = u16::from_le_bytes([p[4], p[5]]);
        if found != VERSION {
            return Err(LoadError::UnsupportedVersion { found, supported: VERSION });
        }
        let reserved = u16::from_le_bytes([p[6], p[7]]);
        if reserved != 0 {
            return Err(LoadError::PrefixMismatch { field: "reserved", stored: reserved as u32, actual: 0 });
        }
        Ok(Self {
            checksum: u32::from_le_bytes([p[8], p[9], p[10], p[11]]),
            file_bytes: u32::from_le_bytes([p[12], p[13], p[14], p[15]]),
            ops: u32::from_le_bytes([p[16], p[17], p[18], p[19]]),
            scratch_bytes: u32::from_le_bytes([p[20], p[21], p[22], p[23]]),
            input_len: u32::from_le_bytes([p[24], p[25], p[26], p[27]]),
            output_len: u32::from_le_bytes([p[28], p[29], p[30], p[31]]),
            weights_offset: u32::from_le_bytes([p[32], p[33], p[34], p[35]]),
            weights_bytes: u32::from_le_bytes([p[36], p[37], p[38], p[39]]),
        })
    }

    /// Writes the prefix to the first bytes of `blob`; does nothing if it is shorter than a prefix.
    fn write(&self, blob: &mut [u8]) {
        let words = [
            u32::from_le_bytes(MAGIC),
            u32::from(VERSION),
            self.checksum,
            self.file_bytes,
            self.ops,
            self.scratch_bytes,
            self.input_len,
            self.output_len,
            self.weights_offset,
            self.weights_bytes,
        ];
        if let Some(prefix) = blob.first_chunk_mut::<PREFIX_BYTES>() {
            prefix.chunks_exact_mut(4).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        }
    }
}

/// The CRC-32 (ISO-HDLC: that of zlib, gzip and PNG) of a blob without its own checksum.
#[must_use]
pub fn checksum(blob: &[u8]) -> u32 {
    let crc = Crc32::new(&crc::CRC_32_ISO_HDLC);
    let mut digest = crc.digest();
    digest.update(blob.get(..CHECKSUM.start).unwrap_or_default());
    digest.update(blob.get(CHECKSUM.end..).unwrap_or_default());
    digest.finalize()
}

/// What stands between the prefix and the layers.
#[derive(Debug, Serialize)]
struct Header<'b> {
    input: InputSpec,
    /// The class labels in UTF-8, separated by line breaks; empty for a model without labels.
    labels: &'b [u8],
    /// How many layers each member has.
    members: &'b [u8],
}

impl<'b> Header<'b> {
    fn take(cursor: &mut Cursor<'b>) -> Option<Self> {
        let input = InputSpec { shape: cursor.shape()?, scale: cursor.f32()?, offset: cursor.f32()? };
        let labels = cursor.bytes().filter(|labels| is_utf8(labels))?;
        Some(Self { input, labels, members: cursor.bytes()? })
    }
}

/// The layers of a blob, which stay there: decoded one by one, whenever they are needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layers<'b, const OPS: u32> {
    cursor: Cursor<'b>,
    count: u8,
}

impl<'b, const OPS: u32> Layers<'b, OPS> {
    /// Decodes a list of layers, to see that it can be.
    fn take(cursor: &mut Cursor<'b>) -> Option<Self> {
        let count = cursor.u32()?;
        if count > MAX_LAYERS as u32 {
            return None;
        }
        let found = Self { cursor: *cursor, count: count as u8 };
        for _ in 0..count {
            cursor.layer::<OPS>()?;
        }
        Some(found)
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.count)
    }
}

impl<const OPS: u32> Iterator for Layers<'_, OPS> {
    type Item = Layer;

    fn next(&mut self) -> Option<Layer> {
        self.count = self.count.checked_sub(1)?;
        self.cursor.layer::<OPS>()
    }
}

/// A blob, validated and taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Parsed<'b, const OPS: u32> {
    pub(crate) input: InputSpec,
    /// Valid UTF-8.
    pub(crate) labels: &'b [u8],
    pub(crate) layers: Layers<'b, OPS>,
    pub(crate) weights: &'b [u8],
    pub(crate) plan: Plan,
}

/// Takes a blob apart and checks all of it.
pub(crate) fn parse<const OPS: u32>(blob: &[u8]) -> Result<Parsed<'_, OPS>, LoadError> {
    let prefix = Prefix::read(blob)?;
    check_envelope(blob, &prefix)?;
    // Kinds of layers that this build leaves out, or that only a later library has, cannot even be decoded.
    match prefix.ops & !OPS {
        0 => {}
        missing => return Err(LoadError::UnsupportedOps { missing }),
    }
    let mut cursor = Cursor(blob.get(PREFIX_BYTES..).unwrap_or_default());
    let header = Header::take(&mut cursor).ok_or(LoadError::MalformedHeader)?;
    let layers = Layers::<OPS>::take(&mut cursor).ok_or(LoadError::MalformedHeader)?;
    // Zeros, so that the weights that follow are aligned.
    let padding = cursor.bytes().ok_or(LoadError::MalformedHeader)?;
    let weights = cursor.bytes().ok_or(LoadError::MalformedHeader)?;
    let rest = cursor.0;
    check_header(&header, layers.len(), padding)?;
    if !rest.is_empty() {
        return Err(LoadError::InvalidHeader(HeaderError::TrailingBytes));
    }
    let plan = Plan::new::<OPS>(header.input.shape, layers, weights).map_err(|error| match error {
        PlanError::Input => LoadError::InvalidHeader(HeaderError::InputShape),
        PlanError::Layer(index, error) => LoadError::InvalidLayer { index, error },
    })?;
    check_labels(header.labels, plan.output_len)?;
    if weights.len() != plan.weight_bytes as usize {
        return Err(LoadError::WrongWeightLength { found: weights.len(), expected: plan.weight_bytes as usize });
    }
    check_promises(&prefix, &plan, (blob.len() - weights.len()) as u32)?;
    Ok(Parsed { input: header.input, labels: header.labels, layers, weights, plan })
}

/// Everything that can be checked before decoding: length, alignment and checksum.
fn check_envelope(blob: &[u8], prefix: &Prefix) -> Result<(), LoadError> {
    let expected = prefix.file_bytes as usize;
    if blob.len() != expected {
        return Err(LoadError::WrongLength { found: blob.len(), expected });
    }
    let off_by = misalignment(blob);
    if off_by != 0 {
        return Err(LoadError::Misaligned { off_by });
    }
    let computed = checksum(blob);
    if computed != prefix.checksum {
        return Err(LoadError::ChecksumMismatch { stored: prefix.checksum, computed });
    }
    Ok(())
}

fn check_header(header: &Header<'_>, layers: usize, padding: &[u8]) -> Result<(), LoadError> {
    let error = if !(header.input.scale.is_finite() && header.input.offset.is_finite()) {
        HeaderError::InputScale
    } else if header.labels.len() > MAX_LABEL_BYTES {
        HeaderError::Labels
    } else if layers == 0 {
        HeaderError::NoLayers
    } else if !matches!(header.members, [one] if usize::from(*one) == layers) {
        HeaderError::Members
    } else if padding.len() >= crate::ALIGNMENT || padding.iter().any(|byte| *byte != 0) {
        HeaderError::Padding
    } else {
        return Ok(());
    };
    Err(LoadError::InvalidHeader(error))
}

fn check_labels(labels: &[u8], outputs: u32) -> Result<(), LoadError> {
    let lines = labels.iter().filter(|byte| **byte == b'\n').count() + 1;
    let found = if labels.is_empty() { 0 } else { lines };
    if found == 0 || found == outputs as usize {
        return Ok(());
    }
    Err(LoadError::WrongLabelCount { found, outputs: outputs as usize })
}

/// The labels in their stored form, which are valid UTF-8.
pub(crate) fn labels_in(labels: &[u8]) -> impl Iterator<Item = &str> {
    let none = labels.is_empty();
    let lines = labels.split(|byte| *byte == b'\n').filter(move |_| !none);
    lines.map(|line| core::str::from_utf8(line).unwrap_or_default())
}

/// The prefix must be right where that can be checked, and promise at least the scratch memory and the operations that
/// the layers need: memory is reserved and kernels are linked by it.
fn check_promises(prefix: &Prefix, plan: &Plan, weights_offset: u32) -> Result<(), LoadError> {
    let exact = [
        ("input length", prefix.input_len, plan.input_len),
        ("output length", prefix.output_len, plan.output_len),
        ("weights offset", prefix.weights_offset, weights_offset),
        ("weights length", prefix.weights_bytes, plan.weight_bytes),
        ("operations", prefix.ops & plan.ops, plan.ops),
        ("scratch bytes", prefix.scratch_bytes.min(plan.scratch_bytes), plan.scratch_bytes),
    ];
    for (field, stored, actual) in exact {
        if stored != actual {
            return Err(LoadError::PrefixMismatch { field, stored, actual });
        }
    }
    if !(weights_offset as usize).is_multiple_of(crate::ALIGNMENT) {
        return Err(LoadError::InvalidHeader(HeaderError::Padding));
    }
    Ok(())
}

/// What a model is made of, without its weights.
#[derive(Clone, Copy, Debug)]
pub struct ModelSpec<'a> {
    /// Shape and normalisation of the input.
    pub input: InputSpec,
    /// One label for each output, without line breaks; or none at all.
    pub labels: &'a [&'a str],
    /// The layers, first to last; between 1 and [`MAX_LAYERS`].
    pub layers: &'a [Layer],
}

/// The parameters of one layer.
#[derive(Clone, Copy, Debug)]
pub struct Tensors<'a> {
    /// Row-major: `[inputs, outputs]` of a dense layer, `[kh, kw, channels, filters]` of a convolution,
    /// `[kh, kw, channels]` of a depthwise one. Rounded to the nearest value that the layer's weight type has.
    pub weights: &'a [f32],
    /// One for each output or filter; or none, which stands for zeros.
    pub bias: &'a [f32],
}

/// The parameters of one layer as they lie in a blob: see [`Model::tensors`](crate::Model::tensors).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PackedTensor<'b> {
    /// Single-precision weights.
    F32(Panels<'b, f32>),
    /// Half-precision weights.
    F16(Panels<'b, f16>),
    /// 8-bit weights.
    Int8(Int8Tensor<'b>),
}

impl<'b> PackedTensor<'b> {
    /// The number of inputs of one sum: the rows of [`Tensors::weights`].
    #[must_use]
    pub const fn inputs(&self) -> usize {
        match self {
            Self::F32(panels) => panels.inputs(),
            Self::F16(panels) => panels.inputs(),
            Self::Int8(tensor) => tensor.inputs(),
        }
    }

    /// The number of outputs or filters: the columns of [`Tensors::weights`].
    #[must_use]
    pub const fn outputs(&self) -> usize {
        match self {
            Self::F32(panels) => panels.outputs(),
            Self::F16(panels) => panels.outputs(),
            Self::Int8(tensor) => tensor.outputs(),
        }
    }

    /// The weight of one input for one output, for int8 in steps of the output's scale; `None` if there is no such input or
    /// output.
    #[must_use]
    pub fn weight(&self, input: usize, output: usize) -> Option<f32> {
        match self {
            Self::F32(panels) => panels.weight(input, output),
            Self::F16(panels) => panels.weight(input, output),
            Self::Int8(tensor) => tensor.weight(input, output).map(f32::from),
        }
    }

    /// The bias of one output, zero if the layer was written without any, for int8 in steps of the sum; `None` if there is no
    /// such output.
    #[must_use]
    pub fn bias(&self, output: usize) -> Option<f32> {
        match self {
            Self::F32(panels) => panels.bias().get(output).copied(),
            Self::F16(panels) => panels.bias().get(output).copied(),
            Self::Int8(tensor) => tensor.bias().get(output).map(|bias| *bias as f32),
        }
    }
}

/// Where the sections of a blob to be written lie.
struct Layout {
    plan: Plan,
    padding: usize,
    weights_offset: usize,
    file_bytes: usize,
}

type Labels = heapless::String<MAX_LABEL_BYTES>;

fn stored_labels(spec: &ModelSpec<'_>, outputs: u32) -> Result<Labels, EncodeError> {
    let mut stored = Labels::new();
    let count_fits = spec.labels.is_empty() || spec.labels.len() == outputs as usize;
    if !count_fits || spec.labels.iter().any(|label| label.contains('\n')) || spec.labels == [""] {
        return Err(EncodeError::Labels);
    }
    for (index, label) in spec.labels.iter().enumerate() {
        let separator = if index == 0 { "" } else { "\n" };
        stored.push_str(separator).and_then(|()| stored.push_str(label)).map_err(|_| EncodeError::Labels)?;
    }
    Ok(stored)
}

/// What a writer puts between the prefix and the length of the weights: the header, the layers, and zeros.
fn front<'a>(spec: &ModelSpec<'a>, labels: &'a [u8], members: &'a [u8], padding: &'a [u8]) -> impl Serialize + 'a {
    (Header { input: spec.input, labels, members }, spec.layers, padding)
}

fn layout(spec: &ModelSpec<'_>) -> Result<(Layout, Labels), EncodeError> {
    if spec.layers.is_empty() || spec.layers.len() > MAX_LAYERS {
        return Err(EncodeError::LayerCount { found: spec.layers.len() });
    }
    if !(spec.input.scale.is_finite() && spec.input.offset.is_finite()) {
        return Err(EncodeError::InputScale);
    }
    let plan =
        Plan::new::<{ ops::ALL }>(spec.input.shape, spec.layers.iter().copied(), &[]).map_err(|error| match error {
            PlanError::Input => EncodeError::InputShape,
            PlanError::Layer(index, error) => EncodeError::InvalidLayer { index, error },
        })?;
    let labels = stored_labels(spec, plan.output_len)?;
    let size = |bytes: Result<usize, _>| bytes.map_err(|_| EncodeError::BufferTooSmall);
    let members = [spec.layers.len() as u8];
    let header = size(postcard::experimental::serialized_size(&front(spec, labels.as_bytes(), &members, &[])))?;
    let length = size(postcard::experimental::serialized_size(&plan.weight_bytes))?;
    let unpadded = PREFIX_BYTES + header + length;
    let weights_offset = unpadded.next_multiple_of(crate::ALIGNMENT);
    let file_bytes = u32::try_from(weights_offset)
        .ok()
        .and_then(|offset| offset.checked_add(plan.weight_bytes))
        .ok_or(EncodeError::BufferTooSmall)? as usize;
    Ok((Layout { plan, padding: weights_offset - unpadded, weights_offset, file_bytes }, labels))
}

/// The length of the blob that [`encode`] would write.
///
/// # Errors
/// [`EncodeError`] if the specification is not that of a model.
pub fn encoded_len(spec: &ModelSpec<'_>) -> Result<usize, EncodeError> {
    Ok(layout(spec)?.0.file_bytes)
}

/// Writes a model to `out` and returns the part of `out` that it takes.
///
/// `tensors` holds one entry for each layer that has weights, in the order of the layers.
///
/// # Errors
/// [`EncodeError`] if the specification is not that of a model, if the tensors do not fit it, or if `out` is too small
/// (see [`encoded_len`]).
///
/// ```
/// use thumbnet::blob::{ModelSpec, Tensors, encode};
/// use thumbnet::layer::{Activation, Dense, InputSpec, Layer, Shape, WeightType};
/// use thumbnet::{Model, Scratch};
///
/// let layer = Layer::Dense(Dense { outputs: 2, activation: Activation::Relu, weights: WeightType::F32 });
/// let input = InputSpec { shape: Shape::flat(3), scale: 1.0, offset: 0.0 };
/// let spec = ModelSpec { input, labels: &["low", "high"], layers: &[layer] };
/// let tensors = Tensors { weights: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], bias: &[0.5, -0.5] };
/// let mut buffer = Scratch::<512>::zeroed();
/// let blob = encode(&spec, &[tensors], &mut buffer)?;
///
/// let model = Model::load(blob)?;
/// let mut scratch = Scratch::<8>::zeroed();
/// assert_eq!(model.run(&[1.0, 0.0, 1.0], &mut scratch)?, [6.5, 7.5]);
/// assert_eq!(model.tensors().next().and_then(|tensor| tensor.weight(2, 0)), Some(5.0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode<'o>(
    spec: &ModelSpec<'_>,
    tensors: &[Tensors<'_>],
    out: &'o mut Aligned<[u8]>,
) -> Result<&'o [u8], EncodeError> {
    write(spec, tensors, &[], out)
}

/// [`encode`] for a model with int8 weights.
///
/// The weights of each output are rounded to -127..=127 steps, the largest of them to 127. `scales` holds one number for
/// each entry of `tensors`: the value of one step of the activations that the layer makes, such as a 127th of the largest of
/// them that is to be told apart from larger ones. It does not matter for the last layer, whose outputs are f32, nor for tanh
/// and sigmoid, whose largest value is known. A layer whose sums would be too coarse for its scale gets a larger one.
///
/// # Errors
/// As [`encode`]; [`EncodeError::Scale`] if a scale is not a positive number, or makes sums that do not fit into 32 bits.
pub fn encode_int8<'o>(
    spec: &ModelSpec<'_>,
    tensors: &[Tensors<'_>],
    scales: &[f32],
    out: &'o mut Aligned<[u8]>,
) -> Result<&'o [u8], EncodeError> {
    write(spec, tensors, scales, out)
}

fn write<'o>(
    spec: &ModelSpec<'_>,
    tensors: &[Tensors<'_>],
    scales: &[f32],
    out: &'o mut Aligned<[u8]>,
) -> Result<&'o [u8], EncodeError> {
    let (layout, labels) = layout(spec)?;
    let out = out.0.get_mut(..layout.file_bytes).ok_or(EncodeError::BufferTooSmall)?;
    let members = [spec.layers.len() as u8];
    let front = front(spec, labels.as_bytes(), &members, zeros(layout.padding));
    let behind_prefix = out.get_mut(PREFIX_BYTES..layout.weights_offset).ok_or(EncodeError::BufferTooSmall)?;
    postcard::to_slice(&(front, layout.plan.weight_bytes), behind_prefix).map_err(|_| EncodeError::BufferTooSmall)?;
    let weights = out.get_mut(layout.weights_offset..).unwrap_or_default();
    pack_tensors(spec, tensors, scales, weights)?;
    let mut prefix = Prefix {
        checksum: 0,
        file_bytes: layout.file_bytes as u32,
        ops: layout.plan.ops,
        scratch_bytes: layout.plan.scratch_bytes,
        input_len: layout.plan.input_len,
        output_len: layout.plan.output_len,
        weights_offset: layout.weights_offset as u32,
        weights_bytes: layout.plan.weight_bytes,
    };
    prefix.write(out);
    prefix.checksum = checksum(out);
    prefix.write(out);
    Ok(out)
}

fn zeros(count: usize) -> &'static [u8] {
    static ZEROS: [u8; crate::ALIGNMENT] = [0; crate::ALIGNMENT];
    ZEROS.get(..count).unwrap_or_default()
}

fn pack_tensors(
    spec: &ModelSpec<'_>,
    tensors: &[Tensors<'_>],
    scales: &[f32],
    section: &mut [u8],
) -> Result<(), EncodeError> {
    let mut rest = tensors.iter().zip(scales.iter().map(Some).chain(core::iter::repeat(None)));
    let count = EncodeError::TensorCount { found: tensors.len() };
    // The value of one step of the int8 activations that the next layer reads.
    let mut input_scale = 1.0;
    let steps = Walk::<_, { ops::ALL }>::new(spec.input.shape, spec.layers.iter().copied()).steps();
    for (index, step) in steps.enumerate() {
        if let Layer::Quantize(quantize) = step.layer {
            input_scale = 1.0 / quantize.inverse_scale;
        }
        let Some((inputs, outputs)) = step.layer.weight_matrix::<{ ops::ALL }>(step.input) else { continue };
        let (tensor, scale) = rest.next().ok_or(count)?;
        let start = step.tensor_offset as usize;
        let bytes = section.get_mut(start..start + step.tensor_bytes as usize).ok_or(EncodeError::BufferTooSmall)?;
        let shape = EncodeError::TensorShape { index };
        let bias_fits = tensor.bias.is_empty() || tensor.bias.len() == outputs as usize;
        if tensor.weights.len() != inputs as usize * outputs as usize || !bias_fits {
            return Err(shape);
        }
        match step.layer.weight_type() {
            Some(WeightType::Int8(packing)) => {
                let sums = step.layer.sums::<{ ops::ALL }>(step.input).ok_or(shape)?;
                let scales = int8::tensor::Scales { input: input_scale, output: output_steps(&step, scale) };
                let packed = int8::tensor::pack(tensor.weights, tensor.bias, sums, packing, scales, bytes);
                input_scale = packed.ok_or(EncodeError::Scale { index })?;
            }
            Some(WeightType::F16) => {
                pack::pack::<f16>(tensor.weights, tensor.bias, outputs as usize, bytes).ok_or(shape)?
            }
            _ => pack::pack::<f32>(tensor.weights, tensor.bias, outputs as usize, bytes).ok_or(shape)?,
        }
    }
    if rest.next().is_some() { Err(count) } else { Ok(()) }
}

fn output_steps(step: &Step, scale: Option<&f32>) -> int8::tensor::Output {
    use int8::tensor::Output;
    match (step.layer.activation(), step.output_type) {
        (Activation::Tanh | Activation::Sigmoid, _) => Output::Lookup,
        (_, ElementType::F32) => Output::F32,
        (activation, ElementType::Int8) => Output::Int8 {
            step: scale.copied().unwrap_or(f32::NAN),
            largest: if activation == Activation::Relu6 { 6.0 } else { f32::INFINITY },
        },
    }
}

/// The prefix of a file that [`include_model!`](crate::include_model) includes; a compile error if it is not a model.
#[doc(hidden)]
#[must_use]
pub const fn embedded_prefix(file: &[u8]) -> Prefix {
    match Prefix::read(file) {
        Ok(prefix) if prefix.file_bytes as usize == file.len() => prefix,
        Ok(_) => panic!("the model file is truncated, or something is appended to it"),
        Err(LoadError::UnsupportedVersion { .. }) => {
            panic!("the model file has a format version that this library does not read")
        }
        Err(_) => panic!("the file is not a thumbnet model"),
    }
}
