//! The loops of training: sums of convolutions and dense layers, their gradients, and what belongs to them.
//!
//! Everything here works on plain slices, takes buffers that were made once, and starts no threads: a result depends on
//! its inputs only. Activations are `[rows, H, W, C]`, where a row is one image of the batch.

pub mod batch_norm;
pub mod channels;
pub mod conv2d;
pub mod optimize;
pub mod pool;
pub(crate) mod sparse;
mod tile;
