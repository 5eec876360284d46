//! Reads typed values out of a [`Node`] and reports everything it cannot use.
//!
//! A [`Table`] remembers each key it was asked for. [`Table::finish`] reports the others, so the
//! list of known keys can never drift from the code that reads them.

use std::ops::Range;

use super::node::{Entry, Node, Value};
use super::problem::{Located, Problems};

/// Similarity from which on a known key is offered for an unknown one; 1 is equal.
const SUGGEST_FROM: f64 = 0.7;

/// A type that a configuration value can have.
pub(crate) trait FromNode: Sized {
    /// Reads the value, or says what was expected instead.
    fn from_node(node: &Node) -> Result<Self, String>;
}

/// A table being read.
pub(crate) struct Table<'a> {
    prefix: String,
    span: Range<usize>,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
    problems: &'a Problems,
}

impl<'a> Table<'a> {
    /// The whole document.
    pub(crate) fn root(node: &'a Node, problems: &'a Problems) -> Self {
        let mut table = Self::empty(problems);
        table.fill(node, "");
        table
    }

    fn empty(problems: &'a Problems) -> Self {
        Self {
            prefix: String::new(),
            span: 0..0,
            entries: &[],
            asked: Vec::new(),
            problems,
        }
    }

    fn fill(&mut self, node: &'a Node, key: &str) {
        self.prefix = if key.is_empty() {
            String::new()
        } else {
            format!("{key}.")
        };
        self.span = node.span.clone();
        match &node.value {
            Value::Table(entries) => self.entries = entries,
            other => self
                .problems
                .add(&node.span, key, expected("a table", other)),
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The value of `key`, or nothing when it is absent or wrong; the latter is reported.
    pub(crate) fn get<T: FromNode>(&mut self, key: &'static str) -> Option<Located<T>> {
        let entry = self.find(key)?;
        let full = format!("{}{key}", self.prefix);
        match T::from_node(&entry.node) {
            Ok(value) => Some(Located {
                value,
                at: self.problems.locate(&entry.node.span),
                key: full,
            }),
            Err(message) => {
                self.problems.add(&entry.node.span, &full, message);
                None
            }
        }
    }

    /// Like [`Self::get`], and reports an absent key.
    pub(crate) fn require<T: FromNode>(&mut self, key: &'static str) -> Option<Located<T>> {
        if !self.entries.iter().any(|entry| entry.key == key) {
            let whole = self.prefix.trim_end_matches('.');
            self.problems
                .add(&self.span, whole, format!("the key `{key}` is missing"));
        }
        self.get(key)
    }

    /// The table at `key`; an empty one when it is absent.
    pub(crate) fn table(&mut self, key: &'static str) -> Table<'a> {
        let mut table = Self::empty(self.problems);
        table.prefix = format!("{}{key}.", self.prefix);
        if let Some(entry) = self.find(key) {
            table.fill(&entry.node, &format!("{}{key}", self.prefix));
        }
        table
    }

    /// Whether `key` is there, right or wrong.
    pub(crate) fn has(&mut self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// The list of tables at `key`; an empty one when it is absent.
    pub(crate) fn tables(&mut self, key: &'static str) -> Vec<Table<'a>> {
        let Some(entry) = self.find(key) else {
            return Vec::new();
        };
        let full = format!("{}{key}", self.prefix);
        let Value::Array(items) = &entry.node.value else {
            let message = expected(
                &format!("a list of tables, `[[{full}]]`"),
                &entry.node.value,
            );
            self.problems.add(&entry.node.span, &full, message);
            return Vec::new();
        };
        let tables = items.iter().enumerate().map(|(number, item)| {
            let mut table = Self::empty(self.problems);
            table.fill(item, &format!("{full}[{number}]"));
            table
        });
        tables.collect()
    }

    /// The tables in the table at `key`, each with its name; none when it is absent.
    pub(crate) fn named_tables(&mut self, key: &'static str) -> Vec<(String, Table<'a>)> {
        let outer = self.table(key);
        let tables = outer.entries.iter().map(|entry| {
            let mut table = Self::empty(self.problems);
            table.fill(&entry.node, &format!("{}{}", outer.prefix, entry.key));
            (entry.key.clone(), table)
        });
        tables.collect()
    }

    /// Like [`Self::tables`], where one table may also stand alone, without a list.
    pub(crate) fn table_or_tables(&mut self, key: &'static str) -> Vec<Table<'a>> {
        match self.find(key).map(|entry| &entry.node.value) {
            Some(Value::Table(_)) => vec![self.table(key)],
            _ => self.tables(key),
        }
    }

    /// Whether a list stands at `key`.
    pub(crate) fn is_list(&self, key: &str) -> bool {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.is_some_and(|entry| matches!(entry.node.value, Value::Array(_)))
    }

    /// Where the table stands, as a problem's place.
    pub(crate) fn located(&self) -> Located<()> {
        let key = self.prefix.trim_end_matches('.').to_owned();
        Located {
            value: (),
            at: self.problems.locate(&self.span),
            key,
        }
    }

    /// Reports every key that nothing asked for.
    pub(crate) fn finish(self) {
        for entry in self.entries {
            if !self.asked.contains(&entry.key.as_str()) {
                let full = format!("{}{}", self.prefix, entry.key);
                self.problems
                    .add(&entry.key_span, &full, unknown(&entry.key, &self.asked));
            }
        }
    }
}

/// What was expected, and what stands there.
pub(crate) fn expected(what: &str, found: &Value) -> String {
    format!("expected {what}, found {}", found.describe())
}

/// Says that `name` is unknown, and which of `known` may have been meant.
pub(crate) fn unknown(name: &str, known: &[&str]) -> String {
    let nearest = nearest(name, known.iter().copied());
    let hint = nearest.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let mut known = known.to_vec();
    known.sort_unstable();
    format!("unknown key{hint} (known here: {})", known.join(", "))
}

/// The most similar of `known`, when it is similar at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let best = scored.max_by(|left, right| left.0.total_cmp(&right.0))?;
    (best.0 >= SUGGEST_FROM).then_some(best.1)
}

impl FromNode for String {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Text(text) if text.contains('\0') => Err("expected text without NUL".to_owned()),
            Value::Text(text) if text.is_empty() => Err("expected text, found none".to_owned()),
            Value::Text(text) => Ok(text.clone()),
            other => Err(expected("text", other)),
        }
    }
}

impl FromNode for bool {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Bool(value) => Ok(*value),
            other => Err(expected("true or false", other)),
        }
    }
}

impl FromNode for i64 {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Integer(number) => Ok(*number),
            other => Err(expected("a whole number", other)),
        }
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Array(items) => items.iter().map(T::from_node).collect(),
            other => Err(expected("a list", other)),
        }
    }
}

/// A whole number from `LOW` to `HIGH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranged<const LOW: i64, const HIGH: i64>(pub(crate) i64);

impl<const LOW: i64, const HIGH: i64> FromNode for Ranged<LOW, HIGH> {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Integer(number) if (LOW..=HIGH).contains(number) => Ok(Self(*number)),
            other => Err(expected(
                &format!("a whole number from {LOW} to {HIGH}"),
                other,
            )),
        }
    }
}
