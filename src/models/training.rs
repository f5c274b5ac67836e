//! How a network is trained, as far as its graph, its update and its memory depend on it.

use crate::graph::{Graph, Parameter, ParameterRole};
use crate::ops::{ClipNorm, Ema, Multiplier, Optimizer};
use crate::passes::Arena;

/// Everything about training but data, learning rate and length. The default is plain SGD on every parameter; what is not for
/// training ignores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The rule that turns gradients into updates.
    pub optimizer: Optimizer,
    /// Limit of the norm of all gradients together.
    pub clip_norm: Option<ClipNorm>,
    /// Average of the parameters that is kept beside them.
    pub ema: Option<Ema>,
    /// Share of each image's target that is spread evenly over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// Layers and blocks, by PyTorch path, whose parameters stay as they are.
    pub frozen: Vec<String>,
    /// Multipliers of all biases.
    pub bias: Multiplier,
    /// Multipliers of single layers and blocks; the last one that holds a parameter counts.
    pub layers: Vec<LayerMultipliers>,
}

/// Multipliers of a layer, or of every layer in a block.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMultipliers {
    /// PyTorch path (`6.4`, or `6` for the block).
    pub path: String,
    /// For filters.
    pub weight: Multiplier,
    /// For biases.
    pub bias: Multiplier,
}

impl Default for Training {
    fn default() -> Self {
        Training {
            optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false, weight_decay: 0.0 },
            clip_norm: None,
            ema: None,
            label_smoothing: 0.0,
            frozen: Vec::new(),
            bias: Multiplier::default(),
            layers: Vec::new(),
        }
    }
}

/// The state of [`Training::ema`] among [`Training::state_names`].
pub const EMA_STATE: &str = "ema";

impl Training {
    /// Names of the buffers kept from step to step, each as large as the parameters: those of the optimizer, then the average.
    pub fn state_names(&self) -> Vec<&'static str> {
        let average = self.ema.map(|_| EMA_STATE);
        self.optimizer.state_buffers().iter().copied().chain(average).collect()
    }

    /// Whether the parameter of that name stays as it is.
    pub fn is_frozen(&self, parameter: &str) -> bool {
        self.frozen.iter().any(|path| is_in(path, parameter))
    }

    /// The multipliers of a parameter; zeros where it is frozen.
    pub fn multiplier(&self, parameter: &Parameter) -> Multiplier {
        if self.is_frozen(&parameter.name) {
            return Multiplier { lr: 0.0, decay: 0.0 };
        }
        let layer = self.layers.iter().rfind(|layer| is_in(&layer.path, &parameter.name));
        match (parameter.role, layer) {
            (ParameterRole::Weight, layer) => layer.map_or(Multiplier::default(), |layer| layer.weight),
            (ParameterRole::Bias, layer) => layer.map_or(self.bias, |layer| layer.bias),
        }
    }

    /// The multipliers of every block of the parameters' buffer; gaps have ones.
    pub fn multipliers(&self, graph: &Graph, arena: &Arena) -> Vec<f32> {
        let block = (crate::ops::WORDS_OF_A_BLOCK * 4) as u64;
        let mut blocks = vec![Multiplier::default(); arena.bytes.div_ceil(block) as usize];
        for (parameter, range) in graph.parameters.iter().zip(&arena.ranges) {
            let own = (range.start / block) as usize..range.end.div_ceil(block) as usize;
            blocks[own].fill(self.multiplier(parameter));
        }
        blocks.into_iter().flat_map(Multiplier::to_words).collect()
    }

    /// Dispatches of an update beside those of loss scaling.
    pub(super) fn dispatches(&self) -> usize {
        1 + self.clip_norm.map_or(0, |_| ClipNorm::DISPATCHES) + usize::from(self.ema.is_some())
    }
}

/// Whether a path names the layer of a parameter, or a block around it.
fn is_in(path: &str, parameter: &str) -> bool {
    parameter.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
}

/// The first of `paths` that holds no parameter of `graph`.
pub fn unknown_path<'a>(mut paths: impl Iterator<Item = &'a str>, graph: &Graph) -> Option<&'a str> {
    paths.find(|path| !graph.parameters.iter().any(|parameter| is_in(path, &parameter.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    fn description() -> Graph {
        let model = Model::find("nin-cifar").unwrap();
        model.describe(&model.defaults).unwrap()
    }

    /// The multipliers of the published Caffe network.
    fn caffe() -> Training {
        let multiplier = |lr, decay| Multiplier { lr, decay };
        let last = LayerMultipliers { path: "6.4".into(), weight: multiplier(0.1, 1.0), bias: multiplier(0.1, 0.0) };
        Training { bias: multiplier(2.0, 0.0), layers: vec![last], frozen: vec!["0".into()], ..Training::default() }
    }

    #[test]
    fn the_most_special_multiplier_counts() {
        let (graph, training) = (description(), caffe());
        let of = |name: &str| {
            let parameter = graph.parameters.iter().find(|p| p.name == name).unwrap();
            training.multiplier(parameter).to_words()
        };
        assert_eq!((of("3.0.weight"), of("3.0.bias")), ([1.0, 1.0], [2.0, 0.0]));
        assert_eq!((of("6.4.weight"), of("6.4.bias")), ([0.1, 1.0], [0.1, 0.0]));
        assert_eq!((of("0.2.weight"), of("0.4.bias")), ([0.0, 0.0], [0.0, 0.0]));
    }

    #[test]
    fn every_block_has_the_multipliers_of_its_parameter() {
        let (graph, training) = (description(), caffe());
        let arena = Arena::new(&graph, 16);
        let table = training.multipliers(&graph, &arena);
        assert_eq!(table.len() as u64 * 128, arena.bytes);
        for (parameter, range) in graph.parameters.iter().zip(&arena.ranges) {
            assert!(range.start.is_multiple_of(256), "{}: {range:?}", parameter.name);
            for block in range.start / 256..range.end.div_ceil(256) {
                assert_eq!(table[block as usize * 2..][..2], training.multiplier(parameter).to_words());
            }
        }
    }

    #[test]
    fn paths_name_whole_layers() {
        let graph = description();
        assert_eq!(unknown_path(["0", "3.2", "6.4"].into_iter(), &graph), None);
        for unknown in ["1", "3.", "6.4.weight", "60", ""] {
            assert_eq!(unknown_path(["0", unknown].into_iter(), &graph), Some(unknown));
        }
    }

    #[test]
    fn state_is_that_of_the_rule_and_the_average() {
        assert!(Training::default().state_names().is_empty());
        let adam = Optimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, decoupled: true };
        let training = Training { optimizer: adam, ema: Some(Ema { decay: 0.99 }), ..Training::default() };
        assert_eq!(training.state_names(), ["exp_avg", "exp_avg_sq", "ema"]);
    }
}
