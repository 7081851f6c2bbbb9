//! The trait that every backend implements, and over which every kernel is written once.

use super::backend::non_zero::FindNonZero;
use super::backend::tile::TileRow;
use super::pack::sealed::Load;
use half::f16;

/// Added to a small number, this leaves the nearest integer in the low bits of the mantissa.
pub(crate) const SHIFT: f32 = 12_582_912.0; // 1.5 * 2^23

/// A register of f32 lanes, and the few operations that the kernels need.
///
/// A value can only be made with a [`Token`](Self::Token), which exists only where the processor has the instructions;
/// so a vector is itself the proof that operating on it is allowed.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub trait Vector: Copy {
    /// Proof that the processor has this backend's instructions.
    type Token: FindNonZero;
    /// Number of lanes; divides 16, the width of a weight panel.
    const LANES: usize;
    /// How many independent sums keep the processor's multiply-add units busy: their latency times their number.
    const CHAINS: usize;
    /// Whether lanes can be exchanged at will, in one instruction.
    const PERMUTES: bool = false;
    /// Whether speed is worth a copy of the inner loop for each common size, and one for each number of rows and columns
    /// that are left.
    const UNROLL: bool;

    /// The heights of the two tiles for which there is [`compute_tile_row`](Self::compute_tile_row), in rows, the greater one first; both
    /// are as wide as a panel.
    const WHOLE_TILES: (usize, usize) = (0, 0);

    /// The same value in every lane.
    fn splat(token: Self::Token, value: f32) -> Self;

    /// The first `LANES` values of `from`; lanes without one are 0.
    fn load(token: Self::Token, from: &[f32]) -> Self;

    /// `LANES` values from `from` on.
    ///
    /// # Safety
    /// `from` must be valid for reads of `LANES` values, and aligned as an f32 is.
    unsafe fn load_from(token: Self::Token, from: *const f32) -> Self;

    /// `LANES` half-precision values from `from` on, as f32.
    ///
    /// # Safety
    /// `from` must be valid for reads of `LANES` values, and aligned as an f16 is.
    unsafe fn load_f16_from(token: Self::Token, from: *const f16) -> Self;

    /// Computes and stores a row of the [`WHOLE_TILES`](Self::WHOLE_TILES) that have so many rows, from the panels' weights of type
    /// `W`.
    ///
    /// # Safety
    /// `ROWS` must be one of the two heights. There must be an input and a panel at least. Each of so many rows must have all inputs,
    /// and all panels' width of what it begins with and of outputs to write; each panel must have a row of weights for each input; and
    /// no number may be beyond the inputs.
    #[inline(always)]
    unsafe fn compute_tile_row<W: Load, const ROWS: usize>(token: Self::Token, tiles: &mut TileRow) {
        let _ = (token, tiles);
    }

    /// Writes the lanes to `to`, as many as fit.
    fn store(self, to: &mut [f32]);

    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// `self - other`
    fn sub(self, other: Self) -> Self;
    /// `self * other`
    fn mul(self, other: Self) -> Self;
    /// `self / other`
    fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, with one rounding where the hardware has that, else with two.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// Per lane `if self > other { self } else { other }`: `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// Per lane `if self < other { self } else { other }`: `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// Per lane `if self > other { yes } else { no }`: `no` where either is NaN.
    fn if_greater(self, other: Self, yes: Self, no: Self) -> Self;
    /// Per lane `if self is NaN { yes } else { no }`.
    fn if_nan(self, yes: Self, no: Self) -> Self;
    /// `2^n` for lanes that hold `n +` [`SHIFT`] with an integer `n` between -126 and 127: the integer then lies in the
    /// low bits of the mantissa, and a shift moves it into the exponent.
    fn exp2_of_shifted(self) -> Self;
    /// Per lane the lane of `self` whose number the low bits of the mantissa of `lanes` hold, as they do after an addition
    /// of [`SHIFT`]. Only called where [`PERMUTES`](Self::PERMUTES).
    #[inline(always)]
    fn permute(self, lanes: Self) -> Self {
        let _ = lanes;
        self
    }
    /// The lanes with their sign bit cleared.
    fn abs(self) -> Self;

    /// The larger of the two, as pooling wants it: NaN where either is.
    #[inline(always)]
    fn pool(self, other: Self) -> Self {
        self.if_nan(self, self.max(other))
    }
}
