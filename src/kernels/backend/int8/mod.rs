//! The int8 half of the backends: vectors of 32-bit sums, and the inner loops over them.

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod avx2;
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod avx512;
mod scalar;
pub(crate) mod tile;
#[cfg(wide_backend)]
mod wide;

use super::{Backend, Kind};
use crate::kernels::int8::vector::Int8Vector;

/// An int8 kernel, ready to run on whichever backend is chosen.
pub(crate) trait Int8Kernel {
    /// Runs the kernel with vectors `V`, on tiles of these shapes:
    /// - `ROWS` rows of inputs and `COLUMNS` vectors of outputs,
    /// - a single row, `SINGLE` vectors, and `CHAINS` sums that take turns,
    /// - `WINDOWS` windows of a convolution and up to two vectors.
    fn run<
        V: Int8Vector,
        const ROWS: usize,
        const COLUMNS: usize,
        const SINGLE: usize,
        const CHAINS: usize,
        const WINDOWS: usize,
    >(
        self,
        token: V::Token,
    );
}

impl Backend {
    /// Runs an int8 kernel on this backend.
    #[inline(always)]
    pub(crate) fn dispatch_int8<K: Int8Kernel>(self, kernel: K) {
        match self.0 {
            Kind::Scalar => scalar::call(kernel),
            #[cfg(wide_backend)]
            Kind::Wide => wide::call(kernel),
            #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
            Kind::Avx2(token) => avx2::call(token, kernel),
            #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
            Kind::Avx512(token) => match avx512::Token::detect(token) {
                Some(token) => avx512::call(token, kernel),
                // Without VNNI, AVX-512 has little to offer here.
                None => avx2::call(token.avx2(), kernel),
            },
        }
    }
}
