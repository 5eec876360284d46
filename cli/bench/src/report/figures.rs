//! From boots to figures.

use std::fmt;

use serde::Serialize;

use crate::boot::Mark;
use crate::series::{Entry, Results};
use crate::stats::{Ratio, Summary};

/// What is measured of a boot, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// From the making of the process until a mark.
    Until(Mark),
    /// From the benchmark's request to end until the process is gone.
    Ending,
    /// CPU time of the process.
    Cpu,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until(mark) => write!(f, "exec to {mark}"),
            Self::Ending => f.write_str("stop to exit"),
            Self::Cpu => f.write_str("CPU time"),
        }
    }
}

/// One measure of one contender.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What.
    pub measure: Measure,
    /// Whose.
    pub monitor: String,
    /// Its values summed up, in milliseconds; nothing when not every boot showed it.
    pub summary: Option<Summary>,
    /// The first contender's median divided by this one's; nothing for the first itself.
    pub ratio: Option<Ratio>,
}

/// Every measure that anybody showed, of every contender.
pub(super) fn of(results: &Results) -> Vec<Figure> {
    let Some((first, _)) = results.entries.split_first() else {
        return Vec::new();
    };
    let mut figures = Vec::new();
    for measure in measures() {
        let shown = |entry: &Entry| !values(entry, measure).is_empty();
        if !results.entries.iter().any(shown) {
            continue;
        }
        let ours = values(first, measure);
        figures.extend(results.entries.iter().map(|entry| {
            let theirs = values(entry, measure);
            let summary = Summary::of(&theirs);
            let is_first = std::ptr::eq(entry, first);
            Figure {
                measure,
                monitor: entry.name.clone(),
                ratio: if is_first {
                    None
                } else {
                    Ratio::of(&ours, &theirs)
                },
                summary,
            }
        }));
    }
    figures
}

fn measures() -> impl Iterator<Item = Measure> {
    Mark::ALL
        .into_iter()
        .filter(|mark| *mark != Mark::Stop)
        .map(Measure::Until)
        .chain([Measure::Ending, Measure::Cpu])
}

/// The values of a measure, when every boot showed it; else none. A median over some boots only
/// would be one of other boots.
fn values(entry: &Entry, measure: Measure) -> Vec<f64> {
    let values = match measure {
        Measure::Until(mark) => entry.times(mark),
        Measure::Ending => {
            let ends = entry
                .runs
                .iter()
                .filter_map(|run| Some(run.marks.get(&Mark::Exit)? - run.marks.get(&Mark::Stop)?));
            ends.collect()
        }
        Measure::Cpu => entry.cpu(),
    };
    if values.len() == entry.runs.len() {
        values
    } else {
        Vec::new()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::boot::{Run, Until};
    use crate::series::Failure;

    pub(in crate::report) fn entry(name: &str, marks: &[(Mark, f64)]) -> Entry {
        let run = |step: f64| Run {
            marks: marks
                .iter()
                .map(|(mark, at)| (*mark, at + step))
                .collect::<BTreeMap<_, _>>(),
            user_ms: 1.0,
            system_ms: 2.0,
            started_ns: 0,
        };
        Entry {
            name: name.to_owned(),
            program: format!("/usr/bin/{name}").into(),
            runs: (0..6).map(|step| run(f64::from(step) / 10.0)).collect(),
            failures: Vec::new(),
            inspection: None,
        }
    }

    pub(in crate::report) fn results() -> Results {
        let ours = [
            (Mark::VcpuRun, 2.0),
            (Mark::FirstOutput, 50.0),
            (Mark::Init, 100.0),
            (Mark::Ready, 300.0),
            (Mark::Stop, 301.0),
            (Mark::Exit, 303.0),
        ];
        let theirs = [
            (Mark::FirstOutput, 100.0),
            (Mark::Init, 200.0),
            (Mark::Ready, 600.0),
            (Mark::Stop, 601.0),
            (Mark::Exit, 640.0),
        ];
        let mut peer = entry("qemu<&>", &theirs);
        peer.failures.push(Failure {
            boot: "2".to_owned(),
            reason: "exit status: 1 & <nothing>".to_owned(),
        });
        Results {
            until: Until::Ready,
            boots: 6,
            entries: vec![entry("slotvmm", &ours), peer],
        }
    }

    #[test]
    fn ratio_of_a_peer_is_ours_divided_by_it() {
        let figures = of(&results());
        let of = |measure, name| {
            let mut found = figures.iter().filter(|f| f.measure == measure);
            found.find(|figure| figure.monitor == name).unwrap()
        };
        let ready = of(Measure::Until(Mark::Ready), "qemu<&>");
        assert!((ready.ratio.unwrap().ratio - 0.5).abs() < 0.01);
        assert!(ready.ratio.unwrap().is_significant());
        assert_eq!(of(Measure::Until(Mark::Ready), "slotvmm").ratio, None);
        let ending = of(Measure::Ending, "qemu<&>").summary.unwrap();
        assert!((ending.median - 39.0).abs() < 0.001);
    }

    #[test]
    fn what_a_peer_does_not_show_is_missing_and_not_invented() {
        let figures = of(&results());
        let vcpu = figures
            .iter()
            .filter(|f| f.measure == Measure::Until(Mark::VcpuRun));
        let shown: Vec<bool> = vcpu.map(|figure| figure.summary.is_some()).collect();
        assert_eq!(shown, [true, false]);
        assert!(
            !figures
                .iter()
                .any(|f| f.measure == Measure::Until(Mark::Sysinit))
        );
    }

    #[test]
    fn mark_that_only_some_boots_showed_has_no_median() {
        let mut results = results();
        results.entries[0].runs[3].marks.remove(&Mark::Init);
        let figures = of(&results);
        let init = figures
            .iter()
            .find(|f| f.measure == Measure::Until(Mark::Init));
        assert_eq!(init.unwrap().summary, None);
    }
}
