//! The accuracy of exp, tanh and sigmoid against f64, over the bit patterns of f32, on every backend.

mod common;

use common::backends;
use common::reference;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use thumbnet::{Backend, kernels};

/// One of the library's functions, its reference, and what its documentation promises.
struct Function {
    name: &'static str,
    kernel: fn(Backend, &mut [f32]),
    reference: fn(f64) -> f64,
    /// Units in the last place.
    bound: f64,
}

const FUNCTIONS: [Function; 3] = [
    Function { name: "exp", kernel: kernels::exp, reference: f64::exp, bound: 2.0 },
    Function { name: "tanh", kernel: kernels::tanh, reference: f64::tanh, bound: 4.0 },
    Function { name: "sigmoid", kernel: kernels::sigmoid, reference: reference::sigmoid, bound: 4.0 },
];

/// The distance in units of the last place of the right result; of denormal results, in units of the smallest number.
fn ulps(found: f32, right: f64) -> f64 {
    let nearest = right as f32;
    if right.is_nan() || nearest.is_infinite() || found.is_nan() || found.is_infinite() {
        let same = (right.is_nan() && found.is_nan()) || found == nearest;
        return if same { 0.0 } else { f64::INFINITY };
    }
    let below = f64::from(f32::from_bits((right.abs() as f32).max(f32::MIN_POSITIVE).to_bits() & 0x7f80_0000));
    (f64::from(found) - right).abs() / (below * f64::from(f32::EPSILON))
}

/// The largest error of one backend, in units of the last place, and where it is.
type Worst = (f64, f32);

/// Walks through the bit patterns `first`, `first + step`, ... and fails at the first result beyond the bound.
fn walk(function: &Function, backends: &[Backend], first: u32, step: usize) -> Vec<Worst> {
    let mut worst = vec![(0.0, 0.0); backends.len()];
    let patterns: Vec<u32> = (first..=u32::MAX).step_by(step).collect();
    for chunk in patterns.chunks(4093) {
        let inputs: Vec<f32> = chunk.iter().copied().map(f32::from_bits).collect();
        let right: Vec<f64> = inputs.iter().map(|x| (function.reference)(f64::from(*x))).collect();
        for (backend, worst) in backends.iter().zip(&mut worst) {
            let mut found = inputs.clone();
            (function.kernel)(*backend, &mut found);
            for ((x, found), right) in inputs.iter().zip(&found).zip(&right) {
                let error = ulps(*found, *right);
                let name = function.name;
                assert!(error <= function.bound, "{name}({x:e}) = {found:e} is {error} ulp off on {}", backend.name());
                if error > worst.0 {
                    *worst = (error, *x);
                }
            }
        }
    }
    worst
}

fn print(function: &Function, backends: &[Backend], worst: &[Worst]) {
    for (backend, (error, x)) in backends.iter().zip(worst) {
        println!("{} on {}: at most {error:.3} ulp, at {x:e}", function.name, backend.name());
    }
}

/// A prime step, so that all endings of the mantissa come up: two million values.
#[test]
fn accurate_over_a_walk_through_all_floats() {
    for function in &FUNCTIONS {
        let worst = walk(function, &backends(), 0, 2_053);
        print(function, &backends(), &worst);
    }
}

/// Where the work is: every pattern around the branches, the ends of the range and the smallest results.
#[test]
fn accurate_around_the_seams() {
    let seams = [0.625f32, 9.01, 87.3, 88.72, 89.0, 103.97, 104.0, 1e-38, 0.346_573_6, 1.0, 0.0, f32::MAX];
    for function in &FUNCTIONS {
        for seam in seams {
            for sign in [0, 1 << 31] {
                let middle = seam.to_bits();
                let around = middle.saturating_sub(2000)..=(middle + 2000).min(0x7f80_0000);
                let inputs: Vec<_> = around.map(|bits| f32::from_bits(bits | sign)).collect();
                for backend in backends() {
                    let mut found = inputs.clone();
                    (function.kernel)(backend, &mut found);
                    for (x, found) in inputs.iter().zip(found) {
                        let error = ulps(found, (function.reference)(f64::from(*x)));
                        let (name, backend) = (function.name, backend.name());
                        assert!(error <= function.bound, "{name}({x:e}) = {found:e} is {error} ulp off on {backend}");
                    }
                }
            }
        }
    }
}

/// All four billion, which takes an hour of one core: `cargo test --release --test activations -- --ignored --nocapture`.
#[test]
#[ignore = "takes an hour of one core"]
fn accurate_for_every_float() {
    const PARTS: u32 = 256;
    let backends = backends();
    for function in &FUNCTIONS {
        let next = AtomicU32::new(0);
        let worst = Mutex::new(vec![(0.0, 0.0); backends.len()]);
        let work = || {
            while let part @ 0..PARTS = next.fetch_add(1, Ordering::Relaxed) {
                let found = walk(function, &backends, part, PARTS as usize);
                let mut worst = worst.lock().expect("no other thread has failed");
                worst.iter_mut().zip(found).filter(|(a, b)| b.0 > a.0).for_each(|(a, b)| *a = b);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
                scope.spawn(work);
            }
        });
        print(function, &backends, &worst.into_inner().expect("no thread has failed"));
    }
}

#[test]
fn special_values() {
    let inf = f32::INFINITY;
    let cases: [(&str, [(f32, f32); 9]); 3] = [
        (
            "exp",
            [
                (0., 1.),
                (-0., 1.),
                (inf, inf),
                (-inf, 0.),
                (89., inf),
                (-105., 0.),
                (1e-45, 1.),
                (f32::MAX, inf),
                (f32::MIN, 0.),
            ],
        ),
        (
            "tanh",
            [
                (0., 0.),
                (-0., -0.),
                (inf, 1.),
                (-inf, -1.),
                (20., 1.),
                (-20., -1.),
                (1e-45, 1e-45),
                (f32::MAX, 1.),
                (f32::MIN, -1.),
            ],
        ),
        (
            "sigmoid",
            [
                (0., 0.5),
                (-0., 0.5),
                (inf, 1.),
                (-inf, 0.),
                (40., 1.),
                (-200., 0.),
                (1e-45, 0.5),
                (f32::MAX, 1.),
                (f32::MIN, 0.),
            ],
        ),
    ];
    for backend in backends() {
        for (function, (name, cases)) in FUNCTIONS.iter().zip(&cases) {
            assert_eq!(function.name, *name);
            for (x, expected) in cases {
                let mut found = [*x];
                (function.kernel)(backend, &mut found);
                assert_eq!(found[0], *expected, "{name}({x:e}) on {}", backend.name());
            }
            let nan = [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)];
            let mut found = nan;
            (function.kernel)(backend, &mut found);
            assert!(found.iter().all(|x| x.is_nan()), "{name} of NaN is {found:?} on {}", backend.name());
        }
    }
}

/// Every length and alignment: no lane depends on its neighbours, and nothing beside the slice is touched.
#[test]
fn all_lengths_and_alignments() {
    let inputs: Vec<f32> = (0..70).map(|i| (i as f32 - 35.0) / 7.0).collect();
    for function in &FUNCTIONS {
        for backend in backends() {
            let mut single = inputs.clone();
            single.chunks_mut(1).for_each(|one| (function.kernel)(backend, one));
            for first in 0..17 {
                for end in first..=inputs.len() {
                    let mut found = inputs.clone();
                    (function.kernel)(backend, &mut found[first..end]);
                    let expected = [&inputs[..first], &single[first..end], &inputs[end..]].concat();
                    assert_eq!(found, expected, "{} of {first}..{end} on {}", function.name, backend.name());
                }
            }
        }
    }
}
