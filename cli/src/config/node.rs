//! A configuration file as a tree whose every key and value knows its place in the text.
//!
//! TOML and JSON both become this tree, so that everything after parsing, the error messages
//! included, is the same for both.

use std::ops::Range;

/// A value and the bytes of the file it came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Byte range in the file.
    pub(crate) span: Range<usize>,
    /// What stands there.
    pub(crate) value: Value,
}

/// What a configuration file can hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Bool(bool),
    /// A list.
    Array(Vec<Node>),
    /// Keys with values, in the order of the file.
    Table(Vec<Entry>),
    /// Something no key takes, by the name of its type.
    Other(&'static str),
}

/// One key of a table with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: String,
    /// Where the key itself stands.
    pub(crate) key_span: Range<usize>,
    /// Its value.
    pub(crate) node: Node,
}

impl Value {
    /// What this is, in the words of an error message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("the text {text:?}"),
            Self::Integer(number) => format!("the number {number}"),
            Self::Bool(value) => value.to_string(),
            Self::Array(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
            Self::Other(name) => (*name).to_owned(),
        }
    }
}
