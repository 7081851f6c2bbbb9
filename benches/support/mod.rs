//! What the benches share: contestants timed in turn, and a table of their ratios.

use std::time::{Duration, Instant};

/// One way of doing the work.
pub(crate) struct Contestant<'a> {
    /// What it is called in the table.
    pub(crate) name: &'a str,
    /// Does the work once.
    pub(crate) run: Box<dyn FnMut() + 'a>,
}

impl<'a> Contestant<'a> {
    /// A contestant of that name.
    pub(crate) fn new(name: &'a str, run: impl FnMut() + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// How often each contestant has its turn.
const ROUNDS: usize = 15;
/// How long a turn lasts.
const TURN: Duration = Duration::from_millis(10);

/// The least time that each contestant's work took, in seconds.
///
/// The contestants take turns, and the least time counts: a processor that other programs share changes its speed for
/// seconds at a time, and only so does each contestant meet the same speeds.
pub(crate) fn least_times(contestants: &mut [Contestant<'_>]) -> Vec<f64> {
    let calls: Vec<u32> = contestants.iter_mut().map(|contestant| calls_per_turn(&mut contestant.run)).collect();
    let mut least = vec![f64::INFINITY; contestants.len()];
    for _ in 0..ROUNDS {
        for ((contestant, calls), least) in contestants.iter_mut().zip(&calls).zip(&mut least) {
            let start = Instant::now();
            (0..*calls).for_each(|_| (contestant.run)());
            *least = least.min(start.elapsed().as_secs_f64() / f64::from(*calls));
        }
    }
    least
}

fn calls_per_turn(run: &mut dyn FnMut()) -> u32 {
    let mut calls = 1;
    loop {
        let start = Instant::now();
        (0..calls).for_each(|_| run());
        if start.elapsed() >= TURN {
            return calls;
        }
        calls *= 2;
    }
}

/// Prints a line for each contestant: its least time, and its time divided by that of `peer`.
pub(crate) fn print_ratios(work: &str, contestants: &mut [Contestant<'_>], peer: &str) {
    let times = least_times(contestants);
    let peers_time =
        contestants.iter().zip(&times).find(|(contestant, _)| contestant.name == peer).map(|(_, time)| *time);
    for (contestant, time) in contestants.iter().zip(&times) {
        let ratio = peers_time.map_or(String::new(), |peers| format!("{:6.2} × {peer}", time / peers));
        println!("{work:<28} {:<18} {:>10.2} µs  {ratio}", contestant.name, time * 1e6);
    }
}
