//! How a picture has to be turned to stand upright: the orientation that its metadata gives.

use image::ImageDecoder;
use image::metadata::Orientation;

/// What the EXIF data says, else what the XMP data says; none where neither says anything that makes sense.
pub fn of(decoder: &mut impl ImageDecoder) -> Option<Orientation> {
    let exif = decoder.exif_metadata().ok().flatten();
    if let Some(found) = exif.and_then(|exif| in_exif(&exif)) {
        return Some(found);
    }
    // TIFF files say it in a field of their own.
    if let Some(found) = decoder.orientation().ok().filter(|found| *found != Orientation::NoTransforms) {
        return Some(found);
    }
    decoder.xmp_metadata().ok().flatten().and_then(|xmp| in_xmp(&xmp))
}

/// The orientation in EXIF data, with or without the marker that stands before it in JPEG files: some writers put it into
/// PNG and WebP files as well. Its number may have any of the whole types.
fn in_exif(exif: &[u8]) -> Option<Orientation> {
    const TAG: u16 = 0x112;
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    let is_little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let pair = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    let long = |at: usize| -> Option<u32> {
        let word = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if is_little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    };
    let directory = long(4)? as usize;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries).map(|number| directory + 2 + number * 12).find(|entry| short(*entry) == Some(TAG))?;
    let value = match short(entry + 2)? {
        1 | 6 | 7 => u32::from(*tiff.get(entry + 8)?),
        3 | 8 => u32::from(short(entry + 8)?),
        4 | 9 => long(entry + 8)?,
        _ => return None,
    };
    u8::try_from(value).ok().and_then(Orientation::from_exif)
}

/// The orientation in XMP data, as an attribute or an element.
fn in_xmp(xmp: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let at = xmp.windows(NAME.len()).position(|window| window == NAME)?;
    let digit = match xmp.get(at + NAME.len()..)? {
        [b'=', b'"' | b'\'', digit, ..] | [b'>', digit, ..] => digit,
        _ => return None,
    };
    Orientation::from_exif(digit.wrapping_sub(b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF data that says only this.
    fn exif(kind: u16, value: &[u8]) -> Vec<u8> {
        let entry = [&0x112u16.to_le_bytes()[..], &kind.to_le_bytes(), &1u32.to_le_bytes(), value, &vec![0; 4 - value.len()]].concat();
        [b"II*\0\x08\0\0\0\x01\0".to_vec(), entry, vec![0; 4]].concat()
    }

    #[test]
    fn any_whole_type_counts_with_and_without_a_prefix() {
        for (kind, value) in [(3u16, &[6u8, 0][..]), (4, &[6, 0, 0, 0]), (1, &[6])] {
            let data = exif(kind, value);
            assert_eq!(in_exif(&data), Some(Orientation::Rotate90), "{kind}");
            assert_eq!(in_exif(&[b"Exif\0\0", &data[..]].concat()), Some(Orientation::Rotate90), "{kind}");
            for length in 0..data.len() - 4 {
                assert_eq!(in_exif(&data[..length.min(17)]), None);
            }
        }
        let big = [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x04\0\0\0\x01\0\0\0\x03"[..], &[0; 4]].concat();
        assert_eq!(in_exif(&big), Some(Orientation::Rotate180));
        assert_eq!((in_exif(&exif(3, &[9, 0])), in_exif(&exif(5, &[6])), in_exif(b"II*\0\xff\xff\xff\xff")), (None, None, None));
    }

    #[test]
    fn xmp_says_it_in_two_ways() {
        assert_eq!(in_xmp(b"<rdf tiff:Orientation=\"8\"/>"), Some(Orientation::Rotate270));
        assert_eq!(in_xmp(b"<tiff:Orientation>3</tiff:Orientation>"), Some(Orientation::Rotate180));
        assert_eq!((in_xmp(b"tiff:Orientation"), in_xmp(b"<x/>")), (None, None));
    }
}
