//! The chores of the thumbnet repository: `cargo xtask help`.

mod accuracy;
mod audit;
mod board;
mod command;
mod count;
mod device;
mod digits;
mod firmware;
mod fuzz;
mod notebooks;
mod portable;
mod quantization;
mod report;
mod sanitize;
mod size;
mod test;
mod toolchain;
mod workloads;

// The layout of `assets/digits.bin`, which the firmware reads.
#[allow(unreachable_pub, reason = "the firmware's library publishes it")]
#[path = "../../firmware-example/src/digits_file.rs"]
mod digits_file;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The chores of the thumbnet repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Run every check: formatting, lints, documentation, tests, here and on other processors, MSRV, the firmware in QEMU, the
    /// board builds.
    ///
    /// A check whose tools are missing is skipped, and the summary names the command that would add them. With CI=true in
    /// the environment that is a failure.
    Test {
        /// Only the checks whose name contains this.
        #[arg(default_value = "")]
        name: String,
    },
    /// Classify test digits on an emulated Cortex-M4F; the exit code is the firmware's.
    Firmware {
        /// On every machine of the matrix, from a Cortex-M0 to a RISC-V, with a model that fits it; prints a line for each.
        #[arg(long)]
        all: bool,
        /// So many test digits [default: 100, with --all 20]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        images: Option<u16>,
    },
    /// Count the instructions and estimate the cycles that an inference takes on a Cortex-M, beside those of other libraries.
    Count {
        /// Print JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Only workloads whose core and name contain this, such as `"m0 w1"` or `int8`.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Print what the program that is counted takes of the flash, by section and module, and of the RAM, for each workload.
    Size,
    /// Train every notebook's program, compare it with what the notebook printed, and write docs/notebooks.md.
    ///
    /// It takes a quarter of an hour or so.
    Notebooks {
        /// Instead, time each training beside the notebook's numpy script, in turn, on one core; needs python3 and numpy.
        #[arg(long)]
        time: bool,
    },
    /// Measure what int8 costs in accuracy, on three recipes with three seeds each; fails if it is more than promised.
    ///
    /// It takes a quarter of an hour or so: `cargo run --release -p xtask -- quantization` is a little faster.
    Quantization {
        /// One recipe only.
        recipe: Option<String>,
    },
    /// Train the built-in int8 recipes for digits with seeds 1 to 5 and measure their files; fails if one misses its goal.
    ///
    /// It takes more than an hour: `cargo run --release -p xtask -- accuracy` is a little faster.
    Accuracy {
        /// One recipe only.
        recipe: Option<String>,
    },
    /// Hand each reader of files or messages millions of damaged ones; fails if one of them panics, hangs or takes too much memory.
    ///
    /// Needs a nightly toolchain and cargo-fuzz.
    Fuzz {
        /// How long for each target.
        #[arg(long, value_name = "N", default_value_t = 20.0)]
        minutes: f32,
        /// Only the targets whose name contains this.
        #[arg(long, default_value = "")]
        target: String,
    },
    /// Have the firmware in QEMU classify over a noisy serial line; fails at a wrong answer, or if it takes ever more stack.
    Soak {
        /// How long.
        #[arg(long, value_name = "N", default_value_t = 10.0)]
        minutes: f32,
    },
    /// Run the kernels' tests with tools that see every access to memory: AddressSanitizer, Miri and Valgrind.
    Sanitize {
        /// With one of them only.
        #[arg(long)]
        only: Option<sanitize::Tool>,
    },
    /// Check what a release needs: every set of features, licences and advisories of dependencies, the package, and whether its API
    /// is compatible.
    Audit {
        /// Only the checks whose name contains this.
        #[arg(default_value = "")]
        name: String,
    },
    /// Train the files in models/ anew, as models/README.md says.
    Models,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Test { name } => Ok(test::run(&name)),
        Chore::Firmware { all: false, images } => {
            firmware::run(images.map_or(firmware::IMAGES, usize::from)).map(ExitCode::from)
        }
        Chore::Firmware { all: true, images } => {
            firmware::run_matrix(images.map_or(firmware::MATRIX_IMAGES, usize::from)).map(|()| ExitCode::SUCCESS)
        }
        Chore::Count { json, only } => count::run(json, &only).map(|()| ExitCode::SUCCESS),
        Chore::Size => size::run().map(|()| ExitCode::SUCCESS),
        Chore::Notebooks { time } => {
            if time { notebooks::time() } else { notebooks::run() }.map(|()| ExitCode::SUCCESS)
        }
        Chore::Quantization { .. } | Chore::Accuracy { .. } if env!("OPT_LEVEL") == "0" => run_optimized(),
        Chore::Quantization { recipe } => quantization::run(recipe.as_deref()).map(|()| ExitCode::SUCCESS),
        Chore::Accuracy { recipe } => accuracy::run(recipe.as_deref()).map(|()| ExitCode::SUCCESS),
        Chore::Fuzz { minutes, target } => fuzz::run(minutes, &target).map(|()| ExitCode::SUCCESS),
        Chore::Soak { minutes } => device::soak(minutes).map(|()| ExitCode::SUCCESS),
        Chore::Sanitize { only } => Ok(sanitize::run(only)),
        Chore::Audit { name } => Ok(audit::run(&name)),
        Chore::Models => train_models().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Has this program compiled to run fast, and run with the same arguments.
fn run_optimized() -> anyhow::Result<ExitCode> {
    let mut cargo = command::cargo();
    cargo.args(["run", "--package", "xtask", "--"]).args(std::env::args_os().skip(1));
    command::run(&mut cargo).map(|()| ExitCode::SUCCESS)
}

fn train_models() -> anyhow::Result<()> {
    let run = |arguments: String| {
        let trainer = format!("run --release --package thumbnet-trainer -- {arguments}");
        command::run(command::cargo().args(trainer.split(' ')))
    };
    let train = |recipe: &str| run(format!("train {recipe} --out models/{recipe}.tnet"));
    for recipe in digits::TRAINED {
        train(recipe)?;
        run(format!("convert models/{recipe}.tnet --weights int8 --out models/{recipe}-int8.tnet"))?;
    }
    digits::FINE_TUNED.into_iter().try_for_each(train)?;
    // The members of the ensemble differ in nothing but their seeds.
    let mut members = "models/digits-best.tnet".to_owned();
    for seed in 2..=5 {
        let member = format!("target/digits-best-{seed}.tnet");
        run(format!("train digits-best --seed {seed} --out {member}"))?;
        members += &format!(" {member}");
    }
    run(format!("ensemble {members} --out models/digits-ensemble.tnet"))
}
