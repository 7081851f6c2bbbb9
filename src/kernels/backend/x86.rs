//! What an x86 processor has, and its operating system saves, without `std`.

#[cfg(target_arch = "x86")]
use core::arch::x86::{__cpuid_count, _xgetbv, CpuidResult};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__cpuid_count, _xgetbv, CpuidResult};
use core::sync::atomic::{AtomicU8, Ordering};

/// AVX2, FMA, F16C and POPCNT.
pub(super) const AVX2: u8 = 1 << 0;
/// AVX-512 F, BW, DQ and VL, and all of [`AVX2`].
pub(super) const AVX512: u8 = 1 << 1;
/// AVX-512 VNNI, and all of [`AVX512`].
pub(super) const AVX512_VNNI: u8 = 1 << 2;
/// Marks the cached value as one.
const KNOWN: u8 = 1 << 7;

/// Whether all `features` are there.
pub(super) fn has(features: u8) -> bool {
    // `cpuid` takes a microsecond and more in a virtual machine, so its answer is kept. Two threads may both ask.
    static CACHE: AtomicU8 = AtomicU8::new(0);
    let mut found = CACHE.load(Ordering::Relaxed);
    if found == 0 {
        found = detect() | KNOWN;
        CACHE.store(found, Ordering::Relaxed);
    }
    found & features == features
}

fn detect() -> u8 {
    // An interpreter, which has no processor to ask.
    if cfg!(miri) {
        return 0;
    }
    let bit = |word: u32, bit: u32| word >> bit & 1 != 0;
    if cpuid(0).eax < 7 {
        return 0;
    }
    let leaf1 = cpuid(1);
    let (fma, osxsave, avx, f16c) = (bit(leaf1.ecx, 12), bit(leaf1.ecx, 27), bit(leaf1.ecx, 28), bit(leaf1.ecx, 29));
    let popcnt = bit(leaf1.ecx, 23);
    if !(osxsave && avx && popcnt) {
        return 0;
    }
    // SAFETY: `osxsave` says that the operating system has enabled `xgetbv`.
    let saved = unsafe { saved_state() };
    let CpuidResult { ebx: leaf7, ecx: leaf7_more, .. } = cpuid(7);
    let mut found = 0;
    // Bits 1 and 2: the operating system saves the xmm and ymm registers.
    if saved & 0x6 == 0x6 && fma && f16c && bit(leaf7, 5) {
        found |= AVX2;
        // Bits 5 to 7: and the mask and zmm registers. AVX-512 F, DQ, BW, VL.
        if saved & 0xe0 == 0xe0 && [16, 17, 30, 31].iter().all(|index| bit(leaf7, *index)) {
            found |= AVX512;
            if bit(leaf7_more, 11) {
                found |= AVX512_VNNI;
            }
        }
    }
    found
}

#[allow(unused_unsafe, reason = "a safe function in newer versions of Rust")]
fn cpuid(leaf: u32) -> CpuidResult {
    // SAFETY: every x86 processor of the last thirty years has the instruction, the oldest that Rust supports included.
    unsafe { __cpuid_count(leaf, 0) }
}

/// The register sets that the operating system saves.
///
/// # Safety
/// The operating system must have enabled `xgetbv`.
#[target_feature(enable = "xsave")]
unsafe fn saved_state() -> u64 {
    // SAFETY: the caller vouches for it; register 0 exists wherever the instruction does.
    unsafe { _xgetbv(0) }
}
