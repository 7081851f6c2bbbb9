//! Dense layers and convolutions with f32 weights on a Cortex-M with an FPU: one image at a time, in little flash.
//!
//! A panel's sums stay in registers while its weights pass by, once. The loops are assembly, since the compiler neither loads
//! several registers at once nor keeps sixteen sums: `vldm` brings eight weights in nine cycles of a Cortex-M4, and `vmul` and
//! `vadd` take one each where `vfma` takes three. An input that is 0, as most pixels of a drawing are and half of the values
//! behind a ReLU, adds nothing to any sum, and is skipped with all its weights.

use super::tile::{Element, Inputs};
use crate::kernels::conv2d::ConvKernel;
use crate::kernels::pack::{PANEL, Panels};
use core::arch::asm;

/// Where a window's inputs and weights lie: what the loops below read into their registers, in this order.
#[repr(C)]
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct Window<E> {
    inputs: *const E,
    weights: *const f32,
    /// From the weights of one input to those of the next, in bytes.
    stride: usize,
    /// Whether a byte of 0 stands for something else than 0.
    keep_zeros: u32,
    /// Runs of neighbouring inputs, and the length of each; neither is 0.
    runs: usize,
    len: usize,
    /// From behind a run's inputs to the next's, and from behind its weights to the next's, in bytes.
    input_gap: usize,
    weight_gap: usize,
    sums: *mut Sums,
    scale: f32,
    offset: f32,
}

/// What the sums begin with, and, behind it, what they come to.
#[repr(C)]
struct Sums {
    bias: [f32; PANEL],
    sums: [f32; PANEL],
}

/// Defines a function that computes the sums of a window: as many as registers are named for them.
///
/// The registers: r1 inputs, r2 weights, r3 stride, r4 whether to keep zeros, r5 runs, r8 length, r9 and r10 the gaps, r11 sums,
/// r12 what is left of the stride behind the weights that were loaded with `!`, lr inputs left of the run, r0 the input.
macro_rules! window_sums {
    (
        $(#[$attribute:meta])* $name:ident, $element:ty,
        prepare: [$($prepare:literal),*], load: [$($load:literal),*], convert: [$($convert:literal),*],
        sums: $sums:literal, step: [$($step:literal),*], clobbered: [$($clobbered:tt),*]
    ) => {
        $(#[$attribute])*
        ///
        /// # Safety
        /// The inputs and weights of the window must be readable, and as many weights behind the first of each input as there are
        /// sums; the sums must be writable.
        #[inline(never)]
        pub(crate) unsafe fn $name(window: &Window<$element>) {
            // SAFETY: the caller vouches for what is read and written. Every register that changes is named, but r6 and r7, which
            // do not.
            unsafe {
                asm!(
                    $($prepare,)*
                    "ldm r0, {{r1-r5, r8-r11}}",
                    concat!("vldmia r11, {{", $sums, "}}"),
                    "sub r12, r3, #32",
                    "2:",
                    "mov lr, r8",
                    "3:",
                    $($load,)*
                    "add r2, r2, r3",
                    "subs lr, lr, #1",
                    "bne 3b",
                    "b 5f",
                    "4:",
                    "vmov s24, r0",
                    $($convert,)*
                    $($step,)*
                    "add r2, r2, r12",
                    "subs lr, lr, #1",
                    "bne 3b",
                    "5:",
                    "add r1, r1, r9",
                    "add r2, r2, r10",
                    "subs r5, r5, #1",
                    "bne 2b",
                    "add r11, r11, #64",
                    concat!("vstmia r11, {{", $sums, "}}"),
                    inout("r0") window => _,
                    out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _, out("r9") _, out("r10") _,
                    out("r11") _, out("r12") _, out("lr") _,
                    $(out($clobbered) _,)*
                    out("s24") _, out("s25") _, out("s26") _,
                    options(nostack),
                );
            }
        }
    };
}

/// [`window_sums`] for one type of inputs, with sixteen sums and with eight.
macro_rules! both_widths {
    (
        $element:ty, $wide:ident, $narrow:ident,
        prepare: $prepare:tt, load: $load:tt, convert: $convert:tt
    ) => {
        window_sums! {
            /// Adds up sixteen sums.
            $wide, $element, prepare: $prepare, load: $load, convert: $convert,
            sums: "s0-s15",
            step: [
                "vldmia r2!, {{s16-s23}}",
                "vmul.f32 s16, s16, s24", "vmul.f32 s17, s17, s24", "vmul.f32 s18, s18, s24", "vmul.f32 s19, s19, s24",
                "vmul.f32 s20, s20, s24", "vmul.f32 s21, s21, s24", "vmul.f32 s22, s22, s24", "vmul.f32 s23, s23, s24",
                "vadd.f32 s0, s0, s16", "vadd.f32 s1, s1, s17", "vadd.f32 s2, s2, s18", "vadd.f32 s3, s3, s19",
                "vadd.f32 s4, s4, s20", "vadd.f32 s5, s5, s21", "vadd.f32 s6, s6, s22", "vadd.f32 s7, s7, s23",
                "vldmia r2, {{s16-s23}}",
                "vmul.f32 s16, s16, s24", "vmul.f32 s17, s17, s24", "vmul.f32 s18, s18, s24", "vmul.f32 s19, s19, s24",
                "vmul.f32 s20, s20, s24", "vmul.f32 s21, s21, s24", "vmul.f32 s22, s22, s24", "vmul.f32 s23, s23, s24",
                "vadd.f32 s8, s8, s16", "vadd.f32 s9, s9, s17", "vadd.f32 s10, s10, s18", "vadd.f32 s11, s11, s19",
                "vadd.f32 s12, s12, s20", "vadd.f32 s13, s13, s21", "vadd.f32 s14, s14, s22", "vadd.f32 s15, s15, s23"
            ],
            clobbered: [
                "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15",
                "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23"
            ]
        }
        window_sums! {
            /// Adds up eight sums.
            $narrow, $element, prepare: $prepare, load: $load, convert: $convert,
            sums: "s0-s7",
            step: [
                "vldmia r2!, {{s8-s15}}",
                "vmul.f32 s8, s8, s24", "vmul.f32 s9, s9, s24", "vmul.f32 s10, s10, s24", "vmul.f32 s11, s11, s24",
                "vmul.f32 s12, s12, s24", "vmul.f32 s13, s13, s24", "vmul.f32 s14, s14, s24", "vmul.f32 s15, s15, s24",
                "vadd.f32 s0, s0, s8", "vadd.f32 s1, s1, s9", "vadd.f32 s2, s2, s10", "vadd.f32 s3, s3, s11",
                "vadd.f32 s4, s4, s12", "vadd.f32 s5, s5, s13", "vadd.f32 s6, s6, s14", "vadd.f32 s7, s7, s15"
            ],
            clobbered: [
                "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13", "s14", "s15"
            ]
        }
    };
}

both_widths! {
    f32, sixteen_sums, eight_sums,
    prepare: [], load: ["ldr r0, [r1], #4", "cbnz r0, 4f"], convert: []
}

both_widths! {
    u8, sixteen_sums_of_bytes, eight_sums_of_bytes,
    prepare: ["vldr s25, [r0, #36]", "vldr s26, [r0, #40]"],
    load: ["ldrb r0, [r1], #1", "cbnz r0, 4f", "cbnz r4, 4f"],
    convert: ["vcvt.f32.u32 s24, s24", "vmul.f32 s24, s24, s25", "vadd.f32 s24, s24, s26"]
}

/// The most outputs for which eight sums do.
const NARROW: usize = PANEL / 2;

/// A panel of weights, with its sums.
struct Panel<'a> {
    /// From the panel's first weight to the end of the tensor.
    weights: &'a [f32],
    /// The number of outputs.
    width: usize,
    sums: Sums,
}

impl<'a> Panel<'a> {
    /// The panel that begins with output `first`.
    fn new(weights: &Panels<'a, f32>, first: usize) -> Option<Self> {
        let columns = weights.columns::<1>(PANEL, first, weights.outputs())?;
        let [start] = columns.starts;
        let mut sums = Sums { bias: [0.0; PANEL], sums: [0.0; PANEL] };
        sums.bias.iter_mut().zip(columns.bias).for_each(|(to, bias)| *to = *bias);
        Some(Self { weights: columns.weights.get(start..)?, width: columns.width, sums })
    }

    /// Computes the sums of `runs` runs of inputs, `len` each, and gives as many as the panel has outputs. `None` if there are
    /// not enough inputs or weights.
    ///
    /// The runs begin with inputs `pitch` apart, the first with input `start`, and with weights of inputs `weight_pitch`
    /// apart, the first with those of input `first`.
    #[inline(always)]
    fn sums<E: Element>(
        &mut self,
        x: &Inputs<'_, E>,
        [runs, len]: [usize; 2],
        [start, pitch]: [usize; 2],
        [first, weight_pitch]: [usize; 2],
    ) -> Option<&[f32]> {
        let lanes = if self.width > NARROW { PANEL } else { NARROW };
        let (more_runs, more_inputs) = (runs.checked_sub(1)?, len.checked_sub(1)?);
        let inputs = x.values.get(start..)?;
        let weights = self.weights.get(first * self.width..)?;
        let last_weight = (more_runs * weight_pitch + more_inputs) * self.width;
        if more_runs * pitch + len > inputs.len() || last_weight + lanes > weights.len() {
            return None;
        }
        let window = Window {
            inputs: inputs.as_ptr(),
            weights: weights.as_ptr(),
            stride: self.width * size_of::<f32>(),
            keep_zeros: x.offset.to_bits(),
            runs,
            len,
            input_gap: pitch.wrapping_sub(len) * size_of::<E>(),
            weight_gap: weight_pitch.wrapping_sub(len) * self.width * size_of::<f32>(),
            sums: &raw mut self.sums,
            scale: x.scale,
            offset: x.offset,
        };
        // SAFETY: the last run's last input and weights are within the slices, as was just checked, and so are all before.
        unsafe { E::window_sums(&window, lanes == PANEL) };
        self.sums.sums.get(..self.width)
    }
}

/// A dense layer of one row: `out = max(floor, x · W + b)`.
#[inline(never)]
pub(crate) fn dense<E: Element>(x: Inputs<'_, E>, weights: Panels<'_, f32>, floor: f32, out: &mut [f32]) {
    for (index, out) in out.chunks_mut(PANEL).enumerate() {
        let Some(mut panel) = Panel::new(&weights, index * PANEL) else { return };
        let Some(sums) = panel.sums(&x, [1, weights.inputs()], [0, 0], [0, 0]) else { return };
        out.iter_mut().zip(sums).for_each(|(to, sum)| *to = bounded(floor, *sum));
    }
}

/// A convolution, window by window.
#[inline(never)]
pub(crate) fn conv2d<E: Element>(kernel: ConvKernel<'_, E, f32>) {
    let ConvKernel { x, geometry, weights, floor, out } = kernel;
    let filters = weights.outputs();
    let ([_, kw], channels) = (geometry.kernel, geometry.channels);
    let pitch = geometry.width as usize * channels;
    let mut first = 0;
    while let Some(mut panel) = Panel::new(&weights, first) {
        let mut position = first;
        for row in 0..geometry.output_height {
            for column in 0..geometry.output_width {
                let Some(out) = out.get_mut(position..position + panel.width) else { return };
                out.fill(f32::NEG_INFINITY);
                for window in 0..geometry.pooled() {
                    let [top, left] = geometry.corner([row, column], window);
                    let (rows, columns) = (geometry.rows_inside(top), geometry.columns_inside(left));
                    let runs = [rows.len(), columns.len() * channels];
                    let start = geometry.index_of([top + rows.start, left + columns.start]);
                    let weight = (rows.start * kw + columns.start) as usize * channels;
                    let sums = panel.sums(&x, runs, [start, pitch], [weight, kw as usize * channels]);
                    pool(out, sums.unwrap_or_default());
                }
                out.iter_mut().for_each(|value| *value = bounded(floor, *value));
                position += filters;
            }
        }
        first += PANEL;
    }
}

/// The larger of each value and its sum; NaN where either is.
#[inline(always)]
fn pool(largest: &mut [f32], sums: &[f32]) {
    for (largest, sum) in largest.iter_mut().zip(sums) {
        if *largest < *sum || sum.is_nan() {
            *largest = *sum;
        }
    }
}

/// The sum, but at least `floor`; NaN stays.
#[inline(always)]
fn bounded(floor: f32, sum: f32) -> f32 {
    if floor > sum { floor } else { sum }
}
