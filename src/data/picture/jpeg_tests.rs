use super::*;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, RgbImage};

/// A picture without structure, as JPEG.
fn sample(width: u32, height: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let n = (x * 7919 + y * 104_729 + x * y * 31).wrapping_mul(2_654_435_761);
        image::Rgb([(n >> 24) as u8, (n >> 16) as u8, (n >> 8) as u8])
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 85).encode(&picture, width, height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn data_begin(bytes: &[u8]) -> usize {
    bytes.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 14
}

#[test]
fn whole_with_and_without_an_end() {
    for (width, height) in [(1, 1), (8, 8), (97, 61)] {
        let bytes = sample(width, height);
        assert_eq!(scans(&bytes), Scans::Whole);
        let end = bytes.len() - 2;
        assert_eq!(bytes[end..], [0xff, 0xd9]);
        assert_eq!(scans(&bytes[..end]), Scans::Whole);
        assert_eq!(scans(&[&bytes[..end], &[0; 100][..]].concat()), Scans::Whole, "a trailer");
    }
}

#[test]
fn cut_anywhere_it_is_short_whatever_comes_behind() {
    let bytes = sample(97, 61);
    let begin = data_begin(&bytes);
    for length in (4..bytes.len() - 8).step_by(37) {
        let cut = &bytes[..length];
        for behind in [&[][..], &[0xff, 0xd9], &bytes] {
            // A second file behind a head is read as if the head were its own.
            if length < begin && behind.len() > 2 {
                continue;
            }
            let scans = scans(&[cut, behind].concat());
            assert_ne!(scans, Scans::Whole, "{length} of {}", bytes.len());
        }
    }
}

#[test]
fn overwritten_with_markers_it_is_short() {
    let bytes = sample(97, 61);
    let begin = data_begin(&bytes);
    for at in [begin + 10, (begin + bytes.len()) / 2] {
        let mut damaged = bytes.clone();
        damaged[at..at + 100].fill(0xff);
        assert_eq!(scans(&damaged), Scans::Short);
        damaged[at + 1] = 0xd0;
        assert_eq!(scans(&damaged), Scans::Short);
    }
}

#[test]
fn nonsense_is_not_whole_and_no_panic() {
    let bytes = sample(40, 40);
    for n in 0..20_000usize {
        let mut damaged = bytes.clone();
        let at = 2 + n * 7919 % (bytes.len() - 2);
        damaged[at] = damaged[at].wrapping_add((n / 3) as u8 | 1);
        scans(&damaged);
    }
    assert_eq!(scans(b"\xff\xd8\xff\xd9"), Scans::Short);
}

#[test]
fn progressive_scans_are_followed() {
    let bytes = include_bytes!("../../../tests/pictures/progressive.jpg");
    assert_eq!(scans(bytes), Scans::Whole);
    assert_eq!(scans(&bytes[..bytes.len() - 2]), Scans::Whole);
    let begin = data_begin(bytes);
    let (mut whole, mut short) = (0, 0);
    for length in begin..bytes.len() - 2 {
        // Without an end every last bit is wanted; with one, whole scans are enough.
        assert_ne!(scans(&bytes[..length - 1]), Scans::Whole, "{length}");
        match scans(&[&bytes[..length], &[0xff, 0xd9]].concat()) {
            Scans::Whole => whole += 1,
            _ => short += 1,
        }
    }
    assert!(short > 4 * whole, "{short} short, {whole} whole");
}
