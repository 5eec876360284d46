//! `boot-report`: where one boot spent its time, on the host's and on the guest's side.
//!
//! [`guest`] asks the guest and reads its answer, [`causes`] knows what takes long and what helps.

mod causes;
mod guest;

use std::fs;
use std::io;

use boot_bench::report::svg::{Lane, Span, picture};
use serde::Serialize;
use vmm::api::VmInfo;
use vmm::phases::{Phase, Stamp};

use self::causes::Cause;
use self::guest::{Guest, Timed};
use super::phases::Phases;
use super::{CommandError, Context, name};
use crate::args::BootReport;
use crate::boot_record;
use crate::client::{Ask, ClientError};
use crate::exit::Exit;
use crate::output::{Report, print, table};

/// How many of the longest units and initcalls are shown.
const SHOWN: usize = 8;

/// Prints the report, and draws it when that is asked for.
pub(super) fn boot_report(args: &BootReport, context: &Context) -> Result<Exit, CommandError> {
    let boot = Boot::of(args, context)?;
    if let Some(path) = &args.svg {
        let drawn = boot.draw().and_then(|svg| fs::write(path, svg));
        drawn.map_err(CommandError::on("write the picture"))?;
    }
    print(&boot, context.format).map_err(CommandError::on("print the report"))?;
    Ok(Exit::Success)
}

/// One boot.
#[derive(Debug, Serialize)]
struct Boot {
    slot: String,
    #[serde(flatten)]
    phases: Phases,
    #[serde(flatten)]
    guest: Guest,
    causes: Vec<Cause>,
}

impl Boot {
    fn of(args: &BootReport, context: &Context) -> Result<Self, CommandError> {
        let slot = name(&args.slot)?;
        let (stamps, guest) = match context.client(&args.slot)?.ask::<VmInfo>(Ask::Info) {
            Ok(info) => (info.phases, guest::ask(&slot, context)),
            Err(ClientError::NotRunning { .. }) => {
                let run_dir = context.paths()?.run_dir.join(slot.as_str());
                let record =
                    boot_record::load(&run_dir).map_err(|source| CommandError::NoBoot {
                        path: boot_record::path(&run_dir),
                        slot: slot.clone(),
                        source,
                    })?;
                (
                    record.phases,
                    Guest::silent("the slot does not run any more"),
                )
            }
            Err(error) => return Err(error.into()),
        };
        let steps = steps(&stamps);
        Ok(Self {
            slot: slot.to_string(),
            causes: causes::largest(&steps, &guest),
            phases: Phases { phases: stamps },
            guest,
        })
    }

    fn draw(&self) -> io::Result<String> {
        let steps = steps(&self.phases.phases);
        let end = steps.iter().map(|step| step.end_ms).fold(0.0, f64::max);
        let host = Lane {
            name: self.slot.clone(),
            spans: steps
                .iter()
                .enumerate()
                .map(|(index, step)| span(index, step))
                .collect(),
        };
        // The guest's clock starts about when its first vCPU does.
        let started = steps.iter().find(|step| step.name == Phase::VcpuRun.name());
        let offset = started.map_or(0.0, |step| step.end_ms);
        let mut longest = self.guest.longest(SHOWN);
        longest.sort_by(|one, other| one.start_ms.total_cmp(&other.start_ms));
        let inside = longest.into_iter().enumerate().map(|(index, timed)| Lane {
            name: shortened(&timed.name),
            spans: vec![span(index, &timed.after(offset))],
        });
        let lanes: Vec<Lane> = std::iter::once(host).chain(inside).collect();
        let ends = lanes
            .iter()
            .flat_map(|lane| &lane.spans)
            .map(|span| span.end);
        picture(
            &format!("Boot of {}", self.slot),
            &lanes,
            ends.fold(end, f64::max),
        )
    }
}

impl Report for Boot {
    fn text(&self) -> String {
        let mut sections = vec![self.phases.text()];
        match &self.guest.silent {
            Some(why) => sections.push(format!("The guest was not asked: {why}")),
            None => {
                let rows = self.guest.longest(SHOWN).into_iter().map(|timed| {
                    let took = timed.end_ms - timed.start_ms;
                    [
                        timed.name.clone(),
                        format!("{:>10.1}", timed.start_ms),
                        format!("{took:>10.1}"),
                    ]
                });
                sections.push(table(["IN THE GUEST", "FROM (ms)", "TOOK (ms)"], rows));
            }
        }
        let rows = self.causes.iter().map(|cause| {
            let remedy = cause.remedy.unwrap_or("-").to_owned();
            [
                cause.name.clone(),
                format!("{:>10.1}", cause.took_ms),
                remedy,
            ]
        });
        sections.push(table(["LARGEST CAUSES", "TOOK (ms)", "WHAT HELPS"], rows));
        sections.join("\n\n")
    }
}

/// From phase to phase, until the guest is ready or began to end.
fn steps(stamps: &[Stamp]) -> Vec<Timed> {
    let mut start_ms = 0.0;
    let boot = stamps
        .iter()
        .take_while(|stamp| !matches!(stamp.phase, Phase::GuestEnded | Phase::MachineStopped));
    boot.filter(|stamp| stamp.phase != Phase::Exec)
        .map(|stamp| {
            let end_ms = stamp.at_us as f64 / 1e3;
            let step = Timed {
                name: stamp.phase.name().to_owned(),
                start_ms,
                end_ms,
            };
            start_ms = end_ms;
            step
        })
        .collect()
}

fn span(index: usize, timed: &Timed) -> Span {
    Span {
        name: timed.name.clone(),
        colour: index,
        start: timed.start_ms,
        end: timed.end_ms,
    }
}

/// A name that fits before its bar.
fn shortened(name: &str) -> String {
    const MOST: usize = 22;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or(name)),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps() -> Vec<Stamp> {
        [
            (Phase::Exec, 0),
            (Phase::Config, 1000),
            (Phase::VcpuRun, 3000),
            (Phase::Init, 503_000),
            (Phase::Ready, 2_503_000),
            (Phase::GuestEnded, 90_000_000),
        ]
        .map(|(phase, at_us)| Stamp { phase, at_us })
        .to_vec()
    }

    fn boot(guest: Guest) -> Boot {
        Boot {
            slot: "slot1".to_owned(),
            causes: causes::largest(&steps(&stamps()), &guest),
            phases: Phases { phases: stamps() },
            guest,
        }
    }

    #[test]
    fn running_time_of_the_guest_is_no_part_of_its_boot() {
        let steps = steps(&stamps());
        let last = steps.last().unwrap();
        assert_eq!((last.name.as_str(), last.end_ms), ("ready", 2503.0));
        assert_eq!(last.start_ms, 503.0);
    }

    #[test]
    fn text_names_three_causes_and_why_the_guest_says_nothing() {
        let text = boot(Guest::silent("no socket")).text();
        assert!(
            text.contains("The guest was not asked: no socket"),
            "{text}"
        );
        assert!(text.contains("LARGEST CAUSES"), "{text}");
    }

    #[test]
    fn picture_has_a_bar_for_the_boot_and_one_for_each_unit() {
        let unit = Timed {
            name: "a-unit-with-a-very-long-name.service".to_owned(),
            start_ms: 100.0,
            end_ms: 400.0,
        };
        let guest = Guest {
            units: vec![unit],
            initcalls: Vec::new(),
            silent: None,
        };
        let svg = boot(guest).draw().unwrap();
        assert_eq!(svg.matches("<rect").count(), 4 + 1);
        assert!(svg.contains("a-unit-with-a-very-lon…"), "{svg}");
    }
}
