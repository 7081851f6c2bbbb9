//! How much stack the program has used.
//!
//! cortex-m-rt (feature `paint-stack`) fills the free RAM with a pattern before the program runs. The stack grows down from
//! the end of the RAM, so what lies between the lowest word that lost its pattern and the end has been in use.

use core::ptr::{addr_of, read_volatile};
use cortex_m_rt::STACK_PAINT_VALUE;

unsafe extern "C" {
    // Addresses that cortex-m-rt's linker script defines: the end of the free RAM below the stack, and the stack's start.
    static _stack_end: u32;
    static _stack_start: u32;
}

/// The most bytes of stack that have been in use at one time since the reset.
pub fn high_water_mark() -> usize {
    let mut word = addr_of!(_stack_end);
    let start = addr_of!(_stack_start);
    // SAFETY: `word` stays between the two ends of the painted region, which is RAM, word-aligned, and wholly written before
    // `main`. The live frames at its upper end are only read, and volatile, so the compiler assumes nothing of their content.
    while word < start && unsafe { read_volatile(word) } == STACK_PAINT_VALUE {
        word = word.wrapping_add(1);
    }
    start as usize - word as usize
}
