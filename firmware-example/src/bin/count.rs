//! One inference of one workload, for `cargo xtask count`: what is counted, and hardly anything else.
//!
//! Run under QEMU with the plugin `xtask/qemu-count`, it has three intervals between two markers each: a loop of
//! [`LOOP_INSTRUCTIONS`] instructions, by which the plugin is checked; the loading of the model; and an inference. Then it
//! prints, as hexadecimal words: the bits of the outputs, the bytes of the `Model` value, and the most stack that was in use.
//!
//! `THUMBNET_WORKLOAD` names the model when this is compiled: `assets/NAME.tnet`, with the input `assets/NAME.input`.
#![no_std]
#![no_main]

use core::arch::asm;
use core::hint::black_box;
use cortex_m_rt::entry;
use cortex_m_semihosting::{debug, syscall1};
use firmware_example::stack;

#[cfg(not(has_workload))]
compile_error!("no such file: assets/$THUMBNET_WORKLOAD.tnet; run `cargo xtask count` in the root of the repository");

thumbnet::include_model! {
    mod workload = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/", env!("THUMBNET_WORKLOAD"), ".tnet");
}

/// In the flash, as the weights are.
static INPUT: [u8; workload::INPUT_LEN] =
    *include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/", env!("THUMBNET_WORKLOAD"), ".input"));

/// Four in each turn.
const LOOP_INSTRUCTIONS: u32 = 4000;

#[entry]
fn main() -> ! {
    static mut SCRATCH: workload::Scratch = workload::Scratch::zeroed();

    counted_loop();
    mark();
    let loaded = workload::load();
    mark();
    let Ok(model) = loaded else { exit(debug::EXIT_FAILURE) };
    let input = black_box(&INPUT);
    mark();
    let outputs = model.run(input, SCRATCH);
    mark();
    let stack = stack::high_water_mark();
    outputs.iter().for_each(|output| print(output.to_bits()));
    print(size_of::<workload::Model>() as u32);
    print(stack as u32);
    exit(debug::EXIT_SUCCESS)
}

/// Tells the plugin where an interval begins or ends; nothing moves across it.
#[inline(always)]
fn mark() {
    // SAFETY: the instruction copies a register to itself.
    unsafe { asm!("mov r9, r9") }
}

/// A loop whose instructions anybody can count.
fn counted_loop() {
    // SAFETY: nothing but the register that counts, and the flags, is changed.
    unsafe {
        asm!(
            "mov r9, r9",
            "2:",
            "subs {turns}, {turns}, #1",
            "nop",
            "nop",
            "bne 2b",
            "mov r9, r9",
            turns = inout(reg) LOOP_INSTRUCTIONS / 4 => _,
            options(nomem, nostack),
        );
    }
}

/// Writes a line with a number's hexadecimal digits. (Formatting would be more code than the inference.)
#[inline(never)]
fn print(word: u32) {
    let mut line = *b"00000000\n\0";
    for (place, digit) in line.iter_mut().take(8).enumerate() {
        let value = (word >> (28 - 4 * place)) as u8 & 15;
        *digit = if value < 10 { b'0' + value } else { b'a' - 10 + value };
    }
    // SAFETY: the host reads up to the zero at the end.
    unsafe { syscall1!(WRITE0, line.as_ptr() as usize) };
}

fn exit(code: debug::ExitStatus) -> ! {
    loop {
        debug::exit(code);
    }
}

/// As in `board`: a release build links only if no panic can be reached.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    #[cfg(debug_assertions)]
    exit(debug::EXIT_FAILURE);
    #[cfg(not(debug_assertions))]
    {
        unsafe extern "C" {
            safe fn thumbnet_panic_is_reachable() -> !;
        }
        thumbnet_panic_is_reachable()
    }
}
