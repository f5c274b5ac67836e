//! Pictures inside a page: PNG files as `data:` addresses.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::imageops;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

/// Longest side of a picture; larger ones are reduced.
const LONGEST_SIDE: u32 = 160;

/// A picture of `height * width * channels` bytes as a `data:` address: colour for three channels, else the first as grey.
pub fn thumbnail(pixels: &[u8], [channels, height, width]: [usize; 3]) -> String {
    let (across, down) = (width as u32, height as u32);
    let full = RgbImage::from_fn(across, down, |x, y| {
        let at = (y as usize * width + x as usize) * channels;
        let of = |channel| pixels.get(at + channel).copied().unwrap_or(0);
        image::Rgb(if channels == 3 { [of(0), of(1), of(2)] } else { [of(0); 3] })
    });
    let longest = across.max(down);
    if longest <= LONGEST_SIDE {
        return address(&full);
    }
    let side = |length: u32| (u64::from(length) * u64::from(LONGEST_SIDE)).div_ceil(u64::from(longest)) as u32;
    address(&imageops::resize(&full, side(across), side(down), imageops::FilterType::Triangle))
}

/// A filter `[channels, height, width]` as a picture: zero is middle grey, the largest magnitude black or white. Three channels
/// are red, green and blue; of other numbers the mean is shown.
pub fn filter(weights: &[f32], [channels, height, width]: [usize; 3]) -> String {
    let plane = height * width;
    let weight = |channel: usize, at: usize| weights.get(channel * plane + at).copied().unwrap_or(0.0);
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, |largest: f32, v| largest.max(v.abs()));
    let picture = |value: &dyn Fn(usize, usize) -> f32, scale: f32| {
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            let at = y as usize * width + x as usize;
            image::Rgb([0, 1, 2].map(|channel| {
                let share = if scale > 0.0 { value(channel, at) / scale } else { 0.0 };
                (127.5 + 127.5 * share).round() as u8
            }))
        })
    };
    if channels == 3 {
        let scale = largest(&mut (0..3 * plane).map(|i| weight(i / plane, i % plane)));
        return address(&picture(&weight, scale));
    }
    let mean = |at: usize| (0..channels).map(|channel| weight(channel, at)).sum::<f32>() / channels.max(1) as f32;
    let scale = largest(&mut (0..plane).map(mean));
    address(&picture(&|_, at| mean(at), scale))
}

/// A confusion matrix with a pixel for each pair of classes: the brighter, the larger the share of its row. Hits are blue,
/// mistakes orange.
pub fn matrix(confusion: &[Vec<u64>]) -> String {
    const EMPTY: [f64; 3] = [18.0, 22.0, 28.0];
    const HIT: [f64; 3] = [110.0, 180.0, 255.0];
    const MISTAKE: [f64; 3] = [255.0, 166.0, 64.0];
    let side = confusion.len() as u32;
    address(&RgbImage::from_fn(side, side, |x, y| {
        let row = &confusion[y as usize];
        // The root keeps rare mistakes visible.
        let share = (row[x as usize] as f64 / row.iter().sum::<u64>().max(1) as f64).sqrt();
        let bright = if x == y { HIT } else { MISTAKE };
        image::Rgb([0, 1, 2].map(|c| (EMPTY[c] + (bright[c] - EMPTY[c]) * share).round() as u8))
    }))
}

/// The picture as a PNG file in a `data:` address; grey where it has no colour.
fn address(picture: &RgbImage) -> String {
    let (width, height) = picture.dimensions();
    let is_grey = picture.pixels().all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2]);
    let mut file = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut file, CompressionType::Best, FilterType::Adaptive);
    let written = if is_grey {
        let grey: Vec<u8> = picture.pixels().map(|p| p.0[0]).collect();
        encoder.write_image(&grey, width, height, ExtendedColorType::L8)
    } else {
        encoder.write_image(picture.as_raw(), width, height, ExtendedColorType::Rgb8)
    };
    match written {
        Ok(()) => format!("data:image/png;base64,{}", base64(&file)),
        // Only a picture without pixels cannot be written: the page shows its text instead.
        Err(_) => "data:,".to_owned(),
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_padding = digit > chunk.len();
            text.push(if is_padding { '=' } else { char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::GenericImageView;

    fn decoded(address: &str) -> image::DynamicImage {
        let text = address.strip_prefix("data:image/png;base64,").unwrap();
        let digit = |c: u8| "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".bytes().position(|d| d == c).unwrap_or(0);
        let mut bytes = Vec::new();
        for four in text.as_bytes().chunks(4) {
            let bits = four.iter().fold(0, |bits, c| bits << 6 | digit(*c));
            let count = 3 - four.iter().filter(|c| **c == b'=').count();
            bytes.extend((0..count).map(|i| (bits >> (16 - 8 * i)) as u8));
        }
        image::load_from_memory(&bytes).unwrap()
    }

    #[test]
    fn base64_has_the_vectors_of_rfc_4648() {
        let cases = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, text) in cases.into_iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), text);
        }
    }

    #[test]
    fn pictures_keep_their_colours() {
        let grey = decoded(&thumbnail(&[0, 100, 200, 255, 1, 2], [1, 2, 3]));
        assert_eq!((grey.dimensions(), grey.color()), ((3, 2), image::ColorType::L8));
        assert_eq!(grey.to_luma8().into_raw(), [0, 100, 200, 255, 1, 2]);
        let colour = decoded(&thumbnail(&[10, 20, 30, 40, 50, 60], [3, 1, 2]));
        assert_eq!(colour.to_rgb8().into_raw(), [10, 20, 30, 40, 50, 60]);
        // Two channels have no colours: the first is shown.
        assert_eq!(decoded(&thumbnail(&[7, 9], [2, 1, 1])).to_luma8().into_raw(), [7]);
    }

    #[test]
    fn large_pictures_are_reduced_in_proportion() {
        assert_eq!(decoded(&thumbnail(&[128; 640 * 320], [1, 320, 640])).dimensions(), (160, 80));
        assert_eq!(decoded(&thumbnail(&[128; 4000], [1, 1, 4000])).dimensions(), (160, 1));
        assert_eq!(thumbnail(&[], [1, 0, 0]), "data:,");
    }

    #[test]
    fn zero_is_middle_grey_in_filters() {
        let grey = decoded(&filter(&[-2.0, 0.0, 1.0, 2.0], [1, 2, 2])).to_luma8().into_raw();
        assert_eq!(grey, [0, 128, 191, 255]);
        let colour = decoded(&filter(&[1.0, 0.0, -1.0], [3, 1, 1])).to_rgb8().into_raw();
        assert_eq!(colour, [255, 128, 0]);
        assert_eq!(decoded(&filter(&[3.0, -1.0], [2, 1, 1])).to_luma8().into_raw(), [255]);
        assert_eq!(decoded(&filter(&[0.0], [1, 1, 1])).to_luma8().into_raw(), [128]);
    }

    #[test]
    fn the_matrix_tells_hits_from_mistakes() {
        let picture = decoded(&matrix(&[vec![4, 0], vec![4, 0]])).to_rgb8();
        assert_eq!(picture.get_pixel(0, 0).0, [110, 180, 255]);
        assert_eq!(picture.get_pixel(1, 0).0, [18, 22, 28]);
        assert_eq!(picture.get_pixel(0, 1).0, [255, 166, 64]);
    }
}
