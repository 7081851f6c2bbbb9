//! The part of QEMU's plugin API, version 1, that is used here.

use std::ffi::{c_int, c_uint, c_void};

/// What QEMU calls a plugin.
pub(crate) type PluginId = u64;

/// A translated block of instructions (`struct qemu_plugin_tb`).
#[repr(C)]
pub(crate) struct Block([u8; 0]);

/// One of its instructions (`struct qemu_plugin_insn`).
#[repr(C)]
pub(crate) struct Instruction([u8; 0]);

/// Add to a counter (`QEMU_PLUGIN_INLINE_ADD_U64`).
pub(crate) const ADD_U64: c_int = 0;

/// The function neither reads nor writes registers (`QEMU_PLUGIN_CB_NO_REGS`).
pub(crate) const NO_REGISTERS: c_int = 0;

type OnTranslation = extern "C" fn(PluginId, *mut Block);
type OnExecution = extern "C" fn(c_uint, *mut c_void);

unsafe extern "C" {
    pub(crate) fn qemu_plugin_register_vcpu_tb_trans_cb(id: PluginId, function: OnTranslation);
    pub(crate) fn qemu_plugin_register_vcpu_tb_exec_cb(
        block: *mut Block,
        function: OnExecution,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        function: OnExecution,
        flags: c_int,
        data: *mut c_void,
    );
    pub(crate) fn qemu_plugin_register_vcpu_insn_exec_inline(
        instruction: *mut Instruction,
        operation: c_int,
        counter: *mut c_void,
        operand: u64,
    );
    pub(crate) fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    pub(crate) fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    pub(crate) fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    pub(crate) fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const c_void;
    pub(crate) fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
}
