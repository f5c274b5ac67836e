//! Training and using networks from Rust: what the program does, without its command line.
//!
//! - [`Dataset`]: a named set, a folder of pictures, or images of your own;
//! - [`Trainer`]: trains a network on one, and goes on with a run;
//! - [`Model`]: a trained network, which names pictures and measures itself.
//!
//! All of them work on a [`crate::gpu::Gpu`]; `examples/` has two programs.
//!
//! ```no_run
//! use nin_wgpu::gpu::{Gpu, OpenOptions};
//! use nin_wgpu::{Dataset, Model, Trainer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut gpu = Gpu::open(&OpenOptions::default())?;
//! let outcome = Trainer::new("nin-small", "my-pictures")?.with(|config| config.epochs = 20).train(&mut gpu, &mut ())?;
//! let model = Model::load(outcome.out.join("best.safetensors"))?;
//! let answers = model.classifier(&gpu)?.classify_files(&["new.jpg"])?;
//! println!("{} with {:.0} %", answers[0].class, answers[0].probability * 100.0);
//! # Ok(())
//! # }
//! ```

mod model;
mod trainer;

pub use crate::data::Dataset;
pub use model::{Answer, Classifier, Model};
pub use trainer::Trainer;
