//! `report`: writes what was measured into docs/performance.md.

use std::fs;

use anyhow::{Context, Result};

use super::workspace;
use crate::{record, report};

/// Where the tables are, below the workspace.
const DOCUMENT: &str = "docs/performance.md";

/// Writes every table that there is a measurement for, and says what became of each.
///
/// # Errors
/// When a file cannot be read or written, or the marks in the document are not in pairs.
pub fn report() -> Result<u8> {
    let path = workspace::root()?.join(DOCUMENT);
    let before = fs::read_to_string(&path).with_context(|| format!("Cannot read {DOCUMENT}"))?;
    let criterion = workspace::target()?.join("criterion");
    let (after, said) = report::write(&before, &record::dir()?, &criterion)?;
    if after != before {
        fs::write(&path, after).with_context(|| format!("Cannot write {DOCUMENT}"))?;
    }
    for line in said {
        println!("{line}");
    }
    Ok(0)
}
