//! `shares`: how fast a guest reads a shared directory, beside QEMU with virtiofsd.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::workspace;
use crate::args::SharesCommand;
use crate::cache::Cache;
use crate::guest::Images;
use crate::host::{Host, Job, Limits};
use crate::inside::Reading;
use crate::progress::heading;
use crate::record;
use crate::tools::Tools;

/// Time for all guests.
const TIMEOUT: Duration = Duration::from_secs(7200);

/// Runs guests of every contender in turns, and prints least values, medians and ratios.
///
/// # Errors
/// When something cannot be built, a guest fails, or the lab does.
pub fn shares(args: &SharesCommand) -> Result<u8> {
    let program = workspace::build_release()?;
    let probe = workspace::build_probe()?;
    let cache = Cache::open()?;
    let tools = Tools::ensure(&cache)?;
    let images = Images::ensure(&cache, &tools)?;
    let host = Host::open(&cache, &tools)?;
    heading(&format!(
        "Shared directories, {}: {}",
        host.choice().mode,
        host.choice().reason
    ));
    let lab = std::env::current_exe().context("Cannot tell where the lab's program is")?;
    let mut job = Job::new([lab.into_os_string()])?;
    let kernel = images.dir().join("kernels").join(args.kernel.name());
    let command = &mut job.command;
    command.extend(["inside", "shares", "--program"].map(Into::into));
    command.extend([program.into(), "--probe".into(), probe.into()]);
    command.extend(["--kernel".into(), kernel.into()]);
    command.extend(["--runs".into(), args.runs.to_string().into()]);
    command.extend(["--files".into(), args.files.to_string().into()]);
    command.extend(["--large".into(), args.large.to_string().into()]);
    if let Some(mib) = args.dax {
        command.extend(["--dax".into(), mib.to_string().into()]);
    }
    for with in &args.with {
        command.extend(["--with".into(), with.into()]);
    }
    for beside in &args.beside {
        command.extend(["--beside".into(), beside.into()]);
    }
    if args.icount {
        job.count_instructions();
    }
    job.limits = Limits {
        cpus: args.cpus,
        memory_mib: 5120,
        timeout: TIMEOUT,
    };
    let transcript = tempfile::NamedTempFile::new()?;
    job.transcript = Some(transcript.path().to_owned());
    let status = host.run(&job)?;
    let readings: Vec<Reading> = fs::read_to_string(transcript.path())?
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    print!("{}", table(&readings));
    if status == 0 {
        record::keep("shares", &again(args), &readings)?;
    }
    Ok(status)
}

/// The command that measures the same again.
fn again(args: &SharesCommand) -> String {
    let (runs, files, large) = (args.runs, args.files, args.large);
    let window = args.dax.map(|mib| format!(" --dax {mib}"));
    let with = args.with.iter().map(|with| format!(" --with '{with}'"));
    format!(
        "cargo lab shares --runs {runs} --files {files} --large {large} --cpus {}{}{}",
        args.cpus,
        window.unwrap_or_default(),
        with.collect::<String>()
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
