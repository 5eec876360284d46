//! Values that are one of a few words.

use std::fmt;

use serde::Serialize;
use store::copy::Method;

use super::node::{Node, Value};
use super::reader::{FromNode, expected, nearest};

/// Reads one of a few words; `words` pairs each with its meaning.
pub(super) fn word<T: Copy>(node: &Node, words: &[(&str, T)]) -> Result<T, String> {
    let list: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
    let Value::Text(text) = &node.value else {
        return Err(expected(&list.join(" or "), &node.value));
    };
    if let Some((_, value)) = words.iter().find(|(word, _)| word == text) {
        return Ok(*value);
    }
    let near = nearest(text, words.iter().map(|(word, _)| *word));
    let hint = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    Err(format!(
        "{}{hint}",
        expected(&list.join(" or "), &node.value)
    ))
}

/// How the guest finds its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Discovery {
    /// ACPI tables.
    #[default]
    Acpi,
    /// Kernel parameters.
    Cmdline,
}

impl FromNode for Discovery {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(node, &[("acpi", Self::Acpi), ("cmdline", Self::Cmdline)])
    }
}

/// How the guest reads its devices' registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Registers {
    /// From memory that only it cannot write to.
    #[default]
    Memory,
    /// By leaving the guest.
    Exits,
}

impl FromNode for Registers {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(node, &[("memory", Self::Memory), ("exits", Self::Exits)])
    }
}

/// What a guest's console is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ConsoleMode {
    /// The serial port, which every kernel has from its first message on.
    #[default]
    Serial,
    /// The virtio console, which takes many bytes at a time.
    Hvc,
}

impl FromNode for ConsoleMode {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(node, &[("serial", Self::Serial), ("hvc", Self::Hvc)])
    }
}

/// What the machine tells the guest's kernel besides what it has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// What makes it boot sooner.
    #[default]
    Fast,
    /// Nothing.
    Compatible,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fast => "fast",
            Self::Compatible => "compatible",
        })
    }
}

impl FromNode for Profile {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(
            node,
            &[("fast", Self::Fast), ("compatible", Self::Compatible)],
        )
    }
}

/// How the guest learns its address and host name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Identity {
    /// By kernel parameters.
    #[default]
    KernelParams,
    /// Not from us.
    None,
}

impl FromNode for Identity {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(
            node,
            &[("kernel-params", Self::KernelParams), ("none", Self::None)],
        )
    }
}

/// Whether the host's kernel serves a network card's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Vhost {
    /// It does not.
    #[default]
    Off,
    /// It does where it can.
    Auto,
    /// It has to.
    On,
}

impl FromNode for Vhost {
    fn from_node(node: &Node) -> Result<Self, String> {
        match &node.value {
            Value::Bool(true) => Ok(Self::On),
            Value::Bool(false) => Ok(Self::Off),
            Value::Text(text) if text == "auto" => Ok(Self::Auto),
            other => Err(expected("true, false or \"auto\"", other)),
        }
    }
}

/// How a disk does its I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Engine {
    /// io_uring where the host allows it.
    #[default]
    Auto,
    /// io_uring.
    IoUring,
    /// One system call at a time.
    Sync,
}

impl FromNode for Engine {
    fn from_node(node: &Node) -> Result<Self, String> {
        word(
            node,
            &[
                ("auto", Self::Auto),
                ("io_uring", Self::IoUring),
                ("sync", Self::Sync),
            ],
        )
    }
}

/// How copies of images are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backend(pub(crate) Method);

impl FromNode for Backend {
    fn from_node(node: &Node) -> Result<Self, String> {
        let method = word(
            node,
            &[
                ("auto", Method::Auto),
                ("reflink", Method::Reflink),
                // What btrfs shares are blocks as well.
                ("btrfs", Method::Reflink),
                ("zfs", Method::Zfs),
                ("copy", Method::Copy),
            ],
        )?;
        Ok(Self(method))
    }
}
