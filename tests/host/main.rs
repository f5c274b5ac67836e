//! Tests that need no device.

mod architecture;
mod documents;
mod dumps;
mod expand;
mod fetch;
#[path = "../loopback.rs"]
mod loopback;
mod memory;
mod memory_model;
mod schedules;
mod shaders;
mod summary;
mod variables;
