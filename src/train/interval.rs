//! How often a run saves itself within an epoch.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a checkpoint is due within an epoch; there is one at every epoch's end besides.
///
/// As text: a number of updates (`200`), a time (`30s`, `5m`, `1h`), or `epoch` for no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum CheckpointInterval {
    /// At every epoch's end only.
    Epoch,
    /// When the number of updates is a multiple of this.
    Updates(u64),
    /// When so much time has passed since the last attempt.
    Time(Duration),
}

impl CheckpointInterval {
    /// Five minutes.
    pub const DEFAULT: Self = Self::Time(Duration::from_secs(300));

    /// Whether one is due after `updates` updates of the run, `since_last` after the last attempt.
    pub fn is_due(self, updates: u64, since_last: Duration) -> bool {
        match self {
            Self::Epoch => false,
            Self::Updates(every) => updates.is_multiple_of(every),
            Self::Time(every) => since_last >= every,
        }
    }
}

impl Default for CheckpointInterval {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for CheckpointInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch => write!(f, "epoch"),
            Self::Updates(every) => write!(f, "{every}"),
            Self::Time(every) => match every.as_secs() {
                seconds if seconds % 3600 == 0 => write!(f, "{}h", seconds / 3600),
                seconds if seconds % 60 == 0 => write!(f, "{}m", seconds / 60),
                seconds => write!(f, "{seconds}s"),
            },
        }
    }
}

impl From<CheckpointInterval> for String {
    fn from(interval: CheckpointInterval) -> Self {
        interval.to_string()
    }
}

impl FromStr for CheckpointInterval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a number of updates (200), a time (30s, 5m, 1h) or 'epoch'");
        if text == "epoch" {
            return Ok(Self::Epoch);
        }
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let number: u64 = digits.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
        let unit = match &text[digits.len()..] {
            "" => return Ok(Self::Updates(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit).map(|seconds| Self::Time(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

impl TryFrom<String> for CheckpointInterval {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back() {
        for (text, shown) in [("epoch", "epoch"), ("1", "1"), ("200", "200"), ("30s", "30s"), ("90s", "90s"), ("300s", "5m"), ("2h", "2h")]
        {
            assert_eq!(text.parse::<CheckpointInterval>().unwrap().to_string(), shown);
        }
        assert_eq!(CheckpointInterval::DEFAULT.to_string(), "5m");
        for wrong in ["", "0", "0s", "m", "5d", "-1", "1.5h", "5 m", "99999999999999999999", "9999999999999999999h", "5mm", "ä"] {
            let error = wrong.parse::<CheckpointInterval>().unwrap_err();
            assert!(error.contains("'epoch'"), "{error}");
        }
    }

    #[test]
    fn due_by_updates_or_by_time() {
        let minute = Duration::from_secs(60);
        assert!(!CheckpointInterval::Epoch.is_due(100, minute));
        let updates = CheckpointInterval::Updates(25);
        assert!(updates.is_due(100, Duration::ZERO) && !updates.is_due(101, minute));
        let time = CheckpointInterval::Time(minute);
        assert!(time.is_due(1, minute) && !time.is_due(100, Duration::from_secs(59)));
    }
}
