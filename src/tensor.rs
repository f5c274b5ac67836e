//! Host tensors in double precision: what the reference implementations compute with.

use crate::shape::Shape;

/// A tensor in logical order (row-major, no padding).
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first.
    pub shape: Shape,
    /// `shape.elements()` values.
    pub data: Vec<f64>,
}

impl Tensor {
    /// All zeros.
    pub fn zeros(shape: &Shape) -> Self {
        Tensor { shape: shape.clone(), data: vec![0.0; shape.elements()] }
    }

    /// From single precision values in logical order.
    pub fn from_f32(shape: &Shape, data: &[f32]) -> Self {
        assert_eq!(shape.elements(), data.len(), "tensor of {shape}");
        Tensor { shape: shape.clone(), data: data.iter().map(|v| f64::from(*v)).collect() }
    }

    /// Index of an element of a four-dimensional tensor.
    pub fn at(&self, [a, b, c, d]: [usize; 4]) -> usize {
        let [_, sb, sc, sd] = self.shape.four();
        ((a * sb + b) * sc + c) * sd + d
    }

    /// Element-wise function.
    pub fn map(&self, mut f: impl FnMut(f64) -> f64) -> Tensor {
        Tensor { shape: self.shape.clone(), data: self.data.iter().map(|v| f(*v)).collect() }
    }

    /// Element-wise combination of two tensors of one shape.
    pub fn zip(&self, other: &Tensor, f: impl Fn(f64, f64) -> f64) -> Tensor {
        assert_eq!(self.shape, other.shape);
        Tensor { shape: self.shape.clone(), data: self.data.iter().zip(&other.data).map(|(a, b)| f(*a, *b)).collect() }
    }
}
