//! Choices between kernels that were measured on a device: plain data that lowering consults before its own rules.

use crate::shape::Element;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A convolution as its kernels see it: what a choice holds for.
///
/// As text, in files and reports: `conv2d_relu 8x96x54x54 to 256, kernel 5x5, stride 1x1, padding 2x2`, with `, f16`
/// behind it in mixed precision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Problem {
    /// Name of the operation, with what is fused into it (`conv2d_relu`).
    pub op: String,
    /// Images.
    pub batch: usize,
    /// Channels in memory, height and width of the layer's x.
    pub input: [usize; 3],
    /// Channels in memory of the layer's y.
    pub outputs: usize,
    /// Height and width of the filter.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Rows and columns of zeros around x.
    pub padding: [usize; 2],
    /// How activations and filters are stored.
    pub element: Element,
}

/// One way to compute a problem.
///
/// As text: `gemm_64x64, splits 4, pixels first`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Choice {
    /// The family of kernels, as its shader is called behind `conv2d_`.
    pub variant: String,
    /// Parts into which the reduction is split; their sums are added by a second kernel.
    pub splits: u32,
    /// Tiles of one row of pixels, all channels, follow each other; else those of one column of channels, all pixels.
    pub channels_innermost: bool,
}

/// The choices for one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Choices(pub BTreeMap<Problem, Choice>);

impl Choices {
    /// The choice for a problem, where there is one.
    pub fn get(&self, problem: &Problem) -> Option<&Choice> {
        self.0.get(problem)
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those for some problems.
    pub fn only(&self, problems: &[Problem]) -> Choices {
        Choices(problems.iter().filter_map(|problem| Some((problem.clone(), self.get(problem)?.clone()))).collect())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { op, batch, input: [c, h, w], outputs, kernel: [kh, kw], stride: [sh, sw], padding: [ph, pw], element } = self;
        write!(f, "{op} {batch}x{c}x{h}x{w} to {outputs}, kernel {kh}x{kw}, stride {sh}x{sw}, padding {ph}x{pw}")?;
        if *element == Element::F16 { write!(f, ", {}", element.name()) } else { Ok(()) }
    }
}

impl FromStr for Problem {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (text, element) = match text.strip_suffix(", f16") {
                Some(text) => (text, Element::F16),
                None => (text, Element::F32),
            };
            let words: Vec<&str> = text.split([' ', ',']).filter(|word| !word.is_empty()).collect();
            let [op, input, "to", outputs, "kernel", kernel, "stride", stride, "padding", padding] = words[..] else { return None };
            let [batch, c, h, w] = numbers(input)?;
            let [outputs] = numbers(outputs)?;
            let (kernel, stride, padding) = (numbers(kernel)?, numbers(stride)?, numbers(padding)?);
            Some(Problem { op: op.to_string(), batch, input: [c, h, w], outputs, kernel, stride, padding, element })
        };
        parse().ok_or_else(|| format!("{text:?} names no convolution"))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = if self.channels_innermost { "channels" } else { "pixels" };
        write!(f, "{}, splits {}, {first} first", self.variant, self.splits)
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let parts: Vec<&str> = text.split(", ").collect();
            let [variant, splits, order] = parts[..] else { return None };
            let channels_innermost = match order {
                "channels first" => true,
                "pixels first" => false,
                _ => return None,
            };
            Some(Choice { variant: variant.to_string(), splits: splits.strip_prefix("splits ")?.parse().ok()?, channels_innermost })
        };
        parse().ok_or_else(|| format!("{text:?} names no choice of kernels"))
    }
}

/// `3x4` as numbers, where there are as many as wanted.
fn numbers<const N: usize>(text: &str) -> Option<[usize; N]> {
    let numbers: Option<Vec<usize>> = text.split('x').map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// Text form for files.
macro_rules! as_text {
    ($($name:ident)+) => {$(
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )+};
}

as_text! { Problem Choice }

#[cfg(test)]
mod tests {
    use super::*;

    fn problem() -> Problem {
        Problem {
            op: "conv2d_relu".into(),
            batch: 8,
            input: [96, 54, 53],
            outputs: 256,
            kernel: [5, 3],
            stride: [1, 2],
            padding: [2, 1],
            element: Element::F32,
        }
    }

    #[test]
    fn text_comes_back() {
        let text = problem().to_string();
        assert_eq!(text, "conv2d_relu 8x96x54x53 to 256, kernel 5x3, stride 1x2, padding 2x1");
        assert_eq!(text.parse(), Ok(problem()));
        let half = Problem { element: Element::F16, ..problem() };
        assert_eq!(half.to_string(), format!("{text}, f16"));
        assert_eq!(half.to_string().parse(), Ok(half));
        let choice = Choice { variant: "gemm_64x64".into(), splits: 4, channels_innermost: false };
        assert_eq!(choice.to_string(), "gemm_64x64, splits 4, pixels first");
        assert_eq!(choice.to_string().parse(), Ok(choice.clone()));
        let choices = Choices([(problem(), choice)].into());
        let json = serde_json::to_string(&choices).unwrap();
        assert_eq!(serde_json::from_str::<Choices>(&json).unwrap(), choices);
        let toml = toml::to_string(&choices).unwrap();
        assert_eq!(toml::from_str::<Choices>(&toml).unwrap(), choices);
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "conv2d", "conv2d 8x96x54 to 256, kernel 5x5, stride 1x1, padding 2x2"] {
            assert!(text.parse::<Problem>().is_err(), "{text}");
        }
        for text in ["", "lanes", "lanes, splits -1, pixels first", "lanes, splits 1, rows first"] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
    }
}
