//! Neural-network inference for devices without a heap, and for desktops that want to be quick.
//!
//! A model is one small file that the `thumbnet` command trains and writes. This crate runs it out of flash: no
//! allocator, no copy of the weights, no panic, and no operating system.
//!
//! # Firmware
//! [`include_model!`] puts a model into the program and makes its sizes types, so that running it cannot fail:
//!
//! ```
//! thumbnet::include_model! { mod digits = "../models/digits.tnet"; }
//!
//! # let pixels = [0u8; 784];
//! let model = digits::load()?;                       // checks the blob, once
//! let mut scratch = digits::Scratch::zeroed();       // all the memory that it needs
//! let found = model.classify(&pixels, &mut scratch); // pixels: [u8; 784]; cannot fail
//! # assert_eq!(found.label.len(), 1);
//! # Ok::<(), thumbnet::LoadError>(())
//! ```
//!
//! # Files
//! [`Model::load`] takes any bytes and either finds a model in them or says what is wrong with them. With the feature
//! `alloc`, [`AlignedBuf`] holds a file or the scratch memory of a model of unknown size.
//!
//! ```no_run
//! # #[cfg(feature = "alloc")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use thumbnet::{AlignedBuf, Model};
//! let file = AlignedBuf::from_bytes(&std::fs::read("digits.tnet")?);
//! let model = Model::load(&file)?;
//! let mut scratch = AlignedBuf::zeroed(model.scratch_bytes());
//! let pixels = [0u8; 784];
//! println!("{}", model.classify(&pixels, &mut scratch)?.label);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "alloc"))]
//! # fn main() {}
//! ```
//!
//! # Ensembles
//! An [`Ensemble`] is several models in one file, whose probabilities are averaged.
//!
//! # Kernels
//! [`kernels`] has the arithmetic by itself, on slices, with a choice of [`Backend`].
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![deny(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("thumbnet reads weights where they are, in little-endian order; this target is big-endian");
#[cfg(target_pointer_width = "16")]
compile_error!("thumbnet needs pointers of 32 bits or more");

#[cfg(feature = "alloc")]
extern crate alloc;

#[allow(unsafe_code)] // the checked casts between plain and aligned bytes
mod align;
pub mod blob;
mod decode;
mod embed;
pub mod ensemble;
mod error;
pub mod kernels;
pub mod layer;
mod model;
pub mod ops;
mod plan;

#[cfg(feature = "alloc")]
pub use align::AlignedBuf;
pub use align::{ALIGNMENT, Aligned, Misaligned, Scratch};
pub use embed::{EmbeddedModel, FixedInput};
pub use ensemble::{Ensemble, EnsembleError};
pub use error::{EncodeError, HeaderError, LoadError, RunError};
pub use kernels::Backend;
pub use model::{Classification, Input, LayerInfo, Model};
