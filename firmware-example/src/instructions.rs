//! Counts executed instructions, with the timer that every Cortex-M has.
//!
//! Under QEMU with `-icount shift=0` an instruction takes one nanosecond of the machine's time, whatever the computer it
//! runs on. On silicon the same timer counts clock cycles.

use cortex_m::peripheral::{SYST, syst::SystClkSource};

/// Clock of QEMU's `mps2-an386` in MHz; a tick of its timer is 1000 / 25 = 40 ns, so 40 instructions.
const CLOCK_MHZ: u32 = 25;

/// Instructions in one tick of the timer.
pub const PER_TICK: u32 = 1000 / CLOCK_MHZ;

/// The timer has 24 bits: the longest work it can measure is 16,777,215 ticks, 671 million instructions.
const TIMER_MAX: u32 = 0x00ff_ffff;

/// A running [`SYST`] timer.
pub struct Counter(SYST);

impl Counter {
    /// Starts the timer.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(TIMER_MAX);
        timer.clear_current();
        timer.enable_counter();
        Self(timer)
    }

    /// Runs `work` and gives its result and the ticks it took: exact to one tick, of [`PER_TICK`] instructions.
    pub fn ticks<T>(&mut self, work: impl FnOnce() -> T) -> (T, u32) {
        // The timer counts down, and wraps.
        let before = SYST::get_current();
        let result = work();
        let after = SYST::get_current();
        (result, before.wrapping_sub(after) & TIMER_MAX)
    }
}
