//! The UART of Arm's MPS2 boards (CMSDK APB UART), polled.
//!
//! For another board put its own driver in this one's place: all that is asked of it is to read and to write a byte.

use core::ptr::with_exposed_provenance_mut;

/// The registers, in words from the base address.
mod register {
    pub(super) const DATA: usize = 0;
    pub(super) const STATE: usize = 1;
    pub(super) const CONTROL: usize = 2;
    pub(super) const BAUD_DIVISOR: usize = 4;
}

/// Bits of the state.
const TRANSMITTER_FULL: u32 = 1 << 0;
const RECEIVER_FULL: u32 = 1 << 1;

/// Bits of the control: transmitter and receiver on.
const ENABLE: u32 = 0b11;

/// The least divisor that the hardware takes.
const LEAST_DIVISOR: u32 = 16;

/// A UART that is on.
pub struct Uart {
    base: *mut u32,
}

impl Uart {
    /// Switches on UART 0 of an MPS2 board, at `clock_hz / baud` (a divisor of 16 at least).
    pub fn mps2_uart0(clock_hz: u32, baud: u32) -> Self {
        let uart = Self { base: with_exposed_provenance_mut(0x4000_4000) };
        uart.write_register(register::BAUD_DIVISOR, clock_hz.checked_div(baud).unwrap_or(0).max(LEAST_DIVISOR));
        uart.write_register(register::CONTROL, ENABLE);
        uart
    }

    /// Waits for a byte.
    pub fn read(&mut self) -> u8 {
        while self.read_register(register::STATE) & RECEIVER_FULL == 0 {}
        self.read_register(register::DATA) as u8
    }

    /// Sends bytes, and returns when the last one is on its way.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            while self.read_register(register::STATE) & TRANSMITTER_FULL != 0 {}
            self.write_register(register::DATA, u32::from(*byte));
        }
    }

    fn read_register(&self, register: usize) -> u32 {
        // SAFETY: the address is that of a register of the board's UART, word-aligned; volatile, because it changes by itself.
        unsafe { self.base.wrapping_add(register).read_volatile() }
    }

    fn write_register(&self, register: usize, value: u32) {
        // SAFETY: as for reading; what is written to these registers changes no memory.
        unsafe { self.base.wrapping_add(register).write_volatile(value) }
    }
}
