//! `bench boot --together`: the slot several times at once.

use std::io;

use boot_bench::series::Contender;
use boot_bench::together::{self, Plan, Together};
use serde::{Serialize, Serializer};

use super::super::{CommandError, Context};
use super::berth::Berth;
use super::contender::Ours;
use super::prepare::Stage;
use crate::args::BenchBoot;
use crate::client::Interrupts;
use crate::exit::Exit;
use crate::output::{Report, pairs, print, table};
use crate::resolve::Slot;

/// Boots the slot alone and several times at once, in turns, and prints what that comes to.
pub(super) fn boot(
    args: &BenchBoot,
    context: &Context,
    (stage, slot): (&Stage, &Slot),
    (machines, interrupts): (u32, &Interrupts),
) -> Result<Exit, CommandError> {
    let own = std::env::current_exe().map_err(CommandError::on("find the program of slotvmm"))?;
    let berths = stage.berths(context, (&args.slot, slot), machines)?;
    let ours = |berth| Ours::new("slotvmm", own.clone(), (stage, berth, slot), args);
    let contenders: Vec<Ours<'_>> = berths.iter().map(|berth: &Berth| ours(berth)).collect();
    let contenders: Vec<&dyn Contender> = contenders.iter().map(|one| one as _).collect();
    let plan = Plan {
        rounds: args.boots,
        watching: super::plan(args, slot).watching,
    };
    let bar = super::progress_bar(u64::from(args.boots).saturating_add(1));
    let progress = |round| {
        tracing::info!("Round {round}: one machine, then {machines}");
        bar.inc(1);
    };
    let results = together::run(&plan, &contenders, Some(interrupts.as_fd()), &progress);
    bar.finish_and_clear();
    let results = results
        .map_err(io::Error::other)
        .map_err(CommandError::on("boot machines at once"))?;
    super::save(args, &results)?;
    print(&Printed(&results, stage.notes()), context.format)
        .map_err(CommandError::on("print the results"))?;
    Ok(if results.failures.is_empty() {
        Exit::Success
    } else {
        Exit::Failed
    })
}

/// Results as they are printed, with what was left out.
struct Printed<'a>(&'a Together, Vec<String>);

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl Report for Printed<'_> {
    fn text(&self) -> String {
        let Self(results, notes) = self;
        let row = |name: String, alone: f64, together: f64| {
            [name, format!("{alone:.2}"), format!("{together:.2}")]
        };
        let marks = results.marks.iter().map(|one| {
            let name = format!("exec to {}, each", one.mark);
            row(name, one.alone.median, one.each.median)
        });
        let all = [
            (
                "CPU time of all",
                results.alone_cpu_ms.median,
                results.all_cpu_ms.median,
            ),
            (
                "first exec to last exit",
                results.alone_ms.median,
                results.all_ms.median,
            ),
        ];
        let all = all.map(|(name, alone, together)| row(name.to_owned(), alone, together));
        let at_once = format!("{} AT ONCE", results.machines);
        let head = ["MEDIAN (ms)", "ONE ALONE", &at_once];
        let verdict = pairs([
            ("processors", results.host.processors.to_string()),
            ("least possible", format!("{:.2} ms", results.minimum_ms)),
            ("ratio to it", format!("{:.2}", results.ratio)),
            ("of least values", format!("{:.2}", results.least_ratio)),
            ("waiting", format!("{:.2}", results.waiting)),
        ]);
        let mut sections = vec![table(head, marks.chain(all)), verdict];
        let failures = results.failures.iter().map(|one| format!("FAILED: {one}"));
        sections.push(
            failures
                .chain(notes.iter().cloned())
                .collect::<Vec<_>>()
                .join("\n"),
        );
        sections.push(
            "The least possible is the CPU time of one alone, as many times as there are machines, divided by \
             the processors; or one alone, where that takes longer. Waiting is the time of all divided by their own CPU \
             time, shared by the processors: 1 when none of those was idle."
                .to_owned(),
        );
        sections.join("\n\n")
    }
}
