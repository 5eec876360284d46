//! Finds and reads configuration files.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use hostnet::slot::{NameError, SlotName};

use super::host::HostFile;
use super::problem::{Location, Problem, Problems};
use super::reader::Table;
use super::slot::SlotFile;
use super::{json, toml};

/// Largest configuration file in bytes: a thousand times what one needs, and small enough to read
/// whatever was named by mistake.
const MAX_FILE: u64 = 1 << 20;

/// The kinds of file, in the order they are looked for.
const EXTENSIONS: [&str; 2] = ["toml", "json"];

/// Where the configuration lies.
#[derive(Debug, Clone)]
pub(crate) struct ConfigDir {
    path: PathBuf,
}

/// A slot's file with the name that it configures.
#[derive(Debug)]
pub(crate) struct LoadedSlot {
    /// The slot.
    pub(crate) name: SlotName,
    /// The file, or nothing when the slot has none and lives on defaults.
    pub(crate) path: Option<PathBuf>,
    /// What it says.
    pub(crate) file: SlotFile,
}

impl ConfigDir {
    /// The directory at `path`, usually `/etc/slotvmm`. It need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads `host.toml` or `host.json`; an absent one is empty.
    ///
    /// # Errors
    /// When the file cannot be read, both exist, or its content is wrong.
    pub(crate) fn host(&self) -> Result<HostFile, ConfigError> {
        match self.host_path()? {
            Some(path) => read(&path, HostFile::read),
            None => Ok(HostFile::default()),
        }
    }

    /// The host's file, when there is one.
    ///
    /// # Errors
    /// When there are two.
    pub(crate) fn host_path(&self) -> Result<Option<PathBuf>, ConfigError> {
        self.find(&self.path, "host")
    }

    /// Reads the file of slot `name`; an absent one is empty.
    ///
    /// # Errors
    /// As [`Self::host`].
    pub(crate) fn slot(&self, name: &SlotName) -> Result<LoadedSlot, ConfigError> {
        let path = self.find(&self.path.join("slots"), name.as_str())?;
        let file = match &path {
            Some(path) => read(path, SlotFile::read)?,
            None => SlotFile::default(),
        };
        check_name(&file, name)?;
        Ok(LoadedSlot {
            name: name.clone(),
            path,
            file,
        })
    }

    /// Reads a slot's file at any path. The slot is called what the file says, else as the file.
    ///
    /// # Errors
    /// As [`Self::host`], and when the file's name is no slot name.
    pub(crate) fn slot_file(&self, path: &Path) -> Result<LoadedSlot, ConfigError> {
        let file = read(path, SlotFile::read)?;
        let name = match &file.name {
            Some(name) => name.value.clone(),
            None => slot_name(path)?,
        };
        Ok(LoadedSlot {
            name,
            path: Some(path.to_owned()),
            file,
        })
    }

    /// Names of all slots that have a file, sorted. A file with another extension is ignored.
    ///
    /// # Errors
    /// When the directory cannot be listed, or a file's name is no slot name.
    pub(crate) fn slot_names(&self) -> Result<Vec<SlotName>, ConfigError> {
        let dir = self.path.join("slots");
        let unreadable = |source| ConfigError::Read {
            path: dir.clone(),
            source,
        };
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(unreadable)?.path();
            if format_of(&path).is_some() {
                names.push(slot_name(&path)?);
            }
        }
        names.sort_by_key(|name| (name.index(), name.clone()));
        names.dedup();
        Ok(names)
    }

    fn find(&self, dir: &Path, stem: &str) -> Result<Option<PathBuf>, ConfigError> {
        let candidates = EXTENSIONS.map(|extension| dir.join(format!("{stem}.{extension}")));
        let [toml, json] = candidates
            .each_ref()
            .map(|path| path.symlink_metadata().is_ok());
        match (toml, json) {
            (true, true) => {
                let [toml, json] = candidates;
                Err(ConfigError::Ambiguous { toml, json })
            }
            _ => Ok(candidates
                .into_iter()
                .zip([toml, json])
                .find(|(_, there)| *there)
                .map(|(path, _)| path)),
        }
    }
}

/// A file may repeat its own name, as generated ones do, but not claim another's.
fn check_name(file: &SlotFile, expected: &SlotName) -> Result<(), ConfigError> {
    match &file.name {
        Some(name) if name.value != *expected => {
            let message = format!(
                "expected \"{expected}\", the name of the file, found \"{}\": rename one of them",
                name.value
            );
            Err(ConfigError::Invalid {
                problems: vec![name.problem(message)],
            })
        }
        _ => Ok(()),
    }
}

fn slot_name(path: &Path) -> Result<SlotName, ConfigError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let fault = |source| ConfigError::FileName {
        path: path.to_owned(),
        source,
    };
    stem.parse().map_err(fault)
}

fn format_of(path: &Path) -> Option<&'static str> {
    let extension = path.extension().and_then(OsStr::to_str)?;
    EXTENSIONS.into_iter().find(|known| *known == extension)
}

fn read<T>(path: &Path, schema: impl FnOnce(Table<'_>) -> T) -> Result<T, ConfigError> {
    let text = read_text(path)?;
    let parsed = match format_of(path) {
        Some("json") => json::parse(&text),
        _ => toml::parse(&text),
    };
    let node = parsed.map_err(|(span, message)| {
        let at = Some(Location::of(&path.to_owned().into(), &text, span.start));
        ConfigError::Invalid {
            problems: vec![Problem {
                at,
                key: String::new(),
                message,
            }],
        }
    })?;
    let problems = Problems::new(path, text);
    let value = schema(Table::root(&node, &problems));
    let problems = problems.into_vec();
    if problems.is_empty() {
        Ok(value)
    } else {
        Err(ConfigError::Invalid { problems })
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|_| ConfigError::NotText {
        path: path.to_owned(),
    })
}

/// Why a configuration was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file or directory cannot be read.
    #[error("Failed to read configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// A file is far too large to be a configuration.
    #[error("Configuration {} is larger than 1 MiB: expected a TOML or JSON file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file is not text.
    #[error("Configuration {} is not UTF-8 text: expected a TOML or JSON file", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Two files claim to be the same.
    #[error("Both {} and {} exist: remove one of them", toml.display(), json.display())]
    Ambiguous {
        /// The TOML file.
        toml: PathBuf,
        /// The JSON file.
        json: PathBuf,
    },
    /// A file is not called like a slot.
    #[error("Configuration {} is not named after a slot", path.display())]
    FileName {
        /// The file.
        path: PathBuf,
        /// What is wrong with the name.
        #[source]
        source: NameError,
    },
    /// The content is wrong.
    #[error("{}", list(problems))]
    Invalid {
        /// Everything that is wrong, at least one thing.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => format!("Configuration is not valid: {one}"),
        many => many.iter().fold(
            format!("Configuration is not valid, {} problems:", many.len()),
            |mut text, problem| {
                let _ = write!(text, "\n  {problem}");
                text
            },
        ),
    }
}
