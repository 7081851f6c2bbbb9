//! The harness's timing rule, so that this contestant is timed like every other.

use std::time::{Duration, Instant};

/// Nanoseconds per call.
pub(crate) struct Timing {
    pub(crate) least: f64,
    pub(crate) median: f64,
}

/// How long a sample of several calls lasts, in nanoseconds.
const SAMPLE: f64 = 3e5;

/// Times `call`: warms up for a quarter of `budget` seconds, then takes samples of about 0.3 ms (of a single call, if that
/// takes longer) until the budget is spent, five at least.
pub(crate) fn time(budget: f64, mut call: impl FnMut()) -> Timing {
    let budget = Duration::from_secs_f64(budget);
    call();
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < budget / 4 || calls < 2 {
        call();
        calls += 1;
    }
    let calls = ((SAMPLE * f64::from(calls) / start.elapsed().as_nanos() as f64) as u32).max(1);
    let start = Instant::now();
    let mut samples = Vec::new();
    while start.elapsed() < budget || samples.len() < 5 {
        let sample = Instant::now();
        (0..calls).for_each(|_| call());
        samples.push(sample.elapsed().as_nanos() as f64 / f64::from(calls));
    }
    samples.sort_by(f64::total_cmp);
    Timing { least: samples[0], median: samples[samples.len() / 2] }
}
