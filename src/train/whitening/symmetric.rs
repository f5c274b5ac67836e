//! Symmetric matrices in double precision, row by row: sums of products, and the inverse square root.

use rayon::prelude::*;

/// Rows of a result that one thread computes at a time.
const ROWS: usize = 128;
/// How far from 1 the eigenvalues of the iteration may end.
const ERROR: f64 = 1e-12;

/// What of a result is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Lower,
}

/// A matrix as it lies in memory.
#[derive(Clone, Copy)]
struct View<'a> {
    values: &'a [f64],
    row_stride: usize,
    column_stride: usize,
}

/// `result = keep · result + a · b` of `size` rows and columns; `depth` is the number of `a`'s columns. With `Part::Lower`
/// what is above the diagonal may be left as it is.
fn multiply(result: &mut [f64], size: usize, part: Part, keep: f64, depth: usize, a: View<'_>, b: View<'_>) {
    assert_eq!(result.len(), size * size);
    for (view, rows, columns) in [(a, size, depth), (b, depth, size)] {
        assert!(rows * columns == 0 || (rows - 1) * view.row_stride + (columns - 1) * view.column_stride < view.values.len());
    }
    if size == 0 {
        return;
    }
    result.par_chunks_mut(ROWS * size).enumerate().for_each(|(number, panel)| {
        let first = number * ROWS;
        let rows = panel.len() / size;
        let columns = if part == Part::Lower { first + rows } else { size };
        // SAFETY: the asserts above keep `a` and `b` in bounds, `panel` has `rows` rows of `size` columns, and `columns` is at
        // most `size`; nothing else reads or writes the panel.
        unsafe {
            matrixmultiply::dgemm(
                rows,
                depth,
                columns,
                1.0,
                a.values.as_ptr().add(first * a.row_stride),
                a.row_stride as isize,
                a.column_stride as isize,
                b.values.as_ptr(),
                b.row_stride as isize,
                b.column_stride as isize,
                keep,
                panel.as_mut_ptr(),
                size as isize,
                1,
            );
        }
    });
}

/// Adds `vectorsᵀ · vectors` to the lower triangle of `sums`, a matrix of `size` rows; each row of `vectors` has `size` values.
pub fn add_products(sums: &mut [f64], size: usize, vectors: &[f64]) {
    let transposed = View { values: vectors, row_stride: 1, column_stride: size };
    let vectors = View { values: vectors, row_stride: size, column_stride: 1 };
    multiply(sums, size, Part::Lower, 1.0, vectors.values.len() / size.max(1), transposed, vectors);
}

/// `a · b`; of `Part::Lower` the product is symmetric, and the upper half is made from the lower one.
fn product(a: &[f64], b: &[f64], size: usize, part: Part) -> Vec<f64> {
    let view = |values| View { values, row_stride: size, column_stride: 1 };
    let mut result = vec![0.0; size * size];
    multiply(&mut result, size, part, 0.0, size, view(a), view(b));
    if part == Part::Lower {
        mirror(&mut result, size);
    }
    result
}

/// Copies what is below the diagonal to above it.
pub fn mirror(matrix: &mut [f64], size: usize) {
    for row in 1..size {
        for column in 0..row {
            matrix[column * size + row] = matrix[row * size + column];
        }
    }
}

/// The inverse square root of a symmetric matrix of `size` rows whose eigenvalues are at least `least`, which is more than 0;
/// symmetric to the last bit. `None` where the matrix has values that are no finite numbers.
///
/// The coupled Newton–Schulz iteration (Higham, "Functions of Matrices", 6.7), which has nothing but products: of the matrix
/// `A` over its Frobenius norm, `Y → A^½` and `Z → A^-½` by `T = ρ/2 · (3 - ρ² Z Y)`, `Y T` and `T Z`. The eigenvalues of `(Z Y)^½`
/// go to 1 from `[l, 1]`; `ρ² = 3 / (1 + l + l²)` moves both ends of that interval to one place (Chen and Chow, "A stable scaling of
/// Newton–Schulz for improving the sign function computation of a Hermitian matrix"), so that few steps suffice: ten for a
/// condition of 10⁴. Rounding errors die out only with the products in this order and with `Z Y` as it comes: where that is
/// made symmetric like the other two, or `Z T` stands for `T Z`, they grow by the condition.
pub fn inverse_square_root(mut matrix: Vec<f64>, size: usize, least: f64) -> Option<Vec<f64>> {
    let norm = matrix.iter().map(|value| value * value).sum::<f64>().sqrt();
    if !norm.is_finite() {
        return None;
    }
    matrix.iter_mut().for_each(|value| *value /= norm);
    let mut low = (least / norm).sqrt().min(1.0);
    let mut both = matrix.clone();
    let mut root = matrix;
    let mut inverse: Option<Vec<f64>> = None;
    loop {
        let scale = (3.0 / (1.0 + low + low * low)).sqrt();
        both.iter_mut().for_each(|value| *value *= -0.5 * scale.powi(3));
        both.iter_mut().step_by(size + 1).for_each(|value| *value += 1.5 * scale);
        let step = both;
        low = 0.5 * scale * low * (3.0 - (scale * low).powi(2));
        let next = match &inverse {
            Some(inverse) => product(&step, inverse, size, Part::Lower),
            None => step.clone(),
        };
        // The last step's error is the square of the one before.
        if 1.0 - low < ERROR {
            let factor = norm.sqrt().recip();
            return Some(next.into_iter().map(|value| value * factor).collect());
        }
        root = product(&root, &step, size, Part::Lower);
        both = product(&next, &root, size, Part::Whole);
        inverse = Some(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Σ λ v vᵀ` of vectors at right angles: the columns of a reflection.
    fn with_eigenvalues(eigenvalues: &[f64]) -> Vec<f64> {
        let size = eigenvalues.len();
        let normal: Vec<f64> = (0..size).map(|at| ((at * 7 + 3) % 11) as f64 - 4.5).collect();
        let square: f64 = normal.iter().map(|value| value * value).sum();
        let at = |i: usize, j: usize| f64::from(u8::from(i == j)) - 2.0 * normal[i] * normal[j] / square;
        let mut matrix = vec![0.0; size * size];
        for i in 0..size {
            for j in 0..size {
                matrix[i * size + j] = (0..size).map(|k| eigenvalues[k] * at(i, k) * at(k, j)).sum();
            }
        }
        matrix
    }

    fn furthest(a: &[f64], b: &[f64]) -> f64 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    /// Several panels of rows, and a last one that is not full.
    #[test]
    fn products_are_those_of_three_loops() {
        let (size, count) = (2 * ROWS + 37, 23);
        let vectors: Vec<f64> = (0..count * size).map(|at| ((at * 31) % 101) as f64 / 50.0 - 1.0).collect();
        let mut sums = vec![0.5; size * size];
        add_products(&mut sums, size, &vectors);
        add_products(&mut sums, size, &vectors);
        mirror(&mut sums, size);
        let mut expected = vec![0.5; size * size];
        for row in vectors.chunks_exact(size) {
            for i in 0..size {
                for j in 0..size {
                    expected[i * size + j] += 2.0 * row[i] * row[j];
                }
            }
        }
        assert!(furthest(&sums, &expected) < 1e-12);
    }

    #[test]
    fn inverse_square_roots_are_exact_up_to_a_condition_of_a_million() {
        let size = 40;
        for least in [1.0, 0.1, 1e-3] {
            let eigenvalues: Vec<f64> = (0..size).map(|at| least * (1000.0f64 / least).powf(at as f64 / (size - 1) as f64)).collect();
            let roots: Vec<f64> = eigenvalues.iter().map(|value| value.sqrt().recip()).collect();
            let found = inverse_square_root(with_eigenvalues(&eigenvalues), size, least).unwrap();
            let error = furthest(&found, &with_eigenvalues(&roots)) * least.sqrt();
            assert!(error < 1e-9, "least {least}: off by {error}");
            assert!((0..size * size).all(|at| found[at] == found[at % size * size + at / size]), "not symmetric");
        }
    }

    /// As whitening has them where there are fewer images than values: most eigenvalues are the least.
    #[test]
    fn one_eigenvalue_may_be_all_the_others() {
        let size = 5;
        let found = inverse_square_root(with_eigenvalues(&[0.25; 5]), size, 0.25).unwrap();
        assert!(furthest(&found, &with_eigenvalues(&[2.0; 5])) < 1e-12);
        assert!((inverse_square_root(vec![4.0], 1, 0.1).unwrap()[0] - 0.5).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_number_has_no_root() {
        assert_eq!(inverse_square_root(vec![1.0, f64::NAN, f64::NAN, 1.0], 2, 0.1), None);
        assert_eq!(inverse_square_root(vec![f64::INFINITY], 1, 0.1), None);
    }
}
