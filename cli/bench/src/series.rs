//! Many boots of several contenders, in turns: a machine that becomes slower meanwhile is slower for
//! all of them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use serde::Serialize;

use crate::boot::{self, BootError, Launch, Mark, Run, Until, Watching};
use crate::inspect::{Inspection, Inspector};
use crate::stats::{Ratio, Summary};

/// Someone who boots the machine.
pub trait Contender {
    /// What it is called in results.
    fn name(&self) -> &str;

    /// Its program.
    fn program(&self) -> PathBuf;

    /// Prepares one boot, with disks as nobody has written to them. Not timed.
    ///
    /// # Errors
    /// When the host refuses.
    fn launch(&self) -> io::Result<Launch<'_>>;

    /// What the contender itself knows of a boot that has just ended: marks that cannot be seen from
    /// outside, in milliseconds since its process was made.
    fn own_marks(&self, run: &Run) -> BTreeMap<Mark, f64>;
}

/// How many boots of what.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Timed boots of each contender.
    pub boots: u32,
    /// RAM of the machine in MiB.
    pub memory_mib: u64,
    /// What is watched for.
    pub watching: Watching,
}

impl Plan {
    /// All boots of `contenders`: one of each to fill caches, the timed ones, one that is looked at.
    pub fn total(&self, contenders: usize) -> u64 {
        let rounds = u64::from(self.boots).saturating_add(2);
        rounds.saturating_mul(contenders as u64)
    }
}

/// All boots of one contender.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Who.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// Timed boots that got where they should.
    pub runs: Vec<Run>,
    /// Those that did not: which one, and why.
    pub failures: Vec<Failure>,
    /// What was seen in a boot that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inspection: Option<Inspection>,
}

/// A boot that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Which boot: `warm-up`, a number from 1 on, or `inspection`.
    pub boot: String,
    /// Why, with the last lines of the console.
    pub reason: String,
}

impl Entry {
    fn new(contender: &dyn Contender) -> Self {
        Self {
            name: contender.name().to_owned(),
            program: contender.program(),
            runs: Vec::new(),
            failures: Vec::new(),
            inspection: None,
        }
    }

    /// When `mark` was seen, in every boot that showed it.
    pub fn times(&self, mark: Mark) -> Vec<f64> {
        let seen = self.runs.iter().filter_map(|run| run.marks.get(&mark));
        seen.copied().collect()
    }

    /// CPU times in milliseconds.
    pub fn cpu(&self) -> Vec<f64> {
        self.runs.iter().map(Run::cpu_ms).collect()
    }

    /// What the times of a mark come to, when every boot showed it.
    pub fn summary(&self, mark: Mark) -> Option<Summary> {
        let times = self.times(mark);
        Summary::of(&times).filter(|summary| summary.count == self.runs.len())
    }

    /// How this contender's times of a mark compare to another's.
    pub fn ratio(&self, other: &Self, mark: Mark) -> Option<Ratio> {
        self.summary(mark).and(other.summary(mark))?;
        Ratio::of(&self.times(mark), &other.times(mark))
    }
}

/// Everything that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// When a boot was over.
    pub until: Until,
    /// Timed boots asked for of each.
    pub boots: u32,
    /// In the order of the contenders: the first is the one that others are compared to.
    pub entries: Vec<Entry>,
}

/// Why a series was not completed.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// The user wants no more.
    #[error("Interrupted; every machine was ended and every copy removed")]
    Interrupted,
}

/// Boots every contender in turns. `progress` hears of each boot before it is made. A contender that
/// fails to boot at all, twice in a row from the first boot on, is not tried again.
///
/// # Errors
/// When `interrupt` became readable. Boots that fail are results.
pub fn run(
    plan: &Plan,
    contenders: &[&dyn Contender],
    interrupt: Option<BorrowedFd<'_>>,
    progress: &dyn Fn(&str, &str),
) -> Result<Results, SeriesError> {
    let mut entries: Vec<Entry> = contenders.iter().map(|one| Entry::new(*one)).collect();
    for round in 0..=plan.boots.saturating_add(1) {
        for (contender, entry) in contenders.iter().zip(&mut entries) {
            if entry.runs.is_empty() && entry.failures.len() > 1 {
                continue;
            }
            let (boot, inspector) = match round {
                0 => ("warm-up".to_owned(), None),
                _ if round <= plan.boots => (round.to_string(), None),
                _ => (
                    "inspection".to_owned(),
                    Some(Inspector::new(plan.memory_mib)),
                ),
            };
            progress(contender.name(), &boot);
            one_boot(plan, *contender, (entry, inspector), (&boot, interrupt))?;
        }
    }
    Ok(Results {
        until: plan.watching.until,
        boots: plan.boots,
        entries,
    })
}

fn one_boot(
    plan: &Plan,
    contender: &dyn Contender,
    (entry, mut inspector): (&mut Entry, Option<Inspector>),
    (boot, interrupt): (&str, Option<BorrowedFd<'_>>),
) -> Result<(), SeriesError> {
    let mut failed = |reason: String| {
        entry.failures.push(Failure {
            boot: boot.to_owned(),
            reason,
        });
    };
    let mut launch = match contender.launch() {
        Ok(launch) => launch,
        Err(error) => {
            failed(format!("Cannot prepare the boot: {error}"));
            return Ok(());
        }
    };
    let look = inspector.as_mut().map(|one| one as &mut dyn boot::Inspect);
    match boot::run(&mut launch, &plan.watching, interrupt, look) {
        Err(BootError::Interrupted) => return Err(SeriesError::Interrupted),
        Err(error) => failed(chain(&error)),
        Ok(mut run) => {
            for (mark, at) in contender.own_marks(&run) {
                run.marks.entry(mark).or_insert(at);
            }
            match inspector {
                Some(inspector) => entry.inspection = Some(inspector.into_inspection()),
                None if boot != "warm-up" => entry.runs.push(run),
                None => {}
            }
        }
    }
    Ok(())
}

/// An error with everything that caused it, in one text.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::*;
    use crate::boot::{Stop, Text};

    struct Shell(&'static str, &'static str);

    impl Contender for Shell {
        fn name(&self) -> &str {
            self.0
        }

        fn program(&self) -> PathBuf {
            "sh".into()
        }

        fn launch(&self) -> io::Result<Launch<'_>> {
            Ok(Launch {
                program: self.program(),
                arguments: vec!["-c".into(), self.1.into()],
                environment: Vec::new(),
                helpers: Vec::new(),
                listener: None,
                stop: Stop::Signal,
            })
        }

        fn own_marks(&self, _run: &Run) -> BTreeMap<Mark, f64> {
            BTreeMap::from([(Mark::VcpuRun, 0.5), (Mark::FirstOutput, 0.0)])
        }
    }

    fn plan(boots: u32) -> Plan {
        Plan {
            boots,
            memory_mib: 64,
            watching: Watching {
                texts: Text::usual(),
                until: Until::Exit,
                patience: Duration::from_secs(60),
            },
        }
    }

    #[test]
    fn contenders_take_turns_and_warm_up_does_not_count() {
        let order = RefCell::new(Vec::new());
        let (a, b) = (Shell("a", "echo a"), Shell("b", "echo b"));
        let progress = |name: &str, boot: &str| order.borrow_mut().push(format!("{name} {boot}"));
        let results = run(&plan(2), &[&a, &b], None, &progress).unwrap();
        let expected = [
            "a warm-up",
            "b warm-up",
            "a 1",
            "b 1",
            "a 2",
            "b 2",
            "a inspection",
            "b inspection",
        ];
        assert_eq!(*order.borrow(), expected);
        assert_eq!(order.borrow().len() as u64, plan(2).total(2));
        let [a, b] = &results.entries[..] else {
            panic!()
        };
        assert_eq!((a.runs.len(), b.runs.len()), (2, 2));
        assert!(a.inspection.is_some());
        assert!(a.ratio(b, Mark::Exit).is_some());
        assert_eq!(a.ratio(b, Mark::Ready), None);
    }

    #[test]
    fn own_marks_add_to_what_was_seen_and_do_not_replace_it() {
        let results = run(&plan(1), &[&Shell("a", "echo a")], None, &|_, _| {}).unwrap();
        let run = &results.entries[0].runs[0];
        assert_eq!(run.marks[&Mark::VcpuRun], 0.5);
        assert!(run.marks[&Mark::FirstOutput] > 0.0);
    }

    #[test]
    fn boot_that_fails_is_reported_and_a_hopeless_contender_left_alone() {
        let (good, bad) = (
            Shell("good", "echo a"),
            Shell("bad", "echo why >&2; exit 3"),
        );
        let results = run(&plan(5), &[&good, &bad], None, &|_, _| {}).unwrap();
        let [good, bad] = &results.entries[..] else {
            panic!()
        };
        assert_eq!((good.runs.len(), good.failures.len()), (5, 0));
        let boots: Vec<&str> = bad.failures.iter().map(|one| one.boot.as_str()).collect();
        assert_eq!(boots, ["warm-up", "1"]);
        assert!(bad.failures[0].reason.contains("why"), "{:?}", bad.failures);
    }
}
