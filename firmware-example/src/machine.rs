//! What differs from processor to processor: where the program starts, what counts its instructions, where its stack is.
//!
//! Under QEMU with `-icount shift=0` an instruction takes one nanosecond of the machine's time, whatever the computer it
//! runs on. On silicon the same timers count clock cycles (Cortex-M) and instructions (RISC-V).
//!
//! The FPU, where the target has one, is switched on by cortex-m-rt.

#[cfg(target_arch = "arm")]
pub use cortex_m_rt::entry;
#[cfg(target_arch = "riscv32")]
pub use riscv_rt::entry;

/// Counts executed instructions.
pub struct InstructionCounter(counter::Counter);

impl InstructionCounter {
    /// Starts counting; `None` for all but the first call.
    pub fn start() -> Option<Self> {
        counter::Counter::start().map(Self)
    }

    /// Runs `work` and gives its result and the instructions it took. Exact to one on a RISC-V, to one tick of the timer
    /// (30 to 80 instructions on the emulated machines) on a Cortex-M.
    pub fn count<T>(&mut self, work: impl FnOnce() -> T) -> (T, u64) {
        let before = self.0.now();
        let result = work();
        (result, self.0.since(before))
    }
}

#[cfg(target_arch = "arm")]
mod counter {
    use cortex_m::peripheral::{SYST, syst::SystClkSource};

    /// Clock of the machine's timer in Hz, from `build.rs`.
    const CLOCK_HZ: u64 = match u64::from_str_radix(env!("TIMER_CLOCK_HZ"), 10) {
        Ok(clock) if clock > 0 => clock,
        _ => panic!("THUMBNET_CLOCK_HZ must be a number, at least 1"),
    };

    /// Instructions in a second of the machine's time.
    const PER_SECOND: u64 = 1_000_000_000;

    /// The timer has 24 bits: the longest work it can measure is 16,777,215 ticks, 523 million instructions at 32 MHz.
    const TIMER_MAX: u32 = 0x00ff_ffff;

    /// SysTick, which every Cortex-M has. It counts down, and wraps.
    pub(super) struct Counter(SYST);

    impl Counter {
        pub(super) fn start() -> Option<Self> {
            let mut timer = cortex_m::Peripherals::take()?.SYST;
            timer.set_clock_source(SystClkSource::Core);
            timer.set_reload(TIMER_MAX);
            timer.clear_current();
            timer.enable_counter();
            Some(Self(timer))
        }

        pub(super) fn now(&self) -> u32 {
            SYST::get_current()
        }

        pub(super) fn since(&self, before: u32) -> u64 {
            let ticks = before.wrapping_sub(SYST::get_current()) & TIMER_MAX;
            u64::from(ticks) * PER_SECOND / CLOCK_HZ
        }
    }
}

#[cfg(target_arch = "riscv32")]
mod counter {
    use riscv::register::minstret;

    /// The lower half of `minstret`, which counts retired instructions and always runs.
    pub(super) struct Counter;

    impl Counter {
        pub(super) fn start() -> Option<Self> {
            Some(Self)
        }

        pub(super) fn now(&self) -> u32 {
            minstret::read() as u32
        }

        pub(super) fn since(&self, before: u32) -> u64 {
            u64::from((minstret::read() as u32).wrapping_sub(before))
        }
    }
}

/// The address of the lowest word of the stack that is in use.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let pointer;
    // SAFETY: copies a register.
    unsafe {
        #[cfg(target_arch = "arm")]
        core::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "riscv32")]
        core::arch::asm!("mv {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    pointer
}
