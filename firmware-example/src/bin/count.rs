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

    stack::paint();
    counted_loop();
    mark();
    let loaded = load();
    mark();
    let Some(model) = loaded else { exit(FAILURE) };
    let input = black_box(&INPUT);
    mark();
    let outputs = model.run(input, SCRATCH);
    mark();
    let stack = stack::high_water_mark();
    outputs.iter().for_each(|output| print(output.to_bits()));
    print(size_of::<workload::Model>() as u32);
    print(stack as u32);
    exit(SUCCESS)
}

/// Loads the model; what that keeps on the stack is gone before the model runs.
#[inline(never)]
fn load() -> Option<workload::Model> {
    workload::load().ok()
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
    semihosting(WRITE0, line.as_ptr() as usize);
}

fn exit(reason: usize) -> ! {
    loop {
        semihosting(EXIT, reason);
    }
}

// Numbers of Arm's semihosting: operations, and reasons for an exit. (A crate would bring more code than there is here.)
const WRITE0: usize = 0x04;
const EXIT: usize = 0x18;
const SUCCESS: usize = 0x2_0026;
const FAILURE: usize = 0x2_0023;

/// Has the debugger do something.
fn semihosting(operation: usize, parameter: usize) {
    // SAFETY: the operations here read, at most, a text that ends with a zero.
    unsafe { asm!("bkpt #0xab", inout("r0") operation => _, in("r1") parameter, options(nostack)) }
}

/// As in `board`: a release build links only if no panic can be reached.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    #[cfg(debug_assertions)]
    exit(FAILURE);
    #[cfg(not(debug_assertions))]
    {
        unsafe extern "C" {
            safe fn thumbnet_panic_is_reachable() -> !;
        }
        thumbnet_panic_is_reachable()
    }
}
