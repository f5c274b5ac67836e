//! Shapes, window arithmetic and how a tensor lies in device memory.

use crate::half::{f16_to_f32, f32_to_f16};
use std::fmt;

/// A window was asked for that does not fit its input, or tensors do not fit each other.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ShapeError {
    /// The padded input is smaller than the window.
    #[error("a {kernel}x{kernel_w} window does not fit the input {input}x{input_w} with padding {padding}x{padding_w}")]
    #[allow(missing_docs)]
    WindowTooLarge { kernel: usize, kernel_w: usize, input: usize, input_w: usize, padding: usize, padding_w: usize },
    /// Stride or kernel of zero, or padding above half the kernel where the layer forbids it.
    #[error("{0}")]
    Invalid(String),
    /// Two tensors disagree.
    #[error("expected {expected}, got {got}")]
    #[allow(missing_docs)]
    Mismatch { expected: String, got: String },
}

/// Logical shape of a tensor, outermost dimension first: activations `[N, C, H, W]`, filters `[O, I, KH, KW]`,
/// vectors `[C]`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<usize>);

impl Shape {
    /// An activation of `n` images with `c` channels of `h` x `w` pixels.
    pub fn nchw(n: usize, c: usize, h: usize, w: usize) -> Self {
        Shape(vec![n, c, h, w])
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// The four dimensions of an activation or a filter. Vectors `[C]` read as `[1, C, 1, 1]`.
    pub fn four(&self) -> [usize; 4] {
        match self.0[..] {
            [n, c, h, w] => [n, c, h, w],
            [n, c] => [n, c, 1, 1],
            [c] => [1, c, 1, 1],
            _ => unreachable!("tensors have one, two or four dimensions"),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&dims.join("x"))
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Channels as stored: below four as they are, else rounded up to a multiple of four so that every load is a `vec4`.
/// The lanes above the logical count hold zero in every tensor, always.
pub fn channels_in_memory(channels: usize) -> usize {
    if channels < 4 { channels } else { channels.next_multiple_of(4) }
}

/// How a tensor lies in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// f32 or f16, `[N][H][W][channels_in_memory(C)]`.
    Activation,
    /// f32 or f16, `[KH][KW][channels_in_memory(I)][channels_in_memory(O)]`.
    Filter,
    /// f32, `[channels_in_memory(C)]`.
    Vector,
    /// f32 in logical order, no padding.
    Plain,
    /// u32 in logical order, no padding: labels, ids, positions.
    Index,
    /// Unsigned bytes `[N][H][W][C]`, the total rounded up to four bytes.
    Pixels,
}

impl Layout {
    /// Whether elements are unsigned integers. Host code that handles all tensors as `f32` carries such elements as
    /// bit patterns (`f32::from_bits`); references see their numeric values.
    pub fn is_integer(self) -> bool {
        matches!(self, Layout::Index | Layout::Pixels)
    }
}

/// How the numbers of a tensor are stored. Kernels compute with f32 whatever they load and store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// Four bytes: f32, and u32 in an integer layout.
    #[default]
    F32,
    /// Two bytes, half precision: activations and filters in mixed precision, nothing else.
    F16,
}

impl Element {
    /// Size in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 => 2,
        }
    }

    /// The name in dumps.
    pub fn name(self) -> &'static str {
        match self {
            Element::F32 => "f32",
            Element::F16 => "f16",
        }
    }

    /// The bytes of numbers, rounded where the element is narrower than they are.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Element::F32 => bytemuck::cast_slice(values).to_vec(),
            Element::F16 => values.iter().flat_map(|value| f32_to_f16(*value).to_le_bytes()).collect(),
        }
    }
}

/// What is known of a tensor before anything runs: its logical shape, its layout in memory and its element type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fact {
    /// Logical shape, without padding.
    pub shape: Shape,
    /// Order and padding in memory.
    pub layout: Layout,
    /// How numbers are stored. Shape rules make f32; [`crate::passes::precision`] decides otherwise afterwards.
    pub element: Element,
}

impl Fact {
    /// A tensor of f32, or of what else the layout holds.
    pub fn new(shape: Shape, layout: Layout) -> Self {
        Fact { shape, layout, element: Element::F32 }
    }

    /// The same tensor with other elements.
    pub fn with_element(self, element: Element) -> Self {
        Fact { element, ..self }
    }

    /// An activation `[N, C, H, W]`.
    pub fn activation(n: usize, c: usize, h: usize, w: usize) -> Self {
        Fact::new(Shape::nchw(n, c, h, w), Layout::Activation)
    }

    /// A convolution filter `[O, I, KH, KW]`.
    pub fn filter(o: usize, i: usize, kh: usize, kw: usize) -> Self {
        Fact::new(Shape(vec![o, i, kh, kw]), Layout::Filter)
    }

    /// A vector over channels `[C]`.
    pub fn vector(c: usize) -> Self {
        Fact::new(Shape(vec![c]), Layout::Vector)
    }

    /// f32 in logical order.
    pub fn plain(dims: &[usize]) -> Self {
        Fact::new(Shape(dims.to_vec()), Layout::Plain)
    }

    /// u32 in logical order.
    pub fn index(dims: &[usize]) -> Self {
        Fact::new(Shape(dims.to_vec()), Layout::Index)
    }

    /// `n` images of `c` bytes a pixel and `h` x `w` pixels.
    pub fn pixels(n: usize, c: usize, h: usize, w: usize) -> Self {
        Fact::new(Shape::nchw(n, c, h, w), Layout::Pixels)
    }

    /// Sizes in memory in the order of the layout, padding included.
    fn memory_dims(&self) -> [usize; 4] {
        let [a, b, c, d] = self.shape.four();
        match self.layout {
            Layout::Activation => [a, c, d, channels_in_memory(b)],
            Layout::Filter => [c, d, channels_in_memory(b), channels_in_memory(a)],
            Layout::Vector => [1, 1, 1, channels_in_memory(b)],
            Layout::Plain | Layout::Index => [1, 1, 1, self.shape.elements()],
            Layout::Pixels => [a, c, d, b],
        }
    }

    /// Elements in memory, padding included (for pixels: 32-bit words).
    pub fn words(&self) -> usize {
        let elements = self.memory_dims().iter().product::<usize>();
        if self.layout == Layout::Pixels { elements.div_ceil(4) } else { elements }
    }

    /// Bytes in memory: a multiple of four, as bindings must be.
    pub fn bytes(&self) -> u64 {
        ((self.words() * self.element.bytes()) as u64).next_multiple_of(4)
    }

    /// Position in memory of every logical element, in logical order.
    fn positions(&self) -> impl Iterator<Item = usize> + '_ {
        let [n, c, h, w] = self.shape.four();
        let dims = self.memory_dims();
        let layout = self.layout;
        (0..n * c * h * w).map(move |i| {
            let (d, rest) = (i % w, i / w);
            let (e, rest) = (rest % h, rest / h);
            let (b, a) = (rest % c, rest / c);
            let index = match layout {
                Layout::Activation | Layout::Pixels => [a, e, d, b],
                Layout::Filter => [e, d, b, a],
                Layout::Vector => [0, 0, 0, b],
                Layout::Plain | Layout::Index => [0, 0, 0, i],
            };
            ((index[0] * dims[1] + index[1]) * dims[2] + index[2]) * dims[3] + index[3]
        })
    }

    /// Logical order → memory order, padding filled with zero; for layouts of four-byte elements. Integers are bit
    /// patterns, see [`Layout::is_integer`].
    pub fn pack(&self, logical: &[f32]) -> Vec<f32> {
        assert_eq!(logical.len(), self.shape.elements(), "pack: element count of {}", self.shape);
        let mut memory = vec![0.0; self.words()];
        for (value, at) in logical.iter().zip(self.positions()) {
            memory[at] = *value;
        }
        memory
    }

    /// Bytes in logical order → memory order, for [`Layout::Pixels`]: channels interleaved, padded to whole words.
    pub fn pack_pixels(&self, logical: &[u8]) -> Vec<u8> {
        assert_eq!(logical.len(), self.shape.elements(), "pack_pixels: element count of {}", self.shape);
        let mut memory = vec![0; self.words() * 4];
        for (value, at) in logical.iter().zip(self.positions()) {
            memory[at] = *value;
        }
        memory
    }

    /// Elements in memory order → the bytes of device memory, rounded where elements are f16.
    pub fn encode(&self, memory: &[f32]) -> Vec<u8> {
        let mut bytes = self.element.encode(memory);
        bytes.resize(self.bytes() as usize, 0);
        bytes
    }

    /// The bytes of device memory → elements in memory order.
    pub fn decode(&self, bytes: &[u8]) -> Vec<f32> {
        match self.element {
            Element::F32 => bytemuck::pod_collect_to_vec(bytes),
            Element::F16 => {
                bytes.chunks_exact(2).take(self.words()).map(|pair| f16_to_f32(u16::from_le_bytes([pair[0], pair[1]]))).collect()
            }
        }
    }

    /// Memory order → logical order, for layouts of four-byte elements.
    pub fn unpack(&self, memory: &[f32]) -> Vec<f32> {
        self.positions().map(|at| memory[at]).collect()
    }

    /// Whether every padding element of `memory` is positive or negative zero.
    pub fn padding_is_zero(&self, memory: &[f32]) -> bool {
        let mut used = vec![false; memory.len()];
        self.positions().for_each(|at| used[at] = true);
        memory.iter().zip(used).all(|(value, used)| used || *value == 0.0)
    }
}

/// A sliding window over height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width of the window.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: [usize; 2],
    /// Zeros added on every side.
    pub padding: [usize; 2],
    /// Round the number of windows up instead of down (PyTorch's `ceil_mode`).
    pub ceil_mode: bool,
}

impl Window {
    /// A square window, rounding down.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], ceil_mode: false }
    }

    /// The same window, rounding up.
    pub fn ceil(self) -> Self {
        Window { ceil_mode: true, ..self }
    }

    /// Output height and width for an input of `input` height and width, as PyTorch computes them: with `ceil_mode`
    /// a last window that would start in the padding behind the input is dropped.
    pub fn output(&self, input: [usize; 2]) -> Result<[usize; 2], ShapeError> {
        let mut out = [0; 2];
        for axis in 0..2 {
            let (kernel, stride, padding) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
            if kernel == 0 || stride == 0 {
                return Err(ShapeError::Invalid(format!("kernel and stride must be at least 1, got {self}")));
            }
            let padded = input[axis] + 2 * padding;
            if padded < kernel {
                return Err(ShapeError::WindowTooLarge {
                    kernel: self.kernel[0],
                    kernel_w: self.kernel[1],
                    input: input[0],
                    input_w: input[1],
                    padding: self.padding[0],
                    padding_w: self.padding[1],
                });
            }
            let room = padded - kernel;
            let mut count = if self.ceil_mode { room.div_ceil(stride) } else { room / stride } + 1;
            if self.ceil_mode && (count - 1) * stride >= input[axis] + padding {
                count -= 1;
            }
            out[axis] = count;
        }
        Ok(out)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kh, kw] = self.kernel;
        let [sh, sw] = self.stride;
        let [ph, pw] = self.padding;
        write!(f, "{kh}x{kw} stride {sh}x{sw} padding {ph}x{pw}")?;
        if self.ceil_mode { f.write_str(" ceil") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_round_as_documented() {
        assert_eq!(Window::square(11, 4, 0).output([224, 224]), Ok([54, 54]));
        assert_eq!(Window::square(3, 2, 0).output([54, 54]), Ok([26, 26]));
        assert_eq!(Window::square(3, 2, 0).ceil().output([32, 32]), Ok([16, 16]));
        // The second window would start in the padding behind the input.
        assert_eq!(Window { padding: [1, 1], ..Window::square(2, 3, 1).ceil() }.output([2, 2]), Ok([1, 1]));
        assert!(Window::square(5, 1, 0).output([4, 9]).is_err());
        assert!(Window::square(1, 0, 0).output([4, 9]).is_err());
    }

    #[test]
    fn pack_and_unpack_are_inverse_and_pad_with_zero() {
        for fact in [
            Fact::activation(2, 5, 3, 2),
            Fact::filter(6, 3, 2, 1),
            Fact::filter(5, 7, 3, 3),
            Fact::vector(10),
            Fact::activation(1, 3, 2, 2),
        ] {
            let logical: Vec<f32> = (1..=fact.shape.elements()).map(|i| i as f32).collect();
            let memory = fact.pack(&logical);
            assert_eq!(memory.len() * 4, fact.bytes() as usize);
            assert_eq!(memory.iter().filter(|v| **v == 0.0).count(), memory.len() - logical.len());
            assert!(fact.padding_is_zero(&memory));
            assert_eq!(fact.unpack(&memory), logical);
        }
    }

    #[test]
    fn half_precision_takes_two_bytes_in_whole_words() {
        let fact = Fact::activation(1, 3, 1, 1).with_element(Element::F16);
        assert_eq!(fact.bytes(), 8);
        assert_eq!(fact.encode(&[1.0, -2.0, 65504.0]), [0x00, 0x3c, 0x00, 0xc0, 0xff, 0x7b, 0, 0]);
        assert_eq!(fact.decode(&fact.encode(&[1.0, 0.1, 1e9])), [1.0, 0.099975586, f32::INFINITY]);
        let single = Fact::activation(1, 3, 1, 1);
        assert_eq!((single.bytes(), single.decode(&single.encode(&[1.0, 0.1, 1e9]))), (12, vec![1.0, 0.1, 1e9]));
    }

    #[test]
    fn pixels_are_packed_by_bytes_with_interleaved_channels() {
        let memory = Fact::pixels(1, 2, 1, 3).pack_pixels(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(memory, [1, 4, 2, 5, 3, 6, 0, 0]);
    }
}
