//! The chores of the thumbnet repository: `cargo xtask help`.

mod board;
mod command;
mod count;
mod digits;
mod firmware;
mod notebooks;
mod portable;
mod report;
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
    /// Classify 100 test digits on an emulated Cortex-M4F; the exit code is the firmware's.
    Firmware,
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
    /// Train the files in models/ anew, as models/README.md says.
    Models,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Test { name } => Ok(test::run(&name)),
        Chore::Firmware => firmware::run().map(ExitCode::from),
        Chore::Count { json, only } => count::run(json, &only).map(|()| ExitCode::SUCCESS),
        Chore::Size => size::run().map(|()| ExitCode::SUCCESS),
        Chore::Notebooks { time } => {
            if time { notebooks::time() } else { notebooks::run() }.map(|()| ExitCode::SUCCESS)
        }
        Chore::Models => train_models().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn train_models() -> anyhow::Result<()> {
    firmware::MODELS.iter().try_for_each(|(recipe, _)| {
        let train = format!("run --release --package thumbnet-trainer -- train {recipe} --out models/{recipe}.tnet");
        command::run(command::cargo().args(train.split(' ')))
    })
}
