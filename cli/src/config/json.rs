//! JSON text to [`Node`].
//!
//! The parser keeps no positions, but a borrowed [`RawValue`] is a slice of the input: its address
//! less the input's address is its place.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::node::{Entry, Node, Value};
use super::toml::SyntaxError;

/// Deepest nesting accepted: configuration needs four, and a parser that recurses needs a limit.
const MAX_DEPTH: usize = 16;

/// Parses a JSON document.
///
/// # Errors
/// When the text is not JSON, a key is given twice, or it nests too deeply; with its place.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let input = Input { text };
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| input.syntax(&error))?;
    input.node(raw, 0)
}

struct Input<'a> {
    text: &'a str,
}

impl<'a> Input<'a> {
    fn syntax(&self, error: &serde_json::Error) -> SyntaxError {
        let line_start: usize = self
            .text
            .split_inclusive('\n')
            .take(error.line().saturating_sub(1))
            .map(str::len)
            .sum();
        let at = line_start
            .saturating_add(error.column().saturating_sub(1))
            .min(self.text.len());
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        (at..at, message.to_owned())
    }

    /// Where a slice of the input stands in it.
    fn span(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr().wrapping_sub(self.text.as_ptr().addr());
        start..start.wrapping_add(part.len())
    }

    fn node(&self, raw: &'a RawValue, depth: usize) -> Result<Node, SyntaxError> {
        let span = self.span(raw.get());
        if depth > MAX_DEPTH {
            return Err((
                span,
                format!("expected at most {MAX_DEPTH} levels of nesting"),
            ));
        }
        // The text was accepted as JSON, so only the kind of value is still open.
        let fault = |error: serde_json::Error| (span.clone(), error.to_string());
        let value = match raw.get().as_bytes().first() {
            Some(b'"') => Value::Text(serde_json::from_str(raw.get()).map_err(fault)?),
            Some(b'{') => {
                let members: Members<'a> = serde_json::from_str(raw.get()).map_err(fault)?;
                self.table(members, &span, depth)?
            }
            Some(b'[') => {
                let items: Vec<&'a RawValue> = serde_json::from_str(raw.get()).map_err(fault)?;
                let items = items
                    .into_iter()
                    .map(|item| self.node(item, depth.saturating_add(1)));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            Some(b'n') => Value::Other("null"),
            _ => match raw.get().parse() {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Other("a number with a fraction or beyond 64 bits"),
            },
        };
        Ok(Node { span, value })
    }

    fn table(
        &self,
        members: Members<'a>,
        table: &Range<usize>,
        depth: usize,
    ) -> Result<Value, SyntaxError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(members.0.len());
        for (key, raw) in members.0 {
            let node = self.node(raw, depth.saturating_add(1))?;
            let key_span = match &key {
                // Without the opening quote, which a reader counts to the key.
                Cow::Borrowed(key) => {
                    let span = self.span(key);
                    span.start.saturating_sub(1)..span.end
                }
                // A key with escapes was copied; its value is the nearest known place.
                Cow::Owned(_) => node.span.clone(),
            };
            if entries.iter().any(|entry| entry.key == *key) {
                return Err((key_span, format!("duplicate key `{key}`")));
            }
            entries.push(Entry {
                key: key.into_owned(),
                key_span,
                node,
            });
        }
        debug_assert!(entries.iter().all(|entry| entry.node.span.end <= table.end));
        Ok(Value::Table(entries))
    }
}

/// The members of an object in the order of the file, duplicates included.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A key that stays borrowed where the text allows it; plain `Cow` never does inside a map.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
            members.push((key, value));
        }
        Ok(Members(members))
    }
}
