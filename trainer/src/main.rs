//! The `thumbnet` command.
fn main() {}
