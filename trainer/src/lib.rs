//! Trains digit classifiers on a desktop and exports them for the thumbnet core.
//!
//! A [`recipe::Recipe`] describes a network and its training; [`train::train`] follows it on the images that [`data`]
//! reads. Everything that the `thumbnet` command does can be done from here, without a terminal.

pub mod augment;
pub mod batches;
pub mod checkpoint;
pub mod convert;
pub mod data;
pub mod device;
pub mod distill;
mod elementwise;
pub mod error;
pub mod evaluate;
pub mod export;
mod gemm;
pub mod image;
pub mod kernels;
pub mod layers;
pub mod log;
pub mod loss;
pub mod mistakes;
pub mod network;
pub mod optimizer;
pub mod output;
mod parts;
pub mod plot;
pub mod quantize;
pub mod random;
pub mod recipe;
pub mod report;
pub mod run;
pub mod schedule;
pub mod summary;
pub mod train;
mod transfer;
pub mod tune;
