//! The variables of the environment that this program reads: one table of their names, values and effects.
//!
//! [`check`] refuses values that mean nothing before anything has used them, and [`unknown`] finds misspelt names. A variable
//! that is set to nothing counts as not set.

use std::env;

/// A variable of the environment.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it may be set to.
    pub values: Values,
    /// What it does, in a line.
    pub effect: &'static str,
}

/// The values of a variable.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// 1 for on, 0 for off.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words with commas between them, in any case.
    SomeOf(&'static [&'static str]),
    /// A number from 0 on, counting this.
    Number(&'static str),
    /// A whole number from 0 on, counting this.
    Whole(&'static str),
    /// Whole numbers from 0 on with commas between them, counting this.
    Wholes(&'static str),
    /// Any text, such as a path; this says what it stands for.
    Text(&'static str),
}

/// A variable with a value that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value} is not {wanted}; correct it or unset it")]
pub struct Invalid {
    /// The variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// What it takes.
    pub wanted: String,
}

macro_rules! variables {
    ($($constant:ident $name:literal $values:expr, $effect:literal;)+) => {
        $(#[doc = concat!("`", $name, "`: ", $effect)]
        pub static $constant: Variable = Variable { name: $name, values: $values, effect: $effect };)+
        /// Every variable, in the order of the documents.
        pub static ALL: &[&Variable] = &[$(&$constant,)+];
    };
}

variables! {
    DEVICE "NIN_WGPU_DEVICE" Values::Text("an index, part of an adapter's name, or a backend"), "as --device";
    MEMORY_BUDGET "NIN_WGPU_MEMORY_BUDGET" Values::Text("a size such as 512M"), "as --memory-budget";
    DATA "NIN_WGPU_DATA" Values::Text("a folder"), "named data sets are looked for here, and downloaded to it";
    MIRROR "NIN_WGPU_MIRROR" Values::Text("an address"), "as data fetch --mirror";
    PICTURE_CACHE "NIN_WGPU_PICTURE_CACHE" Values::Whole("MiB"), "decoded pictures of folders that are kept in memory";
    CACHE_DIR "NIN_WGPU_CACHE_DIR" Values::Text("a folder"), "compiled kernels and what tuning finds are kept here";
    NO_CACHE "NIN_WGPU_NO_CACHE" Values::Switch, "compiled kernels are neither read nor kept";
    NO_FUSION "NIN_WGPU_NO_FUSION" Values::Switch, "every ReLU, pool and loss stays a kernel of its own";
    NO_PLANNER "NIN_WGPU_NO_PLANNER" Values::Switch, "every temporary has memory of its own";
    NO_RESIDENT_DATA "NIN_WGPU_NO_RESIDENT_DATA" Values::Switch, "every step uploads its images";
    SUBMIT_MS "NIN_WGPU_SUBMIT_MS" Values::Number("milliseconds"), "cuts submissions after this time; 0 never cuts";
    KERNELS "NIN_WGPU_KERNELS" Values::OneOf(&["cpu", "integrated", "discrete"]), "takes that class's kernels";
    MATRIX_UNITS "NIN_WGPU_MATRIX_UNITS" Values::OneOf(&["off", "emulated", "small-subgroups"]), "leaves matrix units alone, runs their kernels in ordinary arithmetic, or takes small ones, too";
    HALF_FAULT "NIN_WGPU_HALF_FAULT" Values::OneOf(&["matrix_units", "storage", "matrix_units_crash", "matrix_units_hang"]), "pretends that the proof of mixed precision failed";
    ROBUST_ACCESS "NIN_WGPU_ROBUST_ACCESS" Values::OneOf(&["on", "off"]), "opens a Vulkan device with or without robust buffer access";
    SPIRV "NIN_WGPU_SPIRV" Values::OneOf(&["own", "wgpu"]), "who writes SPIR-V";
    DEFAULT_LIMITS "NIN_WGPU_DEFAULT_LIMITS" Values::Switch, "asks for no more than WebGPU's default limits, and no features";
    SHADER_CHECKS "NIN_WGPU_SHADER_CHECKS" Values::Switch, "keeps wgpu's bounds checks in the shaders";
    LOSE_DEVICE_AT "NIN_WGPU_LOSE_DEVICE_AT" Values::Wholes("updates"), "train gives up its device before these updates";
    TUNE_FAULTS "NIN_WGPU_TUNE_FAULTS" Values::Switch, "plants faulty candidates where kernels are measured";
    BACKEND "WGPU_BACKEND" Values::SomeOf(&["vulkan", "vk", "metal", "mtl", "dx12", "d3d12", "gl", "gles", "opengl"]), "only adapters of these backends";
    ADAPTER_NAME "WGPU_ADAPTER_NAME" Values::Text("part of an adapter's name"), "the adapter, where --device names none";
}

/// What the project's own tests and scripts read, and the program does not.
const OF_TESTS: [&str; 7] = [
    "NIN_WGPU_KILLS",
    "NIN_WGPU_PYTHON",
    "NIN_WGPU_SHEETS",
    "NIN_WGPU_SPIRV_VAL",
    "NIN_WGPU_TEST_PROGRAM",
    "NIN_WGPU_TESTS",
    "NIN_WGPU_UNUSED",
];

/// How names of this program's own variables begin.
const PREFIX: &str = "NIN_WGPU_";

impl Variable {
    /// Its value, where it is set to anything.
    pub fn value(&self) -> Option<String> {
        env::var_os(self.name).filter(|value| !value.is_empty()).map(|value| value.to_string_lossy().into_owned())
    }

    /// Whether a switch is on.
    pub fn is_on(&self) -> bool {
        self.value().as_deref() == Some("1")
    }

    /// The value, where it is one that the variable takes.
    pub fn checked(&self) -> Result<Option<String>, Invalid> {
        let Some(value) = self.value() else { return Ok(None) };
        if self.values.take(&value) { Ok(Some(value)) } else { Err(Invalid { name: self.name, value, wanted: self.values.to_string() }) }
    }
}

impl Values {
    fn take(self, value: &str) -> bool {
        let mut parts = value.split(',').map(str::trim);
        match self {
            Self::Switch => matches!(value, "0" | "1"),
            Self::OneOf(words) => words.contains(&value),
            Self::SomeOf(words) => parts.all(|part| words.contains(&part.to_lowercase().as_str())),
            Self::Number(_) => value.parse::<f64>().is_ok_and(|number| number.is_finite() && number >= 0.0),
            Self::Whole(_) => value.trim().parse::<u64>().is_ok(),
            Self::Wholes(_) => parts.all(|part| part.parse::<u64>().is_ok()),
            Self::Text(_) => true,
        }
    }
}

/// The values in words, for messages.
impl std::fmt::Display for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Switch => write!(f, "1 (on) or 0 (off)"),
            Self::OneOf(words) => write!(f, "one of: {}", words.join(", ")),
            Self::SomeOf(words) => write!(f, "a list of: {}", words.join(", ")),
            Self::Number(unit) => write!(f, "a number of {unit}, 0 or more"),
            Self::Whole(unit) => write!(f, "a whole number of {unit}, 0 or more"),
            Self::Wholes(what) => write!(f, "a list of {what}, counted from 0, such as 7 or 7,30"),
            Self::Text(what) => write!(f, "{what}"),
        }
    }
}

/// Refuses the first variable whose value means nothing.
pub fn check() -> Result<(), Invalid> {
    ALL.iter().try_for_each(|variable| variable.checked().map(drop))
}

/// Variables that begin as this program's own do, but are none, each with the known name that is nearest to it.
pub fn unknown() -> Vec<(String, &'static str)> {
    unknown_of(env::vars_os().filter_map(|(name, _)| name.to_str().map(str::to_string)))
}

fn unknown_of(names: impl Iterator<Item = String>) -> Vec<(String, &'static str)> {
    let own = || ALL.iter().map(|variable| variable.name).filter(|name| name.starts_with(PREFIX));
    let misspelt = names.filter(|name| name.starts_with(PREFIX) && !is_known(name));
    let mut found: Vec<_> = misspelt.filter_map(|name| own().min_by_key(|known| edits(&name, known)).map(|known| (name, known))).collect();
    found.sort();
    found
}

/// Whether a variable of this name is one of the program's, or of its tests.
pub fn is_known(name: &str) -> bool {
    ALL.iter().any(|variable| variable.name == name) || OF_TESTS.contains(&name)
}

/// Characters to put in, leave out or replace to make `b` of `a` (Levenshtein's distance).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_or_refused() {
        for (variable, good, bad) in [
            (&NO_CACHE, &["0", "1"][..], &["2", "yes", "on", " 1"][..]),
            (&KERNELS, &["cpu", "discrete"], &["gpu", "CPU"]),
            (&BACKEND, &["vulkan", "Vulkan, gl", "VK"], &["nonsense", "vulkan,nonsense", "vulkan,,gl"]),
            (&SUBMIT_MS, &["0", "2.5"], &["-1", "inf", "NaN", "fast"]),
            (&PICTURE_CACHE, &["0", "2000"], &["1.5", "-1", "1G"]),
            (&LOSE_DEVICE_AT, &["7", "7, 30"], &["7;30", "-7", ","]),
            (&DATA, &["anything"], &[]),
        ] {
            for value in good {
                assert!(variable.values.take(value), "{}={value}", variable.name);
            }
            for value in bad {
                assert!(!variable.values.take(value), "{}={value}", variable.name);
            }
        }
        let error = Invalid { name: KERNELS.name, value: "gpu".into(), wanted: KERNELS.values.to_string() };
        assert_eq!(error.to_string(), "NIN_WGPU_KERNELS=gpu is not one of: cpu, integrated, discrete; correct it or unset it");
    }

    #[test]
    fn names_are_distinct_and_misspelt_ones_are_told() {
        for (index, variable) in ALL.iter().enumerate() {
            assert!(ALL[..index].iter().all(|other| other.name != variable.name), "{} stands there twice", variable.name);
        }
        let names = ["NIN_WGPU_NO_CASH", "NIN_WGPU_NO_CACHE", "HOME", "NIN_WGPU_PYTHON", "NIN_WGPU_BACKEND"].map(String::from);
        let found = unknown_of(names.into_iter());
        assert_eq!(found[1], ("NIN_WGPU_NO_CASH".to_string(), "NIN_WGPU_NO_CACHE"));
        assert_eq!((found.len(), found[0].0.as_str()), (2, "NIN_WGPU_BACKEND"));
        assert_eq!((edits("kitten", "sitting"), edits("", "abc"), edits("abc", "abc")), (3, 3, 0));
    }
}
