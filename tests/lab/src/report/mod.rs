//! Measurements as tables in `docs/performance.md`: the words there are people's, what is between the
//! marks of a table is written here.
//!
//! [`tables`] turns the values of one measurement into rows, [`criterion`] finds those of `cargo bench`,
//! [`document`] replaces what is between marks.

mod criterion;
mod document;
mod tables;

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::inside::Reads;
use crate::record::{Machine, Record};

/// Makes a table's rows of values; nothing when they are not what was expected.
type Rows = fn(&Value) -> Option<String>;

/// Name of the mark and of the file, and what its values look like.
const TABLES: [(&str, Rows); 9] = [
    ("bench-mini", tables::bench),
    ("bench-systemd", tables::bench),
    ("together", tables::together),
    ("measure", tables::measure),
    ("reads", tables::reads),
    ("throughput", tables::throughput),
    ("shares", tables::shares),
    ("shares-counted", tables::shares),
    ("criterion", tables::criterion),
];

/// The document with every table that there is a measurement for, and what became of each.
///
/// # Errors
/// When a file of a measurement is none, or the document's marks are not in pairs.
pub fn write(
    document: &str,
    measurements: &Path,
    criterion: &Path,
) -> Result<(String, Vec<String>)> {
    let mut text = document.to_owned();
    let mut said = Vec::new();
    for (name, rows) in TABLES {
        let record = match name {
            "criterion" => criterion::collect(criterion)?,
            _ => Record::load(measurements, name)?,
        };
        let Some(record) = record else {
            said.push(format!("{name}: not measured, its table stays"));
            continue;
        };
        let Some(rows) = rows(&record.values) else {
            said.push(format!(
                "{name}: its values are not understood, its table stays"
            ));
            continue;
        };
        let block = format!("{}\n\n{rows}", caption(&record));
        match document::replace(&text, name, &block)? {
            Some(replaced) => {
                said.push(format!("{name}: of {}", record.date));
                text = replaced;
            }
            None => said.push(format!("{name}: the document has no place for it")),
        }
    }
    Ok((text, said))
}

/// The table of what `cargo lab reads` has measured.
///
/// # Errors
/// When there is nothing in it.
pub fn reads(reads: &[Reads]) -> Result<String> {
    tables::reads(&serde_json::to_value(reads)?).context("Nothing was read")
}

fn caption(record: &Record) -> String {
    let Machine {
        processor,
        processors,
        kernel,
        hardware_virtualisation,
    } = &record.machine;
    let virtualisation = if *hardware_virtualisation {
        "with hardware virtualisation"
    } else {
        "without hardware virtualisation (emulated)"
    };
    let count = match processors {
        1 => "1 processor".to_owned(),
        many => format!("{many} processors"),
    };
    format!(
        "slotvmm {}, {}, `{}`, {count} {processor}, Linux {kernel}, {virtualisation}:",
        record.version, record.date, record.command
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DOCUMENT: &str = "# Title\n\nWords.\n\n<!-- figures: measure -->\nold\n<!-- end of figures -->\n\n\
                            <!-- figures: shares -->\nkept\n<!-- end of figures -->\nMore words.\n";

    fn record(values: Value) -> Record {
        Record {
            command: "cargo lab measure".to_owned(),
            version: "1.2.3".to_owned(),
            date: "2026-01-02".to_owned(),
            machine: Machine {
                processor: "Example".to_owned(),
                processors: 2,
                kernel: "6.1".to_owned(),
                hardware_virtualisation: false,
            },
            values,
        }
    }

    #[test]
    fn tables_are_written_once_and_words_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let sample = json!({ "monitor": "slotvmm", "cpu_ms": 1459.8, "init_s": 1.22, "exits_to_init": { "CPUID": 2000, "MSR": 147 },
                             "exits": { "CPUID": 2994 } });
        record(json!([sample])).save(dir.path(), "measure").unwrap();
        let (once, said) = write(DOCUMENT, dir.path(), &dir.path().join("none")).unwrap();
        assert!(once.contains(
            "slotvmm 1.2.3, 2026-01-02, `cargo lab measure`, 2 processors Example, Linux 6.1, without hardware \
             virtualisation (emulated):"
        ));
        assert!(
            once.contains("| CPU time of the process, `exec` to exit | 1459.8 ms |"),
            "{once}"
        );
        assert!(!once.contains("old") && once.contains("kept") && once.contains("More words."));
        assert!(said.contains(&"shares: not measured, its table stays".to_owned()));
        let (twice, _) = write(&once, dir.path(), &dir.path().join("none")).unwrap();
        assert_eq!(once, twice);
    }

    #[test]
    fn values_of_another_kind_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        record(json!("none")).save(dir.path(), "measure").unwrap();
        let (text, said) = write(DOCUMENT, dir.path(), dir.path()).unwrap();
        assert_eq!(text, DOCUMENT);
        assert!(said[3].contains("not understood"), "{said:?}");
    }

    #[test]
    fn document_has_a_place_for_every_table() {
        let document = include_str!("../../../../docs/performance.md");
        for (name, _) in TABLES {
            assert!(
                document::replace(document, name, "x").unwrap().is_some(),
                "docs/performance.md has no mark for {name}"
            );
        }
        assert_eq!(
            document.matches("<!-- figures: ").count(),
            TABLES.len(),
            "docs/performance.md has a mark that nothing writes to"
        );
    }
}
