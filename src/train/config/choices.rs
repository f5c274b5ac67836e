//! The settings that are one of a few names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::passes::CompileOptions;
use crate::shape::Element;

/// Declares an enum whose values have one name in flags, files and messages.
macro_rules! named_choice {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$inner])* #[serde(rename = $text)] $value,)+
        }

        impl $name {
            /// Every value, in the order of the help text.
            pub const ALL: &[Self] = &[$(Self::$value),+];

            /// The name in flags and files.
            pub fn name(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|value| value.name() == text);
                found.copied().ok_or_else(|| format!("must be one of: {}", [$($text),+].join(", ")))
            }
        }
    };
}

named_choice! {
    /// The rule that turns gradients into updates.
    Optimizer {
        /// Stochastic gradient descent with momentum, as `torch.optim.SGD`.
        Sgd = "sgd",
        /// As `torch.optim.Adam` with its default betas (0.9, 0.999) and epsilon 1e-8.
        Adam = "adam",
        /// As `torch.optim.AdamW`: Adam with the weight decay apart from the gradient.
        AdamW = "adamw",
    }
}

named_choice! {
    /// How the learning rate moves over the run; formulas in [`super::super::schedule`].
    Schedule {
        /// Stays at `lr`.
        Constant = "constant",
        /// Is multiplied by `step_gamma` every `step_epochs` epochs.
        Step = "step",
        /// Falls from `lr` to 0 along half a cosine.
        Cosine = "cosine",
        /// Rises to `lr` over the warm-up, or three tenths of the run without one, and falls to next to nothing.
        OneCycle = "one-cycle",
        /// Is multiplied by `step_gamma` where the test loss has not fallen for more than `patience` epochs.
        Plateau = "plateau",
    }
}

named_choice! {
    /// What the weights start from; biases are drawn as PyTorch's `Conv2d` does.
    Init {
        /// Uniform Xavier (Glorot), as d2l uses it.
        Xavier = "xavier",
        /// Normal Kaiming (He) for ReLU, by fan-in.
        Kaiming = "kaiming",
        /// Normal with standard deviation 0.05, biases zero, as the Caffe NiN.
        Normal = "normal",
    }
}

named_choice! {
    /// The number format of activations and matrix products.
    Precision {
        /// 32-bit floats throughout.
        F32 = "f32",
        /// Activations and the filters that convolutions read in 16 bits; sums, weights and their gradients in 32.
        Mixed = "mixed",
    }
}

impl Precision {
    /// How to compile for it, with the environment's switches for diagnosis.
    pub fn compile_options(self) -> CompileOptions {
        CompileOptions { half: self == Precision::Mixed, ..CompileOptions::from_env() }
    }
}

named_choice! {
    /// How weight files hold numbers.
    SaveDtype {
        /// 32-bit floats, as the weights are trained.
        F32 = "f32",
        /// Rounded to 16-bit floats: half the size.
        F16 = "f16",
    }
}

impl SaveDtype {
    /// The element type of the file.
    pub fn element(self) -> Element {
        match self {
            SaveDtype::F32 => Element::F32,
            SaveDtype::F16 => Element::F16,
        }
    }
}

named_choice! {
    /// What is done to images before the network sees them, beside the scale of their pixels.
    #[derive(Default)]
    Whiten {
        /// Mean and standard deviation of each channel.
        #[default]
        None = "none",
        /// Contrast normalisation and whitening of all values together; see [`super::super::whitening`].
        Zca = "zca",
    }
}

impl Whiten {
    /// Whether images stay as they are.
    pub fn is_none(&self) -> bool {
        *self == Whiten::None
    }
}
