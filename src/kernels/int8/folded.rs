//! Dot products with folded weights.
//!
//! A half-word holds two weights as `s = w0 + 256 w1`. With `y = 256 x0 - x1`,
//!
//! ```text
//! s * x1 + w0 * y = 256 (w1 * x1 + w0 * x0)
//! ```
//!
//! exactly, so the products of a pair need only one weight taken out of the word. A Cortex-M with the DSP extension does two
//! pairs at a time: `SMLAD(word, (x1, x3))` and `SMLAD(SXTB16(word), (y0, y2))`. The sums are 256 times too large, and are
//! divided before they could overflow.

/// Four inputs in the form that the products want them in: the half-words `(x1, x3)` and `(256 x0 - x1, 256 x2 - x3)`.
pub(crate) type Inputs = [u32; 2];
/// The weights of four inputs for the four outputs of a panel.
pub(crate) type Weights = [u32; 4];

/// The inputs after which a sum, 256 times too large, must be divided: 127 * 127 * 256 * 520 is just less than 2^31.
pub(crate) const GROUPS_AT_A_TIME: usize = 128;

const _: () = assert!(127 * 127 * 256 * 4 * GROUPS_AT_A_TIME as i64 <= i32::MAX as i64);

/// Brings four int8 inputs into form.
#[inline(always)]
pub(crate) fn widen([x0, x1, x2, x3]: [i8; 4]) -> Inputs {
    let pair = |low: i32, high: i32| (low as u32 & 0xffff) | (high as u32) << 16;
    let [x0, x1, x2, x3] = [x0, x1, x2, x3].map(i32::from);
    [pair(x1, x3), pair(256 * x0 - x1, 256 * x2 - x3)]
}

/// Brings int8 inputs into form, four at a time; zeros stand for the inputs of the last four that there are not.
#[inline(never)]
pub(crate) fn widen_all(x: &[i8], to: &mut [Inputs]) {
    let (groups, rest) = x.as_chunks::<4>();
    let mut to = to.iter_mut();
    to.by_ref().zip(groups).for_each(|(to, group)| *to = widen(*group));
    if let Some(to) = to.next() {
        let mut group = [0; 4];
        group.iter_mut().zip(rest).for_each(|(to, x)| *to = *x);
        *to = widen(group);
    }
}

/// Adds to the `sums` of some panels the products of all inputs; `weights` holds as many groups for each panel as there are
/// in `x`.
#[inline(never)]
pub(crate) fn add_products(x: &[Inputs], weights: &[Weights], sums: &mut [[i32; 4]]) {
    for (panel, sums) in weights.chunks_exact(x.len().max(1)).zip(sums) {
        for (x, weights) in x.chunks(GROUPS_AT_A_TIME).zip(panel.chunks(GROUPS_AT_A_TIME)) {
            let products = products(x, weights);
            sums.iter_mut().zip(products).for_each(|(sum, product)| *sum = sum.wrapping_add(product >> 8));
        }
    }
}

/// 256 times the products of up to [`GROUPS_AT_A_TIME`] groups.
#[inline(always)]
fn products(x: &[Inputs], weights: &[Weights]) -> [i32; 4] {
    let low = |word: u32| i32::from(word as i16);
    let high = |word: u32| word.cast_signed() >> 16;
    let mut sums = [0i32; 4];
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
