//! Values as rows of a table. Each function takes what its measurement prints as JSON.

use boot_bench::boot::Mark;
use serde_json::Value;

use crate::inside::{Reading, Reads, Sample, Transfer};

/// A table with a column for what is measured.
struct Table {
    text: String,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        let mut table = Self {
            text: String::new(),
        };
        table.row(head);
        table.text.push_str(&"|---".repeat(head.len()));
        table.text.push_str("|\n");
        table
    }

    fn row<S: AsRef<str>>(&mut self, cells: &[S]) {
        for cell in cells {
            self.text.push_str("| ");
            self.text.push_str(cell.as_ref());
            self.text.push(' ');
        }
        self.text.push_str("|\n");
    }
}

/// Measures of [`Sample`], as people read them.
type SampleMeasure = (&'static str, fn(&Sample) -> f64, fn(f64) -> String);

const SAMPLES: [SampleMeasure; 4] = [
    (
        "CPU time of the process, `exec` to exit",
        |sample| sample.cpu_ms,
        |value| format!("{value:.1} ms"),
    ),
    (
        "guest's clock when init starts",
        |sample| sample.init_s,
        |value| format!("{value:.2} s"),
    ),
    (
        "KVM exits until init starts",
        |sample| sample.exits_to_init.values().sum::<u64>() as f64,
        |value| format!("{value:.0}"),
    ),
    (
        "KVM exits until the machine ends",
        |sample| sample.exits.values().sum::<u64>() as f64,
        |value| format!("{value:.0}"),
    ),
];

/// Fewer exits than this for one reason are not told of.
const RARE: f64 = 10.0;

/// `cargo lab measure`: medians of each monitor, and their ratio to slotvmm's.
pub(super) fn measure(values: &Value) -> Option<String> {
    let samples: Vec<Sample> = serde_json::from_value(values.clone()).ok()?;
    let monitors = distinct(samples.iter().map(|sample| sample.monitor.as_str()));
    let mut table = Table::new(&[&[""], &monitors[..]].concat());
    for (name, take, print) in SAMPLES {
        let of = |monitor: &&str| {
            let values = samples.iter().filter(|sample| sample.monitor == *monitor);
            median(values.map(take))
        };
        let medians: Option<Vec<f64>> = monitors.iter().map(of).collect();
        table.row(&with_ratios(name, &medians?, print));
    }
    let reasons = samples
        .iter()
        .flat_map(|sample| sample.exits_to_init.keys());
    for reason in distinct(reasons.map(String::as_str)) {
        let of = |monitor: &&str| {
            let samples = samples.iter().filter(|sample| sample.monitor == *monitor);
            let count = |sample: &Sample| sample.exits_to_init.get(reason).copied().unwrap_or(0);
            median(samples.map(|sample| count(sample) as f64))
        };
        let medians: Option<Vec<f64>> = monitors.iter().map(of).collect();
        let medians = medians?;
        if medians.iter().any(|count| *count >= RARE) {
            let name = format!("of those until init: {reason}");
            table.row(&with_ratios(&name, &medians, |value| format!("{value:.0}")));
        }
    }
    Some(table.text)
}

/// Measures of [`Reads`], as people read them.
type ReadsMeasure = (&'static str, fn(&Reads) -> f64, fn(f64) -> String);

const READS: [ReadsMeasure; 3] = [
    (
        "a read, by the guest's clock",
        |reads| reads.read_us,
        |value| format!("{value:.1} µs"),
    ),
    (
        "KVM exits for each",
        |reads| reads.exits,
        |value| format!("{value:.2}"),
    ),
    (
        "of those to the monitor",
        |reads| reads.exits_to_monitor,
        |value| format!("{value:.3}"),
    ),
];

/// `cargo lab reads`: medians of each monitor, and their ratio to slotvmm's.
pub(super) fn reads(values: &Value) -> Option<String> {
    let reads: Vec<Reads> = serde_json::from_value(values.clone()).ok()?;
    let monitors = distinct(reads.iter().map(|one| one.monitor.as_str()));
    let mut table = Table::new(&[&[""], &monitors[..]].concat());
    for (name, take, print) in READS {
        let of = |monitor: &&str| {
            let same = reads.iter().filter(|one| one.monitor == *monitor);
            median(same.map(take))
        };
        let medians: Option<Vec<f64>> = monitors.iter().map(of).collect();
        table.row(&with_ratios(name, &medians?, print));
    }
    Some(table.text)
}

/// `slotvmm bench boot`: medians of each measure that all monitors show.
pub(super) fn bench(values: &Value) -> Option<String> {
    let figures = values["figures"].as_array()?;
    let monitors = distinct(
        figures
            .iter()
            .filter_map(|figure| figure["monitor"].as_str()),
    );
    let mut table = Table::new(&[&[""], &monitors[..]].concat());
    let mut measures: Vec<&Value> = Vec::new();
    for figure in figures {
        if !measures.contains(&&figure["measure"]) {
            measures.push(&figure["measure"]);
        }
    }
    for measure in measures {
        let of = |monitor: &&str| {
            let mut found = figures.iter().filter(|one| one["measure"] == *measure);
            found.find(|one| one["monitor"] == *monitor)?["summary"]["median"].as_f64()
        };
        let medians: Option<Vec<f64>> = monitors.iter().map(of).collect();
        if let Some(medians) = medians {
            table.row(&with_ratios(&name(measure)?, &medians, milliseconds));
        }
    }
    for (name, row) in inspected(values, &monitors) {
        table.row(&[vec![name.to_owned()], row].concat());
    }
    Some(table.text)
}

/// What was seen in the boot that was looked at.
fn inspected(values: &Value, monitors: &[&str]) -> Vec<(&'static str, Vec<String>)> {
    let entries = values["results"]["entries"].as_array();
    let seen = |monitor: &&str| {
        let mut entries = entries.into_iter().flatten();
        entries
            .find(|entry| entry["name"] == *monitor)
            .map_or(&Value::Null, |entry| &entry["inspection"])
    };
    let cell = |value: Option<String>| value.unwrap_or_else(|| "not available".to_owned());
    let each = |take: &dyn Fn(&Value) -> Option<String>| {
        monitors.iter().map(|one| cell(take(seen(one)))).collect()
    };
    vec![
        (
            "CPU time that is the guest's own code",
            each(&|seen| {
                let spent = &seen["time"]["value"];
                let part = |name: &str| spent[name].as_f64();
                let guest = part("guest_ms")?;
                let all = guest + part("monitor_ms")? + part("kernel_ms")?;
                (all > 0.0).then(|| format!("{:.0} %", guest / all * 100.0))
            }),
        ),
        (
            "memory besides guest RAM, at most",
            each(&|seen| occupied(&seen["memory"]["value"]["most"])),
        ),
        (
            "memory besides guest RAM, at last",
            each(&|seen| occupied(&seen["memory"]["value"]["last"])),
        ),
        (
            "KVM exits",
            each(&|seen| Some(seen["exits"]["value"]["total"].as_u64()?.to_string())),
        ),
    ]
}

/// What is resident, and how much of it is the monitor's own.
fn occupied(resident: &Value) -> Option<String> {
    let (private, shared) = (
        resident["private_kib"].as_u64()?,
        resident["shared_kib"].as_u64()?,
    );
    let total = private.checked_add(shared)?;
    Some(format!("{total} KiB, {private} of it private"))
}

/// `slotvmm bench boot --together`.
pub(super) fn together(values: &Value) -> Option<String> {
    let machines = values["machines"].as_u64()?;
    let at_once = format!("each of {machines} at once");
    let mut table = Table::new(&["median", "one alone", &at_once]);
    let cell = |value: &Value| Some(milliseconds(value["median"].as_f64()?));
    for marked in values["marks"].as_array()? {
        let mark: Mark = serde_json::from_value(marked["mark"].clone()).ok()?;
        let name = format!("`exec` to {mark}");
        table.row(&[name, cell(&marked["alone"])?, cell(&marked["each"])?]);
    }
    let (alone, all) = (&values["alone_ms"], &values["all_ms"]);
    table.row(&["first `exec` to last exit", &cell(alone)?, &cell(all)?]);
    let (alone, all) = (&values["alone_cpu_ms"], &values["all_cpu_ms"]);
    table.row(&["CPU time, all together", &cell(alone)?, &cell(all)?]);
    let minimum = milliseconds(values["minimum_ms"].as_f64()?);
    table.row(&["least that the processors allow", "", &minimum]);
    let ratio = format!("{:.2}", values["ratio"].as_f64()?);
    table.row(&["ratio to it", "", &ratio]);
    let processors = values["host"]["processors"].as_f64()?;
    let (wall, cpu) = (
        values["all_ms"]["median"].as_f64()?,
        values["all_cpu_ms"]["median"].as_f64()?,
    );
    let waiting = format!("{:.2}", wall * processors / cpu);
    table.row(&[
        "time to their own CPU time, shared by the processors",
        "",
        &waiting,
    ]);
    Some(table.text)
}

/// `cargo lab throughput`: medians, and the ratio to QEMU of the same kind.
pub(super) fn throughput(values: &Value) -> Option<String> {
    let transfers: Vec<Transfer> = serde_json::from_value(values.clone()).ok()?;
    let monitors = distinct(transfers.iter().map(|one| one.monitor.as_str()));
    let mut table = Table::new(&["", "", "rate", "to QEMU of the same kind"]);
    for direction in distinct(transfers.iter().map(|one| one.direction.as_str())) {
        let rate = |monitor: &str| {
            let same = |one: &&Transfer| one.direction == direction && one.monitor == monitor;
            median(transfers.iter().filter(same).map(|one| one.mbit_s))
        };
        for monitor in &monitors {
            let own = rate(monitor)?;
            let ratio = own / rate(&monitor.replace("slotvmm", "qemu"))?;
            let (own, ratio) = (format!("{own:.0} Mbit/s"), format!("{ratio:.2}"));
            table.row(&[direction, monitor, &own, &ratio]);
        }
    }
    Some(table.text)
}

/// `cargo lab shares`: medians of each contender.
pub(super) fn shares(values: &Value) -> Option<String> {
    let readings: Vec<Reading> = serde_json::from_value(values.clone()).ok()?;
    let contenders = distinct(readings.iter().map(|one| one.contender.as_str()));
    let mut table = Table::new(&[&["median"], &contenders[..]].concat());
    for measure in distinct(readings.iter().map(|one| one.measure.as_str())) {
        let of = |contender: &&str| {
            let same = |one: &&Reading| one.measure == measure && one.contender == *contender;
            median(readings.iter().filter(same).map(|one| one.value))
        };
        let medians: Option<Vec<f64>> = contenders.iter().map(of).collect();
        table.row(&with_ratios(measure, &medians?, |value| {
            format!("{value:.0}")
        }));
    }
    Some(table.text)
}

/// `cargo bench`: medians with their confidence intervals.
pub(super) fn criterion(values: &Value) -> Option<String> {
    let mut table = Table::new(&["benchmark", "median", "95 %"]);
    for value in values.as_array()? {
        let time = |key: &str| value[key].as_f64().map(nanoseconds);
        let interval = format!("{} to {}", time("low_ns")?, time("high_ns")?);
        let name = format!("`{}`", value["name"].as_str()?);
        table.row(&[name, time("median_ns")?, interval]);
    }
    Some(table.text)
}

/// A row: the first value, then each further one with how many times the first it is.
fn with_ratios(name: &str, values: &[f64], print: impl Fn(f64) -> String) -> Vec<String> {
    let first = values.first().copied().unwrap_or(f64::NAN);
    let mut cells = vec![name.to_owned()];
    cells.extend(values.iter().enumerate().map(|(index, value)| match index {
        0 => print(*value),
        _ => format!("{} ({:.2} x)", print(*value), value / first),
    }));
    cells
}

/// A measure of `bench boot` in words.
fn name(measure: &Value) -> Option<String> {
    match measure.as_str() {
        Some("cpu") => Some("CPU time".to_owned()),
        Some("ending") => Some("stop to exit".to_owned()),
        Some(_) => None,
        None => {
            let mark: Mark = serde_json::from_value(measure["until"].clone()).ok()?;
            Some(format!("`exec` to {mark}"))
        }
    }
}

fn milliseconds(value: f64) -> String {
    format!("{value:.1} ms")
}

/// A time in the unit that leaves it between 1 and 1000.
fn nanoseconds(value: f64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    let unit = units.into_iter().find(|(size, _)| value >= *size);
    let (size, name) = unit.unwrap_or((1.0, "ns"));
    format!("{:.3} {name}", value / size)
}

/// Every word once, in the order of first appearance.
fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut list = Vec::new();
    for word in words {
        if !list.contains(&word) {
            list.push(word);
        }
    }
    list
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn boots_are_a_column_for_each_monitor() {
        let figure = |measure: Value, monitor: &str, median: Option<f64>| {
            let summary = median.map(|median| json!({ "median": median }));
            json!({ "measure": measure, "monitor": monitor, "summary": summary })
        };
        let seen = json!({ "time": { "value": { "guest_ms": 90.0, "monitor_ms": 4.0, "kernel_ms": 6.0 } },
                           "memory": { "value": { "most": { "private_kib": 20, "shared_kib": 3 },
                                                   "last": { "private_kib": 15, "shared_kib": 1 } } },
                           "exits": { "not_available": "why" } });
        let values = json!({
            "figures": [
                figure(json!({ "until": "vcpu_run" }), "slotvmm", Some(1.0)),
                figure(json!({ "until": "vcpu_run" }), "qemu", None),
                figure(json!("cpu"), "slotvmm", Some(100.0)),
                figure(json!("cpu"), "qemu", Some(150.0)),
            ],
            "results": { "entries": [{ "name": "slotvmm", "inspection": seen }, { "name": "qemu" }] },
        });
        let expected = "|  | slotvmm | qemu |\n|---|---|---|\n\
                        | CPU time | 100.0 ms | 150.0 ms (1.50 x) |\n\
                        | CPU time that is the guest's own code | 90 % | not available |\n\
                        | memory besides guest RAM, at most | 23 KiB, 20 of it private | not available |\n\
                        | memory besides guest RAM, at last | 16 KiB, 15 of it private | not available |\n\
                        | KVM exits | not available | not available |\n";
        assert_eq!(bench(&values).unwrap(), expected);
    }

    #[test]
    fn machines_at_once_have_a_row_for_each_mark() {
        let median = |value: f64| json!({ "median": value });
        let values = json!({
            "machines": 5, "host": { "processors": 2 }, "minimum_ms": 100.0, "ratio": 1.234,
            "alone_ms": median(50.0), "all_ms": median(123.4),
            "alone_cpu_ms": median(40.0), "all_cpu_ms": median(210.0),
            "marks": [{ "mark": "vcpu_run", "alone": median(3.0), "each": median(6.0) }],
        });
        let text = together(&values).unwrap();
        assert!(
            text.contains("| `exec` to vcpu run | 3.0 ms | 6.0 ms |"),
            "{text}"
        );
        assert!(text.contains("| ratio to it |  | 1.23 |"), "{text}");
        assert!(
            text.contains("shared by the processors |  | 1.18 |"),
            "{text}"
        );
    }

    #[test]
    fn rates_are_compared_to_qemu_of_the_same_kind() {
        let one = |monitor: &str, mbit_s: f64| json!({ "monitor": monitor, "direction": "up", "mbit_s": mbit_s });
        let values = json!([one("slotvmm, vhost", 300.0), one("qemu, vhost", 200.0)]);
        let text = throughput(&values).unwrap();
        assert!(
            text.contains("| up | slotvmm, vhost | 300 Mbit/s | 1.50 |"),
            "{text}"
        );
    }

    #[test]
    fn reads_are_a_column_for_each_monitor() {
        let one = |monitor: &str, read_us: f64| json!({ "monitor": monitor, "read_us": read_us, "exits": 3.0, "exits_to_monitor": 0.015 });
        let text = reads(&json!([one("slotvmm", 50.0), one("qemu", 75.0)])).unwrap();
        assert!(text.contains("| 50.0 µs | 75.0 µs (1.50 x) |"), "{text}");
        assert!(text.contains("| 0.015 | 0.015 (1.00 x) |"), "{text}");
    }

    #[test]
    fn readings_and_estimates_are_medians() {
        let one = |contender: &str, value: f64| json!({ "contender": contender, "measure": "find, ms", "value": value });
        let text = shares(&json!([one("a", 10.0), one("b", 15.0)])).unwrap();
        assert!(text.contains("| find, ms | 10 | 15 (1.50 x) |"), "{text}");
        let estimate =
            json!([{ "name": "q/pop", "median_ns": 1500.0, "low_ns": 900.0, "high_ns": 2.5e6 }]);
        let text = criterion(&estimate).unwrap();
        assert!(
            text.contains("| `q/pop` | 1.500 µs | 900.000 ns to 2.500 ms |"),
            "{text}"
        );
    }
}
