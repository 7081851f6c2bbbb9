//! The loops for a Cortex-M with the DSP extension.
//!
//! They are assembly: the compiler would neither load several registers at once, nor keep all of them busy.

use super::{Inputs, PANEL, Panels, Products, Runs, Then, Weights};
use core::arch::naked_asm;

/// The code of a naked function.
///
/// It is assembled by itself, not as part of a function for the processor that the compiler was told; so the assembler has to be
/// told again where the extension does not go with the architecture.
macro_rules! dsp_asm {
    ($($code:tt)*) => {{
        #[cfg(armv8m)]
        naked_asm!(".cpu cortex-m33", $($code)*);
        #[cfg(not(armv8m))]
        naked_asm!($($code)*);
    }};
}

/// Adds the products of a group: the inputs in r12 and lr, times the weights in r8 to r11, to the sums in r4 to r7.
macro_rules! add_group {
    () => {
        concat!(
            "smlad r4, r8, r12, r4\n",
            "sxtb16 r8, r8\n",
            "smlad r5, r9, r12, r5\n",
            "sxtb16 r9, r9\n",
            "smlad r6, r10, r12, r6\n",
            "sxtb16 r10, r10\n",
            "smlad r7, r11, r12, r7\n",
            "sxtb16 r11, r11\n",
            "smlad r4, r8, lr, r4\n",
            "smlad r5, r9, lr, r5\n",
            "smlad r6, r10, lr, r6\n",
            "smlad r7, r11, lr, r7\n",
        )
    };
}

/// There must be as many inputs, and as much room, as [`Runs::widen`] asks for.
#[inline(always)]
pub(super) fn widen(x: &[i8], runs: &Runs, to: &mut [Inputs]) {
    // SAFETY: the caller has checked that there are so many inputs, and room for so many groups.
    unsafe { widen_runs(x.as_ptr(), to.as_mut_ptr(), runs.groups, runs.count, runs.pitch) };
}

/// # Safety
/// From `x` on there must be `count` runs of `4 * groups` inputs, and at `to` room for as many groups; neither number may be 0.
#[unsafe(naked)]
unsafe extern "C" fn widen_runs(x: *const i8, to: *mut Inputs, groups: usize, count: usize, pitch: usize) {
    dsp_asm!(
        "push {{r4-r7, lr}}",
        "ldr r4, [sp, #20]",
        "sub r4, r4, r2, lsl #2",
        "2:",
        "mov r5, r2",
        "3:",
        "ldr r7, [r0], #4",
        "sxtb16 r6, r7, ror #8",
        "and r7, r7, #0x00ff00ff",
        "lsls r7, r7, #8",
        "ssub16 r7, r7, r6",
        "stmia r1!, {{r6, r7}}",
        "subs r5, r5, #1",
        "bne 3b",
        "add r0, r0, r4",
        "subs r3, r3, #1",
        "bne 2b",
        "pop {{r4-r7, pc}}",
    )
}

/// What [`products`] is to do, and where it is.
#[repr(C)]
struct Job {
    x: *const Inputs,
    weights: *const Weights,
    groups: usize,
    sums: *mut [i32; PANEL],
    panels: usize,
    /// From a panel's weights to the next's, in bytes.
    stride: usize,
    count: usize,
    /// From a window's inputs to the next's, in bytes.
    step: usize,
    pool: u32,
    /// The window, and how many there are left.
    window: *const Inputs,
    left: usize,
}

/// There must be as many inputs and sums as [`Products::run`] asks for.
#[inline(always)]
pub(super) fn products(x: &[Inputs], products: &Products<'_>, then: Then, sums: &mut [[i32; PANEL]]) {
    let mut job = Job {
        x: x.as_ptr(),
        weights: products.weights.as_ptr(),
        sums: sums.as_mut_ptr(),
        groups: products.groups,
        panels: products.panels,
        stride: products.stride * size_of::<Weights>(),
        count: products.windows,
        step: products.step * size_of::<Inputs>(),
        pool: (then == Then::Pool).into(),
        window: x.as_ptr(),
        left: 0,
    };
    // SAFETY: the caller has checked that no number is 0, and that there are so many inputs, weights and sums.
    unsafe { run(&mut job) };
}

/// # Safety
/// There must be the inputs, weights and sums that the job names; no number of them may be 0.
#[unsafe(naked)]
unsafe extern "C" fn run(job: &mut Job) {
    // r0 inputs, r1 weights, r2 groups, r3 the job, r4-r7 sums, r8-r11 weights, r12 and lr the inputs of a group.
    dsp_asm!(
        "push {{r4-r11, lr}}",
        "mov r3, r0",
        // A panel.
        "2:",
        "ldr r0, [r3, #0]",
        "ldr r2, [r3, #24]",
        // A window.
        "3:",
        "strd r0, r2, [r3, #36]",
        "ldrd r1, r2, [r3, #4]",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
        // An odd group comes first, in the middle of the loop.
        "lsrs r12, r2, #1",
        "bcs 5f",
        "4:",
        "ldmia r0!, {{r12, lr}}",
        "ldmia r1!, {{r8-r11}}",
        add_group!(),
        "5:",
        "ldmia r0!, {{r12, lr}}",
        "ldmia r1!, {{r8-r11}}",
        add_group!(),
        "subs r2, r2, #2",
        "bgt 4b",
        // The sums are 256 times too large.
        "ldr r2, [r3, #12]",
        "ldr r0, [r3, #32]",
        "ldmia r2, {{r8-r11}}",
        "cbz r0, 7f",
        "cmp r8, r4, asr #8",
        "it lt",
        "asrlt r8, r4, #8",
        "cmp r9, r5, asr #8",
        "it lt",
        "asrlt r9, r5, #8",
        "cmp r10, r6, asr #8",
        "it lt",
        "asrlt r10, r6, #8",
        "cmp r11, r7, asr #8",
        "it lt",
        "asrlt r11, r7, #8",
        "6:",
        "stmia r2!, {{r8-r11}}",
        "ldrd r0, r12, [r3, #36]",
        "ldr lr, [r3, #28]",
        "add r0, r0, lr",
        "subs r2, r12, #1",
        "bne 3b",
        // The next panel.
        "ldr r4, [r3, #4]",
        "ldr r5, [r3, #12]",
        "ldrd r6, r7, [r3, #16]",
        "add r4, r4, r7",
        "adds r5, r5, #16",
        "str r4, [r3, #4]",
        "str r5, [r3, #12]",
        "subs r6, r6, #1",
        "str r6, [r3, #16]",
        "bne 2b",
        "pop {{r4-r11, pc}}",
        "7:",
        "add r8, r8, r4, asr #8",
        "add r9, r9, r5, asr #8",
        "add r10, r10, r6, asr #8",
        "add r11, r11, r7, asr #8",
        "b 6b",
    )
}

/// A group of inputs that are not all 0.
#[repr(C)]
struct Entry {
    /// The weights of the zeros before it, in bytes.
    skip: usize,
    inputs: Inputs,
}

/// The workspace must have [`super::WORDS_OF_A_GROUP`] words for each group, and there must be the weights that
/// [`super::add_row`] asks for.
#[inline(never)]
pub(super) fn add_row(x: &[[i8; 4]], panels: Panels<'_>, workspace: &mut [u32], sums: &mut [[i32; PANEL]]) {
    let entries: *mut Entry = workspace.as_mut_ptr().cast();
    // SAFETY: the caller has checked that there are inputs, and room for as many entries.
    let end = unsafe { widen_row(x.as_ptr(), entries, x.len()) };
    let mut row = Row {
        entries,
        weights: panels.weights.as_ptr(),
        end,
        sums: sums.as_mut_ptr(),
        panels: sums.len(),
        stride: panels.stride * size_of::<Weights>(),
    };
    if !core::ptr::eq(entries, end) {
        // SAFETY: there are entries; each one's weights and sums are there, as the caller has checked, for each panel.
        unsafe { add_entries(&mut row) };
    }
}

/// Writes the groups that are not zeros; returns where they end.
///
/// # Safety
/// There must be `groups` groups, not 0, and room for as many entries.
#[unsafe(naked)]
unsafe extern "C" fn widen_row(x: *const [i8; 4], to: *mut Entry, groups: usize) -> *const Entry {
    dsp_asm!(
        "push {{r4-r7}}",
        "movs r3, #0",
        "2:",
        "ldr r5, [r0], #4",
        "cbz r5, 3f",
        "sxtb16 r4, r5, ror #8",
        "and r5, r5, #0x00ff00ff",
        "lsls r5, r5, #8",
        "ssub16 r5, r5, r4",
        "stmia r1!, {{r3, r4, r5}}",
        "movs r3, #0",
        "subs r2, r2, #1",
        "bne 2b",
        "b 4f",
        "3:",
        "adds r3, r3, #16",
        "subs r2, r2, #1",
        "bne 2b",
        "4:",
        "mov r0, r1",
        "pop {{r4-r7}}",
        "bx lr",
    )
}

/// What [`add_row`] is to do.
#[repr(C)]
struct Row {
    entries: *const Entry,
    weights: *const Weights,
    end: *const Entry,
    sums: *mut [i32; PANEL],
    panels: usize,
    /// From a panel's weights to the next's, in bytes.
    stride: usize,
}

/// # Safety
/// There must be at least one entry and one panel, and all weights and sums.
#[unsafe(naked)]
unsafe extern "C" fn add_entries(row: &mut Row) {
    // r0 entries, r1 weights, r2 their end, r3 what is skipped, r4-r7 sums, r8-r11 weights, r12 and lr inputs.
    dsp_asm!(
        "push {{r0, r4-r11, lr}}",
        "2:",
        "ldr r3, [sp]",
        "ldm r3, {{r0-r2}}",
        "movs r4, #0",
        "movs r5, #0",
        "movs r6, #0",
        "movs r7, #0",
        // An odd entry comes first, in the middle of the loop: they are twelve bytes long.
        "sub r12, r2, r0",
        "tst r12, #4",
        "bne 4f",
        "3:",
        "ldmia r0!, {{r3, r12, lr}}",
        "add r1, r1, r3",
        "ldmia r1!, {{r8-r11}}",
        add_group!(),
        "4:",
        "ldmia r0!, {{r3, r12, lr}}",
        "add r1, r1, r3",
        "ldmia r1!, {{r8-r11}}",
        add_group!(),
        "cmp r0, r2",
        "bne 3b",
        // The sums are 256 times too large.
        "ldr r3, [sp]",
        "ldr r2, [r3, #12]",
        "ldmia r2, {{r8-r11}}",
        "add r8, r8, r4, asr #8",
        "add r9, r9, r5, asr #8",
        "add r10, r10, r6, asr #8",
        "add r11, r11, r7, asr #8",
        "stmia r2!, {{r8-r11}}",
        "str r2, [r3, #12]",
        "ldr r1, [r3, #4]",
        "ldrd r4, r5, [r3, #16]",
        "add r1, r1, r5",
        "str r1, [r3, #4]",
        "subs r4, r4, #1",
        "str r4, [r3, #16]",
        "bne 2b",
        "pop {{r0, r4-r11, pc}}",
    )
}
