//! What a weight file says about itself, so that inference needs no flags.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::whitening::{MOST_WHITENED_VALUES, WhiteningNote};
use crate::data::appearance::Appearance;
use crate::data::framing::{Polarity, Target};
use crate::errors::one_line;

/// Largest height and width of a network's input: a weight file must not be able to make the
/// program allocate without bound.
pub(crate) const MAX_SIDE: usize = 8192;
/// Most channels of a network's input.
pub(crate) const MAX_CHANNELS: usize = 4096;

/// The entries of a weight file's `__metadata__` that this program writes and reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// Name of the model: `nin`, `nin-small`, ...
    pub model: String,
    /// Names of the classes in the order of the logits.
    pub classes: Vec<String>,
    /// How a picture becomes the network's input.
    pub preprocess: Preprocess,
    /// Where the weights come from, in words: a recipe's name or a command.
    pub recipe: Option<String>,
}

/// How a picture becomes the network's input: resize to `size`, scale pixels to [0, 1], then
/// `(x - mean) / std` per channel, or contrast normalisation and whitening of all values together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// Height and width in pixels.
    pub size: [usize; 2],
    /// Channels: 1 for grey, 3 for RGB.
    pub channels: usize,
    /// Mean per channel for pixels in [0, 1]; one value serves all channels, none means 0.
    pub mean: Vec<f32>,
    /// Standard deviation per channel for pixels in [0, 1]; one value serves all, none means 1.
    pub std: Vec<f32>,
    /// Whether the subject is lighter or darker than its background.
    pub polarity: Polarity,
    /// Share of the frame that the subject's longer side takes, in (0, 1]; without it all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<f32>,
    /// Instead of mean and std: whitening, from a file beside the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whitening: Option<WhiteningNote>,
}

/// What a file says of itself, part by part: files of other programs may have some of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// As [`Metadata::model`].
    pub model: Option<String>,
    /// As [`Metadata::classes`].
    pub classes: Option<Vec<String>>,
    /// As [`Metadata::preprocess`].
    pub preprocess: Option<Preprocess>,
    /// As [`Metadata::recipe`].
    pub recipe: Option<String>,
}

/// Which entry of the metadata is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{key}' {reason}")]
pub struct MetadataError {
    /// The key in `__metadata__`.
    pub key: &'static str,
    /// What is wrong with its value.
    pub reason: String,
}

impl Metadata {
    /// The entries as strings, always in the same order.
    pub fn to_entries(&self) -> Result<Vec<(&'static str, String)>, MetadataError> {
        self.validate()?;
        let mut entries = vec![
            ("model", self.model.clone()),
            ("classes", to_json("classes", &self.classes)?),
            ("preprocess", to_json("preprocess", &self.preprocess)?),
        ];
        if let Some(recipe) = &self.recipe {
            entries.push(("recipe", recipe.clone()));
        }
        Ok(entries)
    }

    fn validate(&self) -> Result<(), MetadataError> {
        check_model(&self.model)?;
        check_classes(&self.classes)?;
        check_preprocess(&self.preprocess)
    }
}

impl Parts {
    /// Reads the entries of a file; an error where one is there and makes no sense.
    pub fn from_entries(entries: &HashMap<String, String>) -> Result<Self, MetadataError> {
        let parts = Parts {
            model: entries.get("model").cloned(),
            classes: entries.get("classes").map(|text| from_json("classes", text)).transpose()?,
            preprocess: entries.get("preprocess").map(|text| from_json("preprocess", text)).transpose()?,
            recipe: entries.get("recipe").cloned(),
        };
        parts.model.as_deref().map_or(Ok(()), check_model)?;
        parts.classes.as_deref().map_or(Ok(()), check_classes)?;
        parts.preprocess.as_ref().map_or(Ok(()), check_preprocess)?;
        Ok(parts)
    }

    /// All of it, where `model`, `classes` and `preprocess` are there.
    pub fn whole(&self) -> Option<Metadata> {
        let Parts { model, classes, preprocess, recipe } = self.clone();
        Some(Metadata { model: model?, classes: classes?, preprocess: preprocess?, recipe })
    }
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn wrong(key: &'static str, reason: impl Into<String>) -> Result<(), MetadataError> {
    Err(MetadataError { key, reason: reason.into() })
}

fn check_model(model: &str) -> Result<(), MetadataError> {
    if is_printable(model) { Ok(()) } else { wrong("model", "is empty or has control characters") }
}

fn check_classes(classes: &[String]) -> Result<(), MetadataError> {
    if classes.is_empty() {
        return wrong("classes", "names no class");
    }
    match classes.iter().position(|class| !is_printable(class)) {
        Some(index) => wrong("classes", format!("has an empty or unprintable name at index {index}")),
        None => Ok(()),
    }
}

fn check_preprocess(preprocess: &Preprocess) -> Result<(), MetadataError> {
    preprocess.validate().or_else(|reason| wrong("preprocess", reason))
}

impl Preprocess {
    /// Channels, height and width of the network's input.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.size[0], self.size[1]]
    }

    /// What pictures are made of for the network.
    pub fn target(&self) -> Target {
        let Appearance { polarity, fill } = self.appearance();
        Target { height: self.size[0], width: self.size[1], channels: self.channels, polarity, fill }
    }

    /// How the pictures looked from which the network has learned.
    pub fn appearance(&self) -> Appearance {
        Appearance { polarity: self.polarity, fill: self.fill.unwrap_or(1.0) }
    }

    /// Mean and standard deviation, one value per channel.
    pub fn mean_std(&self) -> (Vec<f32>, Vec<f32>) {
        (spread(&self.mean, self.channels, 0.0), spread(&self.std, self.channels, 1.0))
    }

    fn validate(&self) -> Result<(), String> {
        if self.size.iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            return Err(format!("has size {}x{}, sides must be 1 to {MAX_SIDE}", self.size[0], self.size[1]));
        }
        if !(1..=MAX_CHANNELS).contains(&self.channels) {
            return Err(format!("has {} channels, must be 1 to {MAX_CHANNELS}", self.channels));
        }
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() > 1 && values.len() != self.channels {
                return Err(format!("has {} values of {name} for {} channels", values.len(), self.channels));
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(format!("has a {name} that is no finite number"));
            }
        }
        if self.std.iter().any(|&std| std <= 0.0) {
            return Err("has a std that is not above 0".into());
        }
        if self.fill.is_some_and(|fill| !(fill > 0.0 && fill <= 1.0)) {
            return Err("has a fill that is not above 0 and at most 1".into());
        }
        if let Some(whitening) = &self.whitening {
            let values = self.channels.saturating_mul(self.size[0] * self.size[1]);
            if values > MOST_WHITENED_VALUES {
                return Err(format!("has a whitening of {values} values, more than {MOST_WHITENED_VALUES}"));
            }
            whitening.validate()?;
        }
        Ok(())
    }
}

fn spread(values: &[f32], channels: usize, default: f32) -> Vec<f32> {
    match values {
        [] => vec![default; channels],
        [value] => vec![*value; channels],
        _ => values.to_vec(),
    }
}

fn to_json<T: Serialize>(key: &'static str, value: &T) -> Result<String, MetadataError> {
    serde_json::to_string(value).map_err(|error| json_error(key, &error))
}

fn from_json<'a, T: Deserialize<'a>>(key: &'static str, text: &'a str) -> Result<T, MetadataError> {
    serde_json::from_str(text).map_err(|error| json_error(key, &error))
}

fn json_error(key: &'static str, error: &serde_json::Error) -> MetadataError {
    MetadataError { key, reason: format!("is not as expected ({})", one_line(&error.to_string(), 160)) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn example() -> Metadata {
        Metadata {
            model: "nin-small".into(),
            classes: vec!["T-shirt/top".into(), "Hose \"weit\"".into()],
            preprocess: Preprocess {
                size: [28, 28],
                channels: 1,
                mean: vec![0.286],
                std: vec![0.353],
                polarity: Polarity::LightOnDark,
                fill: None,
                whitening: None,
            },
            recipe: Some("fashion-small".into()),
        }
    }

    fn map(metadata: &Metadata) -> HashMap<String, String> {
        let entries = metadata.to_entries().unwrap();
        entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
    }

    #[test]
    fn entries_have_the_documented_form() {
        let entries = example().to_entries().unwrap();
        assert_eq!(
            entries,
            [
                ("model", "nin-small".to_string()),
                ("classes", r#"["T-shirt/top","Hose \"weit\""]"#.to_string()),
                ("preprocess", r#"{"size":[28,28],"channels":1,"mean":[0.286],"std":[0.353],"polarity":"light-on-dark"}"#.to_string()),
                ("recipe", "fashion-small".to_string()),
            ]
        );
        assert_eq!(Parts::from_entries(&map(&example())).unwrap().whole(), Some(example()));
    }

    #[test]
    fn what_the_subject_fills_is_kept_where_it_is_not_all() {
        let mut metadata = example();
        assert_eq!(metadata.preprocess.target().fill, 1.0);
        metadata.preprocess.fill = Some(0.71);
        let read = Parts::from_entries(&map(&metadata)).unwrap().whole().unwrap();
        assert_eq!((read.preprocess.target().fill, read), (0.71, metadata));
    }

    #[test]
    fn files_of_other_programs_have_none() {
        let entries = HashMap::from([("format".to_string(), "pt".to_string())]);
        assert_eq!(Parts::from_entries(&entries), Ok(Parts::default()));
        assert_eq!(Parts::default().whole(), None);
    }

    #[test]
    fn each_part_counts_by_itself() {
        for missing in ["model", "classes", "preprocess"] {
            let mut entries = map(&example());
            entries.remove(missing);
            let parts = Parts::from_entries(&entries).unwrap();
            assert_eq!(parts.whole(), None);
            let Metadata { model, classes, preprocess, recipe } = example();
            let wanted = Parts { model: Some(model), classes: Some(classes), preprocess: Some(preprocess), recipe };
            let wanted = match missing {
                "model" => Parts { model: None, ..wanted },
                "classes" => Parts { classes: None, ..wanted },
                _ => Parts { preprocess: None, ..wanted },
            };
            assert_eq!(parts, wanted);
        }
    }

    #[test]
    fn nonsense_names_its_key() {
        for (key, value, words) in [
            ("model", "", "empty"),
            ("classes", "[]", "no class"),
            ("classes", "[1]", "not as expected"),
            ("classes", r#"["a\u001b[2J"]"#, "index 0"),
            ("preprocess", "{}", "missing field"),
            ("preprocess", r#"{"size":[0,28],"channels":1,"mean":[],"std":[],"polarity":"any"}"#, "0x28"),
            ("preprocess", r#"{"size":[8,8],"channels":99999,"mean":[],"std":[],"polarity":"any"}"#, "99999"),
            ("preprocess", r#"{"size":[8,8],"channels":3,"mean":[0,0],"std":[],"polarity":"any"}"#, "2 values of mean"),
            ("preprocess", r#"{"size":[8,8],"channels":1,"mean":[0],"std":[0],"polarity":"any"}"#, "above 0"),
            ("preprocess", r#"{"size":[8,8],"channels":1,"mean":[1e99],"std":[1],"polarity":"any"}"#, "preprocess"),
            ("preprocess", r#"{"size":[8,8],"channels":1,"mean":[],"std":[],"polarity":"up"}"#, "unknown variant"),
            ("preprocess", r#"{"size":[8,8],"channels":1,"mean":[],"std":[],"polarity":"any","fill":0}"#, "above 0"),
        ] {
            let mut entries = map(&example());
            entries.insert(key.to_string(), value.to_string());
            let error = Parts::from_entries(&entries).unwrap_err();
            assert_eq!(error.key, key);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn normalisation_is_spread_over_the_channels() {
        let mut preprocess = example().preprocess;
        preprocess.channels = 3;
        assert_eq!(preprocess.mean_std(), (vec![0.286; 3], vec![0.353; 3]));
        preprocess.mean.clear();
        preprocess.std = vec![1.0, 2.0, 3.0];
        assert_eq!(preprocess.mean_std(), (vec![0.0; 3], vec![1.0, 2.0, 3.0]));
    }
}
