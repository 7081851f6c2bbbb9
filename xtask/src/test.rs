//! `cargo xtask test`: every check of the repository.

use crate::report::Report;
use crate::{board, command, count, device, digits, firmware, portable, toolchain, workloads};
use anyhow::{Result, ensure};
use std::process::{Command, ExitCode};

/// A check, under its name.
type Check = (&'static str, fn() -> Result<()>);

/// Every check, in the order in which they run: the quick ones first.
const STEPS: &[Check] = &[
    ("formatting", formatting),
    ("lints", lints),
    ("documentation", documentation),
    ("tests", tests),
    ("tests with NEON", portable::neon),
    ("tests with simd128", portable::simd128),
    ("core for a Cortex-M0", || bare_metal_core("thumbv6m-none-eabi")),
    ("core for a Cortex-M4F", || bare_metal_core("thumbv7em-none-eabihf")),
    ("oldest supported Rust", oldest_rust),
    ("size of the published crate", package_size),
    ("lints of the firmware", firmware_lints),
    ("firmware in QEMU", firmware_in_qemu),
    ("firmware on every machine", || firmware::run_matrix(firmware::MATRIX_IMAGES)),
    ("device over the UART in QEMU", device::over_the_uart),
    ("int8 in QEMU: the desktop's bits for 1,000 images", firmware::compare_int8),
    ("kernels in QEMU", firmware::compare_kernels),
    ("instruction counts", instruction_counts),
    ("board: no panic is reachable", board::no_panic_is_reachable),
    ("board: a reachable panic is noticed", board::a_reachable_panic_is_noticed),
    ("board: only needed kernels are linked", board::only_needed_kernels_are_linked),
];

/// The published crate holds the core and its documentation, no data and no tests: at most so many bytes, compressed.
const PACKAGE_LIMIT: u64 = 300_000;

/// Runs the checks whose name contains `name`.
pub(crate) fn run(name: &str) -> ExitCode {
    let mut report = Report::new();
    for (step, check) in STEPS.iter().filter(|(step, _)| step.contains(name)) {
        report.step(step, check);
    }
    report.finish(std::env::var("CI").is_ok_and(|ci| ci == "true"))
}

/// `cargo` in the root of the repository, with arguments.
fn cargo(arguments: &str) -> Command {
    let mut cargo = command::cargo();
    cargo.args(arguments.split(' '));
    cargo
}

fn formatting() -> Result<()> {
    command::run(&mut cargo("fmt --all --check"))?;
    command::run(firmware::cargo().args(["fmt", "--check"]))
}

fn lints() -> Result<()> {
    command::run(&mut cargo("clippy --workspace --all-targets -- -D warnings"))
}

fn documentation() -> Result<()> {
    command::run(cargo("doc --workspace --no-deps --all-features").env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Result<()> {
    command::run(&mut cargo("test --workspace --no-fail-fast"))
}

fn bare_metal_core(target: &str) -> Result<()> {
    let mut build = cargo("build --package thumbnet --no-default-features --target");
    toolchain::prepare_bare_metal(&mut build, target)?;
    command::run(build.arg(target))
}

fn oldest_rust() -> Result<()> {
    toolchain::require_msrv()?;
    let mut check = Command::new("rustup");
    check.current_dir(command::root()).args(["run", toolchain::MSRV]);
    // (The benches' peers have their own idea of the oldest, and nobody has to build them.)
    let arguments = "cargo check --workspace --exclude thumbnet-benches --all-targets --all-features";
    command::run(check.args(arguments.split(' ')))
}

fn package_size() -> Result<()> {
    let target_dir = command::root().join("target");
    let mut package = cargo("package --package thumbnet --allow-dirty --no-verify --target-dir");
    command::run(package.arg(&target_dir))?;
    let package = target_dir.join(concat!("package/thumbnet-", env!("CARGO_PKG_VERSION"), ".crate"));
    let bytes = std::fs::metadata(&package)?.len();
    println!("{}: {bytes} bytes", package.display());
    ensure!(bytes <= PACKAGE_LIMIT, "larger than {PACKAGE_LIMIT} bytes");
    Ok(())
}

fn firmware_lints() -> Result<()> {
    digits::make_file("digits", firmware::IMAGES)?;
    let workload = &workloads::ALL[0];
    workload.write()?;
    let bins = ["digits", "board", "count", "kernels", "device"].map(|bin| (firmware::TARGET, bin));
    let others = [("thumbv6m-none-eabi", "board"), ("riscv32imc-unknown-none-elf", "digits")];
    for (target, bin) in bins.into_iter().chain(others) {
        toolchain::require_target(target)?;
        let mut clippy = firmware::cargo();
        clippy.args(["clippy", "--lib", "--bin", bin, "--target", target, "--", "-D", "warnings"]);
        command::run(clippy.env("THUMBNET_WORKLOAD", workload.name()))?;
    }
    Ok(())
}

/// The plugin that counts, checked by its own tests and, in every count, by a loop of so many instructions; and the goals that
/// were reached once.
fn instruction_counts() -> Result<()> {
    let manifest = ["--manifest-path", "xtask/qemu-count/Cargo.toml"];
    command::run(command::cargo().arg("fmt").args(manifest).arg("--check"))?;
    command::run(cargo("clippy --all-targets").args(manifest).args(["--", "-D", "warnings"]))?;
    command::run(command::cargo().arg("test").args(manifest))?;
    count::check()
}

fn firmware_in_qemu() -> Result<()> {
    let code = firmware::run(firmware::IMAGES)?;
    ensure!(code == 0, "the firmware's exit code is {code}");
    Ok(())
}
