//! The core's tests on other processors than this machine's: NEON in an emulator, simd128 in a JavaScript engine.

use crate::{command, toolchain};
use anyhow::Result;

/// The tests that depend on the processor's instructions or on the size of a pointer.
const TESTS: [&str; 5] = ["kernels", "activations", "differential", "format", "golden"];

/// Random networks for `differential`; an emulated processor takes twenty times as long for one as this machine's.
const CASES: &str = "200";

/// On a 64-bit Arm processor, emulated by QEMU.
pub(crate) fn neon() -> Result<()> {
    toolchain::require_program("qemu-aarch64", "`apt-get install qemu-user` on Debian; there is none but for Linux")?;
    // With musl, Rust brings all that a program is linked from: no C compiler for Arm is needed.
    test("aarch64-unknown-linux-musl", "-Clinker=rust-lld -Ctarget-feature=+crt-static", "qemu-aarch64")
}

/// As WebAssembly, under Node.
pub(crate) fn simd128() -> Result<()> {
    toolchain::require_program("node", "`apt-get install nodejs` on Debian, `brew install node` on a Mac")?;
    // A no-op from Node 20 on; Debian 12 has 18.
    let node = "node --no-warnings --experimental-wasi-unstable-preview1 xtask/wasi.mjs";
    test("wasm32-wasip1", "-Ctarget-feature=+simd128", node)
}

/// Builds the tests for a target and has `runner` run them.
fn test(target: &str, rustflags: &str, runner: &str) -> Result<()> {
    toolchain::require_target(target)?;
    let variable = |name| format!("CARGO_TARGET_{}_{name}", target.to_uppercase().replace('-', "_"));
    let mut cargo = command::cargo();
    cargo.env(variable("RUSTFLAGS"), rustflags).env(variable("RUNNER"), runner).env("PROPTEST_CASES", CASES);
    cargo.args(["test", "--package", "thumbnet", "--target", target]);
    command::run(cargo.args(TESTS.iter().flat_map(|test| ["--test", test])))
}
