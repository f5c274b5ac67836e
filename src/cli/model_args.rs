//! `--model` and the flags that adapt a model.

use crate::models::{MODELS, Model, ModelOptions};
use clap::builder::{PossibleValue, PossibleValuesParser, RangedU64ValueParser, TypedValueParser};

/// Takes the name of a model; help and errors list them.
pub fn model() -> impl TypedValueParser<Value = &'static Model> {
    let names = MODELS.iter().map(|model| PossibleValue::new(model.name).help(model.about));
    PossibleValuesParser::new(names).try_map(|name| Model::find(&name).ok_or("no such model"))
}

/// Takes a whole number from 1 to `most`.
pub fn count(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

/// A model and what it is adapted to.
#[derive(clap::Args)]
pub struct ModelArgs {
    /// The model
    #[arg(long, value_name = "NAME", value_parser = model())]
    pub model: &'static Model,
    #[command(flatten)]
    pub adapt: AdaptArgs,
}

impl ModelArgs {
    /// The model's published form with the changes asked for.
    pub fn options(&self) -> ModelOptions {
        self.adapt.apply(&self.model.defaults)
    }
}

/// Flags that adapt a model.
#[derive(clap::Args, Default)]
pub struct AdaptArgs {
    /// Number of classes
    #[arg(long, value_name = "N", value_parser = count(1_000_000))]
    pub classes: Option<usize>,
    /// Channels of the input: 1 for grey, 3 for colour
    #[arg(long, value_name = "C", value_parser = count(4))]
    pub in_channels: Option<usize>,
    /// Height and width of the input in pixels
    #[arg(long, value_name = "S", value_parser = count(8192))]
    pub image_size: Option<usize>,
}

impl AdaptArgs {
    /// A model's options with the changes asked for.
    pub fn apply(&self, base: &ModelOptions) -> ModelOptions {
        ModelOptions {
            classes: self.classes.unwrap_or(base.classes),
            in_channels: self.in_channels.unwrap_or(base.in_channels),
            image_size: self.image_size.map_or(base.image_size, |side| [side; 2]),
            dropout: base.dropout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_change_only_what_they_name() {
        let nin = Model::find("nin").unwrap();
        let adapt = AdaptArgs { classes: Some(100), image_size: Some(64), ..AdaptArgs::default() };
        let expected = ModelOptions { classes: 100, image_size: [64, 64], ..nin.defaults.clone() };
        assert_eq!(ModelArgs { model: nin, adapt }.options(), expected);
    }
}
