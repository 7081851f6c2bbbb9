//! How much stack the program has used.
//!
//! [`paint`] fills the free RAM with a pattern. The stack grows down from the end of the RAM, so what lies between the
//! lowest word that lost its pattern and the end has been in use.

use crate::machine;
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};

/// What no program is likely to write.
const PATTERN: u32 = 0xc0de_ba5e;

unsafe extern "C" {
    // Addresses that the linker script defines: the end of the free RAM below the stack, and the stack's start.
    static mut _stack_end: u32;
    static _stack_start: u32;
}

/// Fills the free RAM below the caller's stack frame. To be called first of all in `main`, before any interrupt.
// Not inlined: the frames that are in use have to lie above its own.
#[inline(never)]
pub fn paint() {
    let mut word = addr_of_mut!(_stack_end);
    while word.addr() < machine::stack_pointer() {
        // SAFETY: from `_stack_end` to the stack pointer there is RAM that nobody uses: neither a static nor a frame, nor
        // an interrupt's frame, since there are none yet.
        unsafe { write_volatile(word, PATTERN) };
        word = word.wrapping_add(1);
    }
}

/// The most bytes of stack that have been in use at one time since [`paint`] was called.
pub fn high_water_mark() -> usize {
    let mut word = addr_of!(_stack_end);
    let start = addr_of!(_stack_start);
    // SAFETY: `word` stays between the two ends of the painted region, which is RAM, word-aligned, and wholly written by
    // `paint`. The live frames at its upper end are only read, and volatile, so the compiler assumes nothing of their content.
    while word < start && unsafe { read_volatile(word) } == PATTERN {
        word = word.wrapping_add(1);
    }
    start as usize - word as usize
}
