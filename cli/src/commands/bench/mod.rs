//! `bench`: boots a slot again and again, in turns with other monitors.
//!
//! [`prepare`] makes copies of what boots write to, [`berth`] a place for each machine, [`cards`] their
//! network, [`contender`] says how each monitor is started, [`overlay`] writes the configuration that our own
//! boots have, [`text`] prints the results. The boots themselves are `boot_bench`'s.

mod berth;
mod cards;
mod contender;
mod overlay;
mod prepare;
mod text;
mod together;

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use boot_bench::boot::{Mark, Text, Until, Watching};
use boot_bench::peer::{Kind, Peer};
use boot_bench::report::{self, Report};
use boot_bench::series::{self, Contender, Plan};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use self::contender::{Other, Ours};
use self::prepare::Stage;
use super::{CommandError, Context};
use crate::args::{self, BenchBoot, BenchCommand};
use crate::client::Interrupts;
use crate::config::ConsoleMode;
use crate::exit::Exit;
use crate::output::print;
use crate::resolve::{Backend, ReadyWhen, Share, Slot};

/// Dispatches `bench`.
pub(super) fn bench(command: &BenchCommand, context: &Context) -> Result<Exit, CommandError> {
    match command {
        BenchCommand::Boot(args) => boot(args, context),
    }
}

/// Boots a slot and its peers in turns, and prints what that comes to.
fn boot(args: &BenchBoot, context: &Context) -> Result<Exit, CommandError> {
    let (_, slot) = context.slot(&args.slot)?;
    // Before there is anything to leave behind.
    let interrupts = Interrupts::block().map_err(CommandError::on("wait for signals"))?;
    if let Some(machines) = args.together {
        let stage = Stage::set(args, context, &slot)?;
        return together::boot(args, context, (&stage, &slot), (machines, &interrupts));
    }
    let (peers, mut notes) = peers(args, &slot);
    let stage = Stage::set(args, context, &slot)?;
    notes.extend(stage.notes());
    let others = contenders(args, &stage, &slot, peers)?;
    let contenders: Vec<&dyn Contender> = others.iter().map(AsRef::as_ref).collect();
    let plan = plan(args, &slot);
    let bar = progress_bar(plan.total(contenders.len()));
    let progress = |name: &str, boot: &str| {
        tracing::info!("Boot of {name}: {boot}");
        bar.set_message(format!("{name}, {boot}"));
        bar.inc(1);
    };
    let results = series::run(&plan, &contenders, Some(interrupts.as_fd()), &progress);
    bar.finish_and_clear();
    let results = results.map_err(CommandError::Bench)?;
    drop(contenders);
    let report = Report::of(slot.name.to_string(), stage.describe(), notes, results);
    if let Some(path) = &args.html {
        write_page(path, &report)?;
    }
    save(args, &report)?;
    print(&text::Printed(&report), context.format)
        .map_err(CommandError::on("print the results"))?;
    Ok(exit(&report))
}

/// Ours first: that is what the others are compared to.
fn contenders<'a>(
    args: &BenchBoot,
    stage: &'a Stage,
    slot: &'a Slot,
    peers: Vec<Peer>,
) -> Result<Vec<Box<dyn Contender + 'a>>, CommandError> {
    let own = std::env::current_exe().map_err(CommandError::on("find the program of slotvmm"))?;
    let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(Ours::new(
        "slotvmm",
        own.clone(),
        (stage, &stage.berth, slot),
        args,
    ))];
    for peer in &args.peers {
        if let args::OtherProgram::Slotvmm { name, program } = peer {
            let other = Ours::new(name, program.clone(), (stage, &stage.berth, slot), args);
            contenders.push(Box::new(other));
        }
    }
    for peer in peers {
        contenders.push(Box::new(Other::new(peer, own.clone(), (stage, slot))));
    }
    Ok(contenders)
}

/// The peers that were asked for and are there, and notes about the others.
fn peers(args: &BenchBoot, slot: &Slot) -> (Vec<Peer>, Vec<String>) {
    let mut notes = Vec::new();
    let named = args.peers.iter().filter_map(|other| match other {
        args::OtherProgram::Peer(peer) => Some(peer.clone()),
        args::OtherProgram::Slotvmm { .. } => None,
    });
    let mut peers: Vec<Peer> = named.collect();
    let wanted: Vec<Kind> = match &args.compare {
        None => Kind::ALL.to_vec(),
        Some(compared) => {
            let kinds = compared.iter().filter_map(|one| match one {
                args::Compared::With(kind) => Some(*kind),
                args::Compared::None => None,
            });
            kinds.collect()
        }
    };
    for kind in wanted {
        if peers.iter().any(|peer| peer.kind == kind) {
            continue;
        }
        match Peer::find(kind) {
            Some(peer) => peers.push(peer),
            None => notes.push(format!(
                "Not compared with {kind}: its program is not on the search path; name it with \
                 --peer {kind}=PATH."
            )),
        }
    }
    peers.retain(|peer| match lacking(peer, args, slot) {
        None => true,
        Some(lacking) => {
            let name = &peer.name;
            notes.push(format!("Not compared with {name}: the slot has {lacking}."));
            false
        }
    });
    (peers, notes)
}

/// What the slot has that a peer does not, or is not given.
fn lacking(peer: &Peer, args: &BenchBoot, slot: &Slot) -> Option<&'static str> {
    let external = |share: &Share| matches!(share.backend, Backend::External { .. });
    if !slot.shares.is_empty() && !peer.shares_directories() {
        Some("shared directories, which that has not")
    } else if slot.shares.iter().any(external) {
        Some("a shared directory with a backend of its own, which takes one connection")
    } else if !args.no_net && slot.nics.iter().any(|nic| nic.dhcp) {
        Some("a network card that answers DHCP, which others do not; --no-net leaves it out")
    } else if slot.console == ConsoleMode::Hvc {
        Some("a virtio console, which that is not given")
    } else {
        None
    }
}

fn plan(args: &BenchBoot, slot: &Slot) -> Plan {
    let mut texts = Text::usual();
    texts.extend(args.marks.iter().map(|mark| mark.0.clone()));
    if let ReadyWhen::Console(text) = &slot.ready.when {
        texts.push(Text::new(Mark::Ready, &[text]));
    }
    let tells_ready = texts.iter().any(|text| text.mark == Mark::Ready)
        || matches!(slot.ready.when, ReadyWhen::Notify(_));
    let until = match args.until {
        Some(args::Until::Ready) => Until::Ready,
        Some(args::Until::Exit) => Until::Exit,
        None if tells_ready => Until::Ready,
        None => Until::Exit,
    };
    let seconds = args.timeout.unwrap_or(slot.ready.timeout);
    Plan {
        boots: args.boots,
        memory_mib: slot.machine.memory_mib,
        watching: Watching {
            texts,
            until,
            patience: Duration::from_secs(seconds.into()),
        },
    }
}

fn progress_bar(boots: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(boots);
    match ProgressStyle::with_template("Boot {pos}/{len} {wide_bar} {msg} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn write_page(path: &Path, report: &Report) -> Result<(), CommandError> {
    let written = report::page(report).and_then(|page| fs::write(path, page));
    written.map_err(CommandError::on("write the page"))
}

/// Writes the results to a file, when that is asked for.
fn save(args: &BenchBoot, results: &impl Serialize) -> Result<(), CommandError> {
    let Some(path) = &args.save else {
        return Ok(());
    };
    let text = serde_json::to_vec_pretty(results).map_err(io::Error::other);
    let written = text.and_then(|text| fs::write(path, text));
    written.map_err(CommandError::on("write the results"))
}

/// Not a success when nothing can be said of the slot itself.
fn exit(report: &Report) -> Exit {
    match report.results.entries.first() {
        Some(ours) if ours.failures.is_empty() => Exit::Success,
        _ => Exit::Failed,
    }
}
