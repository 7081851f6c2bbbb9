//! `cargo xtask fuzz`: each fuzz target for some minutes.

use crate::{command, toolchain};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package with the targets.
const PACKAGE: &str = "tests/fuzz/targets";

/// The longest input that is tried, in bytes: most readers see all that they can see in less.
const LONGEST: &str = "-max_len=4096";

/// Where Linux keeps files in memory.
const MEMORY: &str = "/dev/shm";

/// Runs each target whose name contains `only` for `minutes`, from its corpus on, and prints what came of it.
///
/// What is new is kept in `target/fuzz/corpus`, and what makes a target panic in `tests/fuzz/targets/artifacts`.
pub(crate) fn run(minutes: f32, only: &str) -> Result<()> {
    toolchain::require_nightly(&[])?;
    toolchain::require_cargo_command("fuzz", "cargo-fuzz")?;
    let mut found = Vec::new();
    for target in targets()?.iter().filter(|target| target.contains(only)) {
        found.push(fuzz(target, minutes)?);
    }
    ensure!(!found.is_empty(), "no target is called {only:?}");
    println!("\n{:<16}{:>14}{:>10}{:>10}  findings", "target", "executions", "per s", "edges");
    for outcome in &found {
        let Outcome { target, executions, per_second, edges, finding } = outcome;
        let finding = finding.as_deref().unwrap_or("none");
        println!("{target:<16}{executions:>14}{per_second:>10}{edges:>10}  {finding}");
    }
    let findings = found.iter().filter(|outcome| outcome.finding.is_some()).count();
    ensure!(findings == 0, "{findings} of {} targets found something", found.len());
    Ok(())
}

/// What came of a target.
struct Outcome {
    target: String,
    executions: u64,
    per_second: u64,
    /// Edges between basic blocks that were reached.
    edges: u64,
    /// The line in which libFuzzer sums up what it found, if anything.
    finding: Option<String>,
}

/// Every target has a corpus of its name.
fn targets() -> Result<Vec<String>> {
    let folders = fs::read_dir(corpora()).context("the corpora")?;
    let mut names = folders
        .map(|folder| Ok(folder?.file_name().display().to_string()))
        .collect::<Result<Vec<_>>>()
        .context("the corpora")?;
    names.sort();
    Ok(names)
}

fn corpora() -> PathBuf {
    command::root().join("tests/fuzz/corpus")
}

fn fuzz(target: &str, minutes: f32) -> Result<Outcome> {
    println!("\n=== {target}");
    let new = command::root().join("target/fuzz/corpus").join(target);
    fs::create_dir_all(&new)?;
    let mut fuzz = cargo_fuzz("run");
    // Some targets write files for the readers. On a disk, a file that is written anew each time is waited for.
    if Path::new(MEMORY).is_dir() {
        fuzz.env("TMPDIR", MEMORY);
    }
    fuzz.arg(target).args([&new, &corpora().join(target)]).arg("--");
    let seconds = format!("-max_total_time={}", (60.0 * minutes) as u64);
    fuzz.args([&seconds[..], LONGEST, "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    let output = command::output(&mut fuzz)?;
    let log = String::from_utf8_lossy(&output.stderr);
    let number = |name: &str| log.lines().rev().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    let executions = number("stat::number_of_executed_units:");
    let outcome = Outcome {
        target: target.to_owned(),
        executions: executions.unwrap_or(0),
        per_second: number("stat::average_exec_per_sec:").unwrap_or(0),
        edges: edges(&log),
        finding: (!output.status.success()).then(|| finding(&log)),
    };
    if let Some(finding) = &outcome.finding {
        // All of it: the panic's message, and the file that makes it again.
        println!("{log}");
        ensure!(executions.is_some(), "{target} could not be built or started: {finding}");
    }
    println!("{} executions", outcome.executions);
    Ok(outcome)
}

fn cargo_fuzz(verb: &str) -> Command {
    let mut fuzz = toolchain::nightly_cargo();
    fuzz.args(["fuzz", verb, "--fuzz-dir", PACKAGE]);
    fuzz
}

/// The last number of edges in the log: `#1234 NEW cov: 567 ft: …`.
fn edges(log: &str) -> u64 {
    let last = log.lines().rev().find_map(|line| line.split_once("cov: "));
    last.and_then(|(_, behind)| behind.split(' ').next()?.parse().ok()).unwrap_or(0)
}

fn finding(log: &str) -> String {
    let told = ["SUMMARY: ", "panicked at", "error: "];
    let line = told.iter().find_map(|start| log.lines().find(|line| line.contains(start)));
    line.unwrap_or("an unknown end").trim().to_owned()
}
