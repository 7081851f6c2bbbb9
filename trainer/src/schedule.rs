//! What becomes of the learning rate in the course of a training.

use serde::{Deserialize, Serialize};

/// The course of the learning rate, as a factor of the recipe's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// It is multiplied by a factor after every so many epochs.
    Step(Step),
    /// It falls to zero along half a cosine, batch by batch. Source: Loshchilov and Hutter, "SGDR: Stochastic Gradient
    /// Descent with Warm Restarts" (2017), without the restarts.
    Cosine,
    /// It rises along half a cosine to the recipe's rate, then falls along another to almost nothing. Source: Smith and Topin,
    /// "Super-Convergence" (2018).
    OneCycle(OneCycle),
}

/// See [`Schedule::Step`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// After every so many epochs.
    pub every: u32,
    /// The factor.
    pub factor: f64,
}

/// See [`Schedule::OneCycle`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycle {
    /// The part of the training in which the rate rises, 0 to 1.
    pub rise: f64,
    /// The part of the recipe's rate that it starts from.
    pub start: f64,
    /// The part of the recipe's rate that it ends at.
    pub end: f64,
}

impl Default for OneCycle {
    fn default() -> Self {
        OneCycle { rise: 0.3, start: 0.04, end: 4e-6 }
    }
}

impl Schedule {
    /// The factor of the learning rate after so many of all `epochs`.
    pub fn factor(self, done: f64, epochs: u32) -> f64 {
        let part = done / f64::from(epochs);
        match self {
            Schedule::Constant => 1.0,
            Schedule::Step(step) => step.factor.powi((done / f64::from(step.every)).floor() as i32),
            Schedule::Cosine => between(1.0, 0.0, part),
            Schedule::OneCycle(cycle) if part < cycle.rise => between(cycle.start, 1.0, part / cycle.rise),
            Schedule::OneCycle(cycle) => between(1.0, cycle.end, (part - cycle.rise) / (1.0 - cycle.rise)),
        }
    }

    /// What is wrong with it, if anything.
    pub(crate) fn problem(self) -> Option<String> {
        match self {
            Schedule::Step(Step { every: 0, .. }) => Some("every = 0 of a step schedule must be at least 1".to_owned()),
            Schedule::Step(Step { factor, .. }) if !(factor > 0.0 && factor.is_finite()) => {
                Some(format!("factor = {factor} of a step schedule must be positive"))
            }
            Schedule::OneCycle(OneCycle { rise, .. }) if !(0.0..1.0).contains(&rise) => {
                Some(format!("rise = {rise} of a one-cycle schedule must be at least 0 and less than 1"))
            }
            _ => None,
        }
    }
}

/// Half a cosine from `first` to `last`, of which `part`, 0 to 1, is done.
fn between(first: f64, last: f64, part: f64) -> f64 {
    last + (first - last) * (1.0 + (std::f64::consts::PI * part.clamp(0.0, 1.0)).cos()) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factors(schedule: Schedule, done: &[f64]) -> Vec<f64> {
        done.iter().map(|&done| (schedule.factor(done, 10) * 1e9).round() / 1e9).collect()
    }

    #[test]
    fn factors_of_every_schedule() {
        assert_eq!(factors(Schedule::Constant, &[0.0, 7.0]), [1.0, 1.0]);
        assert_eq!(factors(Schedule::Cosine, &[0.0, 5.0, 10.0]), [1.0, 0.5, 0.0]);
        let step = Schedule::Step(Step { every: 4, factor: 0.5 });
        assert_eq!(factors(step, &[0.0, 3.99, 4.0, 8.5]), [1.0, 1.0, 0.5, 0.25]);
        let cycle = Schedule::OneCycle(OneCycle { rise: 0.5, start: 0.2, end: 0.1 });
        assert_eq!(factors(cycle, &[0.0, 2.5, 5.0, 7.5, 10.0]), [0.2, 0.6, 1.0, 0.55, 0.1]);
    }

    #[test]
    fn senseless_schedules_are_named() {
        assert!(Schedule::Step(Step { every: 0, factor: 0.1 }).problem().unwrap().contains("every"));
        assert!(Schedule::Step(Step { every: 1, factor: 0.0 }).problem().unwrap().contains("factor"));
        assert!(Schedule::OneCycle(OneCycle { rise: 1.0, ..OneCycle::default() }).problem().unwrap().contains("rise"));
        assert_eq!(Schedule::Cosine.problem(), None);
    }
}
