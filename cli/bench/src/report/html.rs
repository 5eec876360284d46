//! A report as one page: nothing is loaded from elsewhere, no script is needed.

use std::io;

use super::svg::{self, Lane, Span};
use super::xml::Markup;
use super::{Figure, Report};
use crate::boot::Mark;
use crate::inspect::Known;
use crate::series::Entry;

const STYLE: &str = "\
:root { color-scheme: light dark; } \
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; \
color: #1b1f24; background: #fff; } \
table { border-collapse: collapse; margin: 0.6rem 0 1.4rem; } \
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: left; vertical-align: top; } \
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } \
tr.first td { border-top: 1px solid #8b949e; } \
.legend span { display: inline-block; width: 0.8em; height: 0.8em; margin: 0 0.3em 0 1em; } \
pre { white-space: pre-wrap; } .dim { opacity: 0.75; } \
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117; } } ";

/// The page.
///
/// # Errors
/// Never in fact: it is written to memory.
pub fn page(report: &Report) -> io::Result<String> {
    let mut markup = Markup::new();
    let title = format!("Boots of {}", report.slot);
    markup.doctype()?;
    markup.open(
        "html",
        &[("xmlns", "http://www.w3.org/1999/xhtml"), ("lang", "en")],
    )?;
    markup.open("head", &[])?;
    markup.empty("meta", &[("charset", "utf-8")])?;
    markup.empty(
        "meta",
        &[("name", "viewport"), ("content", "width=device-width")],
    )?;
    markup.leaf("title", &[], &title)?;
    markup.leaf("style", &[], &[STYLE, svg::STYLE].concat())?;
    markup.close("head")?;
    markup.open("body", &[])?;
    markup.leaf("h1", &[], &title)?;
    about(&mut markup, report)?;
    markup.leaf("h2", &[], "Where the time goes")?;
    timelines(&mut markup, report)?;
    markup.leaf("h2", &[], "Figures")?;
    figures(&mut markup, &report.figures)?;
    markup.leaf("h2", &[], "Memory and KVM exits")?;
    inspections(&mut markup, &report.results.entries)?;
    failures(&mut markup, &report.results.entries)?;
    markup.leaf("h2", &[], "Notes")?;
    markup.open("ul", &[])?;
    for note in &report.notes {
        markup.leaf("li", &[], note)?;
    }
    markup.close("ul")?;
    markup.close("body")?;
    markup.close("html")?;
    Ok(markup.finish())
}

fn about(markup: &mut Markup, report: &Report) -> io::Result<()> {
    let host = &report.host;
    let on = format!(
        "{} × {}, {} MiB, Linux {}",
        host.processors, host.processor, host.memory_mib, host.kernel
    );
    let machine = report.machine.iter();
    let rows = machine.map(|(name, value)| (name.as_str(), value.as_str()));
    markup.open("table", &[])?;
    for (name, value) in rows.chain([("measured on", on.as_str())]) {
        markup.open("tr", &[])?;
        markup.leaf("th", &[], name)?;
        markup.leaf("td", &[], value)?;
        markup.close("tr")?;
    }
    markup.close("table")
}

/// One picture per contender, all on the same scale.
fn timelines(markup: &mut Markup, report: &Report) -> io::Result<()> {
    let lanes: Vec<Lane> = report.results.entries.iter().map(lane).collect();
    let ends = lanes
        .iter()
        .flat_map(|lane| &lane.spans)
        .map(|span| span.end);
    let end = ends.fold(0.0, f64::max);
    markup.open("p", &[("class", "legend")])?;
    for (colour, mark) in Mark::ALL.into_iter().enumerate() {
        let name = mark.name();
        if lanes
            .iter()
            .flat_map(|lane| &lane.spans)
            .any(|span| span.name == name)
        {
            markup.leaf("span", &[("class", &format!("c{colour}"))], "")?;
            markup.leaf("small", &[], &format!("until {name}"))?;
        }
    }
    markup.close("p")?;
    for lane in lanes {
        let title = format!("Timeline of {}", lane.name);
        svg::draw(markup, &title, &[lane], end)?;
    }
    Ok(())
}

/// From mark to mark, at the medians.
fn lane(entry: &Entry) -> Lane {
    let mut start = 0.0;
    let reached = Mark::ALL
        .into_iter()
        .enumerate()
        .filter_map(|(colour, mark)| Some((colour, mark, entry.summary(mark)?.median)));
    let mut reached: Vec<_> = reached.collect();
    reached.sort_by(|one, other| one.2.total_cmp(&other.2));
    let spans = reached.into_iter().map(|(colour, mark, end)| {
        let span = Span {
            name: mark.name().to_owned(),
            colour,
            start,
            end,
        };
        start = end;
        span
    });
    Lane {
        spans: spans.collect(),
        name: entry.name.clone(),
    }
}

fn figures(markup: &mut Markup, figures: &[Figure]) -> io::Result<()> {
    markup.open("table", &[])?;
    let head = [
        "",
        "monitor",
        "min (ms)",
        "median (ms)",
        "95 % of median",
        "p99 (ms)",
        "ratio",
        "95 % of ratio",
        "p",
    ];
    row(markup, "th", &head.map(str::to_owned), "")?;
    let mut before = None;
    for figure in figures {
        let is_first = before != Some(figure.measure);
        before = Some(figure.measure);
        let measure = if is_first {
            figure.measure.to_string()
        } else {
            String::new()
        };
        let mut cells = vec![measure, figure.monitor.clone()];
        match &figure.summary {
            Some(summary) => cells.extend([
                format!("{:.2}", summary.min),
                format!("{:.2}", summary.median),
                format!("{:.2} – {:.2}", summary.interval.low, summary.interval.high),
                format!("{:.2}", summary.p99),
            ]),
            None => cells.extend(["not shown", "", "", ""].map(str::to_owned)),
        }
        if let Some(ratio) = &figure.ratio {
            cells.extend([
                format!("{:.3}", ratio.ratio),
                format!("{:.3} – {:.3}", ratio.interval.low, ratio.interval.high),
                format!("{:.4}", ratio.p),
            ]);
        }
        // The line between measures goes through empty cells as well.
        cells.resize(head.len(), String::new());
        row(markup, "td", &cells, if is_first { "first" } else { "" })?;
    }
    markup.close("table")
}

/// The first two cells are names, the others numbers.
fn row(markup: &mut Markup, cell: &str, texts: &[String], class: &str) -> io::Result<()> {
    markup.open("tr", &[("class", class)])?;
    for (index, text) in texts.iter().enumerate() {
        let class = if index < 2 { "" } else { "n" };
        markup.leaf(cell, &[("class", class)], text)?;
    }
    markup.close("tr")
}

fn inspections(markup: &mut Markup, entries: &[Entry]) -> io::Result<()> {
    markup.open("table", &[])?;
    let head = [
        "monitor",
        "program",
        "CPU time in the guest",
        "private (KiB)",
        "shared (KiB)",
        "both at last (KiB)",
        "exits",
        "by reason",
    ];
    row(markup, "th", &head.map(str::to_owned), "")?;
    for entry in entries {
        let mut cells = vec![entry.name.clone(), entry.program.display().to_string()];
        match &entry.inspection {
            None => cells.push("no boot was looked at".to_owned()),
            Some(seen) => {
                let part = seen.time.value().and_then(|spent| spent.guest_part());
                cells.push(part.map_or_else(String::new, |part| format!("{:.0} %", part * 100.0)));
                match &seen.memory {
                    Known::Value(memory) => cells.extend([
                        memory.most.private_kib.to_string(),
                        memory.most.shared_kib.to_string(),
                        memory.last.total_kib().to_string(),
                    ]),
                    Known::NotAvailable(why) => {
                        let why = format!("not available: {why}");
                        cells.extend([why, String::new(), String::new()]);
                    }
                }
                match &seen.exits {
                    Known::Value(exits) => {
                        let reasons = exits.by_reason.iter().filter(|(_, count)| **count > 0);
                        let reasons: Vec<String> = reasons
                            .map(|(name, count)| format!("{name} {count}"))
                            .collect();
                        cells.extend([exits.total.to_string(), reasons.join(", ")]);
                    }
                    Known::NotAvailable(why) => cells.push(format!("not available: {why}")),
                }
            }
        }
        row(markup, "td", &cells, "")?;
    }
    markup.close("table")
}

fn failures(markup: &mut Markup, entries: &[Entry]) -> io::Result<()> {
    if entries.iter().all(|entry| entry.failures.is_empty()) {
        return Ok(());
    }
    markup.leaf("h2", &[], "Boots that failed")?;
    for entry in entries {
        for failure in &entry.failures {
            let text = format!("{}, boot {}: {}", entry.name, failure.boot, failure.reason);
            markup.leaf("pre", &[], &text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::results;
    use super::*;

    #[test]
    fn page_is_well_formed_and_draws_each_phase_of_each_monitor() {
        let machine = vec![("kernel".to_owned(), "6.1 <&>".to_owned())];
        let report = Report::of("slot1".to_owned(), machine, Vec::new(), results());
        let page = page(&report).unwrap();
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..roxmltree::ParsingOptions::default()
        };
        let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
        let pictures: Vec<_> = document
            .descendants()
            .filter(|node| node.tag_name().name() == "svg")
            .collect();
        assert_eq!(pictures.len(), 2);
        let drawn = |index: usize| -> Vec<&str> {
            let parts = pictures[index].descendants();
            parts
                .filter_map(|node| node.attribute("data-name"))
                .collect()
        };
        assert_eq!(
            drawn(0),
            ["vcpu run", "first output", "init", "ready", "stop", "exit"]
        );
        assert_eq!(drawn(1), ["first output", "init", "ready", "stop", "exit"]);
        assert!(page.contains("not shown"));
        assert!(page.contains("Boots that failed"));
        assert!(page.contains("&lt;nothing&gt;"));
    }

    #[test]
    fn page_needs_nothing_from_elsewhere() {
        let report = Report::of("slot1".to_owned(), Vec::new(), Vec::new(), results());
        let page = page(&report).unwrap();
        for word in ["<script", "src=", "href=", "url(", "@import"] {
            assert!(!page.contains(word), "{word}");
        }
    }
}
