//! Running other programs.

use anyhow::{Context, Result, ensure};
use process_wrap::std::CommandWrap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// The firmware's workspace.
pub(crate) fn firmware() -> PathBuf {
    root().join("firmware-example")
}

/// `cargo`, in the root of the repository.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root());
    cargo
}

/// Shows a command and runs it, its output passing through.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = show(command);
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    ensure!(status.success(), "{status}: {line}");
    Ok(())
}

/// Shows a command and runs it, keeping its output; it is the caller's to judge.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    let line = show(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {line}"))
}

/// Runs a command, its output passing through, and ends it and all it started if it takes longer than `limit`.
pub(crate) fn run_within(limit: Duration, mut command: Command) -> Result<ExitStatus> {
    let line = show(&command);
    command.stdin(Stdio::null());
    let mut command = CommandWrap::from(command);
    #[cfg(unix)]
    command.wrap(process_wrap::std::ProcessGroup::leader());
    #[cfg(windows)]
    command.wrap(process_wrap::std::JobObject);
    let mut child = command.spawn().with_context(|| format!("cannot start {line}"))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            anyhow::bail!("ended after {} s: {line}", limit.as_secs());
        }
        sleep(Duration::from_millis(20));
    }
}

/// Prints the command as one would type it in the root of the repository, and returns that.
fn show(command: &Command) -> String {
    let mut words = Vec::new();
    if let Some(folder) = command.get_current_dir().and_then(|folder| folder.strip_prefix(root()).ok())
        && folder != Path::new("")
    {
        words.push(format!("cd {} &&", folder.display()));
    }
    for (name, value) in command.get_envs() {
        words.push(format!("{}={:?}", name.display(), value.unwrap_or_default()));
    }
    words.push(command.get_program().display().to_string());
    words.extend(command.get_args().map(|argument| argument.display().to_string()));
    let line = words.join(" ");
    eprintln!("$ {line}"); // so that a chore can print JSON
    line
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended_with_what_it_started() {
        let proof = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        let mut hanging = Command::new("sh");
        hanging.args(["-c", "(sleep 3; touch \"$0\") & wait"]).arg(&proof);
        let error = run_within(Duration::from_millis(200), hanging).unwrap_err();
        assert!(error.to_string().starts_with("ended after"), "{error}");
        sleep(Duration::from_secs(4));
        assert!(!proof.exists(), "the inner program went on");
    }

    #[test]
    fn the_exit_status_is_passed_on() {
        let mut failing = Command::new("sh");
        failing.args(["-c", "exit 7"]);
        assert_eq!(run_within(Duration::from_secs(60), failing).unwrap().code(), Some(7));
        assert!(run(Command::new("sh").args(["-c", "exit 7"])).unwrap_err().to_string().contains("exit 7"));
    }
}
