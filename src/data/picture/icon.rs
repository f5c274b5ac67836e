//! The largest picture of an icon or a cursor.

/// What an icon's directory leads to.
pub enum Entry {
    /// A PNG file.
    Png(Vec<u8>),
    /// An icon file of this one picture.
    Icon(Vec<u8>),
}

/// The picture of an icon of one bitmap as a BMP file, without the mask behind it: for masks of a size that does not fit.
pub fn bitmap(icon: &[u8]) -> Option<Vec<u8>> {
    let mut data = icon.get(HEADER + ENTRY..)?.to_vec();
    let word = |at: usize| Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?));
    let (head, height, colours) = (word(0)?, word(8)?, word(32)?);
    let bits = u16::from_le_bytes(data.get(14..16)?.try_into().ok()?);
    let palette = if bits <= 8 && colours == 0 { 1 << bits } else { colours.min(256) };
    let pixels = 14 + head + 4 * palette;
    // The height is that of picture and mask together.
    data[8..12].copy_from_slice(&(height / 2).to_le_bytes());
    let size = 14 + data.len() as u32;
    Some([b"BM", &size.to_le_bytes()[..], &[0; 4], &pixels.to_le_bytes(), &data].concat())
}

const HEADER: usize = 6;
const ENTRY: usize = 16;
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Whether the bytes begin as a cursor's file does, which differs from an icon's in one byte.
pub fn is_cursor(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, 0, 2, 0]) && bytes.get(9) == Some(&0) && bytes.get(4..6).is_some_and(|count| count[1] == 0 && count[0] > 0)
}

/// The picture with the most pixels, of equals the one with the most bits a pixel; `None` where the directory is damaged.
pub fn largest(bytes: &[u8]) -> Option<Entry> {
    let count = usize::from(u16::from_le_bytes([*bytes.get(4)?, *bytes.get(5)?]));
    let entries = bytes.get(HEADER..HEADER + count * ENTRY)?.chunks_exact(ENTRY);
    let is_cursor = bytes[2] == 2;
    // A side of 256 is written as 0.
    let side = |value: u8| if value == 0 { 256u32 } else { u32::from(value) };
    // What is a cursor's hot spot are an icon's bits a pixel.
    let bits = |entry: &[u8]| if is_cursor { 0 } else { u16::from_le_bytes([entry[6], entry[7]]) };
    let best = entries.rev().max_by_key(|entry| (side(entry[0]) * side(entry[1]), bits(entry)))?;
    let word = |at: usize| u32::from_le_bytes([best[at], best[at + 1], best[at + 2], best[at + 3]]) as usize;
    let (length, offset) = (word(8), word(12));
    let data = bytes.get(offset..)?;
    let data = &data[..length.min(data.len())];
    if data.starts_with(PNG) {
        return Some(Entry::Png(data.to_vec()));
    }
    let mut icon = vec![0, 0, 1, 0, 1, 0, best[0], best[1], 0, 0, 1, 0, 32, 0];
    icon.extend((data.len() as u32).to_le_bytes());
    icon.extend(((HEADER + ENTRY) as u32).to_le_bytes());
    icon.extend(data);
    Some(Entry::Icon(icon))
}
