use nin_wgpu::data::InMemory;
fn main() {
    let n: usize = std::env::args().nth(1).unwrap().parse().unwrap();
    let count: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    // Smooth pictures plus noise.
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let mut pixels = Vec::new();
    for _ in 0..count {
        let waves: Vec<[f64; 4]> =
            (0..12).map(|k| [(k as f64 / 3.0) * random(), (k as f64 / 3.0) * random(), 6.3 * random(), 60.0 / (1.0 + k as f64)]).collect();
        for y in 0..n {
            for x in 0..n {
                for c in 0..3 {
                    let v: f64 = waves
                        .iter()
                        .map(|w| w[3] * (6.3 * (w[0] * x as f64 + w[1] * y as f64) / n as f64 + w[2] + 0.2 * c as f64).sin())
                        .sum();
                    pixels.push((128.0 + v + 6.0 * (random() - 0.5)).clamp(0.0, 255.0) as u8);
                }
            }
        }
    }
    let source = InMemory::new([3, n, n], 2, pixels, vec![0; count]).unwrap();
    let t = std::time::Instant::now();
    let w = nin_wgpu::train::whitening::measure(&source, [n, n]).unwrap();
    println!("{:.2} s", t.elapsed().as_secs_f64());
    let bytes: Vec<u8> = w.matrix.iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(std::env::args().nth(3).unwrap(), bytes).unwrap();
}
