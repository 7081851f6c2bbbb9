//! The firmware built for real boards: no panic may be reachable, and only the kernels of its model may be linked.

use crate::{command, digits, firmware, toolchain};
use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSymbol};
use std::path::PathBuf;
use std::process::Output;
use thumbnet::{Model, ops};

/// The two boards' targets: STM32F411 and RP2040.
const TARGETS: [&str; 2] = [firmware::TARGET, "thumbv6m-none-eabi"];

/// Optimised for size and for speed: which checks the compiler can prove superfluous depends on it.
const OPT_LEVELS: [&str; 2] = ["s", "3"];

/// `board.rs` calls this where a panic would go; it is defined nowhere.
const UNDEFINED: &str = "undefined symbol: thumbnet_panic_is_reachable";

/// One way to build `board`.
#[derive(Clone, Copy)]
struct Build {
    target: &'static str,
    opt_level: &'static str,
    /// A feature of the firmware's Cargo.toml, or "".
    feature: &'static str,
}

/// Links every build of `board` whose panic handler cannot be linked, and prints their sizes.
pub(crate) fn no_panic_is_reachable() -> Result<()> {
    for feature in ["", "any-model", "any-ensemble"] {
        for build in builds(feature) {
            build.link()?;
            println!("{}", build.sizes()?);
        }
    }
    Ok(())
}

/// The control of [`no_panic_is_reachable`]: with a panic in it, the program must not link, for this very reason.
pub(crate) fn a_reachable_panic_is_noticed() -> Result<()> {
    for build in builds("control-panic") {
        let output = build.try_link()?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{}: a program that can panic was linked", build.name());
        ensure!(message.contains(UNDEFINED), "{}: failed for another reason\n{message}", build.name());
        println!("does not link, as it must not: {}", build.name());
    }
    Ok(())
}

/// The program that knows its model links no kernel that the model does not use; the one that takes any model links all.
pub(crate) fn only_needed_kernels_are_linked() -> Result<()> {
    let blob = digits::read_model("digits")?;
    let needed = Model::load(&blob)?.ops();
    for (feature, expected) in [("", needed), ("any-model", ops::ALL)] {
        for build in builds(feature) {
            build.link()?;
            let linked = build.linked_kernels()?;
            println!("{}: {}", build.name(), linked.join(", "));
            let expected = kernels(expected).collect::<Vec<_>>();
            ensure!(linked == expected, "expected {}", expected.join(", "));
        }
    }
    Ok(())
}

/// The builds with one feature.
fn builds(feature: &'static str) -> impl Iterator<Item = Build> {
    let pairs = TARGETS.into_iter().flat_map(|target| OPT_LEVELS.map(|opt_level| (target, opt_level)));
    pairs.map(move |(target, opt_level)| Build { target, opt_level, feature })
}

impl Build {
    fn name(&self) -> String {
        let feature = if self.feature.is_empty() { String::new() } else { format!(", {}", self.feature) };
        format!("board for {}, opt-level {}{feature}", self.target, self.opt_level)
    }

    fn try_link(&self) -> Result<Output> {
        let mut cargo = firmware::cargo();
        toolchain::prepare_bare_metal(&mut cargo, self.target)?;
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", self.opt_level);
        cargo.args(["build", "--quiet", "--release", "--bin", "board", "--target", self.target]);
        cargo.arg("--target-dir").arg(target_dir());
        if !self.feature.is_empty() {
            cargo.args(["--features", self.feature]);
        }
        command::output(&mut cargo)
    }

    fn link(&self) -> Result<()> {
        let output = self.try_link()?;
        if output.status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&output.stderr);
        if message.contains(UNDEFINED) {
            bail!("{}: a panic is reachable\n{message}", self.name());
        }
        bail!("{}: does not build\n{message}", self.name());
    }

    /// The linked program.
    fn elf(&self) -> Result<Vec<u8>> {
        let path = target_dir().join(self.target).join("release/board");
        std::fs::read(&path).with_context(|| path.display().to_string())
    }

    /// What the program takes of the flash and of the RAM.
    fn sizes(&self) -> Result<String> {
        let elf = self.elf()?;
        let file = object::File::parse(&*elf)?;
        let size = |name| file.section_by_name(name).map_or(0, |section| section.size());
        let model = digits::read_model("digits")?.len() as u64;
        let (text, rodata) = (size(".text"), size(".rodata"));
        Ok(format!(
            "{}: {text} B .text, {} B .rodata without the model, {} B static RAM, {} B flash with the model",
            self.name(),
            rodata - model,
            size(".data") + size(".bss") + size(".uninit"),
            size(".boot2") + size(".vector_table") + text + rodata + size(".data")
        ))
    }

    /// The operations whose kernels are in the program, by its symbols.
    fn linked_kernels(&self) -> Result<Vec<&'static str>> {
        let elf = self.elf()?;
        let file = object::File::parse(&*elf)?;
        let symbols = file.symbols().filter_map(|symbol| symbol.name().ok());
        let symbols = symbols.filter(|symbol| symbol.contains("8thumbnet7kernels")).collect::<Vec<_>>();
        let is_linked = |kernel: &&str| {
            functions_of(kernel).iter().any(|name| {
                // A mangled symbol holds each name with its length before it.
                let component = format!("{}{name}", name.len());
                symbols.iter().any(|symbol| symbol.contains(&component))
            })
        };
        Ok(kernels(ops::ALL).filter(is_linked).collect())
    }
}

/// Modules or functions of `thumbnet::kernels`, of which at least one is linked where an operation is.
fn functions_of(operation: &str) -> Vec<String> {
    match operation {
        "int8 grouped weights" => vec!["dense_grouped".to_owned(), "conv2d_grouped".to_owned()],
        "int8 folded weights" => vec!["dense_folded".to_owned(), "conv2d_folded".to_owned()],
        "softmax" => vec!["softmax_rows".to_owned()],
        _ => vec![operation.replace(' ', "_")],
    }
}

/// The names of the operations in a mask that are kernels.
fn kernels(mask: u32) -> impl Iterator<Item = &'static str> {
    ops::names(mask & !ops::WEIGHTS_F32)
}

/// Where the boards' programs are built: a folder of their own, so that nothing depends on how cargo is configured.
fn target_dir() -> PathBuf {
    command::firmware().join("target/board")
}
