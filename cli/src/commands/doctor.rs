//! `doctor`: what this host lacks for running slots, and what to do about it.

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::path::Path;

use serde::Serialize;
use vmm::kvm::{self, HostPolicy, KvmError};

use super::{CommandError, Context};
use crate::args::Doctor;
use crate::disk::{self, Presence};
use crate::exit::Exit;
use crate::output::{Report, print, table};
use crate::resolve::{Paths, Slot};

/// Says who has huge pages in memory that processes share, the choice in brackets.
const SHMEM_ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

/// Prints what was found; the exit code says whether slots can run.
pub(super) fn doctor(args: &Doctor, context: &Context) -> Result<Exit, CommandError> {
    let mut checks = vec![kvm_check(), tun_check(), mkfs_check(), huge_pages_check()];
    match context.config.host() {
        Ok(host) => checks.extend(directories(&Paths::of(&host))),
        Err(error) => checks.push(Check::failed("configuration", &error, Exit::Config)),
    }
    if let Some(slot) = &args.slot {
        match context.slot(slot) {
            Ok((_, slot)) => checks.extend(slot_checks(&slot)),
            Err(error) => checks.push(Check::failed("configuration", &error, error.exit())),
        }
    }
    let worst = checks
        .iter()
        .map(|check| check.exit)
        .find(|exit| *exit != Exit::Success);
    print(&Findings { checks }, context.format).map_err(CommandError::on("print the findings"))?;
    Ok(worst.unwrap_or(Exit::Success))
}

#[derive(Serialize)]
struct Findings {
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    /// What was looked at.
    what: String,
    verdict: Verdict,
    /// What was found, and what to do when it is not good.
    found: String,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    Note,
    Bad,
}

impl Check {
    fn good(what: impl Into<String>, found: impl Into<String>) -> Self {
        let (what, found) = (what.into(), found.into());
        Self {
            what,
            verdict: Verdict::Good,
            found,
            exit: Exit::Success,
        }
    }

    /// Something that matters only sometimes.
    fn note(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Note,
            ..Self::good(what, found)
        }
    }

    fn bad(what: impl Into<String>, found: impl Into<String>, exit: Exit) -> Self {
        Self {
            verdict: Verdict::Bad,
            exit,
            ..Self::good(what, found)
        }
    }

    fn failed(what: impl Into<String>, error: &dyn Error, exit: Exit) -> Self {
        let mut found = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            found.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self::bad(what, found, exit)
    }
}

impl Report for Findings {
    fn text(&self) -> String {
        let rows = self.checks.iter().map(|check| {
            let result = match check.verdict {
                Verdict::Good => "good",
                Verdict::Note => "note",
                Verdict::Bad => "BAD",
            };
            [result.to_owned(), check.what.clone(), check.found.clone()]
        });
        table(["", "CHECK", "FOUND"], rows)
    }
}

fn kvm_check() -> Check {
    match kvm::open(HostPolicy::Hardware) {
        Ok(_) => Check::good("/dev/kvm", "works, with hardware virtualisation"),
        Err(error @ (KvmError::NoHardware | KvmError::Version { .. } | KvmError::Lacks { .. })) => {
            Check::failed("/dev/kvm", &error, Exit::CannotRun)
        }
        Err(error) => Check::failed("/dev/kvm", &error, Exit::Host),
    }
}

fn tun_check() -> Check {
    let what = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(what) {
        Ok(_) => Check::good(what, "can be opened"),
        Err(error) => {
            let remedy = "load the kernel module tun and allow this user to open the device";
            Check::bad(what, format!("{error}: {remedy}"), Exit::Host)
        }
    }
}

fn mkfs_check() -> Check {
    match disk::mkfs_program() {
        Some(program) => Check::good("mkfs.ext4", program.display().to_string()),
        None => Check::note(
            "mkfs.ext4",
            "not installed: new data images need it, or `data.template`",
        ),
    }
}

/// Whether guests with a share have huge pages: Linux's default is that they do not.
fn huge_pages_check() -> Check {
    let (what, path) = ("huge pages for shares", SHMEM_ENABLED);
    let Ok(choices) = fs::read_to_string(path) else {
        return Check::note(what, format!("{path} cannot be read"));
    };
    match chosen(&choices) {
        Some(word @ ("always" | "within_size" | "advise" | "force")) => Check::good(what, word),
        word => {
            let word = word.unwrap_or("nothing");
            let remedy = format!("guests with a share are slower, `echo advise > {path}`");
            Check::note(what, format!("{word}: {remedy}"))
        }
    }
}

/// The word in brackets.
fn chosen(choices: &str) -> Option<&str> {
    let mut words = choices.split_whitespace();
    words.find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

fn directories(paths: &Paths) -> [Check; 3] {
    [
        directory("state directory", &paths.state_dir, Absent::IsBad),
        directory("run directory", &paths.run_dir, Absent::IsMade),
        directory("cache directory", &paths.cache_dir, Absent::IsMade),
    ]
}

#[derive(Debug, Clone, Copy)]
enum Absent {
    IsBad,
    IsMade,
}

fn directory(what: &str, path: &Path, absent: Absent) -> Check {
    let shown = path.display();
    if path.is_dir() {
        return match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
            Ok(()) => Check::good(what, shown.to_string()),
            Err(_) => Check::note(what, format!("{shown}: this user cannot write there")),
        };
    }
    match absent {
        Absent::IsMade => Check::good(what, format!("{shown}: made when needed")),
        Absent::IsBad => {
            let found = format!("{shown} does not exist: create it with `mkdir -p {shown}`");
            Check::bad(what, found, Exit::Host)
        }
    }
}

fn slot_checks(slot: &Slot) -> Vec<Check> {
    let disks = slot.disks.iter().map(|disk| {
        let what = format!("{} disk {}", slot.name, disk.id);
        let path = disk.path.display();
        match disk::inspect(disk) {
            Ok(Presence::Present { .. }) => Check::good(what, path.to_string()),
            Ok(Presence::WillBeCreated) => Check::good(what, format!("{path}: made when needed")),
            Ok(Presence::InUse { holder, .. }) => {
                Check::note(what, format!("{path}: in use by {holder}"))
            }
            Err(error) => {
                let error = CommandError::Disk(error);
                Check::failed(what, &error, error.exit())
            }
        }
    });
    let taps = slot.nics.iter().map(|nic| {
        let what = format!("{} tap {}", slot.name, nic.tap);
        match hostnet::tap::open(&nic.tap, 1) {
            Ok(_) => Check::good(what, "can be opened"),
            Err(error @ hostnet::tap::TapError::Busy { .. }) => {
                Check::note(what, error.to_string())
            }
            Err(error) => Check::failed(what, &error, Exit::Host),
        }
    });
    disks.chain(taps).collect()
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn choice_is_the_word_in_brackets() {
        let choices = "always within_size [advise] never deny force\n";
        assert_eq!(chosen(choices), Some("advise"));
        assert_eq!(chosen("[never]"), Some("never"));
        for none in ["", "always", "[", "[never"] {
            assert_eq!(chosen(none), None, "{none}");
        }
    }
}
