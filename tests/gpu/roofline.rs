//! The kernel that measures matrix units, through its emulation.

use crate::Device;
use crate::kernels::half_trial;
use libtest_mimic::Trial;
use nin_wgpu::gpu::{Gpu, matrix_roofline};
use nin_wgpu::kernels::MatrixUnits;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    vec![half_trial(device, "roofline::products of matrices are as known", products_are_as_known)]
}

/// A figure is given only where every sum is right.
fn products_are_as_known(gpu: &Gpu) -> Result<(), String> {
    let measured = matrix_roofline(gpu, MatrixUnits::Emulated, 2).map_err(|error| error.to_string())?;
    let rate = measured.ok_or("nothing was measured")??;
    if !(rate > 1e6) {
        return Err(format!("{rate} operations per second"));
    }
    match matrix_roofline(gpu, MatrixUnits::None, 2) {
        Ok(None) => Ok(()),
        other => Err(format!("{other:?} without matrix units")),
    }
}
