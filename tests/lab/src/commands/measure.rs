//! `measure`: what a boot costs, beside other monitors, in counts that repeat.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;

use super::place::{Clock, Place};
use super::workspace;
use crate::args::MeasureCommand;
use crate::host::Limits;
use crate::inside::Sample;
use crate::record;

/// Median of one measure of a monitor.
type Measure = (&'static str, fn(&Sample) -> f64);

const MEASURES: [Measure; 4] = [
    ("CPU ms, exec to exit", |sample| sample.cpu_ms),
    ("guest's clock at init, s", |sample| sample.init_s),
    ("KVM exits to init", |sample| {
        sample.exits_to_init.values().sum::<u64>() as f64
    }),
    ("KVM exits to the end", |sample| {
        sample.exits.values().sum::<u64>() as f64
    }),
];

/// Boots slotvmm and its peers in turns, and prints medians and ratios.
///
/// # Errors
/// When something cannot be built, a boot fails, or the lab does.
pub fn measure(args: &MeasureCommand) -> Result<u8> {
    let program = workspace::build_release()?;
    let place = Place::open("Measure", Clock::Counted)?;
    let paths = [
        ("--program", program),
        ("--kernel", place.kernel(args.kernel)),
    ];
    let mut job = place.job("measure", paths, contenders(args))?;
    job.limits = Limits {
        cpus: 1,
        memory_mib: 2048,
        timeout: Duration::from_secs(1800),
    };
    let (status, samples): (_, Vec<Sample>) = place.values(job)?;
    print!("{}", table(&samples));
    if status == 0 {
        record::keep("measure", &again(args), &samples)?;
    }
    Ok(status)
}

/// The command that measures the same variants again.
fn again(args: &MeasureCommand) -> String {
    let variants = args.variants.iter();
    let with = variants.map(|one| format!(" --with '{}={}'", one.name, one.params));
    with.fold("cargo lab measure".to_owned(), |command, one| {
        command + &one
    })
}

/// How often to boot whom, for the part inside the lab.
fn contenders(args: &MeasureCommand) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--runs".into(), args.runs.to_string().into()];
    for peer in &args.peers {
        let peer = format!("{}={}", peer.name, peer.path.display());
        words.extend(["--peer".into(), peer.into()]);
    }
    for variant in &args.variants {
        let variant = format!("{}={}", variant.name, variant.params);
        words.extend(["--with".into(), variant.into()]);
    }
    words
}

/// One line per measure and monitor, with the ratio to the first monitor.
fn table(samples: &[Sample]) -> String {
    let mut monitors: Vec<&str> = Vec::new();
    for sample in samples {
        if !monitors.contains(&sample.monitor.as_str()) {
            monitors.push(&sample.monitor);
        }
    }
    let mut text = String::new();
    for (name, take) in MEASURES {
        text.push_str(&rows(name, &monitors, samples, take));
    }
    for reason in reasons(samples) {
        let name = format!("  to init: {reason}");
        text.push_str(&rows(&name, &monitors, samples, |sample| {
            sample.exits_to_init.get(reason).copied().unwrap_or(0) as f64
        }));
    }
    text
}

/// What made guests exit before their init ran, the most frequent first.
fn reasons(samples: &[Sample]) -> Vec<&str> {
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, count) in samples.iter().flat_map(|sample| &sample.exits_to_init) {
        *totals.entry(reason).or_default() += count;
    }
    let mut reasons: Vec<(&str, u64)> = totals.into_iter().collect();
    reasons.sort_by_key(|(_, total)| std::cmp::Reverse(*total));
    reasons.into_iter().map(|(reason, _)| reason).collect()
}

/// One measure of every monitor.
fn rows(
    name: &str,
    monitors: &[&str],
    samples: &[Sample],
    take: impl Fn(&Sample) -> f64 + Copy,
) -> String {
    let mut base = None;
    let mut text = String::new();
    for monitor in monitors {
        let of = samples.iter().filter(|sample| sample.monitor == *monitor);
        let median = median(of.map(take).collect());
        let ratio = median / *base.get_or_insert(median);
        text.push_str(&format!(
            "{name:<30} {monitor:<18} {median:>10.1} {ratio:>7.3} x\n"
        ));
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_medians_and_ratios_to_the_first_monitor() {
        let sample = |monitor: &str, cpu_ms| Sample {
            monitor: monitor.to_owned(),
            cpu_ms,
            init_s: 1.0,
            exits_to_init: [("MSR".to_owned(), 2), ("CPUID".to_owned(), 5)].into(),
            exits: [("MSR".to_owned(), 9)].into(),
        };
        let text = table(&[
            sample("a", 9.0),
            sample("b", 20.0),
            sample("a", 1.0),
            sample("a", 10.0),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].ends_with("a                         9.0   1.000 x"),
            "{text}"
        );
        assert!(lines[1].ends_with("20.0   2.222 x"), "{text}");
        assert_eq!(lines.len(), 12);
        assert!(lines[4].starts_with("KVM exits to init"), "{text}");
        assert!(lines[4].contains(" 7.0 "), "{text}");
        assert!(lines[8].starts_with("  to init: CPUID"), "{text}");
        assert!(lines[10].starts_with("  to init: MSR"), "{text}");
    }
}
