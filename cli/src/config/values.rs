//! The types that configuration values have, each with the message for what it does not accept.

use std::num::NonZeroU64;
use std::path::PathBuf;

use hostnet::slot::{InterfaceName, SlotIndex, SlotName};
use store::{Retention, RetentionError};
use uuid::Uuid;

use super::node::{Node, Value};
use super::reader::{FromNode, Ranged, expected};

/// A path that starts at the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AbsolutePath(pub(crate) PathBuf);

impl FromNode for AbsolutePath {
    fn from_node(node: &Node) -> Result<Self, String> {
        let path = PathBuf::from(String::from_node(node)?);
        if path.is_absolute() {
            return Ok(Self(path));
        }
        Err(expected("an absolute path", &node.value))
    }
}

/// An amount of memory or disk space in MiB, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeMib(pub(crate) u64);

impl FromNode for SizeMib {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Integer(number) => match u64::try_from(*number) {
                Ok(mib) if mib > 0 => Ok(Self(mib)),
                _ => Err(expected("a size in MiB, at least 1", &node.value)),
            },
            Value::Text(text) => size(text),
            other => Err(expected(SIZE, other)),
        }
    }
}

const SIZE: &str = "a size: a number of MiB, or text such as \"512MiB\" or \"2GiB\"";

/// Parses text such as `512MiB`. Only binary units: `MB` means two different things to different
/// people, and a machine's memory is no place to guess.
fn size(text: &str) -> Result<SizeMib, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("expected {SIZE}, found {text:?}"))?;
    let factor = match unit.trim_start() {
        "MiB" | "M" => 1,
        "GiB" | "G" => 1 << 10,
        "TiB" | "T" => 1 << 20,
        decimal @ ("kB" | "KB" | "MB" | "GB" | "TB") => {
            return Err(format!(
                "decimal unit {decimal} is not accepted: use MiB, GiB or TiB"
            ));
        }
        _ => return Err(format!("expected {SIZE}, found {text:?}")),
    };
    match number.checked_mul(factor) {
        Some(mib) if mib > 0 => Ok(SizeMib(mib)),
        _ => Err(format!(
            "expected a size from 1MiB to 16EiB, found {text:?}"
        )),
    }
}

/// A number of bytes, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ByteSize(pub(crate) NonZeroU64);

impl FromNode for ByteSize {
    fn from_node(node: &Node) -> Result<Self, String> {
        let wanted = "a number of bytes, or text such as \"512KiB\" or \"10MiB\"";
        let bytes = match &node.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) => bytes(text),
            _ => None,
        };
        let bytes = bytes.and_then(NonZeroU64::new);
        bytes.map(Self).ok_or_else(|| expected(wanted, &node.value))
    }
}

/// Parses text such as `512KiB`, in binary units like [`size`].
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim_start() {
        "KiB" | "K" => 10,
        "MiB" | "M" => 20,
        "GiB" | "G" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The name of a ZFS data set: its pool's, then parts, with slashes between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataSetName(pub(crate) String);

impl FromNode for DataSetName {
    fn from_node(node: &Node) -> Result<Self, String> {
        let text = String::from_node(node)?;
        let is_part = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
            let first = part.bytes().next();
            first.is_some_and(|byte| byte.is_ascii_alphanumeric()) && part.bytes().all(plain)
        };
        if text.split('/').all(is_part) {
            return Ok(Self(text));
        }
        Err(expected(
            "the name of a ZFS data set such as microvms/storage/states",
            &node.value,
        ))
    }
}

/// Which snapshots are kept: a number of them, or rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keep(pub(crate) Retention);

impl FromNode for Keep {
    fn from_node(node: &Node) -> Result<Self, String> {
        if let Ok(count) = Ranged::<0, 1_000_000>::from_node(node) {
            let count = u32::try_from(count.0).map_err(|error| error.to_string())?;
            return Ok(Self(Retention::newest(count)));
        }
        let text = String::from_node(node)?;
        text.parse()
            .map(Self)
            .map_err(|error: RetentionError| error.to_string())
    }
}

/// A serial number: what virtio has room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Serial(pub(crate) String);

/// Longest serial number of a disk in bytes (virtio 1.2 §5.2.6, GET_ID).
const MAX_SERIAL: usize = 20;

impl FromNode for Serial {
    fn from_node(node: &Node) -> Result<Self, String> {
        let text = String::from_node(node)?;
        if text.len() <= MAX_SERIAL && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text));
        }
        Err(expected(
            "a serial number of 1 to 20 visible ASCII characters",
            &node.value,
        ))
    }
}

/// An ext4 label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) String);

/// Longest ext4 label in bytes.
const MAX_LABEL: usize = 16;

impl FromNode for Label {
    fn from_node(node: &Node) -> Result<Self, String> {
        let text = String::from_node(node)?;
        let fits = text.len() <= MAX_LABEL && !text.starts_with('-');
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text));
        }
        Err(expected(
            "a label of 1 to 16 visible ASCII characters",
            &node.value,
        ))
    }
}

/// A unicast MAC address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl FromNode for Mac {
    fn from_node(node: &Node) -> Result<Self, String> {
        let error = || {
            expected(
                "a unicast MAC address such as \"02:00:00:00:00:01\"",
                &node.value,
            )
        };
        let Value::Text(text) = &node.value else {
            return Err(error());
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            // The parser of numbers alone would also take a sign.
            let is_byte = |part: &&str| part.len() == 2 && !part.starts_with('+');
            let part = parts.next().filter(is_byte).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        let [first, ..] = bytes;
        let unicast = first & 1 == 0 && bytes != [0; 6];
        if parts.next().is_some() || !unicast {
            Err(error())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl FromNode for InterfaceName {
    fn from_node(node: &Node) -> Result<Self, String> {
        String::from_node(node)?
            .parse()
            .map_err(|error| format!("{error}"))
    }
}

impl FromNode for SlotName {
    fn from_node(node: &Node) -> Result<Self, String> {
        String::from_node(node)?
            .parse()
            .map_err(|error| format!("{error}"))
    }
}

impl FromNode for SlotIndex {
    fn from_node(node: &Node) -> Result<Self, String> {
        let index = match &node.value {
            Value::Integer(number) => Self::new(*number),
            _ => None,
        };
        index.ok_or_else(|| expected("a whole number from 1 to 255", &node.value))
    }
}

impl FromNode for Uuid {
    fn from_node(node: &Node) -> Result<Self, String> {
        let text = String::from_node(node)?;
        let uuid = Self::try_parse(&text).ok().filter(|uuid| !uuid.is_nil());
        uuid.ok_or_else(|| expected("a UUID that is not all zero", &node.value))
    }
}

/// One kernel parameter, or several separated by spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelParam(pub(crate) String);

impl FromNode for KernelParam {
    fn from_node(node: &Node) -> Result<Self, String> {
        let text = String::from_node(node)?;
        if text
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        {
            return Ok(Self(text));
        }
        Err(expected("printable ASCII without line breaks", &node.value))
    }
}
