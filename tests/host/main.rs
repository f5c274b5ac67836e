//! Tests that need no device.

mod architecture;
mod dumps;
mod expand;
mod shaders;
mod summary;
