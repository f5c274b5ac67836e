//! Content that is not read, by name, with what to do about it.

use std::path::Path;

/// A kind of picture that is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What it is called.
    pub name: &'static str,
    /// Endings of its files' names.
    endings: &'static [&'static str],
    /// A command that makes of `X` a picture that is read.
    pub convert: &'static str,
}

/// The kinds of photos that cameras, phones and web sites hand out.
const KINDS: [Kind; 4] = [
    Kind { name: "HEIC", endings: &["heic", "heif", "hif"], convert: "heif-convert X.heic X.jpg" },
    Kind { name: "AVIF", endings: &["avif"], convert: "avifdec X.avif X.png" },
    Kind { name: "JPEG XL", endings: &["jxl"], convert: "djxl X.jxl X.png" },
    Kind { name: "JPEG 2000", endings: &["jp2", "j2k", "j2c", "jpc", "jpf", "jpx"], convert: "opj_decompress -i X.jp2 -o X.png" },
];

/// The kind that a file's name says it is.
pub fn by_name(path: &Path) -> Option<Kind> {
    let ending = path.extension()?;
    KINDS.into_iter().find(|kind| kind.endings.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// What content seems to be, for messages, and how to make a picture of it that is read.
pub fn describe(bytes: &[u8]) -> (&'static str, Option<&'static str>) {
    let [heic, avif, jxl, jpeg_2000] = KINDS;
    let photo = |kind: Kind| (kind.name, Some(kind.convert));
    if bytes.get(4..8) == Some(b"ftyp") {
        // The brand, and those that the file is compatible with.
        let length = bytes.get(..4).map_or(0, |word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]) as usize);
        let brands: Vec<&[u8]> = bytes.get(8..length.clamp(12, 256).min(bytes.len())).unwrap_or_default().chunks_exact(4).collect();
        let has = |wanted: &[&[u8]]| brands.iter().any(|brand| wanted.contains(brand));
        return if has(&[b"avif", b"avis"]) {
            photo(avif)
        } else if has(&[b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"]) {
            photo(heic)
        } else if has(&[b"crx "]) {
            ("a camera's raw data", Some("dcraw_emu -T X"))
        } else {
            ("a film", Some("ffmpeg -i X -frames:v 1 X.png"))
        };
    }
    const KNOWN: [(&[u8], &str); 20] = [
        (b"%PDF", "PDF"),
        (b"%!PS", "PostScript"),
        (b"8BPS", "Photoshop's"),
        (b"gimp xcf", "GIMP's"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x1f\x8b", "compressed with gzip"),
        (b"7z\xbc\xaf", "a 7-Zip archive"),
        (b"Rar!", "a RAR archive"),
        (b"DDS ", "DDS"),
        (b"qoif", "QOI"),
        (b"#?RADIANCE", "Radiance HDR"),
        (b"v/1\x01", "OpenEXR"),
        (b"farbfeld", "farbfeld"),
        (b"AT&TFORM", "DjVu"),
        (b"SIMPLE  =", "FITS"),
        (b"\x1aE\xdf\xa3", "a film"),
        (b"\xd7\xcd\xc6\x9a", "a Windows metafile"),
        (b"\0\x05\x16\x07", "the side file of a Mac's file"),
        (b"version https://git-lfs", "a placeholder of Git LFS: fetch the file itself with git lfs pull"),
        (b"IIRO", "a camera's raw data"),
    ];
    let is_html = |start: &[u8]| {
        let start = start.trim_ascii_start().to_ascii_lowercase();
        start.starts_with(b"<!doctype html") || start.starts_with(b"<html")
    };
    let start = &bytes[..bytes.len().min(512)];
    // A character of several bytes may be cut at the end of the excerpt.
    let is_text = !start.contains(&0) && std::str::from_utf8(start).map_or_else(|error| error.error_len().is_none(), |_| true);
    match bytes {
        [0xff, 0x0a, ..] => photo(jxl),
        _ if bytes.starts_with(b"\0\0\0\x0cJXL \r\n\x87\n") => photo(jxl),
        _ if bytes.starts_with(b"\0\0\0\x0cjP  ") || bytes.starts_with(b"\xff\x4f\xff\x51") => photo(jpeg_2000),
        _ if bytes.get(128..132) == Some(b"DICM") => ("DICOM", Some("dcmj2pnm +on X.dcm X.png")),
        _ => match KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
            Some((_, name)) => (name, None),
            None if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) => ("nothing but zeros", None),
            None if is_html(start) => ("a web page", None),
            None if is_text && contains(start, b"<svg") => ("SVG", Some("rsvg-convert X.svg -o X.png")),
            None if is_text => ("it looks like text", None),
            None => ("its content is unknown", None),
        },
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photos_that_are_not_read_are_named_with_what_to_do() {
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
            (b"\0\0\0\x18ftypavis\0\0\0\0mif1heic", "AVIF"),
            (b"\xff\x0a\x12\x34", "JPEG XL"),
            (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
            (b"\xff\x4f\xff\x51\0\x29", "JPEG 2000"),
            (b"\0\0\0\x18ftypisom\0\0\0\0mp42", "a film"),
            (b"<?xml version=\"1.0\"?><svg width=\"1\"/>", "SVG"),
        ] {
            let (found, convert) = describe(bytes);
            assert!(found == name && convert.is_some_and(|command| command.contains('X')), "{name}: {found}");
        }
        for (path, name) in [("a.HEIC", Some("HEIC")), ("a.jxl", Some("JPEG XL")), ("a.jpg", None), ("heic", None)] {
            assert_eq!(by_name(Path::new(path)).map(|kind| kind.name), name);
        }
        assert_eq!(
            (describe(b"\0\0").0, describe(b" <HTML>").0, describe(b"PK\x03\x04").0),
            ("nothing but zeros", "a web page", "a ZIP archive")
        );
        for bytes in [&b"\0\0\0\0ftyp"[..], b"\xff\xff\xff\xffftypheic", b"\0\0\0\x01ftyp"] {
            describe(bytes);
        }
    }
}
