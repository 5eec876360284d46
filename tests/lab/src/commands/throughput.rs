//! `throughput`: how fast guests are reached, beside QEMU.

use std::time::Duration;

use anyhow::Result;

use super::place::{Clock, Place};
use super::workspace;
use crate::args::ThroughputCommand;
use crate::guest::Iperf;
use crate::host::Limits;
use crate::inside::Transfer;
use crate::record;

/// Kernel that the guest boots.
const KERNEL: &str = "6.12-cloud";

/// Measures in turns, and prints medians and ratios to QEMU of the same kind.
///
/// # Errors
/// When something cannot be built, a guest does not serve, or the lab fails.
pub fn throughput(args: &ThroughputCommand) -> Result<u8> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => workspace::build_release()?,
    };
    let place = Place::open("Throughput", Clock::Real)?;
    let iperf = Iperf::ensure(&place.cache)?;
    let kernel = place.image("kernels").join(KERNEL);
    let dir = tempfile::tempdir()?;
    let initrd = dir.path().join("initrd");
    iperf.write_initrd(&kernel.join("initrd"), &initrd)?;
    let paths = [
        ("--program", program),
        ("--kernel", kernel.join("vmlinux")),
        ("--initrd", initrd),
        ("--iperf", iperf.program()),
    ];
    let (runs, seconds) = (args.runs.to_string(), args.seconds.to_string());
    let more = ["--runs", &runs, "--seconds", &seconds];
    let mut job = place.job("throughput", paths, more)?;
    job.limits = Limits {
        cpus: 2,
        memory_mib: 3072,
        timeout: Duration::from_secs(3600),
    };
    let (status, transfers): (_, Vec<Transfer>) = place.values(job)?;
    print!("{}", table(&transfers));
    if status == 0 {
        record::keep("throughput", "cargo lab throughput", &transfers)?;
    }
    Ok(status)
}

/// One line per direction and monitor, with the ratio to QEMU with or without vhost, as it is.
fn table(transfers: &[Transfer]) -> String {
    let mut rows: Vec<(&str, &str)> = Vec::new();
    for transfer in transfers {
        let row = (transfer.direction.as_str(), transfer.monitor.as_str());
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    rows.sort_by_key(|(direction, _)| *direction);
    let mut text = String::new();
    for (direction, monitor) in rows {
        let own = median(transfers, direction, monitor);
        let peer = monitor.replace("slotvmm", "qemu");
        let ratio = own / median(transfers, direction, &peer);
        text.push_str(&format!(
            "{direction:<15} {monitor:<16} {own:>8.0} Mbit/s {ratio:>7.2} x\n"
        ));
    }
    text
}

fn median(transfers: &[Transfer], direction: &str, monitor: &str) -> f64 {
    let mut rates: Vec<f64> = transfers
        .iter()
        .filter(|one| one.direction == direction && one.monitor == monitor)
        .map(|one| one.mbit_s)
        .collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_to_qemu_of_the_same_kind_and_direction() {
        let transfer = |monitor: &str, mbit_s| Transfer {
            monitor: monitor.to_owned(),
            direction: "host to guest".to_owned(),
            mbit_s,
        };
        let text = table(&[
            transfer("slotvmm", 300.0),
            transfer("qemu", 200.0),
            transfer("slotvmm, vhost", 900.0),
            transfer("qemu, vhost", 1000.0),
            transfer("slotvmm", 100.0),
            transfer("slotvmm", 200.0),
        ]);
        let ratios: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split("Mbit/s").nth(1))
            .map(str::trim)
            .collect();
        assert_eq!(ratios, ["1.00 x", "1.00 x", "0.90 x", "1.00 x"]);
    }
}
