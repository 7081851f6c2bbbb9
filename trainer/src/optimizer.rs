//! How gradients change parameters.

use crate::elementwise;
use crate::kernels::optimize::{self, Adam, Momentum, Penalty};
use crate::layers::Parameters;
use crate::network::{Network, Replica};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// The rule by which a gradient changes its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// Stochastic gradient descent, `parameter -= rate * velocity` with `velocity = momentum * velocity + gradient`.
    Sgd {
        /// The part of the last velocity that is kept.
        #[serde(default)]
        momentum: f32,
        /// Whether the step looks one ahead: `rate * (gradient + momentum * velocity)`. Source: Sutskever et al., "On the
        /// importance of initialization and momentum in deep learning" (2013), in the usual reformulation.
        #[serde(default)]
        nesterov: bool,
    },
    /// Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015).
    Adam {
        /// The part of the mean gradient that is kept.
        #[serde(default = "beta1")]
        beta1: f32,
        /// The part of the mean squared gradient that is kept.
        #[serde(default = "beta2")]
        beta2: f32,
        /// Added to the root of the latter.
        #[serde(default = "epsilon")]
        epsilon: f32,
    },
    /// Adam with weight decay apart from the gradient: `weight -= rate * weight_decay * weight`. Biases and the parameters of
    /// batch normalisations do not decay. Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019).
    AdamW {
        /// As of Adam.
        #[serde(default = "beta1")]
        beta1: f32,
        /// As of Adam.
        #[serde(default = "beta2")]
        beta2: f32,
        /// As of Adam.
        #[serde(default = "epsilon")]
        epsilon: f32,
        /// See above.
        #[serde(default = "weight_decay")]
        weight_decay: f32,
    },
}

fn beta1() -> f32 {
    0.9
}

fn beta2() -> f32 {
    0.999
}

fn epsilon() -> f32 {
    1e-8
}

fn weight_decay() -> f32 {
    0.01
}

impl Default for Rule {
    fn default() -> Self {
        Rule::Sgd { momentum: 0.0, nesterov: false }
    }
}

impl Rule {
    /// What is wrong with it, if anything.
    pub(crate) fn problem(self) -> Option<String> {
        let part = |name: &str, value: f32| {
            (!(0.0..1.0).contains(&value)).then(|| format!("{name} = {value} must be at least 0 and less than 1"))
        };
        match self {
            Rule::Sgd { momentum, .. } => part("momentum", momentum),
            Rule::Adam { beta1, beta2, epsilon } | Rule::AdamW { beta1, beta2, epsilon, .. } => {
                let refused = !(epsilon > 0.0 && epsilon.is_finite());
                let epsilon = refused.then(|| format!("epsilon = {epsilon} must be positive"));
                let decay = match self {
                    Rule::AdamW { weight_decay, .. } => not_negative("weight_decay", weight_decay),
                    _ => None,
                };
                part("beta1", beta1).or(part("beta2", beta2)).or(epsilon).or(decay)
            }
        }
    }

    /// How many values it remembers of each parameter.
    fn memories(self) -> usize {
        match self {
            Rule::Sgd { momentum: 0.0, .. } => 0,
            Rule::Sgd { .. } => 1,
            Rule::Adam { .. } | Rule::AdamW { .. } => 2,
        }
    }
}

/// What is wrong with a value that must not be negative, if anything.
fn not_negative(name: &str, value: f32) -> Option<String> {
    (!(value >= 0.0 && value.is_finite())).then(|| format!("{name} = {value} must not be negative"))
}

/// What is done to gradients before the rule sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Regularize {
    /// Adds this times the sign of every weight to its gradient: the loss has `l1 * sum |w|`.
    pub l1: f32,
    /// Adds this times every weight to its gradient: the loss has `l2 / 2 * sum w^2`. Biases and the parameters of batch
    /// normalisations are spared by both.
    pub l2: f32,
    /// Scales all gradients down together if their Euclidean norm exceeds this; off at 0. Source: Pascanu et al., "On the
    /// difficulty of training recurrent neural networks" (2013).
    pub clip_norm: f32,
}

impl Regularize {
    /// What is wrong with it, if anything.
    pub(crate) fn problem(self) -> Option<String> {
        not_negative("l1", self.l1).or(not_negative("l2", self.l2)).or(not_negative("clip_norm", self.clip_norm))
    }
}

/// What an optimizer remembers from step to step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The number of steps.
    steps: u64,
    /// The mean gradients or velocities of each tensor, then the mean squared gradients.
    moments: [Vec<Vec<f32>>; 2],
}

/// The optimizer of one training.
#[derive(Clone, Debug)]
pub struct Optimizer {
    rule: Rule,
    regularize: Regularize,
    /// What it remembers.
    pub memory: Memory,
}

/// Tensors of more values than this are worked on by several threads, in pieces of so many: the result is the same whatever
/// their number.
const PIECE: usize = 1 << 14;

/// The part of the running mean and variance of a batch normalisation that a batch leaves.
const RUNNING_KEPT: f32 = 0.9;

impl Optimizer {
    /// An optimizer that has made no step yet.
    pub fn new(rule: Rule, regularize: Regularize) -> Self {
        Optimizer { rule, regularize, memory: Memory::default() }
    }

    /// Whether each replica's gradients can be stepped along by themselves, and rows without a gradient left alone.
    fn is_plain(&self) -> bool {
        self.rule == Rule::default() && self.regularize == Regularize::default()
    }

    /// One step along the gradients in the first `count` replicas, the sum of which is divided by `images`; `kernel_rate`
    /// is for convolutions and `rate` for the other layers. The gradients are cleared.
    pub fn step(&mut self, network: &mut Network, count: usize, images: f64, rate: f64, kernel_rate: f64) {
        let (parameters, frozen, replicas) = network.split_mut();
        let replicas = &mut replicas[..count];
        let learning = parameters.iter_mut().enumerate().skip(frozen);
        let mut learning: Vec<_> = learning.filter_map(|(index, own)| own.as_mut().map(|own| (index, own))).collect();
        for (index, parameters) in &mut learning {
            keep_statistics(parameters, *index, replicas);
        }
        if !self.is_plain() {
            return self.step_all(&mut learning, replicas, images, rate as f32);
        }
        for (index, parameters) in learning {
            let rate = if replicas[0].is_conv2d(index) { kernel_rate } else { rate };
            for replica in replicas.iter_mut() {
                parameters.descend(replica.sums_mut(index), (rate / images) as f32);
            }
            parameters.refresh();
        }
    }

    fn step_all(
        &mut self,
        learning: &mut [(usize, &mut Parameters)],
        replicas: &mut [Replica],
        images: f64,
        rate: f32,
    ) {
        for (index, _) in learning.iter() {
            add_up(*index, replicas);
        }
        let scale = self.clip(learning, &mut replicas[0], images);
        self.memory.steps += 1;
        for (number, (index, parameters)) in learning.iter_mut().enumerate() {
            let gradients = replicas[0].sums_mut(*index);
            let is_norm = !parameters.running.is_empty();
            let [weights, bias] = parameters.learned_mut();
            self.step_tensor(2 * number, weights, &mut gradients.weights, scale, rate, !is_norm);
            self.step_tensor(2 * number + 1, bias, &mut gradients.bias, scale, rate, false);
            parameters.refresh();
        }
    }

    /// The factor that makes means of gradients summed over so many images, and limits their norm.
    fn clip(&self, learning: &[(usize, &mut Parameters)], replica: &mut Replica, images: f64) -> f32 {
        let (limit, scale) = (f64::from(self.regularize.clip_norm), 1.0 / images);
        if limit == 0.0 {
            return scale as f32;
        }
        let squares = |index: usize| {
            let gradients = replica.sums_mut(index);
            optimize::sum_of_squares(&gradients.weights) + optimize::sum_of_squares(&gradients.bias)
        };
        let norm = learning.iter().map(|(index, _)| *index).map(squares).sum::<f64>().sqrt() * scale;
        (scale * (limit / norm).min(1.0)) as f32
    }

    /// One step of tensor number `tensor`, along `scale` times `gradient`, which is cleared. Penalties on large values are for
    /// weights only.
    fn step_tensor(
        &mut self,
        tensor: usize,
        values: &mut [f32],
        gradient: &mut [f32],
        scale: f32,
        rate: f32,
        are_weights: bool,
    ) {
        for moments in &mut self.memory.moments[..self.rule.memories()] {
            if moments.len() <= tensor {
                moments.push(vec![0.0; values.len()]);
            }
        }
        let mut penalty = Penalty::none(scale);
        if are_weights {
            (penalty.l1, penalty.l2) = (self.regularize.l1, self.regularize.l2);
        }
        let [first, second] = &mut self.memory.moments;
        match self.rule {
            Rule::Sgd { momentum: 0.0, .. } => optimize::descend(rate, penalty, values, gradient),
            Rule::Sgd { momentum, nesterov } => {
                let step = Momentum { rate, momentum, nesterov };
                in_pieces(values, gradient, &mut first[tensor], None, |values, gradient, velocity, _| {
                    optimize::momentum(step, penalty, values, gradient, velocity);
                });
            }
            Rule::Adam { beta1, beta2, epsilon } | Rule::AdamW { beta1, beta2, epsilon, .. } => {
                if let (Rule::AdamW { weight_decay, .. }, true) = (self.rule, are_weights) {
                    penalty.decay = rate * weight_decay;
                }
                let betas = [beta1, beta2].map(f64::from);
                let step = Adam::new(self.memory.steps, f64::from(rate), betas, f64::from(epsilon));
                in_pieces(
                    values,
                    gradient,
                    &mut first[tensor],
                    Some(&mut second[tensor]),
                    |values, gradient, mean, square| {
                        optimize::adam(step, penalty, values, gradient, mean, square);
                    },
                );
            }
        }
    }
}

/// Calls `step` with corresponding pieces of four tensors, the last of which may be missing.
fn in_pieces(
    values: &mut [f32],
    gradient: &mut [f32],
    first: &mut [f32],
    second: Option<&mut [f32]>,
    step: impl Fn(&mut [f32], &mut [f32], &mut [f32], &mut [f32]) + Sync,
) {
    let second = second.unwrap_or(&mut []);
    if values.len() <= PIECE {
        return step(values, gradient, first, second);
    }
    let pieces = values.par_chunks_mut(PIECE).zip(gradient.par_chunks_mut(PIECE)).zip(first.par_chunks_mut(PIECE));
    if second.is_empty() {
        pieces.for_each(|((values, gradient), first)| step(values, gradient, first, &mut []));
    } else {
        let pieces = pieces.zip(second.par_chunks_mut(PIECE));
        pieces.for_each(|(((values, gradient), first), second)| step(values, gradient, first, second));
    }
}

/// Adds the gradients of layer `index` of all replicas to the first one's; the others' are cleared.
fn add_up(index: usize, replicas: &mut [Replica]) {
    let (first, others) = replicas.split_first_mut().expect("at least one replica");
    let sums = first.sums_mut(index);
    sums.forget_touched();
    for other in others {
        let other = other.sums_mut(index);
        other.forget_touched();
        let pairs = [(&mut sums.weights, &mut other.weights), (&mut sums.bias, &mut other.bias)];
        for (sums, other) in pairs {
            let pieces = sums.par_chunks_mut(PIECE).zip(other.par_chunks_mut(PIECE));
            pieces.for_each(|(sums, other)| elementwise::take(sums, other));
        }
    }
}

/// Moves the running mean and variance of a batch normalisation towards what the replicas saw.
fn keep_statistics(parameters: &mut Parameters, index: usize, replicas: &mut [Replica]) {
    if parameters.running.is_empty() {
        return;
    }
    let share = (1.0 - RUNNING_KEPT) / replicas.len() as f32;
    parameters.running.iter_mut().for_each(|value| *value *= RUNNING_KEPT);
    for replica in replicas {
        elementwise::add_scaled(&mut parameters.running, share, &replica.sums_mut(index).statistics);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `steps` steps of one parameter with the gradient `2 * parameter`.
    fn course(rule: Rule, steps: usize) -> Vec<f32> {
        let mut optimizer = Optimizer::new(rule, Regularize::default());
        let mut value = [1.0];
        (0..steps)
            .map(|_| {
                optimizer.memory.steps += 1;
                let mut gradient = [4.0 * value[0]];
                optimizer.step_tensor(0, &mut value, &mut gradient, 0.5, 0.1, true);
                assert_eq!(gradient, [0.0]);
                value[0]
            })
            .collect()
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 2e-6, "{found}, expected {expected}");
        }
    }

    // The expected values were printed by PyTorch 2.15 (`torch.optim`, float64) for the loss x^2 from x = 1, rate 0.1.
    #[test]
    fn courses_are_those_of_pytorch() {
        assert_close(&course(Rule::default(), 3), &[0.8, 0.64, 0.512]);
        assert_close(&course(Rule::Sgd { momentum: 0.9, nesterov: false }, 3), &[0.8, 0.46, 0.062]);
        assert_close(&course(Rule::Sgd { momentum: 0.9, nesterov: true }, 3), &[0.62, 0.2224, -0.108_352]);
        let (beta1, beta2, epsilon) = (beta1(), beta2(), epsilon());
        assert_close(&course(Rule::Adam { beta1, beta2, epsilon }, 3), &[0.9, 0.800_412_2, 0.701_586_3]);
        let adam_w = Rule::AdamW { beta1, beta2, epsilon, weight_decay: 0.1 };
        assert_close(&course(adam_w, 3), &[0.89, 0.781_571_9, 0.675_101_2]);
    }

    #[test]
    fn senseless_values_are_named() {
        assert!(Rule::Sgd { momentum: 1.0, nesterov: false }.problem().unwrap().contains("momentum"));
        let adam = Rule::Adam { beta1: 0.9, beta2: -0.1, epsilon: 1e-8 };
        assert!(adam.problem().unwrap().contains("beta2"));
        assert!(Regularize { l1: f32::NAN, ..Regularize::default() }.problem().unwrap().contains("l1"));
        assert_eq!(Rule::default().problem(), None);
    }
}
