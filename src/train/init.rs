//! Initial values of the parameters.

use super::config::{Init, TrainConfig};
use crate::graph::{Graph, Parameter, ParameterRole};
use crate::rng::{Stream, purpose};
use crate::weights::NamedTensor;

/// Draws every parameter of `graph` from the run's seed; each has random numbers of its own, so that a layer more or
/// less leaves the others as they are.
pub fn initial_parameters(graph: &Graph, config: &TrainConfig) -> Vec<NamedTensor> {
    let last_bias = graph.parameters.iter().rposition(|p| p.role == ParameterRole::Bias);
    let draw = |(index, parameter): (usize, &Parameter)| {
        let shape = graph.fact(parameter.value).shape.clone();
        let mut rng = Stream::new(config.seed, index as u32, 0, purpose::INIT);
        let head_bias = config.head_bias.filter(|_| last_bias == Some(index));
        let data = (0..shape.elements()).map(|_| head_bias.map_or_else(|| draw_one(&mut rng, parameter, config.init), |b| b as f32));
        NamedTensor { name: parameter.name.clone(), data: data.collect(), shape: shape.0 }
    };
    graph.parameters.iter().enumerate().map(draw).collect()
}

/// One value. Xavier: Glorot and Bengio 2010, equation 16. Kaiming: He et al. 2015, equation 10. Biases: uniform within
/// one over the root of the fan-in, as `torch.nn.Conv2d` draws them, but zero with `normal`, as in Caffe.
fn draw_one(rng: &mut Stream, parameter: &Parameter, init: Init) -> f32 {
    let (fan_in, fan_out) = (parameter.fan_in as f32, parameter.fan_out as f32);
    match (parameter.role, init) {
        (ParameterRole::Weight, Init::Xavier) => {
            let bound = (6.0 / (fan_in + fan_out)).sqrt();
            rng.uniform_in(-bound, bound)
        }
        (ParameterRole::Weight, Init::Kaiming) => rng.normal() * (2.0 / fan_in).sqrt(),
        (ParameterRole::Weight, Init::Normal) => rng.normal() * 0.05,
        (ParameterRole::Bias, Init::Normal) => 0.0,
        (ParameterRole::Bias, _) => {
            let bound = 1.0 / fan_in.sqrt();
            rng.uniform_in(-bound, bound)
        }
    }
}
