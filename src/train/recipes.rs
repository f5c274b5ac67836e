//! Recipes: everything that a run needs but a device, as readable TOML. Those in `assets/recipes/` are part of the program.

use super::RunError;
use super::config::TrainConfig;
use crate::errors::one_line;
use std::fs;
use std::path::Path;

/// A recipe of this program.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Its name for `--recipe`.
    pub name: &'static str,
    /// The file.
    pub text: &'static str,
}

macro_rules! recipes {
    ($($name:literal,)+) => {
        &[$(Recipe { name: $name, text: include_str!(concat!("../../assets/recipes/", $name, ".toml")) },)+]
    };
}

/// Every recipe there is.
pub static RECIPES: &[Recipe] = recipes![
    "d2l-nin",
    "d2l-nin-long",
    "nin-one-1x1",
    "paper-cifar10",
    "paper-cifar10-aug",
    "paper-cifar100",
    "paper-mnist",
    "paper-svhn",
    "cifar10-fast",
    "fashion-small",
];

impl Recipe {
    /// The recipe of that name.
    pub fn find(name: &str) -> Option<&'static Recipe> {
        RECIPES.iter().find(|recipe| recipe.name == name)
    }

    /// What it is for, in one line: the file's first comment.
    pub fn about(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches(['#', ' '])
    }

    /// Its settings.
    pub fn config(&self) -> Result<TrainConfig, RunError> {
        read(self.text, None).map_err(|reason| RunError::Recipe { recipe: self.name.into(), reason })
    }
}

/// The settings of a recipe: one of [`RECIPES`] by name, or a TOML file, `config.toml` of any run among them. What a file leaves
/// out follows its model, or `model`, which takes the place of the recipe's.
pub fn load(recipe: &str, model: Option<&str>) -> Result<TrainConfig, RunError> {
    let wrong = |reason| RunError::Recipe { recipe: one_line(recipe, 200), reason };
    if let Some(known) = Recipe::find(recipe) {
        return read(known.text, model).map_err(wrong);
    }
    match fs::read_to_string(Path::new(recipe)) {
        Ok(text) => read(&text, model).map_err(wrong),
        Err(error) => {
            let names: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
            let is_file = Path::new(recipe).exists();
            let reason = if is_file { format!("cannot be read: {error}") } else { format!("no file, and none of: {}", names.join(", ")) };
            Err(wrong(reason))
        }
    }
}

/// The settings in `text`, or what is wrong with it, in one line.
fn read(text: &str, model: Option<&str>) -> Result<TrainConfig, String> {
    let in_line = |error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1;
        format!("line {line}: {}", one_line(error.message(), 200))
    };
    let mut given: toml::Table = toml::from_str(text).map_err(in_line)?;
    // What a run has written is complete: what is absent there is off, not the model's.
    if let (Ok(whole), None) = (TrainConfig::from_toml(text), model) {
        whole.validate().map_err(|error| error.to_string())?;
        return Ok(whole);
    }
    if let Some(model) = model {
        given.insert("model".into(), model.into());
    }
    let Some(model) = given.get("model").and_then(toml::Value::as_str) else {
        return Err("it names no model; add a line such as model = \"nin-cifar\", or pass --model".into());
    };
    let defaults = TrainConfig::defaults(model).map_err(|error| error.to_string())?;
    let mut table = toml::Table::try_from(&defaults).map_err(|error| one_line(&error.to_string(), 200))?;
    for (key, value) in given {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(defaults)), toml::Value::Table(given)) => defaults.extend(given),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
    let config: TrainConfig = table.try_into().map_err(|error: toml::de::Error| one_line(error.message(), 200))?;
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::ErrorKind;
    use crate::train::config::{Augment, Schedule};

    #[test]
    fn every_recipe_is_whole_and_is_its_own_configuration() {
        for recipe in RECIPES {
            let config = recipe.config().unwrap_or_else(|error| panic!("{error}"));
            assert!(!config.data.is_empty() && !recipe.about().is_empty() && recipe.about().len() < 100, "{}", recipe.name);
            assert!(recipe.text.contains("\n# Source"), "{} has no source", recipe.name);
            assert_eq!(read(&config.to_toml().unwrap(), None).unwrap(), config, "{}", recipe.name);
            assert_eq!(load(recipe.name, None).unwrap(), config);
        }
        let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/recipes")).unwrap().count();
        assert_eq!(files, RECIPES.len());
    }

    #[test]
    fn defaults_and_their_recipes_agree() {
        for (recipe, model) in [("d2l-nin", "nin"), ("nin-one-1x1", "nin-one-1x1"), ("fashion-small", "nin-small")] {
            let expected = TrainConfig { data: "fashion-mnist".into(), ..TrainConfig::defaults(model).unwrap() };
            assert_eq!(load(recipe, None).unwrap(), expected);
        }
    }

    #[test]
    fn the_papers_recipes_are_those_of_caffe() {
        let plain = load("paper-cifar10", None).unwrap();
        assert_eq!((plain.bias_lr, plain.bias_decay, plain.layers[0].lr, plain.layers[0].bias_lr), (2.0, 0.0, 0.1, Some(0.1)));
        assert_eq!((plain.schedule, plain.augment), (Schedule::Step, Augment::NONE));
        let augmented = TrainConfig { augment: Augment { flip: true, shift: 4, ..Augment::NONE }, ..plain };
        assert_eq!(load("paper-cifar10-aug", None).unwrap(), augmented);
    }

    #[test]
    fn files_may_be_short_and_their_faults_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let load_text = |text: &str, model| {
            fs::write(&path, text).unwrap();
            load(path.to_str().unwrap(), model)
        };
        let short = load_text("model = \"nin-cifar\"\nlr = 1\n[augment]\nflip = false\n", None).unwrap();
        let defaults = TrainConfig::defaults("nin-cifar").unwrap();
        let expected = TrainConfig { lr: 1.0, augment: Augment { flip: false, ..defaults.augment }, ..defaults };
        assert_eq!(short, expected);
        assert_eq!(load_text("epochs = 3", Some("nin-small")).unwrap().epochs, 3);
        // Complete files say what is off.
        let bare = TrainConfig { head_bias: None, ..TrainConfig::defaults("nin-small").unwrap() };
        assert_eq!(load_text(&bare.to_toml().unwrap(), None).unwrap(), bare);
        for (text, words) in [
            ("lr = 1", "names no model"),
            ("model = \"vgg\"", "--model must be one of"),
            ("model = \"nin\"\nlearning_rate = 1", "unknown field `learning_rate`"),
            ("model = \"nin\"\nlr = ", "line 2"),
            ("model = \"nin\"\nlr = -1", "--lr must be above 0"),
            ("model = \"nin\"\nlr = \"fast\"", "invalid type"),
        ] {
            let error = load_text(text, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            let message = error.to_string();
            assert!(message.starts_with("--recipe ") && message.contains(words) && !message.contains('\n'), "{message}");
        }
        let message = load("nowhere.toml", None).unwrap_err().to_string();
        assert!(message.contains("no file, and none of: d2l-nin, "), "{message}");
    }
}
