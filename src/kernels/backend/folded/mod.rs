//! Dot products with folded int8 weights.
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

#[cfg(cortex_m_dsp)]
mod dsp;
#[cfg(not(cortex_m_dsp))]
mod plain;
#[cfg(cortex_m_v6)]
mod v6m;

#[cfg(cortex_m_dsp)]
use dsp as implementation;
#[cfg(not(cortex_m_dsp))]
use plain as implementation;

/// The outputs of a panel.
pub(crate) const PANEL: usize = 4;
/// Four inputs in the form that the products want them in: the half-words `(x1, x3)` and `(256 x0 - x1, 256 x2 - x3)`.
pub(crate) type Inputs = [u32; 2];
/// The weights of four inputs for the outputs of a panel.
pub(crate) type Weights = [u32; PANEL];

/// The groups of inputs after which a sum, 256 times too large, must be divided: after 520 inputs it could overflow.
pub(crate) const GROUPS_AT_A_TIME: usize = 128;

const _: () = assert!(127 * 127 * 256 * 4 * GROUPS_AT_A_TIME as i64 <= i32::MAX as i64);

/// How runs of inputs lie: `count` of them, which begin `pitch` apart, of `groups` groups of four each.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    count: usize,
    pitch: usize,
    groups: usize,
    /// The inputs from the start of the first run to the end of the last.
    inputs: usize,
}

impl Runs {
    /// `None` if there are none.
    pub(crate) fn new(count: usize, pitch: usize, groups: usize) -> Option<Self> {
        let last = count.checked_sub(1)?.checked_mul(pitch)?;
        // [`widen`](Self::widen) relies on it.
        count.checked_mul(groups)?;
        let inputs = last.checked_add(groups.checked_mul(4)?)?;
        (groups != 0).then_some(Self { count, pitch, groups, inputs })
    }

    /// One of the runs by itself.
    pub(crate) fn one(&self) -> Self {
        Self { count: 1, inputs: self.groups * 4, ..*self }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Brings the runs of `x` into form. What lies behind a run's last input may be anything, but must be there. `None` if it
    /// is not, or if there is no room.
    #[inline(always)]
    pub(crate) fn widen(&self, x: &[i8], to: &mut [Inputs]) -> Option<()> {
        if x.len() < self.inputs || to.len() < self.count.wrapping_mul(self.groups) {
            return None;
        }
        implementation::widen(x, self, to);
        Some(())
    }
}

/// Weights of some panels for the groups of a row. Those of the next panel begin `stride` groups further on.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a> {
    pub(crate) weights: &'a [Weights],
    pub(crate) stride: usize,
}

/// Makes sums 0.
#[inline(always)]
pub(crate) fn clear(sums: &mut [[i32; PANEL]]) {
    clear_words(bytemuck::cast_slice_mut(sums.as_flattened_mut()));
}

/// Makes words 0.
#[inline(always)]
pub(crate) fn clear_words(words: &mut [u32]) {
    // A 0 that the compiler does not know: it would link a general `memset`, which is large, for these few words.
    let zero = core::hint::black_box(0);
    words.iter_mut().for_each(|word| *word = zero);
}

/// What becomes of the products of a window.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// They are added to the sum.
    Add,
    /// The larger one of them and the sum is kept.
    Pool,
}

/// Products of windows of inputs in form, for some panels of outputs.
#[derive(Clone, Copy)]
pub(crate) struct Products<'a> {
    weights: &'a [Weights],
    /// The panels, and how many groups of weights each begins behind the one before it.
    panels: usize,
    stride: usize,
    /// The windows, and how many groups of inputs each begins behind the one before it.
    windows: usize,
    step: usize,
    /// The groups of a window.
    groups: usize,
    /// Those from the start of the first window to the end of the last.
    inputs: usize,
}

impl<'a> Products<'a> {
    /// Products of `windows` windows of `groups` groups, which begin `step` groups apart, for as many panels, `stride` groups
    /// apart. `None` if there are more than [`GROUPS_AT_A_TIME`] groups, none at all of anything, or not so many weights.
    pub(crate) fn new(
        weights: &'a [Weights],
        (panels, stride): (usize, usize),
        (windows, step): (usize, usize),
        groups: usize,
    ) -> Option<Self> {
        let last_panel = panels.checked_sub(1)?.checked_mul(stride)?;
        let inputs = windows.checked_sub(1)?.checked_mul(step)?.checked_add(groups)?;
        let few = groups != 0 && groups <= GROUPS_AT_A_TIME;
        let enough = weights.len() >= last_panel.checked_add(groups)?;
        (few && enough).then_some(Self { weights, panels, stride, windows, step, groups, inputs })
    }

    /// Computes them; `None` if there are not so many inputs or sums.
    #[inline(always)]
    pub(crate) fn run(&self, x: &[Inputs], then: Then, sums: &mut [[i32; PANEL]]) -> Option<()> {
        if x.len() < self.inputs || sums.len() != self.panels {
            return None;
        }
        implementation::products(x, self, then, sums);
        Some(())
    }
}

/// Four-byte words that [`add_row`] needs for each group of four inputs.
pub(crate) const WORDS_OF_A_GROUP: usize = 3;

/// Adds to the sums of each panel the products of the inputs of a part of a row: a multiple of four, and at most
/// [`GROUPS_AT_A_TIME`] groups. `None` if there are not so many weights, or if the workspace is too small.
///
/// Groups of zeros, of which a drawing and what is behind a ReLU have many, take next to no time.
#[inline(always)]
pub(crate) fn add_row(x: &[i8], panels: Panels<'_>, workspace: &mut [u32], sums: &mut [[i32; PANEL]]) -> Option<()> {
    let (groups, _) = x.as_chunks::<4>();
    let last_panel = sums.len().checked_sub(1)?.checked_mul(panels.stride)?;
    let words = workspace.get_mut(..groups.len() * WORDS_OF_A_GROUP)?;
    if groups.is_empty() || groups.len() > GROUPS_AT_A_TIME || panels.weights.len() < last_panel + groups.len() {
        return None;
    }
    implementation::add_row(groups, panels, words, sums);
    Some(())
}
