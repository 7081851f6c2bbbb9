//! The firmware example, run under QEMU.

use crate::{command, digits, toolchain};
use anyhow::{Result, ensure};
use std::process::Command;
use std::time::Duration;

/// The target of the emulated board.
pub(crate) const TARGET: &str = "thumbv7em-none-eabihf";

/// What brings the emulator.
pub(crate) const QEMU_REMEDY: &str = "`apt-get install qemu-system-arm` on Debian, `brew install qemu` on a Mac";

/// An emulated run takes well under a minute; one that hangs is ended.
const LIMIT: Duration = Duration::from_secs(180);

/// The models that `digits` can run, and the feature that each needs.
pub(crate) const MODELS: [(&str, &str); 2] = [("digits", ""), ("s1-fixed", "cnn")];

/// Runs the firmware with every model; gives the first exit code that is not 0.
pub(crate) fn run() -> Result<u8> {
    toolchain::require_program("qemu-system-arm", QEMU_REMEDY)?;
    for (model, feature) in MODELS {
        println!("\nmodels/{model}.tnet");
        let code = run_model(model, feature)?;
        if code != 0 {
            return Ok(code);
        }
    }
    Ok(0)
}

/// Compares the kernels with plain loops on the emulated processor.
pub(crate) fn compare_kernels() -> Result<()> {
    toolchain::require_program("qemu-system-arm", QEMU_REMEDY)?;
    let code = run_program("kernels", "")?;
    ensure!(code == 0, "the program's exit code is {code}");
    Ok(())
}

/// Makes the digits file, builds the firmware and runs it; gives the firmware's exit code.
fn run_model(model: &str, feature: &str) -> Result<u8> {
    digits::make_file(model)?;
    run_program("digits", feature)
}

/// Builds one of the firmware's programs and runs it; gives its exit code.
fn run_program(program: &str, feature: &str) -> Result<u8> {
    let prepare = |cargo: &mut Command| {
        cargo.args(["--release", "--bin", program]);
        if !feature.is_empty() {
            cargo.args(["--features", feature]);
        }
        toolchain::prepare_bare_metal(cargo, TARGET)
    };
    let mut build = cargo();
    prepare(build.arg("build"))?;
    command::run(&mut build)?;
    let mut run = cargo();
    prepare(run.args(["run", "--quiet"]))?;
    let status = command::run_within(LIMIT, run)?;
    // No code: ended by a signal.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// `cargo` in the firmware's workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = command::cargo();
    cargo.current_dir(command::firmware());
    cargo
}
