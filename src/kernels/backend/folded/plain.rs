//! The loops for processors without the DSP extension.

#[cfg(not(cortex_m_v6))]
use super::Weights;
use super::{Inputs, PANEL, Panels, Runs, Then, Windows};

#[inline(never)]
pub(super) fn widen(runs: Runs<'_>, groups: usize, to: &mut [Inputs]) {
    let pair = |low: i32, high: i32| (low as u32 & 0xffff) | (high as u32) << 16;
    let starts = (0..runs.count).map(|run| runs.x.get(run * runs.pitch..).unwrap_or_default());
    for (x, to) in starts.zip(to.chunks_mut(groups.max(1))) {
        let (x, _) = x.as_chunks::<4>();
        for (to, x) in to.iter_mut().zip(x) {
            let [x0, x1, x2, x3] = x.map(i32::from);
            *to = [pair(x1, x3), pair(256 * x0 - x1, 256 * x2 - x3)];
        }
    }
}

#[inline(always)]
pub(super) fn add_row(x: &[[i8; 4]], panels: Panels<'_>, workspace: &mut [u32], sums: &mut [[i32; PANEL]]) {
    let (words, _) = workspace.as_chunks_mut::<2>();
    let words = words.get_mut(..x.len()).unwrap_or_default();
    widen(Runs { x: x.as_flattened(), count: 1, pitch: 0 }, x.len(), words);
    products(Windows { x: words, groups: x.len(), step: 0, count: 1 }, panels, Then::Add, sums);
}

#[inline(never)]
pub(super) fn products(x: Windows<'_>, panels: Panels<'_>, then: Then, sums: &mut [[i32; PANEL]]) {
    let mut weights = panels.weights;
    for sums in sums {
        let mut windows = x.x;
        for _ in 0..x.count {
            let products = window(windows.get(..x.groups).unwrap_or_default(), weights);
            for (sum, product) in sums.iter_mut().zip(products.map(|product| product >> 8)) {
                *sum = if then == Then::Pool { product.max(*sum) } else { sum.wrapping_add(product) };
            }
            windows = windows.get(x.step..).unwrap_or_default();
        }
        weights = weights.get(panels.stride..).unwrap_or_default();
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
