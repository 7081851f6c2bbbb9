//! The trait that every backend implements for the int8 kernels, and over which they are written once.

use super::scaling::steps;
use super::tensor::Group;
use crate::kernels::backend::int8::tile::{Run, add_run};
use crate::kernels::backend::non_zero::FindNonZero;

/// How many values [`Int8Vector::quantize_block`] takes: their bytes fill the largest register.
pub(crate) const BLOCK: usize = 64;

/// A register of 32-bit integers, and the few operations that the kernels need. Arithmetic wraps around.
///
/// A value can only be made with a [`Token`](Self::Token), which exists only where the processor has the instructions;
/// so a vector is itself the proof that operating on it is allowed.
pub(crate) trait Int8Vector: Copy {
    /// Proof that the processor has this backend's instructions.
    type Token: FindNonZero;
    /// The weights of four inputs for `LANES` outputs, ready to be multiplied.
    type Weights: Copy;
    /// Four inputs for every lane, likewise.
    type Inputs: Copy;
    /// The vector for sums whose excess comes from the weights alone: see [`add_products`](Self::add_products).
    type Windows: Int8Vector<Token = Self::Token>;
    /// The vector for inputs that [`are_non_negative`](Self::are_non_negative): its sums have no excess.
    type NonNegative: Int8Vector<Token = Self::Token>;
    /// Number of lanes; divides 16, the width of a weight panel.
    const LANES: usize;
    /// Whether sums have an excess that depends on their weights: what they are if all inputs are 0.
    const EXCESS_OF_WEIGHTS: bool = false;

    /// The same value in every lane.
    fn splat(token: Self::Token, value: i32) -> Self;

    /// The first `LANES` values of `from`; lanes without one are 0.
    fn load(token: Self::Token, from: &[i32]) -> Self;

    /// The first `LANES` bytes of `from`; lanes without one are 0.
    fn load_bytes(token: Self::Token, from: &[u8]) -> Self;

    /// The integers nearest to the first `LANES` values of `from` times `factor`, halves away from 0, bounded to
    /// -127..=127; 0 for NaN and for lanes without a value.
    fn load_nearest(token: Self::Token, from: &[f32], factor: f32) -> Self;

    /// [`load_nearest`](Self::load_nearest) of a block of values, stored to `to`.
    #[inline(always)]
    fn quantize_block(token: Self::Token, from: &[f32; BLOCK], factor: f32, to: &mut [i8; BLOCK]) {
        for (from, to) in from.chunks(Self::LANES).zip(to.chunks_mut(Self::LANES)) {
            Self::load_nearest(token, from, factor).store_int8(to);
        }
    }

    /// The weights of the lanes from `lane` on of the group at `from`.
    ///
    /// # Safety
    /// `from` must be valid for reads of a group, and `lane` a multiple of `LANES` less than 16.
    unsafe fn weights(token: Self::Token, from: *const Group, lane: usize) -> Self::Weights;

    /// The four inputs from `from` on.
    ///
    /// # Safety
    /// `from` must be valid for reads of four bytes.
    unsafe fn inputs(token: Self::Token, from: *const i8) -> Self::Inputs;

    /// Adds to each lane the products of its four weights with the inputs, and the excess: what instructions for unsigned
    /// numbers add too much.
    fn add_products(self, weights: Self::Weights, inputs: Self::Inputs) -> Self;

    /// Adds to each row of `sums` the products of a run.
    ///
    /// # Safety
    /// The run's groups must be readable, and the lanes multiples of `LANES` less than 16.
    #[inline(always)]
    unsafe fn add_run<const ROWS: usize, const COLUMNS: usize>(
        token: Self::Token,
        run: Run<'_, ROWS, COLUMNS>,
        sums: [[Self; COLUMNS]; ROWS],
    ) -> [[Self; COLUMNS]; ROWS] {
        // SAFETY: the caller vouches for the run.
        unsafe { add_run(token, run, sums) }
    }

    /// Whether no input is less than 0, as behind a ReLU and in most images; `false` if that is of no use.
    #[inline(always)]
    fn are_non_negative(token: Self::Token, x: &[i8]) -> bool {
        let _ = (token, x);
        false
    }

    /// The excess of sums over the inputs `x`, whatever the weights, in every lane.
    #[inline(always)]
    fn excess_of_inputs(token: Self::Token, x: &[i8]) -> Self {
        let _ = x;
        Self::splat(token, 0)
    }

    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// `self - other`
    fn sub(self, other: Self) -> Self;
    /// The low half of `self * other`.
    fn mul(self, other: Self) -> Self;
    /// The product of the low sixteen bits of each lane, as signed numbers; the upper half of each lane of `factor` must
    /// be 0.
    fn mul_low(self, factor: Self) -> Self;
    /// The larger of the two.
    fn max(self, other: Self) -> Self;
    /// The smaller of the two.
    fn min(self, other: Self) -> Self;
    /// The bits that both have.
    fn and(self, other: Self) -> Self;
    /// `self >> places` with the sign; `places` is less than 32.
    fn shift_right(self, places: Self) -> Self;
    /// `self >> PLACES` with the sign.
    fn shift_right_by<const PLACES: u32>(self) -> Self;
    /// [`tanh`](super::requantize::tanh) of each lane, which must be between -32,767 and 32,767. That function is an argument
    /// so that programs without tanh need not be linked with it.
    fn tanh(self, tanh: fn(i32) -> i32) -> Self;
    /// Writes the lanes to `to`, as many as fit; they must be between -128 and 127.
    fn store_int8(self, to: &mut [i8]);
    /// Writes what becomes of the sums of neighbouring outputs without tanh or sigmoid, as many as fit:
    /// [`steps`](super::scaling::steps).
    #[inline(always)]
    fn store_steps<const COLUMNS: usize>(
        token: Self::Token,
        sums: [Self; COLUMNS],
        parameters: [Self; COLUMNS],
        floor: i32,
        to: &mut [i8],
    ) {
        // (As many turns as columns, whatever fits: the loop is unrolled, and the sums stay in registers.)
        for (column, (sums, parameters)) in sums.iter().zip(parameters).enumerate() {
            let to = to.get_mut(column * Self::LANES..).unwrap_or_default();
            steps(token, *sums, parameters, floor).store_int8(to);
        }
    }
    /// Writes the lanes as f32, times the f32 of which `scales` has the bits, as many as fit.
    fn store_scaled(self, scales: Self, to: &mut [f32]);
}
