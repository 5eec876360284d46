//! Who holds a lock. The kernel does not say it for open-file-description locks, so every
//! process's open files are looked through; only done to explain a failure.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The holder of a lock, as far as it could be found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A slotvmm that runs a slot.
    Slot {
        /// What it was told to run.
        slot: String,
        /// Its process.
        pid: u32,
    },
    /// Another process.
    Process {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
    },
    /// A process that we may not look at, or one on another machine.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot { slot, pid } => write!(f, "the running slot {slot} (process {pid})"),
            Self::Process { name, pid } => write!(f, "process {pid} ({name})"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

impl Holder {
    /// Looks for the process that holds a lock on `file`.
    pub fn find(file: &File) -> Self {
        let Ok(wanted) = file.metadata() else {
            return Self::Unknown;
        };
        let wanted = (wanted.dev(), wanted.ino());
        let Ok(processes) = fs::read_dir("/proc") else {
            return Self::Unknown;
        };
        processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .find(|pid| holds_lock(*pid, wanted))
            .map_or(Self::Unknown, Self::describe)
    }

    fn describe(pid: u32) -> Self {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> = command
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        let program = words
            .first()
            .map(|word| Path::new(word).file_name().unwrap_or_default());
        if program.is_some_and(|program| program == "slotvmm") {
            let mut rest = words.iter().skip_while(|word| *word != "run").skip(1);
            if let Some(slot) = rest.find(|word| !word.starts_with('-') && !word.is_empty()) {
                return Self::Slot {
                    slot: slot.clone(),
                    pid,
                };
            }
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self::Process {
            name: name.trim().to_owned(),
            pid,
        }
    }
}

/// Whether the process has the file open and holds a lock through one of its descriptors.
fn holds_lock(pid: u32, wanted: (u64, u64)) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|entry| {
        let same = fs::metadata(entry.path())
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == wanted);
        let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().to_string_lossy());
        same && fs::read_to_string(info).is_ok_and(|info| info.contains("lock:"))
    })
}
