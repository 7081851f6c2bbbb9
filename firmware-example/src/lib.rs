//! What the programs of this folder stand on: [`digits_file`] is read by `digits` and written by the repository's `xtask`;
//! [`machine`] and [`stack`] measure.
#![no_std]

pub mod digits_file;
pub mod machine;
pub mod stack;
