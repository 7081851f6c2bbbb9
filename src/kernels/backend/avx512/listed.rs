//! The loop over listed inputs for the largest tile, in assembly: the compiler loads the inputs of all rows at once, for which
//! there are too few registers beside twenty-four sums, and keeps some of these in memory.

use super::F32x16;
use core::arch::asm;

/// Where the tile's operands lie: the first input of the first row and the first weight of the first column, and from each
/// row and each column to the next, in bytes.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) inputs: *const f32,
    pub(super) row: usize,
    pub(super) weights: *const f32,
    pub(super) column: usize,
}

macro_rules! define_loop {
    ($($row:literal $input:literal: $($column:literal $sum:tt $weights:literal),*;)*) => {
        /// Adds the products of the inputs with these numbers to the sums. The weights of an input are sixteen, and those of the
        /// next follow.
        ///
        /// # Safety
        /// The numbers must be those of inputs that every row and column has.
        #[target_feature(enable = "avx512f")]
        #[inline]
        pub(super) unsafe fn add_listed(from: Operands, numbers: &[u16], tile: &mut [[F32x16; 4]; 6]) {
            if numbers.is_empty() {
                return;
            }
            let numbers = numbers.as_ptr_range();
            // SAFETY: the caller vouches for what is read; nothing is written.
            unsafe {
                asm!(
                    "2:",
                    "movzx {number:e}, word ptr [{numbers}]",
                    "add {numbers}, 2",
                    "lea {a}, [{inputs} + 4 * {number}]",
                    "shl {number}, 6",
                    "lea {b}, [{a} + {five_rows}]",
                    "add {number}, {weights}",
                    "vmovups zmm24, zmmword ptr [{number}]",
                    "vmovups zmm25, zmmword ptr [{number} + {column}]",
                    "vmovups zmm26, zmmword ptr [{number} + 2 * {column}]",
                    "vmovups zmm27, zmmword ptr [{number} + {three_columns}]",
                    $(
                        concat!("vbroadcastss zmm28, dword ptr ", $input),
                        $(concat!("vfmadd231ps ", $sum, ", ", $weights, ", zmm28"),)*
                    )*
                    "cmp {numbers}, {end}",
                    "jne 2b",
                    number = out(reg) _,
                    numbers = inout(reg) numbers.start => _,
                    end = in(reg) numbers.end,
                    inputs = in(reg) from.inputs,
                    weights = in(reg) from.weights,
                    a = out(reg) _,
                    b = out(reg) _,
                    row = in(reg) from.row,
                    three_rows = in(reg) 3 * from.row,
                    five_rows = in(reg) 5 * from.row,
                    column = in(reg) from.column,
                    three_columns = in(reg) 3 * from.column,
                    $($(inout($sum) tile[$row][$column].0,)*)*
                    out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _, out("zmm28") _,
                    options(nostack, readonly),
                );
            }
        }
    };
}

define_loop! {
    0 "[{a}]": 0 "zmm0" "zmm24", 1 "zmm1" "zmm25", 2 "zmm2" "zmm26", 3 "zmm3" "zmm27";
    1 "[{a} + {row}]": 0 "zmm4" "zmm24", 1 "zmm5" "zmm25", 2 "zmm6" "zmm26", 3 "zmm7" "zmm27";
    2 "[{a} + 2 * {row}]": 0 "zmm8" "zmm24", 1 "zmm9" "zmm25", 2 "zmm10" "zmm26", 3 "zmm11" "zmm27";
    3 "[{a} + {three_rows}]": 0 "zmm12" "zmm24", 1 "zmm13" "zmm25", 2 "zmm14" "zmm26", 3 "zmm15" "zmm27";
    4 "[{a} + 4 * {row}]": 0 "zmm16" "zmm24", 1 "zmm17" "zmm25", 2 "zmm18" "zmm26", 3 "zmm19" "zmm27";
    5 "[{b}]": 0 "zmm20" "zmm24", 1 "zmm21" "zmm25", 2 "zmm22" "zmm26", 3 "zmm23" "zmm27";
}
