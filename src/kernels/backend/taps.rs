//! The inner loop of a depthwise convolution: vectors of channels times the weights of the same channels.

use super::tile::{Element, Inputs};
use crate::kernels::pack::{PANEL, sealed::Load};
use crate::kernels::vector::Vector;
use core::marker::PhantomData;

/// Inputs that can be loaded as a vector.
pub(crate) trait Lanes: Element {
    /// Whether speed is worth the flash that [`Taps`] take: only a model's first layer ever reads bytes.
    const TILES: bool;

    /// The values of the first `V::LANES` inputs of `from`; lanes without one are 0.
    fn load<V: Vector>(token: V::Token, from: &[Self], scaling: (f32, f32)) -> V;
}

impl Lanes for f32 {
    const TILES: bool = true;

    #[inline(always)]
    fn load<V: Vector>(token: V::Token, from: &[Self], _: (f32, f32)) -> V {
        V::load(token, from)
    }
}

impl Lanes for u8 {
    const TILES: bool = cfg!(not(target_os = "none"));

    #[inline(always)]
    fn load<V: Vector>(token: V::Token, from: &[Self], (scale, offset): (f32, f32)) -> V {
        let mut values = [0.0; PANEL];
        for (value, byte) in values.iter_mut().zip(from).take(V::LANES) {
            *value = byte.value(scale, offset);
        }
        V::load(token, &values)
    }
}

/// A vector of the first weights of `from`; `None` if there are not enough.
#[inline(always)]
pub(crate) fn load_weights<V: Vector, W: Load>(token: V::Token, from: &[W]) -> Option<V> {
    let from = from.get(..V::LANES)?;
    // SAFETY: the slice has `V::LANES` weights.
    Some(unsafe { W::load(token, from.as_ptr()) })
}

/// Where the taps of a window find their inputs, seen from the first of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Rows and columns of taps.
    pub(crate) taps: [usize; 2],
    /// From the inputs of one tap to those of the tap below it, and of the tap beside it.
    pub(crate) pitch: [usize; 2],
    /// From the inputs of one window to those of the next.
    pub(crate) step: usize,
}

/// Where `WINDOWS` neighbouring windows find their operands: within the slices, which is checked when this is made.
#[derive(Clone, Copy)]
pub(crate) struct Taps<'a, V, E, W, const WINDOWS: usize> {
    inputs: Inputs<'a, E>,
    weights: &'a [W],
    /// From the weights of one tap to those of the next.
    stride: usize,
    window: Window,
    /// The last input that the first window may begin with.
    last: usize,
    vector: PhantomData<V>,
}

impl<'a, V: Vector, E: Lanes, W: Load, const WINDOWS: usize> Taps<'a, V, E, W, WINDOWS> {
    /// `None` if there are no taps, or not enough inputs or weights. `weights` begins with those of the first tap; those of
    /// the others begin `stride` apart, row after row.
    #[inline(always)]
    pub(crate) fn new(inputs: Inputs<'a, E>, (weights, stride): (&'a [W], usize), window: Window) -> Option<Self> {
        let Window { taps: [rows, columns], pitch: [down, right], step } = window;
        let windows = WINDOWS.checked_sub(1)?.checked_mul(step)?;
        let (rows_reach, columns_reach) =
            (rows.checked_sub(1)?.checked_mul(down)?, columns.checked_sub(1)?.checked_mul(right)?);
        let reach = windows.checked_add(rows_reach)?.checked_add(columns_reach)?.checked_add(V::LANES)?;
        let weights_reach = rows.checked_mul(columns)?.checked_sub(1)?.checked_mul(stride)?.checked_add(V::LANES)?;
        let last = inputs.values.len().checked_sub(reach)?;
        let fits = weights_reach <= weights.len();
        fits.then_some(Self { inputs, weights, stride, window, last, vector: PhantomData })
    }

    /// The sums of the windows from input `start` on, each begun with `bias`; `None` if the inputs end before the windows.
    #[inline(always)]
    pub(crate) fn sums(&self, token: V::Token, start: usize, bias: V) -> Option<[V; WINDOWS]> {
        if start > self.last {
            return None;
        }
        let [rows, columns] = self.window.taps;
        // The commonest size, known to the compiler, which then unrolls the loops.
        // SAFETY: the windows fit, and the sizes are those of the window.
        Some(unsafe {
            match (rows, columns) {
                (3, 3) if V::UNROLL => self.add_products(token, start, [3, 3], bias),
                _ => self.add_products(token, start, [rows, columns], bias),
            }
        })
    }

    /// # Safety
    /// `start` must not be behind `last`, and the numbers of taps must be those of the window.
    #[inline(always)]
    unsafe fn add_products(&self, token: V::Token, start: usize, [rows, columns]: [usize; 2], bias: V) -> [V; WINDOWS] {
        let Window { pitch: [down, right], step, .. } = self.window;
        let Inputs { values, scale, offset } = self.inputs;
        let mut sums = [bias; WINDOWS];
        for row in 0..rows {
            for column in 0..columns {
                let weights = (row * columns + column) * self.stride;
                // SAFETY: `row < rows` and `column < columns`, so the weights reach as far as `new` has checked.
                let weights: V = unsafe { W::load(token, self.weights.as_ptr().add(weights)) };
                let first = start + row * down + column * right;
                for (window, sum) in sums.iter_mut().enumerate() {
                    let first = first + window * step;
                    // SAFETY: likewise, and `start` is not behind `last`.
                    let inputs = unsafe { values.get_unchecked(first..first + V::LANES) };
                    *sum = E::load::<V>(token, inputs, (scale, offset)).mul_add(weights, *sum);
                }
            }
        }
        sums
    }
}
