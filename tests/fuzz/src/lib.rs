//! What each fuzz target does with its bytes: nothing here may panic, whatever they are.
//!
//! The targets in `targets/` hand them what libFuzzer makes up, and `tests/replay.rs` the files in `corpus/`.

#[path = "../../common/mod.rs"]
mod common;
mod data;
mod models;
mod protocol;

pub use data::{csv, idx, image, npz, recipe};
pub use models::{ensemble, model, model_mutated};
pub use protocol::protocol;

/// A target: takes any bytes, and panics if it finds a defect.
pub type Target = fn(&[u8]);

/// Every target, under its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("model", model),
    ("model_mutated", model_mutated),
    ("ensemble", ensemble),
    ("idx", idx),
    ("image", image),
    ("csv", csv),
    ("npz", npz),
    ("recipe", recipe),
    ("protocol", protocol),
];
