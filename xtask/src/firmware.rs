//! The firmware example, run under QEMU.

use crate::{command, digits, toolchain};
use anyhow::Result;
use std::process::Command;
use std::time::Duration;

/// The target of the emulated board.
pub(crate) const TARGET: &str = "thumbv7em-none-eabihf";

/// An emulated run takes well under a minute; one that hangs is ended.
const LIMIT: Duration = Duration::from_secs(180);

/// Makes the digits file, builds the firmware and runs it; gives the firmware's exit code.
pub(crate) fn run() -> Result<u8> {
    toolchain::require_target(TARGET)?;
    toolchain::require_qemu()?;
    digits::make_file()?;
    command::run(cargo().args(["build", "--release", "--bin", "digits"]))?;
    let mut digits = cargo();
    digits.args(["run", "--quiet", "--release", "--bin", "digits"]);
    let status = command::run_within(LIMIT, digits)?;
    // No code: ended by a signal.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// `cargo` in the firmware's workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = command::cargo();
    cargo.current_dir(command::firmware());
    cargo
}
