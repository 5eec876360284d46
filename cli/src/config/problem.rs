//! What is wrong with a configuration, said with file, line, column and key.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

/// A place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Location {
    /// The file.
    #[serde(serialize_with = "path_text")]
    pub(crate) file: Arc<PathBuf>,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
}

impl Location {
    /// The place of byte `offset` of `text`, which is the content of `file`.
    pub(crate) fn of(file: &Arc<PathBuf>, text: &str, offset: usize) -> Self {
        let before = text.get(..offset.min(text.len())).unwrap_or(text);
        let line_start = before
            .rfind('\n')
            .map_or(0, |newline| newline.saturating_add(1));
        let column = before
            .get(line_start..)
            .map_or(0, |line| line.chars().count());
        let line = before.matches('\n').count();
        Self {
            file: Arc::clone(file),
            line: line.saturating_add(1),
            column: column.saturating_add(1),
        }
    }
}

fn path_text<S: serde::Serializer>(path: &Arc<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A value with the place and the full key that set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it is set.
    pub(crate) at: Location,
    /// The key that sets it, such as `machine.memory`.
    pub(crate) key: String,
}

impl<T> Located<T> {
    /// A problem with this value.
    pub(crate) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem {
            at: Some(self.at.clone()),
            key: self.key.clone(),
            message: message.into(),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// Where; nothing when no file says it, as for a derived value.
    #[serde(flatten)]
    pub(crate) at: Option<Location>,
    /// The full key, or empty when the whole file is meant.
    pub(crate) key: String,
    /// What is wrong, what was expected, what to do.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Collects the problems of one file while it is read.
#[derive(Debug)]
pub(crate) struct Problems {
    file: Arc<PathBuf>,
    text: String,
    found: RefCell<Vec<Problem>>,
}

impl Problems {
    /// None so far in `file`, whose content is `text`.
    pub(crate) fn new(file: &Path, text: String) -> Self {
        Self {
            file: Arc::new(file.to_owned()),
            text,
            found: RefCell::default(),
        }
    }

    /// Place of a byte range.
    pub(crate) fn locate(&self, span: &Range<usize>) -> Location {
        Location::of(&self.file, &self.text, span.start)
    }

    /// Adds a problem with the value of `key` at `span`.
    pub(crate) fn add(&self, span: &Range<usize>, key: &str, message: impl Into<String>) {
        let at = Some(self.locate(span));
        let problem = Problem {
            at,
            key: key.to_owned(),
            message: message.into(),
        };
        self.found.borrow_mut().push(problem);
    }

    /// What was found, in order of place.
    pub(crate) fn into_vec(self) -> Vec<Problem> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|problem| problem.at.as_ref().map(|at| (at.line, at.column)));
        found
    }
}
