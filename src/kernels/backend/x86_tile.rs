//! Rows of whole tiles in assembly, for AVX-512 and AVX2: the compiler keeps sums in memory now and then, places a loop anywhere in a
//! line of the instruction cache, and makes copies of it. Each costs more than all that surrounds the loop.

use super::super::pack::PANEL;
use super::tile::TileRow;
use core::arch::asm;
use core::arch::x86_64::{__m256, __m512};
use core::mem::{offset_of, size_of};

/// Defines the function for tiles of one shape: the registers that hold a vector of weights each, one for the floor, and others, of
/// which the first appears with its type; for each row where it lies, a register for its input if it has to be broadcast, and its
/// sums with what is multiplied for them.
macro_rules! define_tile {
    (
        $(#[$about:meta])* $name:ident, $features:literal, $vector:ident, $pointer:literal, $half_pointer:literal;
        $($weights:tt $weights_at:literal $half_weights_at:literal),*; $floor:literal; [$typed:tt $($others:tt)*];
        $($row:literal $($broadcast:literal)?: $($sum:tt $sum_at:literal $of:literal $input:literal),*;)*
    ) => {
        $(#[$about])*
        ///
        /// # Safety
        /// That of [`Vector::compute_tile_row`](crate::kernels::vector::Vector::compute_tile_row), with the instructions that this
        /// has.
        #[inline(always)]
        pub(super) unsafe fn $name<W>(tiles: &mut TileRow) {
            #[target_feature(enable = $features)]
            unsafe fn compute<const LISTED: bool, const HALF: bool>(tiles: &mut TileRow) {
                const { assert!(PANEL == 16, "a row of a panel has sixteen weights, of two or of four bytes") };
                // (What it holds in the end does not matter: a register without a type is one of SSE's to the compiler, which then
                // would not clear the upper halves of all before it goes on to SSE's instructions.)
                let _vector: $vector;
                // SAFETY: the caller vouches for all that is read and written, and that the loops end; all registers that change are
                // named, and nothing is pushed.
                unsafe {
                    asm!(
                        "mov {panels}, [{tiles} + {panel_count}]",
                        // Each panel.
                        "7:",
                        "mov {a}, [{tiles} + {begin}]",
                        "add qword ptr [{tiles} + {begin}], {panel_bytes}",
                        "mov {row}, [{tiles} + {begin_pitch}]",
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
                        "mov {weights}, [{tiles} + {panel}]",
                        "mov {a}, [{tiles} + {panel_pitch}]",
                        "add [{tiles} + {panel}], {a}",
                        "mov {a}, [{tiles} + {inputs}]",
                        "mov {row}, [{tiles} + {row_pitch}]",
                        "lea {three_rows}, [{row} + 2 * {row}]",
                        "lea {b}, [{row} + 4 * {row}]",
                        ".if {listed}",
                        "mov {end}, [{tiles} + {numbers_end}]",
                        "mov {first}, {a}",
                        "mov {five_rows}, {b}",
                        "mov {next}, [{tiles} + {numbers}]",
                        "cmp {next}, {end}",
                        "je 3f",
                        ".else",
                        "mov {end}, [{tiles} + {inputs_end}]",
                        "add {b}, {a}",
                        // While the last panel's weights pass by, the inputs of the next row of tiles come closer. (A branch more
                        // would make the end of the loop harder to foresee.)
                        "mov {next}, [{tiles} + {next_inputs}]",
                        "xor {number:e}, {number:e}",
                        "cmp {panels}, 1",
                        "cmove {number}, [{tiles} + {next_step}]",
                        ".endif",
                        ".p2align 6",
                        // Each input.
                        "2:",
                        ".if {listed}",
                        "movzx {number:e}, word ptr [{next}]",
                        "add {next}, 2",
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
                        "cmp {next}, {end}",
                        ".else",
                        "prefetcht0 [{next}]",
                        "add {next}, {number}",
                        "add {b}, 4",
                        "add {weights}, 1 << {shift}",
                        "add {a}, 4",
                        "cmp {a}, {end}",
                        ".endif",
                        "jne 2b",
                        "3:",
                        concat!("vbroadcastss ", $floor, ", dword ptr [{tiles} + {floor}]"),
                        "mov {a}, [{tiles} + {out}]",
                        "add qword ptr [{tiles} + {out}], {panel_bytes}",
                        "mov {row}, [{tiles} + {out_pitch}]",
                        "lea {three_rows}, [{row} + 2 * {row}]",
                        "lea {b}, [{row} + 4 * {row}]",
                        "add {b}, {a}",
                        $($(
                            // NaN, where there is one, is the second operand.
                            concat!("vmaxps ", $sum, ", ", $floor, ", ", $sum),
                            concat!("vmovups ", $pointer, " ptr [", $row, " + ", $sum_at, "], ", $sum),
                        )*)*
                        "sub {panels}, 1",
                        "jne 7b",
                        listed = const LISTED as u8,
                        half = const HALF as u8,
                        shift = const if HALF { 5 } else { 6 },
                        panel_bytes = const PANEL * size_of::<f32>(),
                        inputs = const offset_of!(TileRow, inputs),
                        inputs_end = const offset_of!(TileRow, inputs_end),
                        row_pitch = const offset_of!(TileRow, row_pitch),
                        numbers = const offset_of!(TileRow, numbers),
                        numbers_end = const offset_of!(TileRow, numbers_end),
                        next_inputs = const offset_of!(TileRow, next_inputs),
                        next_step = const offset_of!(TileRow, next_step),
                        panel = const offset_of!(TileRow, panel),
                        panel_pitch = const offset_of!(TileRow, panel_pitch),
                        panel_count = const offset_of!(TileRow, panels),
                        begin = const offset_of!(TileRow, begin),
                        begin_pitch = const offset_of!(TileRow, begin_pitch),
                        out = const offset_of!(TileRow, out),
                        out_pitch = const offset_of!(TileRow, out_pitch),
                        floor = const offset_of!(TileRow, floor),
                        tiles = in(reg) tiles,
                        panels = out(reg) _,
                        weights = out(reg) _,
                        next = out(reg) _,
                        end = out(reg) _,
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

            // SAFETY: the caller vouches for the instructions and for the tiles.
            unsafe {
                match (tiles.numbers.is_null(), size_of::<W>() == size_of::<f32>()) {
                    (true, true) => compute::<false, false>(tiles),
                    (true, false) => compute::<false, true>(tiles),
                    (false, true) => compute::<true, false>(tiles),
                    (false, false) => compute::<true, true>(tiles),
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
