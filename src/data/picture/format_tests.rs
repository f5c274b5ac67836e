//! Layouts of pictures that cameras, scanners and other programs write, made by hand.

use super::*;
use image::{GrayImage, Rgb, RgbImage, Rgba, RgbaImage};

/// A little-endian TIFF of one strip or of tiles: (tag, type, values), the data's place and size filled in.
fn tiff(width: u16, height: u16, data: &[u8], tags: &[(u16, u16, &[u32])]) -> Vec<u8> {
    let mut bytes = b"II*\0\0\0\0\0".to_vec();
    bytes.extend(data);
    let (begin, length) = ([8], [data.len() as u32]);
    let (width_value, height_value) = ([u32::from(width)], [u32::from(height)]);
    let mut all: Vec<(u16, u16, &[u32])> = vec![(256, 3, &width_value), (257, 3, &height_value)];
    all.extend(tags);
    if !all.iter().any(|(tag, ..)| *tag == 324) {
        all.extend([(273, 4, &begin[..]), (278, 3, &height_value), (279, 4, &length)]);
    }
    if !all.iter().any(|(tag, ..)| *tag == 259) {
        all.push((259, 3, &[1]));
    }
    all.sort_by_key(|(tag, ..)| *tag);
    let pack = |kind: u16, values: &[u32]| -> Vec<u8> {
        let size = if kind == 3 { 2 } else { 4 };
        values.iter().flat_map(|value| value.to_le_bytes()[..size].to_vec()).collect()
    };
    let mut entries = Vec::new();
    for (tag, kind, values) in all {
        let packed = pack(kind, values);
        entries.extend([&tag.to_le_bytes()[..], &kind.to_le_bytes(), &(values.len() as u32).to_le_bytes()].concat());
        if packed.len() <= 4 {
            entries.extend([&packed[..], &vec![0; 4 - packed.len()]].concat());
        } else {
            entries.extend((bytes.len() as u32).to_le_bytes());
            bytes.extend(packed);
        }
    }
    let directory = (bytes.len() as u32).to_le_bytes();
    bytes[4..8].copy_from_slice(&directory);
    bytes.extend(((entries.len() / 12) as u16).to_le_bytes());
    bytes.extend(entries);
    bytes.extend([0; 4]);
    bytes
}

fn pixels(bytes: &[u8]) -> (usize, Vec<u8>) {
    let picture = decode("x", bytes).unwrap_or_else(|error| panic!("{error}"));
    (picture.channels, picture.pixels)
}

#[test]
fn tiffs_of_many_kinds() {
    // A palette of 4 bits: index 1 red, index 2 blue.
    let mut map = vec![0u32; 48];
    (map[1], map[34]) = (0xffff, 0xffff);
    let palette = tiff(3, 1, &[0x12, 0x00], &[(258, 3, &[4]), (262, 3, &[3]), (277, 3, &[1]), (320, 3, &map)]);
    assert_eq!(pixels(&palette), (3, vec![255, 0, 0, 0, 0, 255, 0, 0, 0]));
    let map: Vec<u32> = (0..768).map(|n| (n % 256) * 257).collect();
    let palette = tiff(2, 1, &[7, 200], &[(258, 3, &[8]), (262, 3, &[3]), (277, 3, &[1]), (320, 3, &map)]);
    assert_eq!(pixels(&palette), (3, vec![7, 7, 7, 200, 200, 200]));
    // Grey and alpha, of both kinds; half of black.
    let grey = |extra: u32| tiff(2, 1, &[0, 128, 60, 255], &[(258, 3, &[8, 8]), (262, 3, &[1]), (277, 3, &[2]), (338, 3, &[extra])]);
    assert_eq!(pixels(&grey(2)), (1, vec![127, 60]));
    assert_eq!(pixels(&grey(1)), (1, vec![127, 60]));
    assert_eq!(pixels(&grey(0)), (1, vec![0, 60]));
    // Grey where 0 is white, of 2 bits.
    let white = tiff(4, 1, &[0b0001_1011], &[(258, 3, &[2]), (262, 3, &[0]), (277, 3, &[1])]);
    assert_eq!(pixels(&white), (1, vec![255, 170, 85, 0]));
    // Floating-point grey from 0 to 1, and from 0 to 255.
    let float = |values: [f32; 3]| {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tiff(3, 1, &data, &[(258, 3, &[32]), (262, 3, &[1]), (277, 3, &[1]), (339, 3, &[3])])
    };
    assert_eq!(pixels(&float([0.0, 0.5, 1.0])), (1, vec![0, 128, 255]));
    assert_eq!(pixels(&float([-3.0, 100.0, f32::NAN])), (1, vec![0, 100, 0]));
    // Signed samples: what is below 0 is black.
    let signed = tiff(2, 1, &[0xff, 0xff, 0x40, 0x00], &[(258, 3, &[16]), (262, 3, &[1]), (277, 3, &[1]), (339, 3, &[2])]);
    assert_eq!(pixels(&signed), (1, vec![0, 64]));
    // YCbCr without compression: grey, and red.
    let ycbcr = tiff(2, 1, &[90, 128, 128, 76, 85, 255], &[(258, 3, &[8; 3]), (262, 3, &[6]), (277, 3, &[3]), (530, 3, &[1, 1])]);
    assert_eq!(pixels(&ycbcr), (3, vec![90, 90, 90, 254, 0, 0]));
    // Orientation holds for them as well.
    let turned = tiff(2, 1, &[7, 200], &[(258, 3, &[8]), (262, 3, &[3]), (274, 3, &[6]), (277, 3, &[1]), (320, 3, &map)]);
    let turned = decode("x", &turned).unwrap();
    assert_eq!((turned.width, turned.height, turned.pixels[0]), (1, 2, 7));
}

#[test]
fn premultiplied_alpha_is_laid_on_white_once() {
    let colours = |extra: u32, pixel: [u8; 4]| {
        pixels(&tiff(1, 1, &pixel, &[(258, 3, &[8; 4]), (262, 3, &[2]), (277, 3, &[4]), (338, 3, &[extra])])).1
    };
    assert_eq!(colours(1, [128, 0, 0, 128]), [255, 127, 127]);
    assert_eq!(colours(2, [255, 0, 0, 128]), [255, 127, 127]);
    assert_eq!(colours(1, [255, 255, 255, 0]), [255, 255, 255]);
}

/// Planes of tiles with edges trip the decoder up (image-tiff#403).
pub fn planar_tiles() -> Vec<u8> {
    let tile = [100u8; 16 * 16];
    let places: Vec<u32> = (0..27).map(|n| 8 + n * 256).collect();
    let tags: [(u16, u16, &[u32]); 8] = [
        (258, 3, &[8, 8, 8]),
        (262, 3, &[2]),
        (277, 3, &[3]),
        (284, 3, &[2]),
        (322, 3, &[16]),
        (323, 3, &[16]),
        (324, 4, &places),
        (325, 4, &[256; 27]),
    ];
    tiff(40, 40, &tile.repeat(27), &tags)
}

#[test]
fn a_decoder_that_panics_costs_its_picture() {
    let work = || decode("planar.tif", &planar_tiles());
    // On a thread of its own, and on those of a pool.
    let alone = work().unwrap_err().to_string();
    assert!(alone.starts_with("planar.tif: cannot be decoded (its decoder gave up: ") && !alone.contains('\n'), "{alone}");
    use rayon::prelude::*;
    let good = encode(&RgbImage::from_pixel(3, 3, Rgb([1, 2, 3])).into(), ImageFormat::Png);
    let read = |n: usize| if n.is_multiple_of(2) { work().is_err() } else { decode("good.png", &good).is_ok() };
    assert!((0..64).into_par_iter().all(read));
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

#[test]
fn a_bitmap_without_any_alpha_is_opaque() {
    let mut image = RgbaImage::from_pixel(4, 2, Rgba([10, 20, 30, 0]));
    let bitmap = encode(&image.clone().into(), ImageFormat::Bmp);
    assert_eq!(pixels(&bitmap).1, [10, 20, 30].repeat(8));
    image.put_pixel(0, 0, Rgba([10, 20, 30, 255]));
    let bitmap = encode(&image.clone().into(), ImageFormat::Bmp);
    assert_eq!(pixels(&bitmap).1[..6], [10, 20, 30, 255, 255, 255]);
    // A PNG says what it means.
    let nothing = RgbaImage::from_pixel(1, 1, Rgba([10, 20, 30, 0]));
    assert_eq!(pixels(&encode(&nothing.into(), ImageFormat::Png)).1, [255; 3]);
}

/// An icon or a cursor of these (side, bits a pixel, data).
fn icon(kind: u8, entries: &[(u8, u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0, 0, kind, 0, entries.len() as u8, 0];
    let mut place = 6 + 16 * entries.len();
    for (side, bits, data) in entries {
        bytes.extend([*side, *side, 0, 0, 1, 0]);
        bytes.extend(bits.to_le_bytes());
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend((place as u32).to_le_bytes());
        place += data.len();
    }
    entries.iter().for_each(|(.., data)| bytes.extend(*data));
    bytes
}

#[test]
fn icons_hold_pngs_of_any_kind() {
    let small = encode(&GrayImage::from_pixel(8, 8, image::Luma([9])).into(), ImageFormat::Png);
    let large = encode(&RgbImage::from_pixel(16, 16, Rgb([1, 2, 3])).into(), ImageFormat::Png);
    for kind in [1, 2] {
        let picture = decode("x", &icon(kind, &[(8, 32, &small), (16, 24, &large)])).unwrap();
        assert_eq!((picture.width, &picture.pixels[..3]), (16, &[1, 2, 3][..]));
    }
    // A bitmap of 24 bits whose mask is missing in part.
    let mut bitmap = [40u32.to_le_bytes(), 2u32.to_le_bytes(), 2u32.to_le_bytes()].concat();
    bitmap.extend([1, 0, 24, 0]);
    bitmap.extend([0; 24]);
    bitmap.extend([3, 2, 1, 3, 2, 1, 0, 0]);
    bitmap.extend([0; 2]);
    let picture = decode("x", &icon(1, &[(2, 24, &bitmap)])).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(picture.pixels, [1, 2, 3].repeat(2));
    assert!(decode("x", &icon(1, &[(8, 32, &small[..9])])).is_err());
    assert!(decode("x", &[0, 0, 1, 0, 9, 0, 1]).is_err());
}

#[test]
fn a_png_without_its_end_is_whole_and_one_cut_short_is_not() {
    let whole = encode(&RgbImage::from_fn(20, 20, |x, y| Rgb([x as u8 * 9, y as u8 * 9, 7])).into(), ImageFormat::Png);
    let end = whole.len() - 12;
    for length in end..whole.len() {
        assert_eq!(pixels(&whole[..length]), pixels(&whole));
    }
    assert!(decode("x", &whole[..end - 1]).is_err());
    assert!(decode("x", &whole[..end - 20]).is_err());
}

/// EXIF data that says orientation 6, as a number of this type.
fn turned_right(kind: u8) -> Vec<u8> {
    [&b"II*\0\x08\0\0\0\x01\0\x12\x01"[..], &[kind, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]].concat()
}

#[test]
fn orientation_is_found_wherever_it_is_written() {
    let wide = RgbImage::from_fn(16, 8, |x, _| if x < 8 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
    let is_upright = |bytes: &[u8], what: &str| {
        let picture = decode("x", bytes).unwrap();
        assert_eq!((picture.width, picture.height), (8, 16), "{what}");
        assert!(picture.pixels[0] > 200 && *picture.pixels.last().unwrap() > 200, "{what}");
    };
    // WebP with the marker of JPEG before the EXIF data, and without.
    let plain = encode(&wide.clone().into(), ImageFormat::WebP);
    for exif in [turned_right(3), [b"Exif\0\0", &turned_right(3)[..]].concat()] {
        let chunk = |kind: &[u8; 4], data: &[u8]| [&kind[..], &(data.len() as u32).to_le_bytes(), data, &vec![0; data.len() % 2]].concat();
        let head = chunk(b"VP8X", &[8, 0, 0, 0, 15, 0, 0, 7, 0, 0]);
        let body = [b"WEBP", &head[..], &plain[12..], &chunk(b"EXIF", &exif)].concat();
        is_upright(&[&b"RIFF"[..], &(body.len() as u32).to_le_bytes(), &body].concat(), "WebP");
    }
    // JPEG with a number of 32 bits, and with XMP alone.
    let plain = encode(&wide.into(), ImageFormat::Jpeg);
    let xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation=\"6\"/>".to_vec();
    for data in [[b"Exif\0\0", &turned_right(4)[..]].concat(), xmp] {
        let segment = [&[0xff, 0xe1][..], &(data.len() as u16 + 2).to_be_bytes(), &data].concat();
        is_upright(&[&plain[..2], &segment, &plain[2..]].concat(), "JPEG");
    }
}

#[test]
fn tga_is_told_by_its_name_or_its_footer() {
    let bytes = encode(&RgbImage::from_pixel(3, 2, Rgb([1, 2, 3])).into(), ImageFormat::Tga);
    assert_eq!(decode("x.TGA", &bytes).unwrap().pixels, [1, 2, 3].repeat(6));
    assert!(decode("x.png", &bytes).is_err());
    let footed = [&bytes[..], &[0; 8], b"TRUEVISION-XFILE.\0"].concat();
    assert_eq!(decode("x.png", &footed).unwrap().width, 3);
    assert!(decode("x.tga", b"this is only text, however it is called").is_err());
}

#[test]
fn net_pictures_of_every_kind_are_read() {
    for (bytes, wanted) in [
        (&b"P1\n# a comment\n2 2\n0 1\n1 0\n"[..], [255, 0, 0, 255]),
        (b"P2 2 2 3 0 1 2 3", [0, 85, 170, 255]),
        (b"P4 2 2\n\x40\x80", [255, 0, 0, 255]),
        (b"P5 2 2 255\n\x01\x02\x03\x04", [1, 2, 3, 4]),
        (b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\nENDHDR\n\x01\x02\x03\x04", [1, 2, 3, 4]),
    ] {
        assert_eq!(pixels(bytes), (1, wanted.to_vec()), "{}", String::from_utf8_lossy(bytes));
    }
    for name in ["a.pbm", "a.PNM", "a.pam", "a.tga", "a.jfif", "a.dib"] {
        assert!(has_picture_name(Path::new(name)), "{name}");
    }
}

#[test]
fn large_pictures_are_halved() {
    let picture = Picture { width: 3, height: 2, channels: 1, pixels: vec![10, 20, 99, 30, 40, 99] };
    assert_eq!(halved(picture.clone()), picture);
    // 110 megapixels; a decoder's run over as many would take the test's time.
    let (width, height) = (11_000, 10_000);
    let pixels = (0..width * height).map(|n| if (n % width + n / width) % 2 == 0 { 10 } else { 20 }).collect();
    let half = halved(Picture { width: width as u32, height: height as u32, channels: 1, pixels });
    assert_eq!((half.width, half.height), (5_500, 5_000));
    assert!(half.pixels.iter().all(|value| *value == 15) && half.pixels.len() == 27_500_000);
}
