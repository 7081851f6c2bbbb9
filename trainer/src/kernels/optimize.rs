//! One update of a layer's parameters, each in one pass over them. The gradient is cleared for the next batch.
//!
//! Products and sums are rounded one by one on every instruction set, so an update gives the same bits everywhere.

use multiversion::multiversion;

/// How a summed gradient becomes the one that is followed: `scale * gradient + l1 * sign(w) + l2 * w`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalty {
    /// One by the number of images, times what clips the norm.
    pub scale: f32,
    /// The factor of `|w|` in the loss.
    pub l1: f32,
    /// The factor of `w * w / 2` in the loss.
    pub l2: f32,
    /// What is taken from each weight besides, as a share of it, before anything else: decoupled weight decay (Loshchilov
    /// and Hutter 2019, arXiv 1711.05101), `learning rate * decay`.
    pub decay: f32,
}

impl Penalty {
    /// No penalty, only the scale.
    pub const fn none(scale: f32) -> Self {
        Penalty { scale, l1: 0.0, l2: 0.0, decay: 0.0 }
    }

    #[inline(always)]
    fn gradient(&self, gradient: f32, weight: f32) -> f32 {
        let sign = if weight > 0.0 { self.l1 } else { 0.0 } - if weight < 0.0 { self.l1 } else { 0.0 };
        self.scale * gradient + sign + self.l2 * weight
    }
}

/// Gradient descent with momentum: `velocity = momentum * velocity + gradient`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// The learning rate.
    pub rate: f32,
    /// The share of the velocity that stays.
    pub momentum: f32,
    /// Whether the gradient is taken where the velocity leads (Sutskever et al. 2013): the step is
    /// `gradient + momentum * velocity` instead of the velocity.
    pub nesterov: bool,
}

/// Adam (Kingma and Ba 2015, arXiv 1412.6980), with the corrections of both averages' bias in the numbers of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    rate: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
}

impl Adam {
    /// Step `number` (from 1 on) with learning rate `rate`.
    pub fn new(number: u64, rate: f64, [beta1, beta2]: [f64; 2], epsilon: f64) -> Self {
        // (f64::powf, as the number of a step may be larger than an i32.)
        let correction = |beta: f64| 1.0 - beta.powf(number as f64);
        // rate * (m / c1) / (sqrt(v / c2) + epsilon), with numerator and denominator times sqrt(c2)
        let root = correction(beta2).sqrt();
        Adam {
            rate: (rate * root / correction(beta1)) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            epsilon: (epsilon * root) as f32,
        }
    }
}

/// `weights -= rate * gradient`.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub fn descend(rate: f32, penalty: Penalty, weights: &mut [f32], gradient: &mut [f32]) {
    for (weight, slope) in weights.iter_mut().zip(gradient) {
        let g = penalty.gradient(*slope, *weight);
        *weight = *weight - penalty.decay * *weight - rate * g;
        *slope = 0.0;
    }
}

/// One step with momentum. `velocity` starts as zeros.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub fn momentum(step: Momentum, penalty: Penalty, weights: &mut [f32], gradient: &mut [f32], velocity: &mut [f32]) {
    let Momentum { rate, momentum, nesterov } = step;
    // g + momentum * v, or v
    let (by_gradient, by_velocity) = if nesterov { (1.0, momentum) } else { (0.0, 1.0) };
    for ((weight, slope), velocity) in weights.iter_mut().zip(gradient).zip(velocity) {
        let g = penalty.gradient(*slope, *weight);
        let v = momentum * *velocity + g;
        *velocity = v;
        *weight = *weight - penalty.decay * *weight - rate * (by_gradient * g + by_velocity * v);
        *slope = 0.0;
    }
}

/// One step of Adam; of AdamW with [`Penalty::decay`]. The averages of the gradient and of its square, `first` and
/// `second`, start as zeros.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub fn adam(
    step: Adam,
    penalty: Penalty,
    weights: &mut [f32],
    gradient: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let Adam { rate, beta1, beta2, epsilon } = step;
    for (((weight, slope), first), second) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
        let g = penalty.gradient(*slope, *weight);
        let m = beta1 * *first + (1.0 - beta1) * g;
        let v = beta2 * *second + (1.0 - beta2) * (g * g);
        (*first, *second) = (m, v);
        *weight = *weight - penalty.decay * *weight - rate * m / (v.sqrt() + epsilon);
        *slope = 0.0;
    }
}

/// `average = decay * average + (1 - decay) * weights`: the exponential moving average.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub fn average(decay: f32, weights: &[f32], average: &mut [f32]) {
    for (average, &weight) in average.iter_mut().zip(weights) {
        *average = decay * *average + (1.0 - decay) * weight;
    }
}

/// The sum of the squares, for clipping by the norm. The same on every instruction set.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
pub fn sum_of_squares(values: &[f32]) -> f64 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut sums = [0.0f64; 16];
    for block in blocks {
        for (sum, &value) in sums.iter_mut().zip(block) {
            *sum += f64::from(value) * f64::from(value);
        }
    }
    let rest: f64 = rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 37;

    fn numbers(step: f32) -> Vec<f32> {
        (0..COUNT).map(|i| (i as f32 * step + 0.1).sin()).collect()
    }

    const PENALTY: Penalty = Penalty { scale: 0.5, l1: 0.01, l2: 0.02, decay: 0.003 };

    /// The gradient with its penalty, and the weight after its decay.
    fn penalized(weight: f64, gradient: f64) -> (f64, f64) {
        (0.5 * gradient + 0.01 * weight.signum() + 0.02 * weight, weight * (1.0 - 0.003))
    }

    /// Three updates with the same gradient; `update` gets the weight, the gradient and two numbers that it keeps.
    fn check(
        mut found: impl FnMut(u64, &mut [f32], &mut [f32]),
        expected: impl Fn(i32, f64, f64, &mut [f64; 2]) -> f64,
        name: &str,
    ) {
        let (mut weights, gradient) = (numbers(0.7), numbers(0.3));
        let mut exact: Vec<f64> = weights.iter().map(|&w| f64::from(w)).collect();
        let mut kept = vec![[0.0; 2]; COUNT];
        for number in 1..=3 {
            let mut slopes = gradient.clone();
            found(number, &mut weights, &mut slopes);
            assert!(slopes.iter().all(|&slope| slope == 0.0), "{name} leaves gradients");
            for (i, weight) in exact.iter_mut().enumerate() {
                *weight = expected(number as i32, *weight, f64::from(gradient[i]), &mut kept[i]);
            }
        }
        for (i, (&found, expected)) in weights.iter().zip(exact).enumerate() {
            assert!((f64::from(found) - expected).abs() < 1e-5, "{name}: weight {i} is {found}, expected {expected}");
        }
    }

    #[test]
    fn plain_descent() {
        let expected = |_, weight: f64, gradient: f64, _: &mut [f64; 2]| {
            let (g, weight) = penalized(weight, gradient);
            weight - 0.1 * g
        };
        check(|_, weights, gradient| descend(0.1, PENALTY, weights, gradient), expected, "descent");
    }

    #[test]
    fn momentum_with_and_without_looking_ahead() {
        for nesterov in [false, true] {
            let step = Momentum { rate: 0.1, momentum: 0.9, nesterov };
            let mut velocity = vec![0.0; COUNT];
            let expected = |_, weight: f64, gradient: f64, kept: &mut [f64; 2]| {
                let (g, weight) = penalized(weight, gradient);
                kept[0] = 0.9 * kept[0] + g;
                weight - 0.1 * if nesterov { g + 0.9 * kept[0] } else { kept[0] }
            };
            let found = |_, weights: &mut [f32], gradient: &mut [f32]| {
                momentum(step, PENALTY, weights, gradient, &mut velocity);
            };
            check(found, expected, "momentum");
        }
    }

    #[test]
    fn adam_corrects_the_bias() {
        let (mut first, mut second) = (vec![0.0; COUNT], vec![0.0; COUNT]);
        let expected = |number, weight: f64, gradient: f64, kept: &mut [f64; 2]| {
            let (g, weight) = penalized(weight, gradient);
            *kept = [0.9 * kept[0] + 0.1 * g, 0.999 * kept[1] + 0.001 * g * g];
            let corrected = [kept[0] / (1.0 - 0.9f64.powi(number)), kept[1] / (1.0 - 0.999f64.powi(number))];
            weight - 0.1 * corrected[0] / (corrected[1].sqrt() + 1e-7)
        };
        let found = |number, weights: &mut [f32], gradient: &mut [f32]| {
            adam(Adam::new(number, 0.1, [0.9, 0.999], 1e-7), PENALTY, weights, gradient, &mut first, &mut second);
        };
        check(found, expected, "adam");
    }

    #[test]
    fn averages_and_norms() {
        let (weights, mut mean) = (numbers(0.7), numbers(0.3));
        average(0.75, &weights, &mut mean);
        for ((found, &weight), before) in mean.iter().zip(&weights).zip(numbers(0.3)) {
            assert!((found - (0.75 * before + 0.25 * weight)).abs() < 1e-6);
        }
        let expected: f64 = weights.iter().map(|&w| f64::from(w) * f64::from(w)).sum();
        assert!((sum_of_squares(&weights) - expected).abs() < 1e-12);
    }
}
