//! `status`: what a running slot says of itself.

use serde::Serialize;
use vmm::api::VmInfo;
use vmm::snapshot::SnapshotInfo;

use super::phases::Phases;
use super::{CommandError, Context};
use crate::args::Status;
use crate::client::Ask;
use crate::exit::Exit;
use crate::output::{Report, pairs, print};

/// Prints the status of a running slot, or the phases of its boot.
pub(super) fn status(args: &Status, context: &Context) -> Result<Exit, CommandError> {
    let info: VmInfo = context.client(&args.slot)?.ask(Ask::Info)?;
    let printed = if args.phases {
        print(
            &Phases {
                phases: info.phases,
            },
            context.format,
        )
    } else {
        print(&Running(info), context.format)
    };
    printed.map_err(CommandError::on("print the status"))?;
    Ok(Exit::Success)
}

#[derive(Serialize)]
struct Running(VmInfo);

impl Report for Running {
    fn text(&self) -> String {
        let info = &self.0;
        let mut rows = vec![
            ("slot", info.slot.clone()),
            ("state", info.state.to_string()),
            ("guest", info.readiness.status.clone()),
            ("process", info.pid.to_string()),
            ("vCPUs", info.vcpus.to_string()),
            ("memory", format!("{} MiB", info.memory_mib)),
            ("uptime", uptime(info.uptime_ms)),
            ("version", info.version.clone()),
        ];
        if let Some(cid) = info.cid {
            rows.push(("CID", cid.to_string()));
        }
        if info.panicked {
            rows.insert(2, ("kernel", "panicked".to_owned()));
        }
        if let Some(snapshot) = &info.snapshot {
            rows.push(("snapshot", progress(snapshot)));
        }
        let stuck = info.devices.iter().filter(|device| device.needs_reset);
        rows.extend(stuck.map(|device| {
            let what = format!(
                "{} ({}) needs a reset by its driver",
                device.id, device.kind
            );
            ("device", what)
        }));
        pairs(rows)
    }
}

/// How far a snapshot is.
fn progress(snapshot: &SnapshotInfo) -> String {
    let SnapshotInfo {
        disk,
        settled,
        size,
        ..
    } = snapshot;
    if !snapshot.taken {
        return format!("of {disk}, being prepared");
    }
    let percent = settled.saturating_mul(100).checked_div(*size);
    format!("of {disk}, {} % done", percent.unwrap_or_default())
}

/// Milliseconds as days, hours, minutes and seconds, without leading zeroes.
fn uptime(ms: u64) -> String {
    let seconds = ms / 1000;
    let parts = [
        seconds / 86400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ];
    match parts {
        [0, 0, 0, s] => format!("{s} s"),
        [0, 0, m, s] => format!("{m} min {s} s"),
        [0, h, m, _] => format!("{h} h {m} min"),
        [d, h, _, _] => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_a_snapshot_is_a_percentage() {
        let of = |taken, settled| {
            progress(&SnapshotInfo {
                disk: "data".to_owned(),
                taken,
                settled,
                size: 1 << 30,
            })
        };
        assert_eq!(of(false, 0), "of data, being prepared");
        assert_eq!(of(true, 3 << 28), "of data, 75 % done");
    }

    #[test]
    fn uptime_shows_its_two_largest_units() {
        assert_eq!(uptime(999), "0 s");
        assert_eq!(uptime(61_000), "1 min 1 s");
        assert_eq!(uptime(3_661_000), "1 h 1 min");
        assert_eq!(uptime(90_061_000), "1 d 1 h");
    }
}
