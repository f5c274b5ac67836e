//! Pictures of what a network sees, to be looked at: `NIN_WGPU_SHEETS=FOLDER NIN_WGPU_DATA=... cargo test --release --test gpu
//! sheets`. Each sheet has an image a row: as it is stored, then in several epochs, by the kernels of the device.

use crate::{Device, trial};
use libtest_mimic::Trial;
use nin_wgpu::data::{OpenOptions, open};
use nin_wgpu::gpu::Gpu;
use nin_wgpu::gpu::verify::run_outputs;
use nin_wgpu::graph::{Case, Op, Tolerance};
use nin_wgpu::kernels::Step;
use nin_wgpu::ops::{Augment, AugmentVector, CONTRAST_SCALE, ContrastNormalise, ImageInput, Whiten};
use nin_wgpu::shape::Fact;
use nin_wgpu::train::whitening::measure;
use nin_wgpu::weights::Whitening;
use std::path::PathBuf;
use std::sync::Arc;

const ROWS: usize = 8;
const EPOCHS: u32 = 9;
const ZOOM: usize = 2;

pub fn trials(device: Option<&Device>) -> Vec<Trial> {
    let folder = std::env::var_os("NIN_WGPU_SHEETS").map(PathBuf::from);
    let is_off = folder.is_none();
    let test = trial(device, "sheets::what networks see", move |gpu| folder.map_or(Ok(()), |folder| draw(gpu, folder)));
    vec![if is_off { test.with_ignored_flag(true) } else { test }]
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn draw(gpu: &Gpu, folder: PathBuf) -> Result<(), String> {
    let flip_shift = Augment { flip: true, shift: 4, ..Augment::NONE };
    let changes = [
        ("flip", Augment { flip: true, ..Augment::NONE }),
        ("shift4", Augment { shift: 4, ..Augment::NONE }),
        ("cutout8", Augment { cutout: 8, ..Augment::NONE }),
        ("brightness0.3", Augment { brightness: 0.3, ..Augment::NONE }),
        ("contrast0.6", Augment { contrast: 0.6, ..Augment::NONE }),
        ("all", Augment { cutout: 8, brightness: 0.2, contrast: 0.3, ..flip_shift }),
    ];
    for name in ["cifar10", "fashion-mnist"] {
        let data = open(name, &OpenOptions { limit_test: Some(0), ..Default::default() }).map_err(text)?;
        let shape = data.shape();
        let images = (0..ROWS).map(|index| {
            let mut pixels = vec![0; shape.iter().product()];
            data.train.read(index, &mut pixels).map_err(text)?;
            Ok(pixels)
        });
        let images: Vec<Vec<u8>> = images.collect::<Result<_, String>>()?;
        for (what, augment) in &changes {
            sheet(gpu, &folder.join(format!("{name}-{what}.png")), shape, &images, *augment, None)?;
        }
        if name == "cifar10" {
            let started = std::time::Instant::now();
            let whitening = measure(data.train.as_ref(), [shape[1], shape[2]]).map_err(text)?;
            eprintln!("whitening of {} images: {:.1} s", data.train.len(), started.elapsed().as_secs_f64());
            for (what, augment) in [("whitened", Augment::NONE), ("whitened-changed", Augment { cutout: 8, ..flip_shift })] {
                sheet(gpu, &folder.join(format!("{name}-{what}.png")), shape, &images, augment, Some(&whitening))?;
            }
        }
    }
    Ok(())
}

/// One sheet: the stored image, then what the kernels make of it in each epoch. Whitened values are shown around middle grey.
fn sheet(
    gpu: &Gpu,
    path: &std::path::Path,
    [channels, height, width]: [usize; 3],
    images: &[Vec<u8>],
    augment: Augment,
    whitening: Option<&Whitening>,
) -> Result<(), String> {
    let (rows, size) = (images.len(), [height, width]);
    let pixels = Fact::pixels(rows, channels, height, width);
    let mut stored = Vec::new();
    for image in images {
        for channel in 0..channels {
            stored.extend(image.iter().skip(channel).step_by(channels).map(|byte| f32::from_bits(u32::from(*byte))));
        }
    }
    let ids = (Fact::index(&[rows]), (0..rows as u32).map(f32::from_bits).collect::<Vec<_>>());
    let columns = EPOCHS as usize + 1;
    let (cell_w, cell_h) = (width * ZOOM + 2, height * ZOOM + 2);
    let mut png = image::RgbImage::from_pixel((columns * cell_w) as u32, (rows * cell_h) as u32, image::Rgb([255; 3]));
    for column in 0..columns {
        let step = Step {
            epoch: column.saturating_sub(1) as u32,
            seed_lo: 1,
            images: rows as u32,
            total_images: rows as u32,
            ..Default::default()
        };
        let run = |op: Arc<dyn Op>, inputs: Vec<(Fact, Vec<f32>)>| {
            let case = Case { name: "sheet".into(), op, inputs, step, tolerance: vec![Tolerance::Exact] };
            run_outputs(gpu, gpu.target(), &case).map(|mut outputs| outputs.swap_remove(0)).map_err(text)
        };
        let own = (column > 0 && whitening.is_none()).then_some(augment);
        let input = ImageInput { micro_batch: rows, size, mean: [0.0; 4], inverse_std: [1.0; 4], augment: own, gather: false };
        let mut seen = run(Arc::new(input), vec![(pixels.clone(), stored.clone()), ids.clone()])?;
        if let (Some(whitening), true) = (whitening, column > 0) {
            seen = whitened(&run, seen, [rows, channels, height, width], whitening, augment, &ids)?;
        }
        for row in 0..rows {
            for place in 0..height * width * ZOOM * ZOOM {
                let (y, x) = (place / (width * ZOOM), place % (width * ZOOM));
                let value = |channel: usize| {
                    let value = seen[((row * channels + channel) * height + y / ZOOM) * width + x / ZOOM];
                    (value * 255.0).round().clamp(0.0, 255.0) as u8
                };
                let colour = std::array::from_fn(|channel| value(channel.min(channels - 1)));
                png.put_pixel((column * cell_w + x) as u32, (row * cell_h + y) as u32, image::Rgb(colour));
            }
        }
    }
    png.save(path).map_err(text)
}

type Run<'a> = &'a dyn Fn(Arc<dyn Op>, Vec<(Fact, Vec<f32>)>) -> Result<Vec<f32>, String>;

fn whitened(
    run: Run<'_>,
    seen: Vec<f32>,
    [rows, channels, height, width]: [usize; 4],
    whitening: &Whitening,
    augment: Augment,
    ids: &(Fact, Vec<f32>),
) -> Result<Vec<f32>, String> {
    let values = channels * height * width;
    let (vectors, matrix_fact) = (Fact::activation(rows, values, 1, 1), Fact::filter(values, values, 1, 1));
    let normalised =
        run(Arc::new(ContrastNormalise { scale: CONTRAST_SCALE as f32 }), vec![(Fact::activation(rows, channels, height, width), seen)])?;
    // From PyTorch's order to that of memory.
    let place = |at: usize| at % (height * width) * channels + at / (height * width);
    let (mut matrix, mut offset) = (vec![0.0; values * values], vec![0.0; values]);
    for (output, row) in whitening.matrix.chunks_exact(values).enumerate() {
        for (input, factor) in row.iter().enumerate() {
            matrix[place(output) * values + place(input)] = *factor;
        }
        offset[place(output)] =
            -row.iter().zip(&whitening.mean).map(|(factor, mean)| f64::from(*factor) * f64::from(*mean)).sum::<f64>() as f32;
    }
    let product = run(Arc::new(Whiten), vec![(vectors.clone(), normalised), (matrix_fact, matrix), (Fact::vector(values), offset)])?;
    let op = AugmentVector { channels, size: [height, width], augment };
    let changed = run(Arc::new(op), vec![(vectors, product), ids.clone()])?;
    Ok(changed.into_iter().map(|value| 0.5 + 0.16 * value).collect())
}
