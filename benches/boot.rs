//! Whole boots as processes: from just before the monitor is started until the guest's first
//! instruction is seen from outside, and until the monitor is gone. Ours against the peers that this
//! machine has, in the same run, printed as ratios.
//!
//! Peers are looked for on the search path; `BENCH_CLOUD_HYPERVISOR`, `BENCH_FIRECRACKER` and
//! `BENCH_QEMU` name them elsewhere. Needs `/dev/kvm`.

use std::cell::RefCell;
use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use benches::guest::Guest;
use benches::monitor::Monitor;
use benches::race::{Boot, boot};
use criterion::{BenchmarkGroup, Criterion, SamplingMode, measurement::WallTime};

/// Name of a measure, and where it is in a boot.
type Measure = (&'static str, fn(&Boot) -> Duration);

/// What is measured of each boot.
const MEASURES: [Measure; 2] = [
    ("exec_to_first_instruction", |boot| boot.first_instruction),
    ("exec_to_exit", |boot| boot.exit),
];

/// One line of the comparison.
struct Line {
    measure: String,
    monitor: &'static str,
    median: Duration,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: boot: there is no /dev/kvm");
        return Ok(());
    }
    let dir = benches::Place::new()?;
    let guests = [
        ("tiny", Guest::tiny()?),
        ("large", Guest::large(dir.path())?),
    ];
    let mut monitors = Vec::from(Monitor::slotvmm()?);
    monitors.push(Monitor::bare(env!("CARGO_BIN_EXE_bare")));
    monitors.extend(Monitor::peers());
    let mut results = Vec::new();
    for (guest_name, guest) in guests {
        let mut group = criterion.benchmark_group(format!("boot/{guest_name}"));
        group
            .sample_size(15)
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(Duration::from_millis(500))
            .measurement_time(Duration::from_secs(3));
        for monitor in &monitors {
            let command = monitor.command(&guest, dir.path())?;
            // The first boot fills caches, ours and the host's, and tells whether there is any.
            if let Err(error) = boot(&command) {
                println!("skipped: boot/{guest_name}/{}: {error}", monitor.name);
                continue;
            }
            results.extend(bench(&mut group, monitor.name, &command, guest_name));
        }
        group.finish();
    }
    compare(&results);
    criterion.final_summary();
    Ok(())
}

fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    monitor: &'static str,
    command: &[OsString],
    guest: &str,
) -> Vec<Line> {
    let mut results = Vec::new();
    for (measure, take) in MEASURES {
        let samples = RefCell::new(Vec::new());
        group.bench_function(format!("{measure}/{monitor}"), |bench| {
            bench.iter_custom(|iterations| {
                let runs =
                    (0..iterations).map(|_| boot(command).as_ref().map_or(Duration::MAX, take));
                let times: Vec<_> = runs.collect();
                samples.borrow_mut().extend_from_slice(&times);
                times
                    .into_iter()
                    .fold(Duration::ZERO, Duration::saturating_add)
            });
        });
        let mut samples = samples.into_inner();
        samples.sort();
        results.extend(samples.get(samples.len() / 2).map(|median| Line {
            measure: format!("{guest}/{measure}"),
            monitor,
            median: *median,
        }));
    }
    results
}

/// Prints each median as a ratio to ours of the same measure.
fn compare(results: &[Line]) {
    for result in results {
        let ours = results.iter().find(|other| other.measure == result.measure);
        let ratio = ours.map(|ours| result.median.as_secs_f64() / ours.median.as_secs_f64());
        println!(
            "{:<36} {:<18} {:>9.2} ms  {:>6.2} x",
            result.measure,
            result.monitor,
            result.median.as_secs_f64() * 1e3,
            ratio.unwrap_or(1.0),
        );
    }
}
