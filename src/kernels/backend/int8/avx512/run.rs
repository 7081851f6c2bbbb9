//! The inner loops of tiles of eight rows with AVX-512 VNNI, in assembly: of the same loops the compiler keeps some of the sums,
//! twenty-four in the largest, in memory.

use super::I32x16;
use crate::kernels::backend::avx512::distance;
use crate::kernels::backend::int8::tile::{Groups, Run};
use crate::kernels::int8::tensor::Group;
use core::arch::asm;
use core::arch::x86_64::_mm512_set1_epi8;

/// Defines the loop for one number of columns: which registers hold their weights, and which each row's sums.
macro_rules! define_loop {
    (
        $(#[$about:meta])* $name:ident, $columns:literal: $($column:literal $weights:ident $register:tt),*;
        $($row:literal $inputs:literal: $($of:literal $sum:tt $factor:tt),*;)*
    ) => {
        $(#[$about])*
        ///
        /// # Safety
        /// That of [`Int8Vector::add_run`](crate::kernels::int8::vector::Int8Vector::add_run).
        #[inline(always)]
        pub(super) unsafe fn $name<const SHIFTED: u8, const ROWS: usize, const COLUMNS: usize>(
            run: &Run<'_, ROWS, COLUMNS>,
            sums: &mut [[I32x16<SHIFTED>; COLUMNS]; ROWS],
        ) -> bool {
            #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
            #[inline]
            unsafe fn with_features<const SHIFTED: u8, const LISTED: bool>(
                rows: Rows,
                numbers: &[u16],
                weights: &[*const Group; $columns],
                sums: &mut [[I32x16<SHIFTED>; $columns]; 8],
            ) {
                let Rows { inputs, pitch, end } = rows;
                let numbers = numbers.as_ptr_range();
                let end = if LISTED { numbers.end.cast() } else { end };
                // SAFETY: the caller vouches for what is read; nothing is written.
                unsafe {
                    asm!(
                        "lea {a}, [{inputs}]",
                        "lea {b}, [{inputs} + {five_rows}]",
                        "2:",
                        ".if {listed}",
                        "movzx {number:e}, word ptr [{numbers}]",
                        "add {numbers}, 2",
                        "lea {a}, [{inputs} + 4 * {number}]",
                        "shl {number}, 6",
                        "lea {b}, [{a} + {five_rows}]",
                        ".endif",
                        ".if {shifted} == {shifted_weights}",
                        ".if {listed}",
                        $(concat!("vpxord ", $register, ", zmm31, zmmword ptr [{", stringify!($weights), "} + {number}]"),)*
                        ".else",
                        $(concat!("vpxord ", $register, ", zmm31, zmmword ptr [{", stringify!($weights), "}]"),)*
                        ".endif",
                        ".else",
                        ".if {listed}",
                        $(concat!("vmovdqu64 ", $register, ", zmmword ptr [{", stringify!($weights), "} + {number}]"),)*
                        ".else",
                        $(concat!("vmovdqu64 ", $register, ", zmmword ptr [{", stringify!($weights), "}]"),)*
                        ".endif",
                        ".endif",
                        $(
                            concat!("vpbroadcastd zmm30, dword ptr ", $inputs),
                            // The unsigned factor comes first.
                            ".if {shifted} == {shifted_weights}",
                            $(concat!("vpdpbusd ", $sum, ", ", $factor, ", zmm30"),)*
                            ".else",
                            $(concat!("vpdpbusd ", $sum, ", zmm30, ", $factor),)*
                            ".endif",
                        )*
                        ".if {listed}",
                        "cmp {numbers}, {end}",
                        ".else",
                        $(concat!("add {", stringify!($weights), "}, 64"),)*
                        "add {b}, 4",
                        "add {a}, 4",
                        "cmp {a}, {end}",
                        ".endif",
                        "jne 2b",
                        listed = const LISTED as u8,
                        shifted = const SHIFTED,
                        shifted_weights = const super::WEIGHTS,
                        number = out(reg) _,
                        numbers = inout(reg) numbers.start => _,
                        end = in(reg) end,
                        inputs = in(reg) inputs,
                        a = out(reg) _,
                        b = out(reg) _,
                        row = in(reg) pitch,
                        three_rows = in(reg) 3 * pitch,
                        five_rows = in(reg) 5 * pitch,
                        $($weights = inout(reg) weights[$column] => _,)*
                        $($(inout($sum) sums[$row][$of].0,)*)*
                        $(out($register) _,)*
                        out("zmm30") _,
                        in("zmm31") _mm512_set1_epi8(-128),
                        options(nostack, readonly),
                    );
                }
            }

            let (sums, _) = sums.as_flattened_mut().as_chunks_mut::<$columns>();
            let (Some(sums), Some(weights), true) =
                (sums.first_chunk_mut::<8>(), run.weights.first_chunk::<$columns>(), (ROWS, COLUMNS) == (8, $columns))
            else {
                return false;
            };
            let (Some(inputs), Some(pitch)) = (run.inputs.first().copied(), distance(&run.inputs)) else { return false };
            // SAFETY: the caller vouches for the instructions and for what is read.
            unsafe {
                match run.groups {
                    Groups::All(0) | Groups::Listed([]) => {}
                    Groups::All(groups) => {
                        let rows = Rows { inputs, pitch, end: inputs.wrapping_add(4 * groups) };
                        with_features::<SHIFTED, false>(rows, &[], weights, sums);
                    }
                    Groups::Listed(numbers) => {
                        with_features::<SHIFTED, true>(Rows { inputs, pitch, end: inputs }, numbers, weights, sums);
                    }
                }
            }
            true
        }
    };
}

/// The inputs of a tile's rows: where those of the first begin and end, and how many bytes later those of each next begin.
struct Rows {
    inputs: *const i8,
    pitch: usize,
    end: *const i8,
}

define_loop! {
    /// Adds the products of a run to sums of three columns and eight rows; `false` if there are not so many.
    add_to_three, 3: 0 w0 "zmm27", 1 w1 "zmm28", 2 w2 "zmm29";
    0 "[{a}]": 0 "zmm0" "zmm27", 1 "zmm1" "zmm28", 2 "zmm2" "zmm29";
    1 "[{a} + {row}]": 0 "zmm3" "zmm27", 1 "zmm4" "zmm28", 2 "zmm5" "zmm29";
    2 "[{a} + 2 * {row}]": 0 "zmm6" "zmm27", 1 "zmm7" "zmm28", 2 "zmm8" "zmm29";
    3 "[{a} + {three_rows}]": 0 "zmm9" "zmm27", 1 "zmm10" "zmm28", 2 "zmm11" "zmm29";
    4 "[{a} + 4 * {row}]": 0 "zmm12" "zmm27", 1 "zmm13" "zmm28", 2 "zmm14" "zmm29";
    5 "[{b}]": 0 "zmm15" "zmm27", 1 "zmm16" "zmm28", 2 "zmm17" "zmm29";
    6 "[{a} + 2 * {three_rows}]": 0 "zmm18" "zmm27", 1 "zmm19" "zmm28", 2 "zmm20" "zmm29";
    7 "[{b} + 2 * {row}]": 0 "zmm21" "zmm27", 1 "zmm22" "zmm28", 2 "zmm23" "zmm29";
}

define_loop! {
    /// Likewise, of two columns.
    add_to_two, 2: 0 w0 "zmm27", 1 w1 "zmm28";
    0 "[{a}]": 0 "zmm0" "zmm27", 1 "zmm1" "zmm28";
    1 "[{a} + {row}]": 0 "zmm2" "zmm27", 1 "zmm3" "zmm28";
    2 "[{a} + 2 * {row}]": 0 "zmm4" "zmm27", 1 "zmm5" "zmm28";
    3 "[{a} + {three_rows}]": 0 "zmm6" "zmm27", 1 "zmm7" "zmm28";
    4 "[{a} + 4 * {row}]": 0 "zmm8" "zmm27", 1 "zmm9" "zmm28";
    5 "[{b}]": 0 "zmm10" "zmm27", 1 "zmm11" "zmm28";
    6 "[{a} + 2 * {three_rows}]": 0 "zmm12" "zmm27", 1 "zmm13" "zmm28";
    7 "[{b} + 2 * {row}]": 0 "zmm14" "zmm27", 1 "zmm15" "zmm28";
}

define_loop! {
    /// Likewise, of one column.
    add_to_one, 1: 0 w0 "zmm27";
    0 "[{a}]": 0 "zmm0" "zmm27";
    1 "[{a} + {row}]": 0 "zmm1" "zmm27";
    2 "[{a} + 2 * {row}]": 0 "zmm2" "zmm27";
    3 "[{a} + {three_rows}]": 0 "zmm3" "zmm27";
    4 "[{a} + 4 * {row}]": 0 "zmm4" "zmm27";
    5 "[{b}]": 0 "zmm5" "zmm27";
    6 "[{a} + 2 * {three_rows}]": 0 "zmm6" "zmm27";
    7 "[{b} + 2 * {row}]": 0 "zmm7" "zmm27";
}
