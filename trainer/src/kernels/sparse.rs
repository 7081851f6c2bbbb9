//! Products with a matrix that is mostly zeros, as the pixels of MNIST are (four fifths): two to three times as fast as
//! the blocked product, which multiplies every zero.

use multiversion::multiversion;

/// So many values at a time are looked at: where there is no ink, all of them are zero.
const BLOCK: usize = 16;

/// The values of a `[rows, columns]` matrix that are not zero, row after row.
#[derive(Clone, Debug, Default)]
pub(crate) struct SparseMatrix {
    /// Where each row ends in `columns` and `values`.
    ends: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl SparseMatrix {
    /// Takes the values of `matrix`, whose rows have `width` columns, in place of what was there.
    pub(crate) fn assign(&mut self, matrix: &[f32], width: usize) {
        if self.values.len() < matrix.len() + BLOCK {
            self.columns.resize(matrix.len() + BLOCK, 0);
            self.values.resize(matrix.len() + BLOCK, 0.0);
        }
        self.ends.clear();
        let mut count = 0;
        for row in matrix.chunks_exact(width) {
            let (blocks, rest) = row.as_chunks::<BLOCK>();
            let mut column = 0;
            for block in blocks {
                count = self.append(count, column, block);
                column += BLOCK as u32;
            }
            let mut last = [0.0; BLOCK];
            last[..rest.len()].copy_from_slice(rest);
            count = self.append(count, column, &last);
            self.ends.push(count);
        }
    }

    /// Takes the values of a block that are not zero as numbers `count` and on; gives the number after them.
    fn append(&mut self, count: usize, first_column: u32, block: &[f32; BLOCK]) -> usize {
        if block.iter().fold(0, |bits, value| bits | value.to_bits()) == 0 {
            return count;
        }
        let columns: &mut [u32; BLOCK] = (&mut self.columns[count..count + BLOCK]).try_into().expect("the length");
        let values: &mut [f32; BLOCK] = (&mut self.values[count..count + BLOCK]).try_into().expect("the length");
        let mut taken = 0;
        for (column, &value) in (first_column..).zip(block) {
            // Always written, only sometimes kept: a branch here would be mispredicted at every edge of a stroke. The
            // remainder changes nothing but spares a check of bounds.
            columns[taken % BLOCK] = column;
            values[taken % BLOCK] = value;
            taken += usize::from(value != 0.0);
        }
        count + taken
    }

    /// `output = self * weights`, with `weights` as `[columns, outputs]` and `output` as `[rows, outputs]`.
    pub(crate) fn multiply(&self, weights: &[f32], output: &mut [f32], outputs: usize) {
        for (row, sums) in output.chunks_exact_mut(outputs).enumerate() {
            let (columns, values) = self.row(row);
            row_times_matrix(columns, values, weights, sums);
        }
    }

    /// `sums += transpose(self) * rows`, with `rows` as `[rows, outputs]` and `sums` as `[columns, outputs]`.
    pub(crate) fn add_transposed_product(&self, rows: &[f32], sums: &mut [f32], outputs: usize) {
        for (index, row) in rows.chunks_exact(outputs).enumerate() {
            let (columns, values) = self.row(index);
            add_outer_product(columns, values, row, sums);
        }
    }

    /// The column of every value, row after row.
    pub(crate) fn columns(&self) -> impl Iterator<Item = usize> {
        let count = self.ends.last().copied().unwrap_or(0);
        self.columns[..count].iter().map(|&column| column as usize)
    }

    /// The columns and values of row `index`.
    pub(crate) fn row(&self, index: usize) -> (&[u32], &[f32]) {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        let range = start..self.ends[index];
        (&self.columns[range.clone()], &self.values[range])
    }
}

/// Calls `$function::<N>(offset, ...)` for blocks of `N` outputs, the largest first, until all `$outputs` are covered: a
/// block's sums stay in registers because their number is known.
macro_rules! in_blocks {
    (while $size:literal, $offset:ident, $outputs:ident, $function:ident ($($argument:expr),*)) => {
        while $outputs - $offset >= $size {
            $function::<$size>($offset, $($argument),*);
            $offset += $size;
        }
    };
    ($outputs:expr, $function:ident $arguments:tt) => {{
        let (outputs, mut offset) = ($outputs, 0);
        in_blocks!(while 64, offset, outputs, $function $arguments);
        in_blocks!(while 32, offset, outputs, $function $arguments);
        in_blocks!(while 16, offset, outputs, $function $arguments);
        in_blocks!(while 4, offset, outputs, $function $arguments);
        in_blocks!(while 1, offset, outputs, $function $arguments);
    }};
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn row_times_matrix(columns: &[u32], values: &[f32], weights: &[f32], sums: &mut [f32]) {
    in_blocks!(sums.len(), block_times_matrix(columns, values, weights, sums));
}

#[inline(always)]
fn block_times_matrix<const N: usize>(
    offset: usize,
    columns: &[u32],
    values: &[f32],
    weights: &[f32],
    sums: &mut [f32],
) {
    let outputs = sums.len();
    let mut block = [0.0f32; N];
    for (&column, &value) in columns.iter().zip(values) {
        let row = &weights[column as usize * outputs + offset..][..N];
        for (sum, &weight) in block.iter_mut().zip(row) {
            *sum += value * weight;
        }
    }
    sums[offset..offset + N].copy_from_slice(&block);
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn add_outer_product(columns: &[u32], values: &[f32], row: &[f32], sums: &mut [f32]) {
    in_blocks!(row.len(), add_outer_block(columns, values, row, sums));
}

#[inline(always)]
fn add_outer_block<const N: usize>(offset: usize, columns: &[u32], values: &[f32], row: &[f32], sums: &mut [f32]) {
    let mut block = [0.0f32; N];
    block.copy_from_slice(&row[offset..offset + N]);
    for (&column, &value) in columns.iter().zip(values) {
        let sums = &mut sums[column as usize * row.len() + offset..][..N];
        for (sum, &factor) in sums.iter_mut().zip(&block) {
            *sum += value * factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::{self, Matrix};

    #[test]
    fn products_match_the_blocked_ones() {
        let number = |i: usize| (i as f32 * 0.7 + 0.1).sin();
        let (rows, width) = (3, 37);
        for outputs in [1, 2, 7, 40, 100, 127, 128] {
            let matrix: Vec<f32> = (0..rows * width).map(|i| if i % 3 == 0 { number(i) } else { 0.0 }).collect();
            let weights: Vec<f32> = (0..width * outputs).map(number).collect();
            let mut sparse = SparseMatrix::default();
            sparse.assign(&vec![1.0; 5 * width], width);
            sparse.assign(&matrix, width);
            assert!(sparse.columns().eq((0..rows * width).step_by(3).map(|i| i % width)));
            let close = |found: &[f32], expected: &[f32]| {
                assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{outputs} outputs");
            };

            let (mut found, mut expected) = (vec![9.0; rows * outputs], vec![0.0; rows * outputs]);
            sparse.multiply(&weights, &mut found, outputs);
            let dense = Matrix::new(&matrix, rows, width);
            gemm::multiply(dense, Matrix::new(&weights, width, outputs), &mut expected, false);
            close(&found, &expected);

            let (mut found, mut sums) = (vec![1.0; width * outputs], vec![1.0; width * outputs]);
            sparse.add_transposed_product(&expected, &mut found, outputs);
            gemm::multiply(dense.transposed(), Matrix::new(&expected, rows, outputs), &mut sums, true);
            close(&found, &sums);
        }
    }
}
