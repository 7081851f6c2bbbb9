//! The product of two plain matrices, for code without a model.

use super::backend::Backend;
use super::dense::dense_rows;
use super::pack::{Panels, pack, tensor_bytes};
use crate::align::Aligned;
use core::fmt;

/// The bytes that [`matmul`] packs a `[k, n]` matrix into; `None` if that is 4 GiB or more.
///
/// ```
/// use thumbnet::kernels::matmul_packing_bytes;
/// // The panels, and a bias for each column.
/// assert_eq!(matmul_packing_bytes(64, 32), Some(4 * (64 * 32 + 32)));
/// ```
#[must_use]
pub const fn matmul_packing_bytes(k: usize, n: usize) -> Option<usize> {
    if k == 0 || n == 0 {
        return Some(0);
    }
    let (inputs, outputs) = (k as u32, n as u32);
    // `try_into` is not for constants.
    if inputs as usize != k || outputs as usize != n {
        return None;
    }
    match tensor_bytes::<f32>(inputs, outputs) {
        Some(bytes) => Some(bytes as usize),
        None => None,
    }
}

/// `out = a · b` for row-major matrices: `a` is `[m, k]`, `b` is `[k, n]`, `out` is `[m, n]`; the sizes are `(m, k, n)`.
///
/// `b` is packed into `packing` first, which must have [`matmul_packing_bytes`] or more; its contents do not matter. Where
/// the same `b` comes again, it can be packed once instead, with [`pack`](super::pack::pack), for
/// [`dense`](super::dense::dense). With `k = 0` all results are 0.
///
/// # Errors
/// [`MatmulError`] if a slice does not have as many values as its matrix, if `packing` is too small, or if `b` is too
/// large; `out` is left alone then.
///
/// ```
/// use thumbnet::kernels::{matmul, matmul_packing_bytes};
/// use thumbnet::{Backend, Scratch};
///
/// const PACKING: usize = matmul_packing_bytes(3, 2).unwrap();
/// let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // [2, 3]
/// let b = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]; // [3, 2]
/// let mut out = [0.0; 4];
/// matmul(Backend::best(), &a, &b, (2, 3, 2), &mut Scratch::<PACKING>::zeroed(), &mut out)?;
/// assert_eq!(out, [4.0, 5.0, 10.0, 11.0]);
/// # Ok::<(), thumbnet::kernels::MatmulError>(())
/// ```
pub fn matmul(
    backend: Backend,
    a: &[f32],
    b: &[f32],
    (m, k, n): (usize, usize, usize),
    packing: &mut Aligned<[u8]>,
    out: &mut [f32],
) -> Result<(), MatmulError> {
    check("a", a, m, k)?;
    check("b", b, k, n)?;
    check("out", out, m, n)?;
    if m == 0 || n == 0 {
        return Ok(());
    }
    if k == 0 {
        out.fill(0.0);
        return Ok(());
    }
    let too_large = MatmulError::TooLarge { k, n };
    let needed = matmul_packing_bytes(k, n).ok_or(too_large)?;
    let too_small = MatmulError::PackingTooSmall { found: packing.len(), needed };
    let packing = packing.0.get_mut(..needed).ok_or(too_small)?;
    pack::<f32>(b, &[], n, packing).ok_or(too_large)?;
    let weights = Panels::<f32>::new(packing, k, n).ok_or(too_large)?;
    dense_rows(backend, m, a, weights, f32::NEG_INFINITY, out);
    Ok(())
}

fn check(matrix: &'static str, values: &[f32], rows: usize, columns: usize) -> Result<(), MatmulError> {
    match rows.checked_mul(columns) {
        Some(expected) if expected == values.len() => Ok(()),
        _ => Err(MatmulError::WrongLength { matrix, found: values.len(), rows, columns }),
    }
}

/// Why there is no product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MatmulError {
    /// A slice has more or fewer values than its matrix.
    WrongLength {
        /// `"a"`, `"b"` or `"out"`.
        matrix: &'static str,
        /// Values given.
        found: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// The memory for packing is smaller than [`matmul_packing_bytes`].
    PackingTooSmall {
        /// Bytes given.
        found: usize,
        /// Bytes that `b` needs.
        needed: usize,
    },
    /// `b` would take 4 GiB or more.
    TooLarge {
        /// Rows of `b`.
        k: usize,
        /// Columns of `b`.
        n: usize,
    },
}

impl fmt::Display for MatmulError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::WrongLength { matrix, found, rows, columns } => {
                write!(f, "`{matrix}` has {found} values, but should be a matrix of {rows} x {columns}")
            }
            Self::PackingTooSmall { found, needed } => {
                write!(f, "{found} bytes to pack into, but the matrix needs {needed}")
            }
            Self::TooLarge { k, n } => write!(f, "a matrix of {k} x {n} takes 4 GiB or more when packed"),
        }
    }
}

impl core::error::Error for MatmulError {}
