//! `cargo xtask sanitize`: the core's tests with tools that see what memory is accessed.

use crate::report::{Missing, Report};
use crate::{command, toolchain};
use anyhow::Result;
use clap::ValueEnum;
use std::process::{Command, ExitCode};
use thumbnet::Backend;

/// A tool.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// AddressSanitizer, with every backend of this processor.
    Asan,
    /// Miri, with the backends that use no intrinsics of a processor.
    Miri,
    /// Valgrind, with every backend up to AVX2: it hides AVX-512 from programs.
    Valgrind,
}

/// The only kind of machine that these chores know.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Tests of the kernels, of whole networks, and of files that are none.
const TESTS: [&str; 7] = ["kernels", "activations", "background", "int8", "golden", "differential", "mutation"];

/// Random networks for `differential`.
const CASES: &str = "200";

/// Runs the tests with each tool, or with one only.
pub(crate) fn run(only: Option<Tool>) -> ExitCode {
    let mut report = Report::new();
    for tool in
        [Tool::Asan, Tool::Miri, Tool::Valgrind].into_iter().filter(|&tool| only.is_none_or(|only| only == tool))
    {
        let (name, check): (_, fn() -> Result<()>) = match tool {
            Tool::Asan => ("AddressSanitizer", asan),
            Tool::Miri => ("Miri", miri),
            Tool::Valgrind => ("Valgrind", valgrind),
        };
        report.step(name, || {
            require_machine()?;
            check()
        });
    }
    report.finish(std::env::var("CI").is_ok_and(|ci| ci == "true"))
}

fn require_machine() -> Result<()> {
    if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        return Ok(());
    }
    Err(Missing { what: "a 64-bit PC with Linux".into(), remedy: "run it on one".into() }.into())
}

/// What the tests must find, by name: a tool that hides instructions from a program would silently leave a backend out.
fn expect_backends(cargo: &mut Command, visible: impl Fn(&str) -> bool) {
    let names: Vec<_> = Backend::available().map(Backend::name).filter(|name| visible(name)).collect();
    println!("backends: {}", names.join(" "));
    cargo.env("THUMBNET_EXPECTED_BACKENDS", names.join(" "));
}

/// `cargo test` of the core in a target folder of its own, since other flags mean other builds of everything.
fn test(mut cargo: Command, subcommand: &[&str], folder: &str) -> Command {
    cargo.env("CARGO_TARGET_DIR", command::root().join("target/sanitize").join(folder));
    cargo.env("PROPTEST_CASES", CASES);
    cargo.args(subcommand).args(["--package", "thumbnet", "--target", TARGET]);
    cargo
}

fn tests() -> impl Iterator<Item = &'static str> {
    TESTS.iter().flat_map(|test| ["--test", test])
}

fn asan() -> Result<()> {
    toolchain::require_nightly(&[])?;
    let mut cargo = test(toolchain::nightly_cargo(), &["test"], "asan");
    cargo.env("RUSTFLAGS", "-Zsanitizer=address").args(tests());
    expect_backends(&mut cargo, |_| true);
    command::run(&mut cargo)
}

/// What is short enough for an interpreter: the golden files, which have every kind of layer and of weights, and some shapes of
/// each kernel.
const INTERPRETED: [&str; 7] = [
    "files_of_every_version_are_read",
    "dense_at_all_tile_edges",
    "dense_of_many_zeros",
    "depthwise_conv2d_at_all_tile_edges",
    "dense_after_conv2d",
    "packed_weights",
    "softmax_of_special_values",
];

fn miri() -> Result<()> {
    toolchain::require_nightly(&["miri", "rust-src"])?;
    let mut cargo = test(toolchain::nightly_cargo(), &["miri", "test"], "miri");
    // The tests read their environment and the golden files.
    cargo.env("MIRIFLAGS", "-Zmiri-disable-isolation");
    cargo.args(["--test", "golden", "--test", "kernels", "--"]).args(INTERPRETED);
    expect_backends(&mut cargo, |name| ["scalar", "wide"].contains(&name));
    command::run(&mut cargo)
}

fn valgrind() -> Result<()> {
    toolchain::require_program("valgrind", "`apt-get install valgrind` on Debian")?;
    let mut cargo = command::cargo();
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "valgrind --quiet --error-exitcode=9");
    cargo.env("PROPTEST_CASES", CASES).args(["test", "--package", "thumbnet"]).args(tests());
    expect_backends(&mut cargo, |name| name != "avx512");
    command::run(&mut cargo)
}
