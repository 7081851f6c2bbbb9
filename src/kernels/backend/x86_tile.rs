//! Whole tiles in assembly, for AVX-512 and AVX2: the compiler keeps sums in memory now and then, and places a loop anywhere in a
//! line of the instruction cache. Either costs more than all that surrounds the loop.

use super::super::pack::PANEL;
use super::tile::WholeTile;
use core::arch::asm;
use core::arch::x86_64::{__m256, __m512};
use core::mem::{offset_of, size_of};

/// Defines the function for tiles of one shape: the registers that hold a vector of weights each, one for the floor, and others, the first of which appears with its type; for each
/// row where it lies, a register for its input if it has to be broadcast, and its sums with what is multiplied for them.
macro_rules! define_tile {
    (
        $(#[$about:meta])* $name:ident, $features:literal, $vector:ident, $pointer:literal, $half_pointer:literal;
        $($weights:tt $weights_at:literal $half_weights_at:literal),*; $floor:literal; [$typed:tt $($others:tt)*];
        $($row:literal $($broadcast:literal)?: $($sum:tt $sum_at:literal $of:literal $input:literal),*;)*
    ) => {
        $(#[$about])*
        ///
        /// # Safety
        /// That of [`Vector::compute_whole`](crate::kernels::vector::Vector::compute_whole), with the instructions that this has.
        #[inline(always)]
        pub(super) unsafe fn $name<W>(tile: &WholeTile, weights: *const W, numbers: Option<&[u16]>) {
            #[target_feature(enable = $features)]
            unsafe fn compute<const LISTED: bool, const HALF: bool>(
                tile: &WholeTile,
                weights: *const u8,
                numbers: &[u16],
            ) {
                const { assert!(PANEL == 16, "a row of a panel has sixteen weights, of two or of four bytes") };
                let numbers = numbers.as_ptr_range();
                // (What it holds behind the loop does not matter: a register without a type is one of SSE's to the compiler, which
                // then would not clear the upper halves of all before it goes on to SSE's instructions.)
                let _vector: $vector;
                // SAFETY: the caller vouches for all that is read and written, and that the loop ends; all registers that change are
                // named, and nothing is pushed.
                unsafe {
                    asm!(
                        "mov {a}, [{tile} + {begin}]",
                        "mov {row}, [{tile} + {begin_pitch}]",
                        "test {row}, {row}",
                        "jne 4f",
                        // Biases are loaded once: what follows may load as much as the processor can.
                        $(concat!("vmovups ", $weights, ", ", $pointer, " ptr [{a} + ", $weights_at, "]"),)*
                        $($(concat!("vmovaps ", $sum, ", ", $of),)*)*
                        "jmp 5f",
                        "4:",
                        "lea {three_rows}, [{row} + 2 * {row}]",
                        "lea {b}, [{row} + 4 * {row}]",
                        "add {b}, {a}",
                        $($(concat!("vmovups ", $sum, ", ", $pointer, " ptr [", $row, " + ", $sum_at, "]"),)*)*
                        "5:",
                        "mov {a}, [{tile} + {inputs}]",
                        "mov {row}, [{tile} + {row_pitch}]",
                        "lea {three_rows}, [{row} + 2 * {row}]",
                        "lea {b}, [{row} + 4 * {row}]",
                        ".if {listed}",
                        "mov {first}, {a}",
                        "mov {five_rows}, {b}",
                        "cmp {numbers}, {end}",
                        "je 3f",
                        ".else",
                        "add {b}, {a}",
                        // (Registers that only the other loop needs: each one more would have to be saved.)
                        "mov {first}, [{tile} + {next_inputs}]",
                        "mov {number}, [{tile} + {next_step}]",
                        ".endif",
                        ".p2align 6",
                        "2:",
                        ".if {listed}",
                        "movzx {number:e}, word ptr [{numbers}]",
                        "add {numbers}, 2",
                        "lea {a}, [{first} + 4 * {number}]",
                        "lea {b}, [{a} + {five_rows}]",
                        "shl {number}, {shift}",
                        ".if {half}",
                        $(concat!("vcvtph2ps ", $weights, ", ", $half_pointer, " ptr [{weights} + {number} + ", $half_weights_at, "]"),)*
                        ".else",
                        $(concat!("vmovups ", $weights, ", ", $pointer, " ptr [{weights} + {number} + ", $weights_at, "]"),)*
                        ".endif",
                        ".else",
                        ".if {half}",
                        $(concat!("vcvtph2ps ", $weights, ", ", $half_pointer, " ptr [{weights} + ", $half_weights_at, "]"),)*
                        ".else",
                        $(concat!("vmovups ", $weights, ", ", $pointer, " ptr [{weights} + ", $weights_at, "]"),)*
                        ".endif",
                        ".endif",
                        $(
                            $(concat!("vbroadcastss ", $broadcast, ", dword ptr [", $row, "]"),)?
                            $(concat!("vfmadd231ps ", $sum, ", ", $of, ", ", $input),)*
                        )*
                        ".if {listed}",
                        "cmp {numbers}, {end}",
                        ".else",
                        "prefetcht0 [{first}]",
                        "add {first}, {number}",
                        "add {b}, 4",
                        "add {weights}, 1 << {shift}",
                        "add {a}, 4",
                        "cmp {a}, {end}",
                        ".endif",
                        "jne 2b",
                        "3:",
                        concat!("vbroadcastss ", $floor, ", dword ptr [{tile} + {floor}]"),
                        "mov {a}, [{tile} + {out}]",
                        "mov {row}, [{tile} + {out_pitch}]",
                        "lea {three_rows}, [{row} + 2 * {row}]",
                        "lea {b}, [{row} + 4 * {row}]",
                        "add {b}, {a}",
                        $($(
                            // NaN, where there is one, is the second operand.
                            concat!("vmaxps ", $sum, ", ", $floor, ", ", $sum),
                            concat!("vmovups ", $pointer, " ptr [", $row, " + ", $sum_at, "], ", $sum),
                        )*)*
                        listed = const LISTED as u8,
                        half = const HALF as u8,
                        shift = const if HALF { 5 } else { 6 },
                        begin = const offset_of!(WholeTile, begin),
                        begin_pitch = const offset_of!(WholeTile, begin_pitch),
                        inputs = const offset_of!(WholeTile, inputs),
                        row_pitch = const offset_of!(WholeTile, row_pitch),
                        next_inputs = const offset_of!(WholeTile, next_inputs),
                        next_step = const offset_of!(WholeTile, next_step),
                        out = const offset_of!(WholeTile, out),
                        out_pitch = const offset_of!(WholeTile, out_pitch),
                        floor = const offset_of!(WholeTile, floor),
                        tile = in(reg) tile,
                        weights = inout(reg) weights => _,
                        numbers = inout(reg) numbers.start => _,
                        end = in(reg) if LISTED { numbers.end.cast() } else { tile.inputs_end },
                        number = out(reg) _,
                        first = out(reg) _,
                        five_rows = out(reg) _,
                        a = out(reg) _,
                        b = out(reg) _,
                        row = out(reg) _,
                        three_rows = out(reg) _,
                        $(out($weights) _,)*
                        out($typed) _vector,
                        $(out($others) _,)*
                        $($(out($sum) _,)*)*
                        options(nostack),
                    );
                }
            }

            // SAFETY: the caller vouches for the instructions and for the tile.
            unsafe {
                match (numbers, size_of::<W>() == size_of::<f32>()) {
                    (None, true) => compute::<false, false>(tile, weights.cast(), &[]),
                    (None, false) => compute::<false, true>(tile, weights.cast(), &[]),
                    (Some(numbers), true) => compute::<true, false>(tile, weights.cast(), numbers),
                    (Some(numbers), false) => compute::<true, true>(tile, weights.cast(), numbers),
                }
            }
        }
    };
}

define_tile! {
    /// Eight rows of a vector of sixteen outputs.
    eight_by_one, "avx512f", __m512, "zmmword", "ymmword";
    "zmm8" "0" "0"; "zmm8"; ["zmm9"];
    "{a}": "zmm0" "0" "zmm8" "dword ptr [{a}]{{1to16}}";
    "{a} + {row}": "zmm1" "0" "zmm8" "dword ptr [{a} + {row}]{{1to16}}";
    "{a} + 2 * {row}": "zmm2" "0" "zmm8" "dword ptr [{a} + 2 * {row}]{{1to16}}";
    "{a} + {three_rows}": "zmm3" "0" "zmm8" "dword ptr [{a} + {three_rows}]{{1to16}}";
    "{a} + 4 * {row}": "zmm4" "0" "zmm8" "dword ptr [{a} + 4 * {row}]{{1to16}}";
    "{b}": "zmm5" "0" "zmm8" "dword ptr [{b}]{{1to16}}";
    "{a} + 2 * {three_rows}": "zmm6" "0" "zmm8" "dword ptr [{a} + 2 * {three_rows}]{{1to16}}";
    "{b} + 2 * {row}": "zmm7" "0" "zmm8" "dword ptr [{b} + 2 * {row}]{{1to16}}";
}

define_tile! {
    /// Four rows of a vector of sixteen outputs.
    four_by_one, "avx512f", __m512, "zmmword", "ymmword";
    "zmm8" "0" "0"; "zmm8"; ["zmm9"];
    "{a}": "zmm0" "0" "zmm8" "dword ptr [{a}]{{1to16}}";
    "{a} + {row}": "zmm1" "0" "zmm8" "dword ptr [{a} + {row}]{{1to16}}";
    "{a} + 2 * {row}": "zmm2" "0" "zmm8" "dword ptr [{a} + 2 * {row}]{{1to16}}";
    "{a} + {three_rows}": "zmm3" "0" "zmm8" "dword ptr [{a} + {three_rows}]{{1to16}}";
}

define_tile! {
    /// Six rows of two vectors of eight outputs.
    six_by_two, "avx2,fma,f16c", __m256, "ymmword", "xmmword";
    "ymm12" "0" "0", "ymm13" "32" "16"; "ymm12"; ["ymm14" "ymm15"];
    "{a}" "ymm14": "ymm0" "0" "ymm12" "ymm14", "ymm1" "32" "ymm13" "ymm14";
    "{a} + {row}" "ymm15": "ymm2" "0" "ymm12" "ymm15", "ymm3" "32" "ymm13" "ymm15";
    "{a} + 2 * {row}" "ymm14": "ymm4" "0" "ymm12" "ymm14", "ymm5" "32" "ymm13" "ymm14";
    "{a} + {three_rows}" "ymm15": "ymm6" "0" "ymm12" "ymm15", "ymm7" "32" "ymm13" "ymm15";
    "{a} + 4 * {row}" "ymm14": "ymm8" "0" "ymm12" "ymm14", "ymm9" "32" "ymm13" "ymm14";
    "{b}" "ymm15": "ymm10" "0" "ymm12" "ymm15", "ymm11" "32" "ymm13" "ymm15";
}

define_tile! {
    /// Four rows of two vectors of eight outputs.
    four_by_two, "avx2,fma,f16c", __m256, "ymmword", "xmmword";
    "ymm12" "0" "0", "ymm13" "32" "16"; "ymm12"; ["ymm14" "ymm15"];
    "{a}" "ymm14": "ymm0" "0" "ymm12" "ymm14", "ymm1" "32" "ymm13" "ymm14";
    "{a} + {row}" "ymm15": "ymm2" "0" "ymm12" "ymm15", "ymm3" "32" "ymm13" "ymm15";
    "{a} + 2 * {row}" "ymm14": "ymm4" "0" "ymm12" "ymm14", "ymm5" "32" "ymm13" "ymm14";
    "{a} + {three_rows}" "ymm15": "ymm6" "0" "ymm12" "ymm15", "ymm7" "32" "ymm13" "ymm15";
}
