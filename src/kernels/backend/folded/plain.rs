//! The loops for processors without the DSP extension.

#[cfg(not(cortex_m_v6))]
use super::Weights;
use super::{Inputs, PANEL, Panels, Products, Runs, Then};

#[inline(never)]
pub(super) fn widen(x: &[i8], runs: &Runs, to: &mut [Inputs]) {
    let starts = (0..runs.count).map(|run| x.get(run * runs.pitch..).unwrap_or_default());
    for (x, to) in starts.zip(to.chunks_mut(runs.groups.max(1))) {
        widen_run(x, to);
    }
}

#[inline(always)]
fn widen_run(x: &[i8], to: &mut [Inputs]) {
    let pair = |low: i32, high: i32| (low as u32 & 0xffff) | (high as u32) << 16;
    let (x, _) = x.as_chunks::<4>();
    for (to, x) in to.iter_mut().zip(x) {
        let [x0, x1, x2, x3] = x.map(i32::from);
        *to = [pair(x1, x3), pair(256 * x0 - x1, 256 * x2 - x3)];
    }
}

#[inline(always)]
pub(super) fn add_row(x: &[[i8; 4]], panels: Panels<'_>, workspace: &mut [u32], sums: &mut [[i32; PANEL]]) {
    let (words, _) = workspace.as_chunks_mut::<2>();
    let words = words.get_mut(..x.len()).unwrap_or_default();
    widen_run(x.as_flattened(), words);
    let Panels { weights, stride } = panels;
    let row = Products { weights, panels: sums.len(), stride, windows: 1, step: 0, groups: x.len(), inputs: x.len() };
    products(words, &row, Then::Add, sums);
}

#[inline(never)]
pub(super) fn products(x: &[Inputs], products: &Products<'_>, then: Then, sums: &mut [[i32; PANEL]]) {
    let mut weights = products.weights;
    for sums in sums {
        let mut windows = x;
        for _ in 0..products.windows {
            let made = window(windows.get(..products.groups).unwrap_or_default(), weights);
            for (sum, product) in sums.iter_mut().zip(made.map(|product| product >> 8)) {
                *sum = if then == Then::Pool { product.max(*sum) } else { sum.wrapping_add(product) };
            }
            windows = windows.get(products.step..).unwrap_or_default();
        }
        weights = weights.get(products.stride..).unwrap_or_default();
    }
}

#[cfg(cortex_m_v6)]
use super::v6m::window;

/// 256 times the products.
#[cfg(not(cortex_m_v6))]
#[inline(always)]
fn window(x: &[Inputs], weights: &[Weights]) -> [i32; PANEL] {
    let low = |word: u32| i32::from(word as i16);
    let high = |word: u32| word.cast_signed() >> 16;
    let mut sums = [0i32; PANEL];
    for ([odd, even], weights) in x.iter().zip(weights) {
        for (sum, word) in sums.iter_mut().zip(weights) {
            let products = [
                low(*word).wrapping_mul(low(*odd)),
                high(*word).wrapping_mul(high(*odd)),
                i32::from(*word as i8).wrapping_mul(low(*even)),
                i32::from((*word >> 16) as i8).wrapping_mul(high(*even)),
            ];
            *sum = products.iter().fold(*sum, |sum, product| sum.wrapping_add(*product));
        }
    }
    sums
}
