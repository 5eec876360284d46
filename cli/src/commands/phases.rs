//! The phases of a boot as a table.

use serde::Serialize;
use vmm::phases::Stamp;

use crate::output::{Report, table};

/// The phases of one boot.
#[derive(Debug, Serialize)]
pub(super) struct Phases {
    /// Stamps in order of time.
    pub(super) phases: Vec<Stamp>,
}

impl Report for Phases {
    fn text(&self) -> String {
        let before = std::iter::once(0).chain(self.phases.iter().map(|stamp| stamp.at_us));
        let rows = self.phases.iter().zip(before).map(|(stamp, before)| {
            let step = stamp.at_us.saturating_sub(before);
            [
                stamp.phase.name().to_owned(),
                milliseconds(stamp.at_us),
                milliseconds(step),
            ]
        });
        table(["PHASE", "AT (ms)", "STEP (ms)"], rows)
    }
}

/// Microseconds as milliseconds with three places, aligned for a column.
fn milliseconds(microseconds: u64) -> String {
    format!("{:>8}.{:03}", microseconds / 1000, microseconds % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::phases::Phase;

    #[test]
    fn each_phase_shows_its_time_and_its_step() {
        let phases = Phases {
            phases: vec![
                Stamp {
                    phase: Phase::Exec,
                    at_us: 0,
                },
                Stamp {
                    phase: Phase::Config,
                    at_us: 950,
                },
                Stamp {
                    phase: Phase::VcpuRun,
                    at_us: 3010,
                },
            ],
        };
        let text = phases.text();
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(rows[2], ["config", "0.950", "0.950"]);
        assert_eq!(rows[3], ["vcpu", "run", "3.010", "2.060"]);
    }
}
