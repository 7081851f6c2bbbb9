//! What this processor can do at most: multiply-adds with nothing to load and nothing to wait for.

/// A loop of multiply-adds.
pub(crate) struct Peak {
    /// The backend that uses these instructions.
    pub(crate) backend: &'static str,
    /// How many multiply-adds a run does.
    pub(crate) macs: u64,
    pub(crate) run: fn(),
}

/// The loops that this processor can run. None but on x86-64.
pub(crate) fn peaks() -> Vec<Peak> {
    #[cfg(target_arch = "x86_64")]
    return [x86::AVX2, x86::AVX512]
        .into_iter()
        .filter(|peak| thumbnet::Backend::from_name(peak.backend).is_some())
        .collect();
    #[cfg(not(target_arch = "x86_64"))]
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Peak;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Sums that do not wait for each other: more than any processor's latency times its multiply-adds per cycle, and no
    /// more than the registers of AVX2 hold.
    const SUMS: usize = 12;
    const STEPS: usize = 2000;

    macro_rules! peak {
        ($peak:ident, $backend:literal, $lanes:literal, $features:literal, $function:ident, $splat:ident, $fmadd:ident) => {
            pub(super) const $peak: Peak = Peak {
                backend: $backend,
                macs: (SUMS * STEPS * $lanes) as u64,
                run: || {
                    #[target_feature(enable = $features)]
                    fn $function() {
                        let (a, b) = ($splat(black_box(0.5)), $splat(black_box(0.25)));
                        let mut sums = [$splat(0.0); SUMS];
                        for _ in 0..STEPS {
                            sums.iter_mut().for_each(|sum| *sum = $fmadd(a, b, *sum));
                        }
                        black_box(sums);
                    }
                    // SAFETY: `peaks` returns this loop only if the backend of these features runs here.
                    unsafe { $function() }
                },
            };
        };
    }

    peak!(AVX2, "avx2", 8, "avx2,fma", avx2, _mm256_set1_ps, _mm256_fmadd_ps);
    peak!(AVX512, "avx512", 16, "avx512f", avx512, _mm512_set1_ps, _mm512_fmadd_ps);
}
