//! Matrix products: `matrixmultiply::sgemm` behind slices whose bounds are checked. The only file here with `unsafe`.

/// A row-major matrix in a slice, possibly read transposed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `values` as a `[rows, columns]` matrix.
    ///
    /// # Panics
    /// If `values` does not hold exactly `rows * columns` numbers.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a {rows}x{columns} matrix");
        Matrix { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The same numbers read as the transposed matrix; nothing is moved.
    pub(crate) fn transposed(self) -> Self {
        Matrix {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }
}

/// `output = a * b`, or `output += a * b` with `accumulate`. `output` is row-major `[a.rows, b.columns]`.
///
/// # Panics
/// If the inner dimensions differ or `output` has the wrong length.
pub(crate) fn multiply(a: Matrix<'_>, b: Matrix<'_>, output: &mut [f32], accumulate: bool) {
    assert_eq!(a.columns, b.rows, "inner dimensions");
    assert_eq!(output.len(), a.rows * b.columns, "output of {}x{}", a.rows, b.columns);
    let beta = if accumulate { 1.0 } else { 0.0 };
    // SAFETY: `Matrix::new` checked that each input slice holds rows * columns numbers and both strides address only
    // those; the output's length was checked above; `output` is borrowed mutably, so it overlaps neither input.
    unsafe {
        matrixmultiply::sgemm(
            a.rows,
            a.columns,
            b.columns,
            1.0,
            a.values.as_ptr(),
            a.row_stride as isize,
            a.column_stride as isize,
            b.values.as_ptr(),
            b.row_stride as isize,
            b.column_stride as isize,
            beta,
            output.as_mut_ptr(),
            b.columns as isize,
            1,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, step: f32) -> Vec<f32> {
        (0..count).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn products_match_the_plain_sum_in_every_transposition() {
        let (m, k, n) = (5, 7, 3);
        let (a, b) = (numbers(m * k, 0.7), numbers(k * n, 0.3));
        for (a_transposed, b_transposed) in [(false, false), (true, false), (false, true), (true, true)] {
            let left = if a_transposed { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
            let right = if b_transposed { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
            let mut once = vec![0.0; m * n];
            multiply(left, right, &mut once, false);
            let mut twice = once.clone();
            multiply(left, right, &mut twice, true);
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let at = |row: usize, inner: usize| if a_transposed { a[inner * m + row] } else { a[row * k + inner] };
                let bt = |inner: usize, col: usize| if b_transposed { b[col * k + inner] } else { b[inner * n + col] };
                let expected: f32 = (0..k).map(|l| at(i, l) * bt(l, j)).sum();
                assert!((once[i * n + j] - expected).abs() < 1e-5);
                assert!((twice[i * n + j] - 2.0 * expected).abs() < 1e-5);
            }
        }
    }

    #[test]
    #[should_panic(expected = "a 2x3 matrix")]
    fn a_slice_of_the_wrong_length_is_refused() {
        Matrix::new(&[0.0; 5], 2, 3);
    }

    #[test]
    #[should_panic(expected = "inner dimensions")]
    fn matrices_that_do_not_fit_are_refused() {
        multiply(Matrix::new(&[0.0; 6], 2, 3), Matrix::new(&[0.0; 4], 2, 2), &mut [0.0; 4], false);
    }
}
