//! A QEMU plugin that counts the instructions that an emulated Cortex-M executes, exactly, and estimates the cycles that a
//! Cortex-M4 would take for them.
//!
//! The program under test executes the [`MARKER`], a no-op that compilers do not emit, before and after what is to be
//! counted; so the same file runs with and without the plugin, and on real hardware. At every marker but the first the plugin
//! prints a line to stderr:
//!
//! ```text
//! [count] instructions 400 cycles 801
//! ```
//!
//! which is the work between it and the marker before: the instructions without the markers, the cycles with one of them.
//!
//! The functions it calls are those of QEMU's plugin API, version 1 (QEMU 6 to 8), which no package declares.

mod api;
mod cycles;

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// `mov r9, r9`
pub const MARKER: u16 = 0x46c9;

/// Instructions so far. QEMU adds to it in the code that it generates.
static INSTRUCTIONS: AtomicU64 = AtomicU64::new(0);
/// Cycles so far, as estimated; likewise.
static CYCLES: AtomicU64 = AtomicU64::new(0);
/// Both at the marker before; there has been none as long as the instructions are 0.
static AT_MARKER: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
/// Where the block that was executed last ends.
static LAST_END: AtomicU64 = AtomicU64::new(0);

/// The version of the API that this is written for.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "the name is QEMU's")]
pub static qemu_plugin_version: c_int = 1;

/// QEMU calls this when it has loaded the plugin.
///
/// # Safety
/// Only QEMU may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: api::PluginId,
    _info: *const c_void,
    _argc: c_int,
    _argv: *const *const c_char,
) -> c_int {
    // SAFETY: `id` is the one that QEMU has given this plugin.
    unsafe { api::qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

/// A block of code without a jump but at its end.
struct Block {
    start: u64,
    end: u64,
}

/// QEMU has translated a block of instructions, and asks what to do when they are executed.
extern "C" fn translated(_: api::PluginId, block: *mut api::Block) {
    // SAFETY: QEMU hands out blocks and instructions that are valid during this call; so it does below.
    let (count, start) = unsafe { (api::qemu_plugin_tb_n_insns(block), api::qemu_plugin_tb_vaddr(block)) };
    let mut end = start;
    let mut after_load = false;
    for index in 0..count {
        // SAFETY: as above, and the index is below the number of instructions. The data are two or four bytes; the second half
        // is read only where the first says that there is one.
        let (instruction, address, first, second) = unsafe {
            let instruction = api::qemu_plugin_tb_get_insn(block, index);
            let halves = api::qemu_plugin_insn_data(instruction).cast::<u16>();
            let first = halves.read_unaligned();
            let second = cycles::is_wide(first).then(|| halves.add(1).read_unaligned());
            (instruction, api::qemu_plugin_insn_vaddr(instruction), first, second)
        };
        // (QEMU's own length is wrong for the last instruction of a page.)
        end = address + if second.is_some() { 4 } else { 2 };
        let cost = cycles::cost(first, second, after_load);
        after_load = cost.is_load;
        // SAFETY: as above; the counters are static, and QEMU emulates the one processor on one thread.
        unsafe {
            let add = |counter: &'static AtomicU64, n: u64| {
                api::qemu_plugin_register_vcpu_insn_exec_inline(instruction, api::ADD_U64, counter.as_ptr().cast(), n);
            };
            add(&INSTRUCTIONS, 1);
            add(&CYCLES, cost.cycles.into());
            if first == MARKER {
                api::qemu_plugin_register_vcpu_insn_exec_cb(
                    instruction,
                    marker,
                    api::NO_REGISTERS,
                    std::ptr::null_mut(),
                );
            }
        }
    }
    // QEMU keeps the address as long as it keeps the block, and does not tell when that ends.
    let extent = Box::into_raw(Box::new(Block { start, end }));
    // SAFETY: as above; the extent is never freed.
    unsafe { api::qemu_plugin_register_vcpu_tb_exec_cb(block, executed, api::NO_REGISTERS, extent.cast()) };
}

/// A block is about to be executed: if it does not follow the one before in memory, that one ended with a jump.
extern "C" fn executed(_: c_uint, extent: *mut c_void) {
    // SAFETY: it is the extent that `translated` has registered.
    let Block { start, end } = unsafe { &*extent.cast::<Block>() };
    if LAST_END.swap(*end, Relaxed) != *start {
        CYCLES.fetch_add(cycles::JUMP, Relaxed);
    }
}

/// A marker is about to be executed.
extern "C" fn marker(_: c_uint, _: *mut c_void) {
    let now = [&INSTRUCTIONS, &CYCLES].map(|counter| counter.load(Relaxed));
    let before = [0, 1].map(|index: usize| AT_MARKER[index].swap(now[index], Relaxed));
    if before[0] != 0 {
        eprintln!("[count] instructions {} cycles {}", now[0] - before[0] - 1, now[1] - before[1]);
    }
}
