//! The checks' outcomes, and the summary at the end.

use anyhow::Result;
use std::fmt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A tool that this machine lacks. A check that fails with it counts as skipped.
#[derive(Debug)]
pub(crate) struct Missing {
    /// What is not there.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing: {}", self.what, self.remedy)
    }
}

impl std::error::Error for Missing {}

/// Outcomes of the checks so far.
pub(crate) struct Report {
    steps: Vec<(&'static str, Result<()>, Duration)>,
}

impl Report {
    /// No checks yet.
    pub(crate) fn new() -> Self {
        Self { steps: Vec::new() }
    }

    /// Runs one check, under its name.
    pub(crate) fn step(&mut self, name: &'static str, check: impl FnOnce() -> Result<()>) {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = check();
        if let Err(error) = &outcome {
            println!("{error:#}");
        }
        self.steps.push((name, outcome, start.elapsed()));
    }

    /// Prints the summary. A failure if a check failed, if there was none, or if one was skipped where `skips_fail`.
    pub(crate) fn finish(self, skips_fail: bool) -> ExitCode {
        let (mut passed, mut failed, mut skipped) = (0, 0, 0);
        println!("\n=== summary");
        for (name, outcome, time) in &self.steps {
            let seconds = time.as_secs_f32();
            match outcome {
                Ok(()) => {
                    passed += 1;
                    println!("passed   {name} ({seconds:.1} s)");
                }
                Err(error) if error.is::<Missing>() => {
                    skipped += 1;
                    println!("SKIPPED  {name}: {error}");
                }
                Err(error) => {
                    failed += 1;
                    let message = format!("{error:#}"); // the rest of a long one stands above, where it happened
                    println!("FAILED   {name}: {}", message.lines().next().unwrap_or_default());
                }
            }
        }
        println!("checks: {passed} passed, {failed} failed, {skipped} skipped");
        if skipped > 0 && skips_fail {
            println!("A skipped check is a failure here, because CI=true.");
        }
        if self.steps.is_empty() || failed > 0 || (skipped > 0 && skips_fail) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn succeeds(checks: &[fn() -> Result<()>], skips_fail: bool) -> bool {
        let mut report = Report::new();
        checks.iter().for_each(|check| report.step("check", check));
        format!("{:?}", report.finish(skips_fail)) == format!("{:?}", ExitCode::SUCCESS)
    }

    #[test]
    fn a_skip_fails_only_where_it_is_told_to() {
        let skipped: fn() -> Result<()> = || Err(Missing { what: "a tool".into(), remedy: "get it".into() }.into());
        let passed: fn() -> Result<()> = || Ok(());
        let failed: fn() -> Result<()> = || anyhow::bail!("wrong");
        assert!(succeeds(&[passed], true));
        assert!(succeeds(&[passed, skipped], false));
        assert!(!succeeds(&[passed, skipped], true));
        assert!(!succeeds(&[passed, failed], false));
        assert!(!succeeds(&[], false));
    }
}
