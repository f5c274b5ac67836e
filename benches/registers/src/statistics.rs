//! What drivers say of a pipeline, under their own names and, where it is known, under ours.

use serde_json::{Map, Value, json};

/// An executable of a pipeline: its name, and each statistic with its name.
pub type Executable = (String, Vec<(String, Value)>);

/// The names that drivers give to what a line calls by the first: NVIDIA's, then Mesa's (RADV, ANV, Turnip), then AMD's own.
const KNOWN: [(&str, &[&str]); 3] = [
    ("registers", &["register count", "vgprs", "max live registers", "max registers", "numusedvgprs"]),
    ("spilled_bytes", &["local memory size", "scratch size", "scratch memory size", "scratchmemusageinbytes"]),
    ("code_bytes", &["binary size", "code size", "shader size", "codesize"]),
];

/// Adds the statistics to the line of a kernel. Of several executables (ANV compiles for subgroups of 8, 16 and 32 lanes) the
/// one that takes most counts for the known names, and statistics have the executable's name before their own.
pub fn add(line: &mut Value, executables: &[Executable]) {
    let mut all = Map::new();
    for (executable, statistics) in executables {
        for (name, value) in statistics {
            let name = if executables.len() > 1 { format!("{executable}: {name}") } else { name.clone() };
            all.insert(name, value.clone());
        }
    }
    for (ours, theirs) in KNOWN {
        let found = theirs.iter().find_map(|wanted| {
            let values = executables.iter().flat_map(|(_, statistics)| statistics);
            values.filter(|(name, _)| name.to_lowercase() == *wanted).filter_map(|(_, value)| value.as_u64()).max()
        });
        if let Some(value) = found {
            line[ours] = json!(value);
        }
    }
    line["statistics"] = Value::Object(all);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_statistics_get_common_names() {
        let nvidia = ("compute".to_string(), vec![("Register Count".to_string(), json!(128)), ("Binary Size".to_string(), json!(9000))]);
        let mut line = json!({ "kernel": "k" });
        add(&mut line, &[nvidia]);
        let expected = json!({
            "kernel": "k", "registers": 128, "code_bytes": 9000, "statistics": { "Register Count": 128, "Binary Size": 9000 }
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn of_several_executables_the_largest_counts() {
        let of = |name: &str, scratch: u64| (name.to_string(), vec![("Scratch Memory Size".to_string(), json!(scratch))]);
        let mut line = json!({});
        add(&mut line, &[of("SIMD8", 0), of("SIMD16", 64)]);
        let statistics = json!({ "SIMD8: Scratch Memory Size": 0, "SIMD16: Scratch Memory Size": 64 });
        assert_eq!(line, json!({ "spilled_bytes": 64, "statistics": statistics }));
    }

    #[test]
    fn a_driver_that_says_nothing_adds_nothing() {
        let mut line = json!({});
        add(&mut line, &[]);
        assert_eq!(line, json!({ "statistics": {} }));
    }
}
