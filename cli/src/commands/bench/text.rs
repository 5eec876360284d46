//! The results as text.

use boot_bench::inspect::{Known, Spent};
use boot_bench::report::{Figure, Report as Results};
use boot_bench::series::Entry;
use serde::{Serialize, Serializer};

use crate::output::{Report, pairs, table};

/// A report as it is printed.
pub(super) struct Printed<'a>(pub(super) &'a Results);

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Report for Printed<'_> {
    fn text(&self) -> String {
        let report = self.0;
        let about = report.machine.iter();
        let about = about.map(|(name, value)| (name.as_str(), value.clone()));
        let mut sections = vec![
            pairs(about),
            figures(&report.figures),
            inspections(&report.results.entries),
        ];
        let failures = failures(&report.results.entries);
        if !failures.is_empty() {
            sections.push(failures);
        }
        sections.push(report.notes.join("\n"));
        sections.join("\n\n")
    }
}

fn figures(figures: &[Figure]) -> String {
    let rows = figures.iter().map(|figure| {
        let (min, median, interval, p99) = match &figure.summary {
            Some(summary) => (
                milliseconds(summary.min),
                milliseconds(summary.median),
                range(summary.interval.low, summary.interval.high, 2),
                milliseconds(summary.p99),
            ),
            None => ("not shown".to_owned(), dash(), dash(), dash()),
        };
        let (ratio, ratios, p) = match &figure.ratio {
            Some(ratio) => (
                format!("{:.3}", ratio.ratio),
                range(ratio.interval.low, ratio.interval.high, 3),
                format!("{:.4}", ratio.p),
            ),
            None => (dash(), dash(), dash()),
        };
        [
            figure.measure.to_string(),
            figure.monitor.clone(),
            min,
            median,
            interval,
            p99,
            ratio,
            ratios,
            p,
        ]
    });
    let head = [
        "MEASURE", "MONITOR", "MIN (ms)", "MEDIAN", "95 %", "P99", "RATIO", "95 %", "P",
    ];
    table(head, rows)
}

fn inspections(entries: &[Entry]) -> String {
    let rows = entries.iter().map(|entry| {
        let Some(seen) = &entry.inspection else {
            return [
                entry.name.clone(),
                "not looked at".to_owned(),
                dash(),
                dash(),
                dash(),
            ];
        };
        let memory = match &seen.memory {
            Known::Value(memory) => format!(
                "{} KiB ({} private), at last {}",
                memory.most.total_kib(),
                memory.most.private_kib,
                memory.last.total_kib()
            ),
            Known::NotAvailable(why) => format!("not available: {why}"),
        };
        let (exits, reasons) = match &seen.exits {
            Known::Value(exits) => {
                let reasons = exits.by_reason.iter().filter(|(_, count)| **count > 0);
                let reasons = reasons.map(|(name, count)| format!("{name} {count}"));
                (
                    exits.total.to_string(),
                    reasons.collect::<Vec<_>>().join(", "),
                )
            }
            Known::NotAvailable(why) => (format!("not available: {why}"), dash()),
        };
        let time = match seen.time.value() {
            Some(spent) => spent_on(*spent),
            None => dash(),
        };
        [entry.name.clone(), time, memory, exits, reasons]
    });
    table(
        [
            "MONITOR",
            "CPU TIME IN THE GUEST",
            "MEMORY BESIDES GUEST RAM",
            "KVM EXITS",
            "BY REASON",
        ],
        rows,
    )
}

fn spent_on(spent: Spent) -> String {
    match spent.guest_part() {
        Some(part) => format!(
            "{:.0} % (itself {:.0} ms, kernel {:.0} ms)",
            part * 100.0,
            spent.monitor_ms,
            spent.kernel_ms
        ),
        None => dash(),
    }
}

fn failures(entries: &[Entry]) -> String {
    let lines = entries.iter().flat_map(|entry| {
        let failures = entry.failures.iter();
        failures.map(|one| format!("FAILED: {}, boot {}: {}", entry.name, one.boot, one.reason))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn milliseconds(value: f64) -> String {
    format!("{value:.2}")
}

fn range(low: f64, high: f64, places: usize) -> String {
    format!("{low:.places$}–{high:.places$}")
}

fn dash() -> String {
    "-".to_owned()
}
