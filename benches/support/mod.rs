//! What the benches share: contestants timed in turn, peers, the processor's peaks, and the table of all three.

pub(crate) mod peak;
pub(crate) mod peers;

use criterion::Criterion;
use peak::{Limit, Peak};
use std::time::{Duration, Instant};

/// One way of doing the work.
pub(crate) struct Contestant<'a> {
    /// What it is called in the table.
    pub(crate) name: &'static str,
    /// Does the work once.
    pub(crate) run: Box<dyn FnMut() + 'a>,
}

impl<'a> Contestant<'a> {
    /// A contestant of that name.
    pub(crate) fn new(name: &'static str, run: impl FnMut() + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Small numbers of both signs that no compiler can guess; the same in every run.
pub(crate) fn numbers(count: usize) -> Vec<f32> {
    let mut state = 0x2545_f491u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// Criterion for many short measurements: it keeps the history, the table of this module compares.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .configure_from_args()
}

/// Whether this is `cargo bench`, and not a test that the benches run at all.
pub(crate) fn measuring() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

/// How often each contestant has its turn; fewer times, but more than once, if that takes longer than [`ENOUGH`].
const ROUNDS: usize = 15;
const LEAST_ROUNDS: usize = 3;
/// How long the contestants may take together.
const ENOUGH: Duration = Duration::from_millis(1500);
/// How long a turn lasts, and each of its samples: short enough that other programs leave some samples alone.
const TURN: Duration = Duration::from_millis(5);
const SAMPLE: Duration = Duration::from_micros(200);

/// The least time that each contestant's work took, in seconds.
///
/// The contestants take turns, and the least time counts: a processor that other programs share changes its speed for
/// seconds at a time, and only so does each contestant meet the same speeds.
pub(crate) fn least_times(contestants: &mut [Contestant<'_>]) -> Vec<f64> {
    let calls: Vec<u32> = contestants.iter_mut().map(|contestant| calls_per_sample(&mut contestant.run)).collect();
    let mut least = vec![f64::INFINITY; contestants.len()];
    let begin = Instant::now();
    for round in 0..ROUNDS {
        if round >= LEAST_ROUNDS && begin.elapsed() > ENOUGH {
            break;
        }
        for ((contestant, calls), least) in contestants.iter_mut().zip(&calls).zip(&mut least) {
            let turn = Instant::now();
            while turn.elapsed() < TURN {
                *least = least.min(sample(&mut contestant.run, *calls));
            }
        }
    }
    least
}

/// The seconds per call, of so many.
fn sample(run: &mut dyn FnMut(), calls: u32) -> f64 {
    let start = Instant::now();
    (0..calls).for_each(|_| run());
    start.elapsed().as_secs_f64() / f64::from(calls)
}

fn calls_per_sample(run: &mut dyn FnMut()) -> u32 {
    let enough = |calls: &u32| sample(run, *calls) * f64::from(*calls) >= SAMPLE.as_secs_f64();
    (0..).map(|doublings| 1 << doublings).find(enough).expect("work takes time")
}

/// What a line of the table is about.
pub(crate) struct Work {
    /// What it is called in the table.
    pub(crate) name: String,
    /// The number of multiply-adds.
    pub(crate) macs: u64,
    /// The bytes of the weights, if each of them is read once.
    pub(crate) weight_bytes: Option<usize>,
}

/// The table at the end.
pub(crate) struct Table {
    /// The processor's peaks, with the best multiply-adds, or bytes, per second so far.
    peaks: Vec<(Peak, f64)>,
}

impl Table {
    /// Prints what the lines mean, and measures the peaks a first time.
    pub(crate) fn begin() -> Self {
        println!(
            "\nleast times of interleaved rounds, one thread; a ratio is of times, so below 1 is faster than the best peer;"
        );
        println!(
            "the peak is that of the multiply-adds of the backend, measured in the same rounds; so are the bandwidths of"
        );
        println!(
            "the caches, for work that reads each weight once: of the L1 for weights of up to 32 KiB, else of the L2\n"
        );
        let mut table = Self { peaks: peak::peaks().into_iter().map(|peak| (peak, 0.0)).collect() };
        let times = least_times(&mut table.peak_contestants());
        table.note_peaks(&times);
        for (peak, best) in &table.peaks {
            let (best, unit) = peak.limit.in_units(*best);
            println!("{:<34} {:<16} {best:>11.1} {unit}", peak.limit.name(), peak.backend);
        }
        table
    }

    fn peak_contestants(&self) -> Vec<Contestant<'static>> {
        self.peaks.iter().map(|(peak, _)| Contestant::new(peak.backend, peak.run)).collect()
    }

    fn note_peaks(&mut self, times: &[f64]) {
        for ((peak, best), time) in self.peaks.iter_mut().zip(times) {
            *best = best.max(peak.amount as f64 / time);
        }
    }

    /// Prints a line for each contestant: its least time, its time divided by that of the fastest of the `peers`, and its
    /// shares of the processor's peaks.
    pub(crate) fn row(&mut self, work: &Work, mut contestants: Vec<Contestant<'_>>, peers: &[&str]) {
        let count = contestants.len();
        contestants.extend(self.peak_contestants());
        let times = least_times(&mut contestants);
        let (times, peak_times) = times.split_at(count);
        self.note_peaks(peak_times);
        let timed = || contestants.iter().map(|contestant| contestant.name).zip(times.iter().copied());
        let best = timed().filter(|(name, _)| peers.contains(name)).min_by(|a, b| a.1.total_cmp(&b.1));
        for (name, time) in timed() {
            let ratio = best.map_or(String::new(), |(peer, least)| format!("{:5.2} × {peer}", time / least));
            let shares = self.shares(work, name, time).join(",");
            println!("{:<34} {name:<16} {:>11.2} µs  {ratio:<24}{shares}", work.name, time * 1e6);
        }
    }

    /// How much of a backend's peaks the work takes that it does in `time` seconds. None for peers.
    fn shares(&self, work: &Work, backend: &str, time: f64) -> Vec<String> {
        let reads = work.weight_bytes.map(|bytes| (Limit::of_weights(bytes), bytes as f64));
        let limits = [Some((Limit::Arithmetic, work.macs as f64)), reads];
        let share = |(limit, amount): (Limit, f64)| {
            let (_, best) = self.peaks.iter().find(|(peak, _)| peak.backend == backend && peak.limit == limit)?;
            Some(format!("{:4.0} % of {}", 100.0 * amount / time / best, limit.name()))
        };
        limits.into_iter().flatten().filter_map(share).collect()
    }
}
