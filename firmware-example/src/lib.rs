//! What the programs of this folder stand on: [`digits_file`] is read by `digits` and written by the repository's `xtask`;
//! [`machine`] and [`stack`] measure; [`cmsdk_uart`] is what `device` is spoken to over.
#![no_std]

#[cfg(target_arch = "arm")]
pub mod cmsdk_uart;
pub mod digits_file;
pub mod machine;
pub mod stack;
