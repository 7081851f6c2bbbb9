//! What this processor can do at most: multiply-adds with nothing to load and nothing to wait for, and loads from its
//! caches with next to nothing to do.

/// What a kernel may be held up by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Multiply-adds.
    Arithmetic,
    /// Bytes out of the first-level cache.
    L1,
    /// Bytes out of the second-level cache.
    L2,
}

impl Limit {
    /// The cache that weights of so many bytes are read from, if they were read a moment ago.
    pub(crate) fn of_weights(bytes: usize) -> Self {
        if bytes <= 32 << 10 { Self::L1 } else { Self::L2 }
    }

    /// What it is called in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arithmetic => "the peak",
            Self::L1 => "the L1's bandwidth",
            Self::L2 => "the L2's bandwidth",
        }
    }

    /// So many multiply-adds or bytes per second, in the units of the table.
    pub(crate) fn in_units(self, per_second: f64) -> (f64, &'static str) {
        match self {
            Self::Arithmetic => (per_second * 2e-9, "GFLOP/s"),
            Self::L1 | Self::L2 => (per_second * 1e-9, "bytes/ns"),
        }
    }
}

/// A loop that does nothing but what one limit allows.
pub(crate) struct Peak {
    /// The backend that uses these instructions.
    pub(crate) backend: &'static str,
    pub(crate) limit: Limit,
    /// How many multiply-adds, or bytes, a run does.
    pub(crate) amount: u64,
    pub(crate) run: fn(),
}

/// The loops that this processor can run. None but on x86-64.
pub(crate) fn peaks() -> Vec<Peak> {
    #[cfg(target_arch = "x86_64")]
    return [x86::avx2(), x86::avx512()]
        .into_iter()
        .flatten()
        .filter(|peak| thumbnet::Backend::from_name(peak.backend).is_some())
        .collect();
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Limit, Peak};
    use std::arch::x86_64::*;
    use std::hint::black_box;
    use thumbnet::Aligned;

    /// Sums that do not wait for each other: more than any processor's latency times its multiply-adds per cycle, and no
    /// more than the registers of AVX2 hold.
    const SUMS: usize = 12;
    const STEPS: usize = 2000;

    /// The same for additions, whose latency is less; a power of two, so that the buffer has no rest.
    const LOADS: usize = 8;
    /// 384 KiB: too much for any first-level cache. (Not zeros: the system would map one page of them again and again.)
    static BUFFER: Aligned<[f32; 96 << 10]> = Aligned([1.0; 96 << 10]);
    /// 16 KiB of it fit the first-level cache.
    const IN_L1: usize = 4 << 10;

    macro_rules! peaks {
        ($peaks:ident, $backend:literal, $lanes:literal, $features:literal, $splat:ident, $fmadd:ident, $add:ident, $load:ident) => {
            pub(super) fn $peaks() -> [Peak; 3] {
                #[target_feature(enable = $features)]
                fn multiply_add() {
                    let (a, b) = ($splat(black_box(0.5)), $splat(black_box(0.25)));
                    let mut sums = [$splat(0.0); SUMS];
                    for _ in 0..STEPS {
                        sums.iter_mut().for_each(|sum| *sum = $fmadd(a, b, *sum));
                    }
                    black_box(sums);
                }

                /// Reads `values` until it has read as many as the whole buffer has.
                #[target_feature(enable = $features)]
                fn read(values: &[f32]) {
                    let (values, mut sums) = (black_box(values), [$splat(0.0); LOADS]);
                    for _ in 0..BUFFER.len() / values.len() {
                        for values in values.chunks_exact(LOADS * $lanes) {
                            for (sum, values) in sums.iter_mut().zip(values.chunks_exact($lanes)) {
                                // SAFETY: each chunk has as many values as a vector.
                                *sum = $add(*sum, unsafe { $load(values.as_ptr()) });
                            }
                        }
                    }
                    black_box(sums);
                }

                let (macs, bytes) = ((SUMS * STEPS * $lanes) as u64, size_of_val(&BUFFER) as u64);
                let peak = |limit, amount, run| Peak { backend: $backend, limit, amount, run };
                [
                    // SAFETY: `peaks` returns these loops only if the backend of these features runs here.
                    peak(Limit::Arithmetic, macs, || unsafe { multiply_add() }),
                    // SAFETY: likewise.
                    peak(Limit::L1, bytes, || unsafe { read(&BUFFER[..IN_L1]) }),
                    // SAFETY: likewise.
                    peak(Limit::L2, bytes, || unsafe { read(&BUFFER[..]) }),
                ]
            }
        };
    }

    peaks!(avx2, "avx2", 8, "avx2,fma", _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_loadu_ps);
    peaks!(avx512, "avx512", 16, "avx512f", _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_loadu_ps);
}
