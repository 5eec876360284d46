//! Estimates of `cargo bench`: `BENCHMARK/new/{benchmark,estimates}.json` below criterion's directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::process;
use crate::record::Record;

/// How deep benchmarks lie: group, function, value, `new`.
const DEPTH: u32 = 4;

/// Every benchmark with its median and confidence interval in nanoseconds, as of the day of the newest;
/// nothing when there is none.
pub(super) fn collect(dir: &Path) -> Result<Option<Record>> {
    let mut found = Vec::new();
    if dir.exists() {
        walk(dir, DEPTH, &mut found)?;
    }
    found.sort_by_key(|(value, _)| value["name"].as_str().map(str::to_owned));
    let Some((_, newest)) = found.iter().max_by_key(|(_, path)| modified(path)) else {
        return Ok(None);
    };
    let day = process::output(Command::new("date").args(["-u", "+%F", "-r"]).arg(newest))?;
    let values: Vec<&Value> = found.iter().map(|(value, _)| value).collect();
    let mut record = Record::now("cargo bench -p benches", &values)?;
    record.date = day.trim().to_owned();
    Ok(Some(record))
}

type Found = (Value, std::path::PathBuf);

fn walk(dir: &Path, depth: u32, found: &mut Vec<Found>) -> Result<()> {
    let new = dir.join("new");
    if new.join("estimates.json").exists() {
        let read = |name: &str| -> Result<Value> {
            let path = new.join(name);
            let text =
                fs::read(&path).with_context(|| format!("Cannot read {}", path.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
        };
        let (about, estimates) = (read("benchmark.json")?, read("estimates.json")?);
        let median = &estimates["median"];
        let value = json!({
            "name": about["full_id"],
            "median_ns": median["point_estimate"],
            "low_ns": median["confidence_interval"]["lower_bound"],
            "high_ns": median["confidence_interval"]["upper_bound"],
        });
        found.push((value, new.join("estimates.json")));
    }
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != "new" {
            walk(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata().ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn benchmarks_are_found_by_their_full_name() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(collect(&dir.path().join("none")).unwrap(), None);
        let new = dir.path().join("queue/pop/new");
        fs::create_dir_all(&new).unwrap();
        fs::write(new.join("benchmark.json"), r#"{"full_id":"queue/pop"}"#).unwrap();
        let estimates = r#"{"median":{"point_estimate":1500.0,"confidence_interval":
                           {"lower_bound":1400.0,"upper_bound":1600.0}}}"#;
        fs::write(new.join("estimates.json"), estimates).unwrap();
        fs::create_dir_all(dir.path().join("report")).unwrap();
        let record = collect(dir.path()).unwrap().unwrap();
        let expected = json!([{ "name": "queue/pop", "median_ns": 1500.0, "low_ns": 1400.0,
                                "high_ns": 1600.0 }]);
        assert_eq!(record.values, expected);
        assert_eq!(record.date.len(), "2026-01-02".len());
    }
}
