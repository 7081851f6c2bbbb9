//! `cargo xtask audit`: what a release needs beside the tests.

use crate::report::{Missing, Report};
use crate::{command, toolchain};
use anyhow::{Result, ensure};
use std::process::{Command, ExitCode};

/// A check, under its name.
type Check = (&'static str, fn() -> Result<()>);

const STEPS: &[Check] = &[
    ("features of the core", || features(None)),
    ("features of the core for a Cortex-M0", || features(Some("thumbv6m-none-eabi"))),
    ("licences, sources and duplicates", || deny(&["licenses", "sources", "bans"])),
    ("advisories", advisories),
    ("package of the core", package),
    ("compatibility with the last release", compatibility),
];

/// Runs the checks whose name contains `name`.
pub(crate) fn run(name: &str) -> ExitCode {
    let mut report = Report::new();
    for (step, check) in STEPS.iter().filter(|(step, _)| step.contains(name)) {
        report.step(step, check);
    }
    report.finish(std::env::var("CI").is_ok_and(|ci| ci == "true"))
}

/// Every set of the core's features compiles, without what tests add to them.
fn features(target: Option<&str>) -> Result<()> {
    toolchain::require_cargo_command("hack", "cargo-hack")?;
    let mut hack = command::cargo();
    hack.args(["hack", "--feature-powerset", "--no-dev-deps", "check", "--package", "thumbnet"]);
    if let Some(target) = target {
        toolchain::require_target(target)?;
        hack.args(["--target", target]);
    }
    command::run(&mut hack)
}

fn cargo_deny(checks: &[&str]) -> Result<Command> {
    toolchain::require_cargo_command("deny", "cargo-deny")?;
    let mut deny = command::cargo();
    deny.args(["deny", "--workspace", "--config", ".ci/deny.toml", "check"]).args(checks);
    Ok(deny)
}

fn deny(checks: &[&str]) -> Result<()> {
    command::run(&mut cargo_deny(checks)?)
}

/// The database is fetched from the network; without one, the check cannot be made.
fn advisories() -> Result<()> {
    let output = command::output(&mut cargo_deny(&["advisories"])?)?;
    let log = String::from_utf8_lossy(&output.stderr);
    println!("{log}");
    if log.contains("failed to fetch advisory database") || log.contains("failed to load advisory database") {
        let remedy = "run it where the network is".into();
        return Err(Missing { what: "the database of advisories".into(), remedy }.into());
    }
    ensure!(output.status.success(), "{}", output.status);
    Ok(())
}

/// Packs the core and builds what was packed.
fn package() -> Result<()> {
    command::run(command::cargo().args(["package", "--package", "thumbnet", "--allow-dirty"]))
}

/// The API breaks nothing that the last release promised, as far as its version says so.
fn compatibility() -> Result<()> {
    let tags = command::output(Command::new("git").current_dir(command::root()).args([
        "tag",
        "--list",
        "v*",
        "--sort=-version:refname",
    ]))?;
    let tags = String::from_utf8(tags.stdout)?;
    let Some(last) = tags.lines().next() else {
        let remedy = "nothing to do before the first release, which is tagged as v0.1.0".into();
        return Err(Missing { what: "a release to compare with".into(), remedy }.into());
    };
    toolchain::require_cargo_command("semver-checks", "cargo-semver-checks")?;
    command::run(command::cargo().args(["semver-checks", "--package", "thumbnet", "--baseline-rev", last]))
}
