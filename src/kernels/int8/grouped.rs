//! Dot products with grouped weights.

use super::tensor::GROUPED_PANEL;

/// The weights of four inputs for the sixteen outputs of a panel.
pub(crate) type Group = [[i8; 4]; GROUPED_PANEL];

/// Adds the products of a run of inputs to the `sums` of a panel; `weights` holds a group for each four inputs, of which the
/// last may be fewer.
#[inline(always)]
pub(crate) fn add_products(x: &[i8], weights: &[Group], sums: &mut [i32; GROUPED_PANEL]) {
    let (groups, rest) = x.as_chunks::<4>();
    let mut last = [0; 4];
    last.iter_mut().zip(rest).for_each(|(to, x)| *to = *x);
    let last = (!rest.is_empty()).then_some(&last);
    for (x, group) in groups.iter().chain(last).zip(weights) {
        for (sum, weights) in sums.iter_mut().zip(group) {
            for (x, weight) in x.iter().zip(weights) {
                *sum = sum.wrapping_add(i32::from(*x) * i32::from(*weight));
            }
        }
    }
}
