//! Whether the scans of a JPEG hold all of its picture.
//!
//! Decoders paint what is missing grey and say nothing. So the entropy-coded data is read here, without computing a
//! single pixel: every block of every scan has to be there.

/// What the scans hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scans {
    /// All of the picture.
    Whole,
    /// Less: the data is cut short or overwritten.
    Short,
    /// A kind of JPEG that is not followed here, such as arithmetic coding.
    Unknown,
}

/// Reads the scans of a JPEG file up to its end marker, or to the end of the data where it has none.
///
/// Without an end marker every coefficient has to be there; with one a progressive picture may leave out the last details.
pub fn scans(bytes: &[u8]) -> Scans {
    let mut frame = Frame::default();
    let mut position = 2;
    let has_end = loop {
        let Some((marker, after)) = next_marker(bytes, position) else { break false };
        position = after;
        match marker {
            END => break true,
            // Restarts, a start and TEM stand alone.
            0xd0..=0xd8 | 0x01 => continue,
            _ => {}
        }
        let Some(segment) = segment(bytes, position) else { break false };
        position += 2 + segment.len();
        let read = match marker {
            0xc0..=0xc2 => frame.start(segment, marker == 0xc2),
            0xc4 => frame.define_tables(segment),
            0xdd => frame.define_restarts(segment),
            0xda => match frame.scan(segment, bytes, position) {
                Ok(end) => {
                    position = end;
                    Ok(())
                }
                Err(fault) => Err(fault),
            },
            // Other ways of coding.
            0xc3 | 0xc5..=0xcf => Err(Scans::Unknown),
            _ => Ok(()),
        };
        if let Err(fault) = read {
            return fault;
        }
    };
    let wanted = if has_end { 1 } else { u64::MAX };
    let is_whole = !frame.components.is_empty() && frame.components.iter().all(|component| component.known & wanted == wanted);
    if is_whole { Scans::Whole } else { Scans::Short }
}

const END: u8 = 0xd9;
/// Most blocks of a component: those of the largest picture that JPEG knows would take too much memory.
const MOST_BLOCKS: usize = 1 << 26;

/// The next marker from `position` on, and the place after it.
fn next_marker(bytes: &[u8], position: usize) -> Option<(u8, usize)> {
    let rest = bytes.get(position..)?;
    let at = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff))?;
    Some((rest[at + 1], position + at + 2))
}

/// What follows the length of a segment at `position`.
fn segment(bytes: &[u8], position: usize) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(position)?, *bytes.get(position + 1)?]));
    bytes.get(position + 2..position + length.max(2))
}

#[derive(Default)]
struct Frame {
    is_progressive: bool,
    components: Vec<Component>,
    /// Largest sampling factors.
    most: (usize, usize),
    size: (usize, usize),
    dc_tables: [Option<Box<Table>>; 4],
    ac_tables: [Option<Box<Table>>; 4],
    restart: usize,
}

struct Component {
    id: u8,
    /// Sampling factors.
    across: usize,
    down: usize,
    /// Blocks in a row, those that only fill a unit included.
    columns: usize,
    /// Of a progressive picture which coefficients of each block are not 0.
    nonzero: Vec<u64>,
    /// Which coefficients are known to their last bit.
    known: u64,
}

/// A scan's part of a component.
struct Part {
    component: usize,
    dc: usize,
    ac: usize,
}

/// Which coefficients a scan holds and which of their bits.
struct Band {
    first: usize,
    last: usize,
    is_refinement: bool,
}

impl Frame {
    fn start(&mut self, segment: &[u8], is_progressive: bool) -> Result<(), Scans> {
        let [8, h1, h0, w1, w0, count, components @ ..] = segment else { return Err(Scans::Unknown) };
        self.size = (usize::from(u16::from_be_bytes([*w1, *w0])), usize::from(u16::from_be_bytes([*h1, *h0])));
        if self.size.0 == 0 || self.size.1 == 0 || *count == 0 || !self.components.is_empty() {
            return Err(Scans::Unknown);
        }
        let factors: Vec<(u8, usize, usize)> = components
            .chunks_exact(3)
            .take(usize::from(*count))
            .map(|entry| (entry[0], usize::from(entry[1] >> 4), usize::from(entry[1] & 15)))
            .collect();
        if factors.len() < usize::from(*count)
            || factors.iter().any(|(_, across, down)| !(1..=4).contains(across) || !(1..=4).contains(down))
        {
            return Err(Scans::Unknown);
        }
        self.is_progressive = is_progressive;
        self.most = factors.iter().fold((1, 1), |most, (_, across, down)| (std::cmp::max(most.0, *across), std::cmp::max(most.1, *down)));
        let (units_across, units_down) = self.units();
        for (id, across, down) in factors {
            let (columns, rows) = (units_across * across, units_down * down);
            if columns * rows > MOST_BLOCKS {
                return Err(Scans::Unknown);
            }
            let nonzero = if is_progressive { vec![0; columns * rows] } else { Vec::new() };
            self.components.push(Component { id, across, down, columns, nonzero, known: 0 });
        }
        Ok(())
    }

    /// Units in a row and in a column, a unit being the blocks of all components that belong together.
    fn units(&self) -> (usize, usize) {
        (self.size.0.div_ceil(8 * self.most.0), self.size.1.div_ceil(8 * self.most.1))
    }

    fn define_tables(&mut self, mut segment: &[u8]) -> Result<(), Scans> {
        while let [kind, rest @ ..] = segment {
            let Some((counts, symbols)) = rest.split_at_checked(16) else { return Err(Scans::Short) };
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let Some((symbols, rest)) = symbols.split_at_checked(total) else { return Err(Scans::Short) };
            let tables = if kind >> 4 == 0 { &mut self.dc_tables } else { &mut self.ac_tables };
            let slot = tables.get_mut(usize::from(kind & 15)).ok_or(Scans::Unknown)?;
            *slot = Some(Box::new(Table::new(counts, symbols).ok_or(Scans::Short)?));
            segment = rest;
        }
        Ok(())
    }

    fn define_restarts(&mut self, segment: &[u8]) -> Result<(), Scans> {
        let [high, low, ..] = segment else { return Err(Scans::Short) };
        self.restart = usize::from(u16::from_be_bytes([*high, *low]));
        Ok(())
    }

    /// Reads the scan whose data begins at `position`; the place after it.
    fn scan(&mut self, segment: &[u8], bytes: &[u8], position: usize) -> Result<usize, Scans> {
        let [count, rest @ ..] = segment else { return Err(Scans::Short) };
        let Some((entries, [first, last, bits, ..])) = rest.split_at_checked(2 * usize::from(*count)) else { return Err(Scans::Short) };
        let mut parts = Vec::new();
        for entry in entries.chunks_exact(2) {
            let component = self.components.iter().position(|component| component.id == entry[0]).ok_or(Scans::Unknown)?;
            parts.push(Part { component, dc: usize::from(entry[1] >> 4), ac: usize::from(entry[1] & 15) });
        }
        let band = if self.is_progressive {
            Band { first: usize::from(*first), last: usize::from(*last), is_refinement: bits >> 4 > 0 }
        } else {
            Band { first: 0, last: 63, is_refinement: false }
        };
        if parts.is_empty() || band.first > band.last || band.last > 63 || (self.is_progressive && band.first > 0 && parts.len() > 1) {
            return Err(Scans::Unknown);
        }
        let mut reader = Reader { bytes, position, bits: 0, count: 0 };
        let end =
            if let [part] = &parts[..] { self.single(part, &band, &mut reader) } else { self.interleaved(&parts, &band, &mut reader) };
        end?;
        let is_last_bit = !self.is_progressive || bits & 15 == 0;
        if is_last_bit {
            let mask = (u64::MAX >> (63 - band.last)) & (u64::MAX << band.first);
            parts.iter().for_each(|part| self.components[part.component].known |= mask);
        }
        if self.is_progressive && band.first == 0 {
            // Without its last bits an average is still one.
            parts.iter().for_each(|part| self.components[part.component].known |= 1);
        }
        Ok(reader.position)
    }

    /// A scan of one component holds its blocks row by row, without those that only fill a unit.
    fn single(&mut self, part: &Part, band: &Band, reader: &mut Reader) -> Result<(), Scans> {
        let Component { across, down, columns, .. } = self.components[part.component];
        let extent = |size: usize, factor: usize, most: usize| (size * factor).div_ceil(most).div_ceil(8);
        let (width, height) = (extent(self.size.0, across, self.most.0), extent(self.size.1, down, self.most.1));
        let mut run = 0;
        for number in 0..width * height {
            self.restart_before(number, &mut run, reader)?;
            self.block(part, band, number / width * columns + number % width, &mut run, reader)?;
        }
        Ok(())
    }

    fn interleaved(&mut self, parts: &[Part], band: &Band, reader: &mut Reader) -> Result<(), Scans> {
        let (width, height) = self.units();
        let mut run = 0;
        for number in 0..width * height {
            self.restart_before(number, &mut run, reader)?;
            for part in parts {
                let Component { across, down, columns, .. } = self.components[part.component];
                for block in 0..across * down {
                    let (x, y) = (number % width * across + block % across, number / width * down + block / across);
                    self.block(part, band, y * columns + x, &mut run, reader)?;
                }
            }
        }
        Ok(())
    }

    /// A restart is due before every so many units.
    fn restart_before(&self, number: usize, run: &mut usize, reader: &mut Reader) -> Result<(), Scans> {
        if self.restart == 0 || number == 0 || !number.is_multiple_of(self.restart) {
            return Ok(());
        }
        *run = 0;
        reader.restart()
    }

    /// Reads one block; `run` counts blocks that are known to hold nothing more.
    fn block(&mut self, part: &Part, band: &Band, index: usize, run: &mut usize, reader: &mut Reader) -> Result<(), Scans> {
        let mut first = band.first;
        if first == 0 {
            if band.is_refinement {
                reader.take(1)?;
            } else {
                // Pictures without tables use those that everybody knows.
                let table = self.dc_tables.get(part.dc).and_then(Option::as_deref).ok_or(Scans::Unknown)?;
                if reader.symbol_and_bits(table)? > 15 {
                    return Err(Scans::Short);
                }
            }
            first = 1;
        }
        if band.last == 0 {
            return Ok(());
        }
        let table = self.ac_tables.get(part.ac).and_then(Option::as_deref).ok_or(Scans::Unknown)?;
        let nonzero = self.components[part.component].nonzero.get_mut(index);
        match nonzero {
            None => sequential(first, table, reader),
            Some(nonzero) if band.is_refinement => refine(first, band.last, table, nonzero, run, reader),
            Some(nonzero) => begin(first, band.last, table, nonzero, run, reader),
        }
    }
}

/// The coefficients of a block that is coded at once.
fn sequential(first: usize, table: &Table, reader: &mut Reader) -> Result<(), Scans> {
    let mut at = first;
    while at < 64 {
        let symbol = reader.symbol_and_bits(table)?;
        match (symbol >> 4, symbol & 15) {
            (15, 0) => at += 16,
            (_, 0) => break,
            (zeros, _) => {
                at += usize::from(zeros) + 1;
                if at > 64 {
                    return Err(Scans::Short);
                }
            }
        }
    }
    Ok(())
}

/// The first bits of a band of coefficients.
fn begin(first: usize, last: usize, table: &Table, nonzero: &mut u64, run: &mut usize, reader: &mut Reader) -> Result<(), Scans> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let mut at = first;
    while at <= last {
        let symbol = reader.symbol_and_bits(table)?;
        match (symbol >> 4, symbol & 15) {
            (15, 0) => at += 16,
            (zeros, 0) => {
                *run = (1 << zeros) - 1 + reader.take(u32::from(zeros))? as usize;
                break;
            }
            (zeros, _) => {
                at += usize::from(zeros);
                if at > last {
                    return Err(Scans::Short);
                }
                *nonzero |= 1 << at;
                at += 1;
            }
        }
    }
    Ok(())
}

/// One more bit of a band of coefficients: of those that are not 0 already, and of those that begin with it.
fn refine(first: usize, last: usize, table: &Table, nonzero: &mut u64, run: &mut usize, reader: &mut Reader) -> Result<(), Scans> {
    let mut at = first;
    if *run == 0 {
        while at <= last {
            let symbol = reader.symbol(table)?;
            let (mut zeros, bits) = (usize::from(symbol >> 4), symbol & 15);
            if bits > 0 {
                reader.take(1)?;
            } else if zeros < 15 {
                *run = (1 << zeros) + reader.take(zeros as u32)? as usize;
                break;
            }
            while at <= last {
                if *nonzero & (1 << at) != 0 {
                    reader.take(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if bits > 0 {
                if at > last {
                    return Err(Scans::Short);
                }
                *nonzero |= 1 << at;
            }
            at += 1;
        }
    }
    if *run > 0 {
        let rest = if at > 63 { 0 } else { *nonzero & (u64::MAX << at) & (u64::MAX >> (63 - last)) };
        reader.take(rest.count_ones())?;
        *run -= 1;
    }
    Ok(())
}

/// Bits that are looked up at once.
const LOOKED_UP: u32 = 9;

/// A Huffman code.
struct Table {
    /// Length and symbol by the next bits; 0 for longer codes.
    short: [u16; 1 << LOOKED_UP],
    /// By length: one more than the largest code, and what is added to a code for its symbol's place.
    ends: [u32; 17],
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// From the number of codes of each length from 1 on; `None` for more codes than there can be.
    fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        let mut table = Table { short: [0; 1 << LOOKED_UP], ends: [0; 17], offsets: [0; 17], symbols: symbols.to_vec() };
        let (mut code, mut place) = (0u32, 0usize);
        for (length, count) in (1u32..).zip(counts) {
            table.offsets[length as usize] = place as i32 - code as i32;
            for _ in 0..*count {
                if code >= 1 << length {
                    return None;
                }
                if length <= LOOKED_UP {
                    let begin = (code << (LOOKED_UP - length)) as usize;
                    let entry = (length as u16) << 8 | u16::from(symbols[place]);
                    table.short[begin..begin + (1 << (LOOKED_UP - length))].fill(entry);
                }
                code += 1;
                place += 1;
            }
            table.ends[length as usize] = code;
            code <<= 1;
        }
        Some(table)
    }
}

/// Bits of entropy-coded data, up to the next marker.
struct Reader<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The next bits, the first of them on top.
    bits: u64,
    /// How many of them there are.
    count: u32,
}

impl Reader<'_> {
    #[inline]
    fn refill(&mut self) {
        // Eight bytes without a marker or a stuffed 0xff are taken at once.
        if let Some(Ok(eight)) = self.bytes.get(self.position..self.position + 8).map(<[u8; 8]>::try_from) {
            const LOW: u64 = u64::from_be_bytes([1; 8]);
            let (word, inverse) = (u64::from_be_bytes(eight), !u64::from_be_bytes(eight));
            if inverse.wrapping_sub(LOW) & word & (LOW << 7) == 0 {
                let taken = (64 - self.count) / 8;
                if taken > 0 {
                    let filled = self.count + 8 * taken;
                    self.bits |= (word >> self.count) & (u64::MAX << (64 - filled));
                    self.count = filled;
                    self.position += taken as usize;
                }
                return;
            }
        }
        self.refill_slowly();
    }

    fn refill_slowly(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.position..) {
                Some([0xff, 0x00, ..]) => {
                    self.position += 1;
                    0xff
                }
                Some([0xff, 0xff, ..]) => {
                    self.position += 1;
                    continue;
                }
                Some([0xff, ..]) | Some([]) | None => return,
                Some([byte, ..]) => *byte,
            };
            self.position += 1;
            self.bits |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    /// The next `count` bits, of which there may be 64 at most.
    fn take(&mut self, count: u32) -> Result<u64, Scans> {
        if count == 0 {
            return Ok(0);
        }
        if self.count < count {
            self.refill();
        }
        if self.count < count {
            // More than a refill may give.
            return if count > 56 { self.take(32).and_then(|_| self.take(count - 32)) } else { Err(Scans::Short) };
        }
        let value = self.bits >> (64 - count);
        self.bits = if count == 64 { 0 } else { self.bits << count };
        self.count -= count;
        Ok(value)
    }

    /// The next symbol; as many bits behind it as its lower half says are skipped.
    #[inline]
    fn symbol_and_bits(&mut self, table: &Table) -> Result<u8, Scans> {
        if self.count < 32 {
            self.refill();
        }
        let entry = table.short[(self.bits >> (64 - LOOKED_UP)) as usize];
        let length = u32::from(entry >> 8) + u32::from(entry & 15);
        if entry == 0 || length > self.count {
            let symbol = self.symbol(table)?;
            self.take(u32::from(symbol & 15))?;
            return Ok(symbol);
        }
        self.bits <<= length;
        self.count -= length;
        Ok(entry as u8)
    }

    fn symbol(&mut self, table: &Table) -> Result<u8, Scans> {
        if self.count < 16 {
            self.refill();
        }
        let entry = table.short[(self.bits >> (64 - LOOKED_UP)) as usize];
        if entry != 0 {
            self.take(u32::from(entry >> 8))?;
            return Ok(entry as u8);
        }
        for length in LOOKED_UP + 1..=16 {
            let code = (self.bits >> (64 - length)) as u32;
            if code < table.ends[length as usize] {
                self.take(length)?;
                let place = code as i32 + table.offsets[length as usize];
                return usize::try_from(place).ok().and_then(|place| table.symbols.get(place)).copied().ok_or(Scans::Short);
            }
        }
        Err(Scans::Short)
    }

    /// Goes on after the restart marker that has to come next; what is left before it is dropped.
    fn restart(&mut self) -> Result<(), Scans> {
        (self.bits, self.count) = (0, 0);
        match next_marker(self.bytes, self.position) {
            Some((0xd0..=0xd7, after)) => {
                self.position = after;
                Ok(())
            }
            _ => Err(Scans::Short),
        }
    }
}

#[cfg(test)]
#[path = "jpeg_tests.rs"]
mod tests;
