//! Several models in one file, whose outputs are averaged.
//!
//! An ensemble is more often right than any of its members. `docs/format.md` specifies the file: a table, and behind it whole
//! model files. [`Ensemble`] runs the members one after another in the same scratch memory.

use crate::align::{Aligned, misalignment};
use crate::blob::checksum;
use crate::error::{LoadError, RunError};
use crate::kernels::Backend;
use crate::layer::{InputSpec, Shape};
use crate::model::{Classification, Input, Model};
use crate::ops;
use core::fmt;

/// The first bytes of every ensemble.
pub const MAGIC: [u8; 4] = *b"TNEN";
/// The version of the format that this library writes and reads.
pub const VERSION: u16 = 1;
/// The most members that an ensemble may have.
pub const MAX_MEMBERS: usize = 16;

/// The bytes before the table, and those of an entry of it: where a member begins, and how long it is.
const PREFIX_BYTES: usize = 20;
const ENTRY_BYTES: usize = 8;

/// Several models that see the same input, and whose outputs are averaged: probabilities, if they end in softmax.
///
/// As of a [`Model`], nothing but a length can be wrong once it is loaded, and `OPS` is the mask of the operations that are linked.
///
/// ```
/// use thumbnet::blob::{ModelSpec, Tensors, encode};
/// use thumbnet::ensemble::{self, Ensemble};
/// use thumbnet::layer::{Activation, Dense, InputSpec, Layer, Shape, WeightType};
/// use thumbnet::{Model, Scratch};
///
/// let layer = Layer::Dense(Dense { outputs: 1, activation: Activation::None, weights: WeightType::F32 });
/// let input = InputSpec { shape: Shape::flat(1), scale: 1.0, offset: 0.0 };
/// let spec = ModelSpec { input, labels: &[], layers: &[layer] };
/// let (mut once, mut thrice) = (Scratch::<256>::zeroed(), Scratch::<256>::zeroed());
/// let once = encode(&spec, &[Tensors { weights: &[1.0], bias: &[] }], &mut once)?;
/// let thrice = encode(&spec, &[Tensors { weights: &[3.0], bias: &[] }], &mut thrice)?;
///
/// let mut file = Scratch::<1024>::zeroed();
/// let file = ensemble::encode(&[once, thrice], &mut file)?;
/// let both = Ensemble::load(file)?;
/// let mut scratch = Scratch::<128>::zeroed();
/// assert_eq!(both.scratch_bytes(), 128);
/// assert_eq!(both.run(&[5.0], &mut scratch)?, [10.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ensemble<'b, const OPS: u32 = { ops::ALL }> {
    /// At least one, and all alike.
    members: heapless::Vec<Model<'b, OPS>, MAX_MEMBERS>,
    input: InputSpec,
    output_len: usize,
    /// The most scratch memory that a member needs, and that of the sums; each a multiple of the alignment.
    member_bytes: usize,
    sums_bytes: usize,
}

impl<'b> Ensemble<'b> {
    /// Checks a file and makes an ensemble of it, with every operation that this library has.
    ///
    /// The file must start on a 64-byte boundary, as an [`Aligned`] does.
    ///
    /// # Errors
    /// [`EnsembleError`] says what is wrong with the file. Any bytes at all may be given.
    pub fn load(file: &'b [u8]) -> Result<Self, EnsembleError> {
        Self::load_with_ops(file)
    }
}

impl<'b, const OPS: u32> Ensemble<'b, OPS> {
    /// [`load`](Ensemble::load) for a build with the operations `OPS` only.
    ///
    /// # Errors
    /// [`EnsembleError`] says what is wrong with the file.
    pub fn load_with_ops(file: &'b [u8]) -> Result<Self, EnsembleError> {
        let table = Table::read(file)?;
        Self::of((0..table.count).map(|index| {
            let member = table.member(index).ok_or(EnsembleError::Place { index })?;
            Model::load_with_ops(member).map_err(|error| EnsembleError::Member { index, error })
        }))
    }

    /// An ensemble of models that were loaded from anywhere.
    ///
    /// # Errors
    /// [`EnsembleError`] if there is no model, if there are too many, or if one does not fit the first.
    pub fn from_models(models: impl IntoIterator<Item = Model<'b, OPS>>) -> Result<Self, EnsembleError> {
        Self::of(models.into_iter().map(Ok))
    }

    fn of(models: impl Iterator<Item = Result<Model<'b, OPS>, EnsembleError>>) -> Result<Self, EnsembleError> {
        let mut members = heapless::Vec::new();
        let mut member_bytes = 0;
        for (index, model) in models.enumerate() {
            let model = model?;
            check_alike(index, members.first().unwrap_or(&model), &model)?;
            member_bytes = model.scratch_bytes().max(member_bytes);
            members.push(model).map_err(|_| EnsembleError::MemberCount { found: index + 1 })?;
        }
        let first = members.first().ok_or(EnsembleError::MemberCount { found: 0 })?;
        let (input, output_len) = (*first.input(), first.output_len());
        let aligned = |bytes: usize| bytes.next_multiple_of(crate::ALIGNMENT);
        let (member_bytes, sums_bytes) = (aligned(member_bytes), aligned(4 * output_len));
        Ok(Self { members, input, output_len, member_bytes, sums_bytes })
    }

    /// The same ensemble on another backend.
    #[must_use]
    pub fn with_backend(mut self, backend: Backend) -> Self {
        self.members.iter_mut().for_each(|member| *member = member.clone().with_backend(backend));
        self
    }

    /// The members, in their order; at least one.
    #[must_use]
    pub fn members(&self) -> &[Model<'b, OPS>] {
        &self.members
    }

    /// The shape of the input, which is that of every member, and the normalisation of the first. (The others may have their own.)
    #[must_use]
    pub fn input(&self) -> &InputSpec {
        &self.input
    }

    /// The number of input values.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.members.first().map_or(0, Model::input_len)
    }

    /// The number of output values.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.output_len
    }

    /// The scratch memory that a run needs, in bytes: what the neediest member does, and the sums of the outputs, each rounded up to a
    /// multiple of 64.
    #[must_use]
    pub fn scratch_bytes(&self) -> usize {
        self.member_bytes + self.sums_bytes
    }

    /// Whether the outputs are probabilities: whether the members end in softmax.
    #[must_use]
    pub fn ends_with_softmax(&self) -> bool {
        self.members.first().is_some_and(Model::ends_with_softmax)
    }

    /// The label of a class; empty if the members have none.
    #[must_use]
    pub fn label(&self, class: usize) -> &'b str {
        self.members.first().map_or("", |member| member.label(class))
    }

    /// The labels of all classes, in their order; none at all if the members have none.
    pub fn labels(&self) -> impl Iterator<Item = &'b str> {
        self.members.first().into_iter().flat_map(Model::labels)
    }

    /// Runs every member on one input and returns the means of their outputs, which lie in `scratch`.
    ///
    /// # Errors
    /// [`RunError`] if a length does not fit.
    pub fn run<'i, 's>(
        &self,
        input: impl Into<Input<'i>>,
        scratch: &'s mut Aligned<[u8]>,
    ) -> Result<&'s [f32], RunError> {
        let input = input.into();
        let too_small = RunError::ScratchTooSmall { found: scratch.len(), needed: self.scratch_bytes() };
        let (sums, rest) = scratch.0.split_at_mut_checked(self.sums_bytes).ok_or(too_small)?;
        let rest = rest.get_mut(..self.member_bytes).ok_or(too_small)?;
        let rest = Aligned::from_mut(rest).map_err(|_| too_small)?;
        let sums: &mut [f32] = bytemuck::try_cast_slice_mut(sums).map_err(|_| too_small)?;
        let sums = sums.get_mut(..self.output_len).ok_or(too_small)?;
        for (index, member) in self.members.iter().enumerate() {
            add(index, member.run(input, rest)?, sums);
        }
        self.divide(sums);
        Ok(sums)
    }

    /// Runs every member on many inputs that lie one behind the other, and writes the means of their outputs one behind the other.
    ///
    /// As many inputs are computed at a time as `scratch` has room for: each takes [`scratch_bytes`](Self::scratch_bytes) of it.
    ///
    /// # Errors
    /// As of [`Model::run_batch`].
    pub fn run_batch<'i>(
        &self,
        inputs: impl Into<Input<'i>>,
        scratch: &mut Aligned<[u8]>,
        outputs: &mut [f32],
    ) -> Result<(), RunError> {
        let inputs = inputs.into();
        let (found, input_len) = (inputs.len(), self.input_len());
        let count = found.checked_div(input_len).unwrap_or(0);
        if count * input_len != found {
            return Err(RunError::WrongInputLength { found, expected: input_len });
        }
        if outputs.len() != count * self.output_len {
            return Err(RunError::WrongOutputLength { found: outputs.len(), expected: count * self.output_len });
        }
        let too_small = RunError::ScratchTooSmall { found: scratch.len(), needed: self.scratch_bytes() };
        let at_a_time = scratch.len().checked_div(self.scratch_bytes()).filter(|room| *room > 0).ok_or(too_small)?;
        let (made, rest) = scratch.0.split_at_mut_checked(at_a_time * self.sums_bytes).ok_or(too_small)?;
        let rest = rest.get_mut(..at_a_time * self.member_bytes).ok_or(too_small)?;
        let rest = Aligned::from_mut(rest).map_err(|_| too_small)?;
        let made: &mut [f32] = bytemuck::try_cast_slice_mut(made).map_err(|_| too_small)?;
        let mut first = 0;
        for sums in outputs.chunks_mut((at_a_time * self.output_len).max(1)) {
            let rows = sums.len().checked_div(self.output_len).unwrap_or(0);
            let made = made.get_mut(..sums.len()).ok_or(too_small)?;
            for (index, member) in self.members.iter().enumerate() {
                member.run_batch(inputs.part(first, rows * input_len), rest, made)?;
                add(index, made, sums);
            }
            self.divide(sums);
            first += rows * input_len;
        }
        Ok(())
    }

    /// Runs every member on one input and returns the class with the largest mean.
    ///
    /// # Errors
    /// [`RunError`] if a length does not fit.
    pub fn classify<'i>(
        &self,
        input: impl Into<Input<'i>>,
        scratch: &mut Aligned<[u8]>,
    ) -> Result<Classification<'b>, RunError> {
        let outputs = self.run(input, scratch)?;
        let Some(first) = self.members.first() else {
            return Ok(Classification { class: 0, label: "", probability: 0.0 });
        };
        Ok(first.classification(outputs))
    }

    fn divide(&self, sums: &mut [f32]) {
        let count = self.members.len() as f32;
        sums.iter_mut().for_each(|sum| *sum /= count);
    }
}

/// Adds the outputs of the member `index` to the sums, which begin with the first member's.
fn add(index: usize, outputs: &[f32], sums: &mut [f32]) {
    sums.iter_mut().zip(outputs).for_each(|(sum, output)| *sum = if index == 0 { *output } else { *sum + *output });
}

/// What every member must have in common with the first.
fn check_alike<const OPS: u32>(
    index: usize,
    first: &Model<'_, OPS>,
    model: &Model<'_, OPS>,
) -> Result<(), EnsembleError> {
    let (found, expected) = (model.input().shape, first.input().shape);
    if found != expected {
        return Err(EnsembleError::InputShape { index, found, expected });
    }
    let (found, expected) = (model.output_len(), first.output_len());
    if found != expected {
        return Err(EnsembleError::OutputLength { index, found, expected });
    }
    if !model.labels().eq(first.labels()) {
        return Err(EnsembleError::Labels { index });
    }
    if model.ends_with_softmax() != first.ends_with_softmax() {
        return Err(EnsembleError::Softmax { index, found: model.ends_with_softmax() });
    }
    Ok(())
}

/// Where the members lie in a file whose length, alignment and checksum are right.
struct Table<'b> {
    file: &'b [u8],
    count: usize,
}

impl<'b> Table<'b> {
    fn read(file: &'b [u8]) -> Result<Self, EnsembleError> {
        let Some(p) = file.first_chunk::<PREFIX_BYTES>() else {
            return Err(EnsembleError::TooShort { found: file.len(), needed: PREFIX_BYTES });
        };
        let [m0, m1, m2, m3, v0, v1, r0, r1, c0, c1, c2, c3, l0, l1, l2, l3, n0, n1, n2, n3] = *p;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(EnsembleError::NotAnEnsemble { found: [m0, m1, m2, m3] });
        }
        let found = u16::from_le_bytes([v0, v1]);
        if found != VERSION {
            return Err(EnsembleError::UnsupportedVersion { found, supported: VERSION });
        }
        let expected = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if file.len() != expected {
            return Err(EnsembleError::WrongLength { found: file.len(), expected });
        }
        let off_by = misalignment(file);
        if off_by != 0 {
            return Err(EnsembleError::Misaligned { off_by });
        }
        let (stored, computed) = (u32::from_le_bytes([c0, c1, c2, c3]), checksum(file));
        if stored != computed {
            return Err(EnsembleError::ChecksumMismatch { stored, computed });
        }
        let count = u32::from_le_bytes([n0, n1, n2, n3]) as usize;
        if [r0, r1] != [0, 0] || count == 0 || count > MAX_MEMBERS {
            return Err(if [r0, r1] == [0, 0] {
                EnsembleError::MemberCount { found: count }
            } else {
                EnsembleError::Reserved
            });
        }
        let table = Self { file, count };
        table.check_gaps()?;
        Ok(table)
    }

    /// Where the table says that a member begins, and how long it is.
    fn entry(&self, index: usize) -> Option<(usize, usize)> {
        let entry = self.file.get(PREFIX_BYTES + index * ENTRY_BYTES..)?.first_chunk::<ENTRY_BYTES>()?;
        let [o0, o1, o2, o3, l0, l1, l2, l3] = *entry;
        Some((u32::from_le_bytes([o0, o1, o2, o3]) as usize, u32::from_le_bytes([l0, l1, l2, l3]) as usize))
    }

    fn member(&self, index: usize) -> Option<&'b [u8]> {
        let (offset, len) = self.entry(index)?;
        self.file.get(offset..)?.get(..len)
    }

    /// Each member must begin at the first multiple of 64 behind what is before it, the gap be zeros, and the last end the file.
    fn check_gaps(&self) -> Result<(), EnsembleError> {
        let mut end = PREFIX_BYTES + self.count * ENTRY_BYTES;
        for index in 0..self.count {
            let place = EnsembleError::Place { index };
            let (offset, len) = self.entry(index).ok_or(place)?;
            let expected = end.checked_next_multiple_of(crate::ALIGNMENT).ok_or(place)?;
            let gap = self.file.get(end..expected).ok_or(place)?;
            if offset != expected || gap.iter().any(|byte| *byte != 0) {
                return Err(place);
            }
            end = offset.checked_add(len).filter(|end| *end <= self.file.len()).ok_or(place)?;
        }
        if end == self.file.len() { Ok(()) } else { Err(EnsembleError::TrailingBytes) }
    }
}

/// The members of an ensemble, each a whole model file, which need not be a valid one.
///
/// # Errors
/// [`EnsembleError`] if `file` is not an ensemble.
pub fn member_files(file: &[u8]) -> Result<impl Iterator<Item = &[u8]>, EnsembleError> {
    let table = Table::read(file)?;
    Ok((0..table.count).filter_map(move |index| table.member(index)))
}

/// The length of the file that [`encode`] would write; `None` if that is 4 GiB or more.
#[must_use]
pub fn encoded_len(members: &[&[u8]]) -> Option<usize> {
    let mut end = members.len().checked_mul(ENTRY_BYTES)?.checked_add(PREFIX_BYTES)?;
    for member in members {
        end = end.checked_next_multiple_of(crate::ALIGNMENT)?.checked_add(member.len())?;
    }
    u32::try_from(end).ok().map(|len| len as usize)
}

/// Writes an ensemble of whole model files to `out`, and returns the part of `out` that it takes.
///
/// # Errors
/// [`EnsembleError`] if a member is not a model or does not fit the first, or if `out` is too small (see [`encoded_len`]).
pub fn encode<'o>(members: &[&[u8]], out: &'o mut Aligned<[u8]>) -> Result<&'o [u8], EnsembleError> {
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return Err(EnsembleError::MemberCount { found: members.len() });
    }
    let len = encoded_len(members).ok_or(EnsembleError::BufferTooSmall)?;
    let out = out.0.get_mut(..len).ok_or(EnsembleError::BufferTooSmall)?;
    write(members, out).ok_or(EnsembleError::BufferTooSmall)?;
    Ensemble::load(out)?;
    Ok(out)
}

fn write(members: &[&[u8]], out: &mut [u8]) -> Option<()> {
    let mut put = |at: usize, bytes: &[u8]| {
        out.get_mut(at..)?.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(())
    };
    let words = [u32::from_le_bytes(MAGIC), VERSION.into(), 0, encoded_len(members)? as u32, members.len() as u32];
    for (index, word) in words.iter().enumerate() {
        put(4 * index, &word.to_le_bytes())?;
    }
    let mut end = PREFIX_BYTES + members.len() * ENTRY_BYTES;
    for (index, member) in members.iter().enumerate() {
        let offset = end.next_multiple_of(crate::ALIGNMENT);
        put(end, [0; crate::ALIGNMENT].get(..offset - end)?)?;
        put(PREFIX_BYTES + index * ENTRY_BYTES, &(offset as u32).to_le_bytes())?;
        put(PREFIX_BYTES + index * ENTRY_BYTES + 4, &(member.len() as u32).to_le_bytes())?;
        put(offset, member)?;
        end = offset + member.len();
    }
    let checksum = checksum(out);
    out.get_mut(8..12)?.copy_from_slice(&checksum.to_le_bytes());
    Some(())
}

/// Why there is no ensemble. Members are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnsembleError {
    /// Fewer bytes than every ensemble has.
    TooShort {
        /// Bytes found.
        found: usize,
        /// Bytes that are needed at least.
        needed: usize,
    },
    /// The first four bytes are not `TNEN`.
    NotAnEnsemble {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// A format version that this library does not read.
    UnsupportedVersion {
        /// The file's version.
        found: u16,
        /// The version that this library reads.
        supported: u16,
    },
    /// More or fewer bytes than the file says.
    WrongLength {
        /// Bytes found.
        found: usize,
        /// Bytes that the file names.
        expected: usize,
    },
    /// The file does not start on a 64-byte boundary: see [`Aligned`].
    Misaligned {
        /// How far behind a boundary it starts, in bytes.
        off_by: usize,
    },
    /// The checksum over the file's bytes is not the one stored in it.
    ChecksumMismatch {
        /// The stored CRC-32.
        stored: u32,
        /// The CRC-32 of what is there.
        computed: u32,
    },
    /// The reserved field is not 0.
    Reserved,
    /// No members, or more than [`MAX_MEMBERS`].
    MemberCount {
        /// Members found; where there are too many, those that were counted.
        found: usize,
    },
    /// A member does not lie where it must: at the next multiple of 64, behind zeros, and within the file.
    Place {
        /// The member.
        index: usize,
    },
    /// There are bytes behind the last member.
    TrailingBytes,
    /// A member is not a model.
    Member {
        /// The member.
        index: usize,
        /// What is wrong with it.
        error: LoadError,
    },
    /// A member takes inputs of another shape than the first.
    InputShape {
        /// The member.
        index: usize,
        /// The shape that it takes.
        found: Shape,
        /// The shape that the first takes.
        expected: Shape,
    },
    /// A member has more or fewer outputs than the first.
    OutputLength {
        /// The member.
        index: usize,
        /// Its outputs.
        found: usize,
        /// The first one's.
        expected: usize,
    },
    /// A member has other labels than the first.
    Labels {
        /// The member.
        index: usize,
    },
    /// A member ends in softmax and the first does not, or the other way round.
    Softmax {
        /// The member.
        index: usize,
        /// Whether the member does.
        found: bool,
    },
    /// The ensemble does not fit into the output buffer, or into 4 GiB.
    BufferTooSmall,
}

impl fmt::Display for EnsembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |shape: Shape| Dimensions(shape.height, shape.width, shape.channels);
        match *self {
            Self::TooShort { found, needed } => {
                write!(f, "{found} bytes are too short for an ensemble, which has {needed} at least")
            }
            Self::NotAnEnsemble { found } => {
                write!(f, "not an ensemble: begins with {found:02x?}, not with \"TNEN\"")
            }
            Self::UnsupportedVersion { found, supported } => {
                write!(f, "ensemble of version {found}, but this library reads version {supported}")
            }
            Self::WrongLength { found, expected } => {
                write!(f, "{found} bytes long, but it says {expected}: truncated, or with something appended")
            }
            Self::Misaligned { off_by } => {
                write!(f, "the ensemble starts {off_by} bytes behind a 64-byte boundary; put it into an `Aligned`")
            }
            Self::ChecksumMismatch { stored, computed } => {
                write!(f, "damaged: its checksum is {computed:08x}, but it was written as {stored:08x}")
            }
            Self::Reserved => f.write_str("a reserved field is not 0"),
            Self::MemberCount { found } => {
                write!(f, "{found} members, but an ensemble has between 1 and {MAX_MEMBERS}")
            }
            Self::Place { index } => write!(f, "member {index} does not lie where it should"),
            Self::TrailingBytes => f.write_str("bytes follow the last member"),
            Self::Member { index, error } => write!(f, "member {index} is not a usable model: {error}"),
            Self::InputShape { index, found, expected } => {
                write!(f, "member {index} takes {}, but the first takes {}", shape(found), shape(expected))
            }
            Self::OutputLength { index, found, expected } => {
                write!(f, "member {index} has {found} outputs, but the first has {expected}")
            }
            Self::Labels { index } => write!(f, "member {index} has other labels than the first"),
            Self::Softmax { index, found: true } => {
                write!(f, "member {index} ends in softmax, but the first does not")
            }
            Self::Softmax { index, found: false } => {
                write!(f, "member {index} does not end in softmax, but the first does")
            }
            Self::BufferTooSmall => f.write_str("the ensemble does not fit into the buffer"),
        }
    }
}

impl core::error::Error for EnsembleError {}

/// A shape in words.
struct Dimensions(u16, u16, u16);

impl fmt::Display for Dimensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} x {} values", self.0, self.1, self.2)
    }
}
