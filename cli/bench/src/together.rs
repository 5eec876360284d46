//! Several machines started at once: what the host makes them wait for besides its processors.
//!
//! The least that any host takes is the CPU time of all the boots divided by its processors, or one boot
//! alone where that is longer. What is above it was spent waiting: for locks, for disks, or because a boot
//! does nothing for a while.

use std::os::fd::BorrowedFd;
use std::sync::Barrier;
use std::thread;

use serde::Serialize;

use crate::boot::{self, BootError, Mark, Run, Watching};
use crate::report::Host;
use crate::series::{Contender, SeriesError, chain};
use crate::stats::Summary;

/// How often, and what is watched for.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Rounds: in each, one boot alone and then all at once.
    pub rounds: u32,
    /// What is watched for.
    pub watching: Watching,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Together {
    /// Machines that were started at once.
    pub machines: usize,
    /// Where.
    pub host: Host,
    /// Boots that failed, with the reason.
    pub failures: Vec<String>,
    /// From the making of the process until it was gone, of one machine alone, in milliseconds.
    pub alone_ms: Summary,
    /// CPU time of one alone, in milliseconds.
    pub alone_cpu_ms: Summary,
    /// From the making of the first process until the last was gone, of all at once, in milliseconds.
    pub all_ms: Summary,
    /// CPU time of all at once, in milliseconds.
    pub all_cpu_ms: Summary,
    /// Each mark that every boot showed.
    pub marks: Vec<Marked>,
    /// What `machines` boots take at the least, in milliseconds.
    pub minimum_ms: f64,
    /// The median of all at once divided by that.
    pub ratio: f64,
    /// The same of least values instead of medians: what is left of it when others use the host too.
    pub least_ratio: f64,
    /// The median of all at once divided by their own CPU time, shared by the processors: 1 when none of
    /// those was ever idle, or worked for somebody else.
    pub waiting: f64,
}

/// When a mark was seen, in milliseconds since the process was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Marked {
    /// Which.
    pub mark: Mark,
    /// Of one alone.
    pub alone: Summary,
    /// Of each of those that were started at once.
    pub each: Summary,
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum TogetherError {
    /// The user wants no more.
    #[error(transparent)]
    Series(#[from] SeriesError),
    /// No round was complete.
    #[error("No round of boots was complete: {}", .0.join("; "))]
    Failed(Vec<String>),
}

/// Boots the first of `machines` alone, then all of them at once, `rounds` times after a round that fills
/// caches. `progress` hears of each round before it begins.
///
/// # Errors
/// When `interrupt` became readable, or not one round was complete.
pub fn run(
    plan: &Plan,
    machines: &[&dyn Contender],
    interrupt: Option<BorrowedFd<'_>>,
    progress: &dyn Fn(u32),
) -> Result<Together, TogetherError> {
    let mut rounds = Vec::new();
    let mut failures = Vec::new();
    for round in 0..=plan.rounds {
        progress(round);
        let first = machines.get(..1).unwrap_or_default();
        let alone = at_once(plan, first, interrupt, &mut failures)?;
        let all = at_once(plan, machines, interrupt, &mut failures)?;
        if let (Some(alone), Some(all)) = (alone, all)
            && round > 0
        {
            rounds.push(Round { alone, all });
        }
    }
    match sum_up(machines.len(), &rounds) {
        Some(together) => Ok(Together {
            failures,
            ..together
        }),
        None => Err(TogetherError::Failed(failures)),
    }
}

/// The boots of one round.
struct Round {
    alone: Vec<Run>,
    all: Vec<Run>,
}

/// Boots all of `machines` at once; nothing when one of them fails.
fn at_once(
    plan: &Plan,
    machines: &[&dyn Contender],
    interrupt: Option<BorrowedFd<'_>>,
    failures: &mut Vec<String>,
) -> Result<Option<Vec<Run>>, SeriesError> {
    let prepared: Result<Vec<_>, _> = machines.iter().map(|one| one.launch()).collect();
    let launches = match prepared {
        Ok(launches) => launches,
        Err(error) => {
            failures.push(format!("Cannot prepare the boot: {error}"));
            return Ok(None);
        }
    };
    let start = Barrier::new(launches.len());
    let boots: Vec<Option<Result<Run, BootError>>> = thread::scope(|scope| {
        let threads: Vec<_> = launches
            .into_iter()
            .map(|mut launch| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    boot::run(&mut launch, &plan.watching, interrupt, None)
                })
            })
            .collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.map(Result::ok).collect()
    });
    let mut runs = Vec::new();
    for (boot, machine) in boots.into_iter().zip(machines) {
        match boot {
            Some(Ok(mut run)) => {
                for (mark, at) in machine.own_marks(&run) {
                    run.marks.entry(mark).or_insert(at);
                }
                runs.push(run);
            }
            Some(Err(BootError::Interrupted)) => return Err(SeriesError::Interrupted),
            Some(Err(error)) => failures.push(format!("{}: {}", machine.name(), chain(&error))),
            None => failures.push(format!(
                "{}: the thread that watched it ended",
                machine.name()
            )),
        }
    }
    Ok((runs.len() == machines.len()).then_some(runs))
}

/// From the making of the first process until the last is gone.
fn wall_ms(runs: &[Run]) -> f64 {
    let begin = runs.iter().map(|run| run.started_ns).min().unwrap_or(0);
    let ends = runs.iter().map(|run| {
        let after = run.started_ns.saturating_sub(begin) as f64 / 1e6;
        after + run.marks.get(&Mark::Exit).copied().unwrap_or(0.0)
    });
    ends.fold(0.0, f64::max)
}

fn sum_up(machines: usize, rounds: &[Round]) -> Option<Together> {
    let host = Host::look();
    let over = |value: &dyn Fn(&Round) -> f64| {
        Summary::of(&rounds.iter().map(value).collect::<Vec<f64>>())
    };
    let cpu = |runs: &[Run]| runs.iter().map(Run::cpu_ms).sum::<f64>();
    let alone_ms = over(&|round| wall_ms(&round.alone))?;
    let alone_cpu_ms = over(&|round| cpu(&round.alone))?;
    let all_ms = over(&|round| wall_ms(&round.all))?;
    let all_cpu_ms = over(&|round| cpu(&round.all))?;
    let minimum = |of: fn(&Summary) -> f64| {
        let shared = of(&alone_cpu_ms) * machines as f64 / host.processors as f64;
        shared.max(of(&alone_ms))
    };
    let minimum_ms = minimum(|summary| summary.median);
    Some(Together {
        machines,
        failures: Vec::new(),
        marks: marks(rounds),
        ratio: all_ms.median / minimum_ms,
        least_ratio: all_ms.min / minimum(|summary| summary.min),
        waiting: all_ms.median * host.processors as f64 / all_cpu_ms.median,
        alone_ms,
        alone_cpu_ms,
        all_ms,
        all_cpu_ms,
        minimum_ms,
        host,
    })
}

fn marks(rounds: &[Round]) -> Vec<Marked> {
    let times = |pick: &dyn Fn(&Round) -> &[Run], mark: Mark| {
        let runs: Vec<&Run> = rounds.iter().flat_map(pick).collect();
        let seen = runs.iter().filter_map(|run| run.marks.get(&mark).copied());
        let seen: Vec<f64> = seen.collect();
        Summary::of(&seen).filter(|summary| summary.count == runs.len())
    };
    let marks = Mark::ALL.into_iter().filter(|mark| *mark != Mark::Stop);
    let marked = marks.filter_map(|mark| {
        Some(Marked {
            mark,
            alone: times(&|round| &round.alone, mark)?,
            each: times(&|round| &round.all, mark)?,
        })
    });
    marked.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::boot::{Launch, Stop, Text, Until};

    struct Shell(String);

    impl Contender for Shell {
        fn name(&self) -> &str {
            "shell"
        }

        fn program(&self) -> PathBuf {
            "sh".into()
        }

        fn launch(&self) -> io::Result<Launch<'_>> {
            Ok(Launch {
                program: self.program(),
                arguments: vec!["-c".into(), self.0.clone().into()],
                environment: Vec::new(),
                helpers: Vec::new(),
                listener: None,
                stop: Stop::Signal,
            })
        }

        fn own_marks(&self, _run: &Run) -> BTreeMap<Mark, f64> {
            BTreeMap::from([(Mark::VcpuRun, 0.5)])
        }
    }

    fn plan(rounds: u32) -> Plan {
        Plan {
            rounds,
            watching: Watching {
                texts: Text::usual(),
                until: Until::Exit,
                patience: Duration::from_secs(60),
            },
        }
    }

    /// Waits until as many others have come as there are machines, which only works at once.
    fn meeting(dir: &std::path::Path, machines: usize) -> Vec<Shell> {
        let script = |me: usize| {
            let dir = dir.display();
            let others: String = (0..machines)
                .filter(|other| *other != me)
                .map(|other| format!("echo x >{dir}/{me}-{other} & read x <{dir}/{other}-{me}; "))
                .collect();
            format!("echo up; {others} wait")
        };
        (0..machines).map(|me| Shell(script(me))).collect()
    }

    #[test]
    fn machines_run_at_the_same_time() {
        let dir = tempfile::tempdir().unwrap();
        for (one, other) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            let path = dir.path().join(format!("{one}-{other}"));
            let made = std::process::Command::new("mkfifo").arg(path).status();
            assert!(made.unwrap().success());
        }
        let shells = meeting(dir.path(), 3);
        let machines: Vec<&dyn Contender> = shells.iter().map(|one| one as _).collect();
        let mut failures = Vec::new();
        let runs = at_once(&plan(1), &machines, None, &mut failures).unwrap();
        assert_eq!(runs.map(|runs| runs.len()), Some(3), "{failures:?}");
    }

    #[test]
    fn every_round_is_counted_but_the_first() {
        let shell = Shell("echo up".to_owned());
        let together = run(&plan(4), &[&shell, &shell], None, &|_| {}).unwrap();
        assert_eq!((together.machines, together.all_ms.count), (2, 4));
        assert_eq!(together.failures, Vec::<String>::new());
        let marks: Vec<Mark> = together.marks.iter().map(|one| one.mark).collect();
        assert_eq!(marks, [Mark::VcpuRun, Mark::FirstOutput, Mark::Exit]);
        assert_eq!(together.marks[1].each.count, 8);
    }

    #[test]
    fn time_of_all_is_from_the_first_start_to_the_last_end() {
        let run = |started_ns, exit| Run {
            marks: BTreeMap::from([(Mark::Exit, exit)]),
            user_ms: 10.0,
            system_ms: 0.0,
            started_ns,
        };
        let all = vec![run(5_000_000, 20.0), run(9_000_000, 17.0)];
        assert_eq!(wall_ms(&all), 21.0);
        let rounds = [Round {
            alone: vec![run(0, 16.0)],
            all,
        }];
        let together = sum_up(2, &rounds).unwrap();
        // Two boots of 10 ms need 20 ms of one processor; one alone takes 16 ms on any number.
        let shared = 20.0 / together.host.processors as f64;
        assert_eq!(together.minimum_ms, shared.max(16.0));
        assert_eq!(together.ratio, 21.0 / together.minimum_ms);
        assert_eq!(together.least_ratio, together.ratio);
        assert_eq!(together.waiting, 21.0 / shared);
    }

    #[test]
    fn boot_that_fails_is_told_and_nothing_invented() {
        let shell = Shell("echo why >&2; exit 3".to_owned());
        let error = run(&plan(1), &[&shell], None, &|_| {}).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }
}
