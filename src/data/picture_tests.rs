use super::*;
use image::{ColorType, ExtendedColorType, ImageEncoder, Luma, RgbImage};
use std::fs;

/// 48 x 40 pixels that no codec makes small.
fn noisy() -> DynamicImage {
    RgbImage::from_fn(48, 40, |x, y| {
        let n = x * 7919 + y * 104_729 + x * y * 31;
        image::Rgb([n as u8, (n >> 3) as u8, (n >> 7) as u8])
    })
    .into()
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    // The `image` crate reads icons with alpha only.
    let icon = DynamicImage::from(image.to_rgba8());
    let image = if format == ImageFormat::Ico { &icon } else { image };
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn problem(bytes: &[u8]) -> String {
    let message = decode("x.png", bytes).expect_err("refused").to_string();
    assert!(message.starts_with("x.png: "), "{message}");
    assert!(!message.contains('\n') && message.len() < 300, "{message}");
    message
}

const FORMATS: [ImageFormat; 8] = [
    ImageFormat::Png,
    ImageFormat::Jpeg,
    ImageFormat::Gif,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
    ImageFormat::Pnm,
    ImageFormat::Ico,
];

#[test]
fn every_format_is_told_by_its_content() {
    for format in FORMATS {
        let picture = decode("misnamed.txt", &encode(&noisy(), format)).unwrap();
        assert_eq!((picture.width, picture.height, picture.channels), (48, 40, 3), "{format:?}");
        assert_eq!(picture.pixels.len(), 48 * 40 * 3);
    }
}

#[test]
fn a_picture_cut_anywhere_is_an_error_and_no_panic() {
    for format in FORMATS {
        let bytes = encode(&noisy(), format);
        for length in (1..bytes.len() - 64).step_by(bytes.len() / 40 + 1) {
            problem(&bytes[..length]);
        }
    }
}

#[test]
fn altered_bytes_never_panic() {
    for format in FORMATS {
        let bytes = encode(&noisy(), format);
        for n in 0..60 {
            let mut altered = bytes.clone();
            let place = n * 7919 % bytes.len().min(400);
            altered[place] ^= 0x55;
            if let Err(error) = decode("x.png", &altered) {
                assert!(!error.to_string().contains('\n'));
            }
        }
    }
}

#[test]
fn what_is_no_picture_is_said() {
    assert!(problem(b"").contains("is empty (0 bytes)"));
    assert!(problem(b"Dear reader, this is a letter.\n").contains("looks like text"));
    assert!(problem(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).contains("its content is unknown"));
    assert!(problem(b"%PDF-1.7 ...").contains("it is PDF"));
    assert!(problem(b"\0\0\0\x18ftypheic\0\0\0\0").contains("it is HEIC"));
    assert!(problem(b"\0\0\0\x18ftypavif\0\0\0\0").contains("it is AVIF"));
}

#[test]
fn missing_files_and_folders_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let error = open(&folder.path().join("none.png")).unwrap_err().to_string();
    assert!(error.contains("none.png: no such file"), "{error}");
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
    let path = folder.path().join("picture");
    fs::write(&path, encode(&noisy(), ImageFormat::Png)).unwrap();
    assert_eq!(open(&path).unwrap().width, 48);
    let huge = folder.path().join("huge.png");
    fs::File::create(&huge).unwrap().set_len(MAX_BYTES + 1).unwrap();
    assert!(open(&huge).unwrap_err().to_string().contains("larger than 640 MiB"));
}

/// A PNG's header for a picture of this size, and no more than a little data.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [&kind[..], data].concat();
        let mut checksum = flate2::Crc::new();
        checksum.update(&body);
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], &body, &checksum.sum().to_be_bytes()].concat()
    };
    let sizes = [width.to_be_bytes(), height.to_be_bytes()].concat();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &[&sizes[..], &[8, 2, 0, 0, 0]].concat()),
        chunk(b"IDAT", &[0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]),
        chunk(b"IEND", &[]),
    ]
    .concat()
}

/// The size in a picture's header replaced, in the given places and byte orders.
fn resized(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encode(&noisy(), format);
    match format {
        ImageFormat::Bmp => {
            bytes[18..22].copy_from_slice(&width.to_le_bytes());
            bytes[22..26].copy_from_slice(&height.to_le_bytes());
        }
        ImageFormat::Gif => {
            bytes[6..8].copy_from_slice(&(width as u16).to_le_bytes());
            bytes[8..10].copy_from_slice(&(height as u16).to_le_bytes());
        }
        ImageFormat::Jpeg => {
            let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
            bytes[frame + 5..frame + 7].copy_from_slice(&(height as u16).to_be_bytes());
            bytes[frame + 7..frame + 9].copy_from_slice(&(width as u16).to_be_bytes());
        }
        _ => unreachable!("no header known to this test"),
    }
    bytes
}

#[test]
fn huge_headers_are_refused_before_decoding() {
    let started = std::time::Instant::now();
    for bytes in [
        png_header(30_000, 30_000),
        png_header(100_000, 100_000),
        png_header(100_000, 1),
        resized(ImageFormat::Bmp, 30_000, 30_000),
        resized(ImageFormat::Gif, 30_000, 30_000),
        resized(ImageFormat::Jpeg, 30_000, 30_000),
        b"P6 30000 30000 255\n".to_vec(),
    ] {
        assert!(problem(&bytes).contains("too large"), "{}", problem(&bytes));
    }
    assert!(started.elapsed().as_secs() < 2);
    // 120 megapixels of 16-bit RGB: 720 MB.
    assert!(problem(b"P6 12000 10000 65535\n").contains("12000 x 10000 pixels is too large"));
    assert!(problem(&png_header(0, 5)).contains("x.png"));
}

#[test]
fn alpha_is_laid_on_white() {
    let pixels = [255, 0, 0, 255, 0, 0, 0, 0, 0, 0, 200, 128];
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(&pixels, 3, 1, ColorType::Rgba8.into()).unwrap();
    let picture = decode("x", &bytes).unwrap();
    assert_eq!(picture.pixels, [255, 0, 0, 255, 255, 255, 127, 127, 227]);
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes).write_image(&[10, 255, 10, 0], 2, 1, ColorType::La8.into()).unwrap();
    let picture = decode("x", &bytes).unwrap();
    assert_eq!((picture.channels, &picture.pixels[..]), (1, &[10, 255][..]));
}

#[test]
fn sixteen_bits_become_eight() {
    let image = image::ImageBuffer::<Luma<u16>, _>::from_raw(3, 1, vec![0u16, 0x8080, 0xffff]);
    let picture = decode("x", &encode(&image.unwrap().into(), ImageFormat::Png)).unwrap();
    assert_eq!((picture.channels, &picture.pixels[..]), (1, &[0, 0x80, 0xff][..]));
    let mut bytes = Vec::new();
    let samples: Vec<u8> = [1.0f32, 0.5, 0.0].iter().flat_map(|value| value.to_ne_bytes()).collect();
    image::codecs::tiff::TiffEncoder::new(Cursor::new(&mut bytes)).write_image(&samples, 1, 1, ExtendedColorType::Rgb32F).unwrap();
    assert_eq!(decode("x", &bytes).unwrap().pixels, [255, 128, 0]);
}

#[test]
fn luma_is_that_of_bt_601() {
    let picture = Picture { width: 2, height: 2, channels: 3, pixels: vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 77, 77, 77] };
    let grey = picture.with_channels(1).unwrap();
    assert_eq!(grey.pixels, [76, 150, 29, 77]);
    assert_eq!(grey.with_channels(3).unwrap().pixels[9..], [77; 3]);
    assert!(picture.with_channels(4).is_err());
}

fn colour_at(picture: &Picture, x: usize, y: usize) -> [u8; 3] {
    let start = (y * picture.width as usize + x) * 3;
    picture.pixels[start..start + 3].try_into().unwrap()
}

fn is_near(found: [u8; 3], wanted: [u8; 3]) -> bool {
    found.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 12)
}

#[test]
fn cmyk_becomes_rgb() {
    let picture = decode("x", include_bytes!("../../tests/pictures/cmyk.jpg")).unwrap();
    assert_eq!((picture.width, picture.height, picture.channels), (16, 16, 3));
    let (left, right) = (colour_at(&picture, 2, 8), colour_at(&picture, 13, 8));
    assert!(is_near(left, [200, 40, 30]), "{left:?}");
    assert!(is_near(right, [255; 3]), "{right:?}");
}

#[test]
fn orientation_is_applied() {
    let picture = decode("x", include_bytes!("../../tests/pictures/orientation6.jpg")).unwrap();
    assert_eq!((picture.width, picture.height, picture.channels), (16, 8, 1));
    assert!(picture.pixels[2] < 40 && picture.pixels[13] > 220);
    let last = &picture.pixels[7 * 16..];
    assert!(last[2] < 40 && last[13] > 220);
}

#[test]
fn the_first_picture_of_an_animation_counts() {
    for bytes in [
        &include_bytes!("../../tests/pictures/animated.gif")[..],
        include_bytes!("../../tests/pictures/animated.webp"),
        include_bytes!("../../tests/pictures/animated.png"),
    ] {
        let picture = decode("x", bytes).unwrap();
        assert_eq!((picture.width, picture.height), (8, 8));
        assert!(is_near(colour_at(&picture, 4, 4), [250, 0, 0]));
    }
}
