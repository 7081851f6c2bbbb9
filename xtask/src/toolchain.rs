//! The tools that the checks need beside the stable toolchain: looked for, installed by rustup where that is possible, else
//! reported as [`Missing`].

use crate::command;
use crate::report::Missing;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Command, Stdio};

/// The oldest Rust that the crates promise to build with.
pub(crate) const MSRV: &str = concat!(env!("CARGO_PKG_RUST_VERSION"), ".0");

/// Makes sure that the standard library is there for a target.
pub(crate) fn require_target(target: &str) -> Result<()> {
    if has_target(target)? || installed(&["target", "add", target]) {
        return Ok(());
    }
    let what = format!("the Rust target {target}");
    let remedy = format!("`rustup target add {target}` (with Rust from rustup)");
    Err(Missing { what, remedy }.into())
}

/// Debian's compiler, and the standard library's source that belongs to it.
const DEBIAN: [&str; 2] = ["/usr/bin/rustc", "/usr/lib/rustlib/src/rust/library/core/Cargo.toml"];

/// Makes sure that `cargo` can build for a bare-metal target: with the standard library that [`require_target`] finds, else
/// with one that cargo makes, where Debian's packages `rustc-web` and `rust-web-src` are installed.
///
/// A program needs a linker too: `rust-web-llvm` and the `lld` that its `rust-lld` stands for. Clippy goes with no compiler
/// but its own.
pub(crate) fn prepare_bare_metal(cargo: &mut Command, target: &str) -> Result<()> {
    let required = require_target(target);
    if required.is_err() && DEBIAN.iter().all(|path| Path::new(path).exists()) {
        // Cargo does this with a nightly compiler only, or with one that poses as such.
        cargo.env("RUSTC", DEBIAN[0]).env("RUSTC_BOOTSTRAP", "1").env("CARGO_UNSTABLE_BUILD_STD", "core");
        return Ok(());
    }
    required
}

fn has_target(target: &str) -> Result<bool> {
    let asked = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let folder = asked.context("cannot start rustc")?.stdout;
    let folder = String::from_utf8(folder)?;
    let files = std::fs::read_dir(folder.trim()).into_iter().flatten().flatten();
    Ok(files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
}

/// Makes sure that the oldest supported toolchain is there.
pub(crate) fn require_msrv() -> Result<()> {
    if quietly("rustup", &["run", MSRV, "rustc", "--version"])
        || installed(&["toolchain", "install", MSRV, "--profile", "minimal", "--no-self-update"])
    {
        return Ok(());
    }
    let what = format!("the toolchain {MSRV}");
    Err(Missing { what, remedy: format!("`rustup toolchain install {MSRV} --profile minimal`") }.into())
}

/// Makes sure that a nightly toolchain is there, with these components besides; it is for checks that the stable one cannot make.
pub(crate) fn require_nightly(components: &[&str]) -> Result<()> {
    if !quietly("rustup", &["run", "nightly", "rustc", "--version"]) {
        let remedy = "`rustup toolchain install nightly --profile minimal`".into();
        return Err(Missing { what: "a nightly toolchain".into(), remedy }.into());
    }
    for component in components {
        // At once if it is there.
        if !installed(&["component", "add", component, "--toolchain", "nightly"]) {
            let what = format!("the component {component} of the nightly toolchain");
            return Err(Missing { what, remedy: "another nightly, which has it".into() }.into());
        }
    }
    Ok(())
}

/// The nightly toolchain's `cargo`, in the root of the repository.
pub(crate) fn nightly_cargo() -> Command {
    let mut cargo = Command::new("rustup");
    cargo.current_dir(command::root()).args(["run", "nightly", "cargo"]);
    cargo
}

/// Makes sure that `cargo` knows a command that comes with a package of its own.
pub(crate) fn require_cargo_command(name: &str, package: &str) -> Result<()> {
    if quietly("cargo", &[name, "--version"]) {
        return Ok(());
    }
    Err(Missing { what: package.into(), remedy: format!("`cargo install --locked {package}`") }.into())
}

/// Makes sure that a program is there, and that it can tell its version.
pub(crate) fn require_program(program: &str, remedy: &str) -> Result<()> {
    if quietly(program, &["--version"]) {
        return Ok(());
    }
    Err(Missing { what: program.into(), remedy: remedy.into() }.into())
}

/// Whether rustup is there and succeeds; what it says is shown.
fn installed(arguments: &[&str]) -> bool {
    let outcome = command::run(Command::new("rustup").args(arguments));
    outcome.inspect_err(|error| println!("{error:#}")).is_ok()
}

/// Whether a command can be started and succeeds; its output is dropped.
fn quietly(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
