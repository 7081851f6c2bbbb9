//! The inner loop for a Cortex-M0 or M23.
//!
//! The sums lie in the high registers, which can be added to, and the inputs in the low ones, which can be multiplied: the
//! compiler would move the sums about instead.

use super::{Inputs, PANEL, Weights};
use core::arch::naked_asm;

/// 256 times the products of a window; nothing if there are not as many weights.
#[inline(always)]
pub(super) fn window(x: &[Inputs], weights: &[Weights]) -> [i32; PANEL] {
    let mut sums = [0; PANEL];
    if !x.is_empty() && weights.len() >= x.len() {
        // SAFETY: there are inputs, and as many weights.
        unsafe { products(x.as_ptr(), x.as_ptr().wrapping_add(x.len()), weights.as_ptr(), &mut sums) };
    }
    sums
}

/// Adds the products of a group for one output, whose sum is in a high register.
macro_rules! add_output {
    ($sum:literal) => {
        concat!(
            "ldmia r4!, {{r5}}\n",
            "sxtb r6, r5\n",
            "muls r6, r2, r6\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", r6\n",
            "sxth r6, r5\n",
            "muls r6, r0, r6\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", r6\n",
            "asrs r5, r5, #16\n",
            "sxtb r6, r5\n",
            "muls r6, r3, r6\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", r6\n",
            "muls r5, r1, r5\n",
            "add ",
            $sum,
            ", ",
            $sum,
            ", r5\n",
        )
    };
}

/// # Safety
/// From `x` to `end`, which must lie behind it, there must be inputs, and as many weights from `weights` on.
#[unsafe(naked)]
unsafe extern "C" fn products(x: *const Inputs, end: *const Inputs, weights: *const Weights, sums: &mut [i32; PANEL]) {
    // r0 x1, r1 x3, r2 y0, r3 y2, r4 weights, r5 and r6 products, r7 inputs, r8-r11 sums, r12 end.
    naked_asm!(
        "push {{r3-r7, lr}}",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "push {{r4-r7}}",
        "mov r7, r0",
        "mov r12, r1",
        "mov r4, r2",
        "movs r0, #0",
        "mov r8, r0",
        "mov r9, r0",
        "mov r10, r0",
        "mov r11, r0",
        "2:",
        "ldmia r7!, {{r0, r2}}",
        // Half of the values behind a ReLU are 0, and most pixels of a drawing.
        "mov r5, r0",
        "orrs r5, r2",
        "beq 3f",
        "asrs r1, r0, #16",
        "sxth r0, r0",
        "asrs r3, r2, #16",
        "sxth r2, r2",
        add_output!("r8"),
        add_output!("r9"),
        add_output!("r10"),
        add_output!("r11"),
        "cmp r7, r12",
        "bne 2b",
        "b 4f",
        "3:",
        "adds r4, r4, #16",
        "cmp r7, r12",
        "bne 2b",
        "4:",
        "ldr r3, [sp, #16]",
        "mov r4, r8",
        "mov r5, r9",
        "mov r6, r10",
        "mov r7, r11",
        "stmia r3!, {{r4-r7}}",
        "pop {{r4-r7}}",
        "mov r8, r4",
        "mov r9, r5",
        "mov r10, r6",
        "mov r11, r7",
        "pop {{r3-r7, pc}}",
    )
}
