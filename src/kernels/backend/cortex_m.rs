//! Dense layers and convolutions with f32 weights on a Cortex-M with an FPU: one image at a time, in little flash.
//!
//! A panel's sums stay in registers while its weights pass by, once. The loops are assembly, since the compiler neither loads
//! several registers at once nor keeps sixteen sums: `vldm` brings eight weights in nine cycles of a Cortex-M4, and `vmul` and
//! `vadd` take one each where `vfma` takes three. An input that is 0, as most pixels of a drawing are and half of the values
//! behind a ReLU, adds nothing to any sum, and is skipped with all its weights (even to weights that are infinite or NaN).

use super::tile::{Element, Inputs};
use crate::kernels::conv2d::ConvKernel;
use crate::kernels::pack::{PANEL, Panels};
use crate::kernels::windows::Geometry;
use core::arch::asm;
use core::marker::PhantomData;
use core::ops::Range;

/// Where a window's inputs and weights lie: what the loops below read into their registers, in this order.
#[repr(C)]
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub struct Window {
    inputs: *const u8,
    weights: *const f32,
    /// From the weights of one input to those of the next, in bytes.
    stride: usize,
    /// Not 0 if an input of 0 stands for something else than 0.
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

/// Computes the sums of a window.
///
/// # Safety
/// The inputs and weights of the window must be readable, and as many weights behind the first of each input as there are sums;
/// the sums must be writable.
#[allow(unreachable_pub, reason = "the sealed half of `pack::Weight` names it")]
pub type WindowSums = unsafe fn(&Window);

/// Defines a function that computes the sums of a window: as many as registers are named for them.
///
/// The registers: r1 inputs, r2 weights, r3 stride, r4 whether to keep zeros, r5 runs, r8 length, r9 and r10 the gaps, r11 sums,
/// r12 what is left of the stride behind the weights that were loaded with `!`, lr inputs left of the run, r0 the input.
macro_rules! window_sums {
    (
        $(#[$attribute:meta])* $name:ident,
        prepare: [$($prepare:literal),*], load: [$($load:literal),*], convert: [$($convert:literal),*],
        sums: $sums:literal, step: [$($step:literal),*], clobbered: [$($clobbered:tt),*]
    ) => {
        $(#[$attribute])*
        ///
        /// # Safety
        /// As of [`WindowSums`].
        #[inline(never)]
        pub(crate) unsafe fn $name(window: &Window) {
            // SAFETY: the caller vouches for what is read and written. Every register that changes is named, but r6 and r7, which
            // do not.
            unsafe {
                asm!(
                    $($prepare,)*
                    "ldm r0, {{r1-r5, r8-r11}}",
                    concat!("vldmia r11, {{", $sums, "}}"),
                    "sub r12, r3, #32",
                    // Every NaN is the default one from here on, which is positive.
                    "vmrs lr, fpscr",
                    "vmov s27, lr",
                    "orr lr, lr, #0x2000000",
                    "vmsr fpscr, lr",
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
                    "vmov lr, s27",
                    "vmsr fpscr, lr",
                    inout("r0") window => _,
                    out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _, out("r9") _, out("r10") _,
                    out("r11") _, out("r12") _, out("lr") _,
                    $(out($clobbered) _,)*
                    out("s24") _, out("s25") _, out("s26") _, out("s27") _,
                    options(nostack),
                );
            }
        }
    };
}

/// [`window_sums`] for one type of inputs, with sixteen sums and with eight.
macro_rules! both_widths {
    (
        $wide:ident, $narrow:ident,
        prepare: $prepare:tt, load: $load:tt, convert: $convert:tt
    ) => {
        window_sums! {
            /// Adds up sixteen sums.
            $wide, prepare: $prepare, load: $load, convert: $convert,
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
            $narrow, prepare: $prepare, load: $load, convert: $convert,
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
    sixteen_sums, eight_sums,
    prepare: [], load: ["ldr r0, [r1], #4", "cbnz r0, 4f"], convert: []
}

both_widths! {
    sixteen_sums_of_bytes, eight_sums_of_bytes,
    prepare: ["vldr s25, [r0, #36]", "vldr s26, [r0, #40]"],
    load: ["ldrb r0, [r1], #1", "cbnz r0, 4f", "cbnz r4, 4f"],
    convert: ["vcvt.f32.u32 s24, s24", "vmul.f32 s24, s24, s25", "vadd.f32 s24, s24, s26"]
}

/// Inputs of either type.
#[derive(Clone, Copy)]
struct Source<'a> {
    first: *const u8,
    /// The bytes of one input.
    size: usize,
    scale: f32,
    offset: f32,
    /// The loops for eight and for sixteen sums.
    loops: [WindowSums; 2],
    values: PhantomData<&'a [u8]>,
}

impl<'a> Source<'a> {
    fn new<E: Element>(x: &Inputs<'a, E>) -> Self {
        let (first, size) = (x.values.as_ptr().cast(), size_of::<E>());
        Self { first, size, scale: x.scale, offset: x.offset, loops: E::WINDOW_SUMS, values: PhantomData }
    }
}

/// A panel of weights, its sums, and the window that they are computed for.
struct Panel<'a, 's> {
    /// The panel's first weight.
    weights: *const f32,
    tensor: PhantomData<&'a [f32]>,
    /// The number of outputs.
    width: usize,
    window_sums: WindowSums,
    window: Window,
    sums: &'s mut Sums,
}

impl<'a, 's> Panel<'a, 's> {
    /// The panel that begins with output `first`.
    #[inline(always)]
    fn new(source: Source<'a>, weights: &Panels<'a, f32>, first: usize, sums: &'s mut Sums) -> Option<Self> {
        let columns = weights.columns::<1>(PANEL, first, weights.outputs())?;
        let [start] = columns.starts;
        let panel = columns.weights.get(start..)?.as_ptr();
        sums.bias.iter_mut().zip(columns.bias).for_each(|(to, bias)| *to = *bias);
        let width = columns.width.min(weights.outputs() - first);
        let [eight_sums, sixteen_sums] = source.loops;
        let window = Window {
            inputs: source.first,
            weights: panel,
            stride: width * size_of::<f32>(),
            keep_zeros: source.offset.to_bits(),
            runs: 1,
            len: weights.inputs(),
            input_gap: 0,
            weight_gap: 0,
            sums: core::ptr::null_mut(),
            scale: source.scale,
            offset: source.offset,
        };
        let window_sums = if width > PANEL / 2 { sixteen_sums } else { eight_sums };
        Some(Self { weights: panel, width, window_sums, window, sums, tensor: PhantomData })
    }

    /// Has the window consist of these rows and columns of one that has `width` columns of `channels` inputs each.
    fn clip(&mut self, rows: Range<i32>, columns: Range<i32>, width: usize, channels: usize) {
        let first = (rows.start as usize * width + columns.start as usize) * channels;
        self.window.weights = self.weights.wrapping_byte_add(first * self.window.stride);
        self.window.weight_gap = (width - columns.len()) * channels * self.window.stride;
        self.window.runs = rows.len();
        self.window.len = if rows.is_empty() { 0 } else { columns.len() * channels };
    }

    /// Computes the sums of the window.
    ///
    /// # Safety
    /// The window's inputs must be there, and its weights.
    #[inline(always)]
    unsafe fn sum(&mut self) {
        if self.window.len == 0 {
            self.sums.sums = self.sums.bias;
            return;
        }
        self.window.sums = &raw mut *self.sums;
        // SAFETY: the caller vouches for inputs and weights; a tensor is so long that sixteen weights can be read from the
        // first of any of its inputs on.
        unsafe { (self.window_sums)(&self.window) };
    }
}

/// A dense layer of one row: `out = max(floor, x · W + b)`.
pub(crate) fn run_dense<E: Element>(x: &Inputs<'_, E>, weights: &Panels<'_, f32>, floor: f32, out: &mut [f32]) {
    if x.values.len() == weights.inputs() {
        dense(Source::new(x), weights, floor, out);
    }
}

/// A convolution.
pub(crate) fn run_conv2d<E: Element>(kernel: ConvKernel<'_, E, f32>) {
    let ConvKernel { x, geometry, weights, floor, out, .. } = kernel;
    if x.values.len() == geometry.elements() && weights.inputs() == geometry.window() {
        conv2d(Source::new(&x), &geometry, &weights, floor, out);
    }
}

/// [`run_dense`] for as many inputs as there are rows of weights.
#[inline(never)]
fn dense(source: Source<'_>, weights: &Panels<'_, f32>, floor: f32, out: &mut [f32]) {
    let mut sums = Sums { bias: [0.0; PANEL], sums: [0.0; PANEL] };
    for (index, out) in out.chunks_mut(PANEL).enumerate() {
        let Some(mut panel) = Panel::new(source, weights, index * PANEL, &mut sums) else { return };
        // SAFETY: the window is all inputs, and there are so many, as the caller has checked.
        unsafe { panel.sum() };
        out.iter_mut().zip(&panel.sums.sums).for_each(|(to, sum)| *to = if floor > *sum { floor } else { *sum });
    }
}

/// [`run_conv2d`] for lengths that fit: panel by panel, and window by window.
#[inline(never)]
fn conv2d(source: Source<'_>, geometry: &Geometry, weights: &Panels<'_, f32>, floor: f32, out: &mut [f32]) {
    let filters = weights.outputs();
    let least = sortable(floor.to_bits() as i32);
    let out: &mut [i32] = bytemuck::cast_slice_mut(out);
    out.fill(least);
    let mut sums = Sums { bias: [0.0; PANEL], sums: [0.0; PANEL] };
    let mut first = 0;
    while let Some(mut panel) = Panel::new(source, weights, first, &mut sums) {
        for (row, out) in out.chunks_exact_mut((geometry.output_width() as usize * filters).max(1)).enumerate() {
            let [ph, _] = geometry.pool();
            for down in 0..ph {
                let out = out.get_mut(first..).unwrap_or_default();
                row_of_windows(&mut panel, source, geometry, row as i32 * ph + down, filters, least, out);
            }
        }
        first += PANEL;
    }
    if least != 0 {
        out.iter_mut().for_each(|value| *value = sortable(*value));
    }
}

/// Takes the sums of all windows whose first row is that of window `row` from the top into account, in a row of outputs that
/// lie `filters` apart.
#[inline(always)]
fn row_of_windows(
    panel: &mut Panel<'_, '_>,
    source: Source<'_>,
    geometry: &Geometry,
    row: i32,
    filters: usize,
    least: i32,
    out: &mut [i32],
) {
    let ([_, kw], [sh, sw], [top, left], [_, pw]) =
        (geometry.kernel(), geometry.stride(), geometry.origin(), geometry.pool());
    let (width, channels) = (geometry.width(), geometry.channels());
    let top = top + row * sh;
    let rows = geometry.rows_inside(top);
    // The bytes of a position and of a row, and the first inputs of the next window.
    let input_size = channels * source.size;
    let pitch = width as usize * input_size;
    let mut inputs = source.first.wrapping_add((top + rows.start) as usize * pitch);
    inputs = inputs.wrapping_offset(left as isize * input_size as isize);
    let behind_inside = (width - kw + 1).max(0) as u32;
    let (mut left, mut was_inside) = (left, false);
    for out in out.chunks_mut(filters.max(1)) {
        let out = out.get_mut(..panel.width).unwrap_or_default();
        for _ in 0..pw {
            let is_inside = (left as u32) < behind_inside;
            panel.window.inputs = inputs;
            if !(is_inside && was_inside) {
                let columns = geometry.columns_inside(left);
                panel.window.inputs = inputs.wrapping_add(columns.start as usize * input_size);
                panel.window.input_gap = pitch.wrapping_sub(columns.len() * input_size);
                panel.clip(rows.clone(), columns, kw as usize, channels);
                was_inside = is_inside;
            }
            // SAFETY: the rows and columns are those of the window that lie within the input, and there are so many inputs and
            // weights, as the caller's caller has checked.
            unsafe { panel.sum() };
            pool(out, bytemuck::cast_slice_mut(&mut panel.sums.sums), least);
            inputs = inputs.wrapping_add(sw as usize * input_size);
            left += sw;
        }
    }
}

/// The larger of each value and its sum.
///
/// Both are the bits of f32: positive numbers have the order of integers, with NaN the largest; the sums have no negative one. So have negative ones once they
/// are [`sortable`]; where the least value is 0, they need not be.
#[inline(always)]
fn pool(largest: &mut [i32], sums: &mut [i32], least: i32) {
    if least != 0 {
        sums.iter_mut().for_each(|sum| *sum = sortable(*sum));
    }
    let (fours, rest) = largest.as_chunks_mut();
    let (sum_fours, _) = sums.as_chunks();
    let sums = sums.iter().skip(fours.len() * 4);
    rest.iter_mut().zip(sums).for_each(|(largest, sum)| *largest = (*largest).max(*sum));
    fours.iter_mut().zip(sum_fours).for_each(|(largest, sums)| larger_of_four(largest, sums));
}

/// Four at a time, which one load brings.
#[inline(always)]
fn larger_of_four(largest: &mut [i32; 4], sums: &[i32; 4]) {
    // SAFETY: both arrays have four values, and all registers that change are named.
    unsafe {
        asm!(
            "ldm {largest}, {{r0-r3}}",
            "ldm {sums}, {{r4, r5, r8, r9}}",
            "cmp r0, r4", "it lt", "movlt r0, r4",
            "cmp r1, r5", "it lt", "movlt r1, r5",
            "cmp r2, r8", "it lt", "movlt r2, r8",
            "cmp r3, r9", "it lt", "movlt r3, r9",
            "stm {largest}, {{r0-r3}}",
            largest = in(reg) largest,
            sums = in(reg) sums,
            out("r0") _, out("r1") _, out("r2") _, out("r3") _,
            out("r4") _, out("r5") _, out("r8") _, out("r9") _,
            options(nostack),
        );
    }
}

/// The bits of an f32 as an integer of the same order, and back.
#[inline(always)]
fn sortable(bits: i32) -> i32 {
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}
