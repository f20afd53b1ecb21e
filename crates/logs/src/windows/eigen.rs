//! The eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations: slower than others and hard to
//! get wrong; the matrices here have at most some hundred rows.

/// Sweeps over all pairs; about ten are enough, and more than this would mean that it does not end.
const MOST_SWEEPS: usize = 60;

/// What the rest beside the diagonal may be, as a part of the whole, squared.
const PRECISION: f64 = 1e-22;

/// The eigenvalues, the largest first, and the eigenvectors, one behind the other.
pub(super) struct Eigen {
    pub values: Vec<f64>,
    vectors: Vec<f64>,
}

impl Eigen {
    /// Of a matrix of `size` rows, which lie behind each other.
    pub fn of(mut matrix: Vec<f64>, size: usize) -> Self {
        let mut vectors = vec![0.0; size * size];
        (0..size).for_each(|i| vectors[i * size + i] = 1.0);
        let whole: f64 = matrix.iter().map(|x| x * x).sum();
        for _ in 0..MOST_SWEEPS {
            let beside: f64 = (0..size)
                .flat_map(|i| (0..i).map(move |j| (i, j)))
                .map(|(i, j)| matrix[i * size + j].powi(2))
                .sum();
            if beside <= whole * PRECISION {
                break;
            }
            for p in 0..size {
                for q in p + 1..size {
                    rotate(&mut matrix, &mut vectors, size, p, q);
                }
            }
        }
        let value = |i: usize| matrix[i * size + i];
        let mut order: Vec<usize> = (0..size).collect();
        order.sort_by(|a, b| value(*b).total_cmp(&value(*a)).then(a.cmp(b)));
        Self {
            values: order.iter().map(|i| value(*i)).collect(),
            vectors: order.iter().flat_map(|i| vectors[i * size..(i + 1) * size].to_vec()).collect(),
        }
    }

    /// The eigenvector of the value with this number.
    pub fn vector(&self, number: usize) -> &[f64] {
        let size = self.values.len();
        &self.vectors[number * size..(number + 1) * size]
    }
}

/// Turns the plane of two axes so that they have nothing to do with each other.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], size: usize, p: usize, q: usize) {
    let beside = matrix[p * size + q];
    if beside == 0.0 {
        return;
    }
    let theta = (matrix[q * size + q] - matrix[p * size + p]) / (2.0 * beside);
    let tan = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cos = 1.0 / tan.hypot(1.0);
    let sin = tan * cos;
    for k in 0..size {
        let (kp, kq) = (matrix[k * size + p], matrix[k * size + q]);
        matrix[k * size + p] = cos * kp - sin * kq;
        matrix[k * size + q] = sin * kp + cos * kq;
    }
    turn(matrix, size, p, q, (cos, sin));
    turn(vectors, size, p, q, (cos, sin));
}

/// Turns two rows into each other.
fn turn(matrix: &mut [f64], size: usize, p: usize, q: usize, (cos, sin): (f64, f64)) {
    let (front, back) = matrix.split_at_mut(q * size);
    let (row_p, row_q) = (&mut front[p * size..(p + 1) * size], &mut back[..size]);
    for (x, y) in row_p.iter_mut().zip(row_q) {
        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_two_rows_is_as_by_hand() {
        // (2 1; 1 2): 3 along (1, 1), 1 along (1, -1).
        let eigen = Eigen::of(vec![2.0, 1.0, 1.0, 2.0], 2);
        assert!((eigen.values[0] - 3.0).abs() < 1e-12 && (eigen.values[1] - 1.0).abs() < 1e-12);
        let v = eigen.vector(0);
        assert!((v[0] - v[1]).abs() < 1e-12 && (v[0].abs() - 0.5_f64.sqrt()).abs() < 1e-12);
        let w = eigen.vector(1);
        assert!((w[0] + w[1]).abs() < 1e-12);
    }

    #[test]
    fn values_and_vectors_give_the_matrix_back() {
        let size = 12;
        let at = |i: usize, j: usize| ((i * j + i + j) % 7) as f64 - 2.5;
        let matrix: Vec<f64> = (0..size * size).map(|n| at(n / size, n % size)).collect();
        let eigen = Eigen::of(matrix.clone(), size);
        for i in 0..size {
            for j in 0..size {
                let sum: f64 =
                    (0..size).map(|k| eigen.values[k] * eigen.vector(k)[i] * eigen.vector(k)[j]).sum();
                assert!((sum - matrix[i * size + j]).abs() < 1e-9, "{i} {j}");
            }
        }
        assert!(eigen.values.is_sorted_by(|a, b| a >= b));
        assert!(Eigen::of(Vec::new(), 0).values.is_empty());
    }
}
