//! `--memory-budget` and `--batch-size auto`.

use super::error::Failure;
use crate::variables;
use std::str::FromStr;

/// How much device memory to use.
#[derive(clap::Args, Default)]
pub struct MemoryArgs {
    /// Most device memory that all buffers may take together: 512M, 512MiB, 1.5G [default: no limit but the adapter's]
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<ByteSize>,
}

impl MemoryArgs {
    /// The budget in bytes, from the flag or else from the environment; `None` where there is none.
    pub fn budget(&self) -> Result<Option<u64>, Failure> {
        if let Some(ByteSize(bytes)) = self.memory_budget {
            return Ok(Some(bytes));
        }
        let Some(text) = variables::MEMORY_BUDGET.value().filter(|text| !text.trim().is_empty()) else { return Ok(None) };
        let size: ByteSize = text.parse().map_err(|error| Failure::Usage(format!("{}={text}: {error}", variables::MEMORY_BUDGET.name)))?;
        Ok(Some(size.0))
    }
}

/// A number of bytes, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a size is a number with a unit, such as 512M, 512MiB or 1.5G".to_string();
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim().to_ascii_lowercase();
        let binary = unit.strip_suffix("ib");
        let prefix = binary.unwrap_or_else(|| unit.strip_suffix('b').unwrap_or(&unit));
        let power = match prefix {
            "" if binary.is_none() => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            _ => return Err(wrong()),
        };
        let bytes = number * if binary.is_some() { 1024f64 } else { 1000f64 }.powi(power);
        if (1.0..=1e18).contains(&bytes) { Ok(ByteSize(bytes as u64)) } else { Err("a size is at least one byte".into()) }
    }
}

/// Images in a batch: so many, or as many as fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// The largest batch that runs in one pass.
    Auto,
    /// At least 1.
    Images(usize),
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(BatchSize::Auto);
        }
        match text.parse() {
            Ok(images) if (1..=1 << 20).contains(&images) => Ok(BatchSize::Images(images)),
            _ => Err(format!("must be auto, or 1 to {}", 1 << 20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        let cases = [
            ("512M", 512_000_000),
            ("512MB", 512_000_000),
            ("512 MiB", 512 << 20),
            ("1.5G", 1_500_000_000),
            ("1.5gib", 3 << 29),
            ("2T", 2_000_000_000_000),
            ("100", 100),
            ("100B", 100),
            ("64k", 64_000),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "M", "-5M", "0", "0.1", "12Q", "1e9", "512iB", "1.2.3G", "inf", "9999999999T"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_batch_size_is_a_number_or_auto() {
        assert_eq!("auto".parse(), Ok(BatchSize::Auto));
        assert_eq!("64".parse(), Ok(BatchSize::Images(64)));
        for text in ["0", "-1", "1048577", "many", ""] {
            assert!(text.parse::<BatchSize>().is_err(), "{text}");
        }
    }
}
