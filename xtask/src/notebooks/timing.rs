//! `cargo xtask notebooks --time`: training beside the numpy scripts, on one core, in turn.

use super::{PROGRAMS, Program, folder, notebooks, release_build};
use crate::command::{self, root};
use crate::report::Missing;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use thumbnet_trainer::recipe::BUILT_IN;

/// How many times both have their turn; the least time counts.
const ROUNDS: usize = 3;
/// About how long one of our trainings lasts, in seconds: long beside starting the program.
const DURATION: f64 = 1.5;

/// Prints a table of seconds per epoch.
pub(crate) fn run() -> Result<()> {
    let thumbnet = release_build()?;
    let data = raw_data()?;
    check_numpy()?;
    println!("\nleast of {ROUNDS} rounds in turn, one core, training only (no tests), seconds per epoch");
    println!("{:<12} {:>12} {:>12} {:>8}", "recipe", "numpy", "thumbnet", "ratio");
    for program in &PROGRAMS {
        let epochs = enough_epochs(&thumbnet, program)?;
        let (mut numpy, mut ours) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..ROUNDS {
            numpy = numpy.min(numpy_epoch(program, &data)?);
            ours = ours.min(our_epoch(&thumbnet, program, epochs)?);
        }
        println!("{:<12} {numpy:>12.5} {ours:>12.5} {:>7.1}x", program.recipe, numpy / ours);
    }
    Ok(())
}

/// Seconds per epoch of training, from two trainings of different length: what is not training falls away.
fn our_epoch(thumbnet: &Path, program: &Program, epochs: u32) -> Result<f64> {
    let short = (epochs / 4).max(1);
    let difference = seconds(thumbnet, program, short + epochs)? - seconds(thumbnet, program, short)?;
    Ok(difference / f64::from(epochs))
}

fn enough_epochs(thumbnet: &Path, program: &Program) -> Result<u32> {
    let mut epochs = 1;
    loop {
        let estimate = our_epoch(thumbnet, program, epochs)?;
        if estimate * f64::from(epochs) >= DURATION / 4.0 {
            return Ok((DURATION / estimate).ceil().max(1.0) as u32);
        }
        epochs *= 4;
    }
}

/// The wall time of a training that is tested at its end only.
fn seconds(thumbnet: &Path, program: &Program, epochs: u32) -> Result<f64> {
    let recipe = folder()?.join(format!("{}-untested.toml", program.recipe));
    let built_in = BUILT_IN.iter().find(|built_in| built_in.name == program.recipe).context("a built-in recipe")?;
    // The first line of a recipe is as good a place as any; its own `test_every` would stand twice.
    let text: Vec<_> = built_in.text.lines().filter(|line| !line.starts_with("test_every")).collect();
    std::fs::write(&recipe, format!("test_every = 1000000\n{}\n", text.join("\n")))?;
    let mut train = on_one_core(thumbnet);
    train.current_dir(root()).arg("train").arg(&recipe).args(["--quiet", "--epochs", &epochs.to_string(), "--out"]);
    train.arg(folder()?.join("timing.tnet"));
    let start = Instant::now();
    let output = train.output().context("cannot start thumbnet")?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(seconds)
}

/// Seconds per epoch of training, as the script itself measures them.
fn numpy_epoch(program: &Program, data: &Path) -> Result<f64> {
    let [script, arguments @ ..] = program.numpy else { anyhow::bail!("{}: no script", program.recipe) };
    let mut python = on_one_core(Path::new("python3"));
    python.arg(notebooks().join("numpy").join(script)).arg(data).args(arguments).args(["--epochs", "3"]);
    python.env("OPENBLAS_NUM_THREADS", "1").env("OMP_NUM_THREADS", "1").env("MKL_NUM_THREADS", "1");
    python.env_remove("OPENBLAS_CORETYPE").env_remove("OPENBLAS_L2_SIZE").env("PYTHONDONTWRITEBYTECODE", "1");
    let output = python.output().context("cannot start python3")?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{script}: {messages}");
    let (_, time) = messages.split_once(": train ").with_context(|| format!("{script} names no time: {messages}"))?;
    let (time, _) = time.split_once(" s/epoch").context("seconds per epoch")?;
    Ok(time.parse()?)
}

/// A command that stays on the first core, where the system can say so.
fn on_one_core(program: &Path) -> Command {
    if cfg!(target_os = "linux") {
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// The MNIST files, unpacked, as the scripts want them.
fn raw_data() -> Result<std::path::PathBuf> {
    let folder = folder()?.join("mnist");
    std::fs::create_dir_all(&folder)?;
    for entry in std::fs::read_dir(root().join("data/mnist"))? {
        let packed = entry?.path();
        let (Some(name), Some("gz")) = (packed.file_stem(), packed.extension().and_then(|e| e.to_str())) else {
            continue;
        };
        let mut unpacked = std::fs::File::create(folder.join(name))?;
        std::io::copy(&mut flate2::read::GzDecoder::new(std::fs::File::open(&packed)?), &mut unpacked)?;
    }
    Ok(folder)
}

fn check_numpy() -> Result<()> {
    let found = command::output(Command::new("python3").args(["-c", "import numpy"]));
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    Err(Missing { what: "numpy".into(), remedy: "python3 -m pip install numpy".into() }.into())
}
