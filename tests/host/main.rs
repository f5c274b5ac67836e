//! Tests that need no device.

mod architecture;
mod dumps;
mod expand;
mod memory;
mod schedules;
mod shaders;
mod summary;
