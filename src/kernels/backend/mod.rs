//! The backends: one file each, and the choice between them.
//!
//! This is the only place with intrinsics and, together with the checked casts of `align.rs`, with `unsafe`.

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod avx2;
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod avx512;
#[cfg(not(target_os = "none"))]
pub(crate) mod bits;
#[cfg(cortex_m_fpu)]
pub(crate) mod cortex_m;
pub(crate) mod folded;
#[cfg(not(target_os = "none"))]
pub(crate) mod int8;
pub(crate) mod narrow;
pub(crate) mod non_zero;
mod scalar;
pub(crate) mod taps;
pub(crate) mod tile;
#[cfg(wide_backend)]
mod wide;
#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
mod x86;
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
mod x86_tile;

use crate::kernels::vector::Vector;

/// A kernel, ready to run on whichever backend is chosen.
pub(crate) trait Kernel {
    type Output;
    /// Runs the kernel with vectors `V`, on tiles of these shapes:
    /// - `ROWS` rows of inputs and `COLUMNS` vectors of outputs,
    /// - a single row and `SINGLE` vectors,
    /// - `WINDOWS` windows of a convolution and up to two vectors.
    fn run<V: Vector, const ROWS: usize, const COLUMNS: usize, const SINGLE: usize, const WINDOWS: usize>(
        self,
        token: V::Token,
    ) -> Self::Output;
}

/// Which instructions the kernels use.
///
/// A value can only be had from this type's functions, which check what the processor has.
///
/// ```
/// use thumbnet::Backend;
/// for backend in Backend::available() {
///     println!("{}", backend.name());
/// }
/// assert_eq!(Backend::from_name("scalar").map(Backend::name), Some("scalar"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Scalar,
    #[cfg(wide_backend)]
    Wide,
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    Avx2(avx2::Token),
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    Avx512(avx512::Token),
}

impl Backend {
    /// The backends that this processor can run, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        let kinds = [
            Some(Kind::Scalar),
            #[cfg(wide_backend)]
            Some(Kind::Wide),
            #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
            avx2::Token::detect().map(Kind::Avx2),
            #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
            avx512::Token::detect().map(Kind::Avx512),
        ];
        kinds.into_iter().flatten().map(Self)
    }

    /// The fastest backend that this processor can run.
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self(Kind::Scalar))
    }

    /// The backend of that name, if this processor can run it.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::available().find(|backend| backend.name() == name)
    }

    /// The backend's name: `"scalar"`, `"wide"`, `"avx2"` or `"avx512"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Scalar => scalar::NAME,
            #[cfg(wide_backend)]
            Kind::Wide => wide::NAME,
            #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
            Kind::Avx2(_) => avx2::NAME,
            #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
            Kind::Avx512(_) => avx512::NAME,
        }
    }

    /// This backend, or the one within it that loads f16 faster: AMD's Zen 4 converts sixteen values in 1.7 cycles at once, and in 1.25 as
    /// two vectors of eight.
    pub(crate) fn for_f16_loads(self) -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        if let Kind::Avx512(token) = self.0 {
            return Self(Kind::Avx2(token.avx2()));
        }
        self
    }

    /// Runs a kernel on this backend.
    #[inline(always)]
    pub(crate) fn dispatch<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Kind::Scalar => scalar::call(kernel),
            #[cfg(wide_backend)]
            Kind::Wide => wide::call(kernel),
            #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
            Kind::Avx2(token) => avx2::call(token, kernel),
            #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
            Kind::Avx512(token) => avx512::call(token, kernel),
        }
    }

    /// Runs a kernel that does the same with every value. On a microcontroller, where vectors would only make it larger, it does
    /// so with one after the other.
    #[inline(always)]
    pub(crate) fn dispatch_elementwise<K: Kernel>(self, kernel: K) -> K::Output {
        #[cfg(target_os = "none")]
        return scalar::call_single(kernel);
        #[cfg(not(target_os = "none"))]
        self.dispatch(kernel)
    }
}
