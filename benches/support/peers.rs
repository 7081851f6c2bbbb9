//! Matrix products of other libraries, single-threaded.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// Row-major operands of `C[m, n] = A[m, k] · B[k, n]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) b: &'a [f32],
    /// `[m, k, n]`.
    pub(crate) sizes: [usize; 3],
}

impl Product<'_> {
    /// The sizes, once the operands' lengths are known to be theirs.
    fn checked_sizes(&self, c: &[f32]) -> [usize; 3] {
        let [m, k, n] = self.sizes;
        assert!(self.a.len() == m * k && self.b.len() == k * n && c.len() == m * n, "operands of {:?}", self.sizes);
        self.sizes
    }
}

/// A library: its name, and its product.
pub(crate) type Peer = (&'static str, fn(Product<'_>, &mut [f32]));

pub(crate) const PEERS: [Peer; 3] = [("matrixmultiply", by_matrixmultiply), ("gemm", by_gemm), ("faer", by_faer)];
pub(crate) const NAMES: [&str; 3] = [PEERS[0].0, PEERS[1].0, PEERS[2].0];

fn by_matrixmultiply(product: Product<'_>, c: &mut [f32]) {
    let [m, k, n] = product.checked_sizes(c);
    let (a, b, row) = (product.a.as_ptr(), product.b.as_ptr(), n as isize);
    // SAFETY: A is [m, k], B [k, n] and C [m, n], all row-major and checked above.
    unsafe { matrixmultiply::sgemm(m, k, n, 1.0, a, k as isize, 1, b, row, 1, 0.0, c.as_mut_ptr(), row, 1) }
}

fn by_gemm(product: Product<'_>, c: &mut [f32]) {
    let [m, k, n] = product.checked_sizes(c);
    let (a, b, row, no) = (product.a.as_ptr(), product.b.as_ptr(), n as isize, gemm::Parallelism::None);
    // SAFETY: A is [m, k], B [k, n] and C [m, n], all row-major (column stride 1) and checked above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            row,
            false,
            a,
            1,
            k as isize,
            b,
            1,
            row,
            0.0,
            1.0,
            false,
            false,
            false,
            no,
        );
    }
}

fn by_faer(product: Product<'_>, c: &mut [f32]) {
    let [m, k, n] = product.checked_sizes(c);
    let (a, b) = (MatRef::from_row_major_slice(product.a, m, k), MatRef::from_row_major_slice(product.b, k, n));
    matmul(MatMut::from_row_major_slice_mut(c, m, n), Accum::Replace, a, b, 1.0, Par::Seq);
}
