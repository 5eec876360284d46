//! TOML text to [`Node`].

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::node::{Entry, Node, Value};

/// Why a text is not TOML: where, and what the parser said.
pub(crate) type SyntaxError = (Range<usize>, String);

/// Parses a TOML document.
///
/// # Errors
/// When the text is not TOML; with its place.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let document = DeTable::parse(text).map_err(|error| describe(&error))?;
    let span = document.span();
    let value = table(document.into_inner())?;
    Ok(Node { span, value })
}

fn describe(error: &toml::de::Error) -> SyntaxError {
    (
        error.span().unwrap_or(0..0),
        error.message().replace('\n', ", "),
    )
}

fn table(table: DeTable<'_>) -> Result<Value, SyntaxError> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let key_span = key.span();
        entries.push(Entry {
            key: key.into_inner().into_owned(),
            key_span,
            node: node(value)?,
        });
    }
    entries.sort_by_key(|entry| entry.key_span.start);
    Ok(Value::Table(entries))
}

fn node(value: Spanned<DeValue<'_>>) -> Result<Node, SyntaxError> {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            let too_large = |_| {
                (
                    span.clone(),
                    "expected a number that fits 64 bits".to_owned(),
                )
            };
            Value::Integer(parsed.map_err(too_large)?)
        }
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => {
            Value::Array(items.into_iter().map(node).collect::<Result<_, _>>()?)
        }
        DeValue::Table(inner) => table(inner)?,
    };
    Ok(Node { span, value })
}
