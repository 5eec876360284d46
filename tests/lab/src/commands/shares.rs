//! `shares`: how fast a guest reads a shared directory, beside QEMU with virtiofsd.

use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;

use super::place::{Clock, Place};
use super::workspace;
use crate::args::{ADVISE, SharesCommand};
use crate::emulator::Emulator;
use crate::host::Limits;
use crate::inside::Reading;
use crate::record;

/// Time for all guests.
const TIMEOUT: Duration = Duration::from_secs(7200);

/// Runs guests of every contender in turns, and prints least values, medians and ratios.
///
/// # Errors
/// When something cannot be built, a guest fails, or the lab does.
pub fn shares(args: &SharesCommand) -> Result<u8> {
    let program = workspace::build_release()?;
    let probe = workspace::build_probe()?;
    let place = Place::open("Shared directories", Clock::of(args.icount))?;
    let paths = [
        ("--program", program),
        ("--probe", probe),
        ("--kernel", place.kernel(args.kernel)),
    ];
    let mut job = place.job("shares", paths, contenders(args))?;
    // In real time as well: so many requests would meet the packaged one's fault.
    job.emulator = Emulator::Mended;
    job.limits = Limits {
        cpus: args.cpus,
        memory_mib: 5120,
        timeout: TIMEOUT,
    };
    let (status, readings): (_, Vec<Reading>) = place.values(job)?;
    print!("{}", table(&readings));
    if status == 0 {
        let name = if args.icount {
            "shares-counted"
        } else {
            "shares"
        };
        record::keep(name, &again(args), &readings)?;
    }
    Ok(status)
}

/// Who reads what, and how often, for the part inside the lab.
fn contenders(args: &SharesCommand) -> Vec<OsString> {
    let numbers = [
        ("--runs", args.runs.to_string()),
        ("--files", args.files.to_string()),
        ("--large", args.large.to_string()),
        ("--shmem", args.shmem.clone()),
    ];
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: OsString| words.extend([option.into(), value]);
    for (option, number) in numbers {
        add(option, number.into());
    }
    if let Some(mib) = args.dax {
        add("--dax", mib.to_string().into());
    }
    args.with.iter().for_each(|with| add("--with", with.into()));
    for beside in &args.beside {
        add("--beside", beside.into());
    }
    for virtiofsd in &args.virtiofsd {
        add("--virtiofsd", virtiofsd.into());
    }
    words
}

/// The command that measures the same again.
fn again(args: &SharesCommand) -> String {
    let (runs, files, large) = (args.runs, args.files, args.large);
    let window = args.dax.map(|mib| format!(" --dax {mib}"));
    let more = args.with.iter().map(|with| format!(" --with '{with}'"));
    let more = more.chain(
        args.virtiofsd
            .iter()
            .map(|options| format!(" --virtiofsd '{options}'")),
    );
    let icount = if args.icount { " --icount" } else { "" };
    let shmem = match args.shmem.as_str() {
        ADVISE => String::new(),
        other => format!(" --shmem {other}"),
    };
    format!(
        "cargo lab shares --runs {runs} --files {files} --large {large} --cpus {}{icount}{}{}{shmem}",
        args.cpus,
        window.unwrap_or_default(),
        more.collect::<String>()
    )
}

/// One line per measure and contender, with the ratio to the first contender's median.
fn table(readings: &[Reading]) -> String {
    let measures = distinct(readings.iter().map(|reading| reading.measure.as_str()));
    let contenders = distinct(readings.iter().map(|reading| reading.contender.as_str()));
    let mut text = format!("{:<28} {:<16} {:>10} {:>10}\n", "", "", "least", "median");
    for measure in measures {
        let mut base = None;
        for contender in &contenders {
            let mut values: Vec<f64> = readings
                .iter()
                .filter(|reading| reading.measure == measure && reading.contender == *contender)
                .map(|reading| reading.value)
                .collect();
            values.sort_by(f64::total_cmp);
            let (Some(least), Some(median)) = (values.first(), values.get(values.len() / 2)) else {
                continue;
            };
            let ratio = median / *base.get_or_insert(*median);
            text.push_str(&format!(
                "{measure:<28} {contender:<16} {least:>10.1} {median:>10.1} {ratio:>6.2} x\n"
            ));
        }
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_medians_and_ratios_to_the_first_contender() {
        let reading = |contender: &str, value| Reading {
            contender: contender.to_owned(),
            measure: "find cold, ms".to_owned(),
            value,
        };
        let text = table(&[
            reading("a", 12.0),
            reading("b", 20.0),
            reading("a", 8.0),
            reading("a", 10.0),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("8.0       10.0   1.00 x"), "{text}");
        assert!(lines[2].ends_with("20.0       20.0   2.00 x"), "{text}");
        assert_eq!(lines.len(), 3);
    }
}
