//! `cargo xtask count`: the instructions and the estimated cycles that an inference takes on a Cortex-M.

use crate::workloads::{self, Workload};
use crate::{command, firmware, toolchain};
use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection};
use serde::Serialize;
use std::collections::BTreeMap;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What an inference of a workload takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Counts {
    /// Instructions of one inference, exactly.
    pub(crate) instructions: u64,
    /// Cycles of a Cortex-M4, estimated.
    pub(crate) cycles: u64,
    /// Bytes of code and constants of the whole program that was counted, without the model and its input.
    pub(crate) code: u64,
    /// Bytes of RAM: static ones (the scratch memory), and the stack with the `Model` value on it.
    pub(crate) ram: u64,
    /// Of them, the scratch memory with what its alignment adds, the stack, and on it the `Model` value.
    pub(crate) static_ram: u64,
    pub(crate) stack: u64,
    pub(crate) model: u64,
    /// Instructions for loading the model, checksum included.
    load: u64,
}

/// What the counted loop of the program takes: 1000 turns of four instructions, all but one of which jump back, and a marker.
const LOOP: Interval = Interval { instructions: 4000, cycles: 4000 + 999 * 2 + 1 };

/// Counts every workload; prints a table, or JSON.
///
/// Only those whose core and name contain `only` are.
pub(crate) fn run(json: bool, only: &str) -> Result<()> {
    let plugin = plugin()?;
    let mut cores = BTreeMap::<_, BTreeMap<_, BTreeMap<_, _>>>::new();
    let mut table = String::new();
    for workload in workloads::ALL.iter().filter(|workload| workload.full_name().contains(only)) {
        let counts = count(workload, &plugin)?;
        table += &lines(workload, &counts);
        let weights = cores.entry(workload.core.name).or_default();
        weights.entry(workload.weights_name()).or_default().insert(workload.network.name, counts);
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&cores)?);
    } else {
        println!("\n{HEADING}\n{table}");
    }
    Ok(())
}

const HEADING: &str = "\
                        instructions     M4 cycles     code       RAM
                                        (estimated)    bytes     bytes";

/// A workload's lines of the table: ours, the peer's, and ours divided by the peer's.
fn lines(workload: &Workload, counts: &Counts) -> String {
    let peer = &workload.peer;
    let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
    let ratio =
        |ours: u64, theirs: Option<u64>| theirs.map_or("-".into(), |n| format!("{:.2}", ours as f64 / n as f64));
    let line = |name: &str, [instructions, cycles, code, ram]: [String; 4]| {
        format!("{name:<22}{instructions:>14}{cycles:>14}{code:>9}{ram:>10}\n")
    };
    let ours = [counts.instructions, counts.cycles, counts.code, counts.ram];
    let theirs = [Some(peer.instructions), peer.cycles, Some(peer.code), Some(peer.ram)];
    let mut text = line(&workload.full_name(), ours.map(|n| n.to_string()));
    text += &line(&format!("  {}", peer.name), theirs.map(number));
    text += &line("  ratio", [0, 1, 2, 3].map(|column: usize| ratio(ours[column], theirs[column])));
    let Counts { static_ram, stack, model, load, .. } = counts;
    text + &format!(
        "  RAM: {static_ram} static + {stack} stack ({model} of it the model); loading: {load} instructions\n\n"
    )
}

/// Counts every workload that has a bound, and holds it to that.
pub(crate) fn check() -> Result<()> {
    let plugin = plugin()?;
    for workload in workloads::ALL {
        let Some(ratio) = workload.bound.ratio else { continue };
        let counts = count(workload, &plugin)?;
        print!("{}", lines(workload, &counts));
        let peer = &workload.peer;
        let within = |ours: u64, theirs: u64| ours as f64 <= ratio * theirs as f64;
        let fits = within(counts.instructions, peer.instructions)
            && peer.cycles.is_none_or(|theirs| within(counts.cycles, theirs));
        ensure!(fits, "{}: more than {ratio} of the instructions or the cycles", workload.name());
        if let Some(code) = workload.bound.code {
            ensure!(counts.code <= code, "{}: {} bytes of code, more than {code}", workload.name(), counts.code);
        }
        if let Some(ram) = workload.bound.ram {
            ensure!(counts.ram <= ram, "{}: {} bytes of RAM, more than {ram}", workload.name(), counts.ram);
        }
    }
    Ok(())
}

/// Builds the program of a workload, runs it under QEMU, and compares its outputs with this machine's.
pub(crate) fn count(workload: &Workload, plugin: &Path) -> Result<Counts> {
    let elf = build(workload)?;
    let (intervals, words) = execute(&elf, plugin)?;
    let [counted_loop, _, load, _, inference] = intervals[..] else {
        bail!("{} intervals were counted, instead of 5", intervals.len());
    };
    ensure!(counted_loop == LOOP, "the plugin counts {counted_loop:?} for the loop that takes {LOOP:?}");
    let expected = workload.outputs()?;
    ensure!(words.len() == expected.len() + 2, "the program printed {} words", words.len());
    let (outputs, sizes) = words.split_at(expected.len());
    for (found, expected) in outputs.iter().map(|bits| f32::from_bits(*bits)).zip(&expected) {
        let fits = (found - expected).abs() <= workload.largest_difference();
        ensure!(fits, "{}: an output is {found}, this machine's {expected}", workload.name());
    }
    let (code, static_ram) = sizes_of(&elf, workload)?;
    let (model, stack) = (u64::from(sizes[0]), u64::from(sizes[1]));
    let Interval { instructions, cycles } = inference;
    Ok(Counts {
        instructions,
        cycles,
        code,
        ram: static_ram + stack,
        static_ram,
        stack,
        model,
        load: load.instructions,
    })
}

/// Builds the plugin; gives its file.
pub(crate) fn plugin() -> Result<PathBuf> {
    toolchain::require_program("qemu-system-arm", firmware::QEMU_REMEDY)?;
    let target = command::root().join("xtask/qemu-count/target");
    let mut build = command::cargo();
    build.args(["build", "--quiet", "--release", "--manifest-path", "xtask/qemu-count/Cargo.toml", "--target-dir"]);
    expect_success(command::output(build.arg(&target))?)?;
    Ok(target.join("release").join(format!("{DLL_PREFIX}qemu_count{DLL_SUFFIX}")))
}

/// Builds the program of a workload, for size; gives its file.
pub(crate) fn build(workload: &Workload) -> Result<PathBuf> {
    workload.write()?;
    let target = command::firmware().join("target/count");
    let mut cargo = firmware::cargo();
    toolchain::prepare_bare_metal(&mut cargo, workload.core.target)?;
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s").env("THUMBNET_WORKLOAD", workload.name());
    cargo.args(["build", "--quiet", "--release", "--bin", "count", "--target", workload.core.target, "--target-dir"]);
    expect_success(command::output(cargo.arg(&target))?)?;
    Ok(target.join(workload.core.target).join("release/count"))
}

/// What the plugin tells of the work between two markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    instructions: u64,
    cycles: u64,
}

/// Runs a program under QEMU; gives the plugin's intervals and the words that the program printed.
fn execute(elf: &Path, plugin: &Path) -> Result<(Vec<Interval>, Vec<u32>)> {
    let mut qemu = Command::new("qemu-system-arm");
    qemu.args(["-machine", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none"]);
    qemu.args(["-semihosting-config", "enable=on,target=native", "-plugin"]).arg(plugin).arg("-kernel").arg(elf);
    let printed = expect_success(command::output(&mut qemu)?)?;
    let (mut intervals, mut words) = (Vec::new(), Vec::new());
    for line in printed.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["[count]", "instructions", instructions, "cycles", cycles] => {
                intervals.push(Interval { instructions: instructions.parse()?, cycles: cycles.parse()? });
            }
            [word] => words.push(u32::from_str_radix(word, 16).with_context(|| format!("printed {word:?}"))?),
            _ => bail!("QEMU says: {line}"),
        }
    }
    Ok((intervals, words))
}

/// All that a program has printed, if it succeeded.
fn expect_success(output: Output) -> Result<String> {
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    ensure!(output.status.success(), "{}\n{printed}", output.status);
    Ok(printed)
}

/// The bytes of code and constants without the model and its input, and those of static RAM.
fn sizes_of(elf: &Path, workload: &Workload) -> Result<(u64, u64)> {
    let elf = std::fs::read(elf).with_context(|| elf.display().to_string())?;
    let file = object::File::parse(&*elf)?;
    let size = |name| file.section_by_name(name).map_or(0, |section| section.size());
    let assets = workload.model()?.len() + workload.input().len();
    let constants = size(".rodata").checked_sub(assets as u64).context("the model is not in .rodata")?;
    Ok((size(".text") + constants, size(".data") + size(".bss") + size(".uninit")))
}
