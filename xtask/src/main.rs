//! The chores of the thumbnet repository: `cargo xtask help`.
fn main() {}
