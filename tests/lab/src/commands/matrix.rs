//! `matrix`: every kernel in every size, and the document that records it.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::workspace;
use crate::cache::Cache;
use crate::guest::Images;
use crate::host::{Host, Job, Limits};
use crate::inside::{Boot, Outcome};
use crate::progress::{heading, note};
use crate::tools::Tools;

/// The document, below the repository's root.
const DOCUMENT: &str = "docs/matrix.md";

/// Boots every case whose name contains `only`, and records the result when that is all of them.
/// Returns 1 when a boot failed.
///
/// # Errors
/// When the lab fails.
pub fn matrix(only: &str) -> Result<u8> {
    let program = workspace::build_release()?;
    let cache = Cache::open()?;
    let tools = Tools::ensure(&cache)?;
    let images = Images::ensure(&cache, &tools)?;
    let host = Host::open(&cache, &tools)?;
    heading(&format!(
        "Matrix, {}: {}",
        host.choice().mode,
        host.choice().reason
    ));
    let lab = std::env::current_exe().context("Cannot tell where the lab's program is")?;
    let mut job = Job::new([lab.into_os_string()])?;
    job.command
        .extend(["inside", "matrix", "--program"].map(Into::into));
    job.command.push(program.into());
    job.command.extend([
        "--images".into(),
        images.dir().into(),
        "--only".into(),
        only.into(),
    ]);
    job.limits = Limits {
        cpus: 1,
        memory_mib: 8192,
        timeout: Duration::from_secs(3600),
    };
    let transcript = tempfile::NamedTempFile::new()?;
    job.transcript = Some(transcript.path().to_owned());
    let status = host.run(&job)?;
    let outcomes = outcomes(&fs::read_to_string(transcript.path())?);
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.problem.is_some())
        .count();
    if only.is_empty() && status == 0 {
        let path = workspace::root()?.join(DOCUMENT);
        fs::write(&path, document(&outcomes, &host.choice().mode.to_string()))?;
        note(&format!("Written to {}", path.display()));
    }
    println!("{} boots, {failed} failed", outcomes.len());
    Ok(u8::from(status != 0 || failed > 0 || outcomes.is_empty()))
}

fn outcomes(transcript: &str) -> Vec<Outcome> {
    transcript
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn document(outcomes: &[Outcome], mode: &str) -> String {
    let failed = outcomes
        .iter()
        .filter(|outcome| outcome.problem.is_some())
        .count();
    let mut text = format!(
        "# Kernels × processors × memory\n\n\
         Written by `cargo lab matrix`; do not edit. Every row is a boot of a stock Debian kernel to\n\
         a guest that reports its processors and memory and powers off. Seconds are from the start\n\
         of slotvmm to its end, in the lab's {mode} mode: they compare rows, not machines.\n\n\
         {} boots, {failed} failed.\n\n\
         | kernel | from | vCPUs | MiB | result | seconds |\n|---|---|---|---|---|---|\n",
        outcomes.len()
    );
    for outcome in outcomes {
        let case = &outcome.case;
        let from = match case.boot {
            Boot::Bootstrap => "bootstrap",
            Boot::BzImage => "bzImage",
            Boot::Vmlinux => "vmlinux",
        };
        let result = outcome
            .problem
            .as_deref()
            .unwrap_or("ok")
            .replace(['\n', '|'], " ");
        // Writing to a string cannot fail.
        let _ok = writeln!(
            text,
            "| {} | {from} | {} | {} | {} | {:.1} |",
            case.kernel,
            case.vcpus,
            case.memory_mib,
            result.trim(),
            outcome.seconds
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inside::Case;

    fn outcome(problem: Option<&str>) -> Outcome {
        let case = Case::all().remove(0);
        Outcome {
            case,
            problem: problem.map(str::to_owned),
            seconds: 2.04,
        }
    }

    #[test]
    fn document_has_a_row_for_each_boot() {
        let text = document(
            &[outcome(None), outcome(Some("exit 20:\nno | init"))],
            "emulated",
        );
        assert!(text.contains("2 boots, 1 failed."));
        assert!(text.contains("| 6.1-cloud | bootstrap | 1 | 256 | ok | 2.0 |\n"));
        assert!(text.contains("| exit 20: no   init | 2.0 |\n"));
    }

    #[test]
    fn outcomes_survive_the_transcript() {
        let line = serde_json::to_string(&outcome(Some("x"))).unwrap();
        let read = outcomes(&format!("noise\n{line}\n"));
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].problem.as_deref(), Some("x"));
    }
}
