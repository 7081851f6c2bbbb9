//! What an instruction costs on a Cortex-M4, by the processor's Technical Reference Manual (section 3.3, instruction set
//! summary; section 7.2.3, FPU instruction set), from memory without wait states.
//!
//! An estimate, not a simulation: a result that the next instruction has to wait for costs nothing extra, and no more than the
//! refill of the pipeline is added for a jump.

/// What a jump that is taken costs beside its instruction.
pub(crate) const JUMP: u64 = 2;

/// What an instruction costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) cycles: u32,
    /// Whether it is a load of one register: another one right behind it overlaps with it.
    pub(crate) is_load: bool,
}

/// Whether an instruction with this first half has a second one.
pub(crate) fn is_wide(first: u16) -> bool {
    first >= 0xe800
}

/// The cost of the instruction with these halves; `after_load` if the one before it, in the same block, was a load of one
/// register.
pub(crate) fn cost(first: u16, second: Option<u16>, after_load: bool) -> Cost {
    let plain = |cycles| Cost { cycles, is_load: false };
    let load = Cost { cycles: if after_load { 1 } else { 2 }, is_load: true };
    let Some(second) = second else {
        return match first {
            0x4800..=0x4fff => load,                          // ldr from the literal pool
            0x5600..=0x5fff => load,                          // ldrsb, ldr, ldrh, ldrb, ldrsh with a register offset
            _ if matches!(first >> 11, 13 | 15 | 17) => load, // ldr, ldrb, ldrh with an immediate offset
            0x9800..=0x9fff => load,                          // ldr from the stack
            0xb400..=0xb5ff | 0xbc00..=0xbdff => plain(1 + (first & 0x1ff).count_ones()), // push, pop
            0xc000..=0xcfff => plain(1 + (first & 0xff).count_ones()), // stm, ldm
            _ => plain(1),
        };
    };
    match first {
        0xe800..=0xe9ff | 0xf800..=0xf9ff => match (first & 0xf000, first & 0x40, first & 0x10) {
            (0xe000, 0, _) => plain(1 + second.count_ones()), // ldm, stm, push, pop
            (0xe000, _, _) => plain(3),                       // ldrd, strd, tbb, tbh, exclusive accesses
            (_, _, 0) => plain(1),                            // str
            _ => load,
        },
        0xec00..=0xedff | 0xfc00..=0xfdff => match first & 0x1ff {
            single if single & 0x120 == 0x100 && first < 0xf000 => plain(2), // vldr, vstr
            pair if pair & 0x1e0 == 0x040 && first < 0xf000 => plain(2), // vmov between two core registers and a double
            _ => plain(1 + u32::from(second & 0xff)),                    // vldm, vstm, vpush, vpop: words
        },
        0xee00..=0xeeff if second & 0x10 == 0 => plain(floating_point(first, second)),
        0xfb00..=0xfb0f if second & 0xf000 != 0xf000 => plain(2), // mla, mls
        0xfb90..=0xfb9f | 0xfbb0..=0xfbbf => plain(7),            // sdiv, udiv: 2 to 12
        _ => plain(1),
    }
}

/// The cost of an operation of the FPU on its own registers.
fn floating_point(first: u16, second: u16) -> u32 {
    // The opcode without the bit that belongs to the number of a register.
    match (first >> 4) & 0b1011 {
        0b0000 | 0b0001 => 3,                                      // vmla, vmls, vnmla, vnmls
        0b1001 | 0b1010 => 3,                                      // vfma, vfms, vfnma, vfnms
        0b1000 => 14,                                              // vdiv
        0b1011 if first & 0xf == 1 && second & 0xc0 == 0xc0 => 14, // vsqrt
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cycles(halves: &[u16]) -> u32 {
        cost(halves[0], halves.get(1).copied(), false).cycles
    }

    #[test]
    fn costs_are_those_of_the_manual() {
        assert_eq!(cycles(&[0xbf00]), 1); // nop
        assert_eq!(cycles(&[0x6808]), 2); // ldr r0, [r1]
        assert_eq!(cycles(&[0x6008]), 1); // str r0, [r1]
        assert_eq!(cycles(&[0xb5f0]), 6); // push {r4-r7, lr}
        assert_eq!(cycles(&[0xe8bd, 0x8ff0]), 10); // pop.w {r4-r11, pc}
        assert_eq!(cycles(&[0xe9d0, 0x1200]), 3); // ldrd r1, r2, [r0]
        assert_eq!(cycles(&[0xf851, 0x0b04]), 2); // ldr r0, [r1], #4
        assert_eq!(cycles(&[0xedd1, 0x7a00]), 2); // vldr s15, [r1]
        assert_eq!(cycles(&[0xecb1, 0x0a10]), 17); // vldmia r1!, {s0-s15}
        assert_eq!(cycles(&[0xed2d, 0x8b10]), 17); // vpush {d8-d15}
        assert_eq!(cycles(&[0xee20, 0x0a01]), 1); // vmul.f32 s0, s0, s2
        assert_eq!(cycles(&[0xee30, 0x0a01]), 1); // vadd.f32 s0, s0, s2
        assert_eq!(cycles(&[0xeea0, 0x0a01]), 3); // vfma.f32 s0, s0, s2
        assert_eq!(cycles(&[0xee80, 0x0a01]), 14); // vdiv.f32 s0, s0, s2
        assert_eq!(cycles(&[0xfb00, 0x1002]), 2); // mla r0, r0, r2, r1
        assert_eq!(cycles(&[0xfb00, 0xf002]), 1); // mul r0, r0, r2
        assert_eq!(cycles(&[0xfb91, 0xf0f0]), 7); // sdiv r0, r1, r0
    }

    #[test]
    fn a_load_overlaps_with_the_load_before_it() {
        let first = cost(0x6808, None, false);
        assert!(first.is_load);
        assert_eq!(cost(0x6849, None, first.is_load).cycles, 1);
    }
}
