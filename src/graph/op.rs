//! The contract of an operation: everything the compiler and the tests need to know about a layer.

use super::{Graph, GraphError, ValueId};
use crate::kernels::{Dispatch, Kernel, Problem, Step, Target};
use crate::shape::{Element, Fact, ShapeError};
use crate::tensor::Tensor;
use std::fmt;
use std::sync::Arc;

/// A layer, forward or backward: its shape rule, gradient rule, lowering to kernels and f64 reference.
pub trait Op: fmt::Debug + Send + Sync {
    /// Short name, used in paths, dumps and reports (`conv2d`).
    fn name(&self) -> &'static str;

    /// Attributes for dumps (`5x5 stride 1x1 padding 2x2`); empty where there are none.
    fn attributes(&self) -> String {
        String::new()
    }

    /// Facts of the outputs, or what does not fit.
    fn outputs(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, ShapeError>;

    /// Appends the nodes that compute the gradients of the inputs; `None` for an input that has none or whose
    /// gradient nobody wants.
    fn backward(&self, gradient: &mut Gradient<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None; gradient.inputs.len()])
    }

    /// The dispatches that compute the outputs.
    fn lower(&self, node: &Lowering<'_>) -> Lowered;

    /// The outputs in double precision, computed plainly from the definition. `step` is what the kernels see.
    /// Inputs and outputs of an integer layout ([`crate::shape::Layout::is_integer`]) hold numeric values here.
    fn reference(&self, inputs: &[Tensor], step: &Step) -> Vec<Tensor>;

    /// The input whose memory output 0 may take over when nobody reads that input afterwards.
    fn in_place(&self) -> Option<usize> {
        None
    }

    /// Computing the outputs takes hardly more time than reading them from memory.
    fn is_cheap(&self) -> bool {
        false
    }

    /// Its inputs stay in f32 in mixed precision.
    fn needs_single_precision(&self) -> bool {
        false
    }

    /// Output 0 is kept from step to step and this writes only part of it.
    fn keeps_state(&self) -> bool {
        false
    }

    /// The same operation with `max(0, ·)` applied to output 0, where a kernel does both.
    fn with_relu(&self) -> Option<Arc<dyn Op>> {
        None
    }

    /// The same operation with output 0 set to zero wherever one more, last input is not positive.
    fn with_mask(&self) -> Option<Arc<dyn Op>> {
        None
    }

    /// The part this operation can play in fusion.
    fn fusion(&self) -> Fusion {
        Fusion::None
    }

    /// What tuning may choose kernels for; `None` where there is but one way to compute it.
    fn problem(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> Option<Problem> {
        None
    }

    /// Multiply-adds of one execution.
    fn macs(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }
}

/// The part of an operation in fusion: what another kernel can take into its epilogue, or what the head's kernel does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fusion {
    /// Stays a node of its own.
    None,
    /// `max(0, input 0)`; see [`Op::with_relu`].
    Relu,
    /// Input 0 where input 1 is positive, else zero; see [`Op::with_mask`].
    Mask,
    /// Mean over all pixels.
    GlobalPool,
    /// Gradient of that; with `masked` its last input is a mask.
    GlobalPoolBackward {
        /// Has a mask.
        masked: bool,
    },
    /// Gradient of a max pool, input 1 being the pool's winners: where [`Op::with_mask`] masks by the pool's input, the last
    /// input is the pool's output instead, which is kept anyway.
    MaxPoolBackward,
    /// Probabilities from logits.
    Softmax,
    /// Loss from logits and labels.
    Loss {
        /// Share of the target that is spread over all classes.
        smoothing: f32,
    },
    /// Gradient of that.
    LossBackward,
}

/// What a gradient rule sees: the node it differentiates and the graph it appends to.
pub struct Gradient<'a> {
    /// Where backward nodes go.
    pub graph: &'a mut Graph,
    /// Path for the new nodes.
    pub path: &'a str,
    /// The node's inputs.
    pub inputs: &'a [ValueId],
    /// The node's outputs.
    pub outputs: &'a [ValueId],
    /// Gradient of each output; `None` where it does not reach the loss.
    pub output_gradients: &'a [Option<ValueId>],
    /// Whether the gradient of each input leads to a parameter.
    pub wanted: &'a [bool],
}

impl Gradient<'_> {
    /// Appends a backward node with one output.
    pub fn node(&mut self, op: impl Op + 'static, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        self.graph.add_single(self.path, Arc::new(op), inputs)
    }

    /// The fact of an input of the node.
    pub fn input_fact(&self, index: usize) -> &Fact {
        self.graph.fact(self.inputs[index])
    }
}

/// What a lowering sees.
pub struct Lowering<'a> {
    /// The device class and limits.
    pub target: &'a Target,
    /// Facts of the inputs.
    pub inputs: Vec<&'a Fact>,
    /// Facts of the outputs.
    pub outputs: Vec<&'a Fact>,
    /// Whether each output is read by anybody; an unread one has no memory.
    pub is_read: Vec<bool>,
    /// Output 0 takes over the memory of the input named by [`Op::in_place`].
    pub in_place: bool,
}

/// What a dispatch of a node refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// An input of the node.
    Input(usize),
    /// An output of the node.
    Output(usize),
    /// Memory that lives for this node only, by index into [`Lowered::scratch`].
    Scratch(usize),
    /// A texture of `rgba32float` that lives for this node only, by index into [`Lowered::textures`].
    Texture(usize),
}

/// The dispatches of a node, in order, and the scratch memory they share.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    /// Kernels to run.
    pub dispatches: Vec<Dispatch<Operand>>,
    /// Bytes of each scratch buffer.
    pub scratch: Vec<u64>,
    /// Bytes of each texture, 16 a texel.
    pub textures: Vec<u64>,
}

impl Lowered {
    /// The same work with the kernels that take operands stored as these facts say; scratch memory and textures hold f32. Fails with a
    /// kernel that there is not in the form that is needed.
    pub fn for_facts(mut self, inputs: &[&Fact], outputs: &[&Fact]) -> Result<Self, &'static Kernel> {
        for dispatch in &mut self.dispatches {
            let element = |operand: &Operand| match operand {
                Operand::Input(index) => inputs[*index].element,
                Operand::Output(index) => outputs[*index].element,
                Operand::Scratch(_) | Operand::Texture(_) => Element::F32,
            };
            let elements: Vec<Element> = dispatch.buffers.iter().map(element).collect();
            dispatch.kernel = dispatch.kernel.for_elements(&elements).ok_or(dispatch.kernel)?;
        }
        Ok(self)
    }
}

impl From<Dispatch<Operand>> for Lowered {
    fn from(dispatch: Dispatch<Operand>) -> Self {
        Lowered { dispatches: vec![dispatch], ..Default::default() }
    }
}

/// How close a kernel must come to its reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tolerance {
    /// Bit for bit.
    Exact,
    /// `|error| <= factor · 2^-24 · scale`, the scale being the reference of the same op on absolute values.
    Sum {
        /// Units in the last place of the scale.
        factor: f64,
    },
    /// `|error| <= relative · |reference| + absolute`.
    Relative {
        /// Share of the reference's magnitude.
        relative: f64,
        /// Floor.
        absolute: f64,
    },
}

/// A test case of an operation, run by the self-check and by the test suite on every device.
pub struct Case {
    /// What is special about it (`5x5 stride 2, 7 channels`).
    pub name: String,
    /// The operation.
    pub op: Arc<dyn Op>,
    /// Facts and values of the inputs in logical order; elements of an integer layout as bit patterns
    /// (`f32::from_bits`). Outputs of an integer layout are compared exactly.
    pub inputs: Vec<(Fact, Vec<f32>)>,
    /// Step values.
    pub step: Step,
    /// How outputs are compared; one entry per output.
    pub tolerance: Vec<Tolerance>,
}
