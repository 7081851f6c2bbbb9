//! Where a training stands: all that it needs to go on as if it had never stopped, to the last bit.

use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::kernels::optimize;
use crate::network::Network;
use crate::optimizer::Memory;
use crate::output;
use crate::quantize::Steps;
use crate::random::Position;
use crate::recipe::Recipe;
use crate::train::Epoch;
use crc::{CRC_32_ISO_HDLC, Crc};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What a file begins with; the last byte is the version.
const MAGIC: &[u8; 8] = b"tnckpt\0\x01";

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A training's state, and what it is a training of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The recipe as a file.
    recipe: String,
    /// A checksum of the images and labels.
    images: u32,
    /// Where it stands.
    pub(crate) state: State,
}

/// See [`Checkpoint`]; the fields are those of [`crate::train::Training`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) steps: Option<Steps>,
    pub(crate) weights: Weights,
    pub(crate) history: Vec<Epoch>,
    pub(crate) random: Position,
    pub(crate) updates: u64,
    pub(crate) optimizer: Memory,
    pub(crate) average: Option<Weights>,
    pub(crate) best: Option<(f64, Weights)>,
    pub(crate) waited: u32,
    pub(crate) epochs: u32,
}

/// What a network has learned and seen, without rounding: of each layer with parameters the weights, the biases and the
/// running values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Weights(Vec<[Vec<f32>; 3]>);

impl Weights {
    pub(crate) fn of(network: &Network) -> Self {
        let tensors = |p: &crate::layers::Parameters| [p.learned().to_vec(), p.bias.clone(), p.running.clone()];
        Weights(network.parameters().map(tensors).collect())
    }

    /// Puts them in place of the network's.
    ///
    /// # Errors
    /// A message if it has others.
    pub(crate) fn put(&self, network: &mut Network) -> std::result::Result<(), String> {
        let lengths = Weights::of(network).lengths();
        if lengths != self.lengths() {
            return Err(format!("holds tensors of {:?} values, but the network has {lengths:?}", self.lengths()));
        }
        for (parameters, [weights, bias, running]) in network.parameters_mut().zip(&self.0) {
            parameters.running.clone_from(running);
            let learned = parameters.learned_mut();
            learned[0].clone_from(weights);
            learned[1].clone_from(bias);
            parameters.refresh();
        }
        Ok(())
    }

    /// Keeps the part `kept` of each value and takes the rest from the network.
    pub(crate) fn follow(&mut self, network: &Network, kept: f32) {
        for (parameters, [weights, bias, running]) in network.parameters().zip(&mut self.0) {
            optimize::average(kept, parameters.learned(), weights);
            optimize::average(kept, &parameters.bias, bias);
            optimize::average(kept, &parameters.running, running);
        }
    }

    fn lengths(&self) -> Vec<[usize; 3]> {
        self.0.iter().map(|tensors| tensors.each_ref().map(Vec::len)).collect()
    }
}

impl Checkpoint {
    pub(crate) fn new(recipe: &Recipe, images: &DataSet, state: State) -> Self {
        Checkpoint { recipe: recipe.to_toml(), images: images.checksum(), state }
    }

    /// The epochs that are done.
    #[must_use]
    pub fn history(&self) -> &[Epoch] {
        &self.state.history
    }

    /// Checks that it belongs to a training of `recipe` on `images`.
    pub(crate) fn check(&self, recipe: &Recipe, images: &DataSet) -> std::result::Result<(), String> {
        let wanted = recipe.to_toml();
        let differs = self.recipe.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
        if let Some((found, wanted)) = differs {
            return Err(format!("is of another recipe: {found:?} where this one has {wanted:?}"));
        }
        if self.recipe != wanted {
            return Err("is of a recipe with more or fewer lines".to_owned());
        }
        if self.images != images.checksum() {
            return Err("is of a training on other images: the data have changed".to_owned());
        }
        Ok(())
    }

    /// Writes it to `path`, where an older one stays until this one is complete.
    ///
    /// # Errors
    /// [`Error::Write`] with the operating system's reason.
    pub fn write(&self, path: &Path) -> Result<()> {
        let body = postcard::to_stdvec(self).expect("plain values can be serialised");
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&CRC.checksum(&body).to_le_bytes());
        file.extend_from_slice(&body);
        output::replace(path, &file)
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Contents`] if it is something else, or damaged.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::read(path).map_err(Error::read(path))?;
        let refused = |problem: &str| Error::contents(path, problem);
        let rest = file.strip_prefix(MAGIC).ok_or_else(|| refused("not a checkpoint of this version of thumbnet"))?;
        let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(|| refused("a checkpoint that ends too early"))?;
        if CRC.checksum(body) != u32::from_le_bytes(*crc) {
            return Err(refused("a damaged checkpoint: its checksum is wrong"));
        }
        postcard::from_bytes(body).map_err(|e| refused(&format!("not a usable checkpoint: {e}")))
    }
}
