//! What commands print: a table for people, JSON for programs. Errors and logs go to stderr.

use std::fmt::Display;
use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

/// The form of output that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables.
    Text,
    /// One JSON value.
    Json,
}

/// Something that can be printed in both forms.
pub(crate) trait Report: Serialize {
    /// The form for people.
    fn text(&self) -> String;
}

/// Prints a report to standard output.
///
/// # Errors
/// When standard output fails; a reader that went away is not a failure.
pub(crate) fn print(report: &impl Report, format: Format) -> io::Result<()> {
    match format {
        Format::Text => print_text(&report.text()),
        Format::Json => print_json(report),
    }
}

/// Prints one JSON value to standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    print_text(&serde_json::to_string_pretty(value)?)
}

/// Prints text and a line break to standard output.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_text(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.trim_end().as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// A table with a heading line.
pub(crate) fn table<const N: usize>(
    heading: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = plain();
    table.set_header(heading);
    table.add_rows(rows);
    trimmed(table)
}

/// A table of names and values.
pub(crate) fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = plain();
    table.add_rows(
        rows.into_iter()
            .map(|(name, value)| [name.to_owned(), value]),
    );
    trimmed(table)
}

/// A value, or a dash when there is none.
pub(crate) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Bytes in the largest binary unit that divides them.
pub(crate) fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fitting = units
        .iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    match fitting {
        Some((shift, unit)) => format!("{} {unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

fn plain() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Columns are padded to the right; nobody wants that at the end of a line.
fn trimmed(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_use_the_largest_unit_that_is_exact() {
        assert_eq!(size(64 << 30), "64 GiB");
        assert_eq!(size(1536 << 20), "1536 MiB");
        assert_eq!(size(513), "513 bytes");
        assert_eq!(size(0), "0 bytes");
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let table = table(["a", "long heading"], [["x".to_owned(), "y".to_owned()]]);
        assert!(
            table.lines().all(|line| line == line.trim_end()),
            "{table:?}"
        );
        assert_eq!(table.lines().count(), 2);
    }
}
