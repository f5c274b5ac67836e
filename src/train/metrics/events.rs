//! `events.out.tfevents.*`: scalars for TensorBoard.
//!
//! A file is a sequence of records as TensorFlow's `RecordWriter` makes them: length (u64), masked CRC-32C of the length,
//! data, masked CRC-32C of the data, all little-endian. The data are protocol buffers, `tensorflow.Event` of
//! `tensorboard/compat/proto/event.proto`, of which only these fields are used: `wall_time` (1, double), `step` (2, varint),
//! `file_version` (3, string), and `summary` (5) with `value` (1) of `tag` (1, string) and `simple_value` (2, float).

use super::MetricsLine;
use crate::files::replace_file;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What TensorBoard recognises the files of a run by.
const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = ".nin-wgpu";
const FILE_VERSION: &str = "brain.Event:2";
/// A tag that only events of epochs have.
const TRAIN_LOSS: &str = "loss/train_epoch";

/// Wire types of protocol buffers.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// The event file of a run, open for appending.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    steps_per_epoch: u64,
}

impl EventLog {
    /// Opens the event file in `folder` of a run that goes on where `steps` updates are done and `epochs` epochs complete, and
    /// drops events from later. A run without such a file gets one, with the metrics `lines` that it has.
    pub fn open(folder: &Path, lines: &[MetricsLine], steps: u64, epochs: u64, steps_per_epoch: u64) -> io::Result<Self> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            Ok::<_, io::Error>(Self { file, steps_per_epoch })
        };
        if let Some(path) = find(folder)? {
            let bytes = fs::read(&path)?;
            let kept: Vec<u8> = Records(&bytes)
                .filter(|record| match Event::decode(record.data) {
                    Some(event) if event.is_of_epoch => event.step <= epochs * steps_per_epoch,
                    Some(event) => event.step <= steps,
                    None => false,
                })
                .flat_map(|record| record.whole)
                .copied()
                .collect();
            if kept != bytes {
                replace_file(&path, |writer| writer.write_all(&kept))?;
            }
            return open(&path);
        }
        let mut log = open(&folder.join(format!("{PREFIX}{:010}{SUFFIX}", now() as u64)))?;
        let mut version = Vec::new();
        put_double(&mut version, 1, now());
        put_bytes(&mut version, 3, FILE_VERSION.as_bytes());
        log.file.write_all(&record(&version))?;
        lines.iter().try_for_each(|line| log.append(line))?;
        Ok(log)
    }

    /// Appends the scalars of a line.
    pub fn append(&mut self, line: &MetricsLine) -> io::Result<()> {
        let (step, scalars) = match line {
            MetricsLine::Step(line) => (line.step, vec![("loss/train", line.loss), ("lr", line.lr), ("images_per_s", line.images_per_s)]),
            MetricsLine::Epoch(line) => {
                let scalars = vec![
                    (TRAIN_LOSS, line.train_loss),
                    ("loss/test", line.test_loss),
                    ("accuracy/train", line.train_acc),
                    ("accuracy/test", line.test_acc),
                    ("epoch_seconds", line.seconds),
                ];
                (line.epoch * self.steps_per_epoch, scalars)
            }
        };
        let mut summary = Vec::new();
        for (tag, value) in scalars.into_iter().filter(|(_, value)| value.is_finite()) {
            let mut scalar = Vec::new();
            put_bytes(&mut scalar, 1, tag.as_bytes());
            put_varint(&mut scalar, 2 << 3 | FIXED32);
            scalar.extend((value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &scalar);
        }
        let mut event = Vec::new();
        put_double(&mut event, 1, now());
        put_varint(&mut event, 2 << 3 | VARINT);
        put_varint(&mut event, step);
        put_bytes(&mut event, 5, &summary);
        self.file.write_all(&record(&event))
    }

    /// Waits until the events are on disk.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The latest event file of this program in a folder.
fn find(folder: &Path) -> io::Result<Option<PathBuf>> {
    let is_ours = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
    };
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().map(fs::DirEntry::path).filter(is_ours).max())
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_double(out: &mut Vec<u8>, field: u64, value: f64) {
    put_varint(out, field << 3 | FIXED64);
    out.extend(value.to_le_bytes());
}

/// Data with its frame.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc32c(&length).to_le_bytes(), data, &masked_crc32c(data).to_le_bytes()].concat()
}

/// Whole records from the beginning of a file, up to the first that is damaged or torn.
struct Records<'a>(&'a [u8]);

struct Record<'a> {
    whole: &'a [u8],
    data: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (length, rest) = self.0.split_first_chunk::<8>()?;
        let (length_crc, rest) = rest.split_first_chunk::<4>()?;
        let data = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let (data_crc, rest) = rest[data.len()..].split_first_chunk::<4>()?;
        if *length_crc != masked_crc32c(length).to_le_bytes() || *data_crc != masked_crc32c(data).to_le_bytes() {
            return None;
        }
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Record { whole, data })
    }
}

/// What going on needs to know of an event.
#[derive(Debug, Default, PartialEq)]
struct Event {
    step: u64,
    is_of_epoch: bool,
}

impl Event {
    fn decode(data: &[u8]) -> Option<Self> {
        let mut event = Event::default();
        for field in Fields(data) {
            match field? {
                (2, Value::Number(step)) => event.step = step,
                (5, Value::Bytes(summary)) => {
                    for value in Fields(summary) {
                        let (1, Value::Bytes(value)) = value? else { continue };
                        let tag = |field| matches!(field, Some((1, Value::Bytes(tag))) if tag == TRAIN_LOSS.as_bytes());
                        event.is_of_epoch |= Fields(value).any(tag);
                    }
                }
                _ => {}
            }
        }
        Some(event)
    }
}

/// The value of a field of a protocol buffer.
#[derive(Debug, PartialEq)]
enum Value<'a> {
    /// A varint, or fixed bits.
    Number(u64),
    Bytes(&'a [u8]),
}

/// Number and value of each field; `None` where the rest makes no sense.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            VARINT => Value::Number(self.varint()?),
            FIXED64 => Value::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            FIXED32 => Value::Number(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
            BYTES => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78), rotated and shifted as TensorFlow's records have it.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[(crc as u8 ^ byte) as usize] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::super::{EpochLine, StepLine};
    use super::*;

    fn step(step: u64) -> MetricsLine {
        MetricsLine::Step(StepLine { step, epoch: 1, loss: 2.25, lr: 0.1, images_per_s: f64::NAN })
    }

    fn epoch(epoch: u64) -> MetricsLine {
        MetricsLine::Epoch(EpochLine {
            epoch,
            train_loss: 0.5,
            train_acc: 0.75,
            test_loss: 0.625,
            test_acc: 0.7,
            seconds: 12.5,
            ..Default::default()
        })
    }

    fn file(folder: &Path) -> Vec<u8> {
        fs::read(find(folder).unwrap().unwrap()).unwrap()
    }

    fn scalars(data: &[u8]) -> Vec<(String, f32)> {
        let mut found = Vec::new();
        for field in Fields(data).flatten() {
            let (5, Value::Bytes(summary)) = field else { continue };
            for (number, value) in Fields(summary).flatten() {
                let Value::Bytes(value) = value else { panic!("{value:?}") };
                assert_eq!(number, 1);
                let parts: Vec<_> = Fields(value).flatten().collect();
                let [(1, Value::Bytes(tag)), (2, Value::Number(bits))] = parts[..] else { panic!("{parts:?}") };
                found.push((String::from_utf8(tag.to_vec()).unwrap(), f32::from_bits(bits as u32)));
            }
        }
        found
    }

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        // Appendix B.4, and the check value of the algorithm's catalogue entry.
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(crc32c(bytes), crc, "{bytes:?}");
        }
    }

    #[test]
    fn the_version_record_is_tensorboards() {
        // `RecordWriter.write` of Event(wall_time=1.5, file_version="brain.Event:2"), from TensorBoard 2.21.
        let mut event = Vec::new();
        put_double(&mut event, 1, 1.5);
        put_bytes(&mut event, 3, FILE_VERSION.as_bytes());
        let known: [u8; 40] = [
            24, 0, 0, 0, 0, 0, 0, 0, 163, 127, 75, 34, 9, 0, 0, 0, 0, 0, 0, 248, 63, 26, 13, 98, 114, 97, 105, 110, 46, 69, 118, 101, 110,
            116, 58, 50, 42, 40, 100, 108,
        ];
        assert_eq!(record(&event), known);
    }

    #[test]
    fn lines_become_scalars_at_their_step() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), &[], 0, 0, 40).unwrap();
        log.append(&step(300)).unwrap();
        log.append(&epoch(8)).unwrap();
        log.sync().unwrap();
        let bytes = file(folder.path());
        let records: Vec<Record> = Records(&bytes).collect();
        assert_eq!(records.iter().map(|record| record.whole.len()).sum::<usize>(), bytes.len());
        let events: Vec<Event> = records.iter().map(|record| Event::decode(record.data).unwrap()).collect();
        let expected = [(0, false), (300, false), (320, true)].map(|(step, is_of_epoch)| Event { step, is_of_epoch });
        assert_eq!(events, expected);
        let named = |values: &[(&str, f32)]| values.iter().map(|(tag, value)| ((*tag).to_string(), *value)).collect::<Vec<_>>();
        assert_eq!(scalars(records[1].data), named(&[("loss/train", 2.25), ("lr", 0.1)]));
        let of_epoch = [(TRAIN_LOSS, 0.5), ("loss/test", 0.625), ("accuracy/train", 0.75), ("accuracy/test", 0.7), ("epoch_seconds", 12.5)];
        assert_eq!(scalars(records[2].data), named(&of_epoch));
    }

    #[test]
    fn going_on_drops_what_comes_again_and_what_is_torn() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(folder.path(), &[], 0, 0, 4).unwrap();
        for number in 1..=6 {
            log.append(&step(number)).unwrap();
            if number == 4 {
                log.append(&epoch(1)).unwrap();
            }
        }
        let whole = file(folder.path());
        let path = find(folder.path()).unwrap().unwrap();
        let count = |steps, epochs| {
            drop(EventLog::open(folder.path(), &[step(99)], steps, epochs, 4).unwrap());
            Records(&file(folder.path())).count()
        };
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert_eq!(count(6, 1), 7);
        assert_eq!(count(5, 1), 7);
        // After the fourth update, before the test of the epoch.
        assert_eq!(count(4, 0), 5);
        fs::write(&path, [&whole[..50], b"?", &whole[51..]].concat()).unwrap();
        assert_eq!(count(6, 1), 1);
        // A run that has no events yet gets those of its lines.
        fs::remove_file(path).unwrap();
        assert_eq!(count(99, 1), 2);
    }

    #[test]
    fn nonsense_is_no_event() {
        for bytes in [&[0x0a, 200, 1][..], &[0x0b], &[0x80; 20], &[0x0d, 1]] {
            assert_eq!(Event::decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(Records(&[0xff; 64]).count(), 0);
    }
}
