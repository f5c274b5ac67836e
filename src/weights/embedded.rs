//! The weights inside the binary: `nin-small` trained on Fashion-MNIST; `assets/` holds how.

use super::{WeightFile, WeightsError, from_bytes};

const BYTES: &[u8] = include_bytes!("../../assets/nin-small-fashion.safetensors");

/// Reads the embedded weights.
pub fn weights() -> Result<WeightFile, WeightsError> {
    from_bytes(BYTES, "the embedded weights")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::Model;

    #[test]
    fn embedded_weights_fit_their_model_and_say_what_they_are() {
        assert!(BYTES.len() <= 4 << 20, "at most 4 MB");
        let file = weights().unwrap();
        let metadata = file.metadata.as_ref().unwrap();
        assert_eq!(metadata.model, "nin-small");
        assert_eq!(metadata.classes, crate::data::FASHION_CLASSES);
        assert!(metadata.recipe.is_some());
        let model = Model::find(&metadata.model).unwrap();
        let graph = model.describe(&model.defaults).unwrap();
        let expected: Vec<(String, Vec<usize>)> =
            graph.parameters.iter().map(|p| (p.name.clone(), graph.fact(p.value).shape.0.clone())).collect();
        file.match_parameters(&expected).unwrap();
    }
}
